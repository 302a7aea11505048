//! Who steps the writer: a thread of its own, or the caller, who then says how long things take.
//!
//! What always holds: both do the same steps in the same order; they differ in how they wait and in nothing else. The thread ends
//! once the last handle is gone, and not before everything accepted has been written.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::io::Context;
use crate::{Error, Result};

use super::state::Shared;
use super::writer::{Writer, WriterNext};

/// Ends the writer when the last handle goes.
pub(super) struct WriterEnd {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl WriterEnd {
    /// Of a writer on a thread that starts now.
    pub fn of_thread(writer: Writer, shared: Arc<Shared>) -> Result<WriterEnd> {
        let thread = std::thread::Builder::new().name("journal".to_owned());
        let thread = thread.spawn(move || run(writer)).context("start", "the journal's writer thread")?;
        Ok(WriterEnd { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Of a writer that somebody else steps, or of none.
    pub fn without_thread(shared: Arc<Shared>) -> WriterEnd {
        WriterEnd { shared, thread: Mutex::new(None) }
    }

    /// Has the writer finish; waits for its thread if it has one.
    pub fn close(&self) {
        self.shared.state.lock().closing = true;
        self.shared.work.ring();
        let Some(thread) = self.thread.lock().take() else { return };
        if thread.thread().id() == std::thread::current().id() {
            // The last handle went with a completion: the writer ends by itself when that returns.
            return;
        }
        // A panic of the writer has been told through `on_fatal`.
        let _ = thread.join();
        let mut state = self.shared.state.lock();
        while state.files.preparing {
            self.shared.files_changed.wait(&mut state);
        }
    }
}

impl Drop for WriterEnd {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the writer's thread does, until the journal is closed or fails.
fn run(mut writer: Writer) {
    let ended = catch_unwind(AssertUnwindSafe(|| run_until_closed(&mut writer)));
    let error = match ended {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(_) => Error::Stopped("the writer thread panicked".to_owned()),
    };
    writer.fail(&error);
}

fn run_until_closed(writer: &mut Writer) -> Result<()> {
    while writer.step_or_wait()? != WriterNext::Ended {}
    Ok(())
}

/// The writer of a journal that has no thread: what it does, it does when it is stepped.
///
/// Dropped before it has ended it is what a process is that died: what was queued is not written, nobody who waits is told
/// anything, and what the last step wrote is not synced.
pub struct SteppedWriter {
    writer: Writer,
    ended: bool,
}

impl SteppedWriter {
    pub(super) fn new(writer: Writer) -> SteppedWriter {
        SteppedWriter { writer, ended: false }
    }

    /// The next step: takes and writes a block of what is queued, or syncs what the step before wrote and tells who waits for it,
    /// or does what is for idle moments, if `is_idle`: the time that [`WriterNext::Wait`] named has passed. Says what is to
    /// happen before the step after it.
    ///
    /// After a failed write or sync everybody has been told so, `on_fatal` was called, and the writer has ended.
    pub fn step(&mut self, is_idle: bool) -> WriterNext {
        if self.ended {
            return WriterNext::Ended;
        }
        let next = self.writer.step(is_idle).unwrap_or_else(|error| {
            self.writer.fail(&error);
            WriterNext::Ended
        });
        self.ended = next == WriterNext::Ended;
        next
    }

    /// Steps until nothing is to be done now, as if no step took any time; how long to wait for an idle moment, if one is wanted,
    /// or `None` once it has ended too.
    pub fn settle(&mut self) -> Option<Duration> {
        loop {
            match self.step(false) {
                WriterNext::Step | WriterNext::Sync => {}
                WriterNext::Wait(idle) => return idle,
                WriterNext::Ended => return None,
            }
        }
    }
}
