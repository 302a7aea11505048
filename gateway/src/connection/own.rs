//! What a connection has sent and may not know the place of yet: its own messages are not pushed to it, the answer to the
//! send tells where they are.
//!
//! What always holds: as long as an own record was taken whose answer is not written, the cursor told stays below it. A
//! record is not matched with its answer: it is known only that it belongs to a send that was unanswered when the record
//! came. So it waits for all that were under way at that moment, and for none that began later.

use std::collections::VecDeque;

use logstore::id::LogIndex;

/// Names a send of one connection, in the order they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SendNumber(u64);

/// The own records of a connection that it may not know of, shard by shard.
#[derive(Default)]
pub(super) struct Own {
    begun: u64,
    /// Ascending; at most as many as requests may be in flight.
    unanswered: VecDeque<SendNumber>,
    /// At most one a shard.
    shards: Vec<OfShard>,
}

/// The own records of one shard that wait for answers.
struct OfShard {
    slot: usize,
    /// The oldest, and the send whose answer is the last it waits for.
    first: Until,
    /// The oldest of the others, and the last any of them waits for.
    rest: Option<Until>,
    /// Something was written whose step had to stay below.
    owes_step: bool,
}

#[derive(Clone, Copy)]
struct Until {
    index: LogIndex,
    newest: SendNumber,
}

impl Own {
    /// A send was taken.
    pub(super) fn begin(&mut self) -> SendNumber {
        self.begun += 1;
        let number = SendNumber(self.begun);
        self.unanswered.push_back(number);
        number
    }

    /// An own record came. If nothing is unanswered, its answer was faster.
    pub(super) fn note(&mut self, slot: usize, index: LogIndex) {
        let Some(&newest) = self.unanswered.back() else { return };
        let until = Until { index, newest };
        match self.shards.iter_mut().find(|shard| shard.slot == slot) {
            None => self.shards.push(OfShard { slot, first: until, rest: None, owes_step: false }),
            Some(OfShard { rest: Some(rest), .. }) => rest.newest = newest,
            Some(shard) => shard.rest = Some(until),
        }
    }

    /// How far the device may be told of a shard of which everything up to `taken` was taken.
    pub(super) fn told(&self, slot: usize, taken: LogIndex) -> LogIndex {
        let waits = self.shards.iter().find(|shard| shard.slot == slot);
        waits.map_or(taken, |shard| taken.min(shard.below()))
    }

    /// The same, for something that is written now: once the cursor may pass it, the device is told.
    pub(super) fn step(&mut self, slot: usize, taken: LogIndex) -> LogIndex {
        if let Some(shard) = self.shards.iter_mut().find(|shard| shard.slot == slot) {
            shard.owes_step = true;
        }
        self.told(slot, taken)
    }

    /// The answer to a send is written; gives each shard whose device is now to be told how far it is, and what is to be
    /// waited for there still (`None`: nothing) to `owed`.
    pub(super) fn answered(&mut self, number: SendNumber, mut owed: impl FnMut(usize, Option<LogIndex>)) {
        self.forget(number);
        let oldest = self.unanswered.front().copied();
        self.shards.retain_mut(|shard| {
            let (freed, waits) = shard.free(oldest);
            if freed && shard.owes_step {
                owed(shard.slot, waits.then(|| shard.below()));
            }
            waits
        });
    }

    /// The answer to a send is written and leaves open what became of it; gives all shards where records waited, and how
    /// far each was told, and waits for them no more.
    pub(super) fn left_open(&mut self, number: SendNumber) -> Vec<(usize, LogIndex)> {
        self.forget(number);
        self.shards.drain(..).map(|shard| (shard.slot, shard.below())).collect()
    }

    fn forget(&mut self, number: SendNumber) {
        if let Ok(at) = self.unanswered.binary_search(&number) {
            self.unanswered.remove(at);
        }
    }
}

