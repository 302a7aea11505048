//! Which seals are to be one segment: the merges that the log has asked for.
//!
//! What always holds: spans ascend and do not overlap; a span takes the place of whole spans and seals, never of parts,
//! so that a replica that has carried out some of the merges can carry out the others. Nothing but replicated
//! commands changes it: every replica converges to the same segments, whenever it finds the time.

use logstore::id::{LogIndex, SegmentOrdinal};
use logstore::segment::Level;

use crate::Refusal;

/// Seals that are to be one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MergedSpan {
    /// The first of them.
    pub first: SegmentOrdinal,
    /// The last of them.
    pub last: SegmentOrdinal,
    /// The segment's level: 1 for a merge of seals, one more than its inputs' for a merge of merges.
    pub level: Level,
    /// The entry that asked for it.
    pub asked_at: LogIndex,
    /// What was trimmed, recalled or erased by the Seal of this number is dropped; 0: nothing is.
    pub drops: SegmentOrdinal,
    /// Trimmed records of later entries keep their heads: those of the dedup window as it was when this was asked for.
    pub heads_above: LogIndex,
}

impl MergedSpan {
    /// Whether it could be one, be it that of a lone seal that is written once more.
    fn could_be(&self) -> bool {
        let has_range = if self.level == Level(0) { self.first == self.last } else { self.first < self.last };
        let drops = if self.level == Level(0) || self.drops.0 > 0 { self.drops >= self.last } else { true };
        self.first.0 > 0 && has_range && drops
    }
}

/// The merged spans of a shard; seals in none of them are segments of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Layout {
    spans: Vec<MergedSpan>,
}

impl Layout {
    /// Most spans: at 16 seals of 64 MiB each, 4 TiB of a shard before its merges are merged. 100 KiB of the shard's row.
    pub const SPANS_MAX: usize = 4096;
    /// Most segments that become one.
    pub const INPUTS_MAX: u64 = 64;

    /// The layout of these spans, if they could be one.
    pub fn of(spans: Vec<MergedSpan>) -> Option<Layout> {
        let fits = spans.len() <= Layout::SPANS_MAX && spans.iter().all(MergedSpan::could_be);
        let ascends = spans.windows(2).all(|pair| pair[0].last < pair[1].first);
        (fits && ascends).then_some(Layout { spans })
    }

    /// Oldest first.
    pub fn spans(&self) -> &[MergedSpan] {
        &self.spans
    }

    /// Up to which Seal the segment that holds a seal drops what was trimmed, recalled or erased; 0: nothing.
    pub fn drops_of(&self, seal: SegmentOrdinal) -> SegmentOrdinal {
        let place = self.spans.partition_point(|span| span.last < seal);
        self.spans.get(place).filter(|span| span.first <= seal).map_or(SegmentOrdinal(0), |span| span.drops)
    }

    /// Takes in a merge of whole segments of the level below, all of seals up to `sealed`, or one segment that is to be written once
    /// more because it drops more. What was asked for before is done; nothing that was dropped comes back.
    pub fn merge(&mut self, new: MergedSpan, sealed: SegmentOrdinal) -> Result<(), Refusal> {
        if !new.could_be() || new.last > sealed || new.drops > sealed {
            return Err(Refusal::MergeMisfit);
        }
        let from = self.spans.partition_point(|span| span.last < new.first);
        let to = self.spans.partition_point(|span| span.first <= new.last);
        let same = |span: &MergedSpan| (span.first, span.last, span.level) == (new.first, new.last, new.level);
        if let [known] = &mut self.spans[from..to]
            && same(known)
        {
            if new.drops > known.drops {
                *known = new;
            }
            return Ok(());
        }
        if self.spans[from..to].iter().any(|span| span.drops > new.drops) {
            return Err(Refusal::MergeMisfit);
        }
        match inputs(&new, &self.spans[from..to]) {
            Some(1) if new.level == Level(0) => {}
            Some(2..=Layout::INPUTS_MAX) => {}
            _ => return Err(Refusal::MergeMisfit),
        }
        if self.spans.len() + 1 - (to - from) > Layout::SPANS_MAX {
            return Err(Refusal::LimitReached);
        }
        self.spans.splice(from..to, [new]);
        Ok(())
    }
}

