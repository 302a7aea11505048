//! A shard as its segments hold it: where a restart begins.
//!
//! What always holds: rows come from the state store, as far as it is believed, and from the deltas of newer segments; from all deltas, if
//! anything is wrong with the store. The state is the one right after the last published Seal, the dedup window included; what is in
//! the journal above that is applied to it like anything new.

use std::sync::Arc;

use logstore::id::{LogIndex, SegmentOrdinal, ShardId};
use logstore::io::Disk;
use logstore::segment::{BlockCache, Item, Segment};
use logstore::{Journal, Manifest, SegmentSet, ShardLog};

use super::absorb;
use crate::raft::checkpoint::Checkpoint;
use crate::shard::history;
use crate::state::{Rebuild, ShardState};
use crate::store::cache::StateCache;
use crate::{Error, Result};

/// Bytes of rows that are read from a store at once.
const SCAN_BYTES: usize = 1 << 20;

/// What is sealed of a shard.
pub(crate) struct Restored {
    pub(crate) state: ShardState,
    pub(crate) sealed: Arc<SegmentSet>,
    pub(crate) checkpoint: Option<Checkpoint>,
}

/// Opens a shard's segments and reads its state from them; an empty one, if nothing was sealed. Reads files: not for
/// async workers.
pub(crate) fn restore(journal: &Journal, shard: ShardId, cache: &Arc<BlockCache>) -> Result<Restored> {
    let sealed = SegmentSet::open(journal.disk(), shard, cache)?;
    check_they_meet(shard, sealed.manifest(), &journal.shard_log(shard))?;
    read(journal.disk(), shard, sealed)
}

/// What segments and store say.
pub(super) fn read(disk: &Arc<dyn Disk>, shard: ShardId, sealed: SegmentSet) -> Result<Restored> {
    for path in sealed.remove_leftovers()? {
        tracing::info!(path, "removed what a crash has left");
    }
    let checkpoint = sealed.manifest().checkpoint().map(|sealed| {
        Checkpoint::decode(&sealed.state)
            .ok_or_else(|| Error::Raft { shard, what: "the checkpoint in its manifest does not decode".to_string() })
    });
    let checkpoint = checkpoint.transpose()?;
    let state = if checkpoint.is_some() { state(disk, shard, &sealed)? } else { ShardState::new(shard) };
    Ok(Restored { state, sealed: Arc::new(sealed), checkpoint })
}

/// A Seal is synced before its segment is made, and the journal lets go only of what segments hold.
fn check_they_meet(shard: ShardId, manifest: &Manifest, log: &ShardLog) -> Result<()> {
    let sealed = manifest.checkpoint().map_or(LogIndex(0), |checkpoint| checkpoint.seal.index);
    let purged = log.purged.map_or(LogIndex(0), |id| id.index);
    let last = log.last.map_or(purged, |id| id.index);
    if purged <= sealed && sealed <= last { Ok(()) } else { Err(Error::Apart { shard, sealed, purged, last }) }
}

/// Reads the state as of the end of the newest segment.
fn state(disk: &Arc<dyn Disk>, shard: ShardId, sealed: &SegmentSet) -> Result<ShardState> {
    match absorb::believed(disk, sealed.manifest()) {
        Ok(None) => {}
        Ok(Some(store)) => match above_store(shard, sealed, &store) {
            Ok(state) => return Ok(state),
            Err(error) => told(shard, &error),
        },
        Err(error) => told(shard, &error),
    }
    let mut rebuild = Rebuild::new(shard);
    add_deltas(&mut rebuild, sealed, SegmentOrdinal(0))?;
    finish(rebuild, sealed)
}

fn told(shard: ShardId, error: &Error) {
    tracing::warn!(shard = shard.0, %error, "the state store cannot be read; it is a cache: all is read from segments");
}

/// Reads it from a store, and from the deltas of segments after what that has absorbed.
pub(super) fn above_store(shard: ShardId, sealed: &SegmentSet, store: &StateCache) -> Result<ShardState> {
    finish(rows_above(shard, sealed, store)?, sealed)
}

/// The rows of a store, and those of segments after what that has absorbed.
pub(super) fn rows_above(shard: ShardId, sealed: &SegmentSet, store: &StateCache) -> Result<Rebuild> {
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
pub(super) fn add_deltas(rebuild: &mut Rebuild, sealed: &SegmentSet, after: SegmentOrdinal) -> Result<()> {
    for segment in sealed.segments().iter().rev().take_while(|segment| segment.span().last > after) {
        for row in segment.delta_rows() {
            let row = row?;
            rebuild.add(&row.key, row.value.as_deref())?;
        }
    }
    Ok(())
}

fn finish(rebuild: Rebuild, sealed: &SegmentSet) -> Result<ShardState> {
    let mut state = rebuild.finish()?;
    restore_window(&mut state, sealed)?;
    Ok(state)
}

/// Gives the dedup window its ids again, generation by generation.
pub(super) fn restore_window(state: &mut ShardState, sealed: &SegmentSet) -> Result<()> {
    for part in state.window_parts() {
        let holds = |segment: &&Arc<Segment>| segment.span().upto > part.after && segment.span().after < part.upto;
        for segment in sealed.segments().iter().filter(holds) {
            restore_part(state, segment, part.after, part.upto)?;
        }
    }
    Ok(())
}

/// The ids of one generation, from the segment that holds it.
fn restore_part(state: &mut ShardState, segment: &Arc<Segment>, after: LogIndex, upto: LogIndex) -> Result<()> {
    for item in segment.items() {
        match item? {
            Item::Record(record) if record.index > after && record.index <= upto => {
                state.restore_window([&history::head_of(&record)])?;
            }
            Item::Record(_) | Item::Trimmed(_) => {}
        }
    }
    Ok(())
}
