//! The task behind a proposer's door: judges what has queued, makes entries of it and hands them to Raft.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;
use logstore::id::{BodyHash, ConnectionId, TimeMs};
use logstore::{Journal, Refused};

use crate::raft::group::{Group, leader_of};
use crate::raft::types::{OnComplete, Payload};
use crate::shard::answer::{Answer, Ticket};
use crate::shard::core::ShardCore;
use crate::shard::look_up::may_be_refused_for_now;
use crate::shard::pipeline::{Pipelines, Verdict};
use crate::shard::proposer::changes::{Changes, Found};
use crate::shard::proposer::in_flight::{InFlight, Undecided};
use crate::shard::proposer::old_ids::{LookedUp, NotNow, OldId, OldIds};
use crate::shard::proposer::work::Work;
use crate::shard::proposer::{News, Proposer};
use crate::shard::{Capacity, PipelineSlot};
use crate::state::repeated_recall;
use crate::{BatchBuilder, Clock, Command, GroupChange, Outcome, Recall, Refusal, Send, Stored, encoded_len};

/// Runs one shard's proposer.
pub(crate) struct ProposerTask {
    proposer: Arc<Proposer>,
    core: Arc<ShardCore>,
    group: Group,
    journal: Journal,
    clock: Arc<dyn Clock>,
    pipelines: Pipelines,
    old_ids: OldIds,
    changes: Changes,
    pending: VecDeque<Work>,
    /// What waits for an undecided message of its connection, in order.
    held: HashMap<ConnectionId, VecDeque<Work>>,
    builder: BatchBuilder,
    /// Why clients are refused for now: so much is not sealed that they have to wait, or entries of the log are lost.
    refusal: Option<Capacity>,
    closed: bool,
}

/// The entry being made.
struct Making {
    builder: BatchBuilder,
    tickets: Vec<Ticket>,
    undecided: Vec<Undecided>,
    bytes_max: usize,
    time: TimeMs,
}

/// What becomes of a command now.
enum Judgement {
    Take,
    /// Into the entry, and nothing after it before it is decided.
    TakeUndecided,
    Answer(Answer),
    Hold,
}

impl ProposerTask {
    /// The task for `proposer`.
    pub(crate) fn new(
        proposer: Arc<Proposer>,
        core: Arc<ShardCore>,
        group: Group,
        journal: Journal,
        clock: Arc<dyn Clock>,
    ) -> ProposerTask {
        ProposerTask {
            proposer,
            core,
            group,
            journal,
            clock,
            pipelines: Pipelines::default(),
            old_ids: OldIds::default(),
            changes: Changes::default(),
            pending: VecDeque::new(),
            held: HashMap::new(),
            builder: BatchBuilder::new(),
            refusal: None,
            closed: false,
        }
    }

    /// Proposes until closed, then waits for what is in flight. What never got so far is refused.
    pub(crate) async fn run(mut self) {
        loop {
            self.hear();
            self.fetch();
            if self.closed {
                break;
            }
            if self.pending.is_empty() {
                self.rest().await;
            } else if self.is_full() {
                self.proposer.wake.notified().await;
            } else if let Some((entry, term)) = self.make_entry() {
                self.hand_over(entry, term).await;
            }
        }
        self.refuse_all(Capacity::NotLeading);
        while self.proposer.in_flight.load(Ordering::Acquire) > 0 {
            self.proposer.wake.notified().await;
        }
    }

    fn is_full(&self) -> bool {
        self.proposer.in_flight.load(Ordering::Acquire) >= self.proposer.limits.entries_in_flight
    }

    /// Sleeps until there is something to do; a proposal that came meanwhile is seen.
    async fn rest(&mut self) {
        self.proposer.idle.store(true, Ordering::SeqCst);
        let quiet = self.proposer.queue.lock().waiting.is_empty();
        if quiet {
            self.proposer.wake.notified().await;
        }
        self.proposer.idle.store(false, Ordering::SeqCst);
    }

