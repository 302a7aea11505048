//! What can go wrong with bytes, with the facts inside.

use crate::id::{LogIndex, ShardId};

/// Every way logstore can fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{operation} {path}: {source}")]
    Io {
        /// What was attempted: "open", "read", "write", "sync", ...
        operation: &'static str,
        /// The file, relative to the data directory.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Bytes below a proven offset do not verify: rot, never cut.
    #[error(
        "rot in {path} at offset {offset}: {what} (shards and entries affected: {affected}); \
             this is not a torn tail and is never cut; repair: {repair}"
    )]
    Rot {
        /// The file, relative to the data directory.
        path: String,
        /// Byte offset of the bad block.
        offset: u64,
        /// What did not verify.
        what: String,
        /// Shards and index ranges that lie there, as far as neighbours tell.
        affected: String,
        /// The command that repairs.
        repair: String,
    },
    /// A file is of a format this program does not know.
    #[error("{path} has format version {found}; this program reads up to {known}: use a newer skein")]
    NewerFormat {
        /// The file.
        path: String,
        /// Its version.
        found: u32,
        /// The newest we read.
        known: u32,
    },
    /// A file is not what its name says.
    #[error("{path} is not a Skein journal file: {what}")]
    NotOurs {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// Entries asked for are not in the journal.
    #[error("shard {shard}: entry {index} is not in the journal")]
    NoSuchEntry {
        /// The shard.
        shard: ShardId,
        /// The first missing index.
        index: LogIndex,
    },
    /// A setting that cannot work.
    #[error("journal: {0}")]
    BadOptions(String),
    /// The journal has stopped after a failed write or sync; nothing more is accepted.
    #[error("the journal has stopped: {0}")]
    Stopped(String),
}

/// logstore's result.
pub type Result<T> = std::result::Result<T, Error>;
