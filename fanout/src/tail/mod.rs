//! From committed entries to deliveries: announcements, audiences, and the fence between catching up and live.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use logstore::id::{ConnectionId, LogIndex, ShardId, UserId};
use parking_lot::Mutex;
use sequencer::{CursorMoved, Record, Sequencer, Shard, TailBatch};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::service::ConversationSummary;
use crate::{Code, Fault, Limits};

mod attach;
mod audience;
mod dispatcher;
mod hub;
#[cfg(test)]
mod model;

pub use audience::Listener;
pub use hub::{Deliveries, Generation, Hub, ReceiptsOut};

use attach::Fence;
use dispatcher::Sinks;

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

/// Deliveries of one applied entry to one gateway. The connection a record came over (its `origin`) is among its targets,
/// so that each connection is shown every seq_id of a conversation; the gateway sends it no copy, it has its answer.
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
pub struct Tails {
    tails: Vec<Arc<ShardTail>>,
    sinks: Arc<Sinks>,
    limits: Arc<Limits>,
    stop: watch::Sender<bool>,
    dispatchers: Mutex<Vec<JoinHandle<()>>>,
}

/// One shard, and who follows it.
///
/// The hub is locked inside the shard's read lock (an announcement), never the other way round: the two would wait for
/// each other.
struct ShardTail {
    shard: Arc<Shard>,
    hub: Mutex<Hub>,
}

/// How long an announcement waits for a replica that is behind its cursor.
const CATCH_UP_WAIT: Duration = Duration::from_millis(200);

impl Tails {
    /// Starts one dispatcher per shard.
    pub fn start(sequencer: Arc<Sequencer>, limits: Arc<Limits>) -> Arc<Tails> {
        let (stop, stopped) = watch::channel(false);
        let sinks = Arc::new(Sinks::default());
        let new_tail = |shard: &Arc<Shard>| {
            Arc::new(ShardTail { shard: Arc::clone(shard), hub: Mutex::new(Hub::new(shard.id())) })
        };
        let tails: Vec<Arc<ShardTail>> = sequencer.shards().iter().map(new_tail).collect();
        let dispatchers = tails.iter().map(|tail| {
            let reader = tail.shard.tail(tail.shard.applied());
            tokio::spawn(dispatcher::run(Arc::clone(tail), reader, Arc::clone(&sinks), stopped.clone()))
        });
        let dispatchers = Mutex::new(dispatchers.collect());
        Arc::new(Tails { tails, sinks, limits, stop, dispatchers })
    }

    /// Registers a gateway; deliveries to it begin with its first announcement.
    pub fn register(&self, gateway: GatewayId, sink: Arc<dyn TailSink>) {
        self.sinks.add(gateway, sink);
    }

    /// Announces a connection on one shard and reads what it missed. From here on the gateway may get deliveries for
    /// this connection, also before this returns, and must hold them until it does, then drop those at or below `as_of`.
    pub async fn announce(&self, shard: ShardId, announcement: Announcement) -> Result<Attachment, Fault> {
        let tail = self.tail(shard).ok_or_else(|| Fault::new(Code::BadField, format!("no shard {shard} here")))?;
        tail.catch_up(announcement.cursor).await?;
        let fence = tail.shard.look(|state, unsealed| {
            Fence::set(shard, state, unsealed, &tail.hub, announcement, self.limits.attach_records)
        });
        let gone = || Fault::later(Code::Timeout, "rows changed meanwhile: announce again", Duration::from_millis(1));
        let fence = fence.await?.ok_or_else(gone)?;
        let generation = fence.generation;
        let attachment = fence.read(&*tail.shard).await?;
        if tail.hub.lock().is_current(generation) {
            return Ok(attachment);
        }
        Err(Fault::later(Code::Timeout, "the tail was cut meanwhile: announce again", Duration::from_millis(1)))
    }

    /// Forgets a connection on all shards. Called when none of its announcements is under way any more: one that takes
    /// effect later would stay.
    pub fn detach(&self, gateway: GatewayId, connection: ConnectionId, user: UserId) {
        let _ = gateway; // connection ids are unique over the cluster
        self.tails.iter().for_each(|tail| tail.hub.lock().detach(connection, user));
    }

    /// Tells the other members' connections of cursors that are not in the log yet.
    pub(crate) fn pass_on(&self, shard: ShardId, cursors: &[CursorMoved]) {
        let Some(tail) = self.tail(shard) else { return };
        let receipts = tail.hub.lock().receipts(cursors);
        for (gateway, out) in receipts {
            self.sinks.with(gateway, |sink| sink.receipts(shard, out.receipts, out.connections));
        }
    }

    /// Stops the dispatchers.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        let dispatchers = std::mem::take(&mut *self.dispatchers.lock());
        for dispatcher in dispatchers {
            if let Err(error) = dispatcher.await {
                tracing::error!(%error, "a tail dispatcher ended badly");
            }
        }
    }

    fn tail(&self, shard: ShardId) -> Option<&Arc<ShardTail>> {
        self.tails.iter().find(|tail| tail.shard.id() == shard)
    }
}

impl ShardTail {
    async fn catch_up(&self, cursor: LogIndex) -> Result<(), Fault> {
        if self.shard.applied() >= cursor {
            return Ok(());
        }
        let reached = self.shard.wait_for(CATCH_UP_WAIT, |state| (state.applied() >= cursor).then_some(())).await;
        reached.ok_or_else(|| {
            let what = format!("shard {} is behind the cursor {cursor}", self.shard.id());
            Fault::later(Code::Timeout, what, CATCH_UP_WAIT)
        })
    }
}
