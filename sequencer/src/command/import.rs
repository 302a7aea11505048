//! Taking an export into a running cluster: what its lines become.
//!
//! ```text
//!   Ids, Name, Account          Begin ──▶ Members, Record ... ──▶ End         Relation
//!   in every shard, at homes    the conversation is hidden    └─▶ GiveUp      at homes, when all are there
//! ```
//!
//! What always holds: every step can be repeated and changes nothing then, so that an import that was interrupted is taken up by
//! running it again; ids, seq_ids, ordinals and times are those of the export.

use bytes::Bytes;
use logstore::RecordKind;
use logstore::id::{BodyHash, ClientMsgId, ConversationId, Ordinal, SeqId, ServerMsgId, TimeMs, UserId};

use crate::state::{ConversationRow, MemberRow, MessageKey, NameRow, RelationRow, UserRow};

/// Names the import of one input: the same input is the same import, whenever and from wherever it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImportId(pub u128);

/// One step of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Import {
    /// These ids, and all below them, were given out elsewhere. To every shard, before anything else.
    Ids {
        /// The highest id of a record.
        last_record: ServerMsgId,
        /// The highest id of an account.
        last_user: UserId,
    },
    /// An account, at its home; the same account as there is changes nothing.
    Account {
        /// Its id.
        user: UserId,
        /// What it is; its sessions do not count.
        row: UserRow,
    },
    /// Whose a name is, at the name's shard.
    Name {
        /// The name.
        name: String,
        /// Whose it is.
        row: NameRow,
    },
    /// A user's side of a 1:1, at its home; what the home knows already stays.
    Relation {
        /// Whose.
        user: UserId,
        /// The other.
        peer: UserId,
        /// What it knows.
        row: RelationRow,
    },
    /// A conversation that is not there yet, or empty, begins to be imported: nobody sees it until its [`Import::End`].
    Begin {
        /// Which.
        conversation: ConversationId,
        /// By which import.
        import: ImportId,
        /// As it is in the export; where its head is does not count yet.
        row: ConversationRow,
    },
    /// Who is or was in it; a blank row takes somebody out again.
    Members {
        /// The conversation.
        conversation: ConversationId,
        /// The import that it belongs to.
        import: ImportId,
        /// Each with the whole row.
        members: Vec<(UserId, MemberRow)>,
    },
    /// Its next record.
    Record(ImportedRecord),
    /// All of it is there: it is shown from now on.
    End {
        /// The conversation.
        conversation: ConversationId,
        /// The import that it belongs to.
        import: ImportId,
        /// Its newest record; 0: none.
        last_seq: SeqId,
        /// Countable messages in it.
        last_ordinal: Ordinal,
        /// The time of its newest record.
        last_time: TimeMs,
        /// Of a group, how many are members now; else 0.
        members: u32,
    },
    /// The import is given up before its end: what it has brought is trimmed, and the conversation is as it was but for the seq_ids that
    /// are used up. Members of a group are taken out before.
    GiveUp {
        /// The conversation.
        conversation: ConversationId,
        /// The import that is given up.
        import: ImportId,
    },
}

/// A record with all that it was given where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedRecord {
    /// Where it belongs.
    pub conversation: ConversationId,
    /// The import that it belongs to.
    pub import: ImportId,
    /// Its place.
    pub seq: SeqId,
    /// Countable messages up to and including it.
    pub ordinal: Ordinal,
    /// What it is.
    pub kind: RecordKind,
    /// Who sent it.
    pub sender: UserId,
    /// The id the server gave it.
    pub server_msg_id: ServerMsgId,
    /// The id its sender gave it.
    pub client_msg_id: ClientMsgId,
    /// What tells a retry from another message.
    pub body_hash: BodyHash,
    /// When it was accepted.
    pub time: TimeMs,
    /// `None`: it was removed.
    pub body: Option<Bytes>,
}

impl ImportedRecord {
    /// Whether anybody can have sent it in its conversation; apply refuses it otherwise.
    pub fn has_possible_sender(&self) -> bool {
        MessageKey { conversation: self.conversation, sender: self.sender, id: self.client_msg_id }.is_possible()
    }
}

impl Import {
    /// A conversation whose bucket says which shard takes the step; `None`: every one.
    pub fn place(&self) -> Option<ConversationId> {
        Some(match self {
            Import::Ids { .. } => return None,
            Import::Account { user, .. } | Import::Relation { user, .. } => ConversationId::system(*user),
            Import::Name { name, .. } => crate::state::name_home(name),
            Import::Begin { conversation, .. }
            | Import::Members { conversation, .. }
            | Import::End { conversation, .. }
            | Import::GiveUp { conversation, .. } => *conversation,
            Import::Record(record) => record.conversation,
        })
    }
}
