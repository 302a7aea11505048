//! The answer to an announcement: a fence at one applied index, and what changed below it.
//!
//! What always holds: the rows, the audience and `as_of` are taken at one point of applied state, under the shard's read
//! lock; everything that is read afterwards lies below that point and never changes.

use std::sync::Arc;

use logstore::id::{ConversationId, ConversationName, LogIndex, SeqId, ShardId};
use logstore::{Records, SegmentSet};
use parking_lot::Mutex;
use sequencer::Record;
use sequencer::state::{Look, MemberRow};

use super::hub::{Generation, Hub};
use super::{Announcement, Attachment, Listener};
use crate::Fault;
use crate::pages::{Budget, RecordSource, newest_first};
use crate::row::{self, Row};
use crate::visible::Visible;

/// Missed bodies sent with one answer: four full frames of a client. Beyond it rows come without records, and the client
/// reads what it wants to show.
const BACKLOG_BYTES_MAX: usize = 4 << 20;

/// What was true when the announcement took effect.
pub(super) struct Fence {
    announcement: Announcement,
    shard: ShardId,
    as_of: LogIndex,
    /// Newest first, each with what of it is unsealed and was missed.
    rows: Vec<(Row, Missed)>,
    sealed: Arc<SegmentSet>,
    /// Newest records of a conversation to send; none if the device wants none.
    backlog_records: u64,
    /// What ends this announcement.
    pub generation: Generation,
}

impl Fence {
    /// Puts the connection into the audience and notes what changed after its cursor; `None`, and nothing is done, if the look is not
    /// complete.
    pub fn set(
        shard: ShardId,
        state: &Look<'_>,
        held: &Records,
        hub: &Mutex<Hub>,
        announcement: Announcement,
        backlog_records: u64,
    ) -> Option<Fence> {
        let Announcement { user, cursor, .. } = announcement;
        let members = state.conversations_of(user);
        let mut rows: Vec<(Row, Missed)> = members
            .iter()
            .filter(|(id, member)| state.conversation(*id).is_some_and(|c| row::changed_after(c, member, cursor)))
            .filter_map(|(id, member)| row::look(shard, state, *id, user, member))
            .map(|row| {
                let missed = Missed::of(held, row.summary.conversation, cursor);
                (row, missed)
            })
            .collect();
        if !state.is_complete() {
            return None;
        }
        let listener = Listener { gateway: announcement.gateway, connection: announcement.connection };
        let generation = hub.lock().announce(listener, user, groups_of(&members));
        rows.sort_by_key(|(row, _)| std::cmp::Reverse((row.summary.last_time, row.summary.conversation)));
        let sealed = held.sealed().clone();
        let backlog_records = if announcement.bodies { backlog_records } else { 0 };
        Some(Fence { announcement, shard, as_of: state.applied(), rows, sealed, backlog_records, generation })
    }

    /// Reads the missed records and makes the unread counts. A conversation that rot has reached comes without records: whoever
    /// reads its history is told.
    pub async fn read(self, source: &impl RecordSource) -> Result<Attachment, Fault> {
        let mut attachment = Attachment {
            shard: self.shard,
            as_of: self.as_of,
            rows: Vec::with_capacity(self.rows.len()),
            records: Vec::new(),
        };
        let Announcement { user, cursor, .. } = self.announcement;
        let mut budget = Budget { records: usize::MAX, bytes: BACKLOG_BYTES_MAX };
        for (row, missed) in self.rows {
            let read = backlog(source, &row, &missed, (&self.sealed, cursor, self.backlog_records), &mut budget).await;
            let Row { mut summary, unread, .. } = row;
            let id = summary.conversation;
            let mut records = match read {
                Err(error) if error.is_damage() => {
                    tracing::error!(%error, "an attach goes without a conversation's records");
                    Vec::new()
                }
                read => read?,
            };
            summary.unread = match unread.count_in(user, &records) {
                Some(unread) => unread,
                None => unread.count(user, id, source).await,
            };
            records.retain(|record| record.head.index > cursor);
            attachment.records.extend(records);
            attachment.rows.push(summary);
        }
        Ok(attachment)
    }
}

/// The groups in which the announced user is a member now, and since which record.
fn groups_of(members: &[(ConversationId, &MemberRow)]) -> impl Iterator<Item = (ConversationId, SeqId)> {
    let groups = members.iter().filter(|(id, _)| matches!(id.name(), Some(ConversationName::Group(_))));
    groups.filter_map(|(id, member)| {
        let current = member.intervals.last().filter(|i| i.end.is_none())?;
        Some((*id, current.join.max(member.visible_from)))
    })
}

/// What of a conversation is unsealed and above a cursor.
struct Missed {
    first: Option<SeqId>,
    /// Whether older records, which are sealed, may be above it too.
    also_sealed: bool,
}

impl Missed {
    fn of(held: &Records, conversation: ConversationId, cursor: LogIndex) -> Missed {
        let first = held.first_above(conversation, cursor);
        let oldest = held.bounds(conversation).map(|(oldest, _)| oldest);
        Missed { first, also_sealed: first == oldest && oldest != Some(SeqId(1)) }
    }

    /// What of it a member may see. Of what is sealed it may begin a little too early: who reads it compares indexes.
    fn visible(&self, row: &Row, sealed: &SegmentSet, cursor: LogIndex) -> sequencer::Result<Visible> {
        let conversation = row.summary.conversation;
        let in_segments = if self.also_sealed { sealed.first_above(conversation, cursor) } else { Ok(None) };
        let unreadable = |error| sequencer::Error::from(error).of_read(sealed.manifest().shard(), conversation);
        let first = in_segments.map_err(unreadable)?.or(self.first);
        Ok(first.map_or_else(Visible::default, |first| row.visible.within(first, SeqId(u64::MAX))))
    }
}

/// The newest of what a conversation's member missed, ascending.
async fn backlog(
    source: &impl RecordSource,
    row: &Row,
    missed: &Missed,
    (sealed, cursor, most): (&SegmentSet, LogIndex, u64),
    budget: &mut Budget,
) -> sequencer::Result<Vec<Record>> {
    if most == 0 {
        return Ok(Vec::new());
    }
    let backlog = missed.visible(row, sealed, cursor)?.newest(most);
    let mut records = newest_first(source, row.summary.conversation, &backlog, budget).await?;
    records.reverse();
    Ok(records)
}
