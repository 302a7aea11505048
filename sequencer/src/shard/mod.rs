//! Shards as the parts above see them: propose, read, follow.

mod answer;
mod around;
mod compact;
pub(crate) mod core;
mod cut;
mod handle;
mod history;
mod host;
mod look;
mod look_up;
mod outbox;
mod pipeline;
mod proposer;
mod removed;
mod sealing;
mod staging;
mod tail;

use std::time::Duration;

use bytes::Bytes;
use logstore::RecordHead;
use logstore::id::{ConnectionId, HistoryId, LogIndex, NodeId, ShardId};

use crate::{Command, Outcome};

pub use compact::CompactPlan;
pub use cut::Cut;
pub use handle::Shard;
pub use host::Sequencer;
pub(crate) use host::even_table;
pub(crate) use sealing::ReplayedShard;
pub use tail::{TailBatch, TailReader, TailStep};

/// How a node's shards are run.
#[derive(Clone, Debug)]
pub struct SequencerOptions {
    /// This node.
    pub node: NodeId,
    /// How many shards a new cluster has.
    pub shards: u16,
    /// The history of a new cluster.
    pub history: HistoryId,
    /// Most bytes of commands in one entry.
    pub entry_bytes_max: usize,
    /// Entries of one shard in flight.
    pub entries_in_flight: usize,
    /// Most commands queued at one proposer.
    pub queue_commands_max: usize,
    /// Most bytes queued at one proposer.
    pub queue_bytes_max: usize,
    /// Bytes of applied entries each shard keeps for tail readers.
    pub tail_bytes: usize,
    /// Bytes of entries after which a generation is sealed.
    pub seal_bytes: u64,
    /// Log time after which a generation is sealed that is not that large.
    pub seal_age: Duration,
    /// Bytes of entries a shard may hold that are not in segments: beyond, that shard refuses messages.
    pub unsealed_bytes_max: u64,
    /// Most bytes a second that making segments writes, all shards together.
    pub seal_bytes_per_second: u64,
    /// Whether entries stay in the journal after they are sealed, as long as its files have a place for them: for saves that tell
    /// what came between two of them.
    pub keeps_sealed: bool,
    /// So many consecutive seals are merged into one segment, 2 to 64.
    pub merge_inputs: usize,
    /// Bodies that were trimmed or recalled are gone from segments after this, if no merge comes before.
    pub drop_within: Duration,
    /// Bytes of sealed rows of state kept in memory, all shards together.
    pub row_cache_bytes: u64,
    /// Bytes of sealed blocks kept in memory, all shards together.
    pub block_cache_bytes: u64,
}

/// Why a proposal was refused before it was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// The proposer's queue is full.
    QueueFull,
    /// No room in the journal that is certain, or too much of the shard is not sealed.
    NoSpace,
    /// An earlier command of the same pipeline was not taken.
    PredecessorFailed,
    /// The node is stopping or no longer leads the shard.
    NotLeading,
    /// The node reads around damage: it takes nothing new.
    ReadOnly,
    /// Whether it is a retry is written where the log cannot be read any more; or acknowledged entries of the shard are lost, and it
    /// takes nothing new.
    Damaged,
}

impl Capacity {
    /// When to try again.
    pub fn retry_after(self) -> Duration {
        match self {
            Capacity::QueueFull => Duration::from_millis(50),
            Capacity::NoSpace => Duration::from_secs(5),
            Capacity::PredecessorFailed => Duration::ZERO,
            Capacity::NotLeading => Duration::from_millis(200),
            Capacity::Damaged | Capacity::ReadOnly => Duration::from_secs(60),
        }
    }
}

/// A command's place in its sender's pipeline: epoch is (connection, counter), `n` counts 1, 2, 3, ... within
/// (epoch, conversation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipelineSlot {
    /// The sender's connection.
    pub connection: ConnectionId,
    /// Chosen by the client; a higher one begins anew.
    pub epoch: u32,
    /// Place in (epoch, conversation), from 1.
    pub n: u64,
}

/// What became of a proposal: one result per command, in order.
pub type ProposalResult = Vec<std::result::Result<Outcome, Capacity>>;

/// Commands proposed together; they keep their order.
pub struct Proposal {
    /// The commands.
    pub commands: Vec<Command>,
    /// One per command for sends, empty for everything else.
    pub pipeline: Vec<PipelineSlot>,
    /// Called once with the results, on a worker of the sequencer: it must not block.
    pub reply: Box<dyn FnOnce(ProposalResult) + Send>,
}

/// A record with its body, as history returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What apply stated.
    pub head: RecordHead,
    /// Its body; empty if it was removed, which the head's [`BodyPlace`](logstore::BodyPlace) says.
    pub body: Bytes,
}

/// Figures of a shard for people.
#[derive(Clone, Debug, Default)]
pub struct ShardStatus {
    /// The shard.
    pub shard: ShardId,
    /// Whether this node leads it.
    pub leading: bool,
    /// The term.
    pub term: u64,
    /// Last entry appended.
    pub last_index: LogIndex,
    /// Last entry applied.
    pub applied: LogIndex,
    /// Records not sealed.
    pub unsealed_records: u64,
    /// Conversations known.
    pub conversations: u64,
    /// Buckets owned.
    pub buckets: u32,
    /// Digest of the state at `applied`, if it was asked for.
    pub digest: Option<u128>,
    /// What is wrong with it, in words for people: why it cannot be sealed, say.
    pub troubles: Vec<String>,
}
