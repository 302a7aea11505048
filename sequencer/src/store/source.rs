//! What lies below memory: sealed state, as prefetch asks for it.

use std::io;

use logstore::id::SeqId;

use crate::Effect;
use crate::state::{
    ConversationRow, ErasedRow, InboxRow, Key, MemberRow, NameRow, OutboxHead, RelationRow, ShardRow, UserRow,
};

/// Rows that are not in memory.
///
/// `may_contain` and `load` speak of one and the same moment: the newest sealed state on this replica. `load` may
/// block and is called off the async workers; both may be called from several threads at once.
pub trait StateSource: Send + Sync + 'static {
    /// Whether there is nothing below memory at all, so that no entry needs to be looked into.
    fn is_empty(&self) -> bool;

    /// Whether a row of this key may be below memory. `false` only if it certainly is not.
    fn may_contain(&self, key: &Key) -> bool;

    /// The row of a key; `None` if there is none.
    fn load(&self, key: &Key) -> io::Result<Option<Row>>;
}

/// A shard without sealed segments has nothing below memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct NothingSealed;

impl StateSource for NothingSealed {
    fn is_empty(&self) -> bool {
        true
    }

    fn may_contain(&self, _key: &Key) -> bool {
        false
    }

    fn load(&self, _key: &Key) -> io::Result<Option<Row>> {
        Ok(None)
    }
}

/// A row of any table. Those from `Outbox` on are always in memory: they are read from sealed rows at a start only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Of `Key::Conversation`.
    Conversation(ConversationRow),
    /// Of `Key::Member`.
    Member(MemberRow),
    /// Of `Key::User`.
    User(UserRow),
    /// Of `Key::Name`.
    Name(NameRow),
    /// Of `Key::Relation`.
    Relation(RelationRow),
    /// Of `Key::Outbox`.
    Outbox(OutboxHead),
    /// Of `Key::OutboxPage`.
    OutboxPage(Vec<Effect>),
    /// Of `Key::Inbox`.
    Inbox(InboxRow),
    /// Of `Key::Shard`.
    Shard(Box<ShardRow>),
    /// Of `Key::Trimmed`: the first record that is left.
    Trimmed(SeqId),
    /// Of `Key::Recalled`.
    Recalled,
    /// Of `Key::Erased`.
    Erased(ErasedRow),
}

impl Row {
    /// About what the row takes in memory.
    pub fn bytes(&self) -> usize {
        let heap = match self {
            Row::Conversation(row) => {
                let group = row.group.as_ref().map_or(0, |group| size_of_val(&**group) + group.name.len());
                group
                    + row.upkeep.as_ref().map_or(0, |upkeep| size_of_val(&**upkeep) + size_of_val(&upkeep.recalled[..]))
            }
            Row::Member(row) if row.intervals.spilled() => size_of_val(&row.intervals[..]),
            Row::User(row) => row.name.len() + row.password_phc.len() + size_of_val(&row.sessions[..]),
            Row::OutboxPage(effects) => size_of_val(&effects[..]),
            Row::Shard(row) => size_of_val(&**row) + size_of_val(&row.own.table[..]) + size_of_val(&row.window[..]),
            Row::Member(_) | Row::Name(_) | Row::Relation(_) | Row::Outbox(_) | Row::Inbox(_) => 0,
            Row::Trimmed(_) | Row::Recalled | Row::Erased(_) => 0,
        };
        size_of::<Row>() + heap
    }
}
