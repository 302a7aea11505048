//! What can go wrong when ordering, with the facts inside.

use logstore::id::{Bucket, ConversationId, LogIndex, SeqId, ShardId};

use crate::Capacity;

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
    /// The shard takes nothing for now; its log was not touched.
    #[error("shard {shard} takes nothing for now: {why:?}")]
    Refused {
        /// The shard.
        shard: ShardId,
        /// Why not.
        why: Capacity,
    },
    /// What is asked for lies where the log cannot be read, or is not what was written. Other reads go on.
    #[error("conversation {conversation} of shard {shard} cannot be read: {source}")]
    Unreadable {
        /// The shard.
        shard: ShardId,
        /// Whose records were asked for.
        conversation: ConversationId,
        /// Which file, and where in it.
        source: Box<Error>,
    },
    /// What a generation holds cannot become a segment, and trying again will not help before something is repaired.
    #[error("shard {shard} cannot be sealed (seal {generation}): {what}")]
    CannotSeal {
        /// The shard.
        shard: ShardId,
        /// The oldest seal that has no segment.
        generation: u64,
        /// Why not.
        what: String,
    },
    /// The shard is not hosted here.
    #[error("shard {0} is not on this node")]
    NoSuchShard(ShardId),
    /// Reading around damage, no shard was found that knows which shards there are.
    #[error("no shard on this node has a state that can be read: nothing can be served")]
    NothingSound,
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
    /// A sealed row of state cannot be read.
    #[error("shard {shard}, sealed row {key}: byte {offset}: {what}")]
    Row {
        /// The shard.
        shard: ShardId,
        /// The row's key, in hexadecimal if it cannot be read either.
        key: String,
        /// Where decoding of its value (or of its key) stopped.
        offset: usize,
        /// What was expected there.
        what: &'static str,
    },
    /// Sealed rows of state, each readable, do not make one state.
    #[error("shard {shard}: sealed rows do not make a state: {what}")]
    Rows {
        /// The shard.
        shard: ShardId,
        /// What is wrong.
        what: String,
    },
    /// A record given for the dedup window cannot belong there.
    #[error("shard {shard}, record {seq} of {conversation} in entry {index}: {what}")]
    Window {
        /// The shard.
        shard: ShardId,
        /// The record's conversation.
        conversation: ConversationId,
        /// The record.
        seq: SeqId,
        /// Its entry.
        index: LogIndex,
        /// Why not.
        what: &'static str,
    },
    /// Sealed rows of state cannot be read now.
    #[error("shard {shard}: sealed state cannot be read: {source}")]
    SealedState {
        /// The shard.
        shard: ShardId,
        /// Why not.
        source: std::io::Error,
    },
    /// What is sealed changed every time rows were read.
    #[error("shard {shard}: its sealed state changes faster than it can be read; try again")]
    Restless {
        /// The shard.
        shard: ShardId,
    },
    /// A state store is not what was written: it is only a cache, discard it and make it anew from segments.
    #[error("state store {path} of shard {shard}: {what}")]
    StoreDamaged {
        /// The file, relative to the data directory.
        path: String,
        /// Whose it is.
        shard: ShardId,
        /// What does not fit.
        what: String,
    },
    /// A delta that does not follow what a state store has absorbed.
    #[error("state store {path}: {what}")]
    NotNext {
        /// The file, relative to the data directory.
        path: String,
        /// Why not.
        what: String,
    },
    /// Journal and segments of a shard do not meet: one of them is of another time, or was removed.
    #[error(
        "shard {shard}: its segments reach up to entry {sealed}, and its journal holds entries after {purged} up to {last}: \
         they are not of the same time"
    )]
    Apart {
        /// The shard.
        shard: ShardId,
        /// The last entry in segments; 0: none.
        sealed: LogIndex,
        /// The last entry the journal has let go of.
        purged: LogIndex,
        /// The last entry of the journal.
        last: LogIndex,
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

impl Error {
    /// Whether a part of the log cannot be read, or is not what was written.
    pub fn is_damage(&self) -> bool {
        match self {
            Error::Log(error) => error.is_damage(),
            Error::Unreadable { .. } | Error::Malformed { .. } | Error::Row { .. } | Error::Rows { .. } => true,
            _ => false,
        }
    }

    /// The same, as what keeps a conversation from being read.
    pub fn of_read(self, shard: ShardId, conversation: ConversationId) -> Error {
        if !self.is_damage() || matches!(self, Error::Unreadable { .. }) {
            return self;
        }
        metrics::counter!("skein_damaged_reads_total", "shard" => shard.0.to_string()).increment(1);
        Error::Unreadable { shard, conversation, source: Box::new(self) }
    }
}

/// sequencer's result.
pub type Result<T> = std::result::Result<T, Error>;
