//! Bugs on purpose, for builds with the feature `plants` alone: each breaks one promise, and the checker of `skein torture` has to find it.
//!
//! What always holds: without a call of [`plant`] such a build behaves as any other; a build without the feature contains none of this.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Plant {
    /// No bug: what the process wrote is kept in its memory until it is synced, so that kill -9 is a power cut.
    PowerCut = 1,
    /// As [`Plant::PowerCut`], and seven of eight syncs of the journal do nothing.
    DropSync = 2,
    /// As [`Plant::PowerCut`], and appends are acknowledged before the journal is written and synced.
    AckBeforeQuorum = 3,
    /// A retry is a new message.
    SkipDedup = 4,
    /// Who has left a group goes on seeing it.
    IgnoreLeave = 5,
    /// History is answered as of up to a second ago.
    StaleRead = 6,
    /// The first two messages of a frame change places.
    ReorderPipeline = 7,
}

static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Plants a bug in this process, for good.
pub fn plant(plant: Plant) {
    PLANTED.store(plant as u8, Ordering::SeqCst);
}

/// Whether this bug is planted.
pub fn is_planted(plant: Plant) -> bool {
    PLANTED.load(Ordering::Relaxed) == plant as u8
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 7] = [
        Plant::PowerCut,
        Plant::DropSync,
        Plant::AckBeforeQuorum,
        Plant::SkipDedup,
        Plant::IgnoreLeave,
        Plant::StaleRead,
        Plant::ReorderPipeline,
    ];

    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Plant::PowerCut => "power-cut",
            Plant::DropSync => "drop-sync",
            Plant::AckBeforeQuorum => "ack-before-quorum",
            Plant::SkipDedup => "skip-dedup",
            Plant::IgnoreLeave => "ignore-leave",
            Plant::StaleRead => "stale-read",
            Plant::ReorderPipeline => "reorder-pipeline",
        }
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no such plant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no plant is called {name:?}; there are {}", Plant::ALL.map(Plant::name).join(", "))]
pub struct UnknownPlant {
    name: String,
}

impl FromStr for Plant {
    type Err = UnknownPlant;

    fn from_str(name: &str) -> Result<Plant, UnknownPlant> {
        Plant::ALL.into_iter().find(|plant| plant.name() == name).ok_or_else(|| UnknownPlant { name: name.to_owned() })
    }
}