/// How many segments of the level below a merge takes; `None` if what is there is not just that. `overlapped` are all spans
/// that have a seal in common with it.
fn inputs(new: &MergedSpan, overlapped: &[MergedSpan]) -> Option<u64> {
    if new.level <= Level(1) {
        // Lone seals, some of which may have been written once more.
        return overlapped.iter().all(|span| span.level == Level(0)).then_some(new.last.0 - new.first.0 + 1);
    }
    let below = Level(new.level.0 - 1);
    let (first, last) = (overlapped.first()?, overlapped.last()?);
    let is_whole = (first.first, last.last) == (new.first, new.last);
    let is_below = overlapped.iter().all(|span| span.level == below);
    let follows = overlapped.windows(2).all(|pair| pair[0].last.next() == pair[1].first);
    (is_whole && is_below && follows).then_some(overlapped.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEALED: SegmentOrdinal = SegmentOrdinal(100);

    fn span(first: u64, last: u64, level: u8) -> MergedSpan {
        let [first, last] = [first, last].map(SegmentOrdinal);
        let (drops, heads_above) = (SegmentOrdinal(0), LogIndex(0));
        MergedSpan { first, last, level: Level(level), asked_at: LogIndex(7), drops, heads_above }
    }

    fn layout(spans: &[(u64, u64, u8)]) -> Layout {
        let mut layout = Layout::default();
        for (first, last, level) in spans {
            layout.merge(span(*first, *last, *level), SEALED).unwrap();
        }
        layout
    }

    #[test]
    fn merges_of_seals_and_of_merges_take_whole_segments() {
        let layout = layout(&[(1, 4, 1), (9, 12, 1), (5, 8, 1), (1, 8, 2)]);
        assert_eq!(layout.spans(), [span(1, 8, 2), span(9, 12, 1)]);
        assert_eq!(Layout::of(layout.spans().to_vec()), Some(layout));
    }

    #[test]
    fn a_merge_that_does_not_fit_changes_nothing() {
        let before = layout(&[(3, 6, 1), (7, 10, 1), (12, 15, 1)]);
        let misfits = [
            (0, 2, 1),    // seals count from 1
            (1, 1, 1),    // nothing to merge
            (2, 1, 1),    // backwards
            (99, 101, 1), // not sealed yet
            (20, 84, 1),  // more than 64
            (1, 3, 1),    // part of a merge
            (3, 11, 2),   // a seal among merges
            (7, 15, 2),   // a hole between merges
            (3, 10, 3),   // not of the level below
            (3, 10, 0),   // a seal is no merge
            (3, 6, 2),    // one input
        ];
        for (first, last, level) in misfits {
            let mut layout = before.clone();
            let refused = layout.merge(span(first, last, level), SEALED);
            assert_eq!((refused, layout), (Err(Refusal::MergeMisfit), before.clone()), "{first}-{last} L{level}");
        }
    }

    fn dropping(first: u64, last: u64, level: u8, drops: u64) -> MergedSpan {
        MergedSpan { drops: SegmentOrdinal(drops), ..span(first, last, level) }
    }

    #[test]
    fn a_segment_is_written_once_more_when_it_drops_more() {
        let mut layout = layout(&[(1, 4, 1)]);
        for (new, drops) in [(dropping(1, 4, 1, 9), 9), (dropping(1, 4, 1, 7), 9), (dropping(1, 4, 1, 12), 12)] {
            layout.merge(new, SEALED).unwrap();
            assert_eq!(layout.drops_of(SegmentOrdinal(3)), SegmentOrdinal(drops));
        }
        layout.merge(dropping(6, 6, 0, 12), SEALED).unwrap();
        assert_eq!([4, 5, 6, 7].map(|seal| layout.drops_of(SegmentOrdinal(seal)).0), [12, 0, 12, 0]);
        assert_eq!(Layout::of(layout.spans().to_vec()), Some(layout.clone()));
        layout.merge(dropping(5, 8, 1, 12), SEALED).unwrap();
        assert_eq!(layout.spans(), [dropping(1, 4, 1, 12), dropping(5, 8, 1, 12)]);
    }

    #[test]
    fn nothing_that_was_dropped_comes_back() {
        let mut layout = layout(&[(1, 4, 1), (5, 8, 1)]);
        layout.merge(dropping(5, 8, 1, 20), SEALED).unwrap();
        let before = layout.clone();
        let misfits = [
            dropping(1, 8, 2, 19),  // drops less than one of its inputs
            span(1, 8, 2),          // nothing
            dropping(9, 12, 1, 11), // not all of its own
            dropping(9, 12, 1, 101),
            dropping(9, 9, 0, 0),
            dropping(9, 10, 0, 20),
            dropping(5, 5, 0, 20), // part of a merge
        ];
        for misfit in misfits {
            assert_eq!((layout.merge(misfit, SEALED), &layout), (Err(Refusal::MergeMisfit), &before), "{misfit:?}");
        }
        layout.merge(dropping(1, 8, 2, 20), SEALED).unwrap();
    }

    #[test]
    fn a_merge_asked_for_twice_is_asked_for_once() {
        let mut layout = layout(&[(1, 4, 1)]);
        layout.merge(MergedSpan { asked_at: LogIndex(9), ..span(1, 4, 1) }, SEALED).unwrap();
        assert_eq!(layout.spans(), [span(1, 4, 1)], "as of the first time");
    }

    #[test]
    fn a_layout_is_bounded() {
        let spans = (0..Layout::SPANS_MAX as u64).map(|n| span(2 * n + 1, 2 * n + 2, 1)).collect();
        let mut layout = Layout::of(spans).unwrap();
        let sealed = SegmentOrdinal(1 << 20);
        assert_eq!(layout.merge(span(1 << 19, (1 << 19) + 1, 1), sealed), Err(Refusal::LimitReached));
        layout.merge(span(1, 8, 2), sealed).unwrap();
        layout.merge(span(1 << 19, (1 << 19) + 1, 1), sealed).unwrap();
    }

    #[test]
    fn spans_that_overlap_are_no_layout() {
        assert_eq!(Layout::of(vec![span(1, 4, 1), span(4, 8, 1)]), None);
        assert_eq!(Layout::of(vec![span(5, 8, 1), span(1, 4, 1)]), None);
        assert_eq!(Layout::of(vec![span(1, 4, 0)]), None);
    }
}
