//! What a shard knows of itself at a `Seal`, beside its tables: its own row, and what defines its dedup window.

use logstore::id::{LogIndex, TimeMs};

use super::OwnRow;

/// The sealed row of a shard itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRow {
    /// The entry of the Seal: all of it, and nothing after it, is in the rows.
    pub applied: LogIndex,
    /// The generation that the Seal ended.
    pub generation: u64,
    /// Buckets, time, numbers.
    pub own: OwnRow,
    /// The log time of the last entry before the dedup window; `None` if the window reaches back to the beginning.
    pub floor: Option<TimeMs>,
    /// The generations of the dedup window that have ended, oldest first; the last one is `generation`.
    pub window: Vec<EndedGeneration>,
}

/// What is counted over all rows of a shard, so that nobody has to walk them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Figures {
    /// Conversations with a row.
    pub conversations: u64,
}

/// A generation of the dedup window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedGeneration {
    /// Its number.
    pub number: u64,
    /// The entry before its first one.
    pub after: LogIndex,
    /// The log time at its end.
    pub ended: TimeMs,
}
