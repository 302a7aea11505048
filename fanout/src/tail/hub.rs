//! What one shard's applied entries become for each gateway. Pure: no task, no clock, no lock.

use std::ops::Range;
use std::sync::Arc;

use logstore::RecordKind;
use logstore::id::{ConnectionId, ConversationId, ConversationName, SeqId, ShardId, UserId};
use sequencer::state::MembershipBody;
use sequencer::{CommittedRecord, CursorMoved, TailBatch};
use smallvec::SmallVec;

use super::audience::{Audience, Listener};
use super::{Delivery, GatewayId, Target};

/// The deliveries of one entry, one a gateway that has anyone in its audience.
pub type Deliveries = SmallVec<[(GatewayId, Delivery); 1]>;

/// Receipts for one gateway: each cursor with its range of the connections beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiptsOut {
    /// Cursors, and whom to tell.
    pub receipts: Vec<(CursorMoved, Range<u32>)>,
    /// Connections, flat.
    pub connections: Vec<ConnectionId>,
}

/// Which announcements are in force: a reset ends all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generation(u64);

/// One shard's audience, at the dispatcher's position in the tail.
#[derive(Default)]
pub struct Hub {
    shard: ShardId,
    audience: Audience,
    generation: Generation,
}

impl Hub {
    /// A hub without an audience.
    pub fn new(shard: ShardId) -> Hub {
        Hub { shard, ..Hub::default() }
    }

    /// Whether nobody is announced.
    pub fn is_empty(&self) -> bool {
        self.audience.is_empty()
    }

    /// Puts a connection into the audience. `groups`: where its user is a member now, and since which record; taken from
    /// the same applied state whose index the answer will state.
    pub fn announce(
        &mut self,
        listener: Listener,
        user: UserId,
        groups: impl Iterator<Item = (ConversationId, SeqId)>,
    ) -> Generation {
        self.audience.announce(listener, user, groups);
        self.generation
    }

    /// Takes a connection out of the audience.
    pub fn detach(&mut self, connection: ConnectionId, user: UserId) {
        self.audience.detach(connection, user);
    }

    /// Forgets everyone: a part of the tail was lost, and with it who joined and left.
    pub fn reset(&mut self) {
        self.audience = Audience::default();
        self.generation.0 += 1;
    }

    /// Whether announcements of a generation are still in force.
    pub fn is_current(&self, generation: Generation) -> bool {
        self.generation == generation
    }

    /// The deliveries of the next entry. `told_to_all`: for each of its cursors, whether the other members are told too.
    pub fn dispatch(&mut self, batch: &Arc<TailBatch>, told_to_all: &[bool]) -> Deliveries {
        let mut out = Out { shard: self.shard, batch, deliveries: SmallVec::new() };
        if self.audience.is_empty() {
            return out.deliveries;
        }
        let mut previous = None;
        for (position, record) in batch.applied.records.iter().enumerate() {
            // Only membership records change an audience: a message after a message goes where that one went.
            let message = (record.head.kind != RecordKind::MEMBERSHIP).then_some(record.head.conversation);
            if message.is_some() && message == previous {
                out.same_again(position as u32);
            } else {
                self.dispatch_record(position as u32, record, &mut out);
            }
            previous = message;
        }
        for (cursor, &widely) in batch.applied.cursors.iter().zip(told_to_all) {
            each_told(&self.audience, cursor, widely, |l| out.receipt(*cursor, l));
        }
        out.deliveries
    }

    /// Receipts to pass on now, not yet in the log; those of `told_to_all` conversations only.
    pub fn receipts(&self, cursors: &[CursorMoved]) -> SmallVec<[(GatewayId, ReceiptsOut); 1]> {
        let mut out: SmallVec<[(GatewayId, ReceiptsOut); 1]> = SmallVec::new();
        for cursor in cursors {
            each_told(&self.audience, cursor, true, |l| {
                let at = slot(&mut out, l.gateway, ReceiptsOut::default);
                let out = &mut out[at].1;
                push_receipt(&mut out.receipts, &mut out.connections, *cursor, l.connection);
            });
        }
        out
    }

