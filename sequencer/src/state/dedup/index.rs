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
//!
//! Parts get even shares of the ids. Were they of one size, all would be full within the same few seconds, and growing is
//! what costs most: memory that was never touched. So part i of n is 1 + i/n times as large as the first one, and between
//! two doublings of a part every other one doubles once, one after another.

use crate::store::part_of;

/// Small tables: at 10 million ids, 5,000 in each; doubling one takes some 25 µs where its memory is at hand.
const PARTS: usize = 2048;
/// Entries of a line.
const LINE_LEN: usize = 8;

/// Positions by hash. A position is that of an id in the sequence, cut to its lower 32 bits.
#[derive(Debug)]
pub(super) struct Index {
    parts: Vec<Part>,
}

#[derive(Debug, Default)]
struct Part {
    /// None until the first entry comes.
    lines: Vec<Line>,
    len: usize,
    doublings: u32,
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
        let number = part_of(hash, PARTS);
        let part = &mut self.parts[number];
        if part.len >= part.len_max() {
            part.make_room(number, is_held);
        }
        part.insert(tag_of(hash), position);
    }
}

impl Part {
    /// Where a tag's entries begin. All of the tag goes into it, as nothing else of the hash is left when a table grows;
    /// what is in order in a small table is in order in a larger one.
    fn home(&self, tag: u32) -> usize {
        let spread = u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        ((spread * self.lines.len() as u64) >> 32) as usize
    }

    fn after(&self, line: usize) -> usize {
        if line + 1 < self.lines.len() { line + 1 } else { 0 }
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
    fn make_room(&mut self, number: usize, is_held: impl Fn(u32) -> bool) {
        let full = std::mem::take(self);
        let entries = || full.lines.iter().flat_map(Line::entries).filter(|(_, position)| is_held(*position));
        let grows = full.len > 0 && entries().count() > full.len_max() / 2;
        self.doublings = full.doublings + u32::from(grows);
        self.lines = vec![Line::FREE; lines_of(number, self.doublings)];
        for (tag, position) in entries() {
            self.insert(tag, position);
        }
    }
}

/// How large a part is.
fn lines_of(number: usize, doublings: u32) -> usize {
    ((PARTS + number) << doublings) / PARTS
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

    /// Hashes as even as a hasher's.
    fn hash_of(n: u64) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes())
    }

    fn line_count(index: &Index) -> usize {
        index.parts.iter().map(|part| part.lines.len()).sum()
    }

    #[test]
    fn what_is_no_longer_held_makes_room_before_a_table_grows() {
        let mut index = Index::new();
        for position in 0..100_000u32 {
            let hash = hash_of(position.into()) & 0xffff_ffff;
            index.insert(hash, position, |other| position - other < 50);
        }
        assert!(line_count(&index) <= 32, "{} lines for 50 positions", line_count(&index));
    }

    #[test]
    fn tables_grow_one_after_another() {
        const STEP: u64 = 10_000;
        let (mut index, mut lines) = (Index::new(), 0);
        for position in 0..1_000_000 {
            index.insert(hash_of(position), position as u32, |_| true);
            if position >= 200_000 && position % STEP == 0 {
                let grown = line_count(&index) - std::mem::replace(&mut lines, line_count(&index));
                let even = STEP as usize / LINE_LEN * 4 / 3;
                assert!(grown < 3 * even || position == 200_000, "{grown} lines more at {position}");
            }
        }
        let load = 1_000_000.0 / (line_count(&index) * LINE_LEN) as f64;
        assert!((0.5..0.6).contains(&load), "{load} of the entries are taken");
    }
}
