//! Which records of a conversation a member may see.
//!
//! What always holds: spans are disjoint, ascending and not empty, and a record is in one of them exactly when the
//! member's row [`sees`](MemberRow::sees) it and it exists.

use logstore::id::SeqId;
use sequencer::state::MemberRow;
use smallvec::SmallVec;

/// A run of visible records, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub first: SeqId,
    pub last: SeqId,
}

impl Span {
    /// How many records it holds.
    pub fn len(self) -> u64 {
        self.last.0 - self.first.0 + 1
    }
}

/// The visible records of one conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Visible {
    spans: SmallVec<[Span; 1]>,
}

impl Visible {
    /// What a member sees of a conversation whose newest record is `head`.
    pub fn of(row: &MemberRow, head: SeqId) -> Visible {
        let floor = row.visible_from.max(SeqId(1));
        let clip = |join: SeqId, end: Option<SeqId>| {
            #[cfg(feature = "plants")]
            let end = end.filter(|_| !logstore::plants::is_planted(logstore::plants::Plant::IgnoreLeave));
            let last = end.map_or(head, |end| SeqId(end.0.saturating_sub(1)).min(head));
            (join.max(floor), last)
        };
        Visible { spans: non_empty(row.intervals.iter().map(|i| clip(i.join, i.end))) }
    }

    /// The newest visible record; 0 if there is none.
    pub fn head(&self) -> SeqId {
        self.spans.last().map_or(SeqId(0), |span| span.last)
    }

    /// The part from `from` to `to`, both included.
    pub fn within(&self, from: SeqId, to: SeqId) -> Visible {
        Visible { spans: non_empty(self.spans.iter().map(|s| (s.first.max(from), s.last.min(to)))) }
    }

    /// The part that is left when what lies before `floor` is trimmed.
    pub fn from(&self, floor: SeqId) -> Visible {
        self.within(floor, SeqId(u64::MAX))
    }

    /// The newest `count` records of it.
    pub fn newest(&self, count: u64) -> Visible {
        let mut wanted = count;
        let mut spans: SmallVec<[Span; 1]> = SmallVec::new();
        for span in self.spans.iter().rev() {
            if wanted == 0 {
                break;
            }
            let first = SeqId(span.first.0.max((span.last.0 + 1).saturating_sub(wanted)));
            wanted -= span.last.0 - first.0 + 1;
            spans.push(Span { first, last: span.last });
        }
        spans.reverse();
        Visible { spans }
    }

    /// The spans, oldest first.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The first visible record after `seq`.
    pub fn after(&self, seq: SeqId) -> Option<SeqId> {
        self.spans.iter().find(|s| s.last > seq).map(|s| s.first.max(seq.next()))
    }

    /// The last visible record before `seq`.
    pub fn before(&self, seq: SeqId) -> Option<SeqId> {
        self.spans.iter().rev().find(|s| s.first < seq).map(|s| s.last.min(SeqId(seq.0 - 1)))
    }
}

fn non_empty(ends: impl Iterator<Item = (SeqId, SeqId)>) -> SmallVec<[Span; 1]> {
    ends.filter(|(first, last)| first <= last).map(|(first, last)| Span { first, last }).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use logstore::id::{LogIndex, Ordinal, TimeMs};
    use proptest::prelude::*;
    use sequencer::state::{Interval, Role};

    /// A member row with these intervals; `None` as an end: a member now.
    pub(crate) fn member(intervals: &[(u64, Option<u64>)], visible_from: u64) -> MemberRow {
        let interval = |&(join, end): &(u64, Option<u64>)| Interval { join: SeqId(join), end: end.map(SeqId) };
        MemberRow {
            intervals: intervals.iter().map(interval).collect(),
            visible_from: SeqId(visible_from),
            role: Role::Member,
            delivered: SeqId(0),
            read: SeqId(0),
            read_ordinal: Ordinal(0),
            join_ordinal: Ordinal(0),
            left_at: (Ordinal(0), TimeMs(0)),
            changed_at: LogIndex(0),
        }
    }

    fn seqs(visible: &Visible) -> Vec<u64> {
        visible.spans().iter().flat_map(|s| s.first.0..=s.last.0).collect()
    }

    #[test]
    fn a_leaver_sees_the_leave_record_and_nothing_after_it() {
        let row = member(&[(3, Some(6))], 0);
        assert_eq!(seqs(&Visible::of(&row, SeqId(9))), vec![3, 4, 5]);
    }

    #[test]
    fn a_conversation_without_records_shows_nothing() {
        let visible = Visible::of(&member(&[(1, None)], 0), SeqId(0));
        assert!(visible.spans().is_empty());
        assert_eq!(visible.head(), SeqId(0));
    }

    #[test]
    fn the_newest_records_reach_back_over_a_gap() {
        let visible = Visible::of(&member(&[(1, Some(4)), (8, None)], 0), SeqId(9));
        assert_eq!(seqs(&visible.newest(3)), vec![3, 8, 9]);
        assert_eq!(visible.after(SeqId(3)), Some(SeqId(8)));
        assert_eq!(visible.before(SeqId(8)), Some(SeqId(3)));
    }

    fn rows() -> impl Strategy<Value = MemberRow> {
        (prop::collection::vec(1u64..6, 0..6), 0u64..20, any::<bool>()).prop_map(|(steps, visible_from, open)| {
            let mut at = 0;
            let ends: Vec<u64> = steps
                .iter()
                .map(|step| {
                    at += step;
                    at
                })
                .collect();
            let mut intervals: Vec<(u64, Option<u64>)> =
                ends.chunks_exact(2).map(|pair| (pair[0], Some(pair[1]))).collect();
            if open {
                intervals.push((at + 1, None));
            }
            member(&intervals, visible_from)
        })
    }

    proptest! {
        #[test]
        fn a_record_is_visible_exactly_when_the_row_sees_it(row in rows(), head in 0u64..40) {
            let expected: Vec<u64> = (1..=head).filter(|&s| row.sees(SeqId(s))).collect();
            let visible = Visible::of(&row, SeqId(head));
            prop_assert_eq!(&seqs(&visible), &expected);
            prop_assert_eq!(visible.head().0, expected.last().copied().unwrap_or(0));
            for seq in 0..=head + 1 {
                prop_assert_eq!(visible.after(SeqId(seq)).map(|s| s.0), expected.iter().copied().find(|&s| s > seq));
                prop_assert_eq!(visible.before(SeqId(seq)).map(|s| s.0), expected.iter().copied().rfind(|&s| s < seq));
            }
        }

        #[test]
        fn parts_hold_what_their_names_say(row in rows(), head in 0u64..40, from in 0u64..40, to in 0u64..40, count in 0u64..40) {
            let visible = Visible::of(&row, SeqId(head));
            let all = seqs(&visible);
            let within: Vec<u64> = all.iter().copied().filter(|s| (from..=to).contains(s)).collect();
            prop_assert_eq!(seqs(&visible.within(SeqId(from), SeqId(to))), within);
            let newest = all[all.len().saturating_sub(count as usize)..].to_vec();
            prop_assert_eq!(seqs(&visible.newest(count)), newest);
        }
    }
}
