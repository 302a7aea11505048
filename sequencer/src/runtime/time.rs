//! Instants, sleeping, and waiting no longer than.
//!
//! What always holds: an instant is nanoseconds since a moment of this process, or of this simulation; only those of the same are
//! ever compared.

use std::fmt;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::Either;

use super::simulation::{self, SimulatedSleep};

/// A moment of a clock that never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant {
    since_start_ns: u64,
}

/// The moment that this process counts from.
fn start() -> tokio::time::Instant {
    static START: OnceLock<tokio::time::Instant> = OnceLock::new();
    *START.get_or_init(tokio::time::Instant::now)
}

impl Instant {
    /// Now, where this is asked.
    pub(crate) fn now_here() -> Instant {
        if simulation::is_here() {
            return simulation::now();
        }
        // The first to ask sets the start; a clock read before that would be behind it.
        let start = start();
        Instant::after_start(tokio::time::Instant::now().saturating_duration_since(start))
    }

    pub(super) fn after_start(since: Duration) -> Instant {
        Instant { since_start_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// Since the process or the simulation began to count.
    pub(crate) fn since_start(self) -> Duration {
        Duration::from_nanos(self.since_start_ns)
    }
}

impl openraft::Instant for Instant {
    fn now() -> Instant {
        Instant::now_here()
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates: 584 years after the start.
    fn add(self, duration: Duration) -> Instant {
        Instant::after_start(self.since_start().saturating_add(duration))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    /// Saturates at the start.
    fn sub(self, duration: Duration) -> Instant {
        Instant::after_start(self.since_start().saturating_sub(duration))
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.since_start().saturating_sub(earlier.since_start())
    }
}

/// Waits until an instant.
pub struct Sleep(Either<Pin<Box<tokio::time::Sleep>>, SimulatedSleep>);

impl Sleep {
    pub(super) fn until(deadline: Instant) -> Sleep {
        if simulation::is_here() {
            return Sleep(Either::Right(SimulatedSleep::until(deadline)));
        }
        let far = Duration::from_secs(30 * 365 * 24 * 3600);
        let deadline = start() + deadline.since_start().min(far);
        Sleep(Either::Left(Box::pin(tokio::time::sleep_until(deadline))))
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// Waits for a future until an instant.
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

/// The future was not done in time.
#[derive(Debug)]
pub struct TooLate;

impl fmt::Display for TooLate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not done in time")
    }
}

impl<F> Timeout<F> {
    pub(super) fn new(deadline: Instant, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Sleep::until(deadline) }
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, TooLate>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(done) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(done));
        }
        Pin::new(&mut self.sleep).poll(context).map(|()| Err(TooLate))
    }
}
