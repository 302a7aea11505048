//! One step of a shard's segments towards its layout: a merge or rewrite that the log has asked for.
//!
//! ```text
//!   layout of the state ----> plan ----> segment, directory synced ----> manifest synced ----> readers look there
//! ```
//!
//! What always holds: only merges are carried out that the published segments know of: the row of the shard that says so is sealed
//! in one of them, so that after any crash the state restored from segments asks for every merge that they have seen. A crash
//! leaves the old segments or the new one, each of them whole.

use std::sync::Arc;

use logstore::id::SegmentOrdinal;
use logstore::io::Disk;
use logstore::merge::{DropRules, MergePlan, MergeRun};
use logstore::segment::{BuildOptions, SegmentInfo};
use logstore::{Manifest, SegmentSet};

use super::drops;
use crate::state::{Layout, MergedSpan};
use crate::{Error, Result};

/// The first merge or rewrite that the layout asks for, the published segments know of, and the manifest does not have. They are
/// carried out in the order of the log.
pub(super) fn due(layout: &Layout, manifest: &Manifest) -> Option<MergedSpan> {
    let known = manifest.checkpoint()?.seal.index;
    // A layout is made of whole segments: what does not fit it is not this shard's, and is left as it is.
    let fits = |span: &&MergedSpan| span.asked_at <= known && is_whole(manifest, span);
    missing(layout, manifest).filter(fits).min_by_key(|span| span.asked_at).copied()
}

/// The merges and rewrites that the layout asks for and the manifest does not have.
pub(super) fn missing<'a>(layout: &'a Layout, manifest: &'a Manifest) -> impl Iterator<Item = &'a MergedSpan> {
    let has = |span: &MergedSpan| {
        let place = manifest.position(span.first);
        place.is_some_and(|place| manifest.segments()[place].span.last >= span.last)
    };
    let is_carried = |span: &MergedSpan| span.drops.0 == 0 || span.asked_at <= manifest.carried();
    layout.spans().iter().filter(move |span| !has(span) || !is_carried(span))
}

fn is_whole(manifest: &Manifest, span: &MergedSpan) -> bool {
    plan_by(manifest, span, DropRules::default()).is_some()
}

fn plan_by(manifest: &Manifest, span: &MergedSpan, rules: DropRules) -> Option<MergePlan> {
    MergePlan::of_seals(manifest, span.first..=span.last, span.level, rules, span.asked_at)
}

/// The plan of what is due, with what it drops. Reads files.
pub(super) fn plan(set: &SegmentSet, span: &MergedSpan) -> Result<MergePlan> {
    let rules = match span.drops {
        SegmentOrdinal(0) => DropRules::default(),
        upto => drops::rules(set, (span.first, span.last), upto, span.heads_above)?,
    };
    let shard = set.manifest().shard();
    plan_by(set.manifest(), span, rules)
        .ok_or_else(|| Error::Raft { shard, what: format!("seals {} to {} are no segments", span.first, span.last) })
}

/// Writes the merged segment; nothing lists it yet. Ends early with [`logstore::Error::Cancelled`] when `goes_on` says no.
pub(super) fn make(
    disk: &Arc<dyn Disk>,
    set: &SegmentSet,
    plan: &MergePlan,
    pace: &mut dyn FnMut(u64),
    goes_on: &dyn Fn() -> bool,
) -> Result<SegmentInfo> {
    let options = BuildOptions::default();
    let mut pace = |bytes| pace(bytes);
    let with = MergeRun { disk, set, options: &options, pace: &mut pace };
    Ok(logstore::merge::run_while(plan, with, goes_on)?)
}
