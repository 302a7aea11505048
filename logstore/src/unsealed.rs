//! Where the records of one shard are until they are sealed: conversation → (seq_id → slot).
//!
//! What always holds: the slots of a conversation are contiguous in `seq` from the first unsealed
//! one, and rise strictly in log index or (within one entry) in offset.

use bytes::Bytes;

use crate::id::{ConversationId, LogIndex, Ordinal, SeqId, ServerMsgId, TimeMs};
use crate::record::RecordHead;

/// One unsealed record: what of its head cannot be read again from its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The entry that holds it.
    pub index: LogIndex,
    /// Byte offset of its command in the entry's payload.
    pub command_offset: u32,
    /// The id the server gave it.
    pub server_msg_id: ServerMsgId,
    /// The log time of its entry.
    pub time: TimeMs,
    /// Countable messages up to and including it.
    pub ordinal: Ordinal,
}

/// The unsealed records of one shard.
#[derive(Default)]
pub struct Unsealed {}

impl Unsealed {
    /// An empty index.
    pub fn new() -> Unsealed {
        Unsealed::default()
    }

    /// Adds a record; `command_offset` is where its command starts in the payload of entry `head.index`,
    /// `made_body` its body if apply made it. Panics if `head.seq` is not the next of its conversation.
    pub fn push(&mut self, head: &RecordHead, command_offset: u32, made_body: Option<Bytes>) {
        let _ = (head, command_offset, made_body);
        unimplemented!()
    }

    /// The first and last seq held of a conversation.
    pub fn bounds(&self, conversation: ConversationId) -> Option<(SeqId, SeqId)> {
        let _ = conversation;
        unimplemented!()
    }

    /// The slot of a record.
    pub fn get(&self, conversation: ConversationId, seq: SeqId) -> Option<Slot> {
        let _ = (conversation, seq);
        unimplemented!()
    }

    /// The body of a record that apply made.
    pub fn made_body(&self, conversation: ConversationId, seq: SeqId) -> Option<Bytes> {
        let _ = (conversation, seq);
        unimplemented!()
    }

    /// The first record of a conversation whose log index is above `index`.
    pub fn first_above(&self, conversation: ConversationId, index: LogIndex) -> Option<SeqId> {
        let _ = (conversation, index);
        unimplemented!()
    }

    /// How many records are held.
    pub fn len(&self) -> u64 {
        unimplemented!()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
