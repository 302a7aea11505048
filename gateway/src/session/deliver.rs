//! From a shard's deliveries to the queues of connections: the hot path out.
//!
//! Each record is encoded once per entry, whoever gets it; each connection is locked once per entry, however many
//! records it gets. What always holds: nothing here waits, and entries of one shard are queued in the order they come.

use std::ops::Range;

use bytes::BytesMut;
use fanout::tail::Delivery;
use logstore::BodyPlace;
use logstore::id::{ConnectionId, LogIndex};
use sequencer::{CommittedRecord, CursorMoved};

use super::Gateway;
use crate::connection::feed::{Spot, Then};
use crate::wire::frame::{self, FLAG_PUSH};
use crate::wire::operation::Operation;
use crate::wire::{convert, proto, record};

/// Scratch memory larger than this is given back after the entry that needed it.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

/// What one shard's deliveries are sorted in. Kept between entries: a busy shard allocates nothing.
#[derive(Default)]
pub(super) struct Scratch {
    bytes: BytesMut,
    spots: Vec<Spot>,
    /// Who gets which spot, by connection and then in the order of the entry.
    pairs: Vec<(ConnectionId, u32)>,
}

impl Scratch {
    /// Encodes an entry's records and sorts them by who gets them.
    pub(super) fn load(&mut self, delivery: &Delivery) {
        self.bytes.clear();
        self.spots.clear();
        self.pairs.clear();
        let records = &delivery.batch.applied.records;
        for (target, number) in delivery.targets.iter().zip(0u32..) {
            let committed = &records[target.record as usize];
            let start = self.bytes.len() as u32;
            record::put_element(&mut self.bytes, &committed.head, body(&delivery.batch.payload, committed));
            self.spots.push(Spot {
                conversation: committed.head.conversation,
                seq: committed.head.seq,
                origin: committed.origin,
                start,
                end: self.bytes.len() as u32,
            });
            let to = &delivery.connections[target.to.start as usize..target.to.end as usize];
            self.pairs.extend(to.iter().map(|&connection| (connection, number)));
        }
        self.pairs.sort_unstable();
    }

    /// Gives every connection its records.
    pub(super) fn give(&self, gateway: &Gateway, slot: usize, index: LogIndex) {
        let slab = gateway.registry.read();
        let mut given = 0;
        for group in self.pairs.chunk_by(|a, b| a.0 == b.0) {
            let Some(connection) = slab.get(group[0].0) else { continue };
            let spots = group.iter().map(|&(_, number)| &self.spots[number as usize]);
            let then = connection.update(|shared| match &mut shared.feed {
                Some(feed) => feed.entry(slot, index, spots, &self.bytes, &mut shared.out),
                None => Then::Nothing,
            });
            if then == Some(Then::CatchUp) {
                gateway.catch_up(connection);
            }
            given += group.iter().filter(|(to, number)| self.spots[*number as usize].origin != *to).count() as u64;
        }
        gateway.figures.deliveries.increment(given);
    }

    /// After an entry of unusual size.
    pub(super) fn rest(&mut self) {
        if self.bytes.capacity() > SCRATCH_BYTES_MAX {
            *self = Scratch::default();
        }
    }
}

/// A record's body where it lies: no count of its owners is touched.
fn body<'a>(payload: &'a [u8], committed: &'a CommittedRecord) -> &'a [u8] {
    match committed.head.body {
        BodyPlace::InEntry { offset, len } => &payload[offset as usize..(offset + len) as usize],
        BodyPlace::Made | BodyPlace::Sealed | BodyPlace::Removed => committed.made_body.as_deref().unwrap_or_default(),
    }
}

/// Tells cursors that moved, each to those it concerns.
pub(super) fn give_receipts(gateway: &Gateway, moved: &[(CursorMoved, Range<u32>)], connections: &[ConnectionId]) {
    let slab = gateway.registry.read();
    let mut pairs = Vec::new();
    for ((_, to), number) in moved.iter().zip(0u32..) {
        pairs.extend(connections[to.start as usize..to.end as usize].iter().map(|&connection| (connection, number)));
    }
    pairs.sort_unstable();
    for group in pairs.chunk_by(|a: &(ConnectionId, u32), b| a.0 == b.0) {
        let Some(connection) = slab.get(group[0].0) else { continue };
        let receipts = || group.iter().map(|&(_, number)| convert::receipt(&moved[number as usize].0)).collect();
        connection.update(|shared| {
            let wanted = shared.feed.as_ref().is_some_and(|feed| feed.takes_hints(&shared.out));
            if wanted && !shared.without_receipts {
                let receipts = proto::Receipts { receipts: receipts() };
                frame::encode(&mut shared.out, FLAG_PUSH, Operation::Receipts.number(), 0, &receipts);
            }
        });
    }
}
