//! Where a shard's log ends by a moment, without applying it: times and numbers of effects are in the entries themselves.
//!
//! What always holds: up to the cut nothing is later than the moment, and the next entry is; or no limit on effects is passed, and the next
//! entry would pass one.

use std::collections::BTreeMap;

use logstore::id::{LogIndex, ShardId, TimeMs};

use super::{EntryRun, told};
use crate::Error;
use crate::state::{InboxRow, OwnRow, ShardState};

/// Of a target and a source: the last effect that the target may have applied.
pub(super) type Limits = BTreeMap<(ShardId, ShardId), u64>;

/// Where a shard is before its entries.
pub(super) struct Base {
    shard: ShardId,
    applied: LogIndex,
    time: TimeMs,
    inboxes: BTreeMap<ShardId, InboxRow>,
}

/// Where a shard ends.
pub(super) struct Cut {
    /// Its last entry.
    pub(super) last: LogIndex,
    /// The log time there.
    pub(super) time: TimeMs,
    /// Whether a limit on effects ends it.
    pub(super) is_lower: bool,
    inboxes: BTreeMap<ShardId, InboxRow>,
}

impl Base {
    /// What a state says of its log, and of the effects of these shards.
    pub(super) fn of(state: &ShardState, shards: &[ShardId]) -> Base {
        let inboxes = shards.iter().filter_map(|from| Some((*from, state.inbox(*from)?))).collect();
        Base { shard: state.shard(), applied: state.applied(), time: state.time(), inboxes }
    }
}

impl Cut {
    /// The last effect of a shard, in its life of this number, that was applied by then.
    pub(super) fn applied_of(&self, from: ShardId, incarnation: u64) -> u64 {
        let row = self.inboxes.get(&from).copied().unwrap_or_default();
        if row.incarnation == incarnation { row.last } else { 0 }
    }
}

/// The cut of a shard at a moment.
pub(super) fn cut<E: From<Error>>(base: Base, at: TimeMs, limits: &Limits, entries: EntryRun<'_, E>) -> Result<Cut, E> {
    let Base { shard, applied, time, inboxes } = base;
    let mut cut = Cut { last: applied, time, is_lower: false, inboxes };
    for entry in entries {
        let entry = entry?;
        let index = cut.last.next();
        if entry.id.index != index {
            return Err(Error::Log(logstore::Error::NoSuchEntry { shard, index }).into());
        }
        if let Some(told) = told::told(&entry) {
            let time = OwnRow::time_after(cut.time, told.time);
            if time > at {
                return Ok(cut);
            }
            let inboxes = inboxes_after(&cut.inboxes, &told);
            let passes =
                |(from, row): (&ShardId, &InboxRow)| limits.get(&(shard, *from)).is_some_and(|limit| row.last > *limit);
            if inboxes.iter().any(passes) {
                return Ok(Cut { is_lower: true, ..cut });
            }
            cut.time = time;
            cut.inboxes.extend(inboxes);
        }
        cut.last = index;
    }
    Ok(cut)
}

/// The rows that an entry changes. What apply would refuse changes none.
fn inboxes_after(known: &BTreeMap<ShardId, InboxRow>, told: &told::Told) -> BTreeMap<ShardId, InboxRow> {
    let mut changed = BTreeMap::<ShardId, InboxRow>::new();
    for effects in &told.effects {
        let row = changed.get(&effects.from).or(known.get(&effects.from)).copied().unwrap_or_default();
        if let Ok(Some(row)) = row.after(effects.incarnation, effects.first, effects.count) {
            changed.insert(effects.from, row);
        }
    }
    changed
}
