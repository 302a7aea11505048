//! Live entries that wait for the answer to an announcement.
//!
//! What always holds: what all shards of a connection hold together is bounded; a shard whose entry does not fit any more
//! gives up what it holds, and is announced again.

use logstore::id::LogIndex;

use super::feed::Spot;

/// What an entry costs in memory while held, beside its bytes.
const ENTRY_BYTES: usize = 128;

/// What one shard holds.
#[derive(Default)]
pub(super) struct Held {
    /// In order.
    pub(super) entries: Vec<HeldEntry>,
    /// Counted against the connection's bound.
    pub(super) bytes: usize,
    /// Something did not fit: nothing is held any more.
    pub(super) overflown: bool,
}

/// An entry's records for one connection.
pub(super) struct HeldEntry {
    pub(super) index: LogIndex,
    pub(super) spots: Vec<Spot>,
    pub(super) bytes: Box<[u8]>,
}

impl Held {
    /// Keeps an entry if it fits into `room`, the bytes that the connection may hold beside what it holds already.
    pub(super) fn keep<'a>(
        &mut self,
        index: LogIndex,
        spots: impl Iterator<Item = &'a Spot> + Clone,
        bytes: &[u8],
        room: usize,
    ) {
        if self.overflown {
            return;
        }
        let length: usize = spots.clone().map(|spot| (spot.end - spot.start) as usize + size_of::<Spot>()).sum();
        if length + ENTRY_BYTES > room {
            *self = Held { overflown: true, ..Held::default() };
            return;
        }
        self.bytes += length + ENTRY_BYTES;
        self.entries.push(HeldEntry::copy(index, spots, bytes));
    }
}

impl HeldEntry {
    fn copy<'a>(index: LogIndex, spots: impl Iterator<Item = &'a Spot>, bytes: &[u8]) -> HeldEntry {
        let (mut own, mut moved) = (Vec::new(), Vec::new());
        for spot in spots {
            let start = own.len() as u32;
            own.extend_from_slice(&bytes[spot.start as usize..spot.end as usize]);
            moved.push(Spot { start, end: own.len() as u32, ..*spot });
        }
        HeldEntry { index, spots: moved, bytes: own.into_boxed_slice() }
    }
}
