//! Reads a file of entries from front to back, a block at a time.

use std::io::{ErrorKind, Read};

use bytes::{Buf, Bytes};

use super::{
    BLOCK_HEADER_BYTES, ENTRY_HEADER_BYTES, EntriesError, EntriesHead, HEADER_BYTES, MAGIC, RAW_BYTES_MAX, VERSION,
    block_crc, kind_of,
};
use crate::Entry;
use crate::id::{HistoryId, LogId, LogIndex, NodeId, ShardId, Term};

/// A file of entries that is being read: gives them in order, or what is wrong, and nothing after that.
pub struct EntriesReader<R> {
    input: R,
    head: EntriesHead,
    header_crc: u32,
    /// The last entry given.
    last: LogIndex,
    /// Where the next block begins.
    offset: u64,
    /// Of the block that is being given: what is left of it, and how many entries that are.
    block: Bytes,
    left: u32,
    has_ended: bool,
}

impl<R: Read> EntriesReader<R> {
    /// Reads the header.
    pub fn open(mut input: R) -> Result<EntriesReader<R>, EntriesError> {
        let bad = |what| EntriesError::Bad { offset: 0, what };
        let mut bytes = [0; HEADER_BYTES];
        read_exactly(&mut input, &mut bytes, || bad("it is cut"))?;
        let mut fields = &bytes[..];
        if fields.copy_to_bytes(8)[..] != MAGIC[..] {
            return Err(bad("not a file of entries"));
        }
        match fields.get_u32_le() {
            VERSION => {}
            version => return Err(EntriesError::Newer(version)),
        }
        let header_crc = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
        if bytes[HEADER_BYTES - 4..] != header_crc.to_le_bytes() {
            return Err(bad("the header does not verify"));
        }
        let (shard, _) = (ShardId(fields.get_u16_le()), fields.get_u16_le());
        let history = HistoryId(fields.get_u128_le());
        let (after, upto) = (LogIndex(fields.get_u64_le()), LogIndex(fields.get_u64_le()));
        if after > upto || upto.0 == u64::MAX {
            return Err(bad("it says that it ends before it begins"));
        }
        let head = EntriesHead { shard, history, after, upto };
        let (offset, block) = (HEADER_BYTES as u64, Bytes::new());
        Ok(EntriesReader { input, head, header_crc, last: after, offset, block, left: 0, has_ended: false })
    }

    /// Which entries it has.
    pub fn head(&self) -> EntriesHead {
        self.head
    }

    fn entry(&mut self) -> Result<Option<Entry>, EntriesError> {
        if self.left == 0 {
            if self.last == self.head.upto {
                return self.end();
            }
            self.next_block()?;
        }
        let entry = self.take().ok_or_else(|| self.bad("entries of a block do not fit it"))?;
        self.left -= 1;
        let is_wrong = entry.id.index > self.head.upto || (self.left == 0 && !self.block.is_empty());
        if is_wrong { Err(self.bad("entries of a block do not fit it")) } else { Ok(Some(entry)) }
    }

    fn end(&mut self) -> Result<Option<Entry>, EntriesError> {
        match self.input.read(&mut [0])? {
            0 => Ok(None),
            _ => Err(self.bad("it goes on behind its last entry")),
        }
    }

    fn next_block(&mut self) -> Result<(), EntriesError> {
        let cut = EntriesError::Bad { offset: self.offset, what: "it is cut" };
        let mut head = [0; BLOCK_HEADER_BYTES];
        read_exactly(&mut self.input, &mut head, || cut)?;
        let mut fields = &head[..];
        let (crc, stored_len) = (fields.get_u32_le(), fields.get_u32_le() as usize);
        let (raw_len, count) = (fields.get_u32_le() as usize, fields.get_u32_le());
        let possible = count > 0 && raw_len <= RAW_BYTES_MAX && stored_len <= zstd::zstd_safe::compress_bound(raw_len);
        if !possible {
            return Err(self.bad("a block states impossible lengths"));
        }
        // Memory grows with what is there, not with what is stated.
        let mut stored = Vec::new();
        self.input.by_ref().take(stored_len as u64).read_to_end(&mut stored)?;
        if stored.len() < stored_len || crc != block_crc(self.header_crc, self.offset, [&head[4..], &stored]) {
            return Err(self.bad("a block does not verify"));
        }
        let raw = zstd::bulk::decompress(&stored, raw_len).ok().filter(|raw| raw.len() == raw_len);
        self.block = Bytes::from(raw.ok_or_else(|| self.bad("a block cannot be uncompressed"))?);
        self.left = count;
        self.offset += (head.len() + stored.len()) as u64;
        Ok(())
    }

    /// The next entry of the block, if there is a whole one.
    fn take(&mut self) -> Option<Entry> {
        if self.block.len() < ENTRY_HEADER_BYTES {
            return None;
        }
        let term = Term(self.block.get_u64_le());
        let kind = kind_of(self.block.get_u8())?;
        let len = self.block.get_u32_le() as usize;
        if len > self.block.len() {
            return None;
        }
        self.last = self.last.next();
        // A copy: a small entry that somebody keeps shall not keep a block.
        let payload = Bytes::copy_from_slice(&self.block.split_to(len));
        Some(Entry { id: LogId { term, leader: NodeId(0), index: self.last }, kind, payload })
    }

    fn bad(&self, what: &'static str) -> EntriesError {
        EntriesError::Bad { offset: self.offset, what }
    }
}

impl<R: Read> Iterator for EntriesReader<R> {
    type Item = Result<Entry, EntriesError>;

    fn next(&mut self) -> Option<Result<Entry, EntriesError>> {
        if self.has_ended {
            return None;
        }
        let next = self.entry().transpose();
        self.has_ended = !matches!(next, Some(Ok(_)));
        next
    }
}

fn read_exactly(
    input: &mut impl Read,
    bytes: &mut [u8],
    cut: impl FnOnce() -> EntriesError,
) -> Result<(), EntriesError> {
    match input.read_exact(bytes) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(cut()),
        read => Ok(read?),
    }
}
