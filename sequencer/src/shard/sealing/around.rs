//! A shard as far as its segments are sound, for a node that reads around damage and changes nothing.
//!
//! What always holds: the state is the one right after some Seal, whole. If a segment is left out whose rows the store has not
//! absorbed, that is the Seal before it, and nothing newer is served. What is above the last Seal in the journal is applied only
//! to the state that it was written for, with the dedup window that it needs.

use std::sync::Arc;

use logstore::SegmentSet;
use logstore::id::{LogIndex, SegmentOrdinal, ShardId};
use logstore::io::Disk;
use logstore::segment::{BlockCache, Segment};

use super::{absorb, restore};
use crate::Result;
use crate::raft::checkpoint::Checkpoint;
use crate::state::{Rebuild, ShardState};
use crate::store::cache::StateCache;

/// What redb keeps in memory of a store that is read once from end to end.
const STORE_MEMORY_BYTES: usize = 1 << 20;
/// Bytes of rows that are read from a store at once.
const SCAN_BYTES: usize = 1 << 20;

/// What is sound of a shard's sealed part.
pub(crate) struct Around {
    pub(crate) state: ShardState,
    pub(crate) sealed: Arc<SegmentSet>,
    /// What is not, in words.
    pub(crate) damage: Vec<String>,
    /// Whether the state is as of the last Seal, so that the journal goes on where it ends.
    pub(crate) is_newest: bool,
    /// Whether no other node ever voted: then everything in the journal is committed.
    pub(crate) is_alone: bool,
}

/// Reads what there is. `disk` takes the changes that opening a store makes and forgets them. Reads files: not for async
/// workers.
pub(crate) fn restore_around(disk: &Arc<dyn Disk>, shard: ShardId, cache: &Arc<BlockCache>) -> Around {
    let (sealed, found) = SegmentSet::open_around_damage(disk, shard, cache);
    let has_manifest = sealed.manifest().checkpoint().is_some() || found.is_empty();
    let mut damage: Vec<String> = found.iter().map(ToString::to_string).collect();
    match whole(disk, shard, &sealed) {
        Ok(mut state) => {
            let window = restore::restore_window(&mut state, &sealed);
            let is_newest = window.is_ok() && has_manifest;
            damage.extend(window.err().map(|error| format!("what is not sealed is not served: {error}")));
            let is_alone = is_alone(&sealed);
            Around { state, sealed: Arc::new(sealed), damage, is_newest, is_alone }
        }
        Err(error) => {
            damage.push(error.to_string());
            prefix(shard, &sealed, damage)
        }
    }
}

/// The state as of the last Seal.
fn whole(disk: &Arc<dyn Disk>, shard: ShardId, sealed: &SegmentSet) -> Result<ShardState> {
    if sealed.manifest().checkpoint().is_none() {
        return Ok(ShardState::new(shard));
    }
    match absorb::believed(disk, sealed.manifest(), STORE_MEMORY_BYTES) {
        Ok(Some(store)) if store.mark().ordinal >= sealed.left_out_upto().0 => {
            match rows_above(shard, sealed, &store) {
                Ok(rebuild) => return rebuild.finish(),
                Err(error) => tracing::warn!(shard = shard.0, %error, "the state store is no help"),
            }
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(shard = shard.0, %error, "the state store is no help"),
    }
    if sealed.left_out_upto() > SegmentOrdinal(0) {
        let what = "its state is as of the seal before the first segment that cannot be read".to_owned();
        return Err(crate::Error::Rows { shard, what });
    }
    let mut rebuild = Rebuild::new(shard);
    add_deltas(&mut rebuild, sealed, SegmentOrdinal(0))?;
    rebuild.finish()
}

/// The state as of the last Seal before anything that cannot be read.
fn prefix(shard: ShardId, sealed: &SegmentSet, mut damage: Vec<String>) -> Around {
    let whole = &sealed.segments()[..sealed.whole_prefix()];
    let mut sound = whole.iter().take_while(|segment| has_sound_delta(segment)).count();
    let made = loop {
        let first = sealed.first(sound);
        let mut rebuild = Rebuild::new(shard);
        let state = match sound {
            0 => Ok(ShardState::new(shard)),
            _ => add_deltas(&mut rebuild, &first, SegmentOrdinal(0)).and_then(|()| rebuild.finish()),
        };
        match state {
            Ok(state) => break (state, first),
            Err(error) => damage.push(error.to_string()),
        }
        sound -= 1;
    };
    let (state, sealed) = (made.0, Arc::new(made.1));
    let upto = sealed.manifest().checkpoint().map_or(LogIndex(0), |checkpoint| checkpoint.seal.index);
    damage.push(format!("it is served as it was at entry {upto}, and nothing of it that is newer"));
    Around { state, sealed, damage, is_newest: false, is_alone: true }
}

/// The rows of a store, and those of segments after what that has absorbed.
fn rows_above(shard: ShardId, sealed: &SegmentSet, store: &StateCache) -> Result<Rebuild> {
    let mut rebuild = Rebuild::new(shard);
    add_deltas(&mut rebuild, sealed, SegmentOrdinal(store.mark().ordinal))?;
    let mut after = None;
    loop {
        let rows = store.scan(&[], after.as_deref(), SCAN_BYTES)?;
        for (key, value) in &rows {
            rebuild.add(key, Some(value))?;
        }
        match rows.into_iter().next_back() {
            Some((key, _)) => after = Some(key),
            None => return Ok(rebuild),
        }
    }
}

/// The newest first.
fn add_deltas(rebuild: &mut Rebuild, sealed: &SegmentSet, after: SegmentOrdinal) -> Result<()> {
    for segment in sealed.segments().iter().rev().take_while(|segment| segment.span().last > after) {
        for row in segment.delta_rows() {
            let row = row?;
            rebuild.add(&row.key, row.value.as_deref())?;
        }
    }
    Ok(())
}

fn has_sound_delta(segment: &Arc<Segment>) -> bool {
    segment.delta_rows().all(|row| row.is_ok())
}

fn is_alone(sealed: &SegmentSet) -> bool {
    let Some(checkpoint) = sealed.manifest().checkpoint() else { return true };
    let decoded = Checkpoint::decode(&checkpoint.state);
    decoded.is_some_and(|checkpoint| checkpoint.membership.membership().voter_ids().count() <= 1)
}
