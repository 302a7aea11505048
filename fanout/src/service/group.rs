//! Groups and their members.

use logstore::id::{ClientMsgId, ConversationId, SeqId, UserId};
use sequencer::state::Role;

use crate::Fault;

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
pub struct Groups {}

impl Groups {
    /// Creates a group; a retry under the same request is the same group. Returns (group, seq of its first record, members).
    pub async fn create(
        &self,
        creator: UserId,
        name: &str,
        members: Vec<UserId>,
        request: ClientMsgId,
    ) -> Result<(ConversationId, SeqId, Vec<UserId>), Fault> {
        let _ = (creator, name, members, request);
        unimplemented!()
    }

    /// Adds members; returns the record's seq and who was added (0 and nobody if all were members already).
    pub async fn add(
        &self,
        actor: UserId,
        group: ConversationId,
        users: Vec<UserId>,
        request: ClientMsgId,
    ) -> Result<(SeqId, Vec<UserId>), Fault> {
        let _ = (actor, group, users, request);
        unimplemented!()
    }

    /// Removes members.
    pub async fn remove(
        &self,
        actor: UserId,
        group: ConversationId,
        users: Vec<UserId>,
        request: ClientMsgId,
    ) -> Result<(SeqId, Vec<UserId>), Fault> {
        let _ = (actor, group, users, request);
        unimplemented!()
    }

    /// Leaves.
    pub async fn leave(&self, user: UserId, group: ConversationId, request: ClientMsgId) -> Result<SeqId, Fault> {
        let _ = (user, group, request);
        unimplemented!()
    }

    /// Members now, paged. Only for members.
    pub fn members(
        &self,
        reader: UserId,
        group: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<MembersPage, Fault> {
        let _ = (reader, group, after, limit);
        unimplemented!()
    }
}
