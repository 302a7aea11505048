//! A generation as its `Seal` froze it: the rows that changed in it, of which its segment's state delta is made.
//!
//! What always holds: a value is what it was at the Seal, whatever was applied since; making the delta takes no lock,
//! for the frozen layers are shared with the state and never written again.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use logstore::id::{ConversationId, LogIndex, ShardId, TimeMs, UserId};

use super::index::Layer;
use super::{
    ConversationRow, ErasedRow, Figures, InboxRow, Key, MemberRow, NameRow, OutboxHead, OutboxRow, RelationRow,
    ShardRow, ShardState, UserRow,
};
use crate::codec::{StateRow, put_outbox_page, put_place, put_recalled, put_trimmed};
use crate::store::Sharded;

/// Frozen generations that are kept whole though nobody asked for them.
const KEPT_UNASKED: u64 = 1;

/// What a Seal leaves that is in no table's layer.
#[derive(Debug)]
pub(super) struct AtSeal {
    row: ShardRow,
    /// The outboxes that changed, as they were sealed before.
    outboxes_before: Vec<(ShardId, OutboxHead)>,
    figures: Figures,
}

/// The rows of one frozen generation. Holding it keeps them in memory: drop it when its segment is published.
#[derive(Clone, Debug)]
pub struct FrozenGeneration {
    at: Arc<AtSeal>,
    conversations: Arc<Sharded<ConversationId, ConversationRow>>,
    members: Arc<Sharded<(ConversationId, UserId), MemberRow>>,
    users: Arc<Sharded<UserId, UserRow>>,
    names: Arc<Sharded<String, NameRow>>,
    relations: Arc<Sharded<(UserId, UserId), RelationRow>>,
    outboxes: Arc<Sharded<ShardId, OutboxRow>>,
    inboxes: Arc<Sharded<ShardId, InboxRow>>,
    index: Arc<Layer>,
}

impl FrozenGeneration {
    /// Its number.
    pub fn generation(&self) -> u64 {
        self.at.row.generation
    }

    /// The entry of the Seal that ended it.
    pub fn sealed_at(&self) -> LogIndex {
        self.at.row.applied
    }

    /// The log time at that entry.
    pub fn time(&self) -> TimeMs {
        self.at.row.own.time
    }

    /// The state delta: every row that changed, ascending by key bytes, with its value's bytes; `None`: the row is gone.
    /// Keys and values are drawn in `docs/format.md`. Sorts one table at a time: 32 bytes a row of the largest.
    pub fn delta(&self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> + '_ {
        let conversations = lazily(|| sorted(&self.conversations, Key::Conversation));
        let members = lazily(|| sorted(&self.members, |(conversation, user)| Key::Member(conversation, user)));
        let users = lazily(|| sorted(&self.users, Key::User));
        let names = lazily(|| sorted(&self.names, Key::Name));
        let relations = lazily(|| sorted(&self.relations, |(user, peer)| Key::Relation(user, peer)));
        let heads = lazily(|| sorted_by(&self.outboxes, Key::Outbox, |row| row.head().encode()));
        let pages = lazily(|| self.outbox_pages());
        let inboxes = lazily(|| sorted(&self.inboxes, Key::Inbox));
        let shard = lazily(|| [(Key::Shard.encode(), Some(self.at.row.encode()))].into_iter());
        let ids = conversations.chain(members).chain(users).chain(names).chain(relations);
        let notes = lazily(|| self.notes());
        let places = lazily(|| self.places());
        let figures = lazily(|| [(Key::Figures.encode(), Some(self.at.figures.encode()))].into_iter());
        ids.chain(heads).chain(pages).chain(inboxes).chain(shard).chain(notes).chain(places).chain(figures)
    }

    fn places(&self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> + '_ {
        let mut places: Vec<_> = self.index.places().collect();
        places.sort_unstable();
        places.into_iter().map(|(user, conversation)| (Key::Place(user, conversation).encode(), Some(put_place())))
    }

