//! The way of a request's messages to their shards and back.
//!
//! The fast way is one proposal a shard and no task. The slow way is for requests with a message to a 1:1 that is not
//! open yet: a task opens it, then proposes. What always holds: proposals of one connection are made in the order its
//! requests came, so that a message never overtakes an earlier one of the same conversation; while a slow request is
//! under way, later ones of its connection queue behind it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use logstore::id::{ConnectionId, ConversationId, ConversationName, UserId};
use parking_lot::Mutex;
use sequencer::{Command, Outcome, PipelineSlot, Proposal, ProposalResult, Shard};
use smallvec::SmallVec;

use super::message::{Outgoing, SendOutcome};
use super::open_direct::OpenDirects;
use super::{Core, no_such_conversation};
use crate::{Code, Fault};

/// Called once with one outcome a message, in order.
pub type Done = Box<dyn FnOnce(Vec<SendOutcome>) + Send>;

/// A request on its way.
struct Request {
    sender: UserId,
    origin: ConnectionId,
    messages: Vec<Outgoing>,
    done: Done,
}

/// Proposes messages.
pub(super) struct Sender {
    core: Arc<Core>,
    opens: Arc<OpenDirects>,
    /// Requests behind a slow one, by connection; an entry is there exactly while its task runs.
    slow: Mutex<HashMap<ConnectionId, VecDeque<Request>>>,
    /// Entries of `slow`, so that the fast way asks for no lock.
    slow_connections: AtomicUsize,
}

impl Sender {
    pub fn new(core: Arc<Core>, opens: Arc<OpenDirects>) -> Sender {
        Sender { core, opens, slow: Mutex::new(HashMap::new()), slow_connections: AtomicUsize::new(0) }
    }

    /// Sends one request's messages; see [`super::Messages::send`].
    pub fn send(self: &Arc<Self>, sender: UserId, origin: ConnectionId, messages: Vec<Outgoing>, done: Done) {
        let request = Request { sender, origin, messages, done };
        let Some(request) = self.queue_behind(request) else { return };
        if self.opens.all_open(&self.core, directs(&request.messages)) {
            self.propose(request);
        } else {
            self.start_slow(request);
        }
    }

    /// Queues a request if its connection has a slow one under way; gives it back if not.
    fn queue_behind(&self, request: Request) -> Option<Request> {
        // A connection sends from one task: if its own entry was made, this sees the count that was raised before.
        if self.slow_connections.load(Ordering::Acquire) == 0 {
            return Some(request);
        }
        let mut slow = self.slow.lock();
        let Some(queue) = slow.get_mut(&request.origin) else { return Some(request) };
        if (queue.len() as u64) < self.core.limits.requests_in_flight {
            queue.push_back(request);
            return None;
        }
        drop(slow);
        let busy = Fault::from(sequencer::Capacity::QueueFull);
        (request.done)(vec![Err(busy); request.messages.len()]);
        None
    }

    fn start_slow(self: &Arc<Self>, request: Request) {
        match self.slow.lock().entry(request.origin) {
            // Only requests without a connection can meet here; they have no order among each other.
            Entry::Occupied(mut queue) => return queue.get_mut().push_back(request),
            Entry::Vacant(new) => new.insert(VecDeque::new()),
        };
        self.slow_connections.fetch_add(1, Ordering::Release);
        tokio::spawn(Arc::clone(self).run_slow(request));
    }

    /// Works off a connection's requests until none is queued.
    async fn run_slow(self: Arc<Self>, first: Request) {
        let origin = first.origin;
        let mut next = Some(first);
        while let Some(request) = next {
            self.open_and_propose(request).await;
            next = self.next_slow(origin);
        }
    }

    fn next_slow(&self, origin: ConnectionId) -> Option<Request> {
        let mut slow = self.slow.lock();
        let next = slow.get_mut(&origin).and_then(VecDeque::pop_front);
        if next.is_none() {
            slow.remove(&origin);
            self.slow_connections.fetch_sub(1, Ordering::Release);
        }
        next
    }

