//! A value that others wait for changes of: waiters are woken in the order in which they began to wait, so that what they do next is
//! the same every time (tokio's channel of this kind spreads them by chance).
//!
//! What always holds: whoever waits hears of a change made after it last looked, or that no sender is left; a waiter that is
//! dropped leaves nothing behind.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use openraft::OptionalSend;
use openraft::async_runtime::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

/// The channel, as openraft asks for it.
pub struct OrderedWatch;

struct Shared<T> {
    value: RwLock<T>,
    /// Counts changes; changed only while `value` is held for writing.
    version: AtomicU64,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    waiters: Mutex<Waiters>,
}

#[derive(Default)]
struct Waiters {
    next: u64,
    /// In the order in which they came.
    wakers: BTreeMap<u64, Waker>,
}

/// Changes the value.
pub struct Sender<T>(Arc<Shared<T>>);

/// Looks at the value and waits for changes.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl Watch for OrderedWatch {
    type Sender<T: OptionalSend + openraft::OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + openraft::OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = RwLockReadGuard<'a, T>;

    fn channel<T: OptionalSend + openraft::OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let shared = Arc::new(Shared {
            value: RwLock::new(init),
            version: AtomicU64::new(0),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(1),
            waiters: Mutex::default(),
        });
        (Sender(shared.clone()), Receiver { shared, seen: 0 })
    }
}

impl<T> Shared<T> {
    fn wake_all(&self) {
        let woken = std::mem::take(&mut self.waiters.lock().wakers);
        woken.into_values().for_each(Waker::wake);
    }

    /// Whether there is something to tell to one who has seen this version.
    fn news(&self, seen: u64) -> Option<Result<u64, RecvError>> {
        let version = self.version.load(Ordering::Acquire);
        if version != seen {
            return Some(Ok(version));
        }
        (self.senders.load(Ordering::Acquire) == 0).then_some(Err(RecvError(())))
    }
}

impl<T: OptionalSend + openraft::OptionalSync> WatchSender<OrderedWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.receivers.load(Ordering::Acquire) == 0 {
            return Err(SendError(value));
        }
        self.send_if_modified(|held| {
            *held = value;
            true
        });
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        let mut value = self.0.value.write();
        if !modify(&mut value) {
            return false;
        }
        self.0.version.fetch_add(1, Ordering::AcqRel);
        drop(value);
        self.0.wake_all();
        true
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.0.value.read()
    }

    fn subscribe(&self) -> Receiver<T> {
        self.0.receivers.fetch_add(1, Ordering::AcqRel);
        let value = self.0.value.read();
        let seen = self.0.version.load(Ordering::Acquire);
        drop(value);
        Receiver { shared: self.0.clone(), seen }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.0.senders.fetch_add(1, Ordering::AcqRel);
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.wake_all();
        }
    }
}

impl<T: OptionalSend + openraft::OptionalSync> WatchReceiver<OrderedWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        let mut place = Place { shared: &*self.shared, number: None };
        let seen = self.seen;
        self.seen = poll_fn(|context| place.poll(seen, context)).await?;
        Ok(())
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.shared.value.read()
    }

    fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        let value = self.shared.value.read();
        self.seen = self.shared.version.load(Ordering::Acquire);
        value
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.shared.receivers.fetch_add(1, Ordering::AcqRel);
        Receiver { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A waiter's place among the others; given up when dropped.
struct Place<'a, T> {
    shared: &'a Shared<T>,
    number: Option<u64>,
}

impl<T> Place<'_, T> {
    fn poll(&mut self, seen: u64, context: &mut Context<'_>) -> Poll<Result<u64, RecvError>> {
        // The lock is held while news are looked for: a change after that finds the waker.
        let mut waiters = self.shared.waiters.lock();
        if let Some(news) = self.shared.news(seen) {
            return Poll::Ready(news);
        }
        let number = *self.number.get_or_insert_with(|| {
            waiters.next += 1;
            waiters.next
        });
        waiters.wakers.insert(number, context.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.shared.waiters.lock().wakers.remove(&number);
        }
    }
}
