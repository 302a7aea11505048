//! An entry on its way: from the hand-over to Raft until its outcomes are given to whoever proposed them.
//!
//! What always holds: the proposer hears what an outcome means for a pipeline before anybody is told the outcome;
//! an entry that Raft drops is refused like one that it refuses.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use logstore::id::ConversationId;

use crate::raft::types::WriteResult;
use crate::shard::answer::{Answer, Ticket};
use crate::shard::proposer::{News, Proposer};
use crate::shard::{Capacity, PipelineSlot};
use crate::{Batch, Command, Outcome, Refusal};

/// One entry in flight.
pub(super) struct InFlight {
    proposer: Arc<Proposer>,
    tickets: Vec<Ticket>,
    payload: Bytes,
    undecided: Vec<Undecided>,
}

/// A message of the entry that may be refused for now.
pub(super) struct Undecided {
    /// Its place in the entry.
    pub(super) index: usize,
    pub(super) slot: PipelineSlot,
    pub(super) conversation: ConversationId,
}

impl InFlight {
    /// An entry about to be handed over.
    pub(super) fn new(
        proposer: Arc<Proposer>,
        tickets: Vec<Ticket>,
        payload: Bytes,
        undecided: Vec<Undecided>,
    ) -> InFlight {
        proposer.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight { proposer, tickets, payload, undecided }
    }

    /// Raft has applied the entry, or will not.
    pub(super) fn complete(mut self, result: WriteResult) {
        let batch = result.ok().and_then(|done| done.data.batch);
        match batch {
            Some(batch) => self.applied(&batch.applied.outcomes),
            None => self.refused(),
        }
    }

    fn applied(&mut self, outcomes: &[Outcome]) {
        self.tell_decisions(outcomes);
        let mut at = 0;
        for ticket in self.tickets.drain(..) {
            let end = at + ticket.commands();
            match outcomes.get(at..end) {
                Some(outcomes) => ticket.answer(outcomes.iter().cloned().map(Answer::Ok)),
                None => malformed(ticket),
            }
            at = end;
        }
    }

    fn refused(&mut self) {
        if self.tickets.is_empty() {
            return;
        }
        let ended = self.pipelines().map(|(_, slot, conversation)| News::Ended(slot, conversation)).collect::<Vec<_>>();
        self.proposer.tell(ended);
        self.tickets.drain(..).for_each(|ticket| ticket.refuse(Capacity::NotLeading));
    }

    fn tell_decisions(&self, outcomes: &[Outcome]) {
        if outcomes.iter().any(may_turn_out_otherwise) {
            let ended = self
                .pipelines()
                .filter(|(index, ..)| outcomes.get(*index).is_none_or(may_turn_out_otherwise))
                .map(|(_, slot, conversation)| News::Ended(slot, conversation));
            self.proposer.tell(ended.collect::<Vec<_>>());
        }
        if !self.undecided.is_empty() {
            let decided = self.undecided.iter().filter(|u| !outcomes.get(u.index).is_some_and(may_turn_out_otherwise));
            self.proposer.tell(decided.map(|u| News::Decided(u.slot, u.conversation)));
        }
    }

    /// Place in the entry, slot and conversation of every message that has a pipeline. Rare: the payload is decoded for it.
    fn pipelines(&self) -> impl Iterator<Item = (usize, PipelineSlot, ConversationId)> {
        let slots = self.tickets.iter().flat_map(|ticket| {
            let slots = ticket.slots();
            (0..ticket.commands()).map(move |i| slots.get(i).copied())
        });
        let commands = Batch::decode(&self.payload).map(|batch| batch.commands).unwrap_or_default();
        commands.into_iter().zip(slots).enumerate().filter_map(|(index, (command, slot))| match command {
            Command::Send(send) => Some((index, slot?, send.conversation)),
            _ => None,
        })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.refused();
        self.proposer.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.proposer.wake.notify_one();
    }
}

fn may_turn_out_otherwise(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(refusal) if refusal.may_turn_out_otherwise())
}

/// Apply could not read its own entry: a defect, but everybody is answered.
fn malformed(ticket: Ticket) {
    let count = ticket.commands();
    ticket.answer(std::iter::repeat_n(Ok(Outcome::Refused(Refusal::Malformed)), count));
}
