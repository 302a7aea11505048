//! openraft, kept behind our own facade: nothing outside this folder and `shard/` sees its types.
//!
//! What always holds: entry `i` of openraft is [`LogIndex`](logstore::id::LogIndex) `i + 1`, because openraft counts
//! from 0 and ours keeps 0 for "before the first entry"; the conversion is in [`types`] and nowhere else.

pub(crate) mod checkpoint;
pub(crate) mod group;
pub(crate) mod log_store;
pub(crate) mod membership;
pub(crate) mod network;
#[cfg(test)]
mod simulated;
pub(crate) mod state_machine;
#[cfg(test)]
mod suite;
pub(crate) mod ticker;
pub(crate) mod types;
