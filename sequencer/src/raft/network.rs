//! How a shard's replicas reach each other.
//!
//! A node of this version is alone: every other node is unreachable, and says so in the way openraft wants
//! it said. Transport goes behind [`Peers`] when there are several.

use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, Stream};
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, RaftNetworkFactory, RaftNetworkV2};

use crate::raft::state_machine::Manifest;
use crate::raft::types::TypeConfig;

type RpcError = RPCError<TypeConfig>;
type Answers<'s> = BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>;

/// Makes connections to peers.
#[derive(Clone, Default)]
pub(crate) struct Peers {}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer { target, addr: node.addr.clone() }
    }
}

/// The way to one peer.
pub(crate) struct Peer {
    target: u64,
    addr: String,
}

impl Peer {
    fn unreachable(&self) -> Unreachable<TypeConfig> {
        Unreachable::from_string(format!(
            "node {} ({}) cannot be reached from a one-node cluster",
            self.target, self.addr
        ))
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Manifest;

    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        Err(self.unreachable().into())
    }

    /// An error before the first request is read skips openraft's back-off, which sits in the request stream (80,000
    /// attempts a second were measured): read one, then answer with the error.
    fn stream_append<'s, S>(
        &'s mut self,
        mut requests: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<Answers<'s>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let error = RpcError::from(self.unreachable());
        Box::pin(async move {
            let _first = requests.next().await;
            let answers: Answers<'s> = Box::pin(stream::iter([Err(error)]));
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        Err(self.unreachable().into())
    }

    /// Openraft's default would grant.
    async fn pre_vote(
        &mut self,
        _request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        Err(self.unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: VoteOf<TypeConfig>,
        _snapshot: SnapshotOf<TypeConfig, Manifest>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(self.unreachable().into())
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(500))))
    }
}
