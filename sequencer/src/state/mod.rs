//! The state of a shard: a pure function of its log. No clock, randomness, file or async.
//!
//! | file | says |
//! |---|---|
//! | `apply` | how an entry becomes outcomes, and what every command has to pass first |
//! | `send`, `group`, `heir`, `cursor` | what happens in a conversation |
//! | `import` | what comes with ids, places and times of its own |
//! | `direct`, `account` | what takes two shards, with the effects that lead from one to the other |
//! | `effect` | outbox and inbox: each effect once, in order |
//! | `dedup` | which ids have been accepted |
//! | `own`, `layout` | the shard's own row: buckets, time, numbers; which seals are to be one segment |
//! | `look`, `index` | what is asked of a state whose rows may be in files; who is where |
//! | `frozen`, `rebuild` | a generation's rows as its Seal left them; a state made of such rows |
//!
//! What always holds: replicas that applied the same entries are equal in everything `digest` covers, however
//! often they were restarted; a refused command has changed nothing.

mod account;
mod apply;
mod conversation;
mod cursor;
mod dedup;
mod digest;
mod direct;
mod effect;
mod erasures;
mod frozen;
mod group;
mod heir;
mod import;
mod index;
mod key;
mod layout;
mod look;
mod made;
mod member;
mod own;
mod rebuild;
mod relation;
mod removal;
mod send;
mod shard_row;
mod upkeep;
mod user;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::store::{NothingSealed, Row, StateSource, Table};
use crate::{Effect, Stored};
use logstore::id::{BodyHash, Bucket, ClientMsgId, ConversationId, HistoryId, LogIndex, ShardId, TimeMs, UserId};

pub use crate::codec::send_at;
pub(crate) use apply::keys_of_entry;
pub use conversation::{ConversationRow, DirectRow, GroupRow};
use dedup::Dedup;
pub(crate) use dedup::MessageKey;
pub use dedup::SKEW_MS;
pub use effect::{InboxRow, OutboxHead, OutboxRow};
pub use erasures::{ErasedRow, Erasure, Erasures};
use frozen::AtSeal;
pub use frozen::FrozenGeneration;
pub use heir::HeirSearch;
use index::{MemberIndex, direct_users};
pub use key::{Key, keys};
pub use layout::{Layout, MergedSpan};
pub use look::{Brought, Look, MembersAfter, Missing};
pub(crate) use look::{MembersRun, SealedMembers};
pub(crate) use made::{AskedBy, asked_by};
pub use member::{Interval, MemberRow, MembershipBody, Role};
pub use own::OwnRow;
pub use rebuild::{Rebuild, WindowPart};
pub use relation::{Peer, RelationRow};
pub(crate) use removal::repeated_recall;
pub use removal::{RecallBody, Trimmed};
pub use shard_row::{EndedGeneration, Figures, ShardRow};
pub use upkeep::{Floor, Importing, Recalled, Upkeep};
pub use user::{NameRow, SessionRow, UserRow};

/// The state of one shard.
pub struct ShardState {
    own: OwnRow,
    applied: LogIndex,
    dedup: Dedup,
    conversations: Table<ConversationId, ConversationRow>,
    members: Table<(ConversationId, UserId), MemberRow>,
    users: Table<UserId, UserRow>,
    names: Table<String, NameRow>,
    relations: Table<(UserId, UserId), RelationRow>,
    outboxes: Table<ShardId, OutboxRow>,
    inboxes: Table<ShardId, InboxRow>,
    index: MemberIndex,
    figures: Figures,
    unsealed_bytes: u64,
    /// Of each frozen generation that is kept whole, oldest first.
    at_seals: VecDeque<Arc<AtSeal>>,
    /// Frozen generations from this one on are kept whole; one beyond all: nobody seals.
    kept_from: u64,
    below: Arc<dyn StateSource>,
    /// Whether every row is in memory.
    is_whole: bool,
    /// Of generations up to this one rows may be only in sealed ones.
    released: u64,
    /// Large things nobody looks at any more: dropping them is not for whoever applies.
    to_drop: Vec<index::Layer>,
}

/// Most members of a group, now and ever: 100,000 rows of 128 bytes are as much as one conversation may cost a shard.
/// What a cluster allows is configuration, below this, and checked before a command is proposed.
pub const MEMBERS_MAX: usize = 100_000;

