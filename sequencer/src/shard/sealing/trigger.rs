//! Proposes `Seal`: when a generation is large, or old enough that the dedup window should turn over, or holds back journal
//! files.

use std::sync::Arc;
use std::time::Duration;

use logstore::id::TimeMs;

use crate::Command;
use crate::runtime;
use crate::shard::Shard;

use super::kept;

/// What a generation of an idle shard may weigh without being sealed for its age: readiness probes alone would fill disks
/// with empty segments.
const TOO_LITTLE_BYTES: u64 = 64 << 10;
/// A generation that holds back journal files is sealed no sooner than this after the one before: what that frees comes
/// only when its segment is made.
const HELD_BACK_AGE_MS: u64 = 10_000;
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

/// When a generation ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SealWhen {
    /// Bytes of entries after which it does.
    pub(crate) bytes: u64,
    /// Log time after which it does, if it holds a record, or more than a little of anything else.
    pub(crate) age_ms: u64,
}

/// Proposes the Seals of one shard until it stops.
pub(crate) async fn run(shard: Arc<Shard>, when: SealWhen) {
    let mut current = shard.read(|state, _| Generation { number: state.generation(), began: state.time() });
    while !shard.core.is_stopped() {
        let (number, now, record_bytes) =
            shard.read(|state, _| (state.generation(), state.time(), state.unsealed_bytes()));
        if number != current.number {
            current = Generation { number, began: now };
        }
        kept::let_go_if_keeping(&shard).await;
        let holds_back = shard.journal.is_held_back_by(shard.id());
        let is_stuck = shard.core.sealing().is_stuck();
        let weight = Weight { entry_bytes: shard.core.generation_bytes(), record_bytes, holds_back, is_stuck };
        if shard.leads() && is_due(current, now, weight, when) {
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

/// What is in a generation.
#[derive(Clone, Copy, Debug)]
struct Weight {
    entry_bytes: u64,
    record_bytes: u64,
    /// Whether there are more journal files than there should be because of this shard.
    holds_back: bool,
    /// Whether an older generation cannot become a segment: more of them would free nothing.
    is_stuck: bool,
}

fn is_due(generation: Generation, now: TimeMs, weight: Weight, when: SealWhen) -> bool {
    let age_ms = now.0.saturating_sub(generation.began.0);
    let is_worth_it = weight.record_bytes > 0 || weight.entry_bytes > TOO_LITTLE_BYTES;
    let holds_back = weight.holds_back && age_ms >= HELD_BACK_AGE_MS && weight.entry_bytes > 0;
    let is_early = (age_ms >= when.age_ms && is_worth_it) || holds_back;
    weight.entry_bytes >= when.bytes || (is_early && !weight.is_stuck)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_sealed_when_it_is_large_or_old_and_worth_it() {
        let generation = Generation { number: 1, began: TimeMs(1_000) };
        let when = SealWhen { bytes: 1 << 20, age_ms: 60_000 };
        let (early, late) = (TimeMs(2_000), TimeMs(61_000));
        let is_due = |now, entry_bytes, record_bytes| {
            is_due(generation, now, Weight { entry_bytes, record_bytes, holds_back: false, is_stuck: false }, when)
        };
        assert!(!is_due(early, (1 << 20) - 1, 99));
        assert!(is_due(early, 1 << 20, 0));
        assert!(is_due(late, 1, 1));
        assert!(is_due(late, TOO_LITTLE_BYTES + 1, 0));
        assert!(!is_due(late, TOO_LITTLE_BYTES, 0), "probes");
    }

    #[test]
    fn a_generation_that_holds_back_journal_files_is_sealed_early_but_not_over_and_over() {
        let generation = Generation { number: 1, began: TimeMs(1_000) };
        let when = SealWhen { bytes: 1 << 20, age_ms: 600_000 };
        let weight = Weight { entry_bytes: 40, record_bytes: 0, holds_back: true, is_stuck: false };
        assert!(is_due(generation, TimeMs(11_000), weight, when));
        assert!(!is_due(generation, TimeMs(10_999), weight, when));
        assert!(!is_due(generation, TimeMs(11_000), Weight { holds_back: false, ..weight }, when));
    }

    #[test]
    fn a_shard_that_cannot_be_sealed_is_asked_for_no_more_than_its_bytes() {
        let generation = Generation { number: 1, began: TimeMs(1_000) };
        let when = SealWhen { bytes: 1 << 20, age_ms: 600_000 };
        let weight = Weight { entry_bytes: 1 << 19, record_bytes: 9, holds_back: true, is_stuck: true };
        assert!(!is_due(generation, TimeMs(9_000_000), weight, when));
        assert!(is_due(generation, TimeMs(1_001), Weight { entry_bytes: 1 << 20, ..weight }, when));
    }
}
