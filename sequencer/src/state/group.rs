//! Groups: created, changed, left.
//!
//! What always holds: one change makes one membership record, which names the users that really changed, or none if
//! nobody did; intervals begin at the record that opens them and end just after the one that closes them, so the
//! leave record is the last thing a leaver receives; a group with members has an owner among them.

use std::collections::BTreeSet;

use bytes::Bytes;
use logstore::id::{BodyHash, ClientMsgId, ConnectionId, ConversationId, ConversationName, Ordinal, SeqId, UserId};
use logstore::{BodyPlace, RecordKind};
use xxhash_rust::xxh3::Xxh3;

use super::apply::{Accept, append};
use super::direct::is_user;
use super::send::RECORD_HEAD_BYTES;
use super::{
    ConversationRow, GroupRow, Interval, MEMBERS_MAX, MemberRow, MembershipBody, MessageKey, Role, ShardState,
};
use crate::{Applied, GroupChange, Outcome, Refusal};

impl ShardState {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn group_create(
        &mut self,
        group: ConversationId,
        creator: UserId,
        request: ClientMsgId,
        name: String,
        members: Vec<UserId>,
        offset: u32,
        out: &mut Applied,
    ) -> Result<Outcome, Refusal> {
        let Some(ConversationName::Group(_)) = group.name() else { return Err(Refusal::NoSuchConversation) };
        self.check_owned(group)?;
        self.check_shown(group)?;
        let added = first_members(creator, &members);
        let asked = hash_of_creation(&name, &added);
        if let Some(row) = self.conversation(group).and_then(|row| row.group.as_ref()) {
            if (row.creator, row.request) != (creator, request) {
                return Err(Refusal::NotAllowed);
            }
            // It asks for the same members, so they are those of the record: no row has to be looked at.
            let repeated = Outcome::Group { seq: SeqId(1), added, removed: vec![] };
            return if row.asked == asked { Ok(repeated) } else { Err(Refusal::IdempotencyConflict) };
        }
        if !added.iter().all(|user| is_user(*user)) {
            return Err(Refusal::NoSuchUser);
        }
        if added.len() > MEMBERS_MAX {
            return Err(Refusal::LimitReached);
        }
        let row = GroupRow { name, owner: creator, creator, request, asked, member_count: 0, created: self.own.time };
        self.conversations.insert(group, empty_group(row, out));
        self.figures.conversations += 1;
        let key = MessageKey { conversation: group, sender: creator, id: request };
        let outcome = self.change_members(&key, asked, added, vec![], offset, out);
        self.set_role(group, creator, Role::Owner, out);
        Ok(outcome)
    }

    pub(super) fn group_change(
        &mut self,
        change: &GroupChange,
        offset: u32,
        out: &mut Applied,
    ) -> Result<Outcome, Refusal> {
        self.check_owned(change.group)?;
        self.check_shown(change.group)?;
        let key = MessageKey { conversation: change.group, sender: change.actor, id: change.request };
        if let Some((stored, body_hash)) = self.dedup.find(self.dedup.hash(&key), &key) {
            return self.repeated_change(change, stored.seq, body_hash);
        }
        self.dedup.admit(key.id, self.own.time, change.checked_upto)?;
        let conversation = self.conversation(change.group).ok_or(Refusal::NoSuchConversation)?;
        self.check_not_trimmed(conversation, key.id)?;
        let row = conversation.group.as_ref().ok_or(Refusal::NoSuchConversation)?;
        let (owner, member_count) = (row.owner, row.member_count as usize);
        self.authorise_change(change, owner)?;
        let (added, removed) = self.really_changed(change)?;
        if member_count + added.len() - removed.len() > MEMBERS_MAX {
            return Err(Refusal::LimitReached);
        }
        if added.is_empty() && removed.is_empty() {
            return Ok(Outcome::Group { seq: SeqId(0), added, removed });
        }
        let heir = if removed.contains(&owner) { self.heir(change, member_count, &added, &removed)? } else { None };
        let asked = hash_of_change(&change.add, &change.remove);
        let outcome = self.change_members(&key, asked, added, removed, offset, out);
        if let Some(heir) = heir {
            self.pass_ownership(change.group, heir, out);
        }
        Ok(outcome)
    }

