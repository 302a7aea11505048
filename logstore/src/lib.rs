//! Keeps bytes: the journal that all shards of a node share, the index of what is not sealed yet, and the sealed segments.
//!
//! logstore knows record heads, never bodies, users or peers. It spawns nothing beyond the
//! journal's writer thread.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod entries;
mod error;
pub mod id;
pub mod io;
mod journal;
mod manifest;
pub mod merge;
#[cfg(feature = "plants")]
pub mod plants;
mod record;
mod records;
mod scan;
pub mod segment;
mod segment_set;
mod unsealed;

pub use error::{Error, Result};
pub use journal::{
    Completion, Entry, EntryKind, Executor, Journal, JournalBlock, JournalDamage, JournalFile, JournalFileRole,
    JournalFrame, JournalInspection, JournalOptions, JournalReplay, JournalUsage, Refused, ShardLog, SteppedWriter,
    TornBlock, Vote, WriterNext,
};
pub use manifest::{CHECKPOINT_STATE_BYTES_MAX, Checkpoint, Manifest};
pub use record::{BodyPlace, RecordHead, RecordKind};
pub use records::Records;
pub use scan::{ItemScan, Rows, items_of, rows_of};
pub use segment_set::{Held, SegmentSet};
pub use unsealed::{Slot, Unsealed};
