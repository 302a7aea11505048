//! A proposal on its way into entries.
//!
//! What always holds: every command of it is taken into an entry, answered, or held, exactly once and in order; it
//! stays in one piece, answered without any gathering, unless something comes between.

use std::sync::Arc;

use crate::shard::PipelineSlot;
use crate::shard::answer::{Answer, Assembly, Reply, Ticket};
use crate::shard::proposer::Queued;
use crate::{Command, encoded_len};

/// The commands of one proposal that are not behind us yet.
pub(crate) struct Work {
    commands: Vec<Command>,
    slots: Vec<PipelineSlot>,
    at: usize,
    /// What it counts for in the queue; what is held counts for itself.
    counted: Counted,
    results: Results,
}

/// A part of the queue's budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) commands: usize,
    pub(super) bytes: usize,
}

/// How the proposal will be answered.
enum Results {
    /// In one piece, so far: everything before `at` is in the entry being made.
    Whole(Reply),
    /// Piece by piece.
    Pieces(Pieces),
}

struct Pieces {
    assembly: Arc<Assembly>,
    /// The command's place in the proposal; none: the same as in the work.
    positions: Vec<u32>,
    taken: Vec<u32>,
    taken_slots: Vec<PipelineSlot>,
}

impl Work {
    pub(super) fn of(queued: Queued) -> Work {
        let Queued { commands, slots, reply, bytes } = queued;
        let counted = Counted { commands: commands.len(), bytes };
        Work { commands, slots, at: 0, counted, results: Results::Whole(reply) }
    }

    /// The next command and its slot; `None` when all are behind us.
    pub(super) fn next(&mut self) -> Option<(&mut Command, Option<PipelineSlot>)> {
        let slot = self.slots.get(self.at).copied();
        self.commands.get_mut(self.at).map(|command| (command, slot))
    }

    /// The next command went into the entry being made.
    pub(super) fn took(&mut self) {
        let (at, slot) = (self.at, self.slots.get(self.at).copied());
        if let Results::Pieces(pieces) = &mut self.results {
            pieces.taken.push(pieces.position(at));
            pieces.taken_slots.extend(slot);
        }
        self.at += 1;
    }

    /// The next command is answered without the log.
    pub(super) fn answered(self, answer: Answer) -> Work {
        let mut work = self.in_pieces();
        if let Results::Pieces(pieces) = &work.results {
            pieces.assembly.put(pieces.position(work.at), answer);
        }
        work.at += 1;
        work
    }

    /// The next command waits: it becomes a work of its own.
    pub(super) fn held(self) -> (Work, Work) {
        let mut work = self.in_pieces();
        let Results::Pieces(pieces) = &work.results else { unreachable!("it was just cut") };
        // What stands in for it is never looked at: everything before `at` is behind us.
        let command = std::mem::replace(&mut work.commands[work.at], Command::Probe);
        let bytes = encoded_len(&command);
        let held = Work {
            slots: work.slots.get(work.at).copied().into_iter().collect(),
            at: 0,
            counted: Counted { commands: 1, bytes },
            results: Results::Pieces(Pieces {
                assembly: pieces.assembly.clone(),
                positions: vec![pieces.position(work.at)],
                taken: Vec::new(),
                taken_slots: Vec::new(),
            }),
            commands: vec![command],
        };
        work.at += 1;
        work.counted.commands -= 1;
        work.counted.bytes -= bytes;
        (work, held)
    }

    /// The entry being made is full: what is in it gets a ticket, the rest goes into the next one.
    pub(super) fn cut(self) -> (Option<Ticket>, Work) {
        let mut work = self.in_pieces();
        let ticket = match &mut work.results {
            Results::Pieces(pieces) => pieces.ticket(),
            Results::Whole(_) => None,
        };
        (ticket, work)
    }

    /// All commands are behind us.
    pub(super) fn finish(self) -> Option<Ticket> {
        debug_assert_eq!(self.at, self.commands.len());
        match self.results {
            Results::Whole(reply) => Some(Ticket::Whole { reply, slots: self.slots }),
            Results::Pieces(mut pieces) => pieces.ticket(),
        }
    }

    /// What it counts for in the queue.
    pub(super) fn counted(&self) -> Counted {
        self.counted
    }

    /// Refuses what is left.
    pub(super) fn refuse(self, why: crate::shard::Capacity) {
        let mut work = match self.results {
            Results::Whole(reply) if self.at == 0 => return reply.refuse(why),
            _ => self,
        };
        while work.at < work.commands.len() {
            work = work.answered(Err(why));
        }
    }

    fn in_pieces(self) -> Work {
        let Work { commands, slots, at, counted, results } = self;
        let pieces = match results {
            Results::Pieces(pieces) => pieces,
            Results::Whole(reply) => Pieces {
                assembly: Assembly::new(reply),
                positions: Vec::new(),
                taken: (0..at as u32).collect(),
                taken_slots: slots[..at.min(slots.len())].to_vec(),
            },
        };
        Work { commands, slots, at, counted, results: Results::Pieces(pieces) }
    }
}

impl Pieces {
    fn position(&self, at: usize) -> u32 {
        self.positions.get(at).copied().unwrap_or(at as u32)
    }

    fn ticket(&mut self) -> Option<Ticket> {
        let positions = std::mem::take(&mut self.taken);
        let slots = std::mem::take(&mut self.taken_slots);
        (!positions.is_empty()).then(|| Ticket::Part { assembly: self.assembly.clone(), positions, slots })
    }
}
