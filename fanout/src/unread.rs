//! How many of others' messages a member has not read.
//!
//! Unread = others' countable records in (max(read, join, visible_from, trim floor), head] that are not removed: a difference of two
//! ordinals, less the member's own records and others' removed ones in that range. Exact while the range holds at most
//! [`EXACT_RECORDS_MAX`] records; beyond it the ordinal difference is told less what is known to be recalled, own and erased records
//! included: clients show "1000+" there.

use logstore::BodyPlace;
use logstore::id::{ConversationId, Ordinal, UserId};
use sequencer::Record;
use sequencer::state::{MemberRow, Upkeep};

use crate::pages::{Budget, RecordSource, oldest_first};
use crate::visible::Visible;

/// Own records are counted by reading the range: this many are about 100 µs of decoding.
pub(crate) const EXACT_RECORDS_MAX: u64 = 1000;

/// The records among which unread ones are, and how many of them are countable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnreadSpan {
    /// The visible records above the read cursor, in the current (or last) interval.
    pub range: Visible,
    /// Countable records in it, the member's own and those removed included.
    pub countable: u64,
    /// The ordinals in it: above the first, up to the second.
    ordinals: (Ordinal, Ordinal),
    /// Those of others in it that were recalled.
    recalled: u64,
}

impl UnreadSpan {
    /// What is above the read cursor of a member who sees `visible`, the last of it at ordinal `head_ordinal`.
    pub fn of(row: &MemberRow, visible: &Visible, head_ordinal: Ordinal) -> UnreadSpan {
        let Some(span) = visible.spans().last() else { return UnreadSpan::nothing() };
        let below = if row.read >= span.first { row.read_ordinal } else { row.join_ordinal };
        UnreadSpan {
            range: visible.within(span.first.max(row.read.next()), span.last),
            countable: head_ordinal.0.saturating_sub(below.0),
            ordinals: (below, head_ordinal),
            recalled: 0,
        }
    }

    /// The same, less what was removed of the conversation.
    pub fn less(self, user: UserId, upkeep: Option<&Upkeep>) -> UnreadSpan {
        let Some(upkeep) = upkeep.filter(|_| !self.range.spans().is_empty()) else { return self };
        let (below, head) = (self.ordinals.0.max(upkeep.floor.ordinal), self.ordinals.1);
        UnreadSpan {
            countable: head.0.saturating_sub(below.0),
            ordinals: (below, head),
            recalled: upkeep.recalled_of_others(user, below, head),
            ..self
        }
    }

    /// Nothing to read.
    pub fn nothing() -> UnreadSpan {
        UnreadSpan { range: Visible::default(), countable: 0, ordinals: (Ordinal(0), Ordinal(0)), recalled: 0 }
    }

    fn records(&self) -> u64 {
        self.range.spans().iter().map(|s| s.len()).sum()
    }

    /// Others' messages in the span, when `known` are the newest records of the conversation, ascending, and reach down
    /// to its beginning; `None` if they do not.
    pub fn count_in(&self, user: UserId, known: &[Record]) -> Option<u64> {
        let Some(first) = self.range.spans().first().map(|s| s.first) else { return Some(0) };
        let covered = known.first().is_some_and(|r| r.head.seq <= first);
        covered.then(|| {
            let above = known.iter().filter(|r| r.head.seq >= first);
            self.countable.saturating_sub(not_counted(above, user))
        })
    }

    /// Others' messages in the span, read from `source`.
    pub async fn count(&self, user: UserId, conversation: ConversationId, source: &impl RecordSource) -> u64 {
        if self.countable == 0 || self.records() > EXACT_RECORDS_MAX {
            return self.countable.saturating_sub(self.recalled);
        }
        let mut budget = Budget { records: EXACT_RECORDS_MAX as usize, bytes: usize::MAX };
        match oldest_first(source, conversation, &self.range, &mut budget).await {
            Ok(records) => self.countable.saturating_sub(not_counted(records.iter(), user)),
            Err(error) => {
                tracing::warn!(%conversation, %error, "own messages could not be counted; unread includes them");
                self.countable.saturating_sub(self.recalled)
            }
        }
    }
}

