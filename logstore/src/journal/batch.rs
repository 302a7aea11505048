//! A batch: work that is written as one block.
//!
//! What always holds: the frames of a batch's works lie in its block, one behind the other, in the order of the works. They were
//! made, CRC included, by whoever asked, not by the writer and not under the lock: all that is left to the writer is a
//! header and the block's own CRC.

use std::ops::Range;

use crate::id::{LogId, LogIndex, ShardId};

use super::block::{BLOCK_HEAD, BlockBuilder};
use super::frame::{self, FrameHead, FrameKind, frame_len};
use super::{Completion, Entry, Vote};

/// One thing to be written, and who waits for it.
pub(crate) struct Work {
    pub shard: ShardId,
    pub what: What,
    /// Where its frames are in the batch's block.
    pub frames: Range<u32>,
    pub done: Option<Completion>,
}

/// What is to be written.
pub(crate) enum What {
    /// Entries from `first` to `last`, appended in the shard's `round`.
    Append {
        first: LogIndex,
        last: LogId,
        round: u32,
    },
    /// An append without entries: it waits for what its shard asked for before.
    Nothing,
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge(LogId),
}

impl What {
    /// An append of these entries.
    pub fn append(entries: &[Entry], round: u32) -> What {
        match (entries.first(), entries.last()) {
            (Some(first), Some(last)) => What::Append { first: first.id.index, last: last.id, round },
            _ => What::Nothing,
        }
    }

    /// The frame of what is no append.
    pub fn framed(&self, shard: ShardId) -> Framed {
        let mut framed = Framed::default();
        match self {
            What::Vote(vote) => framed.add(&FrameHead::vote(shard, vote.0.len()), &vote.0),
            What::Truncate(last) => framed.add(&FrameHead::mark(FrameKind::Truncate, shard, *last), &[]),
            What::Purge(upto) => framed.add(&FrameHead::mark(FrameKind::Purge, shard, Some(*upto)), &[]),
            What::Append { .. } | What::Nothing => {}
        }
        framed
    }
}

impl Work {
    /// Bytes it takes in its block.
    pub fn bytes(&self) -> usize {
        self.frames.len()
    }
}

/// Frames that have no place yet.
#[derive(Default)]
pub(crate) struct Framed {
    pub bytes: Vec<u8>,
    pub count: u32,
}

impl Framed {
    /// The frames of entries.
    pub fn entries(shard: ShardId, entries: &[Entry]) -> Framed {
        let bytes = entries.iter().map(|entry| frame_len(entry.payload.len())).sum();
        let mut framed = Framed { bytes: Vec::with_capacity(bytes), count: 0 };
        for Entry { id, kind, payload } in entries {
            framed.add(&FrameHead::entry(shard, *id, *kind, payload.len()), payload);
        }
        framed
    }

    fn add(&mut self, head: &FrameHead, payload: &[u8]) {
        frame::encode(&mut self.bytes, head, payload);
        self.count += 1;
    }
}

/// Works and their block.
pub(crate) struct Batch {
    pub block: BlockBuilder,
    pub works: Vec<Work>,
}

impl Batch {
    pub fn new() -> Batch {
        Batch { block: BlockBuilder::new(BLOCK_HEAD), works: Vec::new() }
    }

    /// Forgets everything but its buffers.
    pub fn clear(&mut self) {
        self.block.clear();
        self.works.clear();
    }

    /// Whether frames of so many bytes have room in it if it is to hold so many at most; an empty one takes any.
    pub fn fits(&self, bytes: usize, bytes_max: usize) -> bool {
        self.works.is_empty() || self.block.len() - BLOCK_HEAD + bytes <= bytes_max
    }

    /// Adds work whose `count` frames these are.
    pub fn add(&mut self, work: Work, frames: &[u8], count: u32) {
        let start = self.block.add_frames(frames, count);
        self.works.push(Work { frames: start..start + frames.len() as u32, ..work });
    }

    /// Adds all that another holds; leaves that one empty.
    pub fn append(&mut self, other: &mut Batch) {
        let by = self.block.add_frames(other.block.frames(), other.block.count()) - BLOCK_HEAD as u32;
        let moved = |work: Work| Work { frames: work.frames.start + by..work.frames.end + by, ..work };
        self.works.extend(other.works.drain(..).map(moved));
        other.clear();
    }
}
