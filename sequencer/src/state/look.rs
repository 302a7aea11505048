//! A look at applied state whose rows may be in files.
//!
//! ```text
//!   look ──▶ something is missing ──▶ it is brought, off the workers ──▶ look again
//! ```
//!
//! What always holds: a look reads no file; what it cannot answer it notes as missing and answers as if it were not there, so
//! that one try finds out all it can, and whoever looks throws away what came of a look that is not complete. What was brought
//! counts only while memory holds every row that is newer; so a complete look is one at one applied index.

use std::cell::RefCell;
use std::ops::Deref;

use hashbrown::HashMap;
use logstore::id::{BodyHash, ConversationId, SeqId, UserId};

use super::group::repeated_change;
use super::index::direct_users;
use super::{ConversationRow, DirectRow, Key, MemberRow, NameRow, RelationRow, ShardState, UserRow};
use crate::store::Row;
use crate::{GroupChange, Outcome, Refusal};

/// What was read from below memory for one look.
#[derive(Debug, Default)]
pub struct Brought {
    /// The newest generation that all of it speaks of.
    pub(crate) as_of: u64,
    pub(crate) rows: HashMap<Key, Option<Row>>,
    pub(crate) places: HashMap<UserId, Vec<ConversationId>>,
    pub(crate) members: HashMap<MembersRun, SealedMembers>,
}

/// Members of a group with sealed rows, in order of user id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MembersRun {
    pub(crate) group: ConversationId,
    /// Above this one.
    pub(crate) after: UserId,
    /// At least so many, if there are.
    pub(crate) rows_max: usize,
}

#[derive(Debug, Default)]
pub(crate) struct SealedMembers {
    pub(crate) users: Vec<UserId>,
    /// All up to here are among them; `None`: all there are.
    pub(crate) upto: Option<UserId>,
}

/// What a look could not answer.
#[derive(Debug, Default)]
pub struct Missing {
    pub(crate) rows: Vec<Key>,
    pub(crate) places: Vec<UserId>,
    pub(crate) members: Vec<MembersRun>,
}

impl Missing {
    /// Whether it could answer everything.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.places.is_empty() && self.members.is_empty()
    }
}

/// Users of a group that have a row in it, ended ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembersAfter {
    /// Ascending.
    pub users: Vec<UserId>,
    /// There may be more above this one; `None`: there are not.
    pub next_after: Option<UserId>,
}

/// Applied state, and what was brought for this look. What is always in memory is found as in the state itself.
pub struct Look<'a> {
    state: &'a ShardState,
    brought: &'a Brought,
    missing: RefCell<Missing>,
}

impl Deref for Look<'_> {
    type Target = ShardState;

    fn deref(&self) -> &ShardState {
        self.state
    }
}

