//! The state store of a shard, kept up with its merged segments.
//!
//! What always holds: the store is as of the end of a segment that the manifest lists, or it is not believed: a mark that is ahead,
//! or of another segment, means another life of the shard. It is only a cache: whatever goes wrong with it is said and costs
//! the next start time, never anything else. It is open only while it is read or written.

use std::sync::Arc;

use logstore::Manifest;
use logstore::SegmentSet;
use logstore::id::{SegmentOrdinal, ShardId};
use logstore::io::Disk;
use logstore::segment::{Level, Segment, SegmentInfo};

use crate::store::cache::{Mark, StateCache};
use crate::{Error, Result};

/// What redb keeps in memory of the one store that is open.
const MEMORY_BYTES: usize = 8 << 20;

/// Makes the store absorb what was merged; states what it has absorbed. `before` is a manifest whose store may be believed, too:
/// the one in force until a moment ago. Ends early
/// with [`logstore::Error::Cancelled`] when `goes_on` says no.
pub(super) fn follow(
    disk: &Arc<dyn Disk>,
    before: &Manifest,
    now: &SegmentSet,
    pace: &mut dyn FnMut(u64),
    goes_on: &dyn Fn() -> bool,
) -> Result<SegmentOrdinal> {
    match absorb_all(disk, before, now, pace, goes_on) {
        Err(Error::StoreDamaged { what, .. }) => {
            let shard = now.manifest().shard();
            tracing::warn!(shard = shard.0, what, "the state store is damaged: it is made anew from segments");
            open(disk, shard)?.discard()?;
            absorb_all(disk, before, now, pace, goes_on)
        }
        done => done,
    }
}

/// The store, if there is one that can be believed.
pub(super) fn believed(disk: &Arc<dyn Disk>, manifest: &Manifest) -> Result<Option<StateCache>> {
    if manifest.store_mark() == SegmentOrdinal(0) {
        return Ok(None);
    }
    let store = open(disk, manifest.shard())?;
    Ok(Some(store).filter(|store| store.mark() != Mark::default() && is_of(manifest, &store.mark())))
}

fn open(disk: &Arc<dyn Disk>, shard: ShardId) -> Result<StateCache> {
    let opened = StateCache::open(disk.clone(), &StateCache::path(shard), shard, MEMORY_BYTES)?;
    if let Some(what) = opened.discarded {
        tracing::warn!(
            shard = shard.0,
            what,
            "the state store was damaged and is discarded: it is made anew from segments"
        );
    }
    Ok(opened.cache)
}

fn absorb_all(
    disk: &Arc<dyn Disk>,
    before: &Manifest,
    now: &SegmentSet,
    pace: &mut dyn FnMut(u64),
    goes_on: &dyn Fn() -> bool,
) -> Result<SegmentOrdinal> {
    let merged = now.segments().iter().rposition(|segment| segment.span().level > Level(0));
    let Some(newest) = merged else { return Ok(SegmentOrdinal(0)) };
    let store = settled(open(disk, now.manifest().shard())?, before, now.manifest())?;
    let is_new = |segment: &&Arc<Segment>| segment.span().last.0 > store.mark().ordinal;
    for segment in now.segments()[..=newest].iter().filter(is_new) {
        let rows = segment.delta_rows().map(|row| {
            let row = row?;
            if !goes_on() {
                return Err(logstore::Error::Cancelled.into());
            }
            pace((row.key.len() + row.value.as_ref().map_or(0, |value| value.len())) as u64);
            Ok((row.key, row.value))
        });
        store.absorb(rows, mark_of(segment.info()))?;
    }
    Ok(SegmentOrdinal(store.mark().ordinal))
}

/// As of the end of a segment that there is now, or of nothing.
fn settled(store: StateCache, before: &Manifest, now: &Manifest) -> Result<StateCache> {
    let mark = store.mark();
    if mark == Mark::default() || is_of(now, &mark) {
        return Ok(store);
    }
    if is_of(before, &mark)
        && let Some(info) = ending_at(now, mark.ordinal)
    {
        // What it has absorbed is the end of a larger segment now.
        store.rename_absorbed(info.identity.0)?;
        return Ok(store);
    }
    let shard = now.shard().0;
    tracing::warn!(shard, ?mark, "the state store is not as of a segment of this shard: it is made anew from segments");
    store.discard()
}

fn is_of(manifest: &Manifest, mark: &Mark) -> bool {
    ending_at(manifest, mark.ordinal).is_some_and(|info| mark_of(info) == *mark)
}

fn ending_at(manifest: &Manifest, ordinal: u64) -> Option<&SegmentInfo> {
    let info = &manifest.segments()[manifest.position(SegmentOrdinal(ordinal))?];
    (info.span.last.0 == ordinal).then_some(info)
}

fn mark_of(info: &SegmentInfo) -> Mark {
    Mark { ordinal: info.span.last.0, index: info.span.upto, identity: info.identity.0 }
}
