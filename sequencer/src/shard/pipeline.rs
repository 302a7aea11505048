//! What a proposer knows of its senders' pipelines: which message of which epoch comes next.
//!
//! A pipeline is one connection's sends to one conversation, in an epoch the client chose, numbered 1, 2, 3, ... What
//! always holds: message n of an epoch is taken only after n - 1 was; nothing of an epoch is taken after it
//! ended; while one of its messages is undecided nothing further is taken; what is known belongs to one term of
//! leadership and is empty at the beginning of the next, so that no late frame is taken on an old expectation.
//! Forgetting is always safe: an unknown epoch begins only with its first message, so that forgotten senders begin anew.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use logstore::id::{ConnectionId, ConversationId};

use crate::shard::PipelineSlot;

/// Pipelines known at once; each costs 56 bytes. Above it all are forgotten, and their senders begin new epochs.
const PIPELINES_MAX: usize = 1 << 20;

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the next one; or an earlier one, which apply tells from the first by its id.
    Take,
    /// One before it is undecided: ask again when that is known.
    Hold,
    /// One before it was not taken, or will not be.
    Refuse,
}

/// All pipelines of one shard.
#[derive(Default)]
pub(crate) struct Pipelines {
    term: u64,
    places: HashMap<(ConnectionId, ConversationId), Place>,
    conversations: HashMap<ConnectionId, Vec<ConversationId>>,
}

/// Where a pipeline is.
#[derive(Clone, Copy, Debug)]
struct Place {
    epoch: u32,
    phase: Phase,
    /// The next number to take.
    next: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Undecided,
    Ended,
}

impl Place {
    fn beginning(epoch: u32) -> Place {
        Place { epoch, phase: Phase::Open, next: 1 }
    }

    /// The place as a message of `epoch` finds it; `None` if that epoch is over.
    fn in_epoch(self, epoch: u32) -> Option<Place> {
        match epoch.cmp(&self.epoch) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal => Some(self),
            std::cmp::Ordering::Greater => Some(Place::beginning(epoch)),
        }
    }

    fn judge(&self, n: u64) -> Verdict {
        match self.phase {
            Phase::Ended => Verdict::Refuse,
            _ if n == 0 || n > self.next => Verdict::Refuse,
            Phase::Undecided => Verdict::Hold,
            Phase::Open => Verdict::Take,
        }
    }
}

impl Pipelines {
    /// Forgets everything unless `term` is the one that is known; whether it did.
    pub(crate) fn lead(&mut self, term: u64) -> bool {
        let is_new = self.term != term;
        if is_new {
            self.term = term;
            self.clear();
        }
        is_new
    }

    /// What would become of a message; takes nothing.
    pub(crate) fn judge(&self, slot: PipelineSlot, conversation: ConversationId) -> Verdict {
        let known = self.places.get(&(slot.connection, conversation)).copied();
        let place = known.unwrap_or(Place::beginning(slot.epoch)).in_epoch(slot.epoch);
        place.map_or(Verdict::Refuse, |place| place.judge(slot.n))
    }

    /// Takes a message, if it is its turn.
    pub(crate) fn take(&mut self, slot: PipelineSlot, conversation: ConversationId) -> Verdict {
        if self.places.len() >= PIPELINES_MAX {
            metrics::counter!("skein_pipelines_forgotten_total").increment(self.places.len() as u64);
            self.clear();
        }
        match self.places.entry((slot.connection, conversation)) {
            Entry::Occupied(mut known) => {
                let Some(mut place) = known.get().in_epoch(slot.epoch) else { return Verdict::Refuse };
                let verdict = place.take(slot.n);
                if verdict == Verdict::Take {
                    known.insert(place);
                }
                verdict
            }
            Entry::Vacant(unknown) => {
                let mut place = Place::beginning(slot.epoch);
                let verdict = place.take(slot.n);
                if verdict == Verdict::Take {
                    unknown.insert(place);
                    self.conversations.entry(slot.connection).or_default().push(conversation);
                }
                verdict
            }
        }
    }

