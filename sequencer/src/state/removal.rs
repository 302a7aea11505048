//! Retention, recall, erasure: what takes bodies or whole records out of the log again.
//!
//! What always holds: a place stays, whatever goes; what a command states of old records its proposer has read in the log, where they
//! never change, so that apply needs no file; nothing depends on a clock, only on commands. A recall is a record like any other: the
//! receivers of the message learn of it in order.

use std::sync::Arc;

use bytes::Bytes;
use logstore::id::{
    BodyHash, ClientMsgId, ConnectionId, ConversationId, ConversationName, LogIndex, Ordinal, SeqId, TimeMs, UserId,
};
use logstore::{BodyPlace, RecordKind};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::apply::{Accept, append};
use super::direct::is_user;
use super::send::RECORD_HEAD_BYTES;
use super::{ConversationRow, Erasure, Floor, MemberRow, MessageKey, Recalled, ShardState, Upkeep};
use crate::codec;
use crate::{Applied, Outcome, Recall, Refusal, Retention, Stored};

/// What trims have removed of a shard, by the log's time: what the retention job measures its daily limit by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trimmed {
    /// Days since the epoch at the last trim.
    pub day: u64,
    /// Countable messages trimmed on that day.
    pub on_day: u64,
    /// Countable messages ever trimmed.
    pub ever: u64,
}

/// A day of log time.
const DAY_MS: u64 = 24 * 3600 * 1000;

impl Trimmed {
    /// Countable messages trimmed on the day of `now`.
    pub fn today(&self, now: TimeMs) -> u64 {
        if self.day == now.0 / DAY_MS { self.on_day } else { 0 }
    }

    pub(super) fn note(&mut self, now: TimeMs, messages: u64) {
        *self = Trimmed {
            day: now.0 / DAY_MS,
            on_day: self.today(now) + messages,
            ever: self.ever.saturating_add(messages),
        };
    }
}

/// The body of a recall record: what was recalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecallBody {
    /// The message's place.
    pub seq: SeqId,
    /// Its ordinal.
    pub ordinal: Ordinal,
    /// Who sent it.
    pub sender: UserId,
    /// Whether an operator recalled it; else the record's sender did.
    pub by_operator: bool,
}

impl RecallBody {
    /// The bytes drawn in `docs/format.md`.
    pub fn encode(&self) -> Bytes {
        codec::put_recall_body(self)
    }

    /// `None` if the bytes are not the body of a recall.
    pub fn decode(bytes: &[u8]) -> Option<RecallBody> {
        codec::read_recall_body(bytes).ok()
    }
}

impl ShardState {
    pub(super) fn trim(&mut self, conversation: ConversationId, floor: Floor) -> Result<Outcome, Refusal> {
        self.check_owned(conversation)?;
        self.check_shown(conversation)?;
        let (now, row) = (self.own.time, self.conversations.get(&conversation).ok_or(Refusal::NoSuchConversation)?);
        let is_there = floor.before.0 <= row.last_seq.0 + 1 && floor.ordinal <= row.last_ordinal;
        if !is_there || floor.ordinal.0 >= floor.before.0.max(1) {
            return Err(Refusal::NoSuchRecord);
        }
        let before = row.floor();
        if floor.before <= before.before.max(SeqId(1)) {
            return Ok(Outcome::Done);
        }
        let row = self.conversations.get_mut(&conversation).expect("looked at just now");
        upkeep_of(row).trim(Floor { time: floor.time.min(now), ..floor });
        self.note_for_files();
        self.own.trimmed.note(now, floor.ordinal.0.saturating_sub(before.ordinal.0));
        Ok(Outcome::Done)
    }

    pub(super) fn recall(&mut self, recall: &Recall, offset: u32, out: &mut Applied) -> Result<Outcome, Refusal> {
        self.check_owned(recall.conversation)?;
        self.check_shown(recall.conversation)?;
        let key = MessageKey { conversation: recall.conversation, sender: recall.actor, id: recall.request };
        let asked = hash_of_recall(recall);
        if let Some((stored, body_hash)) = self.dedup.find(self.dedup.hash(&key), &key) {
            return repeated_recall(recall, stored, body_hash);
        }
        self.dedup.admit(key.id, self.own.time, recall.checked_upto)?;
        let row = self.conversation(recall.conversation).ok_or(Refusal::NoSuchConversation)?;
        self.check_not_trimmed(row, key.id)?;
        self.authorise_recall(recall)?;
        if is_removed(recall, row)? {
            return Ok(Outcome::Done);
        }
        if row.upkeep.as_ref().is_some_and(|upkeep| upkeep.recalled.len() >= Upkeep::RECALLED_MAX) {
            return Err(Refusal::LimitReached);
        }
        Ok(self.append_recall(&key, recall, asked, offset, out))
    }

