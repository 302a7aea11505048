//! Blocks: what one write and one sync put into a journal file.
//!
//! What always holds: a block begins at a multiple of 4 KiB and is built only after everything before it is
//! synced. So a readable block header proves that all before it once was durable: a bad block *before* one is
//! rot, and only a bad block with none after it can be a torn tail.
//!
//! ```text
//!  0       4            8      12       16         24             32     40     48     52        56       64
//!  +-------+------------+------+--------+----------+--------------+------+------+----------+--------+-----+
//!  | magic | header crc | len  | frames | position | durable upto | salt | kind | body crc | 0      | ... |
//!  | "SKBL"| u32        | u32  | u32    | u64      | u64          | u64  | u64  | u32      | 12 B   |     |
//!  +-------+------------+------+--------+----------+--------------+------+------+----------+--------+-----+
//!  then len - 64 bytes of frames, then zeros up to the next multiple of 4 KiB
//! ```
//!
//! `len` counts header and frames. `position` is the block's own. Everything below `durable upto` was synced when the
//! block was built. `header crc` covers bytes 8 to 64, `body crc` the salt (8 bytes) and then the frames.

use std::ops::Range;

use super::frame::{self, FrameHead, u32_at, u64_at};
use super::position::{Position, align_up};

/// Bytes before a block's frames.
pub(crate) const BLOCK_HEAD: usize = 64;
const MAGIC: [u8; 4] = *b"SKBL";

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockKind {
    /// The frames of one group commit.
    Commit,
    /// The first of a file: what the journal knew of each shard at that moment.
    Checkpoint,
    /// Empty: its `durable_upto` proves the block before it. The next block overwrites it.
    Proof,
}

/// A block's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHead {
    pub kind: BlockKind,
    /// Bytes of header and frames.
    pub len: u32,
    pub frames: u32,
    pub position: Position,
    pub durable_upto: Position,
    pub salt: u64,
    pub body_crc: u32,
}

impl BlockHead {
    /// Reads the header of a block of the file life `salt` that begins at `position` and has `room` bytes
    /// before the end of its file. `None` if there is none.
    pub fn decode(bytes: &[u8], position: Position, salt: u64, room: u64) -> Option<BlockHead> {
        let head = BlockHead::decode_any(bytes)?;
        (head.salt == salt && head.position == position && u64::from(head.len) <= room).then_some(head)
    }

    /// Reads a header of whichever file and place.
    pub fn decode_any(bytes: &[u8]) -> Option<BlockHead> {
        let head: &[u8; BLOCK_HEAD] = bytes.first_chunk()?;
        if head[..4] != MAGIC || crc32fast::hash(&head[8..]) != u32_at(head, 4) {
            return None;
        }
        let kind = match u64_at(head, 40) {
            1 => BlockKind::Commit,
            2 => BlockKind::Checkpoint,
            3 => BlockKind::Proof,
            _ => return None,
        };
        let block = BlockHead {
            kind,
            len: u32_at(head, 8),
            frames: u32_at(head, 12),
            position: Position::unpack(u64_at(head, 16)),
            durable_upto: Position::unpack(u64_at(head, 24)),
            salt: u64_at(head, 32),
            body_crc: u32_at(head, 48),
        };
        (block.len as usize >= BLOCK_HEAD).then_some(block)
    }

    /// Whether `body` (all bytes after the header, up to `len`) is what was written.
    pub fn verifies(&self, body: &[u8]) -> bool {
        body.len() + BLOCK_HEAD == self.len as usize && body_crc(self.salt, body) == self.body_crc
    }

    /// Bytes from this block's begin to the next one's.
    pub fn stride(&self) -> u64 {
        align_up(u64::from(self.len))
    }

    fn encode(&self) -> [u8; BLOCK_HEAD] {
        let mut bytes = [0; BLOCK_HEAD];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.frames.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.position.pack().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.durable_upto.pack().to_le_bytes());
        bytes[32..40].copy_from_slice(&self.salt.to_le_bytes());
        bytes[40] = match self.kind {
            BlockKind::Commit => 1,
            BlockKind::Checkpoint => 2,
            BlockKind::Proof => 3,
        };
        bytes[48..52].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// Collects frames and makes them a block; its buffer is used again for the next.
pub(crate) struct BlockBuilder {
    bytes: Vec<u8>,
    frames: u32,
}

impl BlockBuilder {
    /// A builder whose buffer fits `capacity` bytes without growing.
    pub fn new(capacity: usize) -> BlockBuilder {
        let mut builder = BlockBuilder { bytes: Vec::with_capacity(capacity), frames: 0 };
        builder.clear();
        builder
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(BLOCK_HEAD, 0);
        self.frames = 0;
    }

