//! What can go wrong when ordering, with the facts inside.

use logstore::id::{Bucket, LogIndex, ShardId};

/// Every way the sequencer can fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log below failed.
    #[error(transparent)]
    Log(#[from] logstore::Error),
    /// Consensus failed or has stopped.
    #[error("shard {shard}: {what}")]
    Raft {
        /// The shard.
        shard: ShardId,
        /// What openraft said.
        what: String,
    },
    /// The shard is not hosted here.
    #[error("shard {0} is not on this node")]
    NoSuchShard(ShardId),
    /// No shard here owns a bucket: a part of the cluster's shards is missing from this journal.
    #[error("no shard on this node owns bucket {0}")]
    NoOwner(Bucket),
    /// The operating system gave no thread, or one of ours ended.
    #[error("the {what} thread: {source}")]
    Thread {
        /// What it is for.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// An entry's payload does not decode.
    #[error("shard {shard}, entry {index}: byte {offset}: {what}")]
    Malformed {
        /// The shard.
        shard: ShardId,
        /// The entry.
        index: LogIndex,
        /// Where decoding stopped.
        offset: usize,
        /// What was expected.
        what: &'static str,
    },
    /// The shard did not answer in time.
    #[error("shard {shard} did not {what} within {ms} ms")]
    Timeout {
        /// The shard.
        shard: ShardId,
        /// What was waited for.
        what: &'static str,
        /// How long.
        ms: u64,
    },
}

/// sequencer's result.
pub type Result<T> = std::result::Result<T, Error>;
