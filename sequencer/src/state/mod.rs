//! The state of a shard: a pure function of its log. No clock, randomness, file or async.

mod conversation;
mod key;
mod member;
mod user;

use bytes::Bytes;
use logstore::id::{ConversationId, HistoryId, LogIndex, ShardId, TimeMs, UserId};

use crate::{Applied, Effect, Error};

pub use conversation::{ConversationRow, DirectRow, GroupRow};
pub use key::Key;
pub use member::{Interval, MemberRow, MembershipBody, Role};
pub use user::{NameRow, SessionRow, UserRow};

/// The state of one shard.
pub struct ShardState {}

impl ShardState {
    /// The state before the first entry.
    pub fn new(shard: ShardId) -> ShardState {
        let _ = shard;
        unimplemented!()
    }

    /// Applies one entry of commands. The only way state changes.
    pub fn apply(&mut self, index: LogIndex, payload: &Bytes) -> Applied {
        let _ = (index, payload);
        unimplemented!()
    }

    /// Notes an entry that carries no commands (blank, membership).
    pub fn skip(&mut self, index: LogIndex) {
        let _ = index;
        unimplemented!()
    }

    /// The last entry applied.
    pub fn applied(&self) -> LogIndex {
        unimplemented!()
    }

    /// The log's monotonic time.
    pub fn time(&self) -> TimeMs {
        unimplemented!()
    }

    /// The history this shard belongs to, once `Init` is applied.
    pub fn history(&self) -> Option<HistoryId> {
        unimplemented!()
    }

    /// Whether this shard owns the conversation's bucket.
    pub fn owns(&self, conversation: ConversationId) -> bool {
        let _ = conversation;
        unimplemented!()
    }

    /// A conversation's row.
    pub fn conversation(&self, id: ConversationId) -> Option<&ConversationRow> {
        let _ = id;
        unimplemented!()
    }

    /// A member's row, ended ones included.
    pub fn member(&self, conversation: ConversationId, user: UserId) -> Option<&MemberRow> {
        let _ = (conversation, user);
        unimplemented!()
    }

    /// All member rows of a conversation in order of user id, ended ones included.
    pub fn members(&self, conversation: ConversationId) -> impl Iterator<Item = (UserId, &MemberRow)> {
        let _ = conversation;
        std::iter::empty()
    }

    /// All conversations of this shard in which a user has a row, ended ones included.
    pub fn conversations_of(&self, user: UserId) -> impl Iterator<Item = (ConversationId, &MemberRow)> {
        let _ = user;
        std::iter::empty()
    }

    /// An account, if this is its home.
    pub fn user(&self, id: UserId) -> Option<&UserRow> {
        let _ = id;
        unimplemented!()
    }

    /// A name's claim, if this is the name's shard.
    pub fn name(&self, name: &str) -> Option<&NameRow> {
        let _ = name;
        unimplemented!()
    }

    /// Effects waiting for a shard: this shard's incarnation, the first number, the effects (at most `max`).
    pub fn outbox(&self, to: ShardId, max: usize) -> Option<(u64, u64, Vec<Effect>)> {
        let _ = (to, max);
        unimplemented!()
    }

    /// The shards with effects waiting for them.
    pub fn outbox_targets(&self) -> Vec<ShardId> {
        unimplemented!()
    }

    /// The generation number that the next `Seal` will freeze.
    pub fn generation(&self) -> u64 {
        unimplemented!()
    }

    /// Bytes of records accepted since the last `Seal`.
    pub fn unsealed_bytes(&self) -> u64 {
        unimplemented!()
    }

    /// Looks a message id up in generations that have left the dedup window but are still in memory. The answer
    /// goes into a `Send` as `checked_upto`.
    pub fn checked_upto(&self) -> u64 {
        unimplemented!()
    }

    /// A digest of everything, equal on every replica at the same index.
    pub fn digest(&self) -> u128 {
        unimplemented!()
    }
}

/// The shard that a name's claim lives in is the owner of this conversation id's bucket.
pub fn name_home(name: &str) -> ConversationId {
    ConversationId::group(xxhash_rust::xxh3::xxh3_64(name.as_bytes()) & (ConversationId::ID_LIMIT - 1))
}

/// Decodes the send command at `offset` of an entry's payload: how history finds a body again.
pub fn send_at(payload: &Bytes, offset: u32) -> Result<crate::Send, Error> {
    let _ = (payload, offset);
    unimplemented!()
}