    /// Adds a frame; gives its offset from the begin of the block.
    pub fn add(&mut self, head: &FrameHead, payload: &[u8]) -> u32 {
        let offset = self.bytes.len();
        frame::encode(&mut self.bytes, head, payload);
        self.frames += 1;
        offset as u32
    }

    /// Adds frames that were made elsewhere; gives the offset of the first.
    pub fn add_frames(&mut self, frames: &[u8], count: u32) -> u32 {
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(frames);
        self.frames += count;
        offset as u32
    }

    /// The bytes of all frames so far.
    pub fn frames(&self) -> &[u8] {
        &self.bytes[BLOCK_HEAD..]
    }

    /// The frames at these offsets.
    pub fn at(&self, offsets: &Range<u32>) -> &[u8] {
        &self.bytes[offsets.start as usize..offsets.end as usize]
    }

    /// How many frames there are.
    pub fn count(&self) -> u32 {
        self.frames
    }

    /// Bytes its buffer has room for.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Bytes of header and frames so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes the finished block will take in the file.
    pub fn stride(&self) -> u64 {
        align_up(self.bytes.len() as u64)
    }

    /// Writes the header; gives the bytes of the whole block, zeros at the end included.
    pub fn finish(&mut self, kind: BlockKind, position: Position, durable_upto: Position, salt: u64) -> &[u8] {
        let head = BlockHead {
            kind,
            len: self.bytes.len() as u32,
            frames: self.frames,
            position,
            durable_upto,
            salt,
            body_crc: body_crc(salt, &self.bytes[BLOCK_HEAD..]),
        };
        self.bytes[..BLOCK_HEAD].copy_from_slice(&head.encode());
        self.bytes.resize(self.stride() as usize, 0);
        &self.bytes
    }
}

/// Seeded with the salt, so that bytes of a file's former life never verify.
fn body_crc(salt: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::super::EntryKind;
    use super::super::frame::Frames;
    use super::*;
    use crate::id::{LogId, LogIndex, ShardId};
    use proptest::prelude::*;

    const AT: Position = Position { file: 3, offset: 8192 };
    const UPTO: Position = Position { file: 3, offset: 8192 };

    fn block(payloads: &[Vec<u8>], salt: u64) -> Vec<u8> {
        let mut builder = BlockBuilder::new(0);
        for (index, payload) in payloads.iter().enumerate() {
            let id = LogId { index: LogIndex(index as u64), ..LogId::default() };
            builder.add(&FrameHead::entry(ShardId(1), id, EntryKind::Normal, payload.len()), payload);
        }
        builder.finish(BlockKind::Commit, AT, UPTO, salt).to_vec()
    }

    fn read(bytes: &[u8], salt: u64) -> Option<Vec<Vec<u8>>> {
        let head = BlockHead::decode(bytes, AT, salt, bytes.len() as u64)?;
        let body = &bytes[BLOCK_HEAD..head.len as usize];
        head.verifies(body).then(|| Frames::new(body).map(|frame| frame.unwrap().2.to_vec()).collect())
    }

    proptest! {
        #[test]
        fn a_block_comes_back_as_it_was_written(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..6),
            salt in any::<u64>(),
        ) {
            let bytes = block(&payloads, salt);
            prop_assert_eq!(bytes.len() % 4096, 0);
            prop_assert_eq!(read(&bytes, salt), Some(payloads));
        }

        #[test]
        fn a_block_of_another_life_or_place_never_verifies(salt in any::<u64>(), other in any::<u64>()) {
            prop_assume!(salt != other);
            let bytes = block(&[b"entry".to_vec()], salt);
            prop_assert_eq!(read(&bytes, other), None);
            let elsewhere = Position { file: 4, ..AT };
            prop_assert_eq!(BlockHead::decode(&bytes, elsewhere, salt, 4096), None);
        }

        #[test]
        fn no_flipped_bit_passes(salt in any::<u64>(), bit in any::<prop::sample::Index>()) {
            let mut bytes = block(&[b"one".to_vec(), vec![7; 5000]], salt);
            let len = BlockHead::decode(&bytes, AT, salt, 1 << 20).unwrap().len as usize;
            let bit = bit.index(len * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(read(&bytes, salt), None);
        }

        #[test]
        fn garbage_is_no_header(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(BlockHead::decode_any(&bytes), None);
        }
    }

    #[test]
    fn a_length_beyond_the_file_is_refused_before_it_is_used() {
        let bytes = block(&[vec![1; 9000]], 5);
        assert!(BlockHead::decode(&bytes, AT, 5, 8192).is_none());
        assert!(BlockHead::decode(&bytes, AT, 5, 12288).is_some());
    }
}