    /// Opens what is not open, then proposes.
    ///
    /// A 1:1 that cannot be opened for good is proposed nevertheless: apply refuses it, so that the message keeps its
    /// place and what follows is not stopped. One that could not be opened this time is not proposed: the proposer then
    /// refuses what follows it in that conversation, until the client begins anew.
    async fn open_and_propose(self: &Arc<Self>, request: Request) {
        let mut failed: HashMap<ConversationId, Fault> = HashMap::new();
        let named: Vec<ConversationId> = directs(&request.messages).collect();
        let not_open = match self.opens.not_open(&self.core, named.iter().copied()).await {
            Ok(not_open) => not_open,
            Err(fault) => {
                failed.extend(named.into_iter().map(|conversation| (conversation, fault.clone())));
                Vec::new()
            }
        };
        for conversation in not_open {
            let Some(ConversationName::Direct(low, high)) = conversation.name() else { continue };
            let peer = if low == request.sender { high } else { low };
            if let Err(fault) = self.opens.open(&self.core, request.sender, peer).await {
                failed.insert(conversation, fault);
            }
        }
        if failed.is_empty() { self.propose(request) } else { self.propose_rest(request, failed) }
    }

    /// Proposes what can be; the others are answered with why not.
    fn propose_rest(&self, request: Request, failed: HashMap<ConversationId, Fault>) {
        let Request { sender, origin, messages, done } = request;
        let conversations: Vec<ConversationId> = messages.iter().map(|m| m.conversation).collect();
        let held_back = |c: &ConversationId| failed.get(c).filter(|fault| !fault.retry_after.is_zero()).cloned();
        let held: Vec<Option<Fault>> = conversations.iter().map(held_back).collect();
        let proposed = messages.into_iter().zip(&held).filter(|(_, held)| held.is_none()).map(|(m, _)| m).collect();
        let merge = move |outcomes: Vec<SendOutcome>| {
            let mut outcomes = outcomes.into_iter();
            let all = conversations.iter().zip(held).map(|(conversation, held)| match held {
                Some(fault) => Err(fault),
                None => explain(outcomes.next(), failed.get(conversation)),
            });
            done(all.collect());
        };
        self.propose(Request { sender, origin, messages: proposed, done: Box::new(merge) });
    }

    /// Makes one proposal a shard.
    fn propose(&self, request: Request) {
        let Request { sender, origin, messages, done } = request;
        let mut parts = self.split(sender, origin, messages);
        match parts.len() {
            0 => done(Vec::new()),
            1 => {
                let part = parts.remove(0);
                part.propose(|_, results| done(results.into_iter().map(outcome).collect()));
            }
            count => {
                let messages = parts.iter().map(|part| part.commands.len()).sum();
                let answer = Arc::new(Answer::new(messages, count, done));
                for part in parts {
                    let answer = Arc::clone(&answer);
                    part.propose(move |positions, results| answer.add(&positions, results));
                }
            }
        }
    }

    fn split(&self, sender: UserId, origin: ConnectionId, messages: Vec<Outgoing>) -> SmallVec<[Part<'_>; 4]> {
        let mut parts: SmallVec<[Part; 4]> = SmallVec::new();
        let count = messages.len();
        for (position, message) in messages.into_iter().enumerate() {
            let shard = self.core.shard_of(message.conversation);
            let known = parts.iter().position(|part| Arc::ptr_eq(part.shard, shard));
            let at = known.unwrap_or_else(|| {
                parts.push(Part::new(shard, count - position));
                parts.len() - 1
            });
            parts[at].push(position as u32, sender, origin, message);
        }
        parts
    }
}

