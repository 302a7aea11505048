//! What a segment holds: records, and the places of those that are gone for good.
//!
//! What always holds: within a conversation items follow each other without a gap in `seq`; `ordinal` rises by one
//! exactly on countable records; `time` and `index` never fall.

use bytes::Bytes;

use crate::id::{BodyHash, ClientMsgId, ConversationId, LogIndex, Ordinal, SeqId, ServerMsgId, TimeMs, UserId};
use crate::record::{BodyPlace, RecordHead, RecordKind};

/// The largest body that is sealed: far above what the protocol lets in, so that lengths can be checked.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// A record in a sealed file: its head, and its body unless that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRecord {
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
    /// What tells a retry from another message under the same id; stays when the body is removed.
    pub body_hash: BodyHash,
    /// The log's monotonic time of its entry.
    pub time: TimeMs,
    /// The entry that held it.
    pub index: LogIndex,
    /// Its body.
    pub body: SealedBody,
}

/// A record's body, as far as it is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedBody {
    /// The bytes. Read from a file they are a slice of its block: who keeps it for long, copies it.
    Kept(Bytes),
    /// Recalled or erased; the head remains, so that retries still find their seq_id.
    Removed,
}

/// Consecutive records of one conversation of which nothing is left but that they were there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrimmedRange {
    /// The conversation.
    pub conversation: ConversationId,
    /// The first seq.
    pub first: SeqId,
    /// The last seq.
    pub last: SeqId,
    /// Countable messages before the first.
    pub ordinal_before: Ordinal,
    /// Countable messages up to and including the last.
    pub ordinal: Ordinal,
    /// The last one's time.
    pub time: TimeMs,
    /// The last one's entry.
    pub index: LogIndex,
}

/// One step through a segment, in the order of (bucket, conversation, seq).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A record.
    Record(SealedRecord),
    /// Where records were.
    Trimmed(TrimmedRange),
}

impl SealedRecord {
    /// A record with its body, as apply accepted it; one that was imported may have come without.
    pub fn new(head: &RecordHead, body: Bytes) -> SealedRecord {
        SealedRecord {
            conversation: head.conversation,
            seq: head.seq,
            ordinal: head.ordinal,
            kind: head.kind,
            sender: head.sender,
            server_msg_id: head.server_msg_id,
            client_msg_id: head.client_msg_id,
            body_hash: head.body_hash,
            time: head.time,
            index: head.index,
            body: if head.body == BodyPlace::Removed { SealedBody::Removed } else { SealedBody::Kept(body) },
        }
    }

    /// Countable messages before it.
    pub fn ordinal_before(&self) -> Ordinal {
        Ordinal(self.ordinal.0.wrapping_sub(u64::from(self.kind.is_countable())))
    }

    /// What remains of it when it is trimmed.
    pub fn trimmed(&self) -> TrimmedRange {
        TrimmedRange {
            conversation: self.conversation,
            first: self.seq,
            last: self.seq,
            ordinal_before: self.ordinal_before(),
            ordinal: self.ordinal,
            time: self.time,
            index: self.index,
        }
    }
}

impl SealedBody {
    /// The bytes, if they are there.
    pub fn kept(&self) -> Option<&Bytes> {
        match self {
            SealedBody::Kept(bytes) => Some(bytes),
            SealedBody::Removed => None,
        }
    }

    /// Bytes that are there.
    pub fn len(&self) -> usize {
        self.kept().map_or(0, Bytes::len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Item {
    /// The conversation.
    pub fn conversation(&self) -> ConversationId {
        match self {
            Item::Record(record) => record.conversation,
            Item::Trimmed(range) => range.conversation,
        }
    }

    /// The first seq.
    pub fn first(&self) -> SeqId {
        match self {
            Item::Record(record) => record.seq,
            Item::Trimmed(range) => range.first,
        }
    }

    /// The last seq; a record's only one.
    pub fn last(&self) -> SeqId {
        match self {
            Item::Record(record) => record.seq,
            Item::Trimmed(range) => range.last,
        }
    }

    /// Countable messages before the first.
    pub fn ordinal_before(&self) -> Ordinal {
        match self {
            Item::Record(record) => record.ordinal_before(),
            Item::Trimmed(range) => range.ordinal_before,
        }
    }

    /// Countable messages up to the last.
    pub fn ordinal(&self) -> Ordinal {
        match self {
            Item::Record(record) => record.ordinal,
            Item::Trimmed(range) => range.ordinal,
        }
    }

    /// The last one's time.
    pub fn time(&self) -> TimeMs {
        match self {
            Item::Record(record) => record.time,
            Item::Trimmed(range) => range.time,
        }
    }

    /// The last one's entry.
    pub fn index(&self) -> LogIndex {
        match self {
            Item::Record(record) => record.index,
            Item::Trimmed(range) => range.index,
        }
    }
}
