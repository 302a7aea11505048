//! A restore to a moment between saves: the save before it, and the entries that followed, replayed.
//!
//! ```text
//! segments of the save --> entries up to the moment applied, sealed --> bodies of erased messages left out
//! ```
//!
//! What always holds: every file of entries is verified whole before anything is made. What was erased later is in the directory while entries
//! are replayed, as it is in the backups beside it, and in no file of it any more when this is over.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use logstore::id::{ShardId, TimeMs};
use logstore::segment::BlockCache;
use logstore::{Manifest, SegmentSet};
use sequencer::erased_again::{self, Erased};
use sequencer::points::{self, EntryRun, Reached};

use super::entries::{self, Trail};
use super::erased::KnownErasures;
use super::restore::{LaidOut, Place, bring, progress_of};
use super::store::{Save, Store};
use crate::log::Progress;

/// Scans go past it.
const CACHE_BYTES: u64 = 8 << 20;

/// A moment that can be reached.
pub(super) struct Moment {
    at: TimeMs,
    /// The save to begin with, and those that have the entries.
    saves: Vec<Save>,
}

impl Moment {
    /// Looks for the saves that lead there, and verifies their entries. What cannot be reached is refused with what can.
    pub(super) fn of(store: &Store, at: TimeMs) -> anyhow::Result<Moment> {
        let saves = super::lead_to(store, at)?;
        for save in &saves[1..] {
            entries::verify(store, None, save, true).with_context(|| format!("save {}", save.save))?;
        }
        Ok(Moment { at, saves })
    }

    /// The save to begin with.
    pub(super) fn base(&self) -> &Save {
        &self.saves[0]
    }

    fn trails(&self, store: &Store) -> anyhow::Result<BTreeMap<ShardId, Trail>> {
        let shards = self.base().shards.iter().enumerate();
        shards.map(|(place, shard)| Ok((ShardId(shard.shard), Trail::of(store, &self.saves, place)?))).collect()
    }
}

/// Lays out the shards of the base and brings them to the moment.
pub(super) fn lay_out(
    store: &Store,
    moment: &Moment,
    sets: &[Arc<SegmentSet>],
    known: &KnownErasures,
    place: &Place<'_>,
) -> anyhow::Result<LaidOut> {
    let progress = progress_of(sets);
    let bring = |set: &Arc<SegmentSet>| bring(set, &Erased::new(), store.root(), place, &progress);
    let bases = sets.iter().map(bring).collect::<anyhow::Result<Vec<Manifest>>>()?;
    let trails = moment.trails(store)?;
    // They are read once for where each shard ends, and once to be applied.
    let replayed = Progress::begin("replayed", 2 * entries::count_along(&moment.saves));
    let entries = |shard| -> anyhow::Result<EntryRun<'_, anyhow::Error>> {
        let entries = trails.get(&shard).context("every shard has a trail")?.entries();
        Ok(Box::new(entries.inspect(|_| replayed.add(1))))
    };
    let reached = points::replay_to(place.disk, &bases, moment.at, &entries)?;
    let mut laid_out = LaidOut::default();
    for Reached { planted, time, is_cut_lower, .. } in reached {
        laid_out.log_time = laid_out.log_time.max(time);
        laid_out.cut_lower += usize::from(is_cut_lower);
        laid_out.add(&without_erased(planted.shard, moment, known, place)?, place)?;
    }
    for shard in laid_out.planted.iter().map(|planted| planted.shard) {
        // What was written once more is there under its old identity, too.
        SegmentSet::open(place.disk, shard, &Arc::new(BlockCache::new(CACHE_BYTES)))?.remove_leftovers()?;
    }
    Ok(laid_out)
}

/// Writes what holds bodies of erased messages once more.
fn without_erased(
    shard: ShardId,
    moment: &Moment,
    known: &KnownErasures,
    place: &Place<'_>,
) -> anyhow::Result<Manifest> {
    let set = SegmentSet::open(place.disk, shard, &Arc::new(BlockCache::new(CACHE_BYTES)))?;
    let erased = known.of_shard(moment.base().history_id()?, &set)?;
    let rewritten = if erased.is_empty() { Vec::new() } else { erased_again::rewrite(place.disk, &set, &erased)? };
    let begin = set.manifest().clone();
    Ok(rewritten.into_iter().try_fold(begin, |manifest, info| manifest.merged(info))?)
}
