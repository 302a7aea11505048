//! The types openraft is built from, and what they are called in our log.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use logstore::id::{LogId, LogIndex, NodeId, Term};
use openraft::raft::responder::Responder;
use openraft::vote::RaftLeaderId;
use openraft::{BasicNode, OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::runtime::Runtime;
use crate::shard::TailBatch;

/// One shard's Raft group. At most one leader per term, so that a log id is (term, index).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig {}

impl RaftTypeConfig for TypeConfig {
    type D = Payload;
    type R = Response;
    type NodeId = u64;
    type Node = BasicNode;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Payload, u64, BasicNode>;
    type Entry = openraft::Entry<<Self::LeaderId as RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = OnComplete<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// An entry as openraft sees it.
pub(crate) type RaftEntry = openraft::alias::EntryOf<TypeConfig>;
/// An entry's payload as openraft sees it.
pub(crate) type RaftPayload = openraft::alias::EntryPayloadOf<TypeConfig>;
/// A log id as openraft sees it.
pub(crate) type RaftLogId = openraft::alias::LogIdOf<TypeConfig>;
/// A vote as openraft sees it.
pub(crate) type RaftVote = openraft::alias::VoteOf<TypeConfig>;
/// A leader, as log ids name it.
pub(crate) type RaftLeader = openraft::alias::CommittedLeaderIdOf<TypeConfig>;
/// Who votes.
pub(crate) type RaftMembership = openraft::Membership<u64, BasicNode>;
/// What a write ends in.
pub(crate) type WriteResult = openraft::raft::ClientWriteResult<TypeConfig>;

/// The commands of one entry, encoded. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// openraft asks for serde; our journal and network carry the bytes themselves.
impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(|bytes| Payload(Bytes::from(bytes)))
    }
}

/// What applying an entry did, shared with the tail; `None` for entries without commands. It never
/// leaves the process: a remote proposer is answered by our own RPC, not by openraft's forwarding.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Response {
    #[serde(skip)]
    pub(crate) batch: Option<Arc<TailBatch>>,
}

/// Calls back when a write is applied or refused. Dropped uncalled when Raft dies: what it captured must
/// then answer by itself.
pub struct OnComplete<T>(Box<dyn FnOnce(T) + Send>);

impl<T> OnComplete<T> {
    /// The callback runs on the task that applied the entry: it must not block.
    pub(crate) fn new(call: impl FnOnce(T) + Send + 'static) -> OnComplete<T> {
        OnComplete(Box::new(call))
    }
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for OnComplete<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// Our index of an openraft index.
pub(crate) fn index_of(raft_index: u64) -> LogIndex {
    LogIndex(raft_index + 1)
}

/// Our log id of openraft's. Terms have one leader, so the leader is not part of it: it is written as node 0, nobody.
pub(crate) fn log_id_of(id: &RaftLogId) -> LogId {
    LogId { term: Term(*id.leader_id), leader: NodeId(0), index: index_of(id.index) }
}

/// openraft's log id of ours.
pub(crate) fn raft_log_id_of(id: LogId) -> RaftLogId {
    debug_assert!(id.index.0 > 0, "index 0 is before the first entry");
    RaftLogId { leader_id: RaftLeader::from(id.term.0), index: id.index.0.saturating_sub(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_ids_survive_the_way_to_the_journal_and_back() {
        for (term, index) in [(0, 0), (1, 0), (7, 41), (u64::MAX, u64::MAX - 1)] {
            let id = RaftLogId { leader_id: RaftLeader::from(term), index };
            assert_eq!(raft_log_id_of(log_id_of(&id)), id);
        }
    }
}
