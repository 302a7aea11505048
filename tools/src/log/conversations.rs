//! The conversations of a shard's segments, one after the other, from all their directories at once.
//!
//! What always holds: one row of each segment is in memory; conversations come in the order of (bucket, conversation).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use logstore::id::{ConversationId, Ordinal, SeqId};
use logstore::segment::DirectoryRow;
use logstore::{Result, SegmentSet};

/// What segments hold of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sealed {
    /// Seqs, trimmed ones included.
    pub seqs: u64,
    pub conversation: ConversationId,
    /// Segments that hold any.
    pub segments: u64,
    /// The newest.
    pub last: SeqId,
    /// Countable messages up to the newest.
    pub ordinal: Ordinal,
}

/// Shows every conversation.
pub fn visit(set: &SegmentSet, mut show: impl FnMut(Sealed)) -> Result<()> {
    let mut directories: Vec<_> = set.segments().iter().map(|segment| segment.directory()).collect();
    let mut heads: Vec<Option<DirectoryRow>> = Vec::with_capacity(directories.len());
    let mut order = BinaryHeap::new();
    for (place, directory) in directories.iter_mut().enumerate() {
        let row = directory.next().transpose()?;
        order.extend(row.map(|row| Reverse((key(&row), place))));
        heads.push(row);
    }
    let mut open: Option<Sealed> = None;
    while let Some(Reverse((_, place))) = order.pop() {
        let Some(row) = heads[place] else { continue };
        match &mut open {
            Some(held) if held.conversation == row.conversation => held.add(&row),
            _ => {
                open.replace(Sealed::of(&row)).into_iter().for_each(&mut show);
            }
        }
        heads[place] = directories[place].next().transpose()?;
        order.extend(heads[place].map(|row| Reverse((key(&row), place))));
    }
    open.into_iter().for_each(show);
    Ok(())
}

fn key(row: &DirectoryRow) -> (u16, ConversationId) {
    (row.conversation.bucket().0, row.conversation)
}

impl Sealed {
    fn of(row: &DirectoryRow) -> Sealed {
        Sealed { seqs: seqs(row), conversation: row.conversation, segments: 1, last: row.last, ordinal: row.ordinal }
    }

    fn add(&mut self, row: &DirectoryRow) {
        self.seqs += seqs(row);
        self.segments += 1;
        self.last = self.last.max(row.last);
        self.ordinal = self.ordinal.max(row.ordinal);
    }
}

fn seqs(row: &DirectoryRow) -> u64 {
    row.last.0 - row.first.0 + 1
}
