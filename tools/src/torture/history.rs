//! What every client of a run did and was told, as one list of events (docs/torture.md draws its lines).
//!
//! What always holds: the list is in the order in which things were noted, and times never fall in it; an `invoke` is noted before
//! the request leaves, everything else after the answer is there. So what is read off the times is never more than what was so.
//!
//! An event takes [`EVENT_BYTES`]; a run of N events holds N of them, and never more than [`EVENTS_MAX`].

use std::io::Write;

use logstore::id::{ClientMsgId, ConversationId, SeqId, UserId};
use serde::Serialize;

use super::fault::FaultKind;

/// Most events of a run: 2 GiB of them. A run that comes here ends its load early and says so.
pub const EVENTS_MAX: usize = 24_000_000;
/// Of one event in memory; a change of members adds its users.
pub const EVENT_BYTES: usize = 96;

const _: () = assert!(std::mem::size_of::<Event>() <= EVENT_BYTES);

/// A node, as the histories name it: 1, 2, 3, ...
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Replica(pub u16);

/// One thing that a client did or was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Since the run began.
    pub t_ns: u64,
    /// Whose client.
    pub user: UserId,
    /// Where.
    pub conversation: ConversationId,
    /// Of which message, or change of members; 0 for a read.
    pub client_msg_id: ClientMsgId,
    /// Its place; 0: not told. Of a read: the newest record it told of.
    pub seq_id: SeqId,
    /// What happened.
    pub op: Op,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A message or a change is about to be sent for the first time. Of one user, conversation and pipeline, messages keep the order
    /// of these events; pipeline 0 promises none.
    Invoke {
        /// Which pipeline of its user.
        pipeline: u32,
    },
    /// It is durable.
    Ack,
    /// It is not in the log and will not be.
    Refuse,
    /// Its client died before it heard of it, and nobody asks again.
    Gone,
    /// The client library handed a record on.
    Deliver(Told),
    /// A record in what a replica told a member after everything had been healed.
    Final(Replica, Told),
    /// A replica told how far the conversation goes for this user.
    Read {
        /// Asked then.
        since_ns: u64,
        /// Who answered.
        replica: Replica,
    },
}

/// The change of members that a record tells of, if it is one.
pub type Told = Option<Box<Change>>;

/// Who came and who went by a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Members from this record on.
    pub joined: Vec<UserId>,
    /// For whom this is the last record.
    pub left: Vec<UserId>,
}

/// A fault that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// To whom.
    pub replica: Replica,
    /// From here on.
    pub from_ns: u64,
    /// Until the node was itself again; `None`: never.
    pub healed_ns: Option<u64>,
    /// What it led.
    pub shards: Vec<u16>,
}

/// All of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// In order.
    pub events: Vec<Event>,
    /// In order.
    pub faults: Vec<Fault>,
    /// How many shards the conversations are spread over evenly, by bucket.
    pub shards: u16,
    /// When the load ended.
    pub end_ns: u64,
}

impl History {
    /// The shard of a conversation.
    pub fn shard_of(&self, conversation: ConversationId) -> u16 {
        // The even table of a new cluster: shard s has the buckets from s * 65536 / shards on.
        let shards = u64::from(self.shards.max(1));
        let bucket = u64::from(conversation.bucket().0);
        (((bucket + 1) * shards - 1) >> 16) as u16
    }

    /// Writes it as JSON lines: events in order, then faults.
    pub fn write(&self, mut out: impl Write) -> std::io::Result<()> {
        for event in &self.events {
            serde_json::to_writer(&mut out, &Written(event))?;
            out.write_all(b"\n")?;
        }
        for fault in &self.faults {
            serde_json::to_writer(&mut out, &FaultLine::of(fault))?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }
}

/// An event as it is written.
#[derive(Serialize)]
struct Line<'a> {
    t_ns: u64,
    op: &'static str,
    user: u64,
    conversation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_msg_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<Replica>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ns: Option<u64>,
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    joined: &'a [u64],
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    left: &'a [u64],
}

/// An event, to be written as a [`Line`].
struct Written<'a>(&'a Event);