impl OfShard {
    /// The last entry before those that wait.
    fn below(&self) -> LogIndex {
        LogIndex(self.first.index.0.saturating_sub(1))
    }

    /// Frees what waits only for sends before `oldest`, the first that is unanswered; whether anything was freed, and
    /// whether anything still waits.
    fn free(&mut self, oldest: Option<SendNumber>) -> (bool, bool) {
        let is_free = |until: &Until| oldest.is_none_or(|oldest| until.newest < oldest);
        if !is_free(&self.first) {
            return (false, true);
        }
        let Some(rest) = self.rest.take_if(|rest| !is_free(rest)) else { return (true, false) };
        self.first = rest;
        (true, true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(own: &Own) -> u64 {
        own.told(0, LogIndex(100)).0
    }

    fn answer(own: &mut Own, number: SendNumber) -> Vec<u64> {
        let mut steps = Vec::new();
        own.answered(number, |_, below| steps.push(below.map_or(100, |below| below.0)));
        steps
    }

    #[test]
    fn a_record_waits_for_what_was_under_way_and_not_for_what_came_later() {
        let mut own = Own::default();
        let [first, second] = [own.begin(), own.begin()];
        own.note(0, LogIndex(5));
        let third = own.begin();
        own.note(0, LogIndex(7));
        assert_eq!(own.step(0, LogIndex(100)), LogIndex(4));
        assert_eq!(answer(&mut own, second), [0; 0]);
        assert_eq!(told(&own), 4, "the first may be the one it belongs to");
        assert_eq!(answer(&mut own, first), [6]);
        assert_eq!(answer(&mut own, third), [100]);
    }

    #[test]
    fn nobody_is_told_a_step_who_was_written_nothing() {
        let mut own = Own::default();
        let send = own.begin();
        own.note(0, LogIndex(5));
        assert_eq!(answer(&mut own, send), [0; 0]);
        assert_eq!(told(&own), 100);
    }

    #[test]
    fn a_record_that_comes_after_its_answer_waits_for_nothing() {
        let mut own = Own::default();
        let send = own.begin();
        answer(&mut own, send);
        own.note(0, LogIndex(5));
        assert_eq!(told(&own), 100);
    }

    #[derive(Clone, Debug)]
    enum Act {
        Begin,
        Answer(usize),
        /// A record of an unanswered send comes.
        Record(usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![Just(Act::Begin), any::<usize>().prop_map(Act::Answer), any::<usize>().prop_map(Act::Record)]
    }

    proptest! {
        #[test]
        fn no_record_is_passed_before_its_answer_and_all_are_once_everything_is_answered(
            acts in proptest::collection::vec(act(), 0..200),
        ) {
            let mut own = Own::default();
            let mut unanswered: Vec<(SendNumber, Vec<u64>)> = Vec::new();
            let mut last = 0;
            for (act, index) in acts.into_iter().zip(1..) {
                match act {
                    Act::Begin => unanswered.push((own.begin(), Vec::new())),
                    Act::Record(at) if !unanswered.is_empty() => {
                        let at = at % unanswered.len();
                        unanswered[at].1.push(index);
                        own.note(0, LogIndex(index));
                    }
                    Act::Answer(at) if !unanswered.is_empty() => {
                        let (number, _) = unanswered.remove(at % unanswered.len());
                        answer(&mut own, number);
                    }
                    Act::Answer(_) | Act::Record(_) => {}
                }
                let told = own.told(0, LogIndex(index)).0;
                let oldest = unanswered.iter().flat_map(|(_, records)| records).min();
                prop_assert!(oldest.is_none_or(|oldest| told < *oldest));
                prop_assert!(told >= last, "it never falls");
                last = told;
            }
            for (number, _) in unanswered {
                answer(&mut own, number);
            }
            prop_assert_eq!(own.told(0, LogIndex(1000)), LogIndex(1000));
            prop_assert!(own.shards.is_empty() && own.unanswered.is_empty());
        }
    }
}
