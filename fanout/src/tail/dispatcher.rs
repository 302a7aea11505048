//! The task that follows one shard's tail and hands out what it finds.

use std::sync::Arc;

use logstore::id::LogIndex;
use parking_lot::RwLock;
use sequencer::state::Look;
use sequencer::{TailBatch, TailReader, TailStep};
use smallvec::{SmallVec, smallvec};
use tokio::sync::watch;

use super::{GatewayId, ShardTail, TailSink};
use crate::service::is_small;

type Sink = Arc<dyn TailSink>;

/// The gateways that follow this node. Few: one on a single node.
#[derive(Default)]
pub(super) struct Sinks(RwLock<SmallVec<[(GatewayId, Sink); 1]>>);

impl Sinks {
    /// Adds a gateway, in place of one of the same id.
    pub fn add(&self, gateway: GatewayId, sink: Sink) {
        let mut sinks = self.0.write();
        sinks.retain(|(id, _)| *id != gateway);
        sinks.push((gateway, sink));
    }

    /// Calls `use_it` with a gateway's sink, if it is registered; no lock is held meanwhile.
    pub fn with(&self, gateway: GatewayId, use_it: impl FnOnce(&dyn TailSink)) {
        let sink = self.0.read().iter().find(|(id, _)| *id == gateway).map(|(_, sink)| Arc::clone(sink));
        if let Some(sink) = sink {
            use_it(&*sink);
        }
    }

    fn each(&self, mut use_it: impl FnMut(&dyn TailSink)) {
        let sinks = self.0.read().clone();
        sinks.iter().for_each(|(_, sink)| use_it(&**sink));
    }
}

/// Follows the tail until it ends or `stop` is set.
pub(super) async fn run(
    tail: Arc<ShardTail>,
    mut reader: TailReader,
    sinks: Arc<Sinks>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let step = tokio::select! {
            step = reader.next() => step,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match step {
            Some(TailStep::Batches(batches)) => {
                for batch in batches.iter() {
                    dispatch(&tail, batch, &sinks).await;
                }
            }
            Some(TailStep::Reset { floor }) => {
                tracing::warn!(shard = %tail.shard.id(), %floor, "the tail was lost: connections announce anew");
                announce_anew(&tail, floor, &sinks);
            }
            None => return,
        }
        // A tail that always has more must not keep its worker from the connections it feeds.
        tokio::task::yield_now().await;
    }
}

async fn dispatch(tail: &ShardTail, batch: &Arc<TailBatch>, sinks: &Sinks) {
    let told_to_all = told_to_all(tail, batch).await;
    let deliveries = tail.hub.lock().dispatch(batch, &told_to_all);
    for (gateway, delivery) in deliveries {
        sinks.with(gateway, |sink| sink.deliver(delivery));
    }
    if batch.applied.opened {
        announce_anew(tail, batch.applied.index, sinks);
    }
}

/// Conversations came to be there that no record speaks of: who is connected learns of them, and is seated in them, by announcing
/// anew. Rare: an import ends with it.
fn announce_anew(tail: &ShardTail, index: LogIndex, sinks: &Sinks) {
    tail.hub.lock().reset();
    sinks.each(|sink| sink.reset(tail.shard.id(), index));
}

/// For each of an entry's cursors, whether the other members are told of it. The rows were in memory when the entry was applied
/// and are so still, unless the tail is far behind.
async fn told_to_all(tail: &ShardTail, batch: &TailBatch) -> SmallVec<[bool; 16]> {
    let cursors = &batch.applied.cursors;
    if cursors.is_empty() || tail.hub.lock().is_empty() {
        return smallvec![false; cursors.len()];
    }
    let small = |state: &Look<'_>| cursors.iter().map(|cursor| is_small(state, cursor.conversation)).collect();
    match tail.shard.look(|state, _| small(state)).await {
        Ok(small) => small,
        Err(error) => {
            tracing::warn!(shard = %tail.shard.id(), %error, "receipts are told to their own devices only");
            smallvec![false; cursors.len()]
        }
    }
}
