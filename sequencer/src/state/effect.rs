//! Outbox and inbox: what shards ask of each other is done once, in order, also across a restart of either.
//!
//! Effects to one shard are numbered 1, 2, 3, ... within an incarnation of the sender. What always holds:
//! - the inbox applies exactly the next number, ignores old ones, refuses gaps; a newer incarnation begins at 1 again,
//!   an older one is dropped. (A sender that fell back to an older life numbers anew: its effects would be taken for old.)
//! - the outbox loses an effect only to a replicated acknowledgement of its own incarnation;
//! - effects are never refused for room: only client commands are, see [`ShardState::check_room`]. Otherwise two full
//!   outboxes would wait for each other for ever.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use logstore::id::{ConversationId, HistoryId, ShardId};

use super::ShardState;
use crate::{Applied, Effect, Outcome, Refusal};

/// Effects waiting for one shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutboxRow {
    /// The number of the first one waiting.
    pub first: u64,
    /// In order.
    pub effects: VecDeque<Arc<Effect>>,
}

/// What was applied of one shard's outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct InboxRow {
    /// The life of the sender that `last` belongs to.
    pub incarnation: u64,
    /// Applied up to here.
    pub last: u64,
}

impl InboxRow {
    /// The row once effects that begin with number `first` have come; `None` if they are of a life that is over.
    pub(crate) fn after(self, incarnation: u64, first: u64, count: u64) -> Result<Option<InboxRow>, Refusal> {
        if incarnation < self.incarnation {
            return Ok(None);
        }
        let last = self.last_of(incarnation);
        if first == 0 || first > last + 1 {
            return Err(Refusal::EffectGap);
        }
        Ok(Some(InboxRow { incarnation, last: last.max(first - 1 + count) }))
    }

    /// What was applied of a life that is not older than the one known.
    fn last_of(self, incarnation: u64) -> u64 {
        if incarnation > self.incarnation { 0 } else { self.last }
    }
}

impl Default for OutboxRow {
    fn default() -> OutboxRow {
        OutboxRow { first: 1, effects: VecDeque::new() }
    }
}

impl OutboxRow {
    /// At this many a shard that does not answer costs some 10 MB here, and its clients have long seen time-outs.
    pub const EFFECTS_MAX: usize = 100_000;

    /// Effects in one sealed row: some 20 KiB of new accounts, and below 16 MiB whatever an entry can hold.
    pub const PAGE_LEN: u64 = 64;

    fn next(&self) -> u64 {
        self.first + self.effects.len() as u64
    }

    /// What is sealed of it beside its pages.
    pub fn head(&self) -> OutboxHead {
        OutboxHead { first: self.first, count: self.effects.len() as u64 }
    }

    /// The effects of one page, in order.
    pub(super) fn page(&self, page: u64) -> impl ExactSizeIterator<Item = &Arc<Effect>> {
        let numbers = self.head().numbers_of(page);
        let place = |number: u64| (number - self.first) as usize;
        self.effects.range(place(numbers.start)..place(numbers.end))
    }
}

/// Which effects wait for a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OutboxHead {
    /// The number of the first one waiting, or of the next one if none is.
    pub first: u64,
    /// How many wait.
    pub count: u64,
}

impl OutboxHead {
    /// The pages that hold its effects.
    pub fn pages(&self) -> Range<u64> {
        let (begin, next) = (self.first / OutboxRow::PAGE_LEN, self.first.saturating_add(self.count));
        if self.count == 0 { begin..begin } else { begin..next.div_ceil(OutboxRow::PAGE_LEN) }
    }

    /// The numbers of a page's effects; nothing for a page that holds none of them.
    pub fn numbers_of(&self, page: u64) -> Range<u64> {
        let next = self.first.saturating_add(self.count);
        let bound = |page: u64| page.saturating_mul(OutboxRow::PAGE_LEN).clamp(self.first, next);
        bound(page)..bound(page.saturating_add(1))
    }
}

impl ShardState {
    /// The shard that owns a conversation's bucket; a bucket that nobody owns refuses the command.
    pub(super) fn target(&self, conversation: ConversationId) -> Result<ShardId, Refusal> {
        self.own.shard_of(conversation.bucket()).ok_or(Refusal::WrongShard)
    }

