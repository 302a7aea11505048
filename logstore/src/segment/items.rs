//! A segment from end to end: for verification, merges, export and rebuilds.
//!
//! What always holds: one block is in memory at a time, past the cache; after an error nothing more comes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::Segment;
use super::delta::{self, DeltaRow};
use super::format::Section;
use super::record::Item;
use super::records::Malformed;
use crate::Result;
use crate::id::SeqId;

impl Segment {
    /// All records and trimmed ranges, in the order of (bucket, conversation, seq).
    pub fn items(self: &Arc<Self>) -> Items {
        let blocks = self.block_index().len();
        Items { segment: self.clone(), blocks, next_block: 0, queue: VecDeque::new() }
    }

    /// All rows of the state delta, in the order of keys.
    pub fn delta_rows(self: &Arc<Self>) -> DeltaRows {
        self.delta_rows_from(&[])
    }

    /// The rows of the state delta that are in the block of a key and after it: all rows from that key on, and at most a block of
    /// earlier ones.
    pub fn delta_rows_from(self: &Arc<Self>, key: &[u8]) -> DeltaRows {
        let blocks = self.delta_index().len();
        // An index that makes no sense is found out by reading from its beginning.
        let first = self.delta_index().block_of(key).flatten().unwrap_or(0);
        DeltaRows { segment: self.clone(), blocks, next_block: first, rows: None, from: Bytes::new(), cached: false }
    }

    /// The rows of the state delta whose keys are `from` or above, in the order of keys; blocks come through the cache.
    pub fn delta_rows_at(self: &Arc<Self>, from: &[u8]) -> Result<DeltaRows> {
        let index = self.delta_index();
        let block = index.block_of(from).ok_or_else(|| self.rot_in(Section::DeltaIndex))?;
        let (blocks, next_block) = (index.len(), block.unwrap_or(0));
        let from = Bytes::copy_from_slice(from);
        Ok(DeltaRows { segment: self.clone(), blocks, next_block, rows: None, from, cached: true })
    }

    fn items_of_block(&self, number: u32) -> Result<VecDeque<Item>> {
        let block = self.scan_record_block(number)?;
        let mut items = VecDeque::new();
        let mut at = Some(block.first_run());
        while let Some(start) = at {
            let rot = |_: Malformed| self.rot_in_block(number);
            let mut run = block.run(start, SeqId(0)).ok_or(Malformed).map_err(rot)?;
            while let Some(item) = run.next().map_err(rot)? {
                items.push_back(item);
            }
            at = run.following_run();
        }
        Ok(items)
    }
}

/// See [`Segment::items`].
pub struct Items {
    segment: Arc<Segment>,
    blocks: u32,
    next_block: u32,
    queue: VecDeque<Item>,
}

impl Iterator for Items {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        while self.queue.is_empty() && self.next_block < self.blocks {
            let number = self.next_block;
            self.next_block += 1;
            match self.segment.items_of_block(number) {
                Ok(items) => self.queue = items,
                Err(error) => {
                    self.next_block = self.blocks;
                    return Some(Err(error));
                }
            }
        }
        self.queue.pop_front().map(Ok)
    }
}

/// See [`Segment::delta_rows`] and [`Segment::delta_rows_from`].
pub struct DeltaRows {
    segment: Arc<Segment>,
    blocks: u32,
    next_block: u32,
    rows: Option<delta::DeltaRows>,
    /// Rows below it are passed over: they can only be in the first block.
    from: Bytes,
    cached: bool,
}

impl DeltaRows {
    /// The block that the last row came from.
    pub(super) fn block(&self) -> u32 {
        self.next_block.saturating_sub(1)
    }

    fn step(&mut self) -> Result<Option<DeltaRow>> {
        loop {
            if let Some(rows) = &mut self.rows
                && let Some(row) =
                    rows.next().map_err(|Malformed| self.segment.rot_in_delta_block(self.next_block - 1))?
            {
                if row.key < self.from {
                    continue;
                }
                return Ok(Some(row));
            }
            if self.next_block == self.blocks {
                return Ok(None);
            }
            self.next_block += 1;
            self.rows = Some(match self.cached {
                true => self.segment.cached_delta_block(self.next_block - 1)?,
                false => self.segment.scan_delta_block(self.next_block - 1)?,
            });
        }
    }
}

impl Iterator for DeltaRows {
    type Item = Result<DeltaRow>;

    fn next(&mut self) -> Option<Result<DeltaRow>> {
        let row = self.step();
        if row.is_err() {
            (self.rows, self.next_block) = (None, self.blocks);
        }
        row.transpose()
    }
}