    fn dispatch_record(&mut self, position: u32, record: &CommittedRecord, out: &mut Out) {
        let head = &record.head;
        let change = membership(record).unwrap_or_default();
        change.joined.iter().for_each(|&user| self.audience.join(head.conversation, user, head.seq));
        self.audience.each(head.conversation, head.seq, |l| out.record(position, l));
        change.left.iter().for_each(|&user| self.audience.leave(head.conversation, user));
    }
}

/// What a membership record says; `None` for every other record.
fn membership(record: &CommittedRecord) -> Option<MembershipBody> {
    if record.head.kind != RecordKind::MEMBERSHIP {
        return None;
    }
    let body = record.made_body.as_ref().and_then(|body| MembershipBody::decode(body));
    Some(body.expect("apply makes the body of every membership record"))
}

/// Calls `tell` for who learns of a cursor: its user's connections, and the other members' if `widely`.
fn each_told(audience: &Audience, cursor: &CursorMoved, widely: bool, mut tell: impl FnMut(Listener)) {
    let direct = matches!(cursor.conversation.name(), Some(ConversationName::Direct(..)));
    if widely || direct {
        // Members who joined after the cursor's record are told as well: a cursor is a number, not a record.
        audience.each(cursor.conversation, SeqId(u64::MAX), tell);
    } else {
        audience.each_of(cursor.user, &mut tell);
    }
}

/// Deliveries being filled.
struct Out<'a> {
    shard: ShardId,
    batch: &'a Arc<TailBatch>,
    deliveries: Deliveries,
}

impl Out<'_> {
    /// Adds a listener to a record's targets. Records come in order.
    fn record(&mut self, position: u32, listener: Listener) {
        let delivery = self.delivery(listener.gateway);
        let end = delivery.connections.len() as u32;
        if delivery.targets.last().is_none_or(|t| t.record != position) {
            delivery.targets.push(Target { record: position, to: end..end });
        }
        delivery.connections.push(listener.connection);
        if let Some(target) = delivery.targets.last_mut() {
            target.to.end = end + 1;
        }
    }

    /// The record goes where the one before it went.
    fn same_again(&mut self, position: u32) {
        for (_, delivery) in &mut self.deliveries {
            if let Some(last) = delivery.targets.last().filter(|t| t.record + 1 == position) {
                let to = last.to.clone();
                delivery.targets.push(Target { record: position, to });
            }
        }
    }

    fn receipt(&mut self, cursor: CursorMoved, listener: Listener) {
        let delivery = self.delivery(listener.gateway);
        push_receipt(&mut delivery.receipts, &mut delivery.connections, cursor, listener.connection);
    }

    fn delivery(&mut self, gateway: GatewayId) -> &mut Delivery {
        let (shard, batch) = (self.shard, self.batch);
        let at = slot(&mut self.deliveries, gateway, || Delivery {
            shard,
            batch: Arc::clone(batch),
            targets: Vec::with_capacity(batch.applied.records.len()),
            connections: Vec::with_capacity(batch.applied.records.len()),
            receipts: Vec::new(),
        });
        &mut self.deliveries[at].1
    }
}

/// Adds a connection to a cursor's range, which is the last one. Cursors come one after the other.
fn push_receipt(
    receipts: &mut Vec<(CursorMoved, Range<u32>)>,
    connections: &mut Vec<ConnectionId>,
    cursor: CursorMoved,
    connection: ConnectionId,
) {
    let end = connections.len() as u32;
    match receipts.last_mut() {
        Some((last, to)) if *last == cursor && to.end == end => to.end = end + 1,
        _ => receipts.push((cursor, end..end + 1)),
    }
    connections.push(connection);
}

/// The position of a gateway's part, made if missing. Gateways are few: one on a single node.
fn slot<T>(parts: &mut SmallVec<[(GatewayId, T); 1]>, gateway: GatewayId, new: impl FnOnce() -> T) -> usize {
    let at = parts.iter().position(|(g, _)| *g == gateway);
    at.unwrap_or_else(|| {
        parts.push((gateway, new()));
        parts.len() - 1
    })
}
