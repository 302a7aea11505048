//! Where the entries of one shard are: log index → place in the journal.
//!
//! What always holds: the places of a shard are contiguous in log index. Those that are known rise in position (a shard's
//! entries are written in order) but for entries that were copied forward. What each file holds is counted, so that
//! a file nobody needs is known without a look at each entry.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::id::{LogIndex, Term};

use super::frame::frame_len;
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

/// The file of entries that cannot be read where they were: later than any that there can be.
const LOST_FILE: u32 = u32::MAX;
/// Room for so many entries is never given back.
const SPARE_ENTRIES: usize = 1024;

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

    /// Bytes of its frame.
    pub fn frame_bytes(&self) -> usize {
        frame_len(self.len as usize)
    }

    fn place_at(&mut self, position: Position) {
        (self.file, self.offset) = (position.file, position.offset);
    }
}

/// The places of one shard's entries.
#[derive(Debug, Default)]
pub(crate) struct EntryIndex {
    first: u64,
    locations: VecDeque<Location>,
    /// Bytes of all frames, those that are not synced included.
    frame_bytes: u64,
    /// How many of the entries are in each file; files without any are not here.
    files: BTreeMap<u32, u32>,
}

impl EntryIndex {
    /// The indexes held.
    pub fn range(&self) -> Range<LogIndex> {
        LogIndex(self.first)..LogIndex(self.first + self.locations.len() as u64)
    }

    pub fn get(&self, index: LogIndex) -> Option<&Location> {
        self.locations.get(self.place(index)?)
    }

    /// Bytes of the frames of all entries.
    pub fn frame_bytes(&self) -> u64 {
        self.frame_bytes
    }

    /// Adds the entry `index`, which must follow the last one if there is one.
    pub fn push(&mut self, index: LogIndex, location: Location) {
        if self.locations.is_empty() {
            self.first = index.0;
        }
        debug_assert_eq!(index, self.range().end);
        self.frame_bytes += location.frame_bytes() as u64;
        if location.file != 0 {
            *self.files.entry(location.file).or_default() += 1;
        }
        self.locations.push_back(location);
    }

    /// States that the frames of the pending entries from `first` on, of so many bytes each, have been synced one behind the
    /// other from `at` on; those that were forgotten meanwhile have no place any more.
    pub fn settle(&mut self, first: LogIndex, round: u32, mut at: Position, frames: impl Iterator<Item = usize>) {
        let mut settled = 0;
        for (index, bytes) in (first.0..).zip(frames) {
            let place = self.place(LogIndex(index)).and_then(|place| self.locations.get_mut(place));
            if let Some(location) = place.filter(|location| location.round == round && location.file == 0) {
                location.place_at(at);
                settled += 1;
            }
            at.offset += bytes as u32;
        }
        if settled > 0 {
            *self.files.entry(at.file).or_default() += settled;
        }
    }

    /// States where the copy of an entry has been synced, unless the entry at `from` was forgotten meanwhile.
    pub fn relocate(&mut self, index: LogIndex, from: Position, to: Position) {
        let Some(location) = self.place(index).and_then(|place| self.locations.get_mut(place)) else { return };
        if location.position() == Some(from) {
            location.place_at(to);
            leave(&mut self.files, from.file);
            *self.files.entry(to.file).or_default() += 1;
        }
    }

    /// States where the copy of a synced entry is.
    pub fn replace(&mut self, index: LogIndex, copy: Location) {
        if let Some(from) = self.get(index).and_then(Location::position)
            && let Some(to) = copy.position()
        {
            self.relocate(index, from, to);
        }
    }

    /// The entries from `index` on, and their places.
    pub fn from(&self, index: LogIndex) -> impl Iterator<Item = (LogIndex, &Location)> {
        let skip = usize::try_from(index.0.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.locations.len());
        (self.first + skip as u64..).map(LogIndex).zip(self.locations.range(skip..))
    }

    /// All entries and their places.
    pub fn into_locations(self) -> impl Iterator<Item = (LogIndex, Location)> {
        (self.first..).map(LogIndex).zip(self.locations)
    }

    /// Forgets entries from `index` on.
    pub fn truncate_from(&mut self, index: LogIndex) {
        let kept = usize::try_from(index.0.saturating_sub(self.first)).unwrap_or(usize::MAX);
        while self.locations.len() > kept {
            let gone = self.locations.pop_back();
            self.forget(gone);
        }
    }

