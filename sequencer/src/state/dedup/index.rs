//! From an id's hash to the positions where that id may be: many small tables, a cache line a look.
//!
//! ```text
//!   part (chosen by the hash)          line: 64 bytes, filled from the left
//!   +--------+--------+-- ..  --+      +-----------------+-----------------------+
//!   | line 0 | line 1 |         |      | 8 tags, 0: free | 8 positions           |
//!   +--------+--------+-- ..  --+      +-----------------+-----------------------+
//! ```
//!
//! An id is in its home line, or, while lines are full, in one of those that follow. What always holds: no line has
//! entries after a free one; every table has free ones, so that a look ends. A look that finds nothing and the
//! insertion after it need the same one line, which is what a message that was never sent before costs.

use crate::store::part_of;

/// Small tables: at 10 million ids, 10,000 in each; doubling one takes some 50 µs.
const PARTS: usize = 1024;
/// Entries of a line.
const LINE_LEN: usize = 8;

/// Positions by hash. A position is that of an id in the sequence, cut to its lower 32 bits.
#[derive(Debug)]
pub(super) struct Index {
    parts: Vec<Part>,
}

#[derive(Debug, Default)]
struct Part {
    /// A power of two of them, or none yet.
    lines: Vec<Line>,
    len: usize,
}

#[derive(Clone, Debug)]
#[repr(align(64))]
struct Line {
    tags: [u32; LINE_LEN],
    positions: [u32; LINE_LEN],
}

const _: () = assert!(size_of::<Line>() == 64, "a look is one cache line");

impl Index {
    pub fn new() -> Index {
        Index { parts: (0..PARTS).map(|_| Part::default()).collect() }
    }

    /// Brings near the line in which [`Index::find`] will begin and [`Index::insert`] will most likely end. What it
    /// returns is of no use but to make sure that the line is looked at.
    pub fn touch(&self, hash: u64) -> u32 {
        let part = &self.parts[part_of(hash, PARTS)];
        part.lines.get(part.home(tag_of(hash))).map_or(0, |line| line.tags[0])
    }

    /// The first position under this hash that is the one looked for.
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let (part, tag) = (&self.parts[part_of(hash, PARTS)], tag_of(hash));
        let mut at = part.home(tag);
        loop {
            let line = part.lines.get(at)?;
            let mut places = line.places_of(tag);
            while places != 0 {
                let position = line.positions[places.trailing_zeros() as usize % LINE_LEN];
                if is_it(position) {
                    return Some(position);
                }
                places &= places - 1;
            }
            if !line.is_full() {
                return None;
            }
            at = part.after(at);
        }
    }

    /// Adds a position. Where a table is full, those that `is_held` denies are dropped, and it grows if need be.
    pub fn insert(&mut self, hash: u64, position: u32, is_held: impl Fn(u32) -> bool) {
        let part = &mut self.parts[part_of(hash, PARTS)];
        if part.len >= part.len_max() {
            part.make_room(is_held);
        }
        part.insert(tag_of(hash), position);
    }
}

impl Part {
    /// Where a tag's entries begin. All of the tag goes into it, as nothing else of the hash is left when a table grows.
    fn home(&self, tag: u32) -> usize {
        let spread = u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (spread >> 32) as usize & self.lines.len().wrapping_sub(1)
    }

    fn after(&self, line: usize) -> usize {
        (line + 1) & (self.lines.len() - 1)
    }

    /// Three quarters of all entries: a quarter of the lines is full then.
    fn len_max(&self) -> usize {
        self.lines.len() * LINE_LEN * 3 / 4
    }

    fn insert(&mut self, tag: u32, position: u32) {
        let mut at = self.home(tag);
        while self.lines[at].is_full() {
            at = self.after(at);
        }
        let line = &mut self.lines[at];
        let free = line.places_of(0).trailing_zeros() as usize % LINE_LEN;
        line.tags[free] = tag;
        line.positions[free] = position;
        self.len += 1;
    }

    /// Builds the table anew without what is no longer held, and twice as large if that does not free half of it.
    fn make_room(&mut self, is_held: impl Fn(u32) -> bool) {
        let full = std::mem::take(self);
        let entries = || full.lines.iter().flat_map(Line::entries).filter(|(_, position)| is_held(*position));
        let room = if entries().count() > full.len_max() / 2 { 2 * full.lines.len() } else { full.lines.len() };
        self.lines = vec![Line::FREE; room.max(1)];
        for (tag, position) in entries() {
            self.insert(tag, position);
        }
    }
}

impl Line {
    const FREE: Line = Line { tags: [0; LINE_LEN], positions: [0; LINE_LEN] };

    /// One bit for each entry with this tag, the first one's the lowest.
    fn places_of(&self, tag: u32) -> u32 {
        let places = self.tags.iter().enumerate();
        places.fold(0, |found, (place, each)| found | u32::from(*each == tag) << place)
    }

    fn is_full(&self) -> bool {
        self.tags[LINE_LEN - 1] != 0
    }

    fn entries(&self) -> impl Iterator<Item = (u32, u32)> {
        self.tags.into_iter().zip(self.positions).take_while(|(tag, _)| *tag != 0)
    }
}

/// 31 bits of a hash; never 0, which means free.
fn tag_of(hash: u64) -> u32 {
    hash as u32 | 1
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Add(u64),
        Release(u32),
    }

    /// Hashes that collide: few parts, few tags.
    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            20 => (0..2u64, 0..200u64).prop_map(|(part, tag)| Step::Add(part << 40 | tag << 1)),
            1 => (0..40u32).prop_map(Step::Release),
        ]
    }

    proptest! {
        #[test]
        fn every_position_held_is_found_under_its_hash_and_no_other(steps in prop::collection::vec(step(), 0..600)) {
            let (mut index, mut model) = (Index::new(), HashMap::<u64, Vec<u32>>::new());
            let (mut first, mut next) = (0, 0);
            for step in steps {
                match step {
                    Step::Add(hash) => {
                        index.insert(hash, next, |position| position >= first);
                        model.entry(hash).or_default().push(next);
                        next += 1;
                    }
                    Step::Release(count) => first = next.min(first + count),
                }
            }
            for (hash, positions) in &model {
                let mut seen = Vec::new();
                index.find(*hash, |position| { seen.push(position); false });
                seen.retain(|position| *position >= first);
                seen.sort_unstable();
                let held: Vec<u32> = positions.iter().copied().filter(|position| *position >= first).collect();
                prop_assert_eq!(seen, held);
            }
        }
    }

    #[test]
    fn what_is_no_longer_held_makes_room_before_a_table_grows() {
        let mut index = Index::new();
        for position in 0..100_000u32 {
            let hash = u64::from(position).wrapping_mul(0x9e37_79b9_7f4a_7c15) & 0xffff_ffff;
            index.insert(hash, position, |other| position - other < 50);
        }
        let lines: usize = index.parts.iter().map(|part| part.lines.len()).sum();
        assert!(lines <= 32, "{lines} lines for 50 positions");
    }
}
