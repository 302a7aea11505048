//! What lies below memory: sealed state, as prefetch asks for it.

use std::io;

use bytes::Bytes;
use logstore::id::SeqId;

use super::Weigh;
use crate::Effect;
use crate::state::{
    ConversationRow, ErasedRow, Figures, InboxRow, Key, MemberRow, NameRow, OutboxHead, RelationRow, ShardRow, UserRow,
};

/// Rows that are not in memory.
///
/// All of it speaks of the newest sealed state on this replica, or of one newer than that at the time of the call.
/// Everything but [`StateSource::is_empty`] and [`StateSource::may_contain`] may block and is called off the async workers;
/// all may be called from several threads at once.
pub trait StateSource: Send + Sync + 'static {
    /// Whether there will never be anything below memory, so that nothing needs to be looked for.
    fn is_empty(&self) -> bool;

    /// The newest generation that all answers from now on speak of; 0: nothing is sealed.
    fn generation(&self) -> u64;

    /// Whether a row of this key may be below memory. `false` only if it certainly is not.
    fn may_contain(&self, key: &Key) -> bool;

    /// The row of a key; `None` if there is none.
    fn load(&self, key: &Key) -> io::Result<Option<Row>>;

    /// Rows whose keys, encoded, begin with `prefix` and are above `after`, ascending, about `rows_max` of them at most.
    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, rows_max: usize) -> io::Result<Scanned>;
}

/// A run of rows.
#[derive(Clone, Debug, Default)]
pub struct Scanned {
    /// Ascending by key.
    pub rows: Vec<(Key, Row)>,
    /// Where the next run begins; `None`: there are no more.
    pub next_after: Option<Bytes>,
}

/// A shard without sealed segments has nothing below memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct NothingSealed;

impl StateSource for NothingSealed {
    fn is_empty(&self) -> bool {
        true
    }

    fn generation(&self) -> u64 {
        0
    }

    fn may_contain(&self, _key: &Key) -> bool {
        false
    }

    fn load(&self, _key: &Key) -> io::Result<Option<Row>> {
        Ok(None)
    }

    fn scan(&self, _prefix: &[u8], _after: Option<&[u8]>, _rows_max: usize) -> io::Result<Scanned> {
        Ok(Scanned::default())
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
    /// Of `Key::Place`: that there is one says all.
    Place,
    /// Of `Key::Figures`.
    Figures(Figures),
}

impl Row {
    /// About what the row takes in memory.
    pub fn bytes(&self) -> usize {
        let heap = match self {
            Row::Conversation(row) => row.heap_bytes(),
            Row::Member(row) => row.heap_bytes(),
            Row::User(row) => row.heap_bytes(),
            Row::OutboxPage(effects) => size_of_val(&effects[..]),
            Row::Shard(row) => size_of_val(&**row) + size_of_val(&row.own.table[..]) + size_of_val(&row.window[..]),
            Row::Name(_) | Row::Relation(_) | Row::Outbox(_) | Row::Inbox(_) | Row::Place | Row::Figures(_) => 0,
            Row::Trimmed(_) | Row::Recalled | Row::Erased(_) => 0,
        };
        size_of::<Row>() + heap
    }
}
