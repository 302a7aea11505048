//! What can be done to a node.

use serde::Serialize;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FaultKind {
    /// kill -9, and a start from what is on disk.
    Kill,
    /// SIGSTOP, and SIGCONT later.
    Pause,
    /// Cut off from the other nodes, in both directions or in one.
    Partition,
}

impl FaultKind {
    /// As it is typed and printed.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Kill => "kill",
            FaultKind::Pause => "pause",
            FaultKind::Partition => "partition",
        }
    }

    /// How many nodes it takes for the fault to mean anything.
    pub fn nodes_min(self) -> u16 {
        match self {
            FaultKind::Kill | FaultKind::Pause => 1,
            FaultKind::Partition => 3,
        }
    }
}
