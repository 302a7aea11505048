//! The bytes of a vote and of a membership entry, as the journal keeps them.
//!
//! What always holds: decoding never panics and checks every length before it takes memory.
//!
//! ```text
//! vote        0   1       2         10        18
//!             +---+-------+---------+---------+     committed: 1 once a quorum has granted it
//!             | 1 | commi | term    | node    |     (version, then little-endian)
//!             | u8| tted  | u64     | u64     |
//!             +---+-------+---------+---------+
//!
//! membership  0   1          3         5
//!             +---+----------+---------+---------------------------------+--------------------------------------+
//!             | 1 | configs  | nodes   | configs x { voters u16,         | nodes x { id u64, addr_len u16,      |
//!             | u8| u16      | u16     |             voters x id u64 }   |           addr UTF-8 }               |
//!             +---+----------+---------+---------------------------------+--------------------------------------+
//! ```
//!
//! Two configs are a joint one. A node in no config is a learner. Ids ascend.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes};
use openraft::BasicNode;

use crate::raft::types::{RaftMembership, RaftVote};

const VERSION: u8 = 1;
/// Version, committed, term, node.
const VOTE_BYTES: usize = 18;

/// A vote's bytes.
pub(crate) fn encode_vote(vote: &RaftVote) -> Bytes {
    let mut out = Vec::with_capacity(VOTE_BYTES);
    out.put_u8(VERSION);
    out.put_u8(u8::from(vote.committed));
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.voted_for);
    Bytes::from(out)
}

/// `None` if the bytes are not a vote.
pub(crate) fn decode_vote(mut bytes: &[u8]) -> Option<RaftVote> {
    if bytes.len() != VOTE_BYTES || bytes.get_u8() != VERSION {
        return None;
    }
    let committed = match bytes.get_u8() {
        0 => false,
        1 => true,
        _ => return None,
    };
    let (term, node) = (bytes.get_u64_le(), bytes.get_u64_le());
    Some(if committed { RaftVote::new_committed(term, node) } else { RaftVote::new(term, node) })
}

/// A membership's bytes.
pub(crate) fn encode_membership(membership: &RaftMembership) -> Bytes {
    let mut out = Vec::with_capacity(64);
    let configs = membership.get_joint_config();
    out.put_u8(VERSION);
    put_len(&mut out, configs.len());
    put_len(&mut out, membership.nodes().count());
    for voters in configs {
        put_len(&mut out, voters.len());
        voters.iter().for_each(|id| out.put_u64_le(*id));
    }
    for (id, node) in membership.nodes() {
        out.put_u64_le(*id);
        put_len(&mut out, node.addr.len());
        out.put_slice(node.addr.as_bytes());
    }
    Bytes::from(out)
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.put_u16_le(u16::try_from(len).expect("a cluster has fewer than 65536 nodes, an address fewer bytes"));
}

/// `None` if the bytes are not a membership.
pub(crate) fn decode_membership(mut bytes: &[u8]) -> Option<RaftMembership> {
    if bytes.try_get_u8().ok()? != VERSION {
        return None;
    }
    let (configs, nodes) = (bytes.try_get_u16_le().ok()?, bytes.try_get_u16_le().ok()?);
    let configs = (0..configs).map(|_| take_voters(&mut bytes)).collect::<Option<Vec<_>>>()?;
    let nodes = (0..nodes).map(|_| take_node(&mut bytes)).collect::<Option<BTreeMap<_, _>>>()?;
    if !bytes.is_empty() {
        return None;
    }
    RaftMembership::new(configs, nodes).ok()
}

fn take_voters(bytes: &mut &[u8]) -> Option<BTreeSet<u64>> {
    let count = bytes.try_get_u16_le().ok()?;
    (0..count).map(|_| bytes.try_get_u64_le().ok()).collect()
}

fn take_node(bytes: &mut &[u8]) -> Option<(u64, BasicNode)> {
    let id = bytes.try_get_u64_le().ok()?;
    let len = usize::from(bytes.try_get_u16_le().ok()?);
    let addr = String::from_utf8(bytes.get(..len)?.to_vec()).ok()?;
    bytes.advance(len);
    Some((id, BasicNode { addr }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn membership(voters: &[&[u64]], learners: &[u64]) -> RaftMembership {
        let configs: Vec<BTreeSet<u64>> = voters.iter().map(|c| c.iter().copied().collect()).collect();
        let ids = configs.iter().flatten().chain(learners).copied();
        let nodes: BTreeMap<_, _> = ids.map(|id| (id, BasicNode { addr: format!("10.0.0.{id}:7400") })).collect();
        RaftMembership::new(configs, nodes).expect("every voter has a node")
    }

    #[test]
    fn a_membership_survives_its_bytes() {
        for m in [membership(&[&[1]], &[]), membership(&[&[1, 2, 3], &[2, 3, 4]], &[9]), membership(&[], &[])] {
            assert_eq!(decode_membership(&encode_membership(&m)), Some(m));
        }
    }

    #[test]
    fn a_membership_cut_anywhere_is_refused() {
        let bytes = encode_membership(&membership(&[&[1, 2, 3], &[4]], &[5]));
        for cut in 0..bytes.len() {
            assert_eq!(decode_membership(&bytes[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_vote_survives_its_bytes() {
        for vote in [RaftVote::new(0, 0), RaftVote::new(3, 7), RaftVote::new_committed(u64::MAX, 1)] {
            assert_eq!(decode_vote(&encode_vote(&vote)), Some(vote));
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (decode_membership(&bytes), decode_vote(&bytes));
        }
    }
}
