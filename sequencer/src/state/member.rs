//! A member's row, and the body of the record that changes it.

use bytes::Bytes;
use logstore::id::{LogIndex, Ordinal, SeqId, TimeMs, UserId};
use smallvec::{SmallVec, smallvec};

use crate::codec;

/// `[join, end)` in seq_ids. `end` is the seq_id of the leave record + 1: the leave record is the last thing
/// the leaver receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interval {
    /// The record that made the user a member.
    pub join: SeqId,
    /// `None` while a member.
    pub end: Option<SeqId>,
}

impl Interval {
    /// Whether the interval holds a record.
    pub fn holds(&self, seq: SeqId) -> bool {
        self.join <= seq && self.end.is_none_or(|end| seq < end)
    }
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything.
    Owner,
    /// Adds and removes members.
    Admin,
    /// Sends.
    Member,
}

/// What a conversation's shard knows of one user in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemberRow {
    /// Ended ones are kept; the last one may be open.
    pub intervals: SmallVec<[Interval; 1]>,
    /// Nothing before it is shown, whatever the intervals say.
    pub visible_from: SeqId,
    /// What the member may do while a member.
    pub role: Role,
    /// Received up to here.
    pub delivered: SeqId,
    /// Read up to here.
    pub read: SeqId,
    /// The conversation's ordinal at `read`.
    pub read_ordinal: Ordinal,
    /// The conversation's ordinal just before the current interval began.
    pub join_ordinal: Ordinal,
    /// The conversation's ordinal and log time at the last leave record: all that a list shows of what has been left.
    /// 0 before the first.
    pub left_at: (Ordinal, TimeMs),
    /// The entry that changed this row last.
    pub changed_at: LogIndex,
}

impl MemberRow {
    /// Who comes and goes more often than that is refused: every interval ever is asked about at every record.
    pub const INTERVALS_MAX: usize = 64;

    /// The row of somebody who joins for the first time, by record `seq`; nothing before it is shown.
    pub(super) fn joined(seq: SeqId, ordinal: Ordinal, role: Role, index: LogIndex) -> MemberRow {
        MemberRow {
            intervals: smallvec![Interval { join: seq, end: None }],
            visible_from: seq,
            role,
            delivered: SeqId(0),
            read: SeqId(0),
            read_ordinal: Ordinal(0),
            join_ordinal: ordinal,
            left_at: (Ordinal(0), TimeMs(0)),
            changed_at: index,
        }
    }

    /// The row of somebody who never was a member: what is left of one that an import made and that was given up.
    pub fn blank() -> MemberRow {
        MemberRow { intervals: SmallVec::new(), ..MemberRow::joined(SeqId(0), Ordinal(0), Role::Member, LogIndex(0)) }
    }

    /// Whether the user never was a member.
    pub fn is_blank(&self) -> bool {
        self.intervals.is_empty()
    }

    /// Whether the user is a member now.
    pub fn is_active(&self) -> bool {
        self.intervals.last().is_some_and(|i| i.end.is_none())
    }

    /// Whether the user may see a record.
    pub fn sees(&self, seq: SeqId) -> bool {
        seq >= self.visible_from && self.intervals.iter().any(|i| i.holds(seq))
    }
}

/// The body of a membership record.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MembershipBody {
    /// Who did it.
    pub actor: UserId,
    /// Who became a member by it.
    pub joined: Vec<UserId>,
    /// Who ceased to be one by it.
    pub left: Vec<UserId>,
}

impl MembershipBody {
    /// The bytes drawn in `docs/format.md`.
    pub fn encode(&self) -> Bytes {
        codec::put_membership(self.actor, &self.joined, &self.left)
    }

    /// `None` if the bytes are not a membership body.
    pub fn decode(bytes: &[u8]) -> Option<MembershipBody> {
        let (actor, joined, left) = codec::read_membership(bytes).ok()?;
        Some(MembershipBody { actor, joined, left })
    }
}
