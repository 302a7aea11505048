//! Where blocks are, and what they begin with.
//!
//! ```text
//! an entry of the block index, 54 bytes:
//!  0        2              18          26       34       42           46        50            54
//!  +--------+--------------+-----------+--------+--------+------------+---------+-------------+
//!  | bucket | conversation | first seq | time   | offset | bytes      | ids     | filter line |     of the block's first item;
//!  | u16 BE | 16 B, BE     | u64 BE    | u64    | u64    | u32        | u32     | u32         |     offset in the file
//!  +--------+--------------+-----------+--------+--------+------------+---------+-------------+
//!
//! an entry of the delta index (where each begins is a u64 of the delta restarts):
//!  0        8       12     16            20
//!  +--------+-------+------+-------------+------------------+
//!  | offset | bytes | rows | filter line | the first key    |
//!  | u64    | u32   | u32  | u32         | up to the next   |
//!  +--------+-------+------+-------------+------------------+
//! ```
//!
//! A block's filter goes from its line to that of the next entry, or to the end.
//!
//! What always holds: entries rise strictly by what they begin with; readers take any bytes and never leave them.

use super::filter::LINE_BYTES;
use super::format::{KEY_BYTES, Key, key, u32_at, u64_at};
use crate::id::{ConversationId, SeqId, TimeMs};

const ENTRY_BYTES: usize = 54;
const SORTED_BYTES: usize = KEY_BYTES + 8;
const DELTA_HEAD_BYTES: usize = 20;

/// Where a block lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockPlace {
    pub(super) offset: u64,
    pub(super) bytes: u32,
}

/// A block of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockEntry {
    pub(super) key: Key,
    pub(super) first: SeqId,
    /// The first item's; those of one conversation never fall.
    pub(super) time: TimeMs,
    pub(super) place: BlockPlace,
    pub(super) ids: u32,
    pub(super) filter_line: u32,
}

impl BlockEntry {
    pub(super) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..KEY_BYTES].copy_from_slice(&self.key);
        bytes[18..26].copy_from_slice(&self.first.0.to_be_bytes());
        bytes[26..34].copy_from_slice(&self.time.0.to_le_bytes());
        bytes[34..42].copy_from_slice(&self.place.offset.to_le_bytes());
        bytes[42..46].copy_from_slice(&self.place.bytes.to_le_bytes());
        bytes[46..50].copy_from_slice(&self.ids.to_le_bytes());
        bytes[50..].copy_from_slice(&self.filter_line.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; ENTRY_BYTES]) -> BlockEntry {
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(&bytes[..KEY_BYTES]);
        BlockEntry {
            key,
            first: SeqId(u64_at(bytes, 18).swap_bytes()),
            time: TimeMs(u64_at(bytes, 26)),
            place: BlockPlace { offset: u64_at(bytes, 34), bytes: u32_at(bytes, 42) },
            ids: u32_at(bytes, 46),
            filter_line: u32_at(bytes, 50),
        }
    }
}

/// The block index and its filters as they lie in a verified file.
#[derive(Clone, Copy)]
pub(super) struct BlockIndex<'a> {
    entries: &'a [[u8; ENTRY_BYTES]],
    filter: &'a [u8],
}

