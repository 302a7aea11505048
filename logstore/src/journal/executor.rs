//! Where long work is done: logstore spawns nothing beyond the journal's writer thread.

use std::fmt;
use std::sync::Arc;

/// A piece of work.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs that read and write files for a while: a thread, a blocking pool, or the caller itself.
#[derive(Clone)]
pub struct Executor(Arc<dyn Fn(Job) + Send + Sync>);

impl Executor {
    /// Jobs go to `spawn`, which may run them whenever and wherever it likes, or drop them.
    pub fn new(spawn: impl Fn(Box<dyn FnOnce() + Send>) + Send + Sync + 'static) -> Executor {
        Executor(Arc::new(spawn))
    }

    /// Jobs run on the thread that wants them done, before it goes on: for tests and small files.
    pub fn inline() -> Executor {
        Executor::new(|job| job())
    }

    pub(crate) fn run(&self, job: Job) {
        (self.0)(job);
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Executor")
    }
}
