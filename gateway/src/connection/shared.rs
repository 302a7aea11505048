//! The side of a connection that others hold: replies, pushes and orders are left here for its driver.
//!
//! What always holds: whatever is queued while the queue is empty wakes the driver, so nothing waits unseen; once the
//! connection is closing nothing more is queued; nobody ever waits while holding the lock.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use fanout::Fault;
use futures::task::AtomicWaker;
use logstore::id::{ConnectionId, UserId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::feed::Feed;
use crate::wire::convert;
use crate::wire::frame::{self, FLAG_ERROR, FLAG_PUSH, FLAG_RESPONSE};
use crate::wire::operation::Operation;

/// An empty buffer larger than this is given back when its connection is quiet.
pub(super) const QUIET_BUFFER_BYTES: usize = 4096;

/// A connection as everybody but its driver sees it.
pub struct Connection {
    id: ConnectionId,
    shared: Mutex<Shared>,
    driver: AtomicWaker,
    room: Notify,
    requests: AtomicUsize,
    request_bytes: AtomicUsize,
    paused: AtomicBool,
    who: OnceLock<SignedIn>,
    rounds: tokio::sync::Mutex<()>,
}

/// Who a connection acts for since its `hello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// The account.
    pub user: UserId,
    /// Whether it follows the tails.
    pub attached: bool,
    /// Whether missed records are wanted too, or only rows.
    pub bodies: bool,
}

/// What is behind the lock.
#[derive(Default)]
pub struct Shared {
    /// Frames that the driver has not taken yet.
    pub out: BytesMut,
    /// Present once attached.
    pub feed: Option<Box<Feed>>,
    /// The client does not want to hear of receipts.
    pub without_receipts: bool,
    closing: bool,
    draining: bool,
}

/// What a driver finds when it looks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Orders {
    /// Close once everything is written.
    pub(super) close: bool,
    /// Begin nothing new.
    pub(super) drain: bool,
    /// A reader that lagged has drained.
    pub(super) catch_up: bool,
}

impl Connection {
    /// A connection with nothing queued.
    pub fn new(id: ConnectionId) -> Connection {
        Connection {
            id,
            shared: Mutex::default(),
            driver: AtomicWaker::new(),
            room: Notify::new(),
            requests: AtomicUsize::new(0),
            request_bytes: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            who: OnceLock::new(),
            rounds: tokio::sync::Mutex::default(),
        }
    }

    /// Its id.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Says once who speaks here.
    pub fn sign_in(&self, who: SignedIn) {
        let _ = self.who.set(who);
    }

    /// Who speaks here, after `hello`.
    pub fn who(&self) -> Option<SignedIn> {
        self.who.get().copied()
    }

    /// Held while announcements are made: one run of rounds at a time.
    pub async fn rounds(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.rounds.lock().await
    }

    /// Changes what is shared; `None` if the connection is closing. Keep it short: deliveries wait meanwhile.
    pub fn update<R>(&self, act: impl FnOnce(&mut Shared) -> R) -> Option<R> {
        let mut shared = self.shared.lock();
        if shared.closing {
            return None;
        }
        let was_empty = shared.out.is_empty();
        let result = act(&mut shared);
        let wake = was_empty && !shared.out.is_empty();
        drop(shared);
        if wake {
            self.driver.wake();
        }
        Some(result)
    }

    /// Answers a request.
    pub fn reply(&self, operation: u16, request_id: u32, write: impl FnOnce(&mut BytesMut)) {
        self.update(|shared| frame::encode_with(&mut shared.out, FLAG_RESPONSE, operation, request_id, write));
    }

    /// Refuses a request.
    pub fn refuse(&self, operation: u16, request_id: u32, fault: &Fault) {
        let flags = FLAG_RESPONSE | FLAG_ERROR;
        let error = convert::error(fault);
        self.update(|shared| frame::encode(&mut shared.out, flags, operation, request_id, &error));
    }

    /// Says something unasked.
    pub fn push(&self, operation: Operation, body: &impl prost::Message) {
        self.update(|shared| frame::encode(&mut shared.out, FLAG_PUSH, operation.number(), 0, body));
    }

    /// Ends the connection once what is queued is read; the last of it says why.
    pub fn close(&self, why: Option<&Fault>) {
        if let Some(fault) = why {
            self.push(Operation::Closing, &convert::error(fault));
        }
        self.update(|shared| {
            shared.closing = true;
            shared.feed = None;
        });
        self.room.notify_waiters();
        self.driver.wake();
    }

    /// Tells the client to go elsewhere; from now on nothing new is begun.
    pub fn drain(&self, farewell: &crate::wire::proto::Drain) {
        self.push(Operation::Drain, farewell);
        self.update(|shared| shared.draining = true);
        self.driver.wake();
    }

    /// A request is begun; it is in flight until the guard is dropped.
    pub fn begin(self: &Arc<Self>, bytes: usize) -> InFlight {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.request_bytes.fetch_add(bytes, Ordering::Relaxed);
        InFlight { connection: Arc::clone(self), bytes }
    }

    /// Requests in flight.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }

    /// Whether less is in flight than given. If not, the driver is woken when something ends.
    pub(super) fn takes_requests(&self, requests_max: usize, bytes_max: usize) -> bool {
        let takes = || {
            self.requests.load(Ordering::SeqCst) < requests_max && self.request_bytes.load(Ordering::SeqCst) < bytes_max
        };
        if takes() {
            return true;
        }
        self.paused.store(true, Ordering::SeqCst);
        // What ended between the two looks has not seen the flag.
        takes()
    }

