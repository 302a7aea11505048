//! Time, passed in.

use logstore::id::TimeMs;

/// Tells the time of day. State never asks it: only proposers do, to stamp entries.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> TimeMs;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> TimeMs {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        TimeMs(since.map_or(0, |d| d.as_millis() as u64))
    }
}
