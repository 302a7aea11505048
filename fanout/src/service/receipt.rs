//! Delivered and read cursors.

use logstore::id::{ConversationId, SeqId, UserId};

use crate::Fault;

/// The rules of receipts.
pub struct Receipts {}

impl Receipts {
    /// The user has received up to these; replicated lazily (within 5 s), merged. One result per cursor that is refused: (position, why).
    pub fn delivered(&self, user: UserId, moves: &[(ConversationId, SeqId)]) -> Vec<(u32, Fault)> {
        let _ = (user, moves);
        unimplemented!()
    }

    /// The user has read up to these; replicated merged, one command a shard and second. Returns when noted, before it is durable.
    pub fn read(&self, user: UserId, moves: &[(ConversationId, SeqId)]) -> Vec<(u32, Fault)> {
        let _ = (user, moves);
        unimplemented!()
    }

    /// Replicates everything pending (at disconnect, drain and shutdown).
    pub async fn flush(&self) {
        unimplemented!()
    }
}
