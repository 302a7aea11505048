//! Reads the blocks of one journal file in order, verified, in large chunks.

use crate::Result;
use crate::io::{Context, DataFile, read_full};

use super::block::{BLOCK_HEAD, BlockHead};
use super::file::{self, FileHead};
use super::position::{ALIGN, Position};

/// Read at once. Blocks are smaller as a rule.
const CHUNK_BYTES: usize = 4 << 20;

/// A file being read, and the window of it that is in memory.
pub(crate) struct Scan<'a> {
    pub head: FileHead,
    file: &'a dyn DataFile,
    path: String,
    window: Vec<u8>,
    /// Where the window begins in the file.
    start: u64,
    /// Bytes of the window that the file has.
    filled: usize,
}

/// What begins at an offset.
pub(crate) enum Found<'a> {
    /// A block that verifies, and its frames.
    Block(BlockHead, &'a [u8]),
    /// A header that verifies before frames that do not, as far as the file has them.
    BadBody(BlockHead, &'a [u8]),
    /// Neither.
    Nothing,
}

impl<'a> Scan<'a> {
    pub fn new(head: FileHead, file: &'a dyn DataFile) -> Scan<'a> {
        Scan { head, file, path: file::path(head.number), window: Vec::new(), start: 0, filled: 0 }
    }

    /// What begins at `offset`.
    pub fn at(&mut self, offset: u64) -> Result<Found<'_>> {
        let Some(head) = self.head_at(offset)? else { return Ok(Found::Nothing) };
        let bytes = self.bytes(offset, head.len as usize)?;
        let body = &bytes[BLOCK_HEAD..];
        Ok(if head.verifies(body) { Found::Block(head, body) } else { Found::BadBody(head, body) })
    }

    /// The first block header of this life of the file in `from..upto`.
    pub fn next_head(&mut self, from: u64, upto: u64) -> Result<Option<BlockHead>> {
        let mut offset = from;
        while offset < upto.min(self.head.file_bytes) {
            if let Some(head) = self.head_at(offset)? {
                return Ok(Some(head));
            }
            offset += ALIGN;
        }
        Ok(None)
    }

    fn head_at(&mut self, offset: u64) -> Result<Option<BlockHead>> {
        let FileHead { salt, number, file_bytes, .. } = self.head;
        let room = file_bytes.saturating_sub(offset);
        let position = Position { file: number, offset: offset as u32 };
        let bytes = self.bytes(offset, BLOCK_HEAD)?;
        Ok(BlockHead::decode(bytes, position, salt, room))
    }

    /// `len` bytes at `offset`; fewer if the file ends before.
    fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let inside = offset >= self.start && offset + len as u64 <= self.start + self.filled as u64;
        if !inside {
            self.window.resize(len.max(CHUNK_BYTES), 0);
            self.start = offset;
            self.filled = read_full(self.file, &mut self.window, offset).context("read", &self.path)?;
        }
        let begin = (offset - self.start) as usize;
        Ok(&self.window[begin.min(self.filled)..(begin + len).min(self.filled)])
    }
}
