//! How long to wait before trying again: doubling up to a bound, with full jitter, so that clients of a server that
//! comes back do not arrive as one.

use std::time::Duration;

/// A sequence of waits. Chance arrives as an argument.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits of `base` at first, of `max` at most.
    pub fn new(base: Duration, max: Duration) -> Backoff {
        Backoff { base, max, failures: 0 }
    }

    /// The next wait; `chance` in [0, 1).
    pub fn next(&mut self, chance: f64) -> Duration {
        let ceiling = self.base.saturating_mul(1 << self.failures.min(20)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        // Half is fixed, half is chance: never a tight loop, never a crowd.
        ceiling / 2 + (ceiling / 2).mul_f64(chance.clamp(0.0, 1.0))
    }

    /// It worked: begin anew.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let waits: Vec<_> = (0..7).map(|_| backoff.next(0.999).as_millis()).collect();
        assert_eq!(waits, [99, 199, 399, 799, 1599, 1999, 1999]);
        assert_eq!(backoff.next(0.0), Duration::from_secs(1));
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::from_millis(50));
    }
}
