//! The envelope of a block: what is compressed, what it is checked with, where it belongs.
//!
//! ```text
//!  0     4            8         12        16     17     18    20                  20 + plain
//!  +-----+------------+---------+---------+------+-------+-----+-------------------+--------------------+
//!  | crc | stored len | raw len | plain   | kind | codec | 0   | plain bytes       | compressed bytes   |
//!  | u32 | u32        | u32     | u32     | u8   | u8    | u16 | (message ids)     | (all else)         |
//!  +-----+------------+---------+---------+------+-------+-----+-------------------+--------------------+
//!        |<------------------------------- crc covers --------------------------------------------------|
//! ```
//!
//! `stored len` counts the bytes after the 20 of this header, `raw len` the compressed part before compression, `plain` the bytes
//! that are kept as they are because nothing compresses them: the random part of message ids. The CRC is seeded with the
//! segment's seed and the block's offset, so that a block verifies in its own place only.
//!
//! What always holds: no length is used before it was checked against what the index and the limits say.

use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

use super::format::u32_at;
use super::record::BODY_BYTES_MAX;

pub(super) const BLOCK_HEADER_BYTES: usize = 20;
/// What a block may hold uncompressed: one record with the largest body, or one row with the largest value, and then some.
pub(super) const RAW_BYTES_MAX: usize = BODY_BYTES_MAX + (1 << 20);

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum BlockKind {
    Records = 1,
    Delta = 2,
}

/// A block as it is used: uncompressed and verified.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// The plain bytes, then the others.
    pub(super) bytes: Bytes,
    /// How many are plain.
    pub(super) plain: usize,
}

const STORED: u8 = 0;
const ZSTD: u8 = 1;

/// Makes blocks; keeps its buffers and its compressor from one to the next.
pub(super) struct BlockWriter {
    compressor: Compressor<'static>,
    out: Vec<u8>,
}

impl BlockWriter {
    pub(super) fn new(zstd_level: i32) -> std::io::Result<BlockWriter> {
        Ok(BlockWriter { compressor: Compressor::new(zstd_level)?, out: Vec::new() })
    }

    /// A block's bytes, valid at `offset` of the segment with this seed.
    pub(super) fn seal(
        &mut self,
        kind: BlockKind,
        place: (u64, u64),
        plain: &[u8],
        raw: &[u8],
    ) -> std::io::Result<&[u8]> {
        let head = BLOCK_HEADER_BYTES + plain.len();
        self.out.clear();
        self.out.resize(head + zstd::zstd_safe::compress_bound(raw.len()), 0);
        self.out[BLOCK_HEADER_BYTES..head].copy_from_slice(plain);
        let compressed = self.compressor.compress_to_buffer(raw, &mut self.out[head..])?;
        self.out.truncate(head + compressed);
        let mut codec = ZSTD;
        if compressed >= raw.len() {
            codec = STORED;
            self.out.truncate(head);
            self.out.extend_from_slice(raw);
        }
        let stored = self.out.len() - BLOCK_HEADER_BYTES;
        self.out[4..8].copy_from_slice(&(stored as u32).to_le_bytes());
        self.out[8..12].copy_from_slice(&(raw.len() as u32).to_le_bytes());
        self.out[12..16].copy_from_slice(&(plain.len() as u32).to_le_bytes());
        self.out[16..20].copy_from_slice(&[kind as u8, codec, 0, 0]);
        let crc = crc_of(place, &self.out);
        self.out[..4].copy_from_slice(&crc.to_le_bytes());
        Ok(&self.out)
    }
}

/// Takes a block apart; `None` if it does not verify at this place, or says what cannot be.
pub(super) fn open(kind: BlockKind, place: (u64, u64), bytes: &[u8]) -> Option<Block> {
    if bytes.len() < BLOCK_HEADER_BYTES || crc_of(place, bytes) != u32_at(bytes, 0) {
        return None;
    }
    let (head, stored) = bytes.split_at(BLOCK_HEADER_BYTES);
    let [stored_len, raw_len, plain] = [4, 8, 12].map(|at| u32_at(head, at) as usize);
    if stored_len != stored.len() || plain > stored_len || raw_len > RAW_BYTES_MAX {
        return None;
    }
    if head[16] != kind as u8 || head[18..] != [0, 0] {
        return None;
    }
    let mut out = vec![0; plain + raw_len];
    let (plain_out, raw_out) = out.split_at_mut(plain);
    plain_out.copy_from_slice(&stored[..plain]);
    decode(head[17], &stored[plain..], raw_out)?;
    Some(Block { bytes: Bytes::from(out), plain })
}

fn decode(codec: u8, stored: &[u8], raw: &mut [u8]) -> Option<()> {
    match codec {
        STORED if stored.len() == raw.len() => raw.copy_from_slice(stored),
        ZSTD if decompress(stored, raw)? == raw.len() => {}
        _ => return None,
    }
    Some(())
}

fn decompress(stored: &[u8], raw: &mut [u8]) -> Option<usize> {
    thread_local! {
        /// A context is some 100 KiB and takes longer to make than a small block to decompress.
        static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    DECOMPRESSOR.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = Some(Decompressor::new().ok()?);
        }
        kept.as_mut()?.decompress_to_buffer(stored, raw).ok()
    })
}

/// Over the seed, the block's offset and all but the CRC itself.
fn crc_of((seed, offset): (u64, u64), block: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(&block[4..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(plain: &[u8], raw: &[u8]) -> Vec<u8> {
        BlockWriter::new(1).unwrap().seal(BlockKind::Records, (7, 64), plain, raw).unwrap().to_vec()
    }

    #[test]
    fn a_block_comes_back_compressed_or_not() {
        for raw in [&b"abc"[..], &[b'x'; 5000], b""] {
            let block = open(BlockKind::Records, (7, 64), &sealed(b"plain", raw)).unwrap();
            assert_eq!((&block.bytes[..5], &block.bytes[5..]), (&b"plain"[..], raw));
        }
        assert!(sealed(b"", &[b'x'; 5000]).len() < 100);
        assert_eq!(sealed(b"", b"abc").len(), BLOCK_HEADER_BYTES + 3, "stored if that is shorter");
    }

    #[test]
    fn a_block_verifies_in_its_own_place_only() {
        let bytes = sealed(b"ids", b"records");
        assert!(open(BlockKind::Records, (7, 65), &bytes).is_none());
        assert!(open(BlockKind::Records, (8, 64), &bytes).is_none());
        assert!(open(BlockKind::Delta, (7, 64), &bytes).is_none());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let bytes = sealed(b"ids", &[b'x'; 200]);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(BlockKind::Records, (7, 64), &damaged).is_none(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(open(BlockKind::Records, (7, 64), &bytes[..len]).is_none(), "{len} bytes");
        }
    }
}
