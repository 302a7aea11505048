//! The canonical content of a segment, and the hash that names it.
//!
//! What is hashed, in this order (integers little-endian, conversations big-endian as everywhere):
//!
//! ```text
//! "SKEIN SEGMENT CONTENT 1" | shard u16 | first u64 | last u64 | after u64 | upto u64
//! record:   1 | conversation 16 B | seq u64 | ordinal u64 | kind u8 | removed u8 | sender u64 | server_msg_id u64 | client_msg_id u128 |
//!               body hash u64 | time u64 | index u64 | body length u32 | body
//! trimmed:  2 | conversation 16 B | first u64 | last u64 | countable before u64 | countable u64 | time u64 | index u64
//! delta:    3 | key length u32 | key | 0 for a tombstone, else 1 | value length u32 | value
//! ```
//!
//! What always holds: neither compression, nor the size of blocks, nor the level, nor how the content was handed over changes it.

use super::delta::DeltaRow;
use super::format::{Identity, Span};
use super::record::{Item, SealedRecord, TrimmedRange};

/// BLAKE3 is several times faster on long pieces than on a record at a time, and fastest on powers of two that follow each other.
const PIECE_BYTES: usize = 64 << 10;

/// Hashes content as it passes.
pub(super) struct IdentityHasher {
    hasher: blake3::Hasher,
    piece: Vec<u8>,
}

impl IdentityHasher {
    pub(super) fn new(span: &Span) -> IdentityHasher {
        let mut piece = Vec::with_capacity(PIECE_BYTES * 2);
        piece.extend_from_slice(b"SKEIN SEGMENT CONTENT 1");
        piece.extend_from_slice(&span.shard.0.to_le_bytes());
        for number in [span.first.0, span.last.0, span.after.0, span.upto.0] {
            piece.extend_from_slice(&number.to_le_bytes());
        }
        IdentityHasher { hasher: blake3::Hasher::new(), piece }
    }

    pub(super) fn item(&mut self, item: &Item) {
        match item {
            Item::Record(record) => self.record(record),
            Item::Trimmed(range) => self.trimmed(range),
        }
        self.pass_on();
    }

    pub(super) fn delta(&mut self, row: &DeltaRow) {
        let out = &mut self.piece;
        out.push(3);
        out.extend_from_slice(&(row.key.len() as u32).to_le_bytes());
        out.extend_from_slice(&row.key);
        match &row.value {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                out.extend_from_slice(&(value.len() as u32).to_le_bytes());
                out.extend_from_slice(value);
            }
        }
        self.pass_on();
    }

    pub(super) fn finish(mut self) -> Identity {
        self.hasher.update(&self.piece);
        Identity(*self.hasher.finalize().as_bytes())
    }

    fn record(&mut self, record: &SealedRecord) {
        let out = &mut self.piece;
        out.push(1);
        out.extend_from_slice(&record.conversation.to_bytes());
        out.extend_from_slice(&record.seq.0.to_le_bytes());
        out.extend_from_slice(&record.ordinal.0.to_le_bytes());
        out.extend_from_slice(&[record.kind.0, u8::from(record.body.kept().is_none())]);
        out.extend_from_slice(&record.sender.0.to_le_bytes());
        out.extend_from_slice(&record.server_msg_id.0.to_le_bytes());
        out.extend_from_slice(&record.client_msg_id.0.to_le_bytes());
        for number in [record.body_hash.0, record.time.0, record.index.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let body = record.body.kept().map(|body| &body[..]).unwrap_or_default();
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(body);
    }

    fn trimmed(&mut self, range: &TrimmedRange) {
        let out = &mut self.piece;
        out.push(2);
        out.extend_from_slice(&range.conversation.to_bytes());
        let (first, last) = (range.first.0, range.last.0);
        for number in [first, last, range.ordinal_before.0, range.ordinal.0, range.time.0, range.index.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn pass_on(&mut self) {
        let whole = self.piece.len() / PIECE_BYTES * PIECE_BYTES;
        if whole > 0 {
            self.hasher.update(&self.piece[..whole]);
            self.piece.drain(..whole);
        }
    }
}
