//! What an entry tells of times and effects, and an entry whose acknowledgements count only so far.

use logstore::id::{ShardId, TimeMs};
use logstore::{Entry, EntryKind};

use crate::Command;
use crate::codec::{self, View};
use crate::command::Batch;

/// What an entry of commands tells.
pub(super) struct Told {
    /// The proposer's time.
    pub(super) time: TimeMs,
    /// Effects that came with it.
    pub(super) effects: Vec<Effects>,
}

/// A run of effects of one shard.
pub(super) struct Effects {
    pub(super) from: ShardId,
    pub(super) incarnation: u64,
    /// The number of the first one.
    pub(super) first: u64,
    pub(super) count: u64,
}

/// What an entry tells; nothing, if it carries no commands or apply would take it for malformed.
pub(super) fn told(entry: &Entry) -> Option<Told> {
    let batch = codec::check(&entry.payload).ok().filter(|_| entry.kind == EntryKind::Normal)?;
    let time = batch.time;
    let effects = batch.filter_map(|(_, view)| match view {
        View::Other(Command::Effects { from, incarnation, first, effects }) => {
            Some(Effects { from, incarnation, first, count: effects.len() as u64 })
        }
        _ => None,
    });
    Some(Told { time, effects: effects.collect() })
}

/// The entry, acknowledging no effect that its target has not applied: `applied_by` says up to which one, of which life, that is.
pub(super) fn with_acknowledgements_upto(entry: Entry, applied_by: &impl Fn(ShardId, u64) -> u64) -> Entry {
    if entry.kind != EntryKind::Normal || !is_any_ahead(&entry, applied_by) {
        return entry;
    }
    let Ok(Batch { time, mut commands }) = Batch::decode(&entry.payload) else { return entry };
    for command in &mut commands {
        if let Command::AckEffects { to, incarnation, upto } = command {
            *upto = (*upto).min(applied_by(*to, *incarnation));
        }
    }
    // Every number has its place and its size: bodies stay where records say they are.
    Entry { payload: Batch { time, commands }.encode(), ..entry }
}

fn is_any_ahead(entry: &Entry, applied_by: &impl Fn(ShardId, u64) -> u64) -> bool {
    let Ok(mut batch) = codec::check(&entry.payload) else { return false };
    batch.any(|(_, view)| match view {
        View::Other(Command::AckEffects { to, incarnation, upto }) => upto > applied_by(to, incarnation),
        _ => false,
    })
}
