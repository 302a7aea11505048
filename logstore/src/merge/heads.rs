//! The heads table that a merge carries on.
//!
//! What always holds: it is the newest table among the inputs, or else the newest before them overlaid with the directories in
//! between, so that with the merge's own conversations it names every conversation up to its last seal.

use super::newest::{Newest, Source};
use crate::Result;
use crate::id::SegmentOrdinal;
use crate::segment::{CarriedHeads, HeadRow, Segment};
use crate::segment_set::SegmentSet;

/// The rows to overlay with the conversations of the segments from `first` to `last`.
pub(super) fn carried<'a>(
    set: &'a SegmentSet,
    first: SegmentOrdinal,
    last: SegmentOrdinal,
) -> Result<CarriedHeads<'a>> {
    let upto = set.segments().iter().filter(|segment| segment.span().last <= last);
    let upto: Vec<_> = upto.map(|segment| &**segment).collect();
    let base = upto.iter().rposition(|segment| segment.has_heads());
    let table = base.map(|place| Box::new(upto[place].heads()) as Source<'a, HeadRow>);
    let between = upto[base.map_or(0, |place| place + 1)..].iter().filter(|segment| segment.span().last < first);
    let sources = table.into_iter().chain(between.map(|segment| directory_heads(segment)));
    let sort_key = |row: &HeadRow| (row.conversation.bucket(), row.conversation);
    Ok(Box::new(Newest::new(sources, sort_key)?))
}

fn directory_heads(segment: &Segment) -> Source<'_, HeadRow> {
    let last = segment.span().last;
    Box::new(segment.directory().map(move |row| row.map(|row| row.head(last))))
}