    fn fetch(&mut self) {
        let mut queue = self.proposer.queue.lock();
        self.closed |= queue.closed;
        self.pending.extend(queue.waiting.drain(..).map(Work::of));
    }

    fn hear(&mut self) {
        let news = std::mem::take(&mut *self.proposer.news.lock());
        for news in news {
            match news {
                News::Decided(slot, conversation) => {
                    self.pipelines.decided(slot, conversation);
                    self.resume(slot.connection);
                }
                News::Ended(slot, conversation) => {
                    self.pipelines.end(slot, conversation);
                    self.resume(slot.connection);
                }
                News::Closed(connection) => self.pipelines.forget(connection),
                News::LookedUp(id, connection, answer) => {
                    self.old_ids.read(id, answer);
                    self.resume(connection);
                }
                News::FoundOfChange(id, connection, answer) => {
                    self.changes.read(id, answer);
                    self.resume(connection);
                }
            }
        }
    }

    /// What was held of a connection is judged again, before anything that came after it.
    fn resume(&mut self, connection: ConnectionId) {
        for work in self.held.remove(&connection).unwrap_or_default().into_iter().rev() {
            self.pending.push_front(work);
        }
    }

    /// Makes one entry of what is pending; `None` if nothing of it goes into the log now.
    fn make_entry(&mut self) -> Option<(Making, u64)> {
        let Some(term) = self.group.leading_term() else {
            self.refuse_all(Capacity::NotLeading);
            return None;
        };
        let room =
            self.pending.front().map_or(0, |work| work.counted().bytes).max(self.proposer.limits.entry_bytes_max);
        if let Err(refused) = self.journal.check_room(room) {
            self.refuse_all(capacity(&refused));
            return None;
        }
        if !self.core.staging().has_room() {
            self.refuse_all(Capacity::QueueFull);
            return None;
        }
        self.refusal = self.refusal_of_clients();
        self.lead(term);
        // A clock that has fallen behind the log's time would call ids fresh that apply must call undecided.
        let time = self.clock.now().max(self.core.read().0.time());
        let mut entry = Making::new(std::mem::take(&mut self.builder), time, self.proposer.limits.entry_bytes_max);
        while let Some(work) = self.pending.pop_front() {
            if !entry.should_hold(&work) {
                self.pending.push_front(work);
                break;
            }
            if let Some(rest) = self.admit(work, &mut entry) {
                self.pending.push_front(rest);
                break;
            }
        }
        if entry.is_empty() {
            self.builder = entry.builder;
            return None;
        }
        Some((entry, term))
    }

    /// In a new term nothing is known of pipelines, and nobody waits for decisions of an earlier one.
    fn lead(&mut self, term: u64) {
        if self.pipelines.lead(term) {
            let connections: Vec<_> = self.held.keys().copied().collect();
            connections.into_iter().for_each(|connection| self.resume(connection));
        }
    }

    /// Judges the commands of a work; gives back what did not fit into the entry.
    fn admit(&mut self, mut work: Work, entry: &mut Making) -> Option<Work> {
        while let Some((command, slot)) = work.next() {
            if !entry.fits(command) {
                let (ticket, rest) = work.cut();
                entry.tickets.extend(ticket);
                return Some(rest);
            }
            match self.judge(command, slot, entry.time) {
                Judgement::Take => {
                    entry.push(command);
                    work.took();
                }
                Judgement::TakeUndecided => {
                    entry.push_undecided(command, slot);
                    work.took();
                }
                Judgement::Answer(answer) => work = work.answered(answer),
                Judgement::Hold => {
                    let (rest, held) = work.held();
                    self.held.entry(connection_of(slot)).or_default().push_back(held);
                    work = rest;
                }
            }
        }
        self.proposer.release(work.counted());
        entry.tickets.extend(work.finish());
        None
    }

    fn refusal_of_clients(&self) -> Option<Capacity> {
        if self.journal.has_lost(self.core.shard()) {
            // What is acknowledged from here on would be lost with what is.
            return Some(Capacity::Damaged);
        }
        (self.core.unsealed_bytes() > self.proposer.limits.unsealed_bytes_max).then_some(Capacity::NoSpace)
    }

