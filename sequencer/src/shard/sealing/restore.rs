//! A shard as its segments hold it: where a restart begins.
//!
//! What always holds: only what is always in memory is read here, whatever the number of conversations; every other row is read when it is
//! asked for, from the state store, as far as it is believed, and the deltas of newer segments. The state is the one right after the
//! last published Seal, the dedup window included; what is in the journal above that is applied to it like anything new.

use std::sync::Arc;

use logstore::id::{LogIndex, ShardId};
use logstore::io::Disk;
use logstore::segment::{BlockCache, Item, Segment};
use logstore::{Journal, Manifest, SegmentSet, ShardLog};

use super::absorb;
use crate::raft::checkpoint::Checkpoint;
use crate::shard::history;
use crate::state::{Key, Rebuild, ShardState};
use crate::store::SealedRows;
use crate::{Error, Result};

/// Rows that are read at once.
const ROWS_AT_ONCE: usize = 4096;

/// What is sealed of a shard.
pub(crate) struct Restored {
    pub(crate) state: ShardState,
    pub(crate) sealed: Arc<SegmentSet>,
    pub(crate) rows: Arc<SealedRows>,
    pub(crate) checkpoint: Option<Checkpoint>,
}

/// Opens a shard's segments and reads its state from them; an empty one, if nothing was sealed. Reads files: not for
/// async workers.
pub(crate) fn restore(
    journal: &Journal,
    shard: ShardId,
    cache: &Arc<BlockCache>,
    store_memory_bytes: usize,
) -> Result<Restored> {
    let sealed = SegmentSet::open(journal.disk(), shard, cache)?;
    check_they_meet(shard, sealed.manifest(), &journal.shard_log(shard))?;
    read(journal.disk(), shard, sealed, store_memory_bytes)
}

/// What segments and store say.
pub(super) fn read(
    disk: &Arc<dyn Disk>,
    shard: ShardId,
    sealed: SegmentSet,
    store_memory_bytes: usize,
) -> Result<Restored> {
    for path in sealed.remove_leftovers()? {
        tracing::info!(path, "removed what a crash has left");
    }
    let checkpoint = sealed.manifest().checkpoint().map(|sealed| {
        Checkpoint::decode(&sealed.state)
            .ok_or_else(|| Error::Raft { shard, what: "the checkpoint in its manifest does not decode".to_string() })
    });
    let checkpoint = checkpoint.transpose()?;
    let sealed = Arc::new(sealed);
    let rows = Arc::new(SealedRows::new(sealed.clone(), store_memory_bytes));
    match absorb::believed(disk, sealed.manifest(), store_memory_bytes) {
        Ok(store) => store.into_iter().for_each(|store| rows.set_store(Arc::new(store))),
        Err(error) => told(shard, &error),
    }
    let state = match checkpoint {
        Some(_) => state(shard, &sealed, &rows)?,
        None => ShardState::above(shard, rows.clone()),
    };
    Ok(Restored { state, sealed, rows, checkpoint })
}

/// A Seal is synced before its segment is made, and the journal lets go only of what segments hold.
fn check_they_meet(shard: ShardId, manifest: &Manifest, log: &ShardLog) -> Result<()> {
    let sealed = manifest.checkpoint().map_or(LogIndex(0), |checkpoint| checkpoint.seal.index);
    let purged = log.purged.map_or(LogIndex(0), |id| id.index);
    let last = log.last.map_or(purged, |id| id.index);
    if purged <= sealed && sealed <= last { Ok(()) } else { Err(Error::Apart { shard, sealed, purged, last }) }
}

/// The state as of the end of the newest segment: what is always in memory is read, the rest when it is asked for.
fn state(shard: ShardId, sealed: &SegmentSet, rows: &Arc<SealedRows>) -> Result<ShardState> {
    let mut rebuild = Rebuild::new(shard);
    for prefix in Key::RESIDENT_PREFIXES {
        add_all(&mut rebuild, rows, &prefix)?;
    }
    let mut state = match rebuild.finish_above(rows.clone())? {
        Some(state) => state,
        None => {
            tracing::info!(shard = shard.0, "its rows were sealed by an earlier version: all are read, once");
            let mut state = whole(shard, rows)?;
            state.set_below(rows.clone());
            state
        }
    };
    restore_window(&mut state, sealed)?;
    Ok(state)
}

/// The state with every row in memory; its dedup window is empty.
fn whole(shard: ShardId, rows: &SealedRows) -> Result<ShardState> {
    let mut rebuild = Rebuild::new(shard);
    add_all(&mut rebuild, rows, &[])?;
    rebuild.finish()
}

fn told(shard: ShardId, error: &Error) {
    tracing::warn!(shard = shard.0, %error, "the state store cannot be read; it is a cache: rows are read from segments");
}

fn add_all(rebuild: &mut Rebuild, rows: &SealedRows, prefix: &[u8]) -> Result<()> {
    let mut after = None;
    loop {
        let run = rows.scan_raw(prefix, after.as_deref(), ROWS_AT_ONCE)?;
        for (key, value) in &run.rows {
            rebuild.add(key, Some(value))?;
        }
        after = match run.next_after {
            Some(after) => Some(after),
            None => return Ok(()),
        };
    }
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
