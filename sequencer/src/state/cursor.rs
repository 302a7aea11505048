//! Moving members' cursors: only forward, no record, nothing refused.

use logstore::id::{Ordinal, SeqId};

use super::{ConversationRow, MemberRow, ShardState};
use crate::{Applied, CursorMove, CursorMoved, Outcome};

impl ShardState {
    pub(super) fn move_cursors(&mut self, moves: &[CursorMove], out: &mut Applied) -> Outcome {
        for step in moves {
            self.move_cursor(step, out);
        }
        Outcome::Done
    }

    /// Moves that lead beyond what the member may see, or nowhere, are passed over: the service has told the client.
    fn move_cursor(&mut self, step: &CursorMove, out: &mut Applied) {
        let key = (step.conversation, step.user);
        let Some(conversation) = self.conversations.get(&step.conversation).filter(|row| !row.is_hidden()) else {
            return;
        };
        let Some(member) = self.members.get(&key) else { return };
        let reach = member.reach(conversation);
        let advances = |to: SeqId, from: SeqId| from < to && to <= reach;
        let (delivered, read) = (advances(step.delivered, member.delivered), advances(step.read, member.read));
        if !delivered && !read {
            return;
        }
        let read_ordinal = ordinal_at(step, conversation);
        let member = self.members.get_mut(&key).expect("looked at just now");
        if delivered {
            member.delivered = step.delivered;
        }
        if read {
            member.read = step.read;
            member.read_ordinal = member.read_ordinal.max(read_ordinal);
        }
        member.changed_at = out.index;
        out.cursors.push(CursorMoved {
            conversation: step.conversation,
            user: step.user,
            delivered: member.delivered,
            read: member.read,
            read_ordinal: member.read_ordinal,
        });
    }
}

impl MemberRow {
    /// The newest record the member may see.
    fn reach(&self, conversation: &ConversationRow) -> SeqId {
        match self.intervals.last().map(|interval| interval.end) {
            None => SeqId(0),
            Some(None) => conversation.last_seq,
            Some(Some(end)) => SeqId(end.0.saturating_sub(1)),
        }
    }
}

/// The ordinal at the read cursor: known at the head, else the proposer's hint within what is possible.
fn ordinal_at(step: &CursorMove, conversation: &ConversationRow) -> Ordinal {
    if step.read == conversation.last_seq {
        return conversation.last_ordinal;
    }
    step.read_ordinal.min(conversation.last_ordinal).min(Ordinal(step.read.0))
}
