//! Latencies: an HDR histogram in nanoseconds, three digits exact.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longer ones count as this.
const LONGEST_NS: u64 = 600_000_000_000;

/// Durations of one kind.
pub struct Latency(Histogram<u64>);

impl Latency {
    /// None yet.
    pub fn new() -> Latency {
        Latency(
            Histogram::new_with_bounds(1_000, LONGEST_NS, 3).expect("the bounds are in order and the digits below 6"),
        )
    }

    /// Adds one.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// Adds `count` equal ones.
    pub fn record_many(&mut self, ns: u64, count: u64) {
        self.0.saturating_record_n(ns, count);
    }

    /// What is told of them.
    pub fn percentiles(&self) -> Percentiles {
        let ms = |quantile: f64| if self.0.is_empty() { 0.0 } else { self.0.value_at_quantile(quantile) as f64 / 1e6 };
        Percentiles { p50: ms(0.5), p99: ms(0.99), p999: ms(0.999), max: ms(1.0) }
    }
}

/// In milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half are below.
    pub p50: f64,
    /// 99 % are below.
    pub p99: f64,
    /// 99.9 % are below.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Percentiles {
    /// For people.
    pub fn words(&self) -> String {
        format!("p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms", self.p50, self.p99, self.p999, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_milliseconds_of_what_was_recorded() {
        let mut latency = Latency::new();
        assert_eq!(latency.percentiles(), Percentiles::default());
        latency.record_many(2_000_000, 990);
        (0..10).for_each(|_| latency.record(50_000_000));
        let p = latency.percentiles();
        assert!((p.p50 - 2.0).abs() < 0.01 && (p.p99 - 2.0).abs() < 0.01, "{p:?}");
        assert!((p.p999 - 50.0).abs() < 0.1 && (p.max - 50.0).abs() < 0.1, "{p:?}");
        latency.record(u64::MAX);
        assert!(latency.percentiles().max >= 600_000.0);
    }
}