    /// Waits until a backlog may be queued; `false`: the connection is closing.
    pub async fn room(&self) -> bool {
        loop {
            let mut drained = std::pin::pin!(self.room.notified());
            drained.as_mut().enable();
            match self.update(|shared| shared.feed.as_ref().is_none_or(|feed| feed.has_room(shared.out.len()))) {
                None => return false,
                Some(true) => return true,
                Some(false) => drained.await,
            }
        }
    }

    /// Where the driver is to be woken; to be called before it looks.
    pub(super) fn watch(&self, driver: &std::task::Waker) {
        self.driver.register(driver);
    }

    /// Hands what is queued to the driver, whose own buffer is empty, and tells it what others want.
    pub(super) fn collect(&self, empty: &mut BytesMut) -> Orders {
        debug_assert!(empty.is_empty());
        let mut shared = self.shared.lock();
        std::mem::swap(&mut shared.out, empty);
        let mut orders = Orders { close: shared.closing, drain: shared.draining, catch_up: false };
        if let Some(feed) = &mut shared.feed {
            orders.catch_up = feed.drained(empty.len()) == super::feed::Then::CatchUp;
            let waited_for = !empty.is_empty();
            drop(shared);
            if waited_for {
                self.room.notify_waiters();
            }
        }
        orders
    }

    /// Bytes the driver has not taken yet.
    pub(super) fn queued_bytes(&self) -> usize {
        self.shared.lock().out.len()
    }

    /// Gives back the memory of an empty queue.
    pub(super) fn rest(&self) {
        let mut shared = self.shared.lock();
        if shared.out.is_empty() && shared.out.capacity() > QUIET_BUFFER_BYTES {
            shared.out = BytesMut::new();
        }
    }

    /// The driver has gone: nothing more is queued, what was is dropped.
    pub(super) fn end(&self) {
        self.close(None);
        self.shared.lock().out = BytesMut::new();
    }
}

/// A request in flight.
pub struct InFlight {
    connection: Arc<Connection>,
    bytes: usize,
}

impl InFlight {
    /// The connection it came over.
    pub fn connection_id(&self) -> ConnectionId {
        self.connection.id
    }

    /// Answers the request, which ends with it: first the answer is queued, then nothing is in flight any more, so that a
    /// drain, which waits for what is in flight, does not close the connection in between.
    pub fn reply(self, operation: u16, request_id: u32, write: impl FnOnce(&mut BytesMut)) {
        self.connection.reply(operation, request_id, write);
    }

    /// Refuses the request; the same holds.
    pub fn refuse(self, operation: u16, request_id: u32, fault: &Fault) {
        self.connection.refuse(operation, request_id, fault);
    }

    /// Answers the request and does what else is to be done in the same moment; the same holds.
    pub fn finish(self, act: impl FnOnce(&mut Shared)) {
        self.connection.update(act);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.connection.requests.fetch_sub(1, Ordering::SeqCst);
        self.connection.request_bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        if self.connection.paused.load(Ordering::SeqCst) && self.connection.paused.swap(false, Ordering::SeqCst) {
            self.connection.driver.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn watched(connection: &Connection) -> Arc<Woken> {
        let woken = Arc::new(Woken::default());
        connection.watch(&Waker::from(Arc::clone(&woken)));
        woken
    }

    #[test]
    fn only_what_is_queued_first_wakes_the_driver() {
        let connection = Connection::new(ConnectionId(1));
        let woken = watched(&connection);
        connection.reply(2, 1, |_| {});
        connection.reply(2, 2, |_| {});
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        let mut taken = BytesMut::new();
        connection.collect(&mut taken);
        assert_eq!(taken.len(), 2 * frame::HEADER_BYTES);
    }

    #[test]
    fn a_closing_connection_takes_nothing_more_but_gives_what_it_has() {
        let connection = Connection::new(ConnectionId(1));
        let woken = watched(&connection);
        connection.close(Some(&Fault::new(fanout::Code::Draining, "bye")));
        assert!(woken.0.load(Ordering::SeqCst) > 0);
        connection.reply(2, 1, |_| {});
        let mut taken = BytesMut::new();
        assert!(connection.collect(&mut taken).close);
        let frame = frame::decode(&mut taken, frame::SERVER_FRAME_BYTES_MAX).unwrap().unwrap();
        assert_eq!(frame.header.operation, Operation::Closing.number());
        assert!(taken.is_empty());
    }

    #[test]
    fn a_request_is_in_flight_until_its_answer_is_queued() {
        // A drain closes connections with nothing in flight: what is queued after that is lost.
        let connection = Arc::new(Connection::new(ConnectionId(1)));
        let in_flight = || connection.requests();
        connection.begin(10).reply(2, 1, |_| assert_eq!(in_flight(), 1));
        connection.begin(10).finish(|_| assert_eq!(in_flight(), 1));
        assert_eq!(in_flight(), 0);
        let queued = |connection: &Connection| connection.queued_bytes();
        let before = queued(&connection);
        connection.begin(10).refuse(2, 1, &Fault::new(fanout::Code::Draining, "bye"));
        assert!(queued(&connection) > before && in_flight() == 0);
    }

    #[test]
    fn the_end_of_a_request_wakes_a_driver_that_paused_for_it() {
        let connection = Arc::new(Connection::new(ConnectionId(1)));
        let woken = watched(&connection);
        let (first, second) = (connection.begin(10), connection.begin(10));
        assert!(connection.takes_requests(3, 100));
        drop(first);
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        assert!(!connection.takes_requests(1, 100) && !connection.takes_requests(9, 10));
        drop(second);
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert_eq!(connection.requests(), 0);
    }
}
