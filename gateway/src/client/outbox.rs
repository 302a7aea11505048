//! The rules of sending, without IO: messages leave in the order given, in batches, several under way; whatever was
//! not taken goes again in that order, under the same ids, in a new epoch.
//!
//! What always holds: a message is settled once, with its place or with a refusal that repeating does not change; of
//! one conversation, messages are stored in the order in which they were given; nothing new leaves while something
//! waits to be repeated, and nothing is repeated before everything under way is answered.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Outgoing, SendOutcome};
use crate::wire::frame::{CLIENT_FRAME_BYTES_MAX, HEADER_BYTES};

/// Bytes of a `Send` besides its messages.
const SEND_BYTES_MAX: usize = HEADER_BYTES + 16;

/// How batches are cut.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Messages in one.
    pub messages_max: usize,
    /// Bytes of its frame.
    pub frame_bytes_max: usize,
    /// Batches without an answer.
    pub in_flight_max: usize,
}

impl Default for BatchLimits {
    fn default() -> BatchLimits {
        BatchLimits { messages_max: 256, frame_bytes_max: CLIENT_FRAME_BYTES_MAX, in_flight_max: 8 }
    }
}

/// Messages to send in one request.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Names it in [`Outbox::answered`].
    pub id: u64,
    /// The pipeline's epoch.
    pub epoch: u32,
    /// In order.
    pub messages: Vec<Outgoing>,
}

/// Messages that are not settled, each with what its owner wants back (`T`).
pub struct Outbox<T> {
    waiting: VecDeque<Entry<T>>,
    in_flight: BTreeMap<u64, Vec<Entry<T>>>,
    /// Not taken; goes again once nothing is under way.
    again: Vec<Entry<T>>,
    resume_at_ms: u64,
    epoch: u32,
    next_place: u64,
    next_batch: u64,
}

struct Entry<T> {
    place: u64,
    message: Outgoing,
    owner: T,
}

/// A message that is done with.
pub struct Settled<T> {
    /// What was sent.
    pub message: Outgoing,
    /// What its owner gave.
    pub owner: T,
    /// What became of it.
    pub outcome: SendOutcome,
}

impl<T> Default for Outbox<T> {
    fn default() -> Outbox<T> {
        Outbox {
            waiting: VecDeque::new(),
            in_flight: BTreeMap::new(),
            again: Vec::new(),
            resume_at_ms: 0,
            epoch: 1,
            next_place: 0,
            next_batch: 0,
        }
    }
}

impl<T> Outbox<T> {
    /// Takes a message behind all others.
    pub fn push(&mut self, message: Outgoing, owner: T) {
        self.waiting.push_back(Entry { place: self.next_place, message, owner });
        self.next_place += 1;
    }

    /// Messages that are not settled.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.again.len() + self.in_flight.values().map(Vec::len).sum::<usize>()
    }

    /// Whether everything is settled.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.again.is_empty() && self.in_flight.is_empty()
    }

    /// The next batch to send, if one may leave now.
    pub fn take_batch(&mut self, limits: BatchLimits, now_ms: u64) -> Option<Batch> {
        if !self.again.is_empty() && self.in_flight.is_empty() {
            self.begin_again();
        }
        let blocked = !self.again.is_empty() || self.in_flight.len() >= limits.in_flight_max.max(1);
        if blocked || self.waiting.is_empty() || now_ms < self.resume_at_ms {
            return None;
        }
        let entries = self.cut(limits);
        let id = self.next_batch;
        self.next_batch += 1;
        let messages = entries.iter().map(|entry| entry.message.clone()).collect();
        self.in_flight.insert(id, entries);
        Some(Batch { id, epoch: self.epoch, messages })
    }

    /// When the next batch may leave, if something waits for its time.
    pub fn next_due_ms(&self) -> Option<u64> {
        let waits = self.in_flight.is_empty() && !(self.waiting.is_empty() && self.again.is_empty());
        waits.then_some(self.resume_at_ms)
    }

    /// The answer to a batch, one outcome a message; returns what is settled, in order.
    pub fn answered(&mut self, batch: u64, outcomes: Vec<SendOutcome>, now_ms: u64) -> Vec<Settled<T>> {
        let Some(entries) = self.in_flight.remove(&batch) else { return Vec::new() };
        let mut settled = Vec::with_capacity(entries.len());
        for (entry, outcome) in entries.into_iter().zip(outcomes) {
            match &outcome {
                Err(refusal) if refusal.is_of_the_moment() => self.put_back(entry, refusal.retry_after, now_ms),
                _ => settled.push(Settled { message: entry.message, owner: entry.owner, outcome }),
            }
        }
        settled
    }

    /// A batch was refused as a whole, for the moment.
    pub fn postponed(&mut self, batch: u64, retry_after: Duration, now_ms: u64) {
        for entry in self.in_flight.remove(&batch).unwrap_or_default() {
            self.put_back(entry, retry_after, now_ms);
        }
    }

    /// The connection ended: what was under way goes again on the next, where nothing is known of this one's epochs.
    pub fn disconnected(&mut self) {
        for entries in std::mem::take(&mut self.in_flight).into_values() {
            self.again.extend(entries);
        }
        self.resume_at_ms = 0;
    }

    /// Gives everything up; returns the owners.
    pub fn abandon(&mut self) -> Vec<T> {
        self.disconnected();
        self.again.drain(..).chain(self.waiting.drain(..)).map(|entry| entry.owner).collect()
    }

    fn put_back(&mut self, entry: Entry<T>, retry_after: Duration, now_ms: u64) {
        self.resume_at_ms = self.resume_at_ms.max(now_ms + retry_after.as_millis() as u64);
        self.again.push(entry);
    }

    /// Puts what was not taken before what waits, in the order given, in a new epoch.
    fn begin_again(&mut self) {
        self.epoch += 1;
        self.again.sort_unstable_by_key(|entry| entry.place);
        for entry in self.again.drain(..).rev() {
            self.waiting.push_front(entry);
        }
    }

    /// As many of those that wait as fit; one at least, so that one too large is refused rather than stuck.
    fn cut(&mut self, limits: BatchLimits) -> Vec<Entry<T>> {
        let mut bytes = SEND_BYTES_MAX;
        let mut count = 0;
        for entry in self.waiting.iter().take(limits.messages_max.max(1)) {
            bytes += entry.message.wire_bytes_max();
            if count > 0 && bytes > limits.frame_bytes_max {
                break;
            }
            count += 1;
        }
        self.waiting.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests;
