//! Groups and their members.

use std::sync::Arc;

use logstore::id::{ClientMsgId, ConversationId, ConversationName, SeqId, UserId};
use sequencer::state::{Look, MemberRow, MembersAfter, Role};
use sequencer::{Command, GroupChange, Outcome};

use super::account::unexpected;
use super::{Core, is_uuid_v7, name, no_such_conversation, not_member};
use crate::{Code, Fault};

/// Members of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembersPage {
    /// (user, role, join seq) in order of user id.
    pub members: Vec<(UserId, Role, SeqId)>,
    /// `None`: complete.
    pub next_after: Option<UserId>,
    /// Members now.
    pub member_count: u32,
}

/// The rules of groups.
pub struct Groups {
    core: Arc<Core>,
}

/// Members of a page whose reader does not say how many, and the most there are in one: 26 KiB of answer.
const PAGE_MEMBERS_DEFAULT: usize = 200;
const PAGE_MEMBERS_MAX: usize = 1000;

impl Groups {
    pub(super) fn new(core: Arc<Core>) -> Groups {
        Groups { core }
    }

    /// Creates a group; a retry under the same request is the same group. Returns (group, seq of its first record, members).
    pub async fn create(
        &self,
        creator: UserId,
        name: &str,
        members: Vec<UserId>,
        request: ClientMsgId,
    ) -> Result<(ConversationId, SeqId, Vec<UserId>), Fault> {
        check_request(request)?;
        name::check_title(name, &self.core.limits)?;
        self.check_users(&members).await?;
        self.check_room(0, members.len() + 1)?;
        let group = group_of(creator, request);
        let create = Command::GroupCreate { group, creator, request, name: name.to_owned(), members };
        match self.core.execute(self.core.shard_of(group), create).await? {
            Outcome::Group { seq, added, .. } => Ok((group, seq, added)),
            other => Err(unexpected(&other)),
        }
    }

    /// Adds members; returns the record's seq and who was added (0 and nobody if all were members already).
    pub async fn add(
        &self,
        actor: UserId,
        group: ConversationId,
        users: Vec<UserId>,
        request: ClientMsgId,
    ) -> Result<(SeqId, Vec<UserId>), Fault> {
        self.check_users(&users).await?;
        check_group(group)?;
        self.check_room(self.member_count(group).await?, users.len())?;
        let change = GroupChange::new(group, actor, request, users, Vec::new());
        self.change(change).await.map(|(seq, added, _)| (seq, added))
    }

    /// Removes members.
    pub async fn remove(
        &self,
        actor: UserId,
        group: ConversationId,
        users: Vec<UserId>,
        request: ClientMsgId,
    ) -> Result<(SeqId, Vec<UserId>), Fault> {
        self.check_count(users.len())?;
        check_group(group)?;
        let change = GroupChange::new(group, actor, request, Vec::new(), users);
        self.change(change).await.map(|(seq, _, removed)| (seq, removed))
    }

    /// Leaves.
    pub async fn leave(&self, user: UserId, group: ConversationId, request: ClientMsgId) -> Result<SeqId, Fault> {
        check_group(group)?;
        let change = GroupChange::new(group, user, request, Vec::new(), vec![user]);
        self.change(change).await.map(|(seq, ..)| seq)
    }

