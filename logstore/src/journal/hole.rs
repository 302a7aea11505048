//! The entries of one shard that lay before the oldest file of a journal.
//!
//! What always holds: when all files have been replayed each of them has turned up as a copy, or has been purged or
//! truncated; one that has not is lost. Memory is taken for what is found, never for what is only said to exist.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use crate::id::LogIndex;

use super::index::{EntryIndex, Location};

/// What is known of them so far.
#[derive(Debug, Default)]
pub(crate) struct Hole {
    range: Range<u64>,
    found: BTreeMap<u64, Location>,
}

impl Hole {
    /// A hole of these entries.
    pub fn new(range: Range<u64>) -> Hole {
        Hole { range, found: BTreeMap::new() }
    }

    /// Whether the entry lay before the oldest file and is live.
    pub fn contains(&self, index: LogIndex) -> bool {
        self.range.contains(&index.0)
    }

    /// States where a copy is, of the entry or of an earlier copy.
    pub fn fill(&mut self, index: LogIndex, location: Location) {
        self.found.insert(index.0, location);
    }

    /// Forgets entries from `index` on.
    pub fn truncate_from(&mut self, index: LogIndex) {
        self.range.end = self.range.end.min(index.0);
        self.found.split_off(&index.0);
    }

    /// Forgets entries up to and including `index`.
    pub fn purge_upto(&mut self, index: LogIndex) {
        let first = index.0.saturating_add(1);
        self.range.start = self.range.start.max(first);
        self.found = self.found.split_off(&first);
    }

    /// The first entries in a row that no copy has been found of.
    pub fn missing(&self) -> Option<RangeInclusive<u64>> {
        let mut next = self.range.start;
        for found in self.found.keys() {
            if *found > next {
                return Some(next..=found - 1);
            }
            next = found + 1;
        }
        (next < self.range.end).then(|| next..=self.range.end - 1)
    }

    /// The places of the copies, and those of the entries after them.
    pub fn into_index(self, after: EntryIndex) -> EntryIndex {
        if self.found.is_empty() {
            return after;
        }
        let mut index = EntryIndex::default();
        let copies = self.found.into_iter().map(|(at, location)| (LogIndex(at), location));
        copies.chain(after.into_locations()).for_each(|(at, location)| index.push(at, location));
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Term;

    fn filled(hole: &mut Hole, indexes: impl IntoIterator<Item = u64>) {
        for index in indexes {
            hole.fill(LogIndex(index), Location::pending(Term(1), 1, 0));
        }
    }

    #[test]
    fn a_hole_closes_by_copies_purges_and_truncations() {
        let mut hole = Hole::new(5..20);
        assert_eq!(hole.missing(), Some(5..=19));
        filled(&mut hole, [5, 6, 10, 11]);
        assert_eq!(hole.missing(), Some(7..=9));
        hole.purge_upto(LogIndex(9));
        assert_eq!(hole.missing(), Some(12..=19));
        hole.truncate_from(LogIndex(12));
        assert_eq!(hole.missing(), None);
        let mut after = EntryIndex::default();
        after.push(LogIndex(12), Location::pending(Term(2), 1, 0));
        assert_eq!(hole.into_index(after).range(), LogIndex(10)..LogIndex(13));
    }

    #[test]
    fn nothing_is_missing_where_nothing_is_live() {
        let mut hole = Hole::new(5..20);
        filled(&mut hole, 5..20);
        hole.purge_upto(LogIndex(30));
        hole.truncate_from(LogIndex(0));
        assert_eq!((hole.missing(), Hole::default().missing()), (None, None));
        assert!(!hole.contains(LogIndex(30)));
        assert!(hole.into_index(EntryIndex::default()).range().is_empty());
    }
}
