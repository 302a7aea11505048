//! A conversation as one member sees it, made from applied state at one index.
//!
//! What always holds: everything in a row is clipped to what the member may see, so that a leaver learns nothing of what
//! came after; how many members there are is for members to know.

use logstore::id::{ConversationId, ConversationName, LogIndex, Ordinal, SeqId, ShardId, TimeMs, UserId};
use sequencer::state::{ConversationRow, Look, MemberRow};

use crate::service::ConversationSummary;
use crate::unread::UnreadSpan;
use crate::visible::Visible;

/// A row whose unread count is still to be made, and what that takes.
pub(crate) struct Row {
    /// Everything but `unread` and `last`.
    pub summary: ConversationSummary,
    /// What the member may see.
    pub visible: Visible,
    /// What is above the read cursor.
    pub unread: UnreadSpan,
}

/// The newest record a member may see.
struct SeenHead {
    seq: SeqId,
    ordinal: Ordinal,
    time: TimeMs,
}

/// The row of a member, or `None` if there is no such conversation here.
pub(crate) fn look(
    shard: ShardId,
    state: &Look<'_>,
    id: ConversationId,
    user: UserId,
    member: &MemberRow,
) -> Option<Row> {
    let conversation = state.conversation(id)?;
    let seen = Visible::of(member, conversation.last_seq);
    let head = seen_head(conversation, member, &seen);
    let floor = conversation.floor();
    let visible = seen.from(floor.before);
    let summary = ConversationSummary {
        conversation: id,
        head_seq: head.seq,
        head_ordinal: head.ordinal,
        last_time: head.time,
        read_seq: member.read,
        delivered_seq: member.delivered,
        unread: 0,
        active: member.is_active(),
        visible_from: member.visible_from.max(floor.before),
        title: conversation.group.as_ref().map_or_else(String::new, |g| g.name.clone()),
        peer: peer_of(id, user),
        member_count: if member.is_active() { member_count(id, conversation) } else { 0 },
        as_of: state.applied(),
        shard,
        last: None,
    };
    let unread = UnreadSpan::of(member, &visible, head.ordinal).less(user, conversation.upkeep.as_deref());
    Some(Row { summary, visible, unread })
}

/// The log time of the newest record a member may see: what lists are sorted by.
pub(crate) fn seen_time(conversation: &ConversationRow, row: &MemberRow) -> TimeMs {
    if row.is_active() { conversation.last_time } else { row.left_at.1 }
}

/// Whether a member's row has changed after a cursor, as far as the member may know.
///
/// A member's newest record is the conversation's; whoever has left saw the leave record last, and that one changed
/// their row.
pub(crate) fn changed_after(conversation: &ConversationRow, member: &MemberRow, cursor: LogIndex) -> bool {
    let conversation_changed = conversation.last_index.max(conversation.floor().trimmed_at);
    member.changed_at > cursor || (member.is_active() && conversation_changed > cursor)
}

/// The other one of a 1:1 (oneself, for notes to self); nobody for groups.
pub(crate) fn peer_of(id: ConversationId, user: UserId) -> UserId {
    match id.name() {
        Some(ConversationName::Direct(low, high)) if low == user => high,
        Some(ConversationName::Direct(low, _)) => low,
        _ => UserId(0),
    }
}

fn member_count(id: ConversationId, conversation: &ConversationRow) -> u32 {
    match (id.name(), &conversation.group) {
        (_, Some(group)) => group.member_count,
        (Some(ConversationName::Direct(low, high)), None) if low != high => 2,
        _ => 1,
    }
}

fn seen_head(conversation: &ConversationRow, member: &MemberRow, visible: &Visible) -> SeenHead {
    let seq = visible.head();
    if seq == conversation.last_seq {
        return SeenHead { seq, ordinal: conversation.last_ordinal, time: conversation.last_time };
    }
    let (ordinal, time) = member.left_at;
    SeenHead { seq, ordinal, time }
}
