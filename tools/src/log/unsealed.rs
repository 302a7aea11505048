//! Messages that are in the journal and not yet in a segment.
//!
//! What always holds: an entry counts once, however often it was copied forward; its place in the conversation is not known, because
//! applying gives it. What was appended and never committed, or was refused when it was applied, is among them.

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use logstore::id::{LogId, LogIndex, ShardId, TimeMs};
use logstore::{EntryKind, SegmentSet};
use sequencer::{Batch, Command, Send};

use super::fact::Fact;
use super::offline::Offline;
use crate::exit::Failure;
use crate::user::{kind_name, log_time, uuid};

/// A message of the journal.
pub struct UnsealedSend<'a> {
    pub file: &'a str,
    pub shard: ShardId,
    pub index: LogIndex,
    pub time: TimeMs,
    pub send: &'a Send,
}

/// Shows all messages of the journal that are in none of these segments, file by file.
pub fn visit(
    offline: &Offline,
    sealed: &[SegmentSet],
    mut show: impl FnMut(UnsealedSend<'_>) -> Result<(), Failure>,
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
                result = sends(frame.payload, |time, send| {
                    show(UnsealedSend { file: &file.path, shard: frame.shard, index, time, send })
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

fn sends(payload: &[u8], mut show: impl FnMut(TimeMs, &Send) -> Result<(), Failure>) -> Result<(), Failure> {
    // What does not decode changed nothing when it was applied.
    let Ok(batch) = Batch::decode(&Bytes::copy_from_slice(payload)) else { return Ok(()) };
    batch.commands.iter().try_for_each(|command| match command {
        Command::Send(send) => show(batch.time, send),
        _ => Ok(()),
    })
}

impl UnsealedSend<'_> {
    /// As it is printed.
    pub fn fact(&self, hex: bool) -> Fact {
        Fact::new("unsealed", self.file)
            .with("shard", self.shard.0)
            .with("conversation", self.send.conversation.to_string())
            .with("kind", kind_name(self.send.kind))
            .with("sender", self.send.sender.to_string())
            .with("client_msg_id", uuid(self.send.client_msg_id))
            .with("proposed_at", log_time(self.time))
            .with("index", self.index.0)
            .with_body(self.send.kind, &self.send.body, hex)
    }
}
