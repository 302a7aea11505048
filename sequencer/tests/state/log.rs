//! A log to apply to one state, and a cluster of states whose outboxes are pumped.

use bytes::Bytes;
use logstore::RecordKind;
use logstore::id::{
    Bucket, ClientMsgId, ConnectionId, ConversationId, HistoryId, LogIndex, SeqId, ShardId, TimeMs, UserId,
};
use sequencer::state::{Brought, HeirSearch, Look, ShardState, name_home};
use sequencer::{AccountSeed, Applied, BatchBuilder, Command, GroupChange, Outcome, Refusal, Send, Stored};

/// When the logs of tests begin.
pub const BEGIN: u64 = 1_800_000_000_000;

/// One shard that owns everything, and its log so far.
pub struct Log {
    pub state: ShardState,
    pub now: u64,
    pub entries: Vec<Bytes>,
}

impl Log {
    /// A log whose first entry is `Init`.
    pub fn new() -> Log {
        let mut log = Log { state: ShardState::new(ShardId(1)), now: BEGIN, entries: Vec::new() };
        log.one(init(&[(0, u16::MAX, 1)]));
        log
    }

    pub fn apply(&mut self, commands: &[Command]) -> Applied {
        let mut builder = BatchBuilder::new();
        for command in commands {
            builder.add(command);
        }
        let payload = builder.finish(TimeMs(self.now));
        self.entries.push(payload.clone());
        self.state.apply(LogIndex(self.entries.len() as u64), &payload)
    }

    pub fn one(&mut self, command: Command) -> Outcome {
        let mut applied = self.apply(&[command]);
        assert_eq!(applied.outcomes.len(), 1);
        applied.outcomes.remove(0)
    }

    pub fn stored(&mut self, command: Command) -> Stored {
        match self.one(command) {
            Outcome::Sent(stored) => stored,
            other => panic!("not stored: {other:?}"),
        }
    }

    /// Seals after `ms` more.
    pub fn seal_after(&mut self, ms: u64) {
        self.now += ms;
        assert_eq!(self.one(Command::Seal), Outcome::Done);
    }

    /// A group of these members, owned by the first.
    pub fn group(&mut self, number: u64, members: &[u64]) -> ConversationId {
        let group = ConversationId::group(number);
        let outcome = self.one(create(number, members[0], &members[1..], number));
        assert!(matches!(outcome, Outcome::Group { seq: SeqId(1), .. }), "{outcome:?}");
        group
    }

    /// A change with the heir that a proposer would have found now.
    pub fn with_heir(&self, command: Command) -> Command {
        let Command::GroupChange(mut change) = command else { return command };
        if let Some(mut search) = HeirSearch::begin(&Look::new(&self.state, &mut Brought::default()), &change) {
            while search.step(&Look::new(&self.state, &mut Brought::default()), 2) {}
            change.heir = search.heir();
        }
        Command::GroupChange(change)
    }

    /// The state that the same entries give from scratch.
    pub fn replayed(&self) -> ShardState {
        let mut state = ShardState::new(ShardId(1));
        for (place, payload) in self.entries.iter().enumerate() {
            state.apply(LogIndex(place as u64 + 1), payload);
        }
        state
    }
}

pub fn init(table: &[(u16, u16, u16)]) -> Command {
    let range = |&(from, to, shard)| (Bucket(from), Bucket(to), ShardId(shard));
    Command::Init { history: HistoryId(7), incarnation: 1, table_epoch: 1, table: table.iter().map(range).collect() }
}

/// A UUIDv7 of this clock; `n` tells apart those of one millisecond.
pub fn id_at(ms: u64, n: u64) -> ClientMsgId {
    ClientMsgId(u128::from(ms) << 80 | 7 << 76 | 2 << 62 | u128::from(n))
}

pub fn send(conversation: ConversationId, sender: u64, id: ClientMsgId, text: &str) -> Command {
    Command::Send(send_of(conversation, sender, id, text))
}

pub fn send_of(conversation: ConversationId, sender: u64, id: ClientMsgId, text: &str) -> Send {
    let body = Bytes::copy_from_slice(text.as_bytes());
    Send {
        conversation,
        sender: UserId(sender),
        origin: ConnectionId(9),
        client_msg_id: id,
        kind: RecordKind::TEXT,
        body_hash: Send::hash_of(RecordKind::TEXT, &body),
        checked_upto: 0,
        body,
    }
}

/// A creation's request is an id in its group like those of the creator's sends: far from what tests count from 0.
pub fn create(group: u64, creator: u64, members: &[u64], request: u64) -> Command {
    Command::GroupCreate {
        group: ConversationId::group(group),
        creator: UserId(creator),
        request: id_at(BEGIN, 1 << 40 | request),
        name: format!("group {group}"),
        members: users(members),
    }
}

pub fn change(group: ConversationId, actor: u64, add: &[u64], remove: &[u64], request: ClientMsgId) -> Command {
    Command::GroupChange(GroupChange::new(group, UserId(actor), request, users(add), users(remove)))
}

pub fn users(ids: &[u64]) -> Vec<UserId> {
    ids.iter().copied().map(UserId).collect()
}

pub fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

/// Shards whose buckets are cut evenly, pumped by hand.
pub struct Cluster {
    pub logs: Vec<Log>,
}

impl Cluster {
    pub fn new(shards: u16) -> Cluster {
        let width = 65536 / u32::from(shards);
        let range = |n: u16| {
            let from = u32::from(n) * width;
            (from as u16, (from + width - 1) as u16, n + 1)
        };
        let table: Vec<_> = (0..shards).map(range).collect();
        let log = |n: u16| {
            let mut log = Log { state: ShardState::new(ShardId(n + 1)), now: BEGIN, entries: Vec::new() };
            log.one(init(&table));
            log
        };
        Cluster { logs: (0..shards).map(log).collect() }
    }

    pub fn at(&mut self, conversation: ConversationId) -> &mut Log {
        self.logs.iter_mut().find(|log| log.state.owns(conversation)).unwrap()
    }

    pub fn home(&mut self, user: UserId) -> &mut Log {
        self.at(ConversationId::system(user))
    }

    /// Carries one batch of effects over, and its acknowledgement back. Whether there was one.
    pub fn pump_one(&mut self) -> bool {
        let waiting = self.logs.iter().position(|log| !log.state.outbox_targets().is_empty());
        let Some(from) = waiting else { return false };
        let to = self.logs[from].state.outbox_targets()[0];
        let (incarnation, first, effects) = self.logs[from].state.outbox(to, 3).unwrap();
        let from_id = self.logs[from].state.shard();
        let target = self.logs.iter_mut().find(|log| log.state.shard() == to).unwrap();
        let outcome = target.one(Command::Effects { from: from_id, incarnation, first, effects });
        let Outcome::Effects { last } = outcome else { panic!("{outcome:?}") };
        self.logs[from].one(Command::AckEffects { to, incarnation, upto: last });
        true
    }

    /// Pumps until nothing waits.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.pump_one() {
                return;
            }
        }
        panic!("effects without end");
    }

    /// Registers a name and waits for its account.
    pub fn account(&mut self, name: &str) -> UserId {
        let outcome = self.at(name_home(name)).one(claim(name, 1));
        let Outcome::Claimed { user, .. } = outcome else { panic!("{outcome:?}") };
        self.settle();
        user
    }
}

pub fn claim(name: &str, request: u64) -> Command {
    let seed = AccountSeed { password_phc: format!("phc of {name}") };
    Command::ClaimName { name: name.to_owned(), seed, request: id_at(BEGIN, request) }
}