    /// What was trimmed, recalled and erased in this generation, for merges to find.
    fn notes(&self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> + use<> {
        let after = self.at.row.window.last().map_or(LogIndex(0), |ended| ended.after);
        let mut notes = Vec::new();
        for (conversation, row) in self.conversations.iter() {
            let Some(upkeep) = &row.upkeep else { continue };
            if upkeep.floor.trimmed_at > after {
                notes.push((Key::trimmed(*conversation), put_trimmed(upkeep.floor.before)));
            }
            let recalled = upkeep.recalled.iter().filter(|each| each.recalled_at > after);
            notes.extend(recalled.map(|each| (Key::recalled(*conversation, each.seq), put_recalled())));
        }
        let erasures = self.at.row.own.erasures.list().iter().filter(|erasure| erasure.upto > after);
        notes.extend(erasures.map(|erasure| {
            let row = ErasedRow { upto: erasure.upto, asked: erasure.asked };
            (Key::Erased(erasure.user), row.encode())
        }));
        notes.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        notes.into_iter().map(|(key, value)| (key.encode(), Some(value)))
    }

    /// The pages of the outboxes that changed; those that are sealed and hold nothing any more are gone.
    fn outbox_pages(&self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> + '_ {
        let mut outboxes: Vec<_> = self.outboxes.iter().map(|(to, row)| (*to, row)).collect();
        outboxes.sort_unstable_by_key(|(to, _)| *to);
        outboxes.into_iter().flat_map(move |(to, row)| {
            let (now, before) = (row.head().pages(), self.pages_before(to));
            let gone = before.filter({
                let now = now.clone();
                move |page| !now.contains(page)
            });
            let mut pages: Vec<u64> = now.clone().chain(gone).collect();
            pages.sort_unstable();
            pages.into_iter().map(move |page| {
                let value = now.contains(&page).then(|| put_outbox_page(row.page(page)));
                (Key::OutboxPage(to, page).encode(), value)
            })
        })
    }

    fn pages_before(&self, to: ShardId) -> Range<u64> {
        let before = self.at.outboxes_before.iter().find(|(shard, _)| *shard == to);
        before.map_or(0..0, |(_, head)| head.pages())
    }
}

impl ShardState {
    /// From now on generations that a Seal freezes are kept whole, until [`ShardState::release_published`]: whoever makes
    /// segments of them says so before the first entry is applied. Each costs its rows, and a look more where apply
    /// finds no newer row.
    pub fn keep_frozen(&mut self) {
        self.kept_from = self.generation();
    }

    /// A frozen generation, if it is still whole.
    pub fn frozen(&self, generation: u64) -> Option<FrozenGeneration> {
        let age = usize::try_from(self.generation().checked_sub(generation.checked_add(1)?)?).ok()?;
        let at = self.at_seals.iter().rev().nth(age)?.clone();
        debug_assert_eq!(at.row.generation, generation, "every Seal leaves one");
        Some(FrozenGeneration {
            at,
            conversations: self.conversations.frozen(age)?,
            members: self.members.frozen(age)?,
            users: self.users.frozen(age)?,
            names: self.names.frozen(age)?,
            relations: self.relations.frozen(age)?,
            outboxes: self.outboxes.frozen(age)?,
            inboxes: self.inboxes.frozen(age)?,
            index: self.index.frozen(age)?,
        })
    }

    /// How many of the newest frozen generations are kept whole.
    pub(super) fn frozen_kept(&self) -> usize {
        self.generation().saturating_sub(self.kept_from).max(KEPT_UNASKED) as usize
    }

    pub(super) fn release_frozen(&mut self, upto: u64) {
        if self.kept_from != u64::MAX {
            self.kept_from = self.kept_from.max(upto.saturating_add(1));
        }
    }

    /// The generation has just ended: notes what is in no layer. Called before the layers are frozen.
    pub(super) fn note_seal(&mut self) {
        let heads = self.outboxes.written().filter_map(|(to, _, before)| Some((*to, before?.head())));
        let at = AtSeal { outboxes_before: heads.collect(), row: self.shard_row(), figures: self.figures };
        self.at_seals.push_back(Arc::new(at));
        while self.at_seals.len() > self.frozen_kept() {
            self.at_seals.pop_front();
        }
    }

    fn shard_row(&self) -> ShardRow {
        let (floor, window) = self.dedup.window();
        ShardRow { applied: self.applied, generation: self.generation() - 1, own: self.own.clone(), floor, window }
    }
}

/// The rows of a layer, ascending by key.
fn sorted<K: Ord + Clone, V: StateRow>(
    layer: &Sharded<K, V>,
    key: impl Fn(K) -> Key,
) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
    sorted_by(layer, key, StateRow::encode)
}

fn sorted_by<K: Ord + Clone, V>(
    layer: &Sharded<K, V>,
    key: impl Fn(K) -> Key,
    encode: impl Fn(&V) -> Bytes,
) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
    let mut rows: Vec<(K, &V)> = layer.iter().map(|(key, row)| (key.clone(), row)).collect();
    rows.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    rows.into_iter().map(move |(id, row)| (key(id).encode(), Some(encode(row))))
}

/// Begins with the first item that is asked for.
fn lazily<I: Iterator>(begin: impl FnOnce() -> I) -> impl Iterator<Item = I::Item> {
    std::iter::once_with(begin).flatten()
}