    /// Owner and admins add and remove; anybody may leave; nobody removes the owner.
    fn authorise_change(&self, change: &GroupChange, owner: UserId) -> Result<(), Refusal> {
        let actor = self.member(change.group, change.actor).filter(|row| row.is_active());
        let actor = actor.ok_or(Refusal::NotMember)?;
        let leaves = change.add.is_empty() && change.remove == [change.actor];
        let may_change = matches!(actor.role, Role::Owner | Role::Admin);
        let removes_owner = change.actor != owner && change.remove.contains(&owner);
        let contradicts = change.add.iter().any(|user| change.remove.contains(user));
        if leaves || (may_change && !removes_owner && !contradicts) { Ok(()) } else { Err(Refusal::NotAllowed) }
    }

    /// Who becomes a member and who ceases to be one, ascending.
    fn really_changed(&self, change: &GroupChange) -> Result<(Vec<UserId>, Vec<UserId>), Refusal> {
        let row = |user: UserId| self.member(change.group, user);
        let is_active = |user: UserId| row(user).is_some_and(MemberRow::is_active);
        if !change.add.iter().all(|user| is_user(*user)) {
            return Err(Refusal::NoSuchUser);
        }
        let sorted = |users: &[UserId]| users.iter().copied().collect::<BTreeSet<_>>().into_iter();
        let added: Vec<_> = sorted(&change.add).filter(|user| !is_active(*user)).collect();
        let removed = sorted(&change.remove).filter(|user| is_active(*user)).collect();
        let is_full = |user: &UserId| row(*user).is_some_and(|row| row.intervals.len() >= MemberRow::INTERVALS_MAX);
        if added.iter().any(is_full) { Err(Refusal::LimitReached) } else { Ok((added, removed)) }
    }

    /// Appends the membership record and changes the rows it speaks of.
    fn change_members(
        &mut self,
        key: &MessageKey,
        asked: BodyHash,
        added: Vec<UserId>,
        removed: Vec<UserId>,
        offset: u32,
        out: &mut Applied,
    ) -> Outcome {
        let body = MembershipBody { actor: key.sender, joined: added, left: removed };
        let row = self.conversations.get_mut(&key.conversation).expect("callers have checked that the group exists");
        let accept = accept_membership(key, asked, body.encode(), offset);
        self.unsealed_bytes += RECORD_HEAD_BYTES + accept.made_body.as_ref().map_or(0, Bytes::len) as u64;
        let stored = append(&mut self.own, row, accept, out);
        let ordinal = row.last_ordinal;
        if let Some(group) = &mut row.group {
            group.member_count = group.member_count + body.joined.len() as u32 - body.left.len() as u32;
        }
        self.dedup.insert(self.dedup.hash(key), key, &stored, asked);
        for &user in &body.joined {
            self.join(key.conversation, user, stored.seq, ordinal, out);
        }
        for &user in &body.left {
            self.leave(key.conversation, user, stored.seq, ordinal, out);
        }
        Outcome::Group { seq: stored.seq, added: body.joined, removed: body.left }
    }

    fn join(&mut self, group: ConversationId, user: UserId, seq: SeqId, ordinal: Ordinal, out: &Applied) {
        match self.members.get_mut(&(group, user)) {
            Some(row) => {
                row.intervals.push(Interval { join: seq, end: None });
                row.role = Role::Member;
                row.join_ordinal = ordinal;
                row.changed_at = out.index;
            }
            None => {
                let row = MemberRow::joined(seq, ordinal, Role::Member, out.index);
                self.members.insert((group, user), row);
                self.index.enter(group, user);
            }
        }
    }

    fn leave(&mut self, group: ConversationId, user: UserId, seq: SeqId, ordinal: Ordinal, out: &Applied) {
        let row = self.members.get_mut(&(group, user)).expect("only active members are removed");
        if let Some(interval) = row.intervals.last_mut() {
            interval.end = Some(seq.next());
        }
        row.left_at = (ordinal, out.time);
        row.role = Role::Member;
        row.changed_at = out.index;
    }