    /// Forgets entries up to and including `index`.
    pub fn purge_upto(&mut self, index: LogIndex) {
        let gone = (index.0.saturating_add(1)).saturating_sub(self.first).min(self.locations.len() as u64);
        for _ in 0..gone {
            let gone = self.locations.pop_front();
            self.forget(gone);
        }
        self.first += gone;
        if self.locations.len().max(SPARE_ENTRIES) < self.locations.capacity() / 4 {
            self.locations.shrink_to(2 * self.locations.len().max(SPARE_ENTRIES));
        }
    }

    /// States that an entry cannot be read at its place any more, if it is still there: it holds no file back.
    pub fn lose(&mut self, index: LogIndex, from: Position) -> bool {
        let is_there = self.get(index).is_some_and(|location| location.position() == Some(from));
        if is_there {
            self.relocate(index, from, Position { file: LOST_FILE, ..from });
        }
        is_there
    }

    /// The last entry that lies in a file older than this one.
    pub fn last_before_file(&self, file: u32) -> Option<LogIndex> {
        let mut left: u64 = self.files.range(..file).map(|(_, entries)| u64::from(*entries)).sum();
        if left == 0 {
            return None;
        }
        let older = self.from(LogIndex(0)).filter(|(_, location)| (1..file).contains(&location.file));
        older.map(|(index, _)| index).find(|_| {
            left -= 1;
            left == 0
        })
    }

    /// The oldest file that holds an entry.
    pub fn oldest_file(&self) -> Option<u32> {
        self.files.first_key_value().map(|(file, _)| *file)
    }

    /// Whether an entry is in this file.
    pub fn is_in(&self, file: u32) -> bool {
        self.files.contains_key(&file)
    }

    fn forget(&mut self, gone: Option<Location>) {
        let Some(gone) = gone else { return };
        self.frame_bytes -= gone.frame_bytes() as u64;
        if gone.file != 0 {
            leave(&mut self.files, gone.file);
        }
    }

    fn place(&self, index: LogIndex) -> Option<usize> {
        usize::try_from(index.0.checked_sub(self.first)?).ok()
    }
}

/// One entry less in the file.
fn leave(files: &mut BTreeMap<u32, u32>, file: u32) {
    let Some(entries) = files.get_mut(&file) else { return };
    *entries -= 1;
    if *entries == 0 {
        files.remove(&file);
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
        index.settle(LogIndex(3), 0, Position { file: 1, offset: 4096 }, [240].into_iter());
        assert_eq!(index.get(LogIndex(3)).unwrap().position(), None);
        index.settle(LogIndex(3), 1, Position { file: 1, offset: 8192 }, [240].into_iter());
        assert_eq!(index.get(LogIndex(3)).unwrap().position(), Some(Position { file: 1, offset: 8192 }));
    }

    #[test]
    fn what_each_file_holds_is_counted_through_all_of_an_entrys_life() {
        let at = |file| Position { file, offset: 4096 };
        let mut index = index(1, 6);
        for (n, file) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
            index.settle(LogIndex(n), 0, at(file), [240].into_iter());
        }
        assert_eq!((index.oldest_file(), index.frame_bytes()), (Some(1), 6 * 56));
        index.relocate(LogIndex(1), at(1), at(3));
        index.relocate(LogIndex(2), at(9), at(3));
        assert_eq!(index.oldest_file(), Some(1), "the second entry was not where its copy was made from");
        index.relocate(LogIndex(2), at(1), at(3));
        assert_eq!((index.oldest_file(), index.is_in(3)), (Some(2), true));
        index.truncate_from(LogIndex(4));
        index.purge_upto(LogIndex(2));
        assert_eq!((index.oldest_file(), index.is_in(3), index.frame_bytes()), (Some(2), false, 56));
        index.truncate_from(LogIndex(0));
        assert_eq!((index.oldest_file(), index.frame_bytes()), (None, 0));
    }

    #[test]
    fn the_last_entry_of_older_files_is_found_behind_those_that_were_copied_to_newer_ones() {
        let at = |file| Position { file, offset: 4096 };
        let mut index = index(1, 5);
        for (n, file) in [(1, 1), (2, 1), (3, 2), (4, 3)] {
            index.settle(LogIndex(n), 0, at(file), [240].into_iter());
        }
        assert_eq!(
            [1, 2, 3, 4].map(|file| index.last_before_file(file)),
            [None, Some(2), Some(3), Some(4)].map(|at| at.map(LogIndex))
        );
        index.relocate(LogIndex(1), at(1), at(3));
        assert_eq!(index.last_before_file(3), Some(LogIndex(3)));
        index.relocate(LogIndex(3), at(2), at(3));
        assert_eq!(index.last_before_file(3), Some(LogIndex(2)));
        index.lose(LogIndex(2), at(1));
        assert_eq!(index.last_before_file(3), None);
    }
}
