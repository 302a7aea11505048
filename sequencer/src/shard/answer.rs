//! How a proposal is answered: once, whatever happens to it on the way.
//!
//! What always holds: every reply is called exactly once; one that is dropped on any path (Raft died, the
//! node stops) is called with [`Capacity::NotLeading`].

use std::sync::Arc;

use parking_lot::Mutex;

use crate::Outcome;
use crate::shard::{Capacity, PipelineSlot, ProposalResult};

/// What becomes of one command.
pub(crate) type Answer = std::result::Result<Outcome, Capacity>;

/// A proposal's reply, not called yet.
pub(crate) struct Reply {
    call: Option<Box<dyn FnOnce(ProposalResult) + Send>>,
    commands: usize,
}

impl Reply {
    /// The reply to a proposal of so many commands.
    pub(crate) fn new(call: Box<dyn FnOnce(ProposalResult) + Send>, commands: usize) -> Reply {
        Reply { call: Some(call), commands }
    }

    /// Answers with one result per command.
    pub(crate) fn send(mut self, results: ProposalResult) {
        debug_assert_eq!(results.len(), self.commands, "one result per command");
        if let Some(call) = self.call.take() {
            call(results);
        }
    }

    /// Refuses every command.
    pub(crate) fn refuse(self, why: Capacity) {
        let results = vec![Err(why); self.commands];
        self.send(results);
    }

    /// How many commands wait for it.
    pub(crate) fn commands(&self) -> usize {
        self.commands
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call(vec![Err(Capacity::NotLeading); self.commands]);
        }
    }
}

/// Gathers the results of a proposal that is not decided in one piece.
pub(crate) struct Assembly {
    gathered: Mutex<Gathered>,
}

struct Gathered {
    results: Vec<Option<Answer>>,
    missing: usize,
    reply: Option<Reply>,
}

impl Assembly {
    /// Nothing is known yet.
    pub(crate) fn new(reply: Reply) -> Arc<Assembly> {
        let missing = reply.commands();
        let gathered = Gathered { results: vec![None; missing], missing, reply: Some(reply) };
        Arc::new(Assembly { gathered: Mutex::new(gathered) })
    }

    /// Adds what became of one command; the last one sends the reply.
    pub(crate) fn put(&self, position: u32, answer: Answer) {
        let complete = self.gathered.lock().put(position as usize, answer);
        if let Some((reply, results)) = complete {
            reply.send(results);
        }
    }
}

impl Gathered {
    fn put(&mut self, position: usize, answer: Answer) -> Option<(Reply, ProposalResult)> {
        debug_assert!(self.results[position].is_none(), "a command is decided once");
        self.results[position] = Some(answer);
        self.missing -= 1;
        if self.missing > 0 {
            return None;
        }
        let results = self.results.drain(..).map(|r| r.unwrap_or(Err(Capacity::NotLeading))).collect();
        self.reply.take().map(|reply| (reply, results))
    }

    /// What is known, for a reply that will not be complete.
    fn abandon(&mut self) {
        if let Some(reply) = self.reply.take() {
            reply.send(self.results.drain(..).map(|r| r.unwrap_or(Err(Capacity::NotLeading))).collect());
        }
    }
}

impl Drop for Assembly {
    fn drop(&mut self) {
        self.gathered.get_mut().abandon();
    }
}

/// The commands of one proposal within one entry, waiting for their outcomes.
pub(crate) enum Ticket {
    /// All commands of the proposal.
    Whole {
        /// Its reply.
        reply: Reply,
        /// Its pipeline.
        slots: Vec<PipelineSlot>,
    },
    /// Some of them.
    Part {
        /// Where their results are gathered.
        assembly: Arc<Assembly>,
        /// Which ones, in the order of the entry.
        positions: Vec<u32>,
        /// Their pipeline slots; empty if they have none.
        slots: Vec<PipelineSlot>,
    },
}

impl Ticket {
    /// How many commands of the entry are its.
    pub(crate) fn commands(&self) -> usize {
        match self {
            Ticket::Whole { reply, .. } => reply.commands(),
            Ticket::Part { positions, .. } => positions.len(),
        }
    }

    /// The pipeline slot of each of its commands, if they have one.
    pub(crate) fn slots(&self) -> &[PipelineSlot] {
        match self {
            Ticket::Whole { slots, .. } | Ticket::Part { slots, .. } => slots,
        }
    }

    /// Answers with the outcomes of its commands.
    pub(crate) fn answer(self, outcomes: impl ExactSizeIterator<Item = Answer>) {
        match self {
            Ticket::Whole { reply, .. } => reply.send(outcomes.collect()),
            Ticket::Part { assembly, positions, .. } => {
                positions.into_iter().zip(outcomes).for_each(|(position, answer)| assembly.put(position, answer));
            }
        }
    }

    /// Refuses all of its commands.
    pub(crate) fn refuse(self, why: Capacity) {
        let count = self.commands();
        self.answer(std::iter::repeat_n(Err(why), count));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn reply(commands: usize) -> (Reply, mpsc::Receiver<ProposalResult>) {
        let (tx, rx) = mpsc::channel();
        (Reply::new(Box::new(move |results| tx.send(results).expect("the test listens")), commands), rx)
    }

    #[test]
    fn a_dropped_reply_is_an_answer() {
        let (unanswered, answers) = reply(2);
        drop(unanswered);
        assert_eq!(answers.try_recv(), Ok(vec![Err(Capacity::NotLeading); 2]));
    }

    #[test]
    fn an_assembly_answers_once_when_the_last_part_is_in() {
        let (whole, answers) = reply(3);
        let assembly = Assembly::new(whole);
        assembly.put(2, Ok(Outcome::Done));
        assembly.put(0, Err(Capacity::PredecessorFailed));
        assert!(answers.try_recv().is_err());
        assembly.put(1, Ok(Outcome::Session));
        let expected = vec![Err(Capacity::PredecessorFailed), Ok(Outcome::Session), Ok(Outcome::Done)];
        assert_eq!(answers.try_recv(), Ok(expected));
        drop(assembly);
        assert!(answers.try_recv().is_err());
    }

    #[test]
    fn an_abandoned_assembly_tells_what_it_knows() {
        let (whole, answers) = reply(2);
        let assembly = Assembly::new(whole);
        assembly.put(1, Ok(Outcome::Done));
        drop(assembly);
        assert_eq!(answers.try_recv(), Ok(vec![Err(Capacity::NotLeading), Ok(Outcome::Done)]));
    }
}
