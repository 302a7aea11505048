//! The one place that names the runtime. A simulated one replaces it here, and nowhere else.

use std::future::Future;
use std::io;
use std::time::Duration;

/// What openraft and our own tasks run on.
pub(crate) type Runtime = openraft::impls::TokioRuntime;

/// A task that was started. Dropping this does not end it.
pub(crate) struct Task<T>(tokio::task::JoinHandle<T>);

impl<T> Task<T> {
    /// What the task ended with; `None` if it panicked or the runtime is stopping.
    pub(crate) async fn done(self) -> Option<T> {
        self.0.await.ok()
    }
}

/// Starts a task.
pub(crate) fn spawn<F>(task: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    Task(tokio::spawn(task))
}

/// Waits.
pub(crate) async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Runs `future` for at most `limit`; `None` if it was not done by then.
pub(crate) async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}

/// Runs blocking work off the async workers.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// Drops what takes time to drop off the async workers, where there are any.
pub(crate) fn drop_elsewhere<T: Send + 'static>(rest: Option<T>) {
    if let Some(rest) = rest
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        drop(runtime.spawn_blocking(move || drop(rest)));
    }
}
