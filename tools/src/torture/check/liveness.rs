//! Point 11, liveness: after a fault, each shard that the hit node led is written to again.
//!
//! Recovery is the time from the fault to the first ack of a message that was sent after it. One that never came counts as the time to
//! the end of the load, and is a finding if [`AFTER_HEAL_MAX_NS`] had passed since the fault was over.

use crate::torture::finding::{Finding, Findings};
use crate::torture::history::{Fault, History};
use crate::torture::story::Story;

/// A node alone that was killed starts, replays its journal, and its clients come back: 5 s at most, and as much again for a machine
/// that does other things too.
pub const AFTER_HEAL_MAX_NS: u64 = 10_000_000_000;

/// How long a shard took to come back from a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Place in the history's faults.
    pub fault: usize,
    /// Which shard.
    pub shard: u16,
    /// From the fault to the first ack, or to the end.
    pub took_ns: u64,
    /// Whether an ack came.
    pub came: bool,
}

/// Gathers acks, fault by fault.
pub struct Liveness<'a> {
    faults: &'a [Fault],
    end_ns: u64,
    /// By fault and place among its shards: whether anything was sent after it, and the first ack of that.
    firsts: Vec<Vec<(bool, Option<u64>)>>,
}

impl<'a> Liveness<'a> {
    /// Of this history's faults.
    pub fn of(history: &'a History) -> Liveness<'a> {
        let firsts = history.faults.iter().map(|fault| vec![(false, None); fault.shards.len()]).collect();
        Liveness { faults: &history.faults, end_ns: history.end_ns, firsts }
    }

    /// Takes a conversation of a shard into account.
    pub fn take(&mut self, shard: u16, story: &Story<'_>) {
        for (fault, firsts) in self.faults.iter().zip(&mut self.firsts) {
            let Some(place) = fault.shards.iter().position(|&led| led == shard) else { continue };
            let (tried, first) = &mut firsts[place];
            for sent in story.sent.iter().filter(|sent| sent.invoked_ns > fault.from_ns && !sent.is_refused) {
                *tried = true;
                let acked = sent.acked.map(|(acked_ns, _)| acked_ns);
                *first = first.iter().copied().chain(acked).min();
            }
        }
    }

    /// Every recovery that something was sent for; what never came is found.
    pub fn judge(&self, findings: &mut Findings) -> Vec<Recovery> {
        let mut recoveries = Vec::new();
        for (at, (fault, firsts)) in self.faults.iter().zip(&self.firsts).enumerate() {
            let tried = fault.shards.iter().zip(firsts).filter(|(_, (tried, _))| *tried);
            for (&shard, &(_, first)) in tried {
                let took_ns = first.unwrap_or(self.end_ns).saturating_sub(fault.from_ns);
                recoveries.push(Recovery { fault: at, shard, took_ns, came: first.is_some() });
                let limit_ns = fault.healed_ns.unwrap_or(fault.from_ns) + AFTER_HEAL_MAX_NS;
                if first.unwrap_or(self.end_ns.max(fault.from_ns)) > limit_ns
                    || (first.is_none() && fault.healed_ns.is_none())
                {
                    let (fault, at_ns) = (fault.kind.name(), fault.from_ns);
                    findings.add(Finding::Silent { shard, fault, at_ns, limit_ns: AFTER_HEAL_MAX_NS });
                }
            }
        }
        recoveries
    }
}