    /// Whether a client's command may add effects for a shard.
    pub(super) fn check_room(&self, to: ShardId) -> Result<(), Refusal> {
        let full = self.outboxes.get(&to).is_some_and(|row| row.effects.len() >= OutboxRow::EFFECTS_MAX);
        if full { Err(Refusal::LimitReached) } else { Ok(()) }
    }

    /// Puts an effect into the outbox of the shard that owns a conversation's bucket; this shard is a target like others.
    /// A bucket that nobody owns has nobody to tell.
    pub(super) fn emit(&mut self, to: ConversationId, effect: Effect, out: &mut Applied) {
        let Ok(shard) = self.target(to) else { return };
        if self.outboxes.get(&shard).is_none() {
            self.outboxes.insert(shard, OutboxRow::default());
        }
        let row = self.outboxes.get_mut(&shard).expect("inserted if it was absent");
        row.effects.push_back(Arc::new(effect));
        out.outbox_changed = true;
    }

    pub(super) fn effects(
        &mut self,
        from: ShardId,
        incarnation: u64,
        first: u64,
        effects: Vec<Effect>,
        out: &mut Applied,
    ) -> Result<Outcome, Refusal> {
        let known = self.inboxes.get(&from).copied().unwrap_or_default();
        let Some(row) = known.after(incarnation, first, effects.len() as u64)? else {
            return Ok(Outcome::Effects { last: 0 });
        };
        let fresh = (row.last - known.last_of(incarnation)) as usize;
        let applied_before = effects.len() - fresh;
        for effect in effects.into_iter().skip(applied_before) {
            self.effect(effect, out);
        }
        self.inboxes.insert(from, row);
        Ok(Outcome::Effects { last: row.last })
    }

    /// The number of the last effect that was ever put into the outbox of a shard in this life of it; 0 if none was.
    pub(crate) fn last_effect_for(&self, to: ShardId) -> u64 {
        self.outboxes.get(&to).map_or(0, |row| row.next() - 1)
    }

    pub(super) fn ack_effects(&mut self, to: ShardId, incarnation: u64, upto: u64, out: &mut Applied) -> Outcome {
        let waiting = self.outboxes.get(&to).is_some_and(|row| row.first <= upto && !row.effects.is_empty());
        if incarnation == self.own.incarnation && waiting {
            let row = self.outboxes.get_mut(&to).expect("looked at just now");
            let acknowledged = upto.min(row.next() - 1) - (row.first - 1);
            row.effects.drain(..acknowledged as usize);
            row.first += acknowledged;
            out.outbox_changed = true;
        }
        Outcome::Done
    }

    /// All shards go on from one causal cut, so numbers go on too: what waits here is what its target has not applied, or
    /// ignores. Only what the life before this one sends from elsewhere is dropped.
    pub(super) fn begin_history(&mut self, history: HistoryId, incarnation: u64) -> Result<Outcome, Refusal> {
        if self.own.history == Some(history) {
            return Ok(Outcome::Done);
        }
        if incarnation <= self.own.incarnation {
            return Err(Refusal::NotAllowed);
        }
        (self.own.history, self.own.incarnation) = (Some(history), incarnation);
        let known: Vec<(ShardId, InboxRow)> = self.inboxes.iter().map(|(from, row)| (*from, *row)).collect();
        for (from, InboxRow { last, .. }) in known {
            self.inboxes.insert(from, InboxRow { incarnation, last });
        }
        Ok(Outcome::Done)
    }

    fn effect(&mut self, effect: Effect, out: &mut Applied) {
        match effect {
            Effect::CreateAccount { user, name, seed } => self.create_account(user, name, seed, out),
            Effect::ConfirmName { name, user } => self.confirm_name(&name, user),
            Effect::OpenPeer { initiator, peer } => self.open_peer(initiator, peer, out),
            Effect::GrantDirect { conversation, home_of, low_may_send, high_may_send, exists } => {
                self.grant_direct(conversation, home_of, [low_may_send, high_may_send], exists, out);
            }
            Effect::PeerAnswered { initiator, peer, exists } => self.peer_answered(initiator, peer, exists),
        }
    }
}
