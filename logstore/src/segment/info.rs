//! What is said of a segment without reading it, and the sizes of what is made.

use super::footer::{Counts, Footer};
use super::format::{Identity, SegmentId, Span, file_name, shard_dir};
use crate::id::TimeMs;

/// What a segment holds and where, as its footer and the manifest state it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// What it holds of which log.
    pub span: Span,
    /// Its content.
    pub identity: Identity,
    /// The length of its file.
    pub file_bytes: u64,
    /// How much of what it holds.
    pub counts: Counts,
    /// The log's time at its last Seal.
    pub log_time: TimeMs,
    /// The lowest time of a record; 0 if there is none.
    pub first_time: TimeMs,
    /// The highest time of a record; 0 if there is none.
    pub last_time: TimeMs,
}

impl SegmentInfo {
    pub(super) fn new(footer: &Footer, file_bytes: u64) -> SegmentInfo {
        SegmentInfo {
            span: footer.span,
            identity: footer.identity,
            file_bytes,
            counts: footer.counts,
            log_time: footer.log_time,
            first_time: footer.first_time,
            last_time: footer.last_time,
        }
    }

    /// Its name among the segments of its shard.
    pub fn id(&self) -> SegmentId {
        let Span { first, last, level, .. } = self.span;
        SegmentId { first, last, level, identity: self.identity }
    }

    /// Its file, relative to the data directory.
    pub fn path(&self) -> String {
        format!("{}/{}", shard_dir(self.span.shard), file_name(&self.span, &self.identity))
    }
}

/// How a file is made. Content and identity do not depend on it.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// A block of records ends before it would be longer than this, uncompressed; between conversations it ends at half of
    /// it. Two reads of it are one page; smaller ones compress worse.
    pub block_bytes: usize,
    /// A block of state rows ends before it would be longer than this, uncompressed: a look-up wants one row.
    pub delta_block_bytes: usize,
    /// How hard zstd tries. 1 is several times faster than what follows, and chat gains little by more.
    pub zstd_level: i32,
    /// What each of nine sections may take of memory before it continues in a temporary file.
    pub spool_bytes: usize,
    /// A sync is asked for after so many bytes, so that the last one is not a burst.
    pub sync_bytes: u64,
}

impl Default for BuildOptions {
    fn default() -> Self {
        BuildOptions {
            block_bytes: 64 << 10,
            delta_block_bytes: 16 << 10,
            zstd_level: 1,
            spool_bytes: 4 << 20,
            sync_bytes: 8 << 20,
        }
    }
}
