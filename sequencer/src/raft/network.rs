//! How a shard's replicas reach each other: openraft's network over a [`Transport`].
//!
//! What always holds: every call has the time limit that openraft gives it; a stream of appends reads a request before it fails,
//! because openraft's back-off sits in the request stream (80,000 attempts a second were measured without); what cannot be reached
//! grants nothing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use futures::{FutureExt, StreamExt};
use logstore::id::{NodeId, ShardId};
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, RaftNetworkFactory, RaftNetworkV2};

use crate::raft::state_machine::Manifest;
use crate::raft::types::TypeConfig;
use crate::runtime;

/// Before a peer that could not be reached is tried again.
const BACKOFF: Duration = Duration::from_millis(500);

/// Why a call to a peer has no answer.
pub(crate) type RpcError = RPCError<TypeConfig>;
/// Appends on their way to a replica, in order.
pub(crate) type Appends = BoxStream<'static, AppendEntriesRequest<TypeConfig>>;
/// What became of them, in the same order.
pub(crate) type Appended = BoxStream<'static, Result<StreamAppendResult<TypeConfig>, RpcError>>;
/// An answer on its way.
pub(crate) type Answer<T> = BoxFuture<'static, Result<T, RpcError>>;

/// A replica of a shard on another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) node: NodeId,
    pub(crate) shard: ShardId,
}

/// Carries calls to the replicas of other nodes. What arrives there goes to [`Group`](super::group::Group)'s receiving half.
pub(crate) trait Transport: Send + Sync + 'static {
    /// Appends are sent without waiting for the answers to those before. Ends with the first error.
    fn append(&self, to: Replica, requests: Appends) -> Answer<Appended>;
    /// Asks for a vote.
    fn vote(&self, to: Replica, request: VoteRequest<TypeConfig>) -> Answer<VoteResponse<TypeConfig>>;
    /// Asks whether a vote would be granted.
    fn pre_vote(&self, to: Replica, request: VoteRequest<TypeConfig>) -> Answer<VoteResponse<TypeConfig>>;
    /// Tells a replica that it is to lead.
    fn transfer_leader(
        &self,
        to: Replica,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> Answer<TransferLeaderResponse<TypeConfig>>;
    /// Hands a proposal to the leader of a shard, whose bytes are the caller's business, and gives what it answers.
    ///
    /// Proposals to one node arrive in the order of these calls, whether or not the answers are polled; answers come in any order.
    /// An error says nothing of what became of the proposal. At once if too many wait for an answer.
    #[expect(dead_code, reason = "the proposer hands on to other nodes once there are other nodes")]
    fn propose(&self, to: Replica, proposal: Bytes) -> Answer<Bytes>;
}

/// That a replica could not be reached, in openraft's words.
pub(crate) fn unreachable(to: Replica, why: &str) -> RpcError {
    Unreachable::from_string(format!("shard {} on node {}: {why}", to.shard, to.node)).into()
}

/// Makes connections to a shard's other replicas.
#[derive(Clone)]
pub(crate) struct Peers {
    shard: ShardId,
    /// None: the node is alone.
    transport: Option<Arc<dyn Transport>>,
}

impl Peers {
    /// Of a node that knows no other.
    pub(crate) fn none(shard: ShardId) -> Peers {
        Peers { shard, transport: None }
    }

    /// Through a transport.
    #[cfg(test)]
    pub(crate) fn through(shard: ShardId, transport: Arc<dyn Transport>) -> Peers {
        Peers { shard, transport: Some(transport) }
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _: &BasicNode) -> Peer {
        Peer { to: Replica { node: NodeId(target), shard: self.shard }, transport: self.transport.clone() }
    }
}

/// The way to one peer.
pub(crate) struct Peer {
    to: Replica,
    transport: Option<Arc<dyn Transport>>,
}

impl Peer {
    /// One call, within openraft's limit.
    async fn call<T>(
        &self,
        option: RPCOption,
        call: impl FnOnce(&dyn Transport, Replica) -> Answer<T>,
    ) -> Result<T, RpcError> {
        let Some(transport) = &self.transport else { return Err(unreachable(self.to, "this node is alone")) };
        let limit = option.hard_ttl();
        let answered = runtime::within(limit, call(&**transport, self.to)).await;
        answered.unwrap_or_else(|| Err(unreachable(self.to, &format!("no answer within {limit:?}"))))
    }

    /// A stream of answers that begins when there is a first request.
    async fn append(&self, mut requests: Appends, option: RPCOption) -> Appended {
        let Some(first) = requests.next().await else { return stream::empty().boxed() };
        let requests = stream::iter([first]).chain(requests).boxed();
        match self.call(option, |transport, to| transport.append(to, requests)).await {
            Ok(answers) => answers,
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Manifest;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let mut answers = self.append(stream::iter([request]).boxed(), option).await;
        match answers.next().await {
            Some(answer) => answer.map(AppendEntriesResponse::from),
            None => Err(unreachable(self.to, "the stream ended without an answer")),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        requests: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        async move { Ok(self.append(requests.boxed(), option).await as BoxStream<'s, _>) }.boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.call(option, |transport, to| transport.vote(to, request)).await
    }

    /// Openraft's default would grant.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.call(option, |transport, to| transport.pre_vote(to, request)).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        self.call(option, |transport, to| transport.transfer_leader(to, request)).await
    }

    /// A manifest names segments; nobody fetches them yet, so a replica that lacks purged entries stays behind.
    async fn full_snapshot(
        &mut self,
        _vote: VoteOf<TypeConfig>,
        _snapshot: SnapshotOf<TypeConfig, Manifest>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(Unreachable::from_string(format!("shard {}: segments are not sent to other nodes", self.to.shard)).into())
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}
