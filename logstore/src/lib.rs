//! Keeps bytes: the journal that all shards of a node share, the index of what is not sealed yet, and the sealed segments.
//!
//! logstore knows record heads, never bodies, users or peers. It spawns nothing beyond the
//! journal's writer thread.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
pub mod id;
pub mod io;
mod journal;
mod record;
mod records;
pub mod segment;
mod unsealed;

pub use error::{Error, Result};
pub use journal::{
    Completion, Entry, EntryKind, Executor, Journal, JournalOptions, JournalUsage, Refused, ShardLog, Vote,
};
pub use record::{BodyPlace, RecordHead, RecordKind};
pub use records::Records;
pub use unsealed::{Slot, Unsealed};
