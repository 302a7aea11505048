//! One step of a shard's segments towards its layout: a merge that the log has asked for.
//!
//! ```text
//!   layout of the state ----> plan ----> segment, directory synced ----> manifest synced ----> readers look there
//! ```
//!
//! What always holds: only merges are carried out that the published segments know of: the row of the shard that says so is sealed
//! in one of them, so that after any crash the state restored from segments asks for every merge that they have seen. A crash
//! leaves the old segments or the new one, each of them whole.

use std::sync::Arc;

use logstore::io::Disk;
use logstore::merge::{DropRules, MergePlan, MergeRun};
use logstore::segment::{BuildOptions, SegmentInfo};
use logstore::{Manifest, SegmentSet};

use crate::Result;
use crate::state::{Layout, MergedSpan};

/// The oldest merge that the layout asks for, the published segments know of, and the manifest does not have.
pub(super) fn due(layout: &Layout, manifest: &Manifest) -> Option<MergePlan> {
    let known = manifest.checkpoint()?.seal.index;
    let mut due = missing(layout, manifest).filter(|span| span.asked_at <= known);
    // A layout is made of whole segments: what does not fit it is not this shard's, and is left as it is.
    due.find_map(|span| plan(manifest, span))
}

/// The merges that the layout asks for and the manifest does not have.
pub(super) fn missing<'a>(layout: &'a Layout, manifest: &'a Manifest) -> impl Iterator<Item = &'a MergedSpan> {
    let has = |span: &MergedSpan| {
        let place = manifest.position(span.first);
        place.is_some_and(|place| manifest.segments()[place].span.last >= span.last)
    };
    layout.spans().iter().filter(move |span| !has(span))
}

fn plan(manifest: &Manifest, span: &MergedSpan) -> Option<MergePlan> {
    MergePlan::of_seals(manifest, span.first..=span.last, span.level, DropRules::default(), span.asked_at)
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