    fn judge(&mut self, command: &mut Command, slot: Option<PipelineSlot>, now: TimeMs) -> Judgement {
        if let Some(refusal) = self.refusal.filter(|_| is_of_client(command)) {
            return Judgement::Answer(Err(refusal));
        }
        let send = match command {
            Command::Send(send) => send,
            Command::GroupChange(change) => return self.judge_change(change),
            Command::Recall(recall) => return self.judge_recall(recall),
            _ => return Judgement::Take,
        };
        if !self.held.is_empty() && slot.is_some_and(|slot| self.held.contains_key(&slot.connection)) {
            return Judgement::Hold;
        }
        if may_be_refused_for_now(send.client_msg_id, now) {
            return self.judge_undecided(send, slot);
        }
        match slot.map_or(Verdict::Take, |slot| self.pipelines.take(slot, send.conversation)) {
            Verdict::Take => Judgement::Take,
            Verdict::Hold => Judgement::Hold,
            Verdict::Refuse => Judgement::Answer(Err(Capacity::PredecessorFailed)),
        }
    }

    /// A message whose id is not well inside the dedup window: looked up if it is before it, and waited for.
    fn judge_undecided(&mut self, send: &mut Send, slot: Option<PipelineSlot>) -> Judgement {
        match slot.map_or(Verdict::Take, |slot| self.pipelines.judge(slot, send.conversation)) {
            Verdict::Take => {}
            Verdict::Hold => return Judgement::Hold,
            Verdict::Refuse => return Judgement::Answer(Err(Capacity::PredecessorFailed)),
        }
        let id = OldId { conversation: send.conversation, sender: send.sender, id: send.client_msg_id };
        let found = match self.look_up(id, connection_of(slot)) {
            Ok(LookedUp { checked_upto, found }) => {
                send.checked_upto = checked_upto;
                found.map(|(stored, body_hash)| repeated(send, stored, body_hash))
            }
            Err(not_now) => return not_now.into(),
        };
        if let Some(slot) = slot {
            self.pipelines.take(slot, send.conversation);
        }
        match (found, slot) {
            (Some(outcome), _) => Judgement::Answer(Ok(outcome)),
            (None, None) => Judgement::Take,
            (None, Some(slot)) => {
                self.pipelines.wait_for_decision(slot, send.conversation);
                Judgement::TakeUndecided
            }
        }
    }

    /// A change of a group has no pipeline: it is looked up if its id is old, and an heir is sought if its owner leaves.
    fn judge_change(&mut self, change: &mut GroupChange) -> Judgement {
        let id = OldId { conversation: change.group, sender: change.actor, id: change.request };
        let LookedUp { checked_upto, found } = match self.look_up(id, connection_of(None)) {
            Ok(looked_up) => looked_up,
            Err(not_now) => return not_now.into(),
        };
        match self.changes.find(&self.core, &self.proposer, (id, connection_of(None)), change, found) {
            Ok(Found::Repeated(outcome)) => Judgement::Answer(Ok(outcome.unwrap_or_else(Outcome::Refused))),
            Ok(Found::Heir(heir)) => {
                (change.checked_upto, change.heir) = (checked_upto, heir);
                Judgement::Take
            }
            Err(not_now) => not_now.into(),
        }
    }

    /// A recall is looked up if its id is old.
    fn judge_recall(&mut self, recall: &mut Recall) -> Judgement {
        let id = OldId { conversation: recall.conversation, sender: recall.actor, id: recall.request };
        match self.look_up(id, connection_of(None)) {
            Ok(LookedUp { found: Some((stored, asked)), .. }) => {
                Judgement::Answer(Ok(repeated_recall(recall, stored, asked).unwrap_or_else(Outcome::Refused)))
            }
            Ok(LookedUp { checked_upto, .. }) => {
                recall.checked_upto = checked_upto;
                Judgement::Take
            }
            Err(not_now) => not_now.into(),
        }
    }