impl<'a> BlockIndex<'a> {
    pub(super) fn new(entries: &'a [u8], filter: &'a [u8]) -> BlockIndex<'a> {
        BlockIndex { entries: entries.as_chunks().0, filter }
    }

    pub(super) fn len(&self) -> u32 {
        self.entries.len() as u32
    }

    pub(super) fn get(&self, block: u32) -> Option<BlockEntry> {
        self.entries.get(block as usize).map(BlockEntry::decode)
    }

    /// The block of a conversation that holds `seq`, given the block in which the conversation begins.
    pub(super) fn block_of(&self, conversation: ConversationId, begins: u32, seq: SeqId) -> u32 {
        let mut wanted = [0; SORTED_BYTES];
        wanted[..KEY_BYTES].copy_from_slice(&key(conversation));
        wanted[KEY_BYTES..].copy_from_slice(&seq.0.to_be_bytes());
        let later = self.entries.get(begins as usize + 1..).unwrap_or_default();
        begins + later.partition_point(|entry| entry[..SORTED_BYTES] <= wanted[..]) as u32
    }

    /// The last block of a conversation that begins before a time, or the one the conversation begins in: nothing of it
    /// before that block is as late.
    pub(super) fn block_since(&self, conversation: ConversationId, begins: u32, time: TimeMs) -> u32 {
        let key = key(conversation);
        let later = self.entries.get(begins as usize + 1..).unwrap_or_default();
        let is_before = |entry: &[u8; ENTRY_BYTES]| entry[..KEY_BYTES] == key && u64_at(entry, 26) < time.0;
        begins + later.partition_point(is_before) as u32
    }

    /// Whether a block may hold a message id.
    pub(super) fn may_hold(&self, block: u32, hash: u64) -> bool {
        let line = |block: u32| self.get(block).map(|entry| entry.filter_line as usize);
        let filter = lines(self.filter, line(block), line(block + 1));
        filter.is_none_or(|filter| super::filter::may_hold(filter, hash))
    }
}

/// The lines of a filter from one to before another, or to the end; `None` if there are none such.
fn lines(filter: &[u8], from: Option<usize>, to: Option<usize>) -> Option<&[u8]> {
    let from = from?.checked_mul(LINE_BYTES)?;
    let to = to.map_or(Some(filter.len()), |to| to.checked_mul(LINE_BYTES))?;
    filter.get(from..to)
}

/// A block of state rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeltaEntry<'a> {
    pub(super) place: BlockPlace,
    pub(super) rows: u32,
    pub(super) filter_line: u32,
    pub(super) first_key: &'a [u8],
}

impl DeltaEntry<'_> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.place.offset.to_le_bytes());
        out.extend_from_slice(&self.place.bytes.to_le_bytes());
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&self.filter_line.to_le_bytes());
        out.extend_from_slice(self.first_key);
    }
}

/// The delta index and its filters as they lie in a verified file.
#[derive(Clone, Copy)]
pub(super) struct DeltaIndex<'a> {
    entries: &'a [u8],
    restarts: &'a [[u8; 8]],
    filter: &'a [u8],
}

impl<'a> DeltaIndex<'a> {
    pub(super) fn new(entries: &'a [u8], restarts: &'a [u8], filter: &'a [u8]) -> DeltaIndex<'a> {
        DeltaIndex { entries, restarts: restarts.as_chunks().0, filter }
    }

    pub(super) fn len(&self) -> u32 {
        self.restarts.len() as u32
    }

    pub(super) fn get(&self, block: u32) -> Option<DeltaEntry<'a>> {
        let start = self.start_of(block as usize)?;
        let end = self.start_of(block as usize + 1).unwrap_or(self.entries.len());
        let entry = self.entries.get(start..end)?;
        let first_key = entry.get(DELTA_HEAD_BYTES..)?;
        Some(DeltaEntry {
            place: BlockPlace { offset: u64_at(entry, 0), bytes: u32_at(entry, 8) },
            rows: u32_at(entry, 12),
            filter_line: u32_at(entry, 16),
            first_key,
        })
    }

    /// The block that holds a key if any does; `None` if the bytes make no sense.
    pub(super) fn block_of(&self, key: &[u8]) -> Option<Option<u32>> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle)?.first_key <= key { low = middle + 1 } else { high = middle }
        }
        Some(low.checked_sub(1))
    }

    /// Whether a block may hold a key.
    pub(super) fn may_hold(&self, block: u32, hash: u64) -> bool {
        let line = |block: u32| self.get(block).map(|entry| entry.filter_line as usize);
        let filter = lines(self.filter, line(block), line(block + 1));
        filter.is_none_or(|filter| super::filter::may_hold(filter, hash))
    }

    fn start_of(&self, block: usize) -> Option<usize> {
        usize::try_from(u64::from_le_bytes(*self.restarts.get(block)?)).ok()
    }
}