    /// The heir that the proposer has found; nobody is left to own an empty group. One who went meanwhile has to be
    /// sought again.
    fn heir(
        &self,
        change: &GroupChange,
        member_count: usize,
        added: &[UserId],
        removed: &[UserId],
    ) -> Result<Option<UserId>, Refusal> {
        if member_count + added.len() == removed.len() {
            return Ok(None);
        }
        let heir = change.heir;
        let was_active = self.member(change.group, heir).is_some_and(MemberRow::is_active);
        let is_active = if was_active { !removed.contains(&heir) } else { added.contains(&heir) };
        if is_active { Ok(Some(heir)) } else { Err(Refusal::Retry) }
    }

    fn pass_ownership(&mut self, group: ConversationId, heir: UserId, out: &Applied) {
        self.set_role(group, heir, Role::Owner, out);
        if let Some(row) = self.conversations.get_mut(&group).and_then(|row| row.group.as_mut()) {
            row.owner = heir;
        }
    }

    fn set_role(&mut self, group: ConversationId, user: UserId, role: Role, out: &Applied) {
        if let Some(row) = self.members.get_mut(&(group, user)) {
            row.role = role;
            row.changed_at = out.index;
        }
    }

    fn repeated_change(&self, change: &GroupChange, seq: SeqId, asked: BodyHash) -> Result<Outcome, Refusal> {
        repeated_change(change, seq, asked, |user| self.member(change.group, user))
    }
}

/// The answer to a change whose id was accepted before, for a request of this hash; `row` gives a member's row.
pub(super) fn repeated_change<'a>(
    change: &GroupChange,
    seq: SeqId,
    asked: BodyHash,
    row: impl Fn(UserId) -> Option<&'a MemberRow>,
) -> Result<Outcome, Refusal> {
    if asked != hash_of_change(&change.add, &change.remove) {
        return Err(Refusal::IdempotencyConflict);
    }
    // Of those it named, the ones whose intervals began or ended by its record.
    let named = |users: &[UserId], by: &dyn Fn(&Interval) -> bool| -> Vec<UserId> {
        let users: BTreeSet<UserId> = users.iter().copied().collect();
        users.into_iter().filter(|user| row(*user).is_some_and(|row| row.intervals.iter().any(by))).collect()
    };
    let added = named(&change.add, &|interval| interval.join == seq);
    let removed = named(&change.remove, &|interval| interval.end == Some(seq.next()));
    Ok(Outcome::Group { seq, added, removed })
}

/// Everybody a creation asks for, ascending.
pub(super) fn first_members(creator: UserId, members: &[UserId]) -> Vec<UserId> {
    members.iter().copied().chain([creator]).collect::<BTreeSet<_>>().into_iter().collect()
}

/// What a retry is compared by: the request, for the record's body depends on who was a member then.
pub(super) fn hash_of_change(add: &[UserId], remove: &[UserId]) -> BodyHash {
    BodyHash(hasher_of_users(add, remove).digest())
}

pub(super) fn hash_of_creation(name: &str, members: &[UserId]) -> BodyHash {
    let mut hasher = hasher_of_users(members, &[]);
    hasher.update(name.as_bytes());
    BodyHash(hasher.digest())
}

fn hasher_of_users(add: &[UserId], remove: &[UserId]) -> Xxh3 {
    let mut hasher = Xxh3::with_seed(u64::from(RecordKind::MEMBERSHIP.0));
    for users in [add, remove] {
        hasher.update(&(users.len() as u64).to_le_bytes());
        for user in users {
            hasher.update(&user.0.to_le_bytes());
        }
    }
    hasher
}

fn accept_membership(key: &MessageKey, asked: BodyHash, body: Bytes, offset: u32) -> Accept {
    Accept {
        conversation: key.conversation,
        kind: RecordKind::MEMBERSHIP,
        sender: key.sender,
        client_msg_id: key.id,
        body_hash: asked,
        body: BodyPlace::Made,
        origin: ConnectionId(0),
        command_offset: offset,
        made_body: Some(body),
    }
}

fn empty_group(group: GroupRow, out: &Applied) -> ConversationRow {
    ConversationRow {
        last_seq: SeqId(0),
        last_ordinal: Ordinal(0),
        last_index: out.index,
        last_time: out.time,
        direct: None,
        group: Some(Box::new(group)),
        upkeep: None,
    }
}
