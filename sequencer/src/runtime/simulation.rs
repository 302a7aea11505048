//! Several machines on one thread: what happens is a function of a seed.
//!
//! What always holds: one task runs at a time; which of those that could run is next, and how long things take, is drawn from the
//! seed; the clock moves only when nothing can run, to the moment that somebody waits for. A machine that loses power loses its
//! tasks at once, in the order in which they were started.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::sync::oneshot;

use super::task::Task;
use super::time::Instant;

/// What blocking work takes at most.
const WORK_TAKES_MAX: Duration = Duration::from_millis(2);

/// A machine of a simulation. Tasks belong to the machine of the task that started them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Machine(pub u64);

impl Machine {
    /// Where what is simulated is watched from; it never loses power.
    pub const OUTSIDE: Machine = Machine(0);
}

/// An executor with its own clock and its own chance.
pub struct Simulation(Rc<World>);

struct World {
    ready: Arc<Ready>,
    tasks: RefCell<BTreeMap<TaskId, Started>>,
    /// By the moment they wait for, and the order in which they came.
    timers: RefCell<BTreeMap<(Instant, u64), Waker>>,
    now: Cell<Instant>,
    chance: RefCell<SmallRng>,
    /// The machine of the task that runs.
    machine: Cell<Machine>,
    numbers: Cell<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TaskId(u64);

struct Started {
    machine: Machine,
    /// Out while it runs.
    future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    waker: Waker,
}

/// The tasks that can run, each once.
#[derive(Default)]
struct Ready(Mutex<Vec<TaskId>>);

struct TaskWaker {
    id: TaskId,
    ready: Arc<Ready>,
}

/// The task that [`Simulation::run`] was given.
const MAIN: TaskId = TaskId(0);

thread_local! {
    static HERE: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.0.lock();
        if !ready.contains(&self.id) {
            ready.push(self.id);
        }
    }
}

impl Simulation {
    /// One that does the same again when given the same seed.
    pub fn new(seed: u64) -> Simulation {
        Simulation(Rc::new(World {
            ready: Arc::default(),
            tasks: RefCell::default(),
            timers: RefCell::default(),
            now: Cell::new(Instant::after_start(Duration::from_secs(1))),
            chance: RefCell::new(SmallRng::seed_from_u64(seed)),
            machine: Cell::new(Machine::OUTSIDE),
            numbers: Cell::new(0),
        }))
    }

    /// Runs until `future` is done. What it has started goes on with the next run.
    ///
    /// # Panics
    /// When nothing can ever happen any more and `future` is not done, when a task panics, and inside another simulation.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let _inside = Inside::enter(&self.0);
        self.0.run(future)
    }

    /// Takes the power from a machine: its tasks are gone at once.
    pub fn cut_power(machine: Machine) {
        here().drop_tasks(|task| task.machine == machine);
    }

    /// Starts a task on a machine.
    pub fn spawn_on<F>(machine: Machine, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        here().start(machine, Box::pin(future));
    }

    /// Waits, as the clock of the simulation goes.
    pub async fn sleep(duration: Duration) {
        SimulatedSleep::until(now() + duration).await;
    }

    /// Since the simulation began.
    pub fn elapsed() -> Duration {
        now().since_start()
    }

    /// The next number of the simulation's chance.
    pub fn draw() -> u64 {
        draw()
    }

    /// The machine of the task that asks.
    pub fn machine() -> Machine {
        here().machine.get()
    }
}

impl Drop for Simulation {
    /// What its tasks hold may ask for the time, or start others, when it goes.
    fn drop(&mut self) {
        if !is_here() {
            let _inside = Inside::enter(&self.0);
            self.0.drop_tasks(|_| true);
        }
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Simulation({} tasks at {:?})", self.0.tasks.borrow().len(), self.0.now.get())
    }
}

impl World {
    fn run<F: Future>(&self, future: F) -> F::Output {
        let mut main = std::pin::pin!(future);
        let main_waker = self.waker(MAIN);
        main_waker.wake_by_ref();
        loop {
            match self.next() {
                Some(MAIN) => {
                    if let Poll::Ready(done) = main.as_mut().poll(&mut Context::from_waker(&main_waker)) {
                        return done;
                    }
                }
                Some(id) => self.step(id),
                None => assert!(self.advance(), "everything waits, and nothing will happen any more"),
            }
        }
    }

    /// One of those that can run.
    fn next(&self) -> Option<TaskId> {
        let mut ready = self.ready.0.lock();
        if ready.is_empty() {
            return None;
        }
        let place = self.chance.borrow_mut().random_range(0..ready.len());
        Some(ready.remove(place))
    }

    fn step(&self, id: TaskId) {
        let Some((mut future, waker, machine)) = self.take(id) else { return };
        self.machine.set(machine);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        self.machine.set(Machine::OUTSIDE);
        if polled.is_pending()
            && let Some(task) = self.tasks.borrow_mut().get_mut(&id)
        {
            task.future = Some(future);
            return;
        }
        // Done, or its machine lost power while it ran.
        let gone = self.tasks.borrow_mut().remove(&id);
        drop((gone, future));
    }

    #[allow(clippy::type_complexity)]
    fn take(&self, id: TaskId) -> Option<(Pin<Box<dyn Future<Output = ()> + Send>>, Waker, Machine)> {
        let mut tasks = self.tasks.borrow_mut();
        let task = tasks.get_mut(&id)?;
        Some((task.future.take()?, task.waker.clone(), task.machine))
    }