    /// The message just taken may be refused now and accepted later: nothing follows it before it is decided.
    pub(crate) fn wait_for_decision(&mut self, slot: PipelineSlot, conversation: ConversationId) {
        self.change(slot, conversation, Phase::Open, Phase::Undecided);
    }

    /// The undecided message is decided, for good.
    pub(crate) fn decided(&mut self, slot: PipelineSlot, conversation: ConversationId) {
        self.change(slot, conversation, Phase::Undecided, Phase::Open);
    }

    /// Nothing more of the slot's epoch is taken.
    pub(crate) fn end(&mut self, slot: PipelineSlot, conversation: ConversationId) {
        if let Some(place) = self.places.get_mut(&(slot.connection, conversation))
            && place.epoch == slot.epoch
        {
            place.phase = Phase::Ended;
        }
    }

    /// Forgets a closed connection.
    pub(crate) fn forget(&mut self, connection: ConnectionId) {
        for conversation in self.conversations.remove(&connection).unwrap_or_default() {
            self.places.remove(&(connection, conversation));
        }
    }

    fn change(&mut self, slot: PipelineSlot, conversation: ConversationId, from: Phase, to: Phase) {
        if let Some(place) = self.places.get_mut(&(slot.connection, conversation))
            && place.epoch == slot.epoch
            && place.phase == from
        {
            place.phase = to;
        }
    }

    fn clear(&mut self) {
        self.places.clear();
        self.conversations.clear();
    }
}

