//! Sends of a run, counted.

use super::story::Story;

/// What the target of availability calls in time.
const IN_TIME_NS: u64 = 2_000_000_000;

/// Messages and changes of members, each once however often it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All.
    pub sends: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Refused for good.
    pub refused: u64,
    /// Neither, because their client died.
    pub gone: u64,
    /// Acknowledged within 2 s of the first attempt.
    pub in_time: u64,
}

impl Tally {
    /// Takes a conversation into account.
    pub fn take(&mut self, story: &Story<'_>) {
        for sent in &story.sent {
            self.sends += 1;
            self.refused += u64::from(sent.is_refused);
            self.gone += u64::from(sent.is_gone && sent.acked.is_none() && !sent.is_refused);
            if let Some((acked_ns, _)) = sent.acked {
                self.acked += 1;
                self.in_time += u64::from(acked_ns.saturating_sub(sent.invoked_ns) <= IN_TIME_NS);
            }
        }
    }

    /// Neither acknowledged nor refused.
    pub fn unknown(&self) -> u64 {
        self.sends.saturating_sub(self.acked + self.refused)
    }

    /// The share of sends that were durable within 2 s, of those that were not refused and whose client waited; 1 of none.
    pub fn share_in_time(&self) -> f64 {
        match self.sends.saturating_sub(self.refused + self.gone) {
            0 => 1.0,
            of => self.in_time as f64 / of as f64,
        }
    }
}