/// The 1:1s among the addressees; runs of one conversation count once.
fn directs(messages: &[Outgoing]) -> impl Iterator<Item = ConversationId> {
    let mut previous = ConversationId(0);
    messages.iter().map(|m| m.conversation).filter(move |&conversation| {
        let repeated = std::mem::replace(&mut previous, conversation) == conversation;
        !repeated && matches!(conversation.name(), Some(ConversationName::Direct(..)))
    })
}

/// Messages of one request for one shard.
struct Part<'a> {
    shard: &'a Arc<Shard>,
    commands: Vec<Command>,
    pipeline: Vec<PipelineSlot>,
    positions: Vec<u32>,
}

impl<'a> Part<'a> {
    fn new(shard: &'a Arc<Shard>, capacity: usize) -> Part<'a> {
        Part {
            shard,
            commands: Vec::with_capacity(capacity),
            pipeline: Vec::with_capacity(capacity),
            positions: Vec::with_capacity(capacity),
        }
    }

    fn push(&mut self, position: u32, sender: UserId, origin: ConnectionId, message: Outgoing) {
        let Outgoing { conversation, client_msg_id, kind, body, epoch, n } = message;
        let body_hash = sequencer::Send::hash_of(kind, &body);
        self.commands.push(Command::Send(sequencer::Send {
            conversation,
            sender,
            origin,
            client_msg_id,
            kind,
            body_hash,
            checked_upto: 0,
            body,
        }));
        self.pipeline.push(PipelineSlot { connection: origin, epoch, n });
        self.positions.push(position);
    }

    fn propose(self, answer: impl FnOnce(Vec<u32>, ProposalResult) + Send + 'static) {
        let Part { shard, commands, pipeline, positions } = self;
        let reply = Box::new(move |results| answer(positions, results));
        shard.propose(Proposal { commands, pipeline, reply });
    }
}

/// The outcomes of a request that went to several shards, until all are there.
struct Answer {
    gathered: Mutex<Gathered>,
}

struct Gathered {
    outcomes: Vec<SendOutcome>,
    missing_parts: usize,
    done: Option<Done>,
}

impl Answer {
    fn new(messages: usize, parts: usize, done: Done) -> Answer {
        // Replaced before anybody sees it: every position is in exactly one part.
        let unanswered = Err(Fault { code: Code::Internal, message: String::new(), retry_after: Default::default() });
        let gathered = Gathered { outcomes: vec![unanswered; messages], missing_parts: parts, done: Some(done) };
        Answer { gathered: Mutex::new(gathered) }
    }

    fn add(&self, positions: &[u32], results: ProposalResult) {
        let mut gathered = self.gathered.lock();
        for (&position, result) in positions.iter().zip(results) {
            gathered.outcomes[position as usize] = outcome(result);
        }
        gathered.missing_parts -= 1;
        if gathered.missing_parts > 0 {
            return;
        }
        let (outcomes, done) = (std::mem::take(&mut gathered.outcomes), gathered.done.take());
        drop(gathered);
        if let Some(done) = done {
            done(outcomes);
        }
    }
}

fn outcome(result: Result<Outcome, sequencer::Capacity>) -> SendOutcome {
    match result {
        Ok(Outcome::Sent(stored)) => Ok(stored),
        Ok(Outcome::Refused(refusal)) => Err(refusal.into()),
        Ok(other) => Err(super::account::unexpected(&other)),
        Err(capacity) => Err(capacity.into()),
    }
}

/// The outcome of a message to a 1:1 that could not be opened: why it could not, in place of its not being there.
fn explain(outcome: Option<SendOutcome>, why: Option<&Fault>) -> SendOutcome {
    let not_there = |fault: &Fault| matches!(fault.code, Code::NoSuchConversation | Code::NotMember);
    match (outcome.unwrap_or_else(|| Err(no_such_conversation())), why) {
        (Err(fault), Some(why)) if not_there(&fault) => Err(why.clone()),
        (outcome, _) => outcome,
    }
}