/// Own messages, and those whose bodies are gone.
fn not_counted<'a>(records: impl Iterator<Item = &'a Record>, user: UserId) -> u64 {
    let is_not = |record: &&Record| record.head.sender == user || record.head.body == BodyPlace::Removed;
    records.filter(|record| record.head.kind.is_countable()).filter(is_not).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::tests::{Listed, block_on, record};
    use crate::visible::tests::member;
    use logstore::RecordKind;
    use logstore::id::SeqId;
    use proptest::prelude::*;

    const ME: UserId = UserId(1);
    const OTHER: UserId = UserId(2);

    /// Records from (sender, countable) pairs, ordinals counted.
    fn conversation(plan: &[(bool, bool)]) -> Vec<Record> {
        let mut ordinal = 0;
        plan.iter()
            .enumerate()
            .map(|(i, &(mine, countable))| {
                ordinal += u64::from(countable);
                let mut r = record(ConversationId::group(1), i as u64 + 1, if mine { ME } else { OTHER }, 0);
                r.head.kind = if countable { RecordKind::TEXT } else { RecordKind::MEMBERSHIP };
                r.head.ordinal = Ordinal(ordinal);
                r
            })
            .collect()
    }

    fn ordinal_at(records: &[Record], seq: u64) -> Ordinal {
        records.iter().rev().find(|r| r.head.seq.0 <= seq).map_or(Ordinal(0), |r| r.head.ordinal)
    }

    proptest! {
        #[test]
        fn unread_equals_a_recount(
            plan in prop::collection::vec(any::<(bool, bool)>(), 0..120),
            join in 1u64..60, length in 1u64..80, open in any::<bool>(), read in 0u64..120,
        ) {
            let records = conversation(&plan);
            let head = SeqId(records.len() as u64);
            prop_assume!(join <= head.0.max(1));
            let mut row = member(&[(join, (!open).then_some(join + length))], 0);
            let visible = Visible::of(&row, head);
            row.read = SeqId(read.min(visible.head().0));
            row.read_ordinal = ordinal_at(&records, row.read.0);
            row.join_ordinal = ordinal_at(&records, join - 1);

            let expected = records.iter().filter(|r| {
                row.sees(r.head.seq) && r.head.seq > row.read && r.head.sender != ME && r.head.kind.is_countable()
            });
            let expected = expected.count() as u64;
            let head_ordinal = ordinal_at(&records, visible.head().0);
            let span = UnreadSpan::of(&row, &visible, head_ordinal);
            let source = Listed { records: records.clone(), read_max: 7 };
            prop_assert_eq!(block_on(span.count(ME, ConversationId::group(1), &source)), expected);
            let seen: Vec<Record> = records.into_iter().filter(|r| row.sees(r.head.seq)).collect();
            prop_assert_eq!(span.count_in(ME, &seen), Some(expected));
        }
    }

    #[test]
    fn above_a_thousand_records_the_ordinal_difference_is_told() {
        let plan: Vec<(bool, bool)> = (0..1001).map(|i| (i % 2 == 0, true)).collect();
        let records = conversation(&plan);
        let row = member(&[(1, None)], 0);
        let visible = Visible::of(&row, SeqId(1001));
        let span = UnreadSpan::of(&row, &visible, Ordinal(1001));
        let source = Listed { records, read_max: 1000 };
        assert_eq!(block_on(span.count(ME, ConversationId::group(1), &source)), 1001);
    }

    #[test]
    fn records_that_do_not_reach_down_do_not_decide() {
        let records = conversation(&[(false, true), (false, true)]);
        let row = member(&[(1, None)], 0);
        let span = UnreadSpan::of(&row, &Visible::of(&row, SeqId(2)), Ordinal(2));
        assert_eq!(span.count_in(ME, &records[1..]), None);
        assert_eq!(span.count_in(ME, &records), Some(2));
    }
}
