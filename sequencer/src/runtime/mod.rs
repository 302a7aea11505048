//! What Raft and our own tasks run on: tokio, or a simulation on one thread with a clock of its own.
//!
//! | file | says |
//! |---|---|
//! | `task` | tasks and what they end with |
//! | `time` | instants, sleeping, waiting no longer than |
//! | `chance` | random numbers |
//! | `watch` | a value that others wait for changes of |
//! | `simulation` | an executor that does the same again when given the same seed |
//!
//! What always holds: code above asks nobody else for tasks, time or chance, so that a whole cluster can live on one thread and
//! its history is a function of a seed. Which of the two it is, is asked when a task, a sleep or a generator is made: inside
//! [`Simulation::run`] it is the simulation.

mod chance;
mod simulation;
mod task;
mod time;
mod watch;

use std::future::Future;
use std::io;
use std::time::Duration;

use openraft::impls::TokioRuntime;
use openraft::{AsyncRuntime, OptionalSend};

pub use simulation::{Machine, Simulation};
pub(crate) use task::Task;
pub use time::Instant;

/// The runtime as openraft asks for it.
#[derive(Debug)]
pub struct Runtime(Kind);

#[derive(Debug)]
enum Kind {
    Threads(TokioRuntime),
    Simulated(Simulation),
}

impl AsyncRuntime for Runtime {
    type JoinError = task::Ended;
    type JoinHandle<T: OptionalSend + 'static> = Task<T>;
    type Sleep = time::Sleep;
    type Instant = Instant;
    type TimeoutError = time::TooLate;
    type Timeout<R, F: Future<Output = R> + OptionalSend> = time::Timeout<F>;
    type ThreadLocalRng = chance::Chance;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = watch::OrderedWatch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<F>(future: F) -> Task<F::Output>
    where
        F: Future + OptionalSend + 'static,
        F::Output: OptionalSend + 'static,
    {
        spawn(future)
    }

    fn sleep(duration: Duration) -> time::Sleep {
        time::Sleep::until(Instant::now_here() + duration)
    }

    fn sleep_until(deadline: Instant) -> time::Sleep {
        time::Sleep::until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> time::Timeout<F> {
        time::Timeout::new(Instant::now_here() + duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Instant, future: F) -> time::Timeout<F> {
        time::Timeout::new(deadline, future)
    }

    fn is_panic(ended: &task::Ended) -> bool {
        ended.is_panic()
    }

    fn thread_rng() -> chance::Chance {
        chance::Chance::here()
    }

    fn new(threads: usize) -> Runtime {
        Runtime(Kind::Threads(TokioRuntime::new(threads)))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        match &mut self.0 {
            Kind::Threads(tokio) => tokio.block_on(future),
            Kind::Simulated(simulation) => simulation.run(future),
        }
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        blocking(work)
    }
}

impl From<Simulation> for Runtime {
    fn from(simulation: Simulation) -> Runtime {
        Runtime(Kind::Simulated(simulation))
    }
}

/// Whether this is asked inside a simulation.
pub(crate) fn is_simulated() -> bool {
    simulation::is_here()
}

/// Starts a task.
pub(crate) fn spawn<F>(task: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    if simulation::is_here() { simulation::spawn(task) } else { Task::from(tokio::spawn(task)) }
}

/// Waits.
pub(crate) async fn sleep(duration: Duration) {
    time::Sleep::until(Instant::now_here() + duration).await;
}

/// Runs `future` for at most `limit`; `None` if it was not done by then.
pub(crate) async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    time::Timeout::new(Instant::now_here() + limit, future).await.ok()
}

/// Runs blocking work off the async workers. In a simulation it is done in one step, some time later.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    if simulation::is_here() {
        sleep(simulation::work_takes()).await;
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// Drops what takes time to drop off the async workers, where there are any.
pub(crate) fn drop_elsewhere<T: Send + 'static>(rest: Option<T>) {
    if let Some(rest) = rest
        && let Ok(threads) = tokio::runtime::Handle::try_current()
    {
        drop(threads.spawn_blocking(move || drop(rest)));
    }
}

#[cfg(test)]
mod tests {
    use openraft::testing::runtime::Suite;

    use super::*;

    #[test]
    fn threads_pass_openrafts_suite() {
        Suite::<Runtime>::test_all();
    }

    #[test]
    fn a_simulation_passes_openrafts_suite() {
        for seed in 0..20 {
            Suite::<Runtime>::test_all_on(&mut Runtime::from(Simulation::new(seed)));
        }
    }
}