    /// To the next moment that somebody waits for.
    fn advance(&self) -> bool {
        let mut timers = self.timers.borrow_mut();
        let Some(((due, _), waker)) = timers.pop_first() else { return false };
        drop(timers);
        self.now.set(self.now.get().max(due));
        waker.wake();
        true
    }

    fn start(&self, machine: Machine, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let id = TaskId(self.number());
        let waker = self.waker(id);
        waker.wake_by_ref();
        self.tasks.borrow_mut().insert(id, Started { machine, future: Some(future), waker });
    }

    fn waker(&self, id: TaskId) -> Waker {
        Waker::from(Arc::new(TaskWaker { id, ready: self.ready.clone() }))
    }

    /// In the order in which they were started.
    fn drop_tasks(&self, is_hit: impl Fn(&Started) -> bool) {
        let hit: Vec<TaskId> = self.tasks.borrow().iter().filter(|(_, task)| is_hit(task)).map(|(id, _)| *id).collect();
        for id in hit {
            // Dropped outside the borrow: what it holds may start or wake others.
            let lost = self.tasks.borrow_mut().remove(&id);
            drop(lost);
        }
    }

    /// From 1 on: [`MAIN`] is no other's.
    fn number(&self) -> u64 {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }
}

/// While it lives, this thread is inside a simulation.
struct Inside;

impl Inside {
    fn enter(world: &Rc<World>) -> Inside {
        HERE.with_borrow_mut(|here| {
            assert!(here.is_none(), "a simulation inside another");
            *here = Some(world.clone());
        });
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        HERE.take();
    }
}

/// Whether this thread is inside a simulation.
pub(super) fn is_here() -> bool {
    HERE.with_borrow(Option::is_some)
}

fn here() -> Rc<World> {
    HERE.with_borrow(Clone::clone).expect("asked for only inside a simulation")
}

pub(super) fn now() -> Instant {
    here().now.get()
}

pub(super) fn draw() -> u64 {
    here().chance.borrow_mut().next_u64()
}

/// How long some blocking work takes.
pub(super) fn work_takes() -> Duration {
    let nanos = here().chance.borrow_mut().random_range(0..WORK_TAKES_MAX.as_nanos() as u64);
    Duration::from_nanos(nanos)
}

pub(super) fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let world = here();
    let (done, result) = oneshot::channel();
    let task = async move {
        let _ = done.send(future.await);
    };
    world.start(world.machine.get(), Box::pin(task));
    Task::simulated(result)
}

/// Waits until an instant of the simulation.
pub(super) struct SimulatedSleep {
    due: Instant,
    timer: Option<(Instant, u64)>,
}

impl SimulatedSleep {
    pub(super) fn until(due: Instant) -> SimulatedSleep {
        SimulatedSleep { due, timer: None }
    }
}

impl Future for SimulatedSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let world = here();
        if world.now.get() >= self.due {
            return Poll::Ready(());
        }
        let due = self.due;
        let timer = *self.timer.get_or_insert_with(|| (due, world.number()));
        world.timers.borrow_mut().insert(timer, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for SimulatedSleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer
            && is_here()
        {
            let waiting = here().timers.borrow_mut().remove(&timer);
            drop(waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{blocking, within};
    use super::*;

    /// Ten tasks on three machines that sleep, work and tell; one machine loses power in the middle.
    fn history(seed: u64) -> Vec<(Duration, u64, u64)> {
        let told = Arc::new(Mutex::new(Vec::new()));
        let simulation = Simulation::new(seed);
        simulation.run({
            let told = told.clone();
            async move {
                for n in 0..10 {
                    let told = told.clone();
                    Simulation::spawn_on(Machine(1 + n % 3), tell(n, told));
                }
                Simulation::sleep(Duration::from_millis(500)).await;
                Simulation::cut_power(Machine(2));
                Simulation::sleep(Duration::from_secs(1)).await;
            }
        });
        std::mem::take(&mut told.lock())
    }

    async fn tell(n: u64, told: Arc<Mutex<Vec<(Duration, u64, u64)>>>) {
        loop {
            Simulation::sleep(Duration::from_millis(1 + Simulation::draw() % 100)).await;
            let worked = blocking(Simulation::draw).await.unwrap();
            told.lock().push((Simulation::elapsed(), n, worked));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_history_and_another_gives_another() {
        assert_eq!(history(7), history(7));
        assert_ne!(history(7), history(8));
    }

    #[test]
    fn a_machine_without_power_does_nothing_and_the_others_go_on() {
        let cut = Duration::from_millis(1_500);
        let late: Vec<u64> = history(1).into_iter().filter(|(at, ..)| *at > cut).map(|(_, n, _)| n).collect();
        assert!(!late.is_empty() && late.iter().all(|n| 1 + n % 3 != 2), "{late:?}");
    }

    #[test]
    fn hours_pass_in_no_time_and_waiting_ends_in_time() {
        let begun = std::time::Instant::now();
        let done = Simulation::new(1).run(async {
            let hour = Duration::from_secs(3600);
            let late = within(hour, Simulation::sleep(2 * hour)).await;
            let in_time = within(2 * hour, Simulation::sleep(hour)).await;
            (late, in_time, Simulation::elapsed())
        });
        assert_eq!(done, (None, Some(()), Duration::from_secs(7201)));
        assert!(begun.elapsed() < Duration::from_secs(600), "the clock of the machine plays no part");
    }

    #[test]
    #[should_panic(expected = "nothing will happen any more")]
    fn what_waits_for_ever_is_said() {
        Simulation::new(1).run(std::future::pending::<()>());
    }
}
