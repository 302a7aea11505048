//! Rows of state that changed: sorted keys, each with its newest value or a tombstone, in blocks.
//!
//! ```text
//! row:  +--------+----------+-------------+-----------------------------+-------+
//!       | shared | rest len | rest of key | 0: tombstone, n: n - 1 bytes| value |        the first row of a block shares nothing
//!       | v      | v        |             | v                           |       |
//!       +--------+----------+-------------+-----------------------------+-------+
//! ```
//!
//! What always holds: keys and values are opaque; keys rise strictly as bytes; a value is the whole value, never a difference.

use bytes::Bytes;

use super::block::Block;
use super::records::Malformed;
use super::varint::{self, Cursor};

/// The longest key of a state row.
pub const KEY_BYTES_MAX: usize = 4096;
/// The largest value of a state row.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// A row of state as of a Seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaRow {
    /// Its key.
    pub key: Bytes,
    /// Its value; `None` if the row is gone.
    pub value: Option<Bytes>,
}

/// Fills one block after the other.
#[derive(Default)]
pub(super) struct DeltaBlockWriter {
    pub(super) raw: Vec<u8>,
    pub(super) first_key: Vec<u8>,
    last_key: Vec<u8>,
    pub(super) rows: u32,
}

impl DeltaBlockWriter {
    /// The key that was pushed last, into whichever block.
    pub(super) fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    pub(super) fn push(&mut self, row: &DeltaRow) {
        let mut shared = 0;
        if self.rows == 0 {
            self.first_key.clear();
            self.first_key.extend_from_slice(&row.key);
        } else {
            shared = row.key.iter().zip(&self.last_key).take_while(|(a, b)| a == b).count();
        }
        varint::put(&mut self.raw, shared as u64);
        varint::put(&mut self.raw, (row.key.len() - shared) as u64);
        self.raw.extend_from_slice(&row.key[shared..]);
        match &row.value {
            None => self.raw.push(0),
            Some(value) => {
                varint::put(&mut self.raw, value.len() as u64 + 1);
                self.raw.extend_from_slice(value);
            }
        }
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(&row.key[shared..]);
        self.rows += 1;
    }

    /// Makes room for the next block.
    pub(super) fn clear(&mut self) {
        self.raw.clear();
        self.rows = 0;
    }
}

/// Reads the rows of a block.
pub(super) struct DeltaRows {
    bytes: Bytes,
    at: usize,
    key: Vec<u8>,
}

impl DeltaRows {
    pub(super) fn new(block: Block) -> DeltaRows {
        DeltaRows { at: block.plain, bytes: block.bytes, key: Vec::new() }
    }

    /// The next row; `None` at the end of the block.
    pub(super) fn next(&mut self) -> Result<Option<DeltaRow>, Malformed> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let value = self.step().ok_or(Malformed)?;
        Ok(Some(DeltaRow { key: Bytes::copy_from_slice(&self.key), value }))
    }

    /// The value of a key, or `None` if the block has no such row.
    pub(super) fn find(mut self, key: &[u8]) -> Result<Option<Option<Bytes>>, Malformed> {
        while self.at < self.bytes.len() {
            let value = self.step().ok_or(Malformed)?;
            if self.key == key {
                return Ok(Some(value));
            }
            if &self.key[..] > key {
                break;
            }
        }
        Ok(None)
    }

    /// Reads a row's key into `self.key`; gives its value.
    fn step(&mut self) -> Option<Option<Bytes>> {
        let mut cursor = Cursor::new(&self.bytes, self.at);
        let shared = cursor.length().filter(|shared| *shared <= self.key.len())?;
        let rest = cursor.length().filter(|rest| *rest <= KEY_BYTES_MAX)?;
        let rest = cursor.take(rest)?;
        self.key.truncate(shared);
        self.key.extend_from_slice(rest);
        let value = match cursor.length()?.checked_sub(1) {
            None => None,
            Some(len) => {
                let start = cursor.at();
                cursor.take(len)?;
                Some(self.bytes.slice(start..start + len))
            }
        };
        self.at = cursor.at();
        Some(value)
    }
}
