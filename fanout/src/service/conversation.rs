//! The conversation list, and opening 1:1s.

use std::sync::Arc;

use logstore::id::{ConversationId, LogIndex, Ordinal, SeqId, ShardId, TimeMs, UserId};
use sequencer::state::{Look, MemberRow};
use sequencer::{Record, Shard};

use super::open_direct::OpenDirects;
use super::{Core, no_such_conversation};
use crate::pages::{Budget, oldest_first};
use crate::row::{self, Row};
use crate::visible::Visible;
use crate::{Code, Fault};

/// A conversation as one member sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationSummary {
    /// Which.
    pub conversation: ConversationId,
    /// Its newest record this member may see.
    pub head_seq: SeqId,
    /// The ordinal there.
    pub head_ordinal: Ordinal,
    /// The log time of its newest record.
    pub last_time: TimeMs,
    /// Read up to here.
    pub read_seq: SeqId,
    /// Received up to here.
    pub delivered_seq: SeqId,
    /// Others' countable records above the read cursor.
    pub unread: u64,
    /// Whether a member now.
    pub active: bool,
    /// Nothing before it is shown.
    pub visible_from: SeqId,
    /// The group's name.
    pub title: String,
    /// The other one of a 1:1.
    pub peer: UserId,
    /// Members now; 0 for who is none any more.
    pub member_count: u32,
    /// The index this row is as of.
    pub as_of: LogIndex,
    /// The shard it is of.
    pub shard: ShardId,
    /// The newest record, in lists.
    pub last: Option<Record>,
}

/// A page of something, and where the next begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// `None`: complete.
    pub next_after: Option<Vec<u8>>,
}

/// The rules of conversations.
pub struct Conversations {
    core: Arc<Core>,
    opens: Arc<OpenDirects>,
}

/// Conversations of a page whose reader does not say how many.
const PAGE_DEFAULT: usize = 50;

impl Conversations {
    pub(super) fn new(core: Arc<Core>, opens: Arc<OpenDirects>) -> Conversations {
        Conversations { core, opens }
    }

    /// Opens the 1:1 of two users; returns when both may write to it.
    pub async fn open_direct(&self, user: UserId, peer: UserId) -> Result<ConversationSummary, Fault> {
        self.opens.open(&self.core, user, peer).await?;
        let summary = self.summary(user, ConversationId::direct(user, peer)).await?;
        summary.ok_or_else(no_such_conversation)
    }

    /// The user's conversations, newest first.
    pub async fn list(
        &self,
        user: UserId,
        limit: usize,
        after: &[u8],
        with_left: bool,
    ) -> Result<Page<ConversationSummary>, Fault> {
        let most = self.core.limits.list_conversations as usize;
        let limit = if limit == 0 { PAGE_DEFAULT.min(most) } else { limit.min(most) };
        let after = Place::decode(after)?;
        let mut places = self.places(user, with_left).await?;
        places.retain(|place| after.is_none_or(|after| *place < after));
        places.sort_unstable_by_key(|place| std::cmp::Reverse(*place));
        let next_after = (places.len() > limit).then(|| places[limit - 1].encode());
        places.truncate(limit);
        let mut items = Vec::with_capacity(places.len());
        for place in places {
            items.extend(self.summary(user, place.conversation).await?);
        }
        Ok(Page { items, next_after })
    }

    /// Where each of the user's conversations stands in the list, in no order.
    async fn places(&self, user: UserId, with_left: bool) -> Result<Vec<Place>, Fault> {
        let mut places = Vec::new();
        for shard in self.core.sequencer.shards() {
            places.extend(shard.look(|state, _| places_in(state, user, with_left)).await?);
        }
        Ok(places)
    }

    /// A row with its newest record and unread count; `None` if the user has none.
    async fn summary(&self, user: UserId, id: ConversationId) -> Result<Option<ConversationSummary>, Fault> {
        let shard = self.core.shard_of(id);
        let row = shard.look(|state, _| {
            let member = state.member(id, user)?;
            row::look(shard.id(), state, id, user, member)
        });
        let row = row.await?;
        let Some(Row { mut summary, visible, unread }) = row else { return Ok(None) };
        summary.last = newest(shard, id, &visible).await?;
        summary.unread = unread.count(user, id, &**shard).await;
        Ok(Some(summary))
    }
}

fn places_in(state: &Look<'_>, user: UserId, with_left: bool) -> Vec<Place> {
    let rows = state.conversations_of(user).into_iter().filter(|(_, member)| with_left || member.is_active());
    let place = |(conversation, member): (ConversationId, &MemberRow)| {
        let row = state.conversation(conversation)?;
        Some(Place { time: row::seen_time(row, member), conversation })
    };
    rows.filter_map(place).collect()
}

/// One that rot has reached is left out: a list is not lost with one of its lines.
async fn newest(shard: &Shard, id: ConversationId, visible: &Visible) -> Result<Option<Record>, Fault> {
    let mut budget = Budget { records: 1, bytes: usize::MAX };
    match oldest_first(shard, id, &visible.newest(1), &mut budget).await {
        Err(error) if error.is_damage() => {
            tracing::error!(%error, "a list goes without a conversation's newest record");
            Ok(None)
        }
        records => Ok(records?.pop()),
    }
}

/// Where a conversation stands in a list: newest first, then by id. Travels to clients as
///
/// ```text
///  0            8                      24
///  +------------+----------------------+
///  | time u64 BE| conversation         |
///  +------------+----------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    time: TimeMs,
    conversation: ConversationId,
}

impl Place {
    fn encode(self) -> Vec<u8> {
        [&self.time.0.to_be_bytes()[..], &self.conversation.to_bytes()].concat()
    }

    /// `None`: the beginning.
    fn decode(bytes: &[u8]) -> Result<Option<Place>, Fault> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let parts = bytes.split_first_chunk::<8>().map(|(time, id)| (time, <[u8; 16]>::try_from(id)));
        let Some((time, Ok(id))) = parts else {
            return Err(Fault::new(Code::BadField, "after: not what a list answered"));
        };
        Ok(Some(Place { time: TimeMs(u64::from_be_bytes(*time)), conversation: ConversationId::from_bytes(id) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_list_survives_the_way_to_the_client_and_back() {
        let place = Place { time: TimeMs(1_800_000_000_000), conversation: ConversationId::group(7) };
        assert_eq!(Place::decode(&place.encode()), Ok(Some(place)));
        assert_eq!(Place::decode(&[]), Ok(None));
        for bytes in [&[1u8; 7][..], &[1; 8], &[1; 23], &[1; 25]] {
            assert_eq!(Place::decode(bytes).unwrap_err().code, Code::BadField);
        }
    }
}
