//! Everything that is sealed of a shard, once and in order: what export, import and backup read.
//!
//! What always holds: of a state row only the newest value comes, and none of a row that is gone; records come in the order of
//! (bucket, conversation, seq), whatever segment they lie in; one block of each segment is in memory at a time, and nothing
//! goes through the block cache; after an error nothing more comes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::Peekable;
use std::sync::Arc;

use crate::Result;
use crate::id::{Bucket, ConversationId, SegmentOrdinal};
use crate::merge::{Newest, Source};
use crate::segment::{DeltaRow, Item, Items, Segment};
use crate::segment_set::SegmentSet;

/// Rows of state, or why they cannot be read.
pub type Rows = Box<dyn Iterator<Item = Result<DeltaRow>>>;

impl SegmentSet {
    /// Every state row from a key on, as of the last seal: the newest value of each key, in the order of keys.
    pub fn rows(&self, from: &[u8]) -> Result<Rows> {
        newest_rows(self.segments(), from)
    }

    /// Every state row as of the end of the segment whose last seal is `upto`.
    pub fn rows_as_of(&self, upto: SegmentOrdinal) -> Result<Rows> {
        let segments = self.segments();
        newest_rows(&segments[..segments.partition_point(|segment| segment.span().last <= upto)], &[])
    }

    /// Every record and trimmed range, in the order of (bucket, conversation, seq).
    pub fn items(&self) -> Result<ItemScan> {
        ItemScan::new(self.segments().iter().map(|segment| segment.items()))
    }
}

fn newest_rows(segments: &[Arc<Segment>], from: &[u8]) -> Result<Rows> {
    let source = |segment: &Arc<Segment>| Box::new(segment.delta_rows_from(from)) as Rows;
    let newest = Newest::new(segments.iter().map(source), |row: &DeltaRow| row.key.clone())?;
    let from = from.to_vec();
    let is_wanted = move |row: &DeltaRow| row.value.is_some() && row.key[..] >= from[..];
    Ok(Box::new(newest.filter(move |row| row.as_ref().map_or(true, &is_wanted))))
}

/// The rows of several shards in the order of keys; of those that every shard has, one shard's.
pub fn rows_of(sets: &[Arc<SegmentSet>], from: &[u8]) -> Result<Rows> {
    let sources = sets.iter().map(|set| set.rows(from)).collect::<Result<Vec<_>>>()?;
    Ok(Box::new(Newest::new(sources, |row: &DeltaRow| row.key.clone())?))
}

/// The records and trimmed ranges of several shards, in the order of (bucket, conversation, seq).
pub fn items_of(sets: &[Arc<SegmentSet>]) -> Result<impl Iterator<Item = Result<Item>>> {
    let source = |set: &Arc<SegmentSet>| set.items().map(|items| Box::new(items) as Source<'static, Item>);
    let sources = sets.iter().map(source).collect::<Result<Vec<_>>>()?;
    Newest::new(sources, |item: &Item| (key_of(item), item.first()))
}

/// See [`SegmentSet::items`].
pub struct ItemScan {
    sources: Vec<Peekable<Items>>,
    turns: BinaryHeap<Turn>,
    /// The source whose conversation is being read.
    at: Option<(usize, (Bucket, ConversationId))>,
}

/// The next conversation of a source; of one conversation the oldest source's comes first.
type Turn = Reverse<((Bucket, ConversationId), usize)>;

impl ItemScan {
    /// Over segments, the oldest first.
    fn new(segments: impl Iterator<Item = Items>) -> Result<ItemScan> {
        let sources: Vec<_> = segments.map(Iterator::peekable).collect();
        let mut scan = ItemScan { sources, turns: BinaryHeap::new(), at: None };
        for place in 0..scan.sources.len() {
            scan.queue(place)?;
        }
        Ok(scan)
    }

    fn queue(&mut self, place: usize) -> Result<()> {
        let source = &mut self.sources[place];
        if let Some(Err(error)) = source.next_if(Result::is_err) {
            return Err(error);
        }
        if let Some(Ok(item)) = source.peek() {
            self.turns.push(Reverse((key_of(item), place)));
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Item>> {
        loop {
            if let Some((place, key)) = self.at {
                let same = |item: &Result<Item>| item.as_ref().map_or(true, |item| key_of(item) == key);
                if let Some(item) = self.sources[place].next_if(same) {
                    return item.map(Some);
                }
                self.at = None;
                self.queue(place)?;
            }
            let Some(Reverse((key, place))) = self.turns.pop() else { return Ok(None) };
            self.at = Some((place, key));
        }
    }
}

impl Iterator for ItemScan {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        let item = self.step();
        if item.is_err() {
            (self.at, self.turns) = (None, BinaryHeap::new());
        }
        item.transpose()
    }
}

fn key_of(item: &Item) -> (Bucket, ConversationId) {
    (item.conversation().bucket(), item.conversation())
}
