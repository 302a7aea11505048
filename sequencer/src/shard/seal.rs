//! Proposes `Seal`: when a generation is large, or old enough that the dedup window should turn over.

use std::sync::Arc;
use std::time::Duration;

use logstore::id::TimeMs;

use crate::Command;
use crate::raft::runtime;
use crate::shard::Shard;

/// Log time after which anything unsealed is sealed.
const GENERATION_MS: u64 = 120_000;
/// How often the age is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The least wait after a refusal.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// What a generation is judged by.
#[derive(Clone, Copy, Debug)]
struct Generation {
    number: u64,
    began: TimeMs,
}

/// Seals one shard until it stops.
pub(crate) async fn run(shard: Arc<Shard>, seal_bytes: u64) {
    let mut current = shard.read(|state, _| Generation { number: state.generation(), began: state.time() });
    while !shard.core.is_stopped() {
        let (number, now, bytes) = shard.read(|state, _| (state.generation(), state.time(), state.unsealed_bytes()));
        if number != current.number {
            current = Generation { number, began: now };
        }
        if shard.group.leading_term().is_some() && is_due(current, now, bytes, seal_bytes) {
            seal(&shard, number).await;
        } else {
            let _ = runtime::within(LOOK, shard.core.seal_signal().notified()).await;
        }
    }
}

async fn seal(shard: &Shard, generation: u64) {
    match shard.execute(Command::Seal).await {
        Ok(_) => tracing::debug!(shard = shard.id().0, generation, "sealed"),
        Err(why) => runtime::sleep(why.retry_after().clamp(RETRY_AFTER, LOOK)).await,
    }
}

fn is_due(generation: Generation, now: TimeMs, bytes: u64, seal_bytes: u64) -> bool {
    let age_ms = now.0.saturating_sub(generation.began.0);
    bytes >= seal_bytes || (bytes > 0 && age_ms >= GENERATION_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_sealed_when_it_is_large_or_old_and_not_empty() {
        let generation = Generation { number: 1, began: TimeMs(1_000) };
        let later = TimeMs(1_000 + GENERATION_MS);
        assert!(!is_due(generation, TimeMs(2_000), 99, 100));
        assert!(is_due(generation, TimeMs(2_000), 100, 100));
        assert!(is_due(generation, later, 1, 100));
        assert!(!is_due(generation, later, 0, 100));
    }
}
