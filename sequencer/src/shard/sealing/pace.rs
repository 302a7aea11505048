//! Holds back who writes in bulk, so that a disk stays quick for those who wait for it.
//!
//! What always holds: over any stretch of time no more is spent than the rate allows, and one burst.

use std::time::{Duration, Instant};

/// What may be spent at once: a few writes, so that a build does not sleep after each.
const BURST: Duration = Duration::from_millis(50);

/// A rate in bytes.
pub(super) struct Pacer {
    bytes_per_second: u64,
    /// When what was spent so far will be paid for.
    paid: Instant,
}

impl Pacer {
    /// Spends at most so many bytes a second, at least one.
    pub(super) fn new(bytes_per_second: u64) -> Pacer {
        Pacer { bytes_per_second: bytes_per_second.max(1), paid: Instant::now() }
    }

    /// Waits until these bytes may be written. Blocks: not for async workers.
    pub(super) fn spend(&mut self, bytes: u64) {
        let now = Instant::now();
        if let Some(wait) = self.charge(bytes, now) {
            std::thread::sleep(wait);
        }
    }

    /// How long to wait before these bytes are written.
    fn charge(&mut self, bytes: u64, now: Instant) -> Option<Duration> {
        self.paid = self.paid.max(now) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let ahead = self.paid.saturating_duration_since(now);
        ahead.checked_sub(BURST).filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_in_a_second_is_paid_for_in_a_second() {
        let mut pacer = Pacer::new(1_000_000);
        let mut now = pacer.paid;
        let began = now;
        for _ in 0..100 {
            now += pacer.charge(20_000, now).unwrap_or_default();
        }
        let took = now - began;
        assert!(took >= Duration::from_millis(1_900) && took <= Duration::from_secs(2), "{took:?}");
    }

    #[test]
    fn who_rested_may_not_spend_what_was_saved() {
        let mut pacer = Pacer::new(1_000_000);
        let later = pacer.paid + Duration::from_secs(60);
        assert_eq!(pacer.charge(40_000, later), None);
        assert!(pacer.charge(1_000_000, later).is_some_and(|wait| wait > Duration::from_millis(900)));
    }
}
