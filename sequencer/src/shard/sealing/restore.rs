//! A shard as its segments hold it: where a restart begins.
//!
//! What always holds: the state is the one right after the last published Seal, the dedup window included; what is in
//! the journal above that is applied to it like anything new.

use std::sync::Arc;

use logstore::id::{LogIndex, ShardId};
use logstore::segment::{BlockCache, Item, Segment};
use logstore::{Journal, Manifest, SegmentSet, ShardLog};

use crate::raft::checkpoint::Checkpoint;
use crate::shard::history;
use crate::state::{Rebuild, ShardState};
use crate::{Error, Result};

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
    for path in sealed.remove_leftovers()? {
        tracing::info!(path, "removed what a crash has left");
    }
    let checkpoint = sealed.manifest().checkpoint().map(|sealed| {
        Checkpoint::decode(&sealed.state)
            .ok_or_else(|| Error::Raft { shard, what: "the checkpoint in its manifest does not decode".to_string() })
    });
    let checkpoint = checkpoint.transpose()?;
    let state = if checkpoint.is_some() { state(shard, &sealed)? } else { ShardState::new(shard) };
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
fn state(shard: ShardId, sealed: &SegmentSet) -> Result<ShardState> {
    let mut rebuild = Rebuild::new(shard);
    for segment in sealed.segments().iter().rev() {
        for row in segment.delta_rows() {
            let row = row?;
            rebuild.add(&row.key, row.value.as_deref())?;
        }
    }
    let mut state = rebuild.finish()?;
    restore_window(&mut state, sealed)?;
    Ok(state)
}

/// Gives the dedup window its ids again, generation by generation.
fn restore_window(state: &mut ShardState, sealed: &SegmentSet) -> Result<()> {
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
