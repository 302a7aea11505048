//! Several sorted sources as one: of what has the same key, that of the newest source.
//!
//! What always holds: sources are sorted and name a key once each; one row of each is in memory; after an error nothing
//! more comes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::Result;

/// A source of rows.
pub(crate) type Source<'a, T> = Box<dyn Iterator<Item = Result<T>> + 'a>;

/// Merges sources, the oldest first, by a key.
pub(crate) struct Newest<'a, T, K> {
    sources: Vec<(Option<T>, Source<'a, T>)>,
    key: fn(&T) -> K,
    /// The key of each source's next row: the lowest on top, of equal ones that of the newest source.
    turns: BinaryHeap<(Reverse<K>, usize)>,
}

impl<'a, T, K: Ord> Newest<'a, T, K> {
    pub(crate) fn new(sources: impl IntoIterator<Item = Source<'a, T>>, key: fn(&T) -> K) -> Result<Newest<'a, T, K>> {
        let sources: Vec<_> = sources.into_iter().map(|source| (None, source)).collect();
        let count = sources.len();
        let mut newest = Newest { sources, key, turns: BinaryHeap::new() };
        (0..count).try_for_each(|place| newest.advance(place).map(drop))?;
        Ok(newest)
    }

    fn step(&mut self) -> Result<Option<T>> {
        let Some((key, place)) = self.turns.pop() else { return Ok(None) };
        let newest = self.advance(place)?;
        while let Some((_, older)) = self.turns.peek().filter(|(next, _)| *next == key) {
            let older = *older;
            self.turns.pop();
            self.advance(older)?;
        }
        Ok(newest)
    }

    /// Takes a source's row and reads its next one.
    fn advance(&mut self, place: usize) -> Result<Option<T>> {
        let (row, source) = &mut self.sources[place];
        let taken = std::mem::replace(row, source.next().transpose()?);
        if let Some(row) = row {
            self.turns.push((Reverse((self.key)(row)), place));
        }
        Ok(taken)
    }
}

impl<T, K: Ord> Iterator for Newest<'_, T, K> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let row = self.step();
        if row.is_err() {
            self.turns.clear();
        }
        row.transpose()
    }
}
