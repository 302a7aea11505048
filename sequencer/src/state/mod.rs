//! The state of a shard: a pure function of its log. No clock, randomness, file or async.
//!
//! | file | says |
//! |---|---|
//! | `apply` | how an entry becomes outcomes, and what every command has to pass first |
//! | `send`, `group`, `heir`, `cursor` | what happens in a conversation |
//! | `direct`, `account` | what takes two shards, with the effects that lead from one to the other |
//! | `effect` | outbox and inbox: each effect once, in order |
//! | `dedup` | which ids have been accepted |
//! | `own`, `layout` | the shard's own row: buckets, time, numbers; which seals are to be one segment |
//! | `frozen`, `rebuild` | a generation's rows as its Seal left them; a state made of such rows |
//!
//! What always holds: replicas that applied the same entries are equal in everything `digest` covers, however
//! often they were restarted; a refused command has changed nothing.

mod account;
mod apply;
mod conversation;
mod cursor;
mod dedup;
mod direct;
mod effect;
mod erasures;
mod frozen;
mod group;
mod heir;
mod key;
mod layout;
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
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;
use logstore::id::{
    BodyHash, Bucket, ClientMsgId, ConversationId, ConversationName, HistoryId, LogIndex, ShardId, TimeMs, UserId,
};
use xxhash_rust::xxh3::Xxh3;

use crate::store::{NothingSealed, Row, Sharded, StateSource, Table};
use crate::{Effect, Stored};

pub use crate::codec::send_at;
pub use conversation::{ConversationRow, DirectRow, GroupRow};
use dedup::{Dedup, MessageKey};
pub use effect::{InboxRow, OutboxHead, OutboxRow};
pub use erasures::{ErasedRow, Erasure, Erasures};
use frozen::AtSeal;
pub use frozen::FrozenGeneration;
pub use heir::HeirSearch;
pub use key::{Key, keys};
pub use layout::{Layout, MergedSpan};
pub(crate) use made::{AskedBy, asked_by};
pub use member::{Interval, MemberRow, MembershipBody, Role};
pub use own::OwnRow;
pub use rebuild::{Rebuild, WindowPart};
pub use relation::{Peer, RelationRow};
pub(crate) use removal::repeated_recall;
pub use removal::{RecallBody, Trimmed};
pub use shard_row::{EndedGeneration, ShardRow};
pub use upkeep::{Floor, Recalled, Upkeep};
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
    unsealed_bytes: u64,
    /// Of each frozen generation that is kept whole, oldest first.
    at_seals: VecDeque<Arc<AtSeal>>,
    /// Frozen generations from this one on are kept whole; one beyond all: nobody seals.
    kept_from: u64,
    below: Arc<dyn StateSource>,
}

