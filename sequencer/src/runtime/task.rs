//! Tasks, and what they end with.
//!
//! What always holds: dropping the handle does not end the task; a task that is ended from outside (its runtime stops, its machine
//! loses power) is told apart from one that panicked.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};

/// A task that was started. Dropping this does not end it.
pub struct Task<T>(Handle<T>);

enum Handle<T> {
    Threads(JoinHandle<T>),
    Simulated(oneshot::Receiver<T>),
}

/// Why a task has no result.
#[derive(Debug)]
pub enum Ended {
    /// It panicked, or its runtime has stopped.
    Threads(JoinError),
    /// Its machine lost power. A panic ends the whole simulation.
    Simulated,
}

impl Ended {
    pub(super) fn is_panic(&self) -> bool {
        matches!(self, Ended::Threads(error) if error.is_panic())
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Threads(error) => error.fmt(f),
            Ended::Simulated => f.write_str("the machine it ran on lost power"),
        }
    }
}

impl<T> Task<T> {
    /// What the task ended with; `None` if it panicked or the runtime is stopping.
    pub(crate) async fn done(self) -> Option<T> {
        self.await.ok()
    }

    pub(super) fn simulated(result: oneshot::Receiver<T>) -> Task<T> {
        Task(Handle::Simulated(result))
    }
}

impl<T> From<JoinHandle<T>> for Task<T> {
    fn from(handle: JoinHandle<T>) -> Task<T> {
        Task(Handle::Threads(handle))
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, Ended>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match &mut self.0 {
            Handle::Threads(handle) => ready!(Pin::new(handle).poll(context)).map_err(Ended::Threads),
            Handle::Simulated(result) => ready!(Pin::new(result).poll(context)).map_err(|_| Ended::Simulated),
        })
    }
}
