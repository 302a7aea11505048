//! What can go wrong with bytes, with the facts inside.

use crate::id::{ConversationId, LogIndex, SeqId, ShardId};
use crate::segment::{InputError, Section, SegmentId};

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
    #[error("{path} is not what its name says: {what}")]
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
    /// Bytes of a sealed file do not verify: rot. Nothing else of the file is affected.
    #[error(
        "rot in {path} at offset {offset} ({section}): {what} (shard {shard}, entries after {after} up to {upto}); \
             nothing was changed; repair: copy the segment of this identity from a peer or a backup"
    )]
    SegmentRot {
        /// The file, relative to the data directory.
        path: String,
        /// Byte offset of what is bad.
        offset: u64,
        /// The part of the file that it lies in.
        section: Section,
        /// What did not verify.
        what: String,
        /// The shard whose log the file holds.
        shard: ShardId,
        /// The segment holds the entries above this one,
        after: LogIndex,
        /// up to and including this one.
        upto: LogIndex,
    },
    /// A manifest lists a segment that is not there.
    #[error(
        "{path} is missing: {manifest} lists it as segment {segment} of shard {shard}; nothing was changed; \
             repair: copy it from a peer or a backup"
    )]
    MissingSegment {
        /// The file that is not there.
        path: String,
        /// The manifest that lists it.
        manifest: String,
        /// The shard.
        shard: ShardId,
        /// What the file would hold.
        segment: SegmentId,
    },
    /// A shard has segments, but no manifest that lists them.
    #[error(
        "{path} is missing, and shard {shard} has {segments} segments; nothing was changed; \
             repair: copy it from a peer or a backup"
    )]
    MissingManifest {
        /// The file that is not there.
        path: String,
        /// The shard.
        shard: ShardId,
        /// How many segments lie beside it.
        segments: usize,
    },
    /// A manifest does not verify, or says what cannot be.
    #[error(
        "rot in {path} (manifest of shard {shard}): {what}; nothing was changed; \
             repair: copy it from a peer or a backup"
    )]
    ManifestRot {
        /// The file, relative to the data directory.
        path: String,
        /// The shard.
        shard: ShardId,
        /// What is wrong.
        what: String,
    },
    /// A sealed file, or a manifest, is in the place of another.
    #[error(
        "{path} is not the file that belongs there: its {what} is {found}, expected {expected}; nothing was changed"
    )]
    Misplaced {
        /// The file.
        path: String,
        /// What tells: "shard", "identity", "log range", ...
        what: &'static str,
        /// What it says.
        found: String,
        /// What belongs there.
        expected: String,
    },
    /// What is asked for lies in a segment that is left out, because it cannot be read.
    #[error("what {conversation} holds from {first} to {last} may lie in a segment that is left out: {left_out}")]
    LeftOut {
        /// The conversation.
        conversation: ConversationId,
        /// From here,
        first: SeqId,
        /// up to here.
        last: SeqId,
        /// Why the segment cannot be read.
        left_out: String,
    },
    /// A merge plan is not one of the segments that are there.
    #[error("cannot merge ({plan}): {what}")]
    BadPlan {
        /// The plan in words.
        plan: String,
        /// What does not fit.
        what: String,
    },
    /// What was to be sealed is not what a segment can hold. Nothing was written under a final name.
    #[error("cannot seal: {0}")]
    Input(#[from] InputError),
    /// What was to be read or sealed could not be had from where it comes from.
    #[error("{0}")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Whoever asked for the work wants it no more.
    #[error("given up before it was done")]
    Cancelled,
    /// A setting that cannot work.
    #[error("journal: {0}")]
    BadOptions(String),
    /// The journal has stopped after a failed write or sync; nothing more is accepted.
    #[error("the journal has stopped: {0}")]
    Stopped(String),
}

impl Error {
    /// Whether a file cannot be read, or is not what was written. What else is on the disk may be as it was.
    pub fn is_damage(&self) -> bool {
        match self {
            Error::Io { operation, .. } => matches!(*operation, "open" | "measure" | "read" | "map"),
            Error::Rot { .. }
            | Error::SegmentRot { .. }
            | Error::ManifestRot { .. }
            | Error::MissingSegment { .. }
            | Error::MissingManifest { .. }
            | Error::Misplaced { .. }
            | Error::NotOurs { .. }
            | Error::NewerFormat { .. }
            | Error::LeftOut { .. } => true,
            _ => false,
        }
    }
}

/// logstore's result.
pub type Result<T> = std::result::Result<T, Error>;
