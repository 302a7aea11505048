//! The receivers' checker: every message of every conversation, for order, loss and duplicates.
//!
//! A conversation has one writer, so what its receiver is told must be seq_ids without a hole, and numbers that
//! only rise (a refused message's number is never seen).

use serde::{Deserialize, Serialize};

use super::plan::Pair;
use super::stamp::NUMBERS;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Messages received, each once.
    pub received: u64,
    /// Received again.
    pub duplicates: u64,
    /// A seq_id or number out of its place.
    pub order_violations: u64,
    /// Another text than was sent.
    pub altered: u64,
    /// Acknowledged and never received.
    pub lost: u64,
}

/// One conversation.
#[derive(Clone, Copy, Debug)]
struct Seen {
    seq_id: u64,
    number: u32,
    received: u64,
}

/// All conversations of a run.
pub struct Checker {
    seen: Vec<Seen>,
    /// So far.
    pub findings: Findings,
}

impl Checker {
    /// Nothing received yet.
    pub fn new(pairs: &[Pair]) -> Checker {
        let seen = pairs.iter().map(|pair| Seen { seq_id: pair.base_seq, number: 0, received: 0 }).collect();
        Checker { seen, findings: Findings::default() }
    }

    /// A message was received; `true` if for the first time.
    pub fn take(&mut self, conversation: usize, seq_id: u64, number: u32, intact: bool) -> bool {
        let seen = &mut self.seen[conversation];
        if seq_id <= seen.seq_id {
            self.findings.duplicates += 1;
            return false;
        }
        let rises = (1..NUMBERS / 2).contains(&(number.wrapping_sub(seen.number) % NUMBERS));
        self.findings.order_violations += u64::from(seq_id != seen.seq_id + 1 || !rises);
        self.findings.altered += u64::from(!intact);
        self.findings.received += 1;
        *seen = Seen { seq_id, number, received: seen.received + 1 };
        true
    }

    /// How far a conversation has been received.
    pub fn seq_id(&self, conversation: usize) -> u64 {
        self.seen[conversation].seq_id
    }

    /// Whether everything acknowledged, as (count, highest seq_id) a conversation, is here.
    pub fn has_all(&self, acked: &[(u64, u64)]) -> bool {
        self.seen.iter().zip(acked).all(|(seen, &(count, seq_id))| seen.received >= count && seen.seq_id >= seq_id)
    }

    /// What is missing of it is lost.
    pub fn finish(&mut self, acked: &[(u64, u64)]) {
        let missing = |(seen, &(count, _)): (&Seen, &(u64, u64))| count.saturating_sub(seen.received);
        self.findings.lost = self.seen.iter().zip(acked).map(missing).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checker() -> Checker {
        Checker::new(&[Pair { id: [0; 16], sender: 0, receiver: 0, base_seq: 5 }])
    }

    #[test]
    fn what_comes_in_order_is_fine_also_where_a_refused_number_is_missing() {
        let mut checker = checker();
        assert!(checker.take(0, 6, 1, true) && checker.take(0, 7, 4, true));
        checker.finish(&[(2, 7)]);
        assert_eq!(checker.findings, Findings { received: 2, ..Findings::default() });
        assert!(checker.has_all(&[(2, 7)]) && !checker.has_all(&[(3, 8)]));
    }

    #[test]
    fn duplicates_holes_swaps_alterations_and_losses_are_told_apart() {
        let mut duplicate = checker();
        assert!(duplicate.take(0, 6, 1, true) && !duplicate.take(0, 6, 1, true));
        assert_eq!((duplicate.findings.duplicates, duplicate.findings.received), (1, 1));

        let mut hole = checker();
        hole.take(0, 7, 2, true);
        hole.finish(&[(2, 7)]);
        assert_eq!((hole.findings.order_violations, hole.findings.lost), (1, 1));

        let mut swapped = checker();
        swapped.take(0, 6, 2, true);
        swapped.take(0, 7, 1, true);
        assert_eq!(swapped.findings.order_violations, 1);

        let mut altered = checker();
        altered.take(0, 6, 1, false);
        assert_eq!(altered.findings.altered, 1);
    }

    #[test]
    fn numbers_go_round() {
        let mut checker = checker();
        checker.take(0, 6, 1, true);
        checker.seen[0].number = NUMBERS - 1;
        checker.take(0, 7, 0, true);
        checker.take(0, 8, 1, true);
        assert_eq!(checker.findings.order_violations, 0);
    }
}
