//! openraft, kept behind our own facade: nothing outside this folder and `shard/` sees its types.
//!
//! What always holds: entry `i` of openraft is [`LogIndex`](logstore::id::LogIndex) `i + 1`, because openraft counts
//! from 0 and ours keeps 0 for "before the first entry"; the conversion is in [`types`] and nowhere else.

pub(crate) mod checkpoint;
pub(crate) mod group;
pub(crate) mod log_store;
pub(crate) mod membership;
pub(crate) mod network;
#[cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "replicas of other nodes reach this one once there is a transport but the simulated one"
    )
)]
mod receive;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod simulated_voters;
pub(crate) mod state_machine;
#[cfg(test)]
mod suite;
pub(crate) mod ticker;
pub(crate) mod types;
