//! From committed entries to deliveries: announcements, audiences, and the fence between catching up and live.

use std::ops::Range;
use std::sync::Arc;

use logstore::id::{ConnectionId, LogIndex, ShardId, UserId};
use sequencer::{CursorMoved, Record, Sequencer, TailBatch};

use crate::Limits;
use crate::service::ConversationSummary;

/// A gateway process, as a shard's hub knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(pub u64);

/// A connection wants everything of one user on one shard from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The gateway that holds it.
    pub gateway: GatewayId,
    /// The connection.
    pub connection: ConnectionId,
    /// Its user.
    pub user: UserId,
    /// What the device has been told of this shard; 0: nothing.
    pub cursor: LogIndex,
    /// Whether missed records are wanted too, or only rows.
    pub bodies: bool,
}

/// The answer to an announcement: the fence, and what changed below it.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// The shard.
    pub shard: ShardId,
    /// The announcement took effect after this entry: live deliveries above it are complete.
    pub as_of: LogIndex,
    /// Rows that changed after the cursor.
    pub rows: Vec<ConversationSummary>,
    /// Missed records, ascending within each conversation, in the order of `rows`; the newest of each up to a bound.
    pub records: Vec<Record>,
}

/// Deliveries of one applied entry to one gateway. The connection a record came over (its `origin`) is not among its
/// targets: that one learns the seq_id from the answer to its send.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The shard.
    pub shard: ShardId,
    /// The entry and its records.
    pub batch: Arc<TailBatch>,
    /// Which record goes to which connections (a range of `connections`).
    pub targets: Vec<Target>,
    /// Connections, flat.
    pub connections: Vec<ConnectionId>,
    /// Cursors to tell, and to whom (a range of `connections`).
    pub receipts: Vec<(CursorMoved, Range<u32>)>,
}

/// One record of a delivery.
#[derive(Clone, Debug)]
pub struct Target {
    /// Position in `batch.applied.records`.
    pub record: u32,
    /// Range of `Delivery::connections`.
    pub to: Range<u32>,
}

/// Where a gateway takes deliveries, in order per shard. Calls must not block: a slow gateway buffers or resets itself.
pub trait TailSink: Send + Sync + 'static {
    /// The next entry's deliveries. Entries in which the gateway has no one are skipped.
    fn deliver(&self, delivery: Delivery);

    /// Everything up to `floor` was missed: every connection on this shard is pending again and must announce anew with the
    /// cursor told on it; deliveries go on above `floor`.
    fn reset(&self, shard: ShardId, floor: LogIndex);

    /// Receipts passed on before they are replicated: each cursor with its range of `connections`. Lossy by nature; the
    /// replicated cursor follows in a delivery.
    fn receipts(&self, shard: ShardId, receipts: Vec<(CursorMoved, Range<u32>)>, connections: Vec<ConnectionId>);
}

/// The tails of all shards of this node.
pub struct Tails {}

impl Tails {
    /// Starts one dispatcher per shard.
    pub fn start(sequencer: Arc<Sequencer>, limits: Arc<Limits>) -> Arc<Tails> {
        let _ = (sequencer, limits);
        unimplemented!()
    }

    /// Registers a gateway; deliveries to it begin with its first announcement.
    pub fn register(&self, gateway: GatewayId, sink: Arc<dyn TailSink>) {
        let _ = (gateway, sink);
        unimplemented!()
    }

    /// Announces a connection on one shard and reads what it missed. From here on the gateway may get deliveries for
    /// this connection, also before this returns, and must hold them until it does, then drop those at or below `as_of`.
    pub async fn announce(&self, shard: ShardId, announcement: Announcement) -> Result<Attachment, crate::Fault> {
        let _ = (shard, announcement);
        unimplemented!()
    }

    /// Forgets a connection on all shards. Called when none of its announcements is under way any more: one that takes
    /// effect later would stay.
    pub fn detach(&self, gateway: GatewayId, connection: ConnectionId, user: UserId) {
        let _ = (gateway, connection, user);
        unimplemented!()
    }

    /// Stops the dispatchers.
    pub async fn shutdown(&self) {
        unimplemented!()
    }
}