    fn append_recall(
        &mut self,
        key: &MessageKey,
        recall: &Recall,
        asked: BodyHash,
        offset: u32,
        out: &mut Applied,
    ) -> Outcome {
        let row = self.conversations.get_mut(&recall.conversation).expect("callers have looked at it");
        let accept = accept_recall(key, recall, asked, offset);
        self.unsealed_bytes += RECORD_HEAD_BYTES + accept.made_body.as_ref().map_or(0, Bytes::len) as u64;
        let stored = append(&mut self.own, row, accept, out);
        let Recall { seq, ordinal, sender, .. } = *recall;
        upkeep_of(row).recall(Recalled { seq, ordinal, sender, recalled_at: out.index });
        self.dedup.insert(self.dedup.hash(key), key, &stored, asked);
        Outcome::Sent(stored)
    }

    /// Who sent a message may recall it while still a member; an operator may recall any, and does it in the sender's name.
    fn authorise_recall(&self, recall: &Recall) -> Result<(), Refusal> {
        if recall.actor != recall.sender {
            return Err(Refusal::NotAllowed);
        }
        let may_have_sent = match recall.conversation.name() {
            Some(ConversationName::Direct(low, high)) => recall.sender == low || recall.sender == high,
            Some(ConversationName::Group(_)) => is_user(recall.sender),
            _ => false,
        };
        let is_member = self.member(recall.conversation, recall.actor).is_some_and(MemberRow::is_active);
        match () {
            () if !may_have_sent => Err(Refusal::NotAllowed),
            () if !is_member && !recall.by_operator => Err(Refusal::NotMember),
            () => Ok(()),
        }
    }

    pub(super) fn erase(&mut self, user: UserId, index: LogIndex) -> Result<Outcome, Refusal> {
        if !is_user(user) {
            return Err(Refusal::NoSuchUser);
        }
        self.note_for_files();
        let asked = self.own.time;
        self.own.erasures.begin(Erasure { user, upto: index, asked }).map(|()| Outcome::Done)
    }

    /// What files are to follow is worth a Seal, however little it weighs.
    fn note_for_files(&mut self) {
        self.unsealed_bytes += RECORD_HEAD_BYTES;
    }

    pub(super) fn erased(&mut self, user: UserId, upto: LogIndex) -> Outcome {
        self.own.erasures.end(user, upto);
        Outcome::Done
    }

    pub(super) fn retain(
        &mut self,
        conversation: ConversationId,
        retention: Option<Retention>,
    ) -> Result<Outcome, Refusal> {
        self.check_owned(conversation)?;
        self.check_shown(conversation)?;
        let row = self.conversations.get_mut(&conversation).ok_or(Refusal::NoSuchConversation)?;
        upkeep_of(row).retention = retention;
        row.upkeep = row.upkeep.take().filter(|upkeep| !upkeep.is_empty());
        Ok(Outcome::Done)
    }

    /// Refuses an id that may be that of a record that was trimmed. Ids of the dedup window are known exactly, whatever was trimmed.
    pub(super) fn check_not_trimmed(&self, row: &ConversationRow, id: ClientMsgId) -> Result<(), Refusal> {
        let is_known = row.upkeep.is_none() || self.dedup.is_inside(id);
        if is_known || self.dedup.is_after(id, row.floor().time) { Ok(()) } else { Err(Refusal::Expired) }
    }
}

impl ConversationRow {
    /// What was trimmed of it.
    pub fn floor(&self) -> Floor {
        self.upkeep.as_ref().map_or(Floor::default(), |upkeep| upkeep.floor)
    }
}

fn upkeep_of(row: &mut ConversationRow) -> &mut Upkeep {
    Arc::make_mut(row.upkeep.get_or_insert_default())
}

/// Whether there is nothing left to recall; an error if there was nothing ever.
fn is_removed(recall: &Recall, row: &ConversationRow) -> Result<bool, Refusal> {
    let (seq, ordinal) = (recall.seq, recall.ordinal);
    let is_there = seq.0 > 0 && seq <= row.last_seq && ordinal.0 > 0 && ordinal <= row.last_ordinal;
    if !is_there || ordinal.0 > seq.0 {
        return Err(Refusal::NoSuchRecord);
    }
    Ok(row.upkeep.as_ref().is_some_and(|upkeep| upkeep.has_removed(seq)))
}

/// The answer to a recall whose id was accepted before, for a request of this hash.
pub(crate) fn repeated_recall(recall: &Recall, stored: Stored, asked: BodyHash) -> Result<Outcome, Refusal> {
    let same = asked == hash_of_recall(recall);
    if same { Ok(Outcome::Sent(Stored { duplicate: true, ..stored })) } else { Err(Refusal::IdempotencyConflict) }
}

/// What a retry is compared by.
pub(super) fn hash_of_recall(recall: &Recall) -> BodyHash {
    BodyHash(xxh3_64_with_seed(&recall.seq.0.to_le_bytes(), u64::from(RecordKind::RECALL.0)))
}

fn accept_recall(key: &MessageKey, recall: &Recall, asked: BodyHash, offset: u32) -> Accept {
    let Recall { seq, ordinal, sender, by_operator, .. } = *recall;
    Accept {
        conversation: key.conversation,
        kind: RecordKind::RECALL,
        sender: key.sender,
        client_msg_id: key.id,
        body_hash: asked,
        body: BodyPlace::Made,
        origin: ConnectionId(0),
        command_offset: offset,
        made_body: Some(RecallBody { seq, ordinal, sender, by_operator }.encode()),
    }
}
