//! Carries a shard's effects to the shards they are for.
//!
//! What always holds: effects of one pair of shards go in order, one command of them in flight; they leave the
//! outbox only by a replicated acknowledgement of what the target has *applied*. A crash anywhere repeats a step,
//! and the numbers make the repetition harmless. Only the leader pumps.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use hashbrown::HashSet;
use logstore::id::ShardId;

use crate::runtime;
use crate::shard::{Capacity, Shard};
use crate::{Command, Outcome};

/// Effects in one command.
const EFFECTS_MAX: usize = 256;
/// How often a shard looks whether it has become the leader.
const LOOK: Duration = Duration::from_secs(1);
/// First wait after a refusal; doubled up to the last.
const BACK_OFF_FIRST: Duration = Duration::from_millis(20);
const BACK_OFF_LAST: Duration = Duration::from_secs(2);

/// The way from one shard to another's proposer. `Ok` is the number of the last effect the target has applied.
pub(crate) trait EffectCarrier: Send + Sync + 'static {
    /// Proposes `effects` (a [`Command::Effects`]) to shard `to` and waits until it is applied. Repeating it is harmless.
    fn carry(&self, to: ShardId, effects: Command) -> BoxFuture<'_, Result<u64, Stuck>>;
}

/// Why effects did not arrive. All of it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stuck {
    #[error("refused before the log: {0:?}")]
    Refused(Capacity),
    #[error("shard {0} is not known here")]
    Unknown(ShardId),
    #[error("answered {0:?}")]
    Outcome(Outcome),
}

/// All shards of this process. Filled once they are open.
#[derive(Default)]
pub(crate) struct LocalCarrier {
    shards: OnceLock<Vec<Arc<Shard>>>,
}

impl LocalCarrier {
    /// Makes the shards known.
    pub(crate) fn connect(&self, shards: Vec<Arc<Shard>>) {
        let connected = self.shards.set(shards);
        debug_assert!(connected.is_ok(), "shards are opened once");
    }
}

impl EffectCarrier for LocalCarrier {
    fn carry(&self, to: ShardId, effects: Command) -> BoxFuture<'_, Result<u64, Stuck>> {
        let shard = self.shards.get().and_then(|shards| shards.iter().find(|shard| shard.id() == to));
        Box::pin(async move {
            let shard = shard.ok_or(Stuck::Unknown(to))?;
            match shard.execute(effects).await {
                Ok(Outcome::Effects { last }) => Ok(last),
                Ok(other) => Err(Stuck::Outcome(other)),
                Err(why) => Err(Stuck::Refused(why)),
            }
        })
    }
}

/// Held to be read while an acknowledgement is proposed and applied, and to be written by whoever needs that none is.
pub(crate) type Acks = Arc<tokio::sync::RwLock<()>>;

/// Pumps one shard's outbox until the shard stops.
pub(crate) async fn pump(shard: Arc<Shard>, carrier: Arc<dyn EffectCarrier>, acks: Acks) {
    let mut under_way = HashSet::new();
    let mut pairs = FuturesUnordered::new();
    while !shard.core.is_stopped() {
        if shard.leads() {
            let targets = shard.read(|state, _| state.outbox_targets());
            for to in targets.into_iter().filter(|to| under_way.insert(*to)) {
                pairs.push(empty(shard.clone(), carrier.clone(), acks.clone(), to));
            }
        }
        // In this order, not in one drawn by lot: a simulation does the same again. What is under way is first, for nothing else
        // drives it, and signals may come without end.
        tokio::select! {
            biased;
            Some(done) = pairs.next(), if !pairs.is_empty() => {
                under_way.remove(&done);
            }
            () = shard.core.outbox_signal().notified() => {}
            () = runtime::sleep(LOOK) => {}
        }
    }
}

/// Carries everything that waits for `to`.
async fn empty(shard: Arc<Shard>, carrier: Arc<dyn EffectCarrier>, acks: Acks, to: ShardId) -> ShardId {
    let mut wait = BACK_OFF_FIRST;
    while !shard.core.is_stopped() && shard.leads() {
        match step(&shard, &*carrier, &acks, to).await {
            Ok(true) => wait = BACK_OFF_FIRST,
            Ok(false) => break,
            Err(stuck) => {
                tracing::debug!(from = shard.id().0, to = to.0, %stuck, "effects are tried again");
                runtime::sleep(wait).await;
                wait = (wait * 2).min(BACK_OFF_LAST);
            }
        }
    }
    to
}

/// Carries one command of effects and has it acknowledged; whether there was any.
async fn step(shard: &Shard, carrier: &dyn EffectCarrier, acks: &Acks, to: ShardId) -> Result<bool, Stuck> {
    let Some((incarnation, first, effects)) = shard.read(|state, _| state.outbox(to, EFFECTS_MAX)) else {
        return Ok(false);
    };
    if effects.is_empty() {
        return Ok(false);
    }
    let from = shard.id();
    let upto = carrier.carry(to, Command::Effects { from, incarnation, first, effects }).await?;
    if upto < first {
        // Nothing of it was applied: acknowledging that would only come back here at once.
        return Err(Stuck::Outcome(Outcome::Effects { last: upto }));
    }
    let _not_in_a_cut = acks.read().await;
    match shard.execute(Command::AckEffects { to, incarnation, upto }).await {
        Ok(Outcome::Refused(why)) => Err(Stuck::Outcome(Outcome::Refused(why))),
        Ok(_) => Ok(true),
        Err(why) => Err(Stuck::Refused(why)),
    }
}
