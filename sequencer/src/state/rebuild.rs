//! A state made of sealed rows: as it was right after a `Seal`, all of it in memory, or only what always is.
//!
//! What always holds: the state that comes out, its dedup window restored and fed the rest of the log, is the state
//! that has seen the whole log. Bytes are doubted: whatever they are, they give a state or an error.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashSet;
use logstore::RecordHead;
use logstore::id::{LogIndex, ShardId};

use super::dedup::Dedup;
use super::index::MemberIndex;
use super::{Figures, Key, OutboxHead, OutboxRow, ShardRow, ShardState};
use crate::store::{Row, StateSource};
use crate::{Effect, Error, Malformed, Result};

/// Takes in sealed rows until they are a state.
pub struct Rebuild {
    state: ShardState,
    shard_row: Option<ShardRow>,
    outboxes: BTreeMap<ShardId, OutboxHead>,
    pages: BTreeMap<(ShardId, u64), Vec<Effect>>,
    figures: Option<Figures>,
    /// Keys whose newest row is gone.
    gone: HashSet<Key>,
}

/// The entries of a generation of the dedup window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowPart {
    /// The generation.
    pub generation: u64,
    /// The entry before its first one.
    pub after: LogIndex,
    /// Its last one, which holds its Seal.
    pub upto: LogIndex,
}

impl Rebuild {
    /// Nothing yet.
    pub fn new(shard: ShardId) -> Rebuild {
        Rebuild {
            state: ShardState::new(shard),
            shard_row: None,
            outboxes: BTreeMap::new(),
            pages: BTreeMap::new(),
            figures: None,
            gone: HashSet::new(),
        }
    }

    /// Takes in a row of a delta; `None`: the row is gone. Deltas come newest first: an older row of a key that was seen
    /// is passed over unread. Within a delta the order does not matter.
    pub fn add(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let shard = self.state.shard();
        let decoded = Key::decode(key).map_err(|bad| bad_row(shard, hex(key), bad))?;
        // Who is where is known from the members' rows.
        if decoded.is_note() || matches!(decoded, Key::Place(..)) || self.has_seen(&decoded) {
            return Ok(());
        }
        let Some(value) = value else {
            self.gone.insert(decoded);
            return Ok(());
        };
        let row = Row::decode(&decoded, value).map_err(|bad| bad_row(shard, format!("{decoded:?}"), bad))?;
        self.put(decoded, row);
        Ok(())
    }

    /// The state, if rows of every delta up to a Seal were taken in.
    pub fn finish(mut self) -> Result<ShardState> {
        let (row, figures) = self.resident()?;
        let mut state = self.state;
        let members: Vec<_> = state.members.iter().map(|(&key, _)| key).collect();
        for (conversation, user) in members {
            match figures {
                Some(_) => state.index.lay_below(conversation, user),
                // Sealed before there were places: they are in the delta of the next Seal.
                None => state.index.enter(conversation, user),
            }
        }
        let counted = || Figures { conversations: state.conversations.iter().count() as u64 };
        state.figures = figures.unwrap_or_else(counted);
        Ok(as_sealed(state, row))
    }

    /// The state above sealed rows, if those that are always in memory were taken in: what is of the shard itself, and of its outboxes
    /// and inboxes. `None` if the rows were sealed before who is where was: then all of them have to be taken in.
    pub fn finish_above(mut self, below: Arc<dyn StateSource>) -> Result<Option<ShardState>> {
        let (row, Some(figures)) = self.resident()? else { return Ok(None) };
        let mut state = self.state;
        state.index = MemberIndex::above_sealed();
        state.figures = figures;
        state.is_whole = false;
        state.released = row.generation;
        state.below = below;
        Ok(Some(as_sealed(state, row)))
    }

    /// Checks and lays down what is always in memory; gives the shard's own row.
    fn resident(&mut self) -> Result<(ShardRow, Option<Figures>)> {
        let shard = self.state.shard();
        let wrong = |what: String| Error::Rows { shard, what };
        let Some(row) = self.shard_row.take() else { return Err(wrong("the shard's own row is missing".into())) };
        if row.own.shard != shard {
            return Err(wrong(format!("they are of shard {}", row.own.shard)));
        }
        check_window(&row).map_err(|what| wrong(what.into()))?;
        for (to, head) in std::mem::take(&mut self.outboxes) {
            let outbox = self.outbox(to, head).ok_or_else(|| wrong(format!("effects for shard {to} are missing")))?;
            self.state.outboxes.lay_below(to, outbox);
        }
        if let Some((to, _)) = self.pages.keys().next() {
            return Err(wrong(format!("effects for shard {to} that do not wait")));
        }
        Ok((row, self.figures))
    }

    fn has_seen(&self, key: &Key) -> bool {
        let is_held = match key {
            Key::Conversation(id) => self.state.conversations.near(id).is_some(),
            Key::Member(conversation, user) => self.state.members.near(&(*conversation, *user)).is_some(),
            Key::User(id) => self.state.users.near(id).is_some(),
            Key::Name(name) => self.state.names.near(name.as_str()).is_some(),
            Key::Relation(user, peer) => self.state.relations.near(&(*user, *peer)).is_some(),
            Key::Outbox(to) => self.outboxes.contains_key(to),
            Key::OutboxPage(to, page) => self.pages.contains_key(&(*to, *page)),
            Key::Inbox(from) => self.state.inboxes.near(from).is_some(),
            Key::Shard => self.shard_row.is_some(),
            Key::Trimmed(..) | Key::Recalled(..) | Key::Erased(_) => true,
            Key::Place(..) => true,
            Key::Figures => self.figures.is_some(),
        };
        is_held || self.gone.contains(key)
    }

