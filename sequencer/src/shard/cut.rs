//! One moment of all shards of a node, in segments: what exports and backups are made of.
//!
//! ```text
//!   acknowledgements held back     each shard: Seal         let go     each shard: its segment is published
//!   |------------------------------|------------------------|----------|---> its set, handed out as of that Seal
//! ```
//!
//! What always holds:
//! - the cut is *causal*: no shard has let go of an effect that its target has not applied at its own cut. An outbox loses
//!   effects only to acknowledgements. None is proposed from before the first Seal until after the last: one that was applied
//!   before answers something the target had applied before its Seal;
//! - a set that is handed out ends at its shard's Seal exactly; merges and seals go on meanwhile;
//! - one cut is made at a time, and acknowledgements wait a bounded time for it. Nobody else waits for anything.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use logstore::SegmentSet;
use logstore::id::ShardId;
use tokio::sync::oneshot;

use crate::runtime;
use crate::shard::{Capacity, Sequencer, Shard};
use crate::{Command, Error, Result};

/// Acknowledgements in flight are answered long before; so are Seals.
const LIMIT: Duration = Duration::from_secs(10);

/// A cut whose segments may not be published yet.
pub struct Cut {
    shards: Vec<(ShardId, Sealed)>,
}

/// The segments of one shard's cut.
enum Sealed {
    /// Nothing has been applied since they were published.
    Now(Arc<SegmentSet>),
    /// As soon as the generation is published.
    Soon(oneshot::Receiver<Arc<SegmentSet>>),
}

impl Sequencer {
    /// Cuts all shards here at one causal moment. Returns when every shard has its Seal; see [`Cut::sealed`]. With `every_shard` those in
    /// which nothing was applied since their last one get another: so the time of each one's last entry is that of the cut.
    pub async fn cut(&self, every_shard: bool) -> Result<Cut> {
        let _one_at_a_time = self.cutting.lock().await;
        let held = runtime::within(LIMIT, self.acks.clone().write_owned()).await;
        let held = held.ok_or_else(|| timeout(self.shards()[0].id(), "finish what is acknowledged"))?;
        let cut = join_all(self.shards().iter().map(|shard| cut_one(shard, every_shard))).await;
        drop(held);
        Ok(Cut { shards: cut.into_iter().collect::<Result<_>>()? })
    }
}

impl Cut {
    /// Waits until the segments of all shards are durable. Holding them keeps their files.
    pub async fn sealed(self) -> Result<Vec<Arc<SegmentSet>>> {
        let mut sets = Vec::with_capacity(self.shards.len());
        for (shard, sealed) in self.shards {
            sets.push(match sealed {
                Sealed::Now(set) => set,
                Sealed::Soon(published) => {
                    published.await.map_err(|_| Error::Refused { shard, why: Capacity::NotLeading })?
                }
            });
        }
        Ok(sets)
    }
}

async fn cut_one(shard: &Shard, in_any_case: bool) -> Result<(ShardId, Sealed)> {
    let sealed = look(shard, in_any_case);
    if matches!(sealed, Sealed::Soon(_)) {
        let done = runtime::within(LIMIT, shard.execute(Command::Seal)).await;
        let done = done.ok_or_else(|| timeout(shard.id(), "seal"))?;
        done.map_err(|why| Error::Refused { shard: shard.id(), why })?;
    }
    Ok((shard.id(), sealed))
}

/// Registered before the Seal is proposed: whoever proposes it, the generation of this moment ends after this moment.
fn look(shard: &Shard, in_any_case: bool) -> Sealed {
    let (state, records) = &*shard.core.read();
    let set = records.sealed();
    let upto = set.manifest().checkpoint().map(|checkpoint| checkpoint.seal.index);
    if upto == Some(state.applied()) && !in_any_case {
        return Sealed::Now(set.clone());
    }
    Sealed::Soon(shard.core.sealing().hand_out_at(state.generation()))
}

fn timeout(shard: ShardId, what: &'static str) -> Error {
    Error::Timeout { shard, what, ms: LIMIT.as_millis() as u64 }
}
