//! One shard's Raft group on this node: how it is configured, started, waited for and stopped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use logstore::Journal;
use logstore::id::{LogIndex, NodeId, ShardId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{BasicNode, Config, RaftMetrics, ServerState, SnapshotPolicy};
use parking_lot::Mutex;

use crate::raft::checkpoint::Checkpoint;
use crate::raft::log_store::LogStore;
use crate::raft::network::Peers;
use crate::raft::receive;
use crate::raft::state_machine::StateMachine;
use crate::raft::types::{RaftLeader, TypeConfig, index_of};
use crate::runtime::{self, Instant};
use crate::shard::core::ShardCore;
use crate::{Error, Result};

/// openraft's handle.
pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// How long a leader leads without hearing from a quorum, and a follower keeps from voting.
pub(crate) const LEASE_MS: u64 = 600;
/// The same.
pub(super) const LEASE: Duration = Duration::from_millis(LEASE_MS);
/// How often a group is looked at while it starts: openraft's metrics have no event for "applied in this term".
const START_POLL: Duration = Duration::from_millis(1);
/// A start that makes no progress for so long has failed.
const START_STALL_MS: u64 = 60_000;

/// A running group.
#[derive(Clone)]
pub(crate) struct Group {
    shard: ShardId,
    node: NodeId,
    raft: Raft,
    server: WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>,
    /// When a leader was last heard.
    heard: Arc<Mutex<Instant>>,
    /// None: from the beginning.
    votes_from: Option<Instant>,
}

/// A group's figures.
pub(crate) struct GroupStatus {
    pub(crate) leading: bool,
    pub(crate) term: u64,
    pub(crate) last_index: LogIndex,
}

impl Group {
    /// Replays what is committed and starts Raft. The group neither leads nor follows yet: the ticker elects.
    ///
    /// The core's state is as of `checkpoint`: what is replayed is above it.
    pub(crate) async fn start(
        node: NodeId,
        journal: Journal,
        core: Arc<ShardCore>,
        checkpoint: Option<Checkpoint>,
        peers: Peers,
    ) -> Result<Group> {
        let shard = core.shard();
        let votes_from = receive::votes_from(journal.shard_log(shard).vote.is_none());
        let log = LogStore::new(journal, core.clone());
        let config = Arc::new(config().validate().map_err(|e| failed(shard, &e))?);
        let raft = Raft::new(node.0, config, peers, log, StateMachine::new(core, checkpoint)).await;
        let raft = raft.map_err(|e| failed(shard, &e))?;
        let heard = Arc::new(Mutex::new(Instant::now_here()));
        Ok(Group { shard, node, server: raft.server_metrics(), raft, heard, votes_from })
    }

    /// Makes these nodes its voters, unless the group has members already. All of a new group may do that, with the same voters.
    pub(crate) async fn initialize(&self, voters: &[NodeId]) -> Result<()> {
        if self.raft.is_initialized().await.map_err(|e| failed(self.shard, &e))? {
            return Ok(());
        }
        let members: BTreeMap<_, _> = voters.iter().map(|node| (node.0, BasicNode::default())).collect();
        match self.raft.initialize(members).await {
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            made => made.map_err(|e| failed(self.shard, &e)),
        }
    }

    /// Waits until this node leads and has applied an entry of its own term, hence everything committed before.
    pub(crate) async fn recovered(&self) -> Result<()> {
        let mut seen = (None, 0);
        loop {
            let metrics = self.metrics();
            metrics.running_state.as_ref().map_err(|e| failed(self.shard, e))?;
            if has_recovered(&metrics) {
                return Ok(());
            }
            seen = progress(seen, metrics.last_applied.map(|id| id.index));
            if seen.1 > START_STALL_MS {
                return Err(Error::Timeout { shard: self.shard, what: "recover", ms: START_STALL_MS });
            }
            runtime::sleep(START_POLL).await;
        }
    }

    /// The term this node leads in, if it does.
    pub(crate) fn leading_term(&self) -> Option<u64> {
        let server = self.server.borrow_watched();
        (server.state == ServerState::Leader).then_some(server.vote.leader_id.term)
    }

    /// Whether this node is the group's only voter: then it may lead at once.
    pub(crate) fn is_only_voter(&self) -> bool {
        let server = self.server.borrow_watched();
        let mut voters = server.membership_config.membership().voter_ids();
        voters.next() == Some(self.node.0) && voters.next().is_none()
    }

    /// Whether this node votes in the group.
    pub(crate) fn is_voter(&self) -> bool {
        self.server.borrow_watched().membership_config.membership().voter_ids().any(|id| id == self.node.0)
    }

    /// Whether any node follows this one.
    pub(crate) fn has_followers(&self) -> bool {
        self.server.borrow_watched().membership_config.membership().nodes().nth(1).is_some()
    }

    /// When a leader was last heard here.
    pub(crate) fn heard(&self) -> Instant {
        *self.heard.lock()
    }

    /// A leader is heard.
    pub(super) fn heard_now(&self) {
        *self.heard.lock() = Instant::now_here();
    }

    /// From when on this replica votes; `None` if it always did.
    pub(super) fn votes_from(&self) -> Option<Instant> {
        self.votes_from
    }

    /// What openraft says of it, without asking.
    pub(super) fn server(&self) -> &WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>> {
        &self.server
    }

    /// openraft's handle.
    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The shard.
    pub(crate) fn shard(&self) -> ShardId {
        self.shard
    }

    /// Figures for people.
    pub(crate) fn status(&self) -> GroupStatus {
        let metrics = self.metrics();
        GroupStatus {
            leading: metrics.running_state.is_ok() && metrics.state == ServerState::Leader,
            term: metrics.current_term,
            last_index: metrics.last_log_index.map_or(LogIndex(0), index_of),
        }
    }

    /// Entries up to `checkpoint` are held by published segments: those up to `upto` need not stay in the journal.
    pub(crate) async fn purge(&self, upto: LogIndex) -> Result<()> {
        // Without a snapshot openraft purges nothing, and says Ok.
        self.raft.trigger().snapshot().await.map_err(|e| failed(self.shard, &e))?;
        match upto.0.checked_sub(1) {
            Some(upto) => self.raft.trigger().purge_log(upto).await.map_err(|e| failed(self.shard, &e)),
            None => Ok(()),
        }
    }

    /// Stops Raft.
    pub(crate) async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(shard = self.shard.0, %error, "a Raft group did not stop cleanly");
        }
    }

    fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.raft.metrics().borrow_watched().clone()
    }
}