    /// Members now, paged. Only for members.
    pub async fn members(
        &self,
        reader: UserId,
        group: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<MembersPage, Fault> {
        check_group(group)?;
        let limit = if limit == 0 { PAGE_MEMBERS_DEFAULT } else { limit.min(PAGE_MEMBERS_MAX) };
        let shard = self.core.shard_of(group);
        let member_count = shard.look(|state, _| entitled(state, reader, group)).await??;
        let (mut members, mut next) = (Vec::new(), Some(after.unwrap_or_default()));
        while let Some(after) = next.filter(|_| members.len() <= limit) {
            let run = shard.look(|state, _| active_after(state, group, after)).await?;
            members.extend(run.members);
            next = run.next_after;
        }
        Ok(page(members, limit, member_count))
    }

    async fn change(&self, change: GroupChange) -> Result<(SeqId, Vec<UserId>, Vec<UserId>), Fault> {
        check_request(change.request)?;
        let shard = self.core.shard_of(change.group);
        match self.core.execute(shard, Command::GroupChange(change)).await? {
            Outcome::Group { seq, added, removed } => Ok((seq, added, removed)),
            Outcome::Done => Ok((SeqId(0), Vec::new(), Vec::new())),
            other => Err(unexpected(&other)),
        }
    }

    async fn check_users(&self, users: &[UserId]) -> Result<(), Fault> {
        self.check_count(users.len())?;
        match self.core.missing(users).await?.first() {
            None => Ok(()),
            Some(user) => Err(Fault::new(Code::NoSuchUser, format!("no such user: {user}"))),
        }
    }

    fn check_count(&self, users: usize) -> Result<(), Fault> {
        let most = self.core.limits.change_users;
        let fits = users as u64 <= most;
        fits.then_some(()).ok_or_else(|| Fault::new(Code::TooMany, format!("at most {most} users a change")))
    }

    fn check_room(&self, members: usize, more: usize) -> Result<(), Fault> {
        let most = self.core.limits.group_members;
        let fits = (members + more) as u64 <= most;
        fits.then_some(()).ok_or_else(|| Fault::new(Code::LimitReached, format!("a group has at most {most} members")))
    }

    async fn member_count(&self, group: ConversationId) -> Result<usize, Fault> {
        Ok(self.core.shard_of(group).look(|state, _| count(state, group) as usize).await?)
    }
}

/// The group a request creates: 62 bits of a hash, so that a retry names the same one and nobody guesses another's.
fn group_of(creator: UserId, request: ClientMsgId) -> ConversationId {
    let mut hasher = blake3::Hasher::new_derive_key("skein group 1");
    hasher.update(&creator.0.to_le_bytes()).update(&request.0.to_le_bytes());
    let mut number = [0; 8];
    hasher.finalize_xof().fill(&mut number);
    ConversationId::group(u64::from_le_bytes(number) & (ConversationId::ID_LIMIT - 1))
}

/// A change is told from its repetition as a message is: its id has to carry a time.
fn check_request(request: ClientMsgId) -> Result<(), Fault> {
    is_uuid_v7(request).then_some(()).ok_or_else(|| Fault::new(Code::BadField, "request_id: not a UUIDv7"))
}

fn check_group(id: ConversationId) -> Result<(), Fault> {
    match id.name() {
        Some(ConversationName::Group(_)) => Ok(()),
        _ => Err(Fault::new(Code::NoSuchConversation, "no such group")),
    }
}

/// How many members there are, if the reader may know.
fn entitled(state: &Look<'_>, reader: UserId, group: ConversationId) -> Result<u32, Fault> {
    let row = state.member(group, reader).ok_or_else(no_such_conversation)?;
    if row.is_active() { Ok(count(state, group)) } else { Err(not_member()) }
}

/// Rows of members that are looked at under one lock.
const ROWS_PER_LOOK: usize = 1024;

/// Some members of a group, and where the next ones are.
struct Run {
    members: Vec<(UserId, Role, SeqId)>,
    next_after: Option<UserId>,
}

fn active_after(state: &Look<'_>, group: ConversationId, after: UserId) -> Run {
    let MembersAfter { users, next_after } = state.members_after(group, after, ROWS_PER_LOOK);
    let rows = users.into_iter().filter_map(|user| Some((user, state.member(group, user)?)));
    let active = rows.filter(|(_, row)| row.is_active());
    let joined = |row: &MemberRow| row.intervals.last().map_or(SeqId(0), |i| i.join);
    Run { members: active.map(|(user, row)| (user, row.role, joined(row))).collect(), next_after }
}

fn page(mut members: Vec<(UserId, Role, SeqId)>, limit: usize, member_count: u32) -> MembersPage {
    let more = members.len() > limit;
    members.truncate(limit);
    let next_after = members.last().filter(|_| more).map(|(user, ..)| *user);
    MembersPage { members, next_after, member_count }
}

fn count(state: &Look<'_>, group: ConversationId) -> u32 {
    state.conversation(group).and_then(|row| row.group.as_ref()).map_or(0, |g| g.member_count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_one_group_and_another_creator_another() {
        let request = ClientMsgId(7);
        assert_eq!(group_of(UserId(1), request), group_of(UserId(1), request));
        assert_ne!(group_of(UserId(1), request), group_of(UserId(2), request));
        assert_ne!(group_of(UserId(1), request), group_of(UserId(1), ClientMsgId(8)));
        assert_eq!(check_group(group_of(UserId(1), request)), Ok(()));
    }
}
