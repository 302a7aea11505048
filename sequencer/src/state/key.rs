//! The keys of state: what a command touches, named before it is applied.

use logstore::id::{ConversationId, ShardId, UserId};

/// Names one row of state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A conversation.
    Conversation(ConversationId),
    /// A member's row.
    Member(ConversationId, UserId),
    /// An account.
    User(UserId),
    /// A claimed name.
    Name(String),
    /// The outbox to a shard.
    Outbox(ShardId),
    /// What was applied of a shard's outbox.
    Inbox(ShardId),
    /// The shard's own row: buckets, epoch, history, log time, window floor, last server_msg_id.
    Shard,
}
