//! Shards as the parts above see them: propose, read, follow.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use logstore::id::{ConnectionId, ConversationId, HistoryId, LogIndex, NodeId, SeqId, ShardId};
use logstore::{Journal, RecordHead, Unsealed};

use crate::state::ShardState;
use crate::{Applied, Clock, Command, Outcome, Result};

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
    /// Bytes of accepted records after which a generation is sealed.
    pub seal_bytes: u64,
}

/// Why a proposal was refused before it was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// The proposer's queue is full.
    QueueFull,
    /// No room in the journal that is certain.
    NoSpace,
    /// An earlier command of the same pipeline was not taken.
    PredecessorFailed,
    /// The node is stopping or no longer leads the shard.
    NotLeading,
}

impl Capacity {
    /// When to try again.
    pub fn retry_after(self) -> Duration {
        match self {
            Capacity::QueueFull => Duration::from_millis(50),
            Capacity::NoSpace => Duration::from_secs(5),
            Capacity::PredecessorFailed => Duration::ZERO,
            Capacity::NotLeading => Duration::from_millis(200),
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

/// One applied entry as tail readers see it.
#[derive(Clone, Debug)]
pub struct TailBatch {
    /// What it did.
    pub applied: Applied,
    /// The entry's payload; bodies are slices of it.
    pub payload: Bytes,
}

impl TailBatch {
    /// The body of one of `applied.records`, without copying.
    pub fn body(&self, record: usize) -> Bytes {
        let _ = record;
        unimplemented!()
    }
}

/// What a tail reader gets.
pub enum TailStep {
    /// The next applied entries, in order.
    Batches(Vec<Arc<TailBatch>>),
    /// The reader fell behind what is kept: it continues above `floor`.
    Reset {
        /// Everything up to here has to be read from the log.
        floor: LogIndex,
    },
}

/// Follows one shard's applied entries.
pub struct TailReader {}

impl TailReader {
    /// The next step; waits for one. `None` when the shard has stopped.
    pub async fn next(&mut self) -> Option<TailStep> {
        unimplemented!()
    }
}

/// A record with its body, as history returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What apply stated.
    pub head: RecordHead,
    /// Its body.
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
    /// Digest of the state at `applied`.
    pub digest: u128,
}

/// One shard on this node.
pub struct Shard {}

impl Shard {
    /// Its id.
    pub fn id(&self) -> ShardId {
        unimplemented!()
    }

    /// Hands commands to the proposer. Never waits and never fails silently: a refusal comes through `reply` too.
    pub fn propose(&self, proposal: Proposal) {
        let _ = proposal;
        unimplemented!()
    }

    /// Proposes one command and waits for its outcome.
    pub async fn execute(&self, command: Command) -> std::result::Result<Outcome, Capacity> {
        let _ = command;
        unimplemented!()
    }

    /// Looks at applied state; keep it short, apply waits meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&ShardState, &Unsealed) -> T) -> T {
        let _ = look;
        unimplemented!()
    }

    /// Waits until `look` gives `Some`, asked anew after every applied entry; `None` after `limit`.
    pub async fn wait_for<T>(&self, limit: Duration, look: impl FnMut(&ShardState) -> Option<T> + Send) -> Option<T> {
        let _ = (limit, look);
        unimplemented!()
    }

    /// The last entry applied.
    pub fn applied(&self) -> LogIndex {
        unimplemented!()
    }

    /// Follows applied entries above `after` (everything kept, if it is older than that, begins with a `Reset`).
    pub fn tail(&self, after: LogIndex) -> TailReader {
        let _ = after;
        unimplemented!()
    }

    /// Records `from..=to` of a conversation, ascending, at most `records_max` of them and about `bytes_max` bytes of
    /// bodies (at least one record if there is any). No authorisation: callers clip to what the reader may see.
    pub async fn history(
        &self,
        conversation: ConversationId,
        from: SeqId,
        to: SeqId,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>> {
        let _ = (conversation, from, to, records_max, bytes_max);
        unimplemented!()
    }

    /// Commits a probe and says how long that took.
    pub async fn probe(&self) -> Result<Duration> {
        unimplemented!()
    }

    /// Figures for people.
    pub fn status(&self) -> ShardStatus {
        unimplemented!()
    }
}

/// All shards of this node.
pub struct Sequencer {}

impl Sequencer {
    /// Opens the shards found in the journal (or creates `options.shards` of them), replays what is not sealed, elects, and
    /// starts proposers and outbox pumps.
    pub async fn open(options: SequencerOptions, journal: Journal, clock: Arc<dyn Clock>) -> Result<Arc<Sequencer>> {
        let _ = (options, journal, clock);
        unimplemented!()
    }

    /// All shards here, by id.
    pub fn shards(&self) -> &[Arc<Shard>] {
        unimplemented!()
    }

    /// The shard that owns a conversation's bucket.
    pub fn shard_of(&self, conversation: ConversationId) -> &Arc<Shard> {
        let _ = conversation;
        unimplemented!()
    }

    /// The cluster's history.
    pub fn history(&self) -> HistoryId {
        unimplemented!()
    }

    /// Stops proposers, lets what is in flight finish, stops Raft. The journal stays the caller's to close.
    pub async fn shutdown(&self) {
        unimplemented!()
    }
}
