//! The record head: what apply states about an accepted record.
//!
//! It is logstore's only knowledge of content. What always holds: within a conversation `seq` is
//! contiguous from 1, `ordinal` never falls and rises by one exactly on countable records, and
//! `body` points at bytes that never change.

use crate::id::{BodyHash, ClientMsgId, ConversationId, LogIndex, Ordinal, SeqId, ServerMsgId, TimeMs, UserId};

/// What a record is, as far as the log must know: only whether it counts.
///
/// Values below 128 are countable messages (text, image, ... as the client protocol lists them);
/// from 128 on they are changes that do not count as unread (membership, ...).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKind(pub u8);

impl RecordKind {
    /// UTF-8 text.
    pub const TEXT: RecordKind = RecordKind(1);
    /// Opaque bytes whose meaning is the application's.
    pub const CUSTOM: RecordKind = RecordKind(2);
    /// The first value that does not count.
    pub const FIRST_UNCOUNTED: u8 = 128;
    /// Members joined or left; the body is made at apply.
    pub const MEMBERSHIP: RecordKind = RecordKind(128);
    /// The body of an earlier message is gone; the body is made at apply.
    pub const RECALL: RecordKind = RecordKind(129);

    /// Whether it is the shard's word about something, and not a message of its sender: it stays when the sender's messages go.
    pub fn is_made(self) -> bool {
        matches!(self, Self::MEMBERSHIP | Self::RECALL)
    }

    /// Whether the record raises the conversation's ordinal.
    pub fn is_countable(self) -> bool {
        self.0 < Self::FIRST_UNCOUNTED
    }
}

/// Where a record's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPlace {
    /// `len` bytes at `offset` of the payload of the entry at the head's `index`.
    InEntry {
        /// Byte offset into the entry's payload.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// Made by apply, in memory until sealed (membership records).
    Made,
    /// In a segment: whoever read the head has the body with it.
    Sealed,
    /// Nowhere any more: recalled, erased or trimmed.
    Removed,
}

/// What apply states about an accepted record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// The conversation it belongs to.
    pub conversation: ConversationId,
    /// Its place there.
    pub seq: SeqId,
    /// Countable messages up to and including it.
    pub ordinal: Ordinal,
    /// Whether it counts, and what clients take it for.
    pub kind: RecordKind,
    /// Who sent it.
    pub sender: UserId,
    /// The id the server gave it.
    pub server_msg_id: ServerMsgId,
    /// The id its sender gave it.
    pub client_msg_id: ClientMsgId,
    /// Hash of kind and body.
    pub body_hash: BodyHash,
    /// The log's monotonic time of its entry.
    pub time: TimeMs,
    /// The entry that holds it.
    pub index: LogIndex,
    /// Where its body is.
    pub body: BodyPlace,
}
