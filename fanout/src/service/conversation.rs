//! The conversation list, and opening 1:1s.

use logstore::id::{ConversationId, LogIndex, Ordinal, SeqId, ShardId, TimeMs, UserId};
use sequencer::Record;

use crate::Fault;

/// A conversation as one member sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationSummary {
    /// Which.
    pub conversation: ConversationId,
    /// Its newest record this member may see.
    pub head_seq: SeqId,
    /// The ordinal there.
    pub head_ordinal: Ordinal,
    /// The log time of its newest record.
    pub last_time: TimeMs,
    /// Read up to here.
    pub read_seq: SeqId,
    /// Received up to here.
    pub delivered_seq: SeqId,
    /// Others' countable records above the read cursor.
    pub unread: u64,
    /// Whether a member now.
    pub active: bool,
    /// Nothing before it is shown.
    pub visible_from: SeqId,
    /// The group's name.
    pub title: String,
    /// The other one of a 1:1.
    pub peer: UserId,
    /// Members now.
    pub member_count: u32,
    /// The index this row is as of.
    pub as_of: LogIndex,
    /// The shard it is of.
    pub shard: ShardId,
    /// The newest record, in lists.
    pub last: Option<Record>,
}

/// A page of something, and where the next begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// `None`: complete.
    pub next_after: Option<Vec<u8>>,
}

/// The rules of conversations.
pub struct Conversations {}

impl Conversations {
    /// Opens the 1:1 of two users; returns when both may write to it.
    pub async fn open_direct(&self, user: UserId, peer: UserId) -> Result<ConversationSummary, Fault> {
        let _ = (user, peer);
        unimplemented!()
    }

    /// The user's conversations, newest first.
    pub async fn list(
        &self,
        user: UserId,
        limit: usize,
        after: &[u8],
        with_left: bool,
    ) -> Result<Page<ConversationSummary>, Fault> {
        let _ = (user, limit, after, with_left);
        unimplemented!()
    }
}