impl Place {
    fn take(&mut self, n: u64) -> Verdict {
        let verdict = self.judge(n);
        if verdict == Verdict::Take && n == self.next {
            self.next += 1;
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Hold, Refuse, Take};
    use super::*;

    const CONVERSATION: ConversationId = ConversationId(7);

    fn slot(epoch: u32, n: u64) -> PipelineSlot {
        PipelineSlot { connection: ConnectionId(1), epoch, n }
    }

    fn take(pipelines: &mut Pipelines, epoch: u32, n: u64) -> Verdict {
        let judged = pipelines.judge(slot(epoch, n), CONVERSATION);
        let taken = pipelines.take(slot(epoch, n), CONVERSATION);
        assert_eq!(judged, taken, "judging and taking agree on epoch {epoch}, n {n}");
        taken
    }

    /// P1: what is known of epochs belongs to its term.
    #[test]
    fn a_late_frame_is_not_taken_on_the_expectation_of_an_earlier_term() {
        let mut p = Pipelines::default();
        p.lead(1);
        assert_eq!(take(&mut p, 1, 1), Take);
        p.lead(3);
        assert_eq!(take(&mut p, 1, 2), Refuse);
        assert_eq!(take(&mut p, 1, 1), Take);
    }

    #[test]
    fn an_unknown_epoch_begins_only_with_its_first_message() {
        let mut p = Pipelines::default();
        assert_eq!(take(&mut p, 5, 2), Refuse);
        assert_eq!(take(&mut p, 5, 0), Refuse);
        assert_eq!(take(&mut p, 5, 1), Take);
        assert_eq!(take(&mut p, 6, 2), Refuse);
        assert_eq!(take(&mut p, 5, 2), Take, "a refused beginning does not end the epoch before");
    }

    #[test]
    fn an_epoch_older_than_the_newest_is_refused() {
        let mut p = Pipelines::default();
        assert_eq!(take(&mut p, 2, 1), Take);
        assert_eq!(take(&mut p, 1, 1), Refuse);
        assert_eq!(take(&mut p, 1, 2), Refuse);
    }

    #[test]
    fn a_message_out_of_turn_is_refused_until_the_missing_one_comes() {
        let mut p = Pipelines::default();
        assert_eq!([1, 3, 4, 2, 3].map(|n| take(&mut p, 1, n)), [Take, Refuse, Refuse, Take, Take]);
    }

    /// P6: n below the expected is no error.
    #[test]
    fn an_earlier_message_goes_to_dedup_and_takes_no_turn() {
        let mut p = Pipelines::default();
        assert_eq!([1, 2, 1, 2, 3].map(|n| take(&mut p, 1, n)), [Take; 5]);
        assert_eq!(take(&mut p, 1, 5), Refuse);
    }

    /// P6: two connections are two pipelines, and so are two conversations of one.
    #[test]
    fn pipelines_do_not_know_each_other() {
        let mut p = Pipelines::default();
        assert_eq!(take(&mut p, 1, 1), Take);
        let other = PipelineSlot { connection: ConnectionId(2), epoch: 1, n: 2 };
        assert_eq!(p.take(other, CONVERSATION), Refuse);
        assert_eq!(p.take(slot(1, 2), ConversationId(8)), Refuse);
        assert_eq!(p.take(slot(1, 2), CONVERSATION), Take);
    }

    /// P2: hold while undecided, and end on a refusal that may turn out otherwise. Both are needed.
    #[test]
    fn nothing_follows_an_undecided_message_and_nothing_follows_its_retry() {
        let mut p = Pipelines::default();
        assert_eq!(take(&mut p, 1, 1), Take);
        p.wait_for_decision(slot(1, 1), CONVERSATION);
        assert_eq!(take(&mut p, 1, 2), Hold);
        p.end(slot(1, 1), CONVERSATION);
        assert_eq!([1, 2, 3].map(|n| take(&mut p, 1, n)), [Refuse; 3]);
        assert_eq!(take(&mut p, 2, 1), Take);
    }

    #[test]
    fn what_was_held_is_taken_after_a_decision() {
        let mut p = Pipelines::default();
        assert_eq!(take(&mut p, 1, 1), Take);
        p.wait_for_decision(slot(1, 1), CONVERSATION);
        p.decided(slot(1, 1), CONVERSATION);
        assert_eq!(take(&mut p, 1, 2), Take);
    }

    /// P3: an epoch that ended because its append was refused stays ended.
    #[test]
    fn a_refused_append_ends_its_epochs_and_no_others() {
        let mut p = Pipelines::default();
        assert_eq!(take(&mut p, 1, 1), Take);
        p.end(slot(1, 1), CONVERSATION);
        assert_eq!(take(&mut p, 1, 2), Refuse);
        assert_eq!(take(&mut p, 2, 1), Take);
        p.end(slot(1, 1), CONVERSATION);
        p.decided(slot(1, 1), CONVERSATION);
        assert_eq!(take(&mut p, 2, 2), Take, "late news of epoch 1 do not touch epoch 2");
    }

    /// P4: a refusal for good is a decision like any other.
    #[test]
    fn a_refusal_for_good_does_not_stop_what_follows() {
        let mut p = Pipelines::default();
        assert_eq!(take(&mut p, 1, 1), Take);
        assert_eq!(take(&mut p, 1, 2), Take);
    }

    /// P5: what a client does not know it sends again, from the oldest on, in a new epoch.
    #[test]
    fn a_client_begins_anew_with_what_it_does_not_know() {
        let mut p = Pipelines::default();
        assert_eq!([1, 2, 3].map(|n| take(&mut p, 1, n)), [Take; 3]);
        assert_eq!([1, 2].map(|n| take(&mut p, 2, n)), [Take; 2]);
        assert_eq!(take(&mut p, 1, 4), Refuse);
    }

    #[test]
    fn a_closed_connection_is_forgotten() {
        let mut p = Pipelines::default();
        assert_eq!(take(&mut p, 1, 1), Take);
        p.forget(ConnectionId(1));
        assert!(p.places.is_empty() && p.conversations.is_empty());
        assert_eq!(take(&mut p, 1, 2), Refuse);
    }
}
