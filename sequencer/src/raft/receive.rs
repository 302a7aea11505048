//! The receiving half of a group: what other nodes' replicas ask of this one.
//!
//! What always holds: whoever leads rightfully is heard by its first word, before anything is synced; a replica that has been
//! started again grants no vote until a lease has passed, because it may have promised one that it has forgotten (openraft keeps leases
//! in memory).

use futures::StreamExt;
use openraft::alias::VoteOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::base::BoxStream;
use openraft::errors::{Fatal, RaftError};
use openraft::raft::{StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse};

use crate::raft::group::{Group, LEASE};
use crate::raft::network::Appends;
use crate::raft::types::TypeConfig;
use crate::runtime::Instant;

impl Group {
    /// Takes what a leader appends. The answers come in the order of the requests, when they are durable here.
    pub(crate) fn receive_appends(
        &self,
        requests: Appends,
    ) -> BoxStream<'static, Result<StreamAppendResult<TypeConfig>, Fatal<TypeConfig>>> {
        let group = self.clone();
        let heard = requests.inspect(move |request| group.hear(&request.vote));
        self.raft().stream_append(heard).boxed()
    }

    /// Answers a candidate.
    pub(crate) async fn receive_vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, RaftError<TypeConfig>> {
        match self.refusal() {
            Some(refused) => Ok(refused),
            None => self.raft().vote(request).await,
        }
    }

    /// Answers somebody who would be a candidate.
    pub(crate) async fn receive_pre_vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, RaftError<TypeConfig>> {
        match self.refusal() {
            Some(refused) => Ok(refused),
            None => self.raft().pre_vote(request).await,
        }
    }

    /// Takes the lead, if the one who has it says so.
    pub(crate) async fn receive_transfer(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Fatal<TypeConfig>> {
        self.raft().handle_transfer_leader(request).await
    }

    /// What a replica answers that does not vote yet; `None` if it does.
    fn refusal(&self) -> Option<VoteResponse<TypeConfig>> {
        let votes_from = self.votes_from()?;
        (Instant::now_here() < votes_from).then(|| VoteResponse::new(self.vote(), None, false))
    }

    fn vote(&self) -> VoteOf<TypeConfig> {
        self.server().borrow_watched().vote
    }

    /// A word of whoever has a vote; of an old leader it counts for nothing.
    fn hear(&self, vote: &VoteOf<TypeConfig>) {
        if *vote >= self.vote() {
            self.heard_now();
        }
    }
}

/// From when on a replica votes that was started now.
pub(super) fn votes_from(is_new: bool) -> Option<Instant> {
    (!is_new).then(|| Instant::now_here() + LEASE)
}
