//! Where all clients write down what happens to them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use logstore::id::{ClientMsgId, ConversationId, SeqId, UserId};
use parking_lot::Mutex;

use super::history::{EVENTS_MAX, Event, Fault, History, Op};

/// Shared by all that take part.
pub struct Recorder {
    began: Instant,
    history: Mutex<History>,
    is_full: AtomicBool,
    disturbances: AtomicU64,
}

impl Recorder {
    /// Time begins now.
    pub fn new(shards: u16) -> Recorder {
        Recorder {
            began: Instant::now(),
            history: Mutex::new(History { shards, ..History::default() }),
            is_full: AtomicBool::new(false),
            disturbances: AtomicU64::new(0),
        }
    }

    /// Since the run began.
    pub fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Notes an event now.
    pub fn note(&self, user: UserId, conversation: ConversationId, id: ClientMsgId, seq_id: SeqId, op: Op) {
        let mut history = self.history.lock();
        if history.events.len() >= EVENTS_MAX {
            // Whatever comes now would be judged without what is missing.
            return self.is_full.store(true, Ordering::Relaxed);
        }
        let t_ns = self.now_ns();
        history.events.push(Event { t_ns, user, conversation, client_msg_id: id, seq_id, op });
    }

    /// Notes a fault.
    pub fn note_fault(&self, fault: Fault) {
        self.history.lock().faults.push(fault);
    }

    /// The load ends now.
    pub fn end_load(&self) {
        self.history.lock().end_ns = self.now_ns();
    }

    /// A fault begins or ends: whatever is on its way may travel twice.
    pub fn disturb(&self) {
        self.disturbances.fetch_add(1, Ordering::SeqCst);
    }

    /// How often. A refusal is final only if this was the same when the message was sent: else an earlier attempt of it may still be
    /// on its way.
    pub fn disturbances(&self) -> u64 {
        self.disturbances.load(Ordering::SeqCst)
    }

    /// How many events there are; `None`: more than there is room for.
    pub fn events(&self) -> Option<usize> {
        (!self.is_full.load(Ordering::Relaxed)).then(|| self.history.lock().events.len())
    }

    /// Gives the history away.
    pub fn take(&self) -> History {
        std::mem::take(&mut *self.history.lock())
    }
}
