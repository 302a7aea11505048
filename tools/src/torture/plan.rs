//! Which node is hit, with what, when, and for how long: a function of a seed and nothing else.
//!
//! What always holds: in any [`GAP_MAX`] a fault is in force or begins; none begins before the one before it has been over for [`BREATH`]; and the
//! load has [`CALM`] at both ends of a run: to stand before the first, and to show that the last was survived.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::fault::FaultKind;
use super::history::Replica;

/// Longest time from one fault to the next, but for the longest faults.
pub const GAP_MAX: Duration = Duration::from_secs(5);
/// Without faults between two: a node that is stopped again 0.1 s after it was woken has no time to show that it recovers.
pub const BREATH: Duration = Duration::from_secs(1);
/// Shortest.
const GAP_MIN: Duration = Duration::from_secs(2);
/// Load without faults at the beginning and at the end.
pub const CALM: Duration = Duration::from_secs(2);
/// Longest time a killed node stays away.
const DOWN_MAX: Duration = Duration::from_millis(500);

/// What is asked of a plan.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Equal seeds, equal plans.
    pub seed: u64,
    /// Of the load.
    pub duration: Duration,
    /// How many nodes there are.
    pub nodes: u16,
    /// What may be done.
    pub kinds: Vec<FaultKind>,
    /// Shortest pause or partition.
    pub lasts_min: Duration,
    /// Longest; at most [`GAP_MAX`].
    pub lasts_max: Duration,
}

/// One fault to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// Since the load began.
    pub at: Duration,
    /// To whom.
    pub replica: Replica,
    /// What.
    pub kind: FaultKind,
    /// Until it is healed; of a kill, until the node is started again.
    pub lasts: Duration,
}

impl std::fmt::Display for Injection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (at, lasts) = (self.at.as_secs_f64(), self.lasts.as_secs_f64());
        write!(f, "{at:7.3} s  {:<9} node {}  for {lasts:.3} s", self.kind.name(), self.replica.0)
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlan {
    /// The fault means nothing with so few.
    #[error("{} needs {} nodes, and there are {nodes}", .kind.name(), .kind.nodes_min())]
    NeedsNodes {
        /// Which fault.
        kind: FaultKind,
        /// How many there are.
        nodes: u16,
    },
    /// The two ends leave no time between them.
    #[error("no fault fits into {} s: at least {} s are needed", .duration.as_secs_f64(), (CALM * 2 + GAP_MAX).as_secs())]
    TooShort {
        /// Of the load.
        duration: Duration,
    },
    /// Pauses the wrong way round, or longer than faults may be apart.
    #[error("faults last from {} to {} s: the second is the longer, and at most {} s", .min.as_secs_f64(), .max.as_secs_f64(), GAP_MAX.as_secs())]
    BadLength {
        /// Shortest.
        min: Duration,
        /// Longest.
        max: Duration,
    },
}

/// The plan, in order of time; empty if no kinds of faults are wanted.
pub fn plan(wishes: &Wishes) -> Result<Vec<Injection>, NoPlan> {
    let &Wishes { duration, nodes, lasts_min: min, lasts_max: max, .. } = wishes;
    if let Some(&kind) = wishes.kinds.iter().find(|kind| kind.nodes_min() > nodes) {
        return Err(NoPlan::NeedsNodes { kind, nodes });
    }
    if min > max || max > GAP_MAX {
        return Err(NoPlan::BadLength { min, max });
    }
    if wishes.kinds.is_empty() {
        return Ok(Vec::new());
    }
    if duration < CALM * 2 + GAP_MAX {
        return Err(NoPlan::TooShort { duration });
    }
    let mut chance = SmallRng::seed_from_u64(wishes.seed);
    let mut injections = Vec::new();
    let mut at = CALM;
    loop {
        let injection = next(&mut chance, wishes, at);
        if at + injection.lasts + CALM > duration {
            return Ok(injections);
        }
        injections.push(injection);
        let soonest = (injection.lasts + BREATH).max(GAP_MIN);
        at += between(&mut chance, soonest, soonest.max(GAP_MAX));
    }
}

fn next(chance: &mut SmallRng, wishes: &Wishes, at: Duration) -> Injection {
    let replica = Replica(chance.random_range(1..=wishes.nodes));
    let kind = wishes.kinds[chance.random_range(0..wishes.kinds.len())];
    let lasts = match kind {
        FaultKind::Kill => between(chance, Duration::ZERO, DOWN_MAX),
        FaultKind::Pause | FaultKind::Partition => between(chance, wishes.lasts_min, wishes.lasts_max),
    };
    Injection { at, replica, kind, lasts }
}

/// In whole milliseconds, both ends included.
fn between(chance: &mut SmallRng, low: Duration, high: Duration) -> Duration {
    Duration::from_millis(chance.random_range(low.as_millis() as u64..=high.as_millis() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wishes(seed: u64, seconds: u64, nodes: u16, kinds: &[FaultKind]) -> Wishes {
        let [lasts_min, lasts_max] = [500, 5000].map(Duration::from_millis);
        Wishes { seed, duration: Duration::from_secs(seconds), nodes, kinds: kinds.to_vec(), lasts_min, lasts_max }
    }

    proptest! {
        #[test]
        fn a_fault_is_never_far_and_never_close_and_both_ends_are_left_alone(seed: u64, seconds in 9u64..300, nodes in 1u16..6) {
            let wishes = wishes(seed, seconds, nodes, &[FaultKind::Kill, FaultKind::Pause]);
            let plan = plan(&wishes).unwrap();
            prop_assert!(plan.first().is_some_and(|first| first.at == CALM));
            for pair in plan.windows(2) {
                let (gap, soonest) = (pair[1].at - pair[0].at, pair[0].lasts + BREATH);
                prop_assert!(soonest <= gap && gap <= GAP_MAX.max(soonest));
            }
            let last = plan.last().unwrap();
            prop_assert!(last.at + last.lasts + CALM <= wishes.duration);
            prop_assert!(last.at + GAP_MAX * 2 + BREATH + CALM >= wishes.duration);
            prop_assert!(plan.iter().all(|i| (1..=nodes).contains(&i.replica.0)));
            prop_assert_eq!(&super::plan(&wishes).unwrap(), &plan);
        }
    }

    #[test]
    fn another_seed_is_another_plan_and_every_kind_and_node_is_hit() {
        let kinds = [FaultKind::Kill, FaultKind::Pause, FaultKind::Partition];
        let long = plan(&wishes(1, 600, 3, &kinds)).unwrap();
        assert_ne!(long, plan(&wishes(2, 600, 3, &kinds)).unwrap());
        assert!(kinds.iter().all(|&kind| (1..=3).all(|n| long.iter().any(|i| (i.kind, i.replica.0) == (kind, n)))));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        let alone = plan(&wishes(1, 60, 1, &[FaultKind::Pause, FaultKind::Partition])).unwrap_err();
        assert_eq!(alone.to_string(), "partition needs 3 nodes, and there are 1");
        let short = plan(&wishes(1, 8, 1, &[FaultKind::Kill])).unwrap_err();
        assert_eq!(short.to_string(), "no fault fits into 8 s: at least 9 s are needed");
        let long = Wishes { lasts_max: Duration::from_secs(6), ..wishes(1, 60, 1, &[FaultKind::Kill]) };
        assert_eq!(
            plan(&long).unwrap_err().to_string(),
            "faults last from 0.5 to 6 s: the second is the longer, and at most 5 s"
        );
        assert_eq!(plan(&wishes(1, 1, 1, &[])), Ok(Vec::new()));
    }
}
