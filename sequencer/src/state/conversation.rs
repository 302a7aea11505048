//! A conversation's row.

use std::sync::Arc;

use logstore::id::{BodyHash, ClientMsgId, LogIndex, Ordinal, SeqId, TimeMs, UserId};

use super::Upkeep;

/// What a shard knows of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConversationRow {
    /// Its newest record; 0 if none.
    pub last_seq: SeqId,
    /// Countable messages in it.
    pub last_ordinal: Ordinal,
    /// The entry that changed its head last.
    pub last_index: LogIndex,
    /// The log time of its newest record.
    pub last_time: TimeMs,
    /// Present for a 1:1.
    pub direct: Option<DirectRow>,
    /// Present for a group.
    pub group: Option<Box<GroupRow>>,
    /// Present if something was removed of it, or it has a retention of its own. Shared between the generations of state.
    pub upkeep: Option<Arc<Upkeep>>,
}

/// A 1:1's grants: bit 0 written by the lower user's home, bit 1 by the higher's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DirectRow {
    /// Which homes have spoken.
    pub heard: u8,
    /// Which homes say that their user exists.
    pub exists: u8,
    /// Which homes let the lower user send.
    pub low: u8,
    /// Which homes let the higher user send.
    pub high: u8,
}

impl DirectRow {
    /// Whether both homes have spoken and both users exist.
    pub fn is_open(&self) -> bool {
        self.heard == 3 && self.exists == 3
    }
}

/// What only groups have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupRow {
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: UserId,
    /// Who created it.
    pub creator: UserId,
    /// The request that created it.
    pub request: ClientMsgId,
    /// Hash of what was asked for then: the request repeated asks for the same.
    pub asked: BodyHash,
    /// Members now.
    pub member_count: u32,
    /// When it was created, log time.
    pub created: TimeMs,
}
