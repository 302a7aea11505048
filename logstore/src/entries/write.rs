//! Writes a file of entries from front to back.

use std::io::Write;

use zstd::bulk::Compressor;

use super::{
    BLOCK_BYTES, BLOCK_HEADER_BYTES, ENTRY_BYTES_MAX, EntriesError, EntriesHead, HEADER_BYTES, MAGIC, VERSION,
    block_crc, kind_byte,
};
use crate::Entry;
use crate::id::LogIndex;

/// As segments are compressed.
const ZSTD_LEVEL: i32 = 1;

/// A file of entries that is being written.
pub struct EntriesWriter<W> {
    out: W,
    head: EntriesHead,
    header_crc: u32,
    compressor: Compressor<'static>,
    /// The last entry taken.
    last: LogIndex,
    /// Where the next block begins.
    offset: u64,
    raw: Vec<u8>,
    count: u32,
}

impl<W: Write> EntriesWriter<W> {
    /// Writes the header.
    pub fn begin(mut out: W, head: EntriesHead) -> Result<EntriesWriter<W>, EntriesError> {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..14].copy_from_slice(&head.shard.0.to_le_bytes());
        bytes[16..32].copy_from_slice(&head.history.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&head.after.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&head.upto.0.to_le_bytes());
        let header_crc = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&header_crc.to_le_bytes());
        out.write_all(&bytes)?;
        let compressor = Compressor::new(ZSTD_LEVEL)?;
        let (last, offset, raw) = (head.after, HEADER_BYTES as u64, Vec::new());
        Ok(EntriesWriter { out, head, header_crc, compressor, last, offset, raw, count: 0 })
    }

    /// Takes the next entry.
    pub fn push(&mut self, entry: &Entry) -> Result<(), EntriesError> {
        let index = entry.id.index;
        if index != self.last.next() || index > self.head.upto || entry.payload.len() > ENTRY_BYTES_MAX {
            return Err(EntriesError::Unfit(index));
        }
        self.raw.extend_from_slice(&entry.id.term.0.to_le_bytes());
        self.raw.push(kind_byte(entry.kind));
        self.raw.extend_from_slice(&(entry.payload.len() as u32).to_le_bytes());
        self.raw.extend_from_slice(&entry.payload);
        (self.last, self.count) = (index, self.count + 1);
        if self.raw.len() >= BLOCK_BYTES { self.block() } else { Ok(()) }
    }

    /// Writes what is left; every entry was given. States what it was written to.
    pub fn finish(mut self) -> Result<W, EntriesError> {
        if self.last != self.head.upto {
            return Err(EntriesError::Unfit(self.last.next()));
        }
        if self.count > 0 {
            self.block()?;
        }
        self.out.flush()?;
        Ok(self.out)
    }

    fn block(&mut self) -> Result<(), EntriesError> {
        let stored = self.compressor.compress(&self.raw)?;
        let mut head = [0; BLOCK_HEADER_BYTES];
        head[4..8].copy_from_slice(&(stored.len() as u32).to_le_bytes());
        head[8..12].copy_from_slice(&(self.raw.len() as u32).to_le_bytes());
        head[12..16].copy_from_slice(&self.count.to_le_bytes());
        let crc = block_crc(self.header_crc, self.offset, [&head[4..], &stored]);
        head[..4].copy_from_slice(&crc.to_le_bytes());
        self.out.write_all(&head)?;
        self.out.write_all(&stored)?;
        self.offset += (head.len() + stored.len()) as u64;
        self.raw.clear();
        self.count = 0;
        Ok(())
    }
}