impl ShardState {
    /// The state before the first entry, with nothing below it.
    pub fn new(shard: ShardId) -> ShardState {
        ShardState::above(shard, Arc::new(NothingSealed))
    }

    /// The state before the first entry whose rows may be in `below`. Apply never reads from there: it asserts that
    /// [`crate::store::Prefetch`] has done so.
    pub fn above(shard: ShardId, below: Arc<dyn StateSource>) -> ShardState {
        ShardState {
            own: OwnRow::new(shard),
            applied: LogIndex(0),
            dedup: Dedup::new(),
            conversations: Table::new(1024),
            members: Table::new(1024),
            users: Table::new(256),
            names: Table::new(256),
            relations: Table::new(1024),
            outboxes: Table::new(1),
            inboxes: Table::new(1),
            index: MemberIndex::new(),
            figures: Figures::default(),
            unsealed_bytes: 0,
            at_seals: VecDeque::new(),
            kept_from: u64::MAX,
            is_whole: below.is_empty() || below.generation() == 0,
            released: below.generation(),
            to_drop: Vec::new(),
            below,
        }
    }

    /// Sealed rows are kept in memory only as far as they take about this many bytes. Every table has a share: a send looks at a
    /// conversation and, in groups, a member; the rest is for who signs in and who meets whom.
    pub fn keep_at_most(&mut self, bytes: usize) {
        self.conversations.keep_at_most(bytes / 8 * 3);
        self.members.keep_at_most(bytes / 8 * 3);
        self.users.keep_at_most(bytes / 8);
        self.names.keep_at_most(bytes / 16);
        self.relations.keep_at_most(bytes / 16);
    }

    /// What is below memory from now on: it has every row up to the last Seal.
    pub(crate) fn set_below(&mut self, below: Arc<dyn StateSource>) {
        self.released = self.generation() - 1;
        self.below = below;
    }

    /// Whether every row is in memory, so that nothing has to be looked for below.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Of generations up to this one rows may be only in sealed ones.
    pub fn released(&self) -> u64 {
        self.released
    }

    /// Large things nobody looks at any more, to be dropped where that may take time.
    pub fn take_to_drop(&mut self) -> Option<impl Send + use<>> {
        (!self.to_drop.is_empty()).then(|| std::mem::take(&mut self.to_drop))
    }

    fn whole_index_to_drop(&mut self) -> Option<index::Layer> {
        let evicted = self.conversations.has_evicted()
            || self.members.has_evicted()
            || self.users.has_evicted()
            || self.names.has_evicted()
            || self.relations.has_evicted();
        if !self.is_whole || !evicted {
            return None;
        }
        self.is_whole = false;
        self.index.let_go_of_base()
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.own.shard
    }

    /// The last entry applied.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// The log's monotonic time.
    pub fn time(&self) -> TimeMs {
        self.own.time
    }

    /// Countable messages ever accepted.
    pub fn stored(&self) -> u64 {
        self.own.stored
    }

    /// The history this shard belongs to, once `Init` is applied.
    pub fn history(&self) -> Option<HistoryId> {
        self.own.history
    }

    /// The life of this shard's outbox; 0 before `Init`.
    pub fn incarnation(&self) -> u64 {
        self.own.incarnation
    }

    /// The version of the bucket table and the table, as `Init` gave it.
    pub fn table(&self) -> (u64, &[(Bucket, Bucket, ShardId)]) {
        (self.own.table_epoch, &self.own.table)
    }

    /// The merges that the log has asked for.
    pub fn layout(&self) -> &Layout {
        &self.own.layout
    }

    /// Whose messages are being erased.
    pub fn erasures(&self) -> &Erasures {
        &self.own.erasures
    }

    /// How much trims have removed.
    pub fn trimmed(&self) -> Trimmed {
        self.own.trimmed
    }

    /// Whether this shard owns the conversation's bucket.
    pub fn owns(&self, conversation: ConversationId) -> bool {
        self.own.owns(conversation.bucket())
    }

    /// How many buckets this shard owns.
    pub fn buckets_owned(&self) -> u32 {
        self.own.buckets_owned()
    }

