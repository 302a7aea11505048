//! The proposer of one shard: makes entries of what has queued, as long as this node leads.
//!
//! What always holds: proposals keep their order; a proposal is refused for capacity only before any of its commands is
//! in an entry, at once and never by waiting; at most `entries_in_flight` entries are on their way; every proposal is
//! answered once. One task a shard does it all ([`task`]); this file is the door to it.

mod changes;
mod in_flight;
mod old_ids;
mod task;
mod work;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use logstore::id::{ConnectionId, ConversationId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::shard::answer::Reply;
use crate::shard::proposer::changes::Found;
use crate::shard::proposer::old_ids::{LookedUp, OldId};
use crate::shard::proposer::work::Counted;
use crate::shard::{Capacity, PipelineSlot, Proposal};
use crate::{Command, encoded_len};

pub(crate) use task::ProposerTask;

/// Closed connections that may wait for an idle task to have something to do: beyond, it is woken to forget them.
const NEWS_MAX: usize = 1024;

/// Bounds of one proposer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProposerLimits {
    pub(crate) entry_bytes_max: usize,
    pub(crate) entries_in_flight: usize,
    pub(crate) queue_commands_max: usize,
    pub(crate) queue_bytes_max: usize,
    /// Bytes of entries that are in no segment, beyond which commands of clients are refused.
    pub(crate) unsealed_bytes_max: u64,
}

/// Where proposals go in.
pub(crate) struct Proposer {
    limits: ProposerLimits,
    queue: Mutex<Queue>,
    queued_commands: AtomicUsize,
    queued_bytes: AtomicUsize,
    in_flight: AtomicUsize,
    /// Whether the task sleeps because there is nothing to propose.
    idle: AtomicBool,
    wake: Notify,
    news: Mutex<Vec<News>>,
    refused: metrics::Counter,
    /// What is said when it is closed.
    closed: Capacity,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Queued>,
    closed: bool,
}

/// A proposal in the queue, and what it counts for there.
struct Queued {
    commands: Vec<Command>,
    slots: Vec<PipelineSlot>,
    reply: Reply,
    bytes: usize,
}

/// What the task has to hear before it takes another message.
enum News {
    /// The outcome of a message that may have been refused for now is final.
    Decided(PipelineSlot, ConversationId),
    /// Nothing more of the slot's epoch may be taken.
    Ended(PipelineSlot, ConversationId),
    /// The connection is closed.
    Closed(ConnectionId),
    /// An old id was looked for in segments; the connection's commands wait for it.
    LookedUp(OldId, ConnectionId, Result<LookedUp, Capacity>),
    /// Members' rows were looked at for a change of a group, which waits for it.
    FoundOfChange(OldId, ConnectionId, Result<Found, Capacity>),
}

impl Proposer {
    /// An open door; run a [`ProposerTask`] behind it.
    pub(crate) fn new(limits: ProposerLimits) -> Arc<Proposer> {
        Proposer::closing_with(limits, Capacity::NotLeading)
    }

    /// A door that stays closed.
    pub(crate) fn reads_only() -> Arc<Proposer> {
        let limits = ProposerLimits {
            entry_bytes_max: 0,
            entries_in_flight: 0,
            queue_commands_max: usize::MAX,
            queue_bytes_max: usize::MAX,
            unsealed_bytes_max: u64::MAX,
        };
        let proposer = Proposer::closing_with(limits, Capacity::ReadOnly);
        proposer.close();
        proposer
    }

    fn closing_with(limits: ProposerLimits, closed: Capacity) -> Arc<Proposer> {
        Arc::new(Proposer {
            limits,
            closed,
            queue: Mutex::default(),
            queued_commands: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            idle: AtomicBool::new(false),
            wake: Notify::new(),
            news: Mutex::default(),
            refused: metrics::counter!("skein_proposals_refused_total"),
        })
    }

    /// Bytes of entries a shard may hold that are not in segments.
    pub(crate) fn unsealed_bytes_max(&self) -> u64 {
        self.limits.unsealed_bytes_max
    }

    /// Queues a proposal, or refuses it at once.
    pub(crate) fn propose(&self, proposal: Proposal) {
        let Proposal { commands, pipeline, reply } = proposal;
        let reply = Reply::new(reply, commands.len());
        if commands.is_empty() {
            return reply.send(Vec::new());
        }
        let bytes = commands.iter().map(encoded_len).sum();
        if !self.reserve(commands.len(), bytes) {
            self.refused.increment(1);
            return reply.refuse(Capacity::QueueFull);
        }
        let refused = self.queue.lock().push(Queued { commands, slots: pipeline, reply, bytes });
        match refused {
            Some(queued) => {
                self.release(Counted { commands: queued.commands.len(), bytes: queued.bytes });
                queued.reply.refuse(self.closed);
            }
            None => self.wake_if_idle(),
        }
    }

    /// Forgets what is known of a closed connection's pipelines, when the task next has something to do.
    pub(crate) fn forget(&self, connection: ConnectionId) {
        let waiting = {
            let mut news = self.news.lock();
            news.push(News::Closed(connection));
            news.len()
        };
        if waiting >= NEWS_MAX {
            self.wake_if_idle();
        }
    }

    /// Refuses everything from now on; the task ends when nothing is in flight.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.wake.notify_one();
    }

    fn reserve(&self, commands: usize, bytes: usize) -> bool {
        let queued_commands = self.queued_commands.fetch_add(commands, Ordering::Relaxed) + commands;
        let queued_bytes = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let fits = queued_commands <= self.limits.queue_commands_max && queued_bytes <= self.limits.queue_bytes_max;
        if !fits {
            self.release(Counted { commands, bytes });
        }
        fits
    }

    fn release(&self, counted: Counted) {
        self.queued_commands.fetch_sub(counted.commands, Ordering::Relaxed);
        self.queued_bytes.fetch_sub(counted.bytes, Ordering::Relaxed);
    }

    /// A task that is busy, or waits for an entry to come back, looks at the queue by itself.
    fn wake_if_idle(&self) {
        if self.idle.swap(false, Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }

    fn tell(&self, news: impl IntoIterator<Item = News>) {
        self.news.lock().extend(news);
    }
}

impl Queue {
    /// Gives the proposal back if the queue is closed.
    fn push(&mut self, queued: Queued) -> Option<Queued> {
        if self.closed {
            return Some(queued);
        }
        self.waiting.push_back(queued);
        None
    }
}

#[cfg(test)]
mod tests;
