//! Messages that are in the journal and not yet in a segment.
//!
//! What always holds: an entry counts once, however often it was copied forward; the place of a send in its conversation is not known,
//! because applying gives it, while an imported record brings its own. What was appended and never committed, or was refused when it was
//! applied, is among them.

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use logstore::RecordKind;
use logstore::id::{ClientMsgId, ConversationId, LogId, LogIndex, ServerMsgId, ShardId, TimeMs, UserId};
use logstore::{EntryKind, SegmentSet};
use sequencer::{Batch, Command, Import, ImportedRecord, Send};

use super::fact::Fact;
use super::offline::Offline;
use crate::exit::Failure;
use crate::user::{kind_name, log_time, uuid};

/// A message of the journal.
pub struct Unsealed<'a> {
    pub file: &'a str,
    pub shard: ShardId,
    pub index: LogIndex,
    pub time: TimeMs,
    pub message: Message<'a>,
}

/// How it came there.
#[derive(Clone, Copy)]
pub enum Message<'a> {
    Sent(&'a Send),
    Imported(&'a ImportedRecord),
}

impl<'a> Message<'a> {
    /// The message of a command.
    pub fn of(command: &'a Command) -> Option<Message<'a>> {
        match command {
            Command::Send(send) => Some(Message::Sent(send)),
            Command::Import(step) => match step.as_ref() {
                Import::Record(record) => Some(Message::Imported(record)),
                _ => None,
            },
            _ => None,
        }
    }

    pub fn conversation(self) -> ConversationId {
        match self {
            Message::Sent(send) => send.conversation,
            Message::Imported(record) => record.conversation,
        }
    }

    pub fn sender(self) -> UserId {
        match self {
            Message::Sent(send) => send.sender,
            Message::Imported(record) => record.sender,
        }
    }

    pub fn client_msg_id(self) -> ClientMsgId {
        match self {
            Message::Sent(send) => send.client_msg_id,
            Message::Imported(record) => record.client_msg_id,
        }
    }

    /// Only what was imported has one before it is applied.
    pub fn server_msg_id(self) -> Option<ServerMsgId> {
        match self {
            Message::Sent(_) => None,
            Message::Imported(record) => Some(record.server_msg_id),
        }
    }

    fn kind(self) -> RecordKind {
        match self {
            Message::Sent(send) => send.kind,
            Message::Imported(record) => record.kind,
        }
    }

    /// `None`: it was imported without.
    fn body(self) -> Option<&'a Bytes> {
        match self {
            Message::Sent(send) => Some(&send.body),
            Message::Imported(record) => record.body.as_ref(),
        }
    }

    /// Adds what it says to what is known.
    pub fn told(self, fact: Fact, hex: bool) -> Fact {
        let place = match self {
            Message::Sent(_) => None,
            Message::Imported(record) => Some(record),
        };
        let fact = fact
            .with("conversation", self.conversation().to_string())
            .with_some("seq_id", place.map(|record| record.seq.0))
            .with("kind", kind_name(self.kind()))
            .with("sender", self.sender().to_string())
            .with_some("server_msg_id", self.server_msg_id().map(|id| id.to_string()))
            .with("client_msg_id", uuid(self.client_msg_id()))
            .with_some("sent_at", place.map(|record| log_time(record.time)));
        match self.body() {
            None => fact.with("removed", true),
            Some(body) => fact.with_body(self.kind(), body, hex),
        }
    }
}

/// Shows all messages of the journal that are in none of these segments, file by file.
pub fn visit(
    offline: &Offline,
    sealed: &[SegmentSet],
    mut show: impl FnMut(Unsealed<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let upto: HashMap<ShardId, LogIndex> = sealed.iter().filter_map(sealed_upto).collect();
    let mut shown = HashSet::new();
    let journal = offline.journal()?;
    for file in journal.files() {
        let (Some(number), mut result) = (file.number, Ok(())) else { continue };
        journal.walk(number, &mut |block| {
            for frame in block.frames().filter(|frame| frame.entry == Some(EntryKind::Normal)) {
                let LogId { index, term, .. } = frame.id.unwrap_or_default();
                let is_sealed = upto.get(&frame.shard).is_some_and(|upto| index <= *upto);
                if result.is_err() || is_sealed || !shown.insert((frame.shard, index, term)) {
                    continue;
                }
                result = messages(frame.payload, |time, message| {
                    show(Unsealed { file: &file.path, shard: frame.shard, index, time, message })
                });
            }
        })?;
        result?;
    }
    Ok(())
}

/// Up to which entry a shard's log is in segments.
fn sealed_upto(set: &SegmentSet) -> Option<(ShardId, LogIndex)> {
    let checkpoint = set.manifest().checkpoint()?;
    Some((set.manifest().shard(), checkpoint.seal.index))
}

fn messages(payload: &[u8], mut show: impl FnMut(TimeMs, Message<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    // What does not decode changed nothing when it was applied.
    let Ok(batch) = Batch::decode(&Bytes::copy_from_slice(payload)) else { return Ok(()) };
    batch.commands.iter().filter_map(Message::of).try_for_each(|message| show(batch.time, message))
}

impl Unsealed<'_> {
    /// As it is printed.
    pub fn fact(&self, hex: bool) -> Fact {
        let fact = Fact::new("unsealed", self.file).with("shard", self.shard.0);
        self.message.told(fact, hex).with("proposed_at", log_time(self.time)).with("index", self.index.0)
    }
}