    /// How many conversations have a row.
    pub fn conversation_count(&self) -> u64 {
        self.figures.conversations
    }

    /// A conversation's row.
    pub fn conversation(&self, id: ConversationId) -> Option<&ConversationRow> {
        debug_assert!(self.is_near(&Key::Conversation(id)), "a row that is not in memory is looked at");
        self.conversations.get(&id)
    }

    /// A 1:1's grants.
    pub fn direct_state(&self, id: ConversationId) -> Option<DirectRow> {
        self.conversation(id)?.direct
    }

    /// What this home knows of a user's relation to a peer.
    pub fn relation(&self, user: UserId, peer: UserId) -> Option<&RelationRow> {
        debug_assert!(self.is_near(&Key::Relation(user, peer)), "a row that is not in memory is looked at");
        self.relations.get(&(user, peer))
    }

    /// A member's row, ended ones included.
    pub fn member(&self, conversation: ConversationId, user: UserId) -> Option<&MemberRow> {
        debug_assert!(self.is_near(&Key::Member(conversation, user)), "a row that is not in memory is looked at");
        self.members.get(&(conversation, user)).filter(|row| !row.is_blank())
    }

    /// All member rows of a conversation in order of user id, ended ones included.
    pub fn members(&self, conversation: ConversationId) -> impl Iterator<Item = (UserId, &MemberRow)> {
        debug_assert!(self.is_whole, "of a state that is not whole a `Look` tells who is where");
        let users = direct_users(conversation).into_iter().flatten().chain(self.index.users_of(conversation));
        users.filter_map(move |user| Some((user, self.member(conversation, user)?)))
    }

    /// All conversations of this shard in which a user has a row, ended ones included, in no order.
    pub fn conversations_of(&self, user: UserId) -> impl Iterator<Item = (ConversationId, &MemberRow)> {
        debug_assert!(self.is_whole, "of a state that is not whole a `Look` tells who is where");
        let conversations = self.index.conversations_of(user);
        conversations.filter_map(move |conversation| Some((conversation, self.member(conversation, user)?)))
    }

    /// An account, if this is its home.
    pub fn user(&self, id: UserId) -> Option<&UserRow> {
        debug_assert!(self.is_near(&Key::User(id)), "a row that is not in memory is looked at");
        self.users.get(&id)
    }

    /// A name's claim, if this is the name's shard.
    pub fn name(&self, name: &str) -> Option<&NameRow> {
        debug_assert!(self.is_near(&Key::Name(name.to_owned())), "a row that is not in memory is looked at");
        self.names.get(name)
    }

    /// Effects waiting for a shard: this shard's incarnation, the first number, the effects (at most `max`).
    pub fn outbox(&self, to: ShardId, max: usize) -> Option<(u64, u64, Vec<Effect>)> {
        let row = self.outboxes.get(&to).filter(|row| !row.effects.is_empty())?;
        let effects = row.effects.iter().take(max).map(|effect| Effect::clone(effect));
        Some((self.own.incarnation, row.first, effects.collect()))
    }

    /// The shards with effects waiting for them, ascending.
    pub fn outbox_targets(&self) -> Vec<ShardId> {
        let waiting = self.outboxes.iter().filter(|(_, row)| !row.effects.is_empty());
        let mut targets: Vec<ShardId> = waiting.map(|(&to, _)| to).collect();
        targets.sort_unstable();
        targets
    }

    /// What was applied of a shard's outbox.
    pub fn inbox(&self, from: ShardId) -> Option<InboxRow> {
        self.inboxes.get(&from).copied()
    }

    /// The generation number that the next `Seal` will freeze.
    pub fn generation(&self) -> u64 {
        self.dedup.generation()
    }

    /// Bytes of records accepted since the last `Seal`.
    pub fn unsealed_bytes(&self) -> u64 {
        self.unsealed_bytes
    }

    /// Whether an id may have been accepted before the dedup window: it must be looked up with
    /// [`ShardState::look_up_old`] and proposed with [`ShardState::checked_upto`], both taken from one look at the state.
    pub fn needs_look_up(&self, id: ClientMsgId) -> bool {
        !self.dedup.is_inside(id)
    }

