//! Where the entries of one shard are: log index → place in the journal.
//!
//! What always holds: the places of a shard are contiguous in log index, and those that are known rise in
//! position (a shard's entries are written in order).

use std::collections::VecDeque;
use std::ops::Range;

use crate::id::{LogIndex, Term};

use super::position::Position;

/// The place of one entry's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The entry's term: tells an entry from one that a truncation put in its place.
    pub term: Term,
    file: u32,
    offset: u32,
    /// Bytes of payload.
    pub len: u32,
    /// How many truncations the shard had seen when the entry was appended.
    pub round: u32,
}

const _: () = assert!(size_of::<Location>() == 24, "a million entries cost 24 MB");

impl Location {
    /// An entry that is queued, not yet synced: it has no place, and stays in memory.
    pub fn pending(term: Term, len: u32, round: u32) -> Location {
        Location { term, file: 0, offset: 0, len, round }
    }

    /// An entry found in the journal.
    pub fn at(position: Position, term: Term, len: u32) -> Location {
        Location { term, file: position.file, offset: position.offset, len, round: 0 }
    }

    /// Where it is, once it is synced.
    pub fn position(&self) -> Option<Position> {
        (self.file != 0).then_some(Position { file: self.file, offset: self.offset })
    }

    fn settle(&mut self, position: Position) {
        (self.file, self.offset) = (position.file, position.offset);
    }
}

/// The places of one shard's entries.
#[derive(Debug, Default)]
pub(crate) struct EntryIndex {
    first: u64,
    locations: VecDeque<Location>,
}

impl EntryIndex {
    /// The indexes held.
    pub fn range(&self) -> Range<LogIndex> {
        LogIndex(self.first)..LogIndex(self.first + self.locations.len() as u64)
    }

    pub fn get(&self, index: LogIndex) -> Option<&Location> {
        self.locations.get(self.place(index)?)
    }

    /// Adds the entry `index`, which must follow the last one if there is one.
    pub fn push(&mut self, index: LogIndex, location: Location) {
        if self.locations.is_empty() {
            self.first = index.0;
        }
        debug_assert_eq!(index, self.range().end);
        self.locations.push_back(location);
    }

    /// States where a pending entry has been synced, unless it was forgotten meanwhile.
    pub fn settle(&mut self, index: LogIndex, round: u32, position: Position) {
        let Some(location) = self.place(index).and_then(|place| self.locations.get_mut(place)) else { return };
        if location.round == round && location.file == 0 {
            location.settle(position);
        }
    }

    /// Forgets entries from `index` on.
    pub fn truncate_from(&mut self, index: LogIndex) {
        let kept = index.0.saturating_sub(self.first);
        self.locations.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    }

    /// Forgets entries up to and including `index`.
    pub fn purge_upto(&mut self, index: LogIndex) {
        let gone = (index.0.saturating_add(1)).saturating_sub(self.first).min(self.locations.len() as u64);
        self.locations.drain(..gone as usize);
        self.first += gone;
    }

    /// The file that holds the oldest entry, if that is synced.
    pub fn oldest_file(&self) -> Option<u32> {
        self.locations.front().and_then(Location::position).map(|position| position.file)
    }

    fn place(&self, index: LogIndex) -> Option<usize> {
        usize::try_from(index.0.checked_sub(self.first)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(first: u64, count: u64) -> EntryIndex {
        let mut index = EntryIndex::default();
        for n in first..first + count {
            index.push(LogIndex(n), Location::pending(Term(1), 10, 0));
        }
        index
    }

    #[test]
    fn truncation_and_purge_leave_what_is_between() {
        let mut index = index(5, 10);
        index.truncate_from(LogIndex(12));
        index.purge_upto(LogIndex(7));
        assert_eq!(index.range(), LogIndex(8)..LogIndex(12));
        index.purge_upto(LogIndex(3));
        index.truncate_from(LogIndex(40));
        assert_eq!(index.range(), LogIndex(8)..LogIndex(12));
        index.truncate_from(LogIndex(2));
        assert!(index.locations.is_empty());
    }

    #[test]
    fn an_entry_that_was_replaced_keeps_no_place_of_its_predecessor() {
        let mut index = index(1, 3);
        index.truncate_from(LogIndex(3));
        index.push(LogIndex(3), Location::pending(Term(1), 10, 1));
        index.settle(LogIndex(3), 0, Position { file: 1, offset: 4096 });
        assert_eq!(index.get(LogIndex(3)).unwrap().position(), None);
        index.settle(LogIndex(3), 1, Position { file: 1, offset: 8192 });
        assert_eq!(index.get(LogIndex(3)).unwrap().position(), Some(Position { file: 1, offset: 8192 }));
    }
}