    fn look_up(&mut self, id: OldId, connection: ConnectionId) -> Result<LookedUp, NotNow> {
        self.old_ids.look_up(&self.core, &self.proposer, id, connection, self.clock.now())
    }

    /// Hands an entry to Raft; it comes back through its callback.
    async fn hand_over(&mut self, entry: Making, term: u64) {
        let Making { mut builder, tickets, undecided, time, .. } = entry;
        let payload = builder.finish(time);
        self.builder = builder;
        let in_flight = InFlight::new(self.proposer.clone(), tickets, payload.clone(), undecided);
        let done = OnComplete::new(move |result| in_flight.complete(result));
        let write = self.group.raft().write(Payload(payload)).with_leader(leader_of(term)).responder(done);
        if let Err(error) = write.await {
            tracing::error!(shard = self.core.shard().0, %error, "Raft has stopped: the shard takes no more proposals");
            self.proposer.close();
        }
    }

    fn refuse_all(&mut self, why: Capacity) {
        self.old_ids.forget();
        self.changes.forget();
        let held = self.held.drain().flat_map(|(_, works)| works).collect::<Vec<_>>();
        for work in self.pending.drain(..).chain(held) {
            self.proposer.release(work.counted());
            work.refuse(why);
        }
    }
}

/// What shards ask of each other, and what frees room, is never refused for want of room.
fn is_of_client(command: &Command) -> bool {
    use Command::{AckEffects, Effects, Erase, Erased, Init, Merge, Probe, Seal, Trim};
    let frees_room = matches!(command, Erase { .. } | Erased { .. } | Merge { .. } | Seal | Trim { .. });
    !frees_room && !matches!(command, AckEffects { .. } | Effects { .. } | Init { .. } | Probe)
}

/// Commands without a pipeline are held together.
fn connection_of(slot: Option<PipelineSlot>) -> ConnectionId {
    slot.map_or(ConnectionId(0), |slot| slot.connection)
}

impl From<NotNow> for Judgement {
    fn from(not_now: NotNow) -> Judgement {
        match not_now {
            NotNow::Wait => Judgement::Hold,
            NotNow::Refused(why) => Judgement::Answer(Err(why)),
        }
    }
}

impl Making {
    fn new(builder: BatchBuilder, time: TimeMs, bytes_max: usize) -> Making {
        Making { builder, tickets: Vec::new(), undecided: Vec::new(), bytes_max, time }
    }

    fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// Whether a work should be in this entry. One that would be whole in the next is not begun in this one.
    fn should_hold(&self, work: &Work) -> bool {
        self.is_empty() || self.builder.len() + work.counted().bytes <= self.bytes_max
    }

    /// A command that is larger than any entry gets one of its own.
    fn fits(&self, command: &Command) -> bool {
        self.is_empty() || self.builder.len() + encoded_len(command) <= self.bytes_max
    }

    fn push(&mut self, command: &Command) {
        self.builder.add(command);
    }

    fn push_undecided(&mut self, command: &Command, slot: Option<PipelineSlot>) {
        if let (Command::Send(send), Some(slot)) = (command, slot) {
            self.undecided.push(Undecided {
                index: self.builder.count() as usize,
                slot,
                conversation: send.conversation,
            });
        }
        self.push(command);
    }
}

/// What a message is told whose id was accepted before.
fn repeated(send: &Send, stored: Stored, body_hash: BodyHash) -> Outcome {
    if send.body_hash == body_hash {
        Outcome::Sent(Stored { duplicate: true, ..stored })
    } else {
        Outcome::Refused(Refusal::IdempotencyConflict)
    }
}

fn capacity(refused: &Refused) -> Capacity {
    match refused {
        Refused::NoSpace => Capacity::NoSpace,
        Refused::QueueFull => Capacity::QueueFull,
        Refused::Stopped => Capacity::NotLeading,
    }
}