    fn put(&mut self, key: Key, row: Row) {
        let state = &mut self.state;
        match (key, row) {
            (Key::Conversation(id), Row::Conversation(row)) => {
                state.conversations.lay_below(id, row);
            }
            (Key::Member(conversation, user), Row::Member(row)) => {
                state.members.lay_below((conversation, user), row);
            }
            (Key::User(id), Row::User(row)) => {
                state.users.lay_below(id, row);
            }
            (Key::Name(name), Row::Name(row)) => {
                state.names.lay_below(name, row);
            }
            (Key::Relation(user, peer), Row::Relation(row)) => {
                state.relations.lay_below((user, peer), row);
            }
            (Key::Outbox(to), Row::Outbox(head)) => {
                self.outboxes.insert(to, head);
            }
            (Key::OutboxPage(to, page), Row::OutboxPage(effects)) => {
                self.pages.insert((to, page), effects);
            }
            (Key::Inbox(from), Row::Inbox(row)) => {
                state.inboxes.lay_below(from, row);
            }
            (Key::Shard, Row::Shard(row)) => self.shard_row = Some(*row),
            (Key::Figures, Row::Figures(figures)) => self.figures = Some(figures),
            (key, row) => unreachable!("a row is decoded by its key: {key:?}, {row:?}"),
        }
    }

    /// An outbox put together from its pages; `None` if one is missing or is not full.
    fn outbox(&mut self, to: ShardId, head: OutboxHead) -> Option<OutboxRow> {
        let mut outbox = OutboxRow { first: head.first, ..OutboxRow::default() };
        head.first.checked_add(head.count)?;
        for page in head.pages() {
            let effects = self.pages.remove(&(to, page))?;
            let numbers = head.numbers_of(page);
            if effects.len() as u64 != numbers.end - numbers.start {
                return None;
            }
            outbox.effects.extend(effects.into_iter().map(Into::into));
        }
        Some(outbox)
    }
}

/// What follows from the shard's own row.
fn as_sealed(mut state: ShardState, row: ShardRow) -> ShardState {
    state.applied = row.applied;
    state.dedup = Dedup::defined_by(row.floor, &row.window, row.applied);
    state.own = row.own;
    // The rows speak of the Seal itself; at the end of its entry the window moved.
    state.dedup.advance(state.own.time);
    state
}

impl ShardState {
    /// The state right after a Seal, from the newest row of every key as of then; see [`Rebuild`] for rows of several
    /// deltas. Its dedup window is empty: [`ShardState::restore_window`] before the first entry is applied.
    pub fn from_rows<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        shard: ShardId,
        rows: impl IntoIterator<Item = (K, V)>,
    ) -> Result<ShardState> {
        let mut rebuild = Rebuild::new(shard);
        for (key, value) in rows {
            rebuild.add(key.as_ref(), Some(value.as_ref()))?;
        }
        rebuild.finish()
    }

    /// The generations of the dedup window that have ended, oldest first: whose heads [`ShardState::restore_window`] needs.
    pub fn window_parts(&self) -> Vec<WindowPart> {
        let part = |(generation, after, upto)| WindowPart { generation, after, upto };
        self.dedup.parts().map(part).collect()
    }

    /// Fills the dedup window of a state that was made of rows. Heads come generation by generation, oldest first, in any
    /// order within one, in as many calls as is convenient; those from before the window are passed over. All that are
    /// within have to come before the first entry is applied, or this replica forgets what others know.
    pub fn restore_window<'a>(&mut self, heads: impl IntoIterator<Item = &'a RecordHead>) -> Result<()> {
        for head in heads {
            let RecordHead { conversation, seq, index, .. } = *head;
            let shard = self.own.shard;
            self.dedup.restore(head).map_err(|what| Error::Window { shard, conversation, seq, index, what })?;
        }
        Ok(())
    }
}

/// The window's generations follow each other up to the one that the Seal ended.
fn check_window(row: &ShardRow) -> std::result::Result<(), &'static str> {
    let follows = |pair: &[super::EndedGeneration]| {
        let [one, next] = pair else { return true };
        one.number.checked_add(1) == Some(next.number) && one.after < next.after && one.ended <= next.ended
    };
    match row.window.last() {
        None => Err("the dedup window has no generation"),
        Some(last) if last.number != row.generation => Err("the dedup window ends in another generation"),
        Some(last) if last.number == u64::MAX => Err("no generation can follow"),
        Some(last) if last.after >= row.applied => Err("the dedup window ends after the Seal"),
        Some(_) if !row.window.windows(2).all(follows) => Err("the dedup window has a gap"),
        Some(_) => Ok(()),
    }
}

fn bad_row(shard: ShardId, key: String, bad: Malformed) -> Error {
    Error::Row { shard, key, offset: bad.offset, what: bad.what }
}

/// The first bytes of a key that cannot be read.
fn hex(key: &[u8]) -> String {
    key.iter().take(32).map(|byte| format!("{byte:02x}")).collect()
}