    /// What became of a message whose id was accepted at any time that is still held, in the window or before it.
    pub fn look_up_old(
        &self,
        conversation: ConversationId,
        sender: UserId,
        id: ClientMsgId,
    ) -> Option<(Stored, BodyHash)> {
        self.dedup.find_held(&MessageKey { conversation, sender, id })
    }

    /// The last `Seal` under which [`ShardState::look_up_old`] looks: goes into a command as `checked_upto`.
    pub fn checked_upto(&self) -> u64 {
        self.dedup.generation() - 1
    }

    /// Whether a look at this key is answered from memory, be it that there is no row.
    pub fn is_near(&self, key: &Key) -> bool {
        let is_held = match key {
            Key::Conversation(id) => self.conversations.near(id).is_some(),
            Key::Member(conversation, user) => self.members.near(&(*conversation, *user)).is_some(),
            Key::User(id) => self.users.near(id).is_some(),
            Key::Name(name) => self.names.near(name.as_str()).is_some(),
            Key::Relation(user, peer) => self.relations.near(&(*user, *peer)).is_some(),
            Key::Outbox(_) | Key::OutboxPage(..) | Key::Inbox(_) | Key::Shard | Key::Place(..) | Key::Figures => true,
            Key::Trimmed(..) | Key::Recalled(..) | Key::Erased(_) => true,
        };
        is_held || self.is_whole || !self.below.may_contain(key)
    }

    /// Takes in what is below memory for a key (`None`: nothing is); rows written since hide it. A row of another kind
    /// than the key's is a defect of the source.
    pub fn load(&mut self, key: Key, row: Option<Row>) {
        match (key, row) {
            (Key::Conversation(id), None) => self.conversations.load(id, None),
            (Key::Conversation(id), Some(Row::Conversation(row))) => self.conversations.load(id, Some(row)),
            (Key::Member(conversation, user), None) => self.members.load((conversation, user), None),
            (Key::Member(conversation, user), Some(Row::Member(row))) => {
                self.members.load((conversation, user), Some(row));
            }
            (Key::User(id), None) => self.users.load(id, None),
            (Key::User(id), Some(Row::User(row))) => self.users.load(id, Some(row)),
            (Key::Name(name), None) => self.names.load(name, None),
            (Key::Name(name), Some(Row::Name(row))) => self.names.load(name, Some(row)),
            (Key::Relation(user, peer), None) => self.relations.load((user, peer), None),
            (Key::Relation(user, peer), Some(Row::Relation(row))) => self.relations.load((user, peer), Some(row)),
            (
                Key::Outbox(_) | Key::OutboxPage(..) | Key::Inbox(_) | Key::Shard | Key::Place(..) | Key::Figures,
                None,
            ) => {}
            (Key::Trimmed(..) | Key::Recalled(..) | Key::Erased(_), None) => {}
            (key, Some(row)) => panic!("{row:?} is not a row of {key:?}"),
        }
    }

    /// What was loaded for a key is not needed any more. It is kept as long as there is room.
    pub fn unload(&mut self, key: &Key) {
        match key {
            Key::Conversation(id) => self.conversations.unload(id),
            Key::Member(conversation, user) => self.members.unload(&(*conversation, *user)),
            Key::User(id) => self.users.unload(id),
            Key::Name(name) => self.names.unload(name),
            Key::Relation(user, peer) => self.relations.unload(&(*user, *peer)),
            Key::Outbox(_) | Key::OutboxPage(..) | Key::Inbox(_) | Key::Shard | Key::Place(..) | Key::Figures => {}
            Key::Trimmed(..) | Key::Recalled(..) | Key::Erased(_) => {}
        }
    }

    /// Lets go of what is held of generations up to this one: their segments are published on this replica, so look-ups
    /// find ids there that have left the dedup window, and their rows need not be kept whole. Changes nothing that apply
    /// can see.
    pub fn release_published(&mut self, upto: u64) {
        self.dedup.release(upto);
        self.release_frozen(upto);
        self.released = self.released.max(upto);
    }
}

/// The shard that a name's claim lives in is the owner of this conversation id's bucket.
pub fn name_home(name: &str) -> ConversationId {
    ConversationId::group(xxhash_rust::xxh3::xxh3_64(name.as_bytes()) & (ConversationId::ID_LIMIT - 1))
}
