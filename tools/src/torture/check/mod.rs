//! The checker: one promise a file, each a function over one conversation's story (liveness over what all of them tell).
//!
//! A send that returns its place gives the order of versions, so nothing is searched: every check is one walk, O(n log n) in all.
//! Every finding is a broken promise as far as the history can be trusted; what is unknown (no ack, no refusal) may be there once or
//! never.

mod agreement;
mod authorization;
mod durability;
mod fresh_reads;
mod liveness;
mod monotonic;
mod no_gap;
mod phantom;
mod real_time;
mod replicas;
mod sender_order;
#[cfg(test)]
mod tests;
mod uniqueness;

use super::finding::Findings;
use super::history::History;
use super::story::{self, Story};
use super::tally::Tally;
pub use liveness::{Liveness, Recovery};

/// What a history shows.
#[derive(Debug, Default)]
pub struct Report {
    /// Broken promises.
    pub findings: Findings,
    /// Fault by fault and shard by shard.
    pub recoveries: Vec<Recovery>,
    /// Sends, counted.
    pub tally: Tally,
}

/// The points that a conversation's story alone decides.
const POINTS: [fn(&Story<'_>, &mut Findings); 11] = [
    agreement::check,
    uniqueness::check,
    durability::check,
    no_gap::check,
    real_time::check,
    sender_order::check,
    phantom::check,
    fresh_reads::check,
    monotonic::check,
    authorization::check,
    replicas::check,
];

/// Checks all of a history.
pub fn check(history: &History) -> Report {
    let mut report = Report::default();
    let mut liveness = Liveness::of(history);
    let cast = story::cast(history);
    story::each(history, &cast, |story| {
        POINTS.iter().for_each(|point| point(story, &mut report.findings));
        liveness.take(history.shard_of(story.conversation), story);
        report.tally.take(story);
    });
    report.recoveries = liveness.judge(&mut report.findings);
    report
}