impl<'a> Look<'a> {
    /// A look with what was brought; that is emptied if newer rows may have left memory since.
    pub fn new(state: &'a ShardState, brought: &'a mut Brought) -> Look<'a> {
        if brought.as_of < state.released() {
            *brought = Brought::default();
        }
        Look { state, brought, missing: RefCell::default() }
    }

    /// Whether all that was asked for so far was there.
    pub fn is_complete(&self) -> bool {
        self.missing.borrow().is_empty()
    }

    /// What was not there.
    pub fn into_missing(self) -> Missing {
        self.missing.into_inner()
    }

    /// A conversation's row; none of one that is being imported, for nobody sees it.
    pub fn conversation(&self, id: ConversationId) -> Option<&'a ConversationRow> {
        self.any_conversation(id).filter(|row| !row.is_hidden())
    }

    /// A conversation's row, be it that it is being imported.
    pub fn any_conversation(&self, id: ConversationId) -> Option<&'a ConversationRow> {
        match self.state.conversations.near(&id) {
            Some(row) => row,
            None => match self.brought(Key::Conversation(id))? {
                Row::Conversation(row) => Some(row),
                _ => None,
            },
        }
    }

    /// A 1:1's grants.
    pub fn direct_state(&self, id: ConversationId) -> Option<DirectRow> {
        self.conversation(id)?.direct
    }

    /// A member's row, ended ones included.
    pub fn member(&self, conversation: ConversationId, user: UserId) -> Option<&'a MemberRow> {
        let row = match self.state.members.near(&(conversation, user)) {
            Some(row) => row,
            None => match self.brought(Key::Member(conversation, user))? {
                Row::Member(row) => Some(row),
                _ => None,
            },
        };
        row.filter(|row| !row.is_blank())
    }

    /// An account, if this is its home.
    pub fn user(&self, id: UserId) -> Option<&'a UserRow> {
        match self.state.users.near(&id) {
            Some(row) => row,
            None => match self.brought(Key::User(id))? {
                Row::User(row) => Some(row),
                _ => None,
            },
        }
    }

    /// A name's claim, if this is the name's shard.
    pub fn name(&self, name: &str) -> Option<&'a NameRow> {
        match self.state.names.near(name) {
            Some(row) => row,
            None => match self.brought(Key::Name(name.to_owned()))? {
                Row::Name(row) => Some(row),
                _ => None,
            },
        }
    }

    /// What this home knows of a user's relation to a peer.
    pub fn relation(&self, user: UserId, peer: UserId) -> Option<&'a RelationRow> {
        match self.state.relations.near(&(user, peer)) {
            Some(row) => row,
            None => match self.brought(Key::Relation(user, peer))? {
                Row::Relation(row) => Some(row),
                _ => None,
            },
        }
    }

    /// All conversations of this shard in which a user has a row, ended ones included, in no order. Whoever asks is taken to want
    /// the conversations' rows next.
    pub fn conversations_of(&self, user: UserId) -> Vec<(ConversationId, &'a MemberRow)> {
        let mut conversations: Vec<ConversationId> = self.state.index.conversations_of(user).collect();
        if !self.state.is_whole() {
            match self.brought.places.get(&user) {
                Some(sealed) => conversations.extend(sealed),
                None => self.missing.borrow_mut().places.push(user),
            }
            // Sealed a moment ago, they are in both.
            conversations.sort_unstable();
            conversations.dedup();
        }
        let row = |id: ConversationId| {
            let member = self.member(id, user);
            if member.is_none() {
                self.conversation(id);
            }
            Some((id, member?))
        };
        conversations.into_iter().filter_map(row).collect()
    }

    /// Users above `after` that have a row in a conversation, ended ones included: about the first `rows_max` of them.
    pub fn members_after(&self, group: ConversationId, after: UserId, rows_max: usize) -> MembersAfter {
        let mut users: Vec<UserId> = match direct_users(group) {
            Some(both) => both.collect(),
            None => self.state.index.users_of(group),
        };
        let run = MembersRun { group, after, rows_max };
        let mut upto = None;
        if !self.state.is_whole() && direct_users(group).is_none() {
            match self.brought.members.get(&run) {
                Some(sealed) => {
                    users.extend(&sealed.users);
                    upto = sealed.upto;
                    users.retain(|user| upto.is_none_or(|upto| *user <= upto));
                }
                None => self.missing.borrow_mut().members.push(run),
            }
            users.sort_unstable();
            users.dedup();
        }
        users.retain(|user| *user > after);
        if users.len() > rows_max {
            users.truncate(rows_max);
            upto = users.last().copied();
        }
        MembersAfter { users, next_after: upto }
    }

    /// The answer to a change whose id was accepted before, for a request of this hash.
    pub(crate) fn repeated_change(
        &self,
        change: &GroupChange,
        seq: SeqId,
        asked: BodyHash,
    ) -> Result<Outcome, Refusal> {
        repeated_change(change, seq, asked, |user| self.member(change.group, user))
    }

    /// A row that memory says nothing of.
    fn brought(&self, key: Key) -> Option<&'a Row> {
        if self.state.is_whole() {
            return None;
        }
        match self.brought.rows.get(&key) {
            Some(row) => row.as_ref(),
            None => {
                if self.state.below.may_contain(&key) {
                    self.missing.borrow_mut().rows.push(key);
                }
                None
            }
        }
    }
}