impl Serialize for Written<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.0;
        let (op, replica, pipeline, since_ns, told) = match &event.op {
            Op::Invoke { pipeline } => ("invoke", None, Some(*pipeline), None, None),
            Op::Ack => ("ack", None, None, None, None),
            Op::Refuse => ("refuse", None, None, None, None),
            Op::Gone => ("gone", None, None, None, None),
            Op::Deliver(told) => ("deliver", None, None, None, told.as_deref()),
            Op::Final(replica, told) => ("final", Some(*replica), None, None, told.as_deref()),
            Op::Read { since_ns, replica } => ("read", Some(*replica), None, Some(*since_ns), None),
        };
        let id = event.client_msg_id.0;
        let numbers = |users: &[UserId]| users.iter().map(|user| user.0).collect::<Vec<_>>();
        let (joined, left) = told.map_or_else(Default::default, |told| (numbers(&told.joined), numbers(&told.left)));
        Line {
            t_ns: event.t_ns,
            op,
            user: event.user.0,
            conversation: event.conversation.to_string(),
            client_msg_id: (id != 0).then(|| uuid::Uuid::from_u128(id).to_string()),
            seq_id: (event.seq_id.0 != 0).then_some(event.seq_id.0),
            replica,
            pipeline,
            since_ns,
            joined: &joined,
            left: &left,
        }
        .serialize(serializer)
    }
}

/// A fault as it is written.
#[derive(Serialize)]
struct FaultLine<'a> {
    t_ns: u64,
    op: &'static str,
    fault: &'static str,
    replica: Replica,
    healed_ns: Option<u64>,
    shards: &'a [u16],
}

impl FaultLine<'_> {
    fn of(fault: &Fault) -> FaultLine<'_> {
        let Fault { kind, replica, from_ns, healed_ns, shards } = fault;
        let (replica, healed_ns) = (*replica, *healed_ns);
        FaultLine { t_ns: *from_ns, op: "fault", fault: kind.name(), replica, healed_ns, shards }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_happened_and_nothing_that_is_not_known() {
        let of = |op, seq| Event {
            t_ns: 7,
            user: UserId(3),
            conversation: ConversationId::group(5),
            client_msg_id: ClientMsgId(1),
            seq_id: SeqId(seq),
            op,
        };
        let change = Change { joined: vec![UserId(4)], left: Vec::new() };
        let fault = Fault { kind: FaultKind::Kill, replica: Replica(1), from_ns: 9, healed_ns: None, shards: vec![0] };
        let events = vec![of(Op::Invoke { pipeline: 2 }, 0), of(Op::Final(Replica(1), Some(Box::new(change))), 6)];
        let mut out = Vec::new();
        History { events, faults: vec![fault], shards: 4, end_ns: 10 }.write(&mut out).unwrap();
        let lines: Vec<serde_json::Value> =
            String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (conversation, id) = ("80000000000000000000000000000005", "00000000-0000-0000-0000-000000000001");
        assert_eq!(
            lines,
            [
                serde_json::json!({"t_ns": 7, "op": "invoke", "user": 3, "conversation": conversation, "client_msg_id": id, "pipeline": 2}),
                serde_json::json!({"t_ns": 7, "op": "final", "user": 3, "conversation": conversation, "client_msg_id": id, "seq_id": 6, "replica": 1, "joined": [4]}),
                serde_json::json!({"t_ns": 9, "op": "fault", "fault": "kill", "replica": 1, "healed_ns": null, "shards": [0]}),
            ]
        );
    }

    #[test]
    fn a_conversations_shard_is_that_of_the_even_table() {
        for shards in [1u16, 3, 4, 64] {
            let history = History { shards, ..History::default() };
            for number in 0..200 {
                let conversation = ConversationId::group(number);
                let bucket = usize::from(conversation.bucket().0);
                let expected = (0..usize::from(shards)).rfind(|s| s * 65536 / usize::from(shards) <= bucket).unwrap();
                assert_eq!(usize::from(history.shard_of(conversation)), expected);
            }
        }
    }
}
