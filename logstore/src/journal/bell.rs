//! What wakes the writer: its thread, or whoever steps it.
//!
//! What always holds: a ring that comes while the writer is at work is not lost, because the writer looks at the queue under
//! the lock that rings follow; ringing takes no lock and allocates nothing.

use std::time::Duration;

use parking_lot::{Condvar, MutexGuard};

/// Called when there may be something for the writer to do. It may be called with the journal's lock held, so it must not call the
/// journal.
pub(crate) type OnRing = Box<dyn Fn() + Send + Sync>;

/// Rung after each change the writer may have waited for.
#[derive(Default)]
pub(crate) struct Bell {
    thread: Condvar,
    on_ring: Option<OnRing>,
}

impl Bell {
    /// One that wakes no thread and calls instead.
    pub fn calling(on_ring: OnRing) -> Bell {
        Bell { thread: Condvar::new(), on_ring: Some(on_ring) }
    }

    pub fn ring(&self) {
        match &self.on_ring {
            Some(on_ring) => on_ring(),
            None => {
                self.thread.notify_one();
            }
        }
    }

    /// Waits for a ring, at most so long if there is a limit; whether that passed without one.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>, limit: Option<Duration>) -> bool {
        match limit {
            Some(limit) => self.thread.wait_for(guard, limit).timed_out(),
            None => {
                self.thread.wait(guard);
                false
            }
        }
    }
}