/// Every value that differs from openraft's default, and why.
fn config() -> Config {
    Config {
        cluster_name: "skein".to_string(),
        // The node's ticker beats and elects for all groups: ticks of 64 groups cost 11-16 % of a core.
        enable_tick: false,
        election_timeout_min: 500,
        election_timeout_max: LEASE_MS,
        // With ticks off, only the time limit of one heartbeat call.
        heartbeat_interval: 400,
        enable_pre_vote: Some(true),
        // A leader that lost its unsynced tail must not go on in the same term: it would reuse log ids.
        enable_leader_restore: Some(false),
        // Snapshots are manifests made at seals; a follower never gets one because it lags.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX / 2,
        replication_lag_threshold: u64::MAX / 2,
        // Entries are batches of up to 64 KiB; the reader bounds a request in bytes as well.
        max_payload_entries: 64,
        // A proposer has two entries in flight: the rest is room for votes and triggers.
        api_channel_size: Some(1024),
        ..Config::default()
    }
}

fn has_recovered(metrics: &RaftMetrics<TypeConfig>) -> bool {
    let applied_in = metrics.last_applied.as_ref().map(|id| *id.leader_id);
    metrics.state == ServerState::Leader && applied_in == Some(metrics.current_term)
}

/// Counts polls since the applied index last moved.
fn progress(seen: (Option<u64>, u64), applied: Option<u64>) -> (Option<u64>, u64) {
    if seen.0 == applied { (applied, seen.1 + START_POLL.as_millis() as u64) } else { (applied, 0) }
}

/// The leader of a term, as writes are fenced by it.
pub(crate) fn leader_of(term: u64) -> RaftLeader {
    RaftLeader::from(term)
}

fn failed(shard: ShardId, error: &dyn std::fmt::Display) -> Error {
    Error::Raft { shard, what: error.to_string() }
}
