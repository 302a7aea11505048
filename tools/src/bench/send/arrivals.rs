//! When frames are due.
//!
//! Open loop: frame k of connection c of n is due at (k n + c) intervals after the start, whatever the server does;
//! latency counts from there, so waiting counts. Closed loop: a frame is due whenever there is room for it.

/// The frames of one connection.
#[derive(Clone, Debug)]
pub struct Arrivals {
    next_ns: u64,
    step_ns: f64,
    count: u64,
    begin_ns: u64,
    end_ns: u64,
}

impl Arrivals {
    /// Open loop: `frames_per_s` over all `connections`, of which this is number `connection`.
    pub fn open(frames_per_s: f64, connection: usize, connections: usize, begin_ns: u64, end_ns: u64) -> Arrivals {
        let interval_ns = 1e9 / frames_per_s;
        let begin_ns = begin_ns + (interval_ns * connection as f64) as u64;
        Arrivals { next_ns: begin_ns, step_ns: interval_ns * connections as f64, count: 0, begin_ns, end_ns }
    }

    /// Closed loop: always due until the end.
    pub fn closed(begin_ns: u64, end_ns: u64) -> Arrivals {
        Arrivals { next_ns: begin_ns, step_ns: 0.0, count: 0, begin_ns, end_ns }
    }

    /// Takes the frame that is due now: when it was due (closed loop: now).
    pub fn take(&mut self, now_ns: u64) -> Option<u64> {
        let due_ns = self.next_due(now_ns)?;
        if due_ns > now_ns {
            return None;
        }
        self.count += 1;
        // From the beginning each time: rounding must not add up.
        self.next_ns = self.begin_ns + (self.step_ns * self.count as f64) as u64;
        Some(due_ns)
    }

    /// When the next frame is due; `None`: there are no more.
    pub fn next_due(&self, now_ns: u64) -> Option<u64> {
        let due_ns = if self.step_ns == 0.0 { now_ns.max(self.next_ns) } else { self.next_ns };
        (due_ns < self.end_ns).then_some(due_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_arrivals_keep_their_times_however_late_they_are_taken() {
        let mut second = Arrivals::open(1000.0, 1, 2, 5_000_000, 10_000_000);
        assert_eq!(second.take(5_999_999), None);
        assert_eq!(
            [second.take(9_900_000), second.take(9_900_000), second.take(9_900_000)],
            [Some(6_000_000), Some(8_000_000), None]
        );
        assert_eq!(second.next_due(9_900_000), None, "10 ms is the end");
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_is_still_met() {
        let mut all = Arrivals::open(3.0, 0, 1, 0, 1_000_000_000_000);
        assert_eq!(std::iter::from_fn(|| all.take(u64::MAX)).count(), 3000);
    }

    #[test]
    fn closed_arrivals_are_due_until_the_end() {
        let mut all = Arrivals::closed(10, 20);
        assert_eq!([all.take(5), all.take(12), all.take(12), all.take(20)], [None, Some(12), Some(12), None]);
    }
}
