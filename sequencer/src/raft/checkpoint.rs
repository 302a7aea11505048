//! Up to where a replica's sealed segments reach, as Raft knows that place: what a restart begins from.
//!
//! What always holds: decoding never panics and checks every length before it takes memory.
//!
//! ```text
//! checkpoint  0   1        9        17           18        26        34
//!             +---+--------+--------+------------+---------+---------+------------------+
//!             | 1 | term   | index  | has        | term    | index   | membership:      |    of the Seal, then of the membership
//!             | u8| u64    | u64    | membership | u64     | u64     | see `membership` |    in force there, if any ever was
//!             +---+--------+--------+------------+---------+---------+------------------+
//! ```
//!
//! Numbers are little-endian; indexes count from 1, as everywhere in our log.

use bytes::{Buf, BufMut};
use logstore::id::{LogId, LogIndex, NodeId, Term};
use openraft::alias::StoredMembershipOf;

use crate::raft::membership::{decode_membership, encode_membership};
use crate::raft::types::{RaftLogId, TypeConfig, log_id_of, raft_log_id_of};

/// Who votes, and the entry that said so.
pub(crate) type Membership = StoredMembershipOf<TypeConfig>;

const VERSION: u8 = 1;

/// The place of a `Seal` in the log, and the membership there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The entry of the `Seal`.
    pub(crate) sealed: RaftLogId,
    /// In force at that entry.
    pub(crate) membership: Membership,
}

impl Checkpoint {
    /// The bytes drawn above.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_log_id(&mut out, &self.sealed);
        match self.membership.log_id() {
            None => out.put_u8(0),
            Some(id) => {
                out.put_u8(1);
                put_log_id(&mut out, id);
                out.put_slice(&encode_membership(self.membership.membership()));
            }
        }
        out
    }

    /// `None` if the bytes are not a checkpoint.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Checkpoint> {
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let sealed = take_log_id(&mut bytes)?;
        let membership = match bytes.try_get_u8().ok()? {
            0 if bytes.is_empty() => Membership::default(),
            1 => Membership::new(Some(take_log_id(&mut bytes)?), decode_membership(bytes)?),
            _ => return None,
        };
        Some(Checkpoint { sealed, membership })
    }

    /// The entry of the `Seal` in our log.
    pub(crate) fn index(&self) -> LogIndex {
        log_id_of(&self.sealed).index
    }
}

fn put_log_id(out: &mut Vec<u8>, id: &RaftLogId) {
    let id = log_id_of(id);
    out.put_u64_le(id.term.0);
    out.put_u64_le(id.index.0);
}

fn take_log_id(bytes: &mut &[u8]) -> Option<RaftLogId> {
    let (term, index) = (bytes.try_get_u64_le().ok()?, bytes.try_get_u64_le().ok()?);
    (index > 0).then(|| raft_log_id_of(LogId { term: Term(term), leader: NodeId(0), index: LogIndex(index) }))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::BasicNode;
    use proptest::prelude::*;

    use super::*;
    use crate::raft::types::RaftMembership;

    fn log_id(term: u64, index: u64) -> RaftLogId {
        raft_log_id_of(LogId { term: Term(term), leader: NodeId(0), index: LogIndex(index) })
    }

    fn checkpoints() -> [Checkpoint; 2] {
        let nodes = BTreeMap::from([(7, BasicNode { addr: "10.0.0.7:7400".to_owned() })]);
        let members = RaftMembership::new(vec![BTreeSet::from([7])], nodes).unwrap();
        let membership = Membership::new(Some(log_id(1, 1)), members);
        [
            Checkpoint { sealed: log_id(3, 41), membership: Membership::default() },
            Checkpoint { sealed: log_id(3, 41), membership },
        ]
    }

    #[test]
    fn a_checkpoint_survives_its_bytes() {
        for checkpoint in checkpoints() {
            assert_eq!(Checkpoint::decode(&checkpoint.encode()), Some(checkpoint));
        }
    }

    #[test]
    fn a_checkpoint_cut_anywhere_is_refused() {
        for bytes in checkpoints().map(|checkpoint| checkpoint.encode()) {
            for cut in 0..bytes.len() {
                assert_eq!(Checkpoint::decode(&bytes[..cut]), None, "cut at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Checkpoint::decode(&bytes);
        }
    }
}
