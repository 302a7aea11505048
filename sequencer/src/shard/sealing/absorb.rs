//! The state store of a shard, kept up with its merged segments.
//!
//! What always holds: the store is as of the end of a segment that the manifest lists, or it is not believed: a mark that is ahead,
//! or of another segment, means another life of the shard. It is only a cache: whatever goes wrong with it is said and costs
//! time, never anything else: without it rows are read from the deltas of all segments.

use std::io::ErrorKind;
use std::sync::Arc;

use logstore::Manifest;
use logstore::SegmentSet;
use logstore::id::{SegmentOrdinal, ShardId};
use logstore::io::Disk;
use logstore::segment::{Level, Segment, SegmentInfo};

use crate::store::SealedRows;
use crate::store::cache::{Mark, StateCache};
use crate::{Error, Result};

/// Makes the store absorb what was merged; states what it has absorbed. `before` is a manifest whose store may be believed, too:
/// the one in force until a moment ago. Rows are read from the store as soon as it is as of one of the segments of `now`. Ends
/// early with [`logstore::Error::Cancelled`] when `goes_on` says no.
pub(super) fn follow(
    disk: &Arc<dyn Disk>,
    rows: &SealedRows,
    before: &Manifest,
    now: &SegmentSet,
    pace: &mut dyn FnMut(u64),
    goes_on: &dyn Fn() -> bool,
) -> Result<SegmentOrdinal> {
    match absorb_all(disk, rows, before, now, pace, goes_on) {
        Err(Error::StoreDamaged { what, .. }) => {
            let shard = now.manifest().shard();
            tracing::warn!(shard = shard.0, what, "the state store is damaged: it is made anew from segments");
            rows.lose_store();
            remove(disk, shard)?;
            absorb_all(disk, rows, before, now, pace, goes_on)
        }
        done => done,
    }
}

/// The store, if there is one that can be believed.
pub(super) fn believed(disk: &Arc<dyn Disk>, manifest: &Manifest, memory_bytes: usize) -> Result<Option<StateCache>> {
    if manifest.store_mark() == SegmentOrdinal(0) {
        return Ok(None);
    }
    let store = open(disk, manifest.shard(), memory_bytes)?;
    Ok(Some(store).filter(|store| store.mark() != Mark::default() && is_of(manifest, &store.mark())))
}

fn open(disk: &Arc<dyn Disk>, shard: ShardId, memory_bytes: usize) -> Result<StateCache> {
    let opened = StateCache::open(disk.clone(), &StateCache::path(shard), shard, memory_bytes)?;
    if let Some(what) = opened.discarded {
        tracing::warn!(
            shard = shard.0,
            what,
            "the state store was damaged and is discarded: it is made anew from segments"
        );
    }
    Ok(opened.cache)
}

/// Removes the file of a store that is not believed. Whoever still has it open writes to a file without a name.
fn remove(disk: &Arc<dyn Disk>, shard: ShardId) -> Result<()> {
    let path = StateCache::path(shard);
    match disk.remove(&path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(logstore::Error::Io { operation: "remove", path, source }.into())
        }
        _ => Ok(()),
    }
}

fn absorb_all(
    disk: &Arc<dyn Disk>,
    rows: &SealedRows,
    before: &Manifest,
    now: &SegmentSet,
    pace: &mut dyn FnMut(u64),
    goes_on: &dyn Fn() -> bool,
) -> Result<SegmentOrdinal> {
    let merged = now.segments().iter().rposition(|segment| segment.span().level > Level(0));
    let Some(newest) = merged else { return Ok(SegmentOrdinal(0)) };
    let store = settled(disk, rows, before, now.manifest())?;
    let is_new = |segment: &&Arc<Segment>| segment.span().last.0 > store.mark().ordinal;
    for segment in now.segments()[..=newest].iter().filter(is_new) {
        let delta = segment.delta_rows().map(|row| {
            let row = row?;
            if !goes_on() {
                return Err(logstore::Error::Cancelled.into());
            }
            pace((row.key.len() + row.value.as_ref().map_or(0, |value| value.len())) as u64);
            Ok((row.key, row.value))
        });
        store.absorb(delta, Mark::of(segment.info()))?;
    }
    let mark = SegmentOrdinal(store.mark().ordinal);
    rows.set_store(store);
    Ok(mark)
}

/// The store as of the end of a segment that there is now, or of nothing.
fn settled(disk: &Arc<dyn Disk>, rows: &SealedRows, before: &Manifest, now: &Manifest) -> Result<Arc<StateCache>> {
    let shard = now.shard();
    if rows.has_lost_store() {
        remove(disk, shard)?;
    }
    let store = match rows.store() {
        Some(store) => store,
        None => Arc::new(open(disk, shard, rows.store_memory_bytes())?),
    };
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
    tracing::warn!(
        shard = shard.0,
        ?mark,
        "the state store is not as of a segment of this shard: it is made anew from segments"
    );
    rows.lose_store();
    drop(store);
    remove(disk, shard)?;
    Ok(Arc::new(open(disk, shard, rows.store_memory_bytes())?))
}

fn is_of(manifest: &Manifest, mark: &Mark) -> bool {
    ending_at(manifest, mark.ordinal).is_some_and(|info| Mark::of(info) == *mark)
}

fn ending_at(manifest: &Manifest, ordinal: u64) -> Option<&SegmentInfo> {
    let info = &manifest.segments()[manifest.position(SegmentOrdinal(ordinal))?];
    (info.span.last.0 == ordinal).then_some(info)
}
