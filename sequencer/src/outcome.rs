//! What applying an entry states: an outcome per command, and the records it made.

use bytes::Bytes;
use logstore::RecordHead;
use logstore::id::{ConnectionId, ConversationId, LogIndex, Ordinal, SeqId, ServerMsgId, ShardId, TimeMs, UserId};

/// What became of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; nothing to tell.
    Done,
    /// The message is in the log (now, or since an earlier attempt).
    Sent(Stored),
    /// A name is claimed; `confirmed` once its account exists.
    Claimed {
        /// The account.
        user: UserId,
        /// Whether the account exists already.
        confirmed: bool,
    },
    /// A session is opened or renewed.
    Session,
    /// The group exists; its creation record is at `seq`.
    Group {
        /// The membership record.
        seq: SeqId,
        /// Who was added by it.
        added: Vec<UserId>,
        /// Who was removed by it.
        removed: Vec<UserId>,
    },
    /// Effects were applied (or had been): this shard has applied the sender's up to `last`.
    Effects {
        /// Cumulative.
        last: u64,
    },
    /// Nothing was changed, and no seq_id was taken.
    Refused(Refusal),
}

impl Outcome {
    /// What it holds in memory beside itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Outcome::Group { added, removed, .. } => size_of_val(&added[..]) + size_of_val(&removed[..]),
            _ => 0,
        }
    }
}

/// Where a message is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its place in the conversation.
    pub seq: SeqId,
    /// The id the server gave it.
    pub server_msg_id: ServerMsgId,
    /// The log's time of its entry.
    pub time: TimeMs,
    /// Whether this attempt stored nothing because an earlier one had.
    pub duplicate: bool,
}

/// Why a command changed nothing. Those marked *may turn out otherwise* end the sender's epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The shard does not own the conversation's bucket. *May turn out otherwise.*
    WrongShard,
    /// There is no such conversation.
    NoSuchConversation,
    /// The actor is not a member.
    NotMember,
    /// The actor is a member but may not do this.
    NotAllowed,
    /// No such account.
    NoSuchUser,
    /// The name belongs to another account.
    NameTaken,
    /// The same id was used with another body.
    IdempotencyConflict,
    /// The id is more than 30 s ahead of the log's time. *May turn out otherwise.*
    ClockSkew,
    /// The id is older than anything the log can still tell apart.
    Expired,
    /// The id is older than the window and was not looked up far enough. *May turn out otherwise.*
    Retry,
    /// The session is unknown, over, or its secret was used before.
    SessionOver,
    /// The cursor is ahead of the conversation's head.
    CursorAhead,
    /// A table is at its limit (members, intervals, sessions, names pending).
    LimitReached,
    /// Numbers of effects do not follow each other.
    EffectGap,
    /// A merge does not take whole segments of one level, or not between 2 and 64 of them.
    MergeMisfit,
    /// There is no such record.
    NoSuchRecord,
    /// The conversation is being imported: nobody sees it before all of it is there.
    Importing,
    /// The conversation has records: nothing is imported into it.
    NotEmpty,
    /// What is imported does not follow what is there, or is of another import.
    ImportMisfit,
    /// The entry's bytes do not decode: a defect of a proposer.
    Malformed,
}

impl Refusal {
    /// Whether the same command may be accepted later without anybody changing anything.
    pub fn may_turn_out_otherwise(self) -> bool {
        matches!(self, Refusal::WrongShard | Refusal::ClockSkew | Refusal::Retry)
    }
}

/// A record that apply accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedRecord {
    /// What apply states about it.
    pub head: RecordHead,
    /// The connection that sent it; 0 if none.
    pub origin: ConnectionId,
    /// Byte offset of its command in the entry's payload.
    pub command_offset: u32,
    /// The body, if apply made it; otherwise it is in the entry's payload at `head.body`.
    pub made_body: Option<Bytes>,
}

/// A member's cursor moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorMoved {
    /// The conversation.
    pub conversation: ConversationId,
    /// The member.
    pub user: UserId,
    /// Received up to here.
    pub delivered: SeqId,
    /// Read up to here.
    pub read: SeqId,
    /// The ordinal at the read cursor.
    pub read_ordinal: Ordinal,
}

/// Everything one entry did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The shard.
    pub shard: ShardId,
    /// The entry.
    pub index: LogIndex,
    /// The log's monotonic time after it.
    pub time: TimeMs,
    /// One per command, in order.
    pub outcomes: Vec<Outcome>,
    /// Accepted records, in order.
    pub records: Vec<CommittedRecord>,
    /// Records that came with an import, in order: in the log, and told to nobody.
    pub imported: Vec<CommittedRecord>,
    /// Whether conversations came to be seen that were imported: who is in them hears nothing of that in records.
    pub opened: bool,
    /// Cursors that moved.
    pub cursors: Vec<CursorMoved>,
    /// Whether effects were added to or removed from the outbox.
    pub outbox_changed: bool,
    /// The generation that ended with this entry: all of it belongs to it.
    pub sealed: Option<u64>,
}

impl Applied {
    /// An entry that has done nothing yet.
    pub(crate) fn new(shard: ShardId, index: LogIndex, time: TimeMs) -> Applied {
        Applied {
            shard,
            index,
            time,
            outcomes: Vec::new(),
            records: Vec::new(),
            imported: Vec::new(),
            opened: false,
            cursors: Vec::new(),
            outbox_changed: false,
            sealed: None,
        }
    }
}
