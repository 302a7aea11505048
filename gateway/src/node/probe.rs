//! Asks every shard to commit something.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use sequencer::{Sequencer, Shard};

use crate::http::{Probes, ShardProbe};

/// A shard that takes longer is not one to send work to.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Probes of all shards at once.
pub(super) fn probes(sequencer: Arc<Sequencer>) -> Probes {
    Arc::new(move || {
        let shards: Vec<_> = sequencer.shards().to_vec();
        async move { futures::future::join_all(shards.into_iter().map(probe)).await }.boxed()
    })
}

async fn probe(shard: Arc<Shard>) -> ShardProbe {
    let (took_ms, reason) = match tokio::time::timeout(TIMEOUT, shard.probe()).await {
        Ok(Ok(took)) => (Some(took.as_secs_f64() * 1e3), None),
        Ok(Err(error)) => (None, Some(error.to_string())),
        Err(_) => (None, Some(format!("no answer within {} ms", TIMEOUT.as_millis()))),
    };
    ShardProbe { shard: shard.id().0, ready: reason.is_none(), took_ms, reason, troubles: shard.troubles() }
}
