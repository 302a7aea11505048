//! Readiness of many sockets on one thread, and a timer finer than a millisecond.
//!
//! Level-triggered: one read a wake-up is enough, what it left over wakes again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Tokens are the caller's; this one is the timer's.
const TIMER: u64 = u64::MAX;
/// Events taken at once.
const EVENTS: usize = 1024;
/// A wait this long or longer needs no fine timer: epoll counts in milliseconds.
const COARSE: Duration = Duration::from_millis(20);

/// Watches sockets.
pub struct Poller {
    epoll: OwnedFd,
    timer: OwnedFd,
    armed: bool,
    events: Vec<Event>,
}

impl Poller {
    /// A poller that watches nothing yet.
    pub fn new() -> io::Result<Poller> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        Ok(Poller { epoll, timer, armed: false, events: Vec::with_capacity(EVENTS) })
    }

    /// Watches a socket for reading. Closing it ends that.
    pub fn add(&self, socket: impl AsFd, token: usize) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token as u64), EventFlags::IN)?)
    }

    /// Also watches for room to write, or no longer.
    pub fn watch_writing(&self, socket: impl AsFd, token: usize, on: bool) -> io::Result<()> {
        let flags = if on { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(token as u64), flags)?)
    }

    /// Waits at most `timeout`, then calls `each` with the token of every socket that is ready.
    pub fn wait(&mut self, timeout: Duration, mut each: impl FnMut(usize)) -> io::Result<()> {
        let limit = self.arm(timeout)?;
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &self.events {
            let data = event.data;
            if data.u64() != TIMER {
                each(data.u64() as usize);
            }
        }
        Ok(())
    }

    /// Sets the timer for a short wait, else stops it; gives the limit for epoll itself.
    fn arm(&mut self, timeout: Duration) -> io::Result<Timespec> {
        let fine = !timeout.is_zero() && timeout < COARSE;
        if fine || self.armed {
            let it_value = if fine { timespec(timeout) } else { timespec(Duration::ZERO) };
            let spec = Itimerspec { it_interval: timespec(Duration::ZERO), it_value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
            self.armed = fine;
        }
        Ok(timespec(if fine { COARSE } else { Duration::from_millis(timeout.as_millis() as u64) }))
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}

/// Nanoseconds of the machine's monotonic clock: one clock for all its processes.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Allows as many open files as the system lets this process have: a connection is one.
pub fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Not being allowed more is no error: opening will say so if they run out.
    let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum });
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_short_wait_ends_in_time_and_a_readable_socket_ends_it_early() {
        let mut poller = Poller::new().unwrap();
        let begun = Instant::now();
        poller.wait(Duration::from_micros(300), |_| panic!("nothing is watched")).unwrap();
        assert!(begun.elapsed() >= Duration::from_micros(300));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        poller.add(&far, 7).unwrap();
        near.write_all(b"x").unwrap();
        let mut ready = Vec::new();
        while ready.is_empty() {
            poller.wait(Duration::from_secs(5), |token| ready.push(token)).unwrap();
        }
        assert_eq!(ready, [7]);
    }
}