/// Who is where, derived from member rows.
struct MemberIndex {
    hasher: DefaultHashBuilder,
    /// Group → users with a row, ascending. A 1:1 says in its id who they are.
    users: Sharded<ConversationId, Vec<UserId>>,
    /// User → conversations with a row, in no order.
    conversations: Sharded<UserId, Vec<ConversationId>>,
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
            unsealed_bytes: 0,
            at_seals: VecDeque::new(),
            kept_from: u64::MAX,
            below,
        }
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
        self.conversations.len()
    }

    /// A conversation's row.
    pub fn conversation(&self, id: ConversationId) -> Option<&ConversationRow> {
        self.conversations.get(&id)
    }

    /// A 1:1's grants.
    pub fn direct_state(&self, id: ConversationId) -> Option<DirectRow> {
        self.conversation(id)?.direct
    }

    /// What this home knows of a user's relation to a peer.
    pub fn relation(&self, user: UserId, peer: UserId) -> Option<&RelationRow> {
        self.relations.get(&(user, peer))
    }

    /// A member's row, ended ones included.
    pub fn member(&self, conversation: ConversationId, user: UserId) -> Option<&MemberRow> {
        self.members.get(&(conversation, user))
    }

    /// All member rows of a conversation in order of user id, ended ones included.
    pub fn members(&self, conversation: ConversationId) -> impl Iterator<Item = (UserId, &MemberRow)> {
        let users =
            direct_users(conversation).into_iter().flatten().chain(self.index.users_of(conversation).iter().copied());
        users.filter_map(move |user| Some((user, self.member(conversation, user)?)))
    }

    /// All conversations of this shard in which a user has a row, ended ones included, in no order.
    pub fn conversations_of(&self, user: UserId) -> impl Iterator<Item = (ConversationId, &MemberRow)> {
        let conversations = self.index.conversations_of(user).iter();
        conversations.filter_map(move |&conversation| Some((conversation, self.member(conversation, user)?)))
    }

    /// An account, if this is its home.
    pub fn user(&self, id: UserId) -> Option<&UserRow> {
        self.users.get(&id)
    }

    /// A name's claim, if this is the name's shard.
    pub fn name(&self, name: &str) -> Option<&NameRow> {
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
    pub fn holds(&self, key: &Key) -> bool {
        let held = match key {
            Key::Conversation(id) => self.conversations.holds(id),
            Key::Member(conversation, user) => self.members.holds(&(*conversation, *user)),
            Key::User(id) => self.users.holds(id),
            Key::Name(name) => self.names.holds(name),
            Key::Relation(user, peer) => self.relations.holds(&(*user, *peer)),
            Key::Outbox(_) | Key::OutboxPage(..) | Key::Inbox(_) | Key::Shard => true,
            Key::Trimmed(..) | Key::Recalled(..) | Key::Erased(_) => true,
        };
        held || !self.below.may_contain(key)
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
            (Key::Outbox(_) | Key::OutboxPage(..) | Key::Inbox(_) | Key::Shard, None) => {}
            (Key::Trimmed(..) | Key::Recalled(..) | Key::Erased(_), None) => {}
            (key, Some(row)) => panic!("{row:?} is not a row of {key:?}"),
        }
    }

    /// Forgets what was loaded for a key; what was written since stays.
    pub fn unload(&mut self, key: &Key) {
        match key {
            Key::Conversation(id) => self.conversations.unload(id),
            Key::Member(conversation, user) => self.members.unload(&(*conversation, *user)),
            Key::User(id) => self.users.unload(id),
            Key::Name(name) => self.names.unload(name),
            Key::Relation(user, peer) => self.relations.unload(&(*user, *peer)),
            Key::Outbox(_) | Key::OutboxPage(..) | Key::Inbox(_) | Key::Shard => {}
            Key::Trimmed(..) | Key::Recalled(..) | Key::Erased(_) => {}
        }
    }

    /// Lets go of what is held of generations up to this one: their segments are published on this replica, so look-ups
    /// find ids there that have left the dedup window, and their rows need not be kept whole. Changes nothing that apply
    /// can see.
    pub fn release_published(&mut self, upto: u64) {
        self.dedup.release(upto);
        self.release_frozen(upto);
    }

    /// A digest of everything, equal on every replica at the same index. Walks all rows: for tests and operators.
    pub fn digest(&self) -> u128 {
        let mut own = Xxh3::new();
        (self.applied.0, self.dedup.bounds(), &self.own).hash(&mut own);
        own.digest128()
            .wrapping_add(digest_rows(0, &self.conversations))
            .wrapping_add(digest_rows(1, &self.members))
            .wrapping_add(digest_rows(2, &self.users))
            .wrapping_add(digest_rows(3, &self.names))
            .wrapping_add(digest_rows(4, &self.relations))
            .wrapping_add(digest_rows(5, &self.outboxes))
            .wrapping_add(digest_rows(6, &self.inboxes))
    }
}

impl MemberIndex {
    fn new() -> MemberIndex {
        MemberIndex {
            hasher: DefaultHashBuilder::default(),
            users: Sharded::new(256),
            conversations: Sharded::new(1024),
        }
    }

    /// The index of these rows.
    fn of(rows: impl Iterator<Item = (ConversationId, UserId)>) -> MemberIndex {
        let mut index = MemberIndex::new();
        for (conversation, user) in rows {
            if direct_users(conversation).is_none() {
                index.users.or_default(&index.hasher, conversation).push(user);
            }
            index.conversations.or_default(&index.hasher, user).push(conversation);
        }
        // Sorted at once, not row by row: a group has up to 100,000 of them, and they come in any order.
        index.users.values_mut().for_each(|users| users.sort_unstable());
        index
    }

    /// Notes that a user has a row in a conversation; for a 1:1 only once, when its row is made.
    fn enter(&mut self, conversation: ConversationId, user: UserId) {
        if direct_users(conversation).is_none() {
            let users = self.users.or_default(&self.hasher, conversation);
            match users.binary_search(&user) {
                Ok(_) => return,
                Err(place) => users.insert(place, user),
            }
        }
        self.conversations.or_default(&self.hasher, user).push(conversation);
    }

    fn users_of(&self, group: ConversationId) -> &[UserId] {
        self.users.find(&self.hasher, &group).map_or(&[], Vec::as_slice)
    }

    fn conversations_of(&self, user: UserId) -> &[ConversationId] {
        self.conversations.find(&self.hasher, &user).map_or(&[], Vec::as_slice)
    }
}

/// The users that the id of a 1:1 names, ascending; one twice is one.
fn direct_users(conversation: ConversationId) -> Option<impl Iterator<Item = UserId>> {
    match conversation.name() {
        Some(ConversationName::Direct(low, high)) => {
            Some([Some(low), (high != low).then_some(high)].into_iter().flatten())
        }
        _ => None,
    }
}

/// Adds the digests of all rows, so that their order does not matter.
fn digest_rows<K: Hash + Eq + Clone, V: Hash + Clone>(table: u8, rows: &Table<K, V>) -> u128 {
    rows.iter().fold(0, |sum: u128, row| {
        let mut hasher = Xxh3::new();
        hasher.write_u8(table);
        row.hash(&mut hasher);
        sum.wrapping_add(hasher.digest128())
    })
}

/// The shard that a name's claim lives in is the owner of this conversation id's bucket.
pub fn name_home(name: &str) -> ConversationId {
    ConversationId::group(xxhash_rust::xxh3::xxh3_64(name.as_bytes()) & (ConversationId::ID_LIMIT - 1))
}
