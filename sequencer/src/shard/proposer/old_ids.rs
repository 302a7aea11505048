//! Looks up message ids that have left the dedup window: among those still in memory, else in sealed segments.
//!
//! What always holds: an answer speaks of one moment (the last Seal, the ids in memory and the segments are taken in one
//! look at the shard), so that apply can judge whether it still holds; a read of a file never holds up the proposer; what
//! is under way for one id is asked for once.

use std::sync::Arc;

use hashbrown::HashMap;
use logstore::SegmentSet;
use logstore::id::{BodyHash, ClientMsgId, ConnectionId, ConversationId, TimeMs, UserId};
use logstore::segment::SealedRecord;

use crate::runtime;
use crate::shard::Capacity;
use crate::shard::core::ShardCore;
use crate::shard::look_up::{LookUpLimit, time_of};
use crate::shard::proposer::{News, Proposer};
use crate::state::SKEW_MS;
use crate::{Error, Stored};

/// Names a message once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct OldId {
    pub(super) conversation: ConversationId,
    pub(super) sender: UserId,
    pub(super) id: ClientMsgId,
}

/// What became of an earlier attempt.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LookedUp {
    /// The last Seal that was looked under; 0: there was no need to look.
    pub(super) checked_upto: u64,
    /// The earlier attempt, if there was one.
    pub(super) found: Option<(Stored, BodyHash)>,
}

/// Why there is no answer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotNow {
    /// A segment is being read: [`News::LookedUp`] tells when to ask again.
    Wait,
    /// Refused for this time.
    Refused(Capacity),
}

/// The look-ups of one proposer.
#[derive(Default)]
pub(super) struct OldIds {
    limit: LookUpLimit,
    /// What is read from segments now, and what was found and not fetched yet. Each holds back a command, whose number
    /// is bounded.
    reads: HashMap<OldId, Option<Result<LookedUp, Capacity>>>,
}

impl OldIds {
    /// What became of an earlier attempt under this id.
    pub(super) fn look_up(
        &mut self,
        core: &ShardCore,
        proposer: &Arc<Proposer>,
        id: OldId,
        connection: ConnectionId,
        now: TimeMs,
    ) -> Result<LookedUp, NotNow> {
        match self.reads.get(&id) {
            Some(None) => return Err(NotNow::Wait),
            Some(Some(done)) => {
                let done = *done;
                self.reads.remove(&id);
                return done.map_err(NotNow::Refused);
            }
            None => {}
        }
        let (checked_upto, segments) = {
            let (state, records) = &*core.read();
            if !state.needs_look_up(id.id) {
                return Ok(LookedUp::default());
            }
            if !self.limit.allows(id.sender, now) {
                return Err(NotNow::Refused(Capacity::QueueFull));
            }
            let found = state.look_up_old(id.conversation, id.sender, id.id);
            if found.is_some() {
                return Ok(LookedUp { checked_upto: state.checked_upto(), found });
            }
            (state.checked_upto(), records.sealed().clone())
        };
        if segments.segments().is_empty() {
            return Ok(LookedUp { checked_upto, found: None });
        }
        self.reads.insert(id, None);
        read(segments, proposer.clone(), id, connection, checked_upto);
        Err(NotNow::Wait)
    }

    /// A read has ended; whoever waits for it asks again.
    pub(super) fn read(&mut self, id: OldId, answer: Result<LookedUp, Capacity>) {
        if let Some(read) = self.reads.get_mut(&id) {
            *read = Some(answer);
        }
    }

    /// Nobody waits any more.
    pub(super) fn forget(&mut self) {
        self.reads.clear();
    }
}

/// Looks for an id in segments, off the async workers, and tells the proposer.
fn read(segments: Arc<SegmentSet>, proposer: Arc<Proposer>, id: OldId, connection: ConnectionId, checked_upto: u64) {
    runtime::spawn(async move {
        let OldId { conversation, sender, id: client_msg_id } = id;
        let not_before = TimeMs(time_of(client_msg_id).0.saturating_sub(SKEW_MS));
        let shard = segments.manifest().shard();
        let find = move || segments.find_id(conversation, sender, client_msg_id, not_before);
        let answer = match runtime::blocking(find).await {
            Ok(Ok(found)) => Ok(LookedUp { checked_upto, found: found.map(|record| accepted(&record)) }),
            Ok(Err(error)) => {
                let error = Error::from(error).of_read(shard, conversation);
                tracing::error!(%error, "an old message id cannot be looked up");
                Err(if error.is_damage() { Capacity::Damaged } else { Capacity::QueueFull })
            }
            Err(_) => Err(Capacity::NotLeading),
        };
        proposer.tell([News::LookedUp(id, connection, answer)]);
        proposer.wake.notify_one();
    });
}

/// What a retry of a sealed record is told.
fn accepted(record: &SealedRecord) -> (Stored, BodyHash) {
    let SealedRecord { seq, server_msg_id, time, body_hash, .. } = *record;
    (Stored { seq, server_msg_id, time, duplicate: true }, body_hash)
}
