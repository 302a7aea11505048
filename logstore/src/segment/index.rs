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

use super::format::{KEY_BYTES, Key, key, u32_at, u64_at};
use super::paged::Paged;
use crate::Result;
use crate::id::{ConversationId, SeqId, TimeMs};

const ENTRY_BYTES: usize = 54;
const SORTED_BYTES: usize = KEY_BYTES + 8;
const DELTA_HEAD_BYTES: usize = 20;
const ENTRIES_PER_PAGE: usize = 75;

/// Key, first seq and time of an entry.
type Fence = [u8; SORTED_BYTES + 8];

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

/// The block index and its filters. In memory is what each page of entries begins with.
pub(super) struct BlockIndex {
    entries: Paged,
    fences: Box<[Fence]>,
    filter: Paged,
}

impl BlockIndex {
    /// Whole entries to a page.
    pub(super) const PAGE_BYTES: usize = ENTRIES_PER_PAGE * ENTRY_BYTES;

    /// Takes in the sections; `check` sees every entry, and says whether it can be one.
    pub(super) fn new(entries: Paged, filter: Paged, mut check: impl FnMut(&BlockEntry) -> bool) -> Result<BlockIndex> {
        let mut fences = Vec::new();
        let (mut piece, mut at) = (Vec::new(), 0);
        while at < entries.len() {
            piece.clear();
            at += entries.read_piece(at, &mut piece)? as u64;
            let (found, rest) = piece.as_chunks::<ENTRY_BYTES>();
            if !rest.is_empty() || !found.iter().map(BlockEntry::decode).all(|entry| check(&entry)) {
                return Err(entries.senseless());
            }
            fences.extend(found.iter().step_by(ENTRIES_PER_PAGE).map(fence));
        }
        Ok(BlockIndex { entries, fences: fences.into(), filter })
    }

    pub(super) fn len(&self) -> u32 {
        (self.entries.len() / ENTRY_BYTES as u64) as u32
    }

    pub(super) fn get(&self, block: u32) -> Result<Option<BlockEntry>> {
        let at = u64::from(block) * ENTRY_BYTES as u64;
        let entry = self.entries.look(at, ENTRY_BYTES, |entry| entry.first_chunk().map(BlockEntry::decode))?;
        Ok(entry.flatten())
    }

    /// The block of a conversation that holds `seq`, given the block in which the conversation begins.
    pub(super) fn block_of(&self, conversation: ConversationId, begins: u32, seq: SeqId) -> Result<u32> {
        let mut wanted = [0; SORTED_BYTES];
        wanted[..KEY_BYTES].copy_from_slice(&key(conversation));
        wanted[KEY_BYTES..].copy_from_slice(&seq.0.to_be_bytes());
        Ok(begins + self.count_after(begins, |entry| entry[..SORTED_BYTES] <= wanted[..])?)
    }

    /// The last block of a conversation that begins before a time, or the one the conversation begins in: nothing of it
    /// before that block is as late.
    pub(super) fn block_since(&self, conversation: ConversationId, begins: u32, time: TimeMs) -> Result<u32> {
        let key = key(conversation);
        let is_before = |entry: &Fence| entry[..KEY_BYTES] == key && u64_at(entry, SORTED_BYTES) < time.0;
        Ok(begins + self.count_after(begins, is_before)?)
    }

    /// Whether a block may hold a message id.
    pub(super) fn may_hold(&self, block: u32, hash: u64) -> Result<bool> {
        let Some(entry) = self.get(block)? else { return Ok(true) };
        let next = self.get(block + 1)?.map(|next| next.filter_line);
        super::filter::may_hold(&self.filter, entry.filter_line, next, hash)
    }

    /// How many of the entries after one `is_before` admits; those it admits come before all others. Reads one page.
    fn count_after(&self, entry: u32, is_before: impl Fn(&Fence) -> bool) -> Result<u32> {
        let from = (entry as usize + 1).min(self.len() as usize);
        let page = from / ENTRIES_PER_PAGE;
        let later = self.fences.get(page + 1..).unwrap_or_default().partition_point(&is_before);
        let start = from.max((page + later) * ENTRIES_PER_PAGE);
        let end = (self.len() as usize).min((page + later + 1) * ENTRIES_PER_PAGE);
        let bytes = end.saturating_sub(start) * ENTRY_BYTES;
        let within = self.entries.look((start * ENTRY_BYTES) as u64, bytes, |entries| {
            entries.as_chunks::<ENTRY_BYTES>().0.partition_point(|entry| is_before(&fence(entry)))
        })?;
        Ok((start - from + within.unwrap_or(0)) as u32)
    }
}

fn fence(entry: &[u8; ENTRY_BYTES]) -> Fence {
    *entry.first_chunk().expect("a fence is the beginning of an entry")
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

/// The delta index and its filters.
pub(super) struct DeltaIndex {
    entries: Paged,
    restarts: Paged,
    filter: Paged,
}

impl DeltaIndex {
    pub(super) fn new(entries: Paged, restarts: Paged, filter: Paged) -> DeltaIndex {
        DeltaIndex { entries, restarts, filter }
    }

    pub(super) fn len(&self) -> u32 {
        self.restarts().len() as u32
    }

    pub(super) fn get(&self, block: u32) -> Option<DeltaEntry<'_>> {
        let entries = self.entries.whole().unwrap_or_default();
        let start = self.start_of(block as usize)?;
        let end = self.start_of(block as usize + 1).unwrap_or(entries.len());
        let entry = entries.get(start..end)?;
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
    pub(super) fn may_hold(&self, block: u32, hash: u64) -> Result<bool> {
        let Some(entry) = self.get(block) else { return Ok(true) };
        let next = self.get(block + 1).map(|next| next.filter_line);
        super::filter::may_hold(&self.filter, entry.filter_line, next, hash)
    }

    /// The same as far as memory has it: `true` where the file would have to be asked.
    pub(super) fn may_hold_as_known(&self, block: u32, hash: u64) -> bool {
        self.filter.whole().is_none() || self.may_hold(block, hash).unwrap_or(true)
    }

    fn start_of(&self, block: usize) -> Option<usize> {
        usize::try_from(u64::from_le_bytes(*self.restarts().get(block)?)).ok()
    }

    fn restarts(&self) -> &[[u8; 8]] {
        self.restarts.whole().unwrap_or_default().as_chunks().0
    }
}
