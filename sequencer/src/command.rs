//! What can be asked of a shard's state.
//!
//! An entry is a batch of commands, stamped by its proposer with a time. Its bytes are drawn in
//! `docs/format.md`; the codec is beside this file.

mod import;

use bytes::Bytes;
use logstore::RecordKind;
use logstore::id::{
    BodyHash, Bucket, ClientMsgId, ConnectionId, ConversationId, HistoryId, LogIndex, Ordinal, SegmentOrdinal, SeqId,
    ShardId, TimeMs, UserId,
};
use logstore::segment::Level;

pub use import::{Import, ImportId, ImportedRecord};

/// One command of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Begins a shard's life: the bucket table it was cut from and the history it belongs to. The first command of a
    /// shard; later ones are ignored, and all others before it are refused.
    Init {
        /// The cluster's history.
        history: HistoryId,
        /// Counts the lives of the shard's outbox, from 1: restore and forced quorum begin the next one.
        incarnation: u64,
        /// Version of `table`.
        table_epoch: u64,
        /// The whole cluster's bucket table: inclusive ranges and the shard that owns each (where ranges overlap, the
        /// first one decides). The shard's own buckets are those it names it for; the others say where effects go.
        table: Vec<(Bucket, Bucket, ShardId)>,
    },
    /// Begins another history, of which what is here is the beginning: after a restore of all shards at one causal cut. Ignored
    /// in the history that it begins.
    BeginHistory {
        /// The new one.
        history: HistoryId,
        /// The life of the outbox that begins with it, of all shards alike: what the one before was sent, but is not at this cut,
        /// was never sent.
        incarnation: u64,
    },
    /// Appends a message to a conversation.
    Send(Send),
    /// Claims a name at the name's shard; the account is created at its home by an effect.
    ClaimName {
        /// The account's name, already normalised and length-checked.
        name: String,
        /// What the account begins with.
        seed: AccountSeed,
        /// The same request repeated gets the same answer.
        request: ClientMsgId,
    },
    /// Opens (or renews) a session of an account, at its home shard.
    OpenSession {
        /// The account.
        user: UserId,
        /// The session's number, chosen at random by the service.
        session: u64,
        /// Hash of its first refresh secret.
        refresh_hash: [u8; 32],
        /// When it ends, unless refreshed.
        expires: TimeMs,
    },
    /// Exchanges a refresh secret for the next one; a secret used twice ends the session.
    RotateSession {
        /// The account.
        user: UserId,
        /// The session.
        session: u64,
        /// Hash of the secret presented.
        presented: [u8; 32],
        /// Hash of the next one.
        next: [u8; 32],
        /// The session's new end.
        expires: TimeMs,
    },
    /// Opens the 1:1 of two users, at the initiator's home shard; the peer's home and the conversation's shard follow by effects.
    OpenDirect {
        /// Who asks.
        initiator: UserId,
        /// The other (equal: notes to self).
        peer: UserId,
    },
    /// Creates a group. The same request repeated by the same creator is answered the same.
    GroupCreate {
        /// The group, `ConversationId::group(..)` with a number drawn by the service from creator and request.
        group: ConversationId,
        /// Its owner.
        creator: UserId,
        /// The request.
        request: ClientMsgId,
        /// Its name, length-checked.
        name: String,
        /// First members; the creator is added if missing.
        members: Vec<UserId>,
    },
    /// Changes who is in a group; makes one membership record.
    GroupChange(GroupChange),
    /// Moves cursors of members, merged by the gateway; monotonic, cheap, makes no record.
    MoveCursors(Vec<CursorMove>),
    /// Effects from another shard's outbox, numbered from `first`.
    Effects {
        /// The shard they come from.
        from: ShardId,
        /// Its incarnation.
        incarnation: u64,
        /// The number of the first one.
        first: u64,
        /// The effects, consecutively numbered.
        effects: Vec<Effect>,
    },
    /// Another shard has applied this shard's effects up to a number; they are removed.
    AckEffects {
        /// The shard that applied them.
        to: ShardId,
        /// The incarnation acknowledged.
        incarnation: u64,
        /// Cumulative.
        upto: u64,
    },
    /// Freezes the current overlay generation and opens the next.
    Seal,
    /// Makes one segment of several, here and on every replica, each when it finds the time: of consecutive segments of the level
    /// below, seals `first` to `last`.
    Merge {
        /// The first seal.
        first: SegmentOrdinal,
        /// The last seal.
        last: SegmentOrdinal,
        /// The level of what is made. Of one segment its own: it is written once more, for what is dropped.
        level: Level,
        /// What was trimmed, recalled or erased by the Seal of this number is dropped; 0: nothing is.
        drops: SegmentOrdinal,
    },
    /// Changes nothing; proves that the shard can commit.
    Probe,
    /// Removes the records of a conversation before one, for ever; at once for readers, from files when they are merged. What it states
    /// of the last record removed, the proposer has read in the log, where it never changes.
    Trim {
        /// The conversation.
        conversation: ConversationId,
        /// The first record that stays; one above the head: none does.
        before: SeqId,
        /// The ordinal of the last record removed.
        ordinal: Ordinal,
        /// The log time of the last record removed: an id that is not above it and was not seen before is refused for ever.
        time: TimeMs,
    },
    /// Removes the body of one message; makes a record that says so.
    Recall(Recall),
    /// Removes the bodies of all messages of a user in this shard up to this entry.
    Erase {
        /// The user.
        user: UserId,
    },
    /// Nothing on any replica decodes to what an [`Command::Erase`] removed.
    Erased {
        /// The user.
        user: UserId,
        /// The entry of that erasure; a later one goes on.
        upto: LogIndex,
    },
    /// Says how long a conversation keeps its records. It removes nothing: a job does, by [`Command::Trim`].
    Retain {
        /// The conversation.
        conversation: ConversationId,
        /// `None`: as the cluster's configuration says.
        retention: Option<Retention>,
    },
    /// A step of an import.
    Import(Box<Import>),
}

/// A message to recall. What it states of the message the proposer has read in the log, where it never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recall {
    /// Where the message is.
    pub conversation: ConversationId,
    /// Who recalls it.
    pub actor: UserId,
    /// Names the recall once within (conversation, actor).
    pub request: ClientMsgId,
    /// As in [`Send::checked_upto`]; set by the proposer.
    pub checked_upto: u64,
    /// The message's place.
    pub seq: SeqId,
    /// The message's ordinal; it has one of its own, for only what counts is recalled.
    pub ordinal: Ordinal,
    /// Who sent it.
    pub sender: UserId,
    /// Whether an operator recalls it, in the sender's name.
    pub by_operator: bool,
}

/// How long records are kept; both 0: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Retention {
    /// Records older than this may go; 0: whatever their age.
    pub age_ms: u64,
    /// So many of the newest records stay, whatever becomes of the others; 0: no matter how many.
    pub records: u64,
}

/// A message to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// Where to.
    pub conversation: ConversationId,
    /// Who sends.
    pub sender: UserId,
    /// The connection it came over, so that this one gets the answer and not also a copy; 0 if none.
    pub origin: ConnectionId,
    /// Names the message once within (conversation, sender).
    pub client_msg_id: ClientMsgId,
    /// What it is; must be countable.
    pub kind: RecordKind,
    /// Hash of kind and body, see [`Send::hash_of`].
    pub body_hash: BodyHash,
    /// The generation number of the last `Seal` under whose lease older ids were looked up; 0: not looked up
    /// (the fast path).
    pub checked_upto: u64,
    /// Opaque.
    pub body: Bytes,
}

impl Send {
    /// The hash that tells a retry from another message under the same id.
    pub fn hash_of(kind: RecordKind, body: &[u8]) -> BodyHash {
        BodyHash(xxhash_rust::xxh3::xxh3_64_with_seed(body, u64::from(kind.0)))
    }
}

/// What an account begins with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct AccountSeed {
    /// argon2id PHC string; empty: no password (imported), tokens only.
    pub password_phc: String,
}

/// A change of a group's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupChange {
    /// The group.
    pub group: ConversationId,
    /// Who asks; decides what is allowed.
    pub actor: UserId,
    /// Names the change once within (group, actor).
    pub request: ClientMsgId,
    /// As in [`Send::checked_upto`]; set by the proposer.
    pub checked_upto: u64,
    /// Who owns the group if this change makes its owner leave; 0: nobody was sought. Set by the proposer, which may look
    /// at all members as apply may not; apply refuses one who is not a member after the change.
    pub heir: UserId,
    /// Users to add. Members already are skipped.
    pub add: Vec<UserId>,
    /// Users to remove; only `[actor]` means leaving.
    pub remove: Vec<UserId>,
}

impl GroupChange {
    /// A change as it is asked for; what the proposer has to add is not known yet.
    pub fn new(
        group: ConversationId,
        actor: UserId,
        request: ClientMsgId,
        add: Vec<UserId>,
        remove: Vec<UserId>,
    ) -> GroupChange {
        GroupChange { group, actor, request, checked_upto: 0, heir: UserId(0), add, remove }
    }
}

/// How far a member has received and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorMove {
    /// The conversation.
    pub conversation: ConversationId,
    /// The member.
    pub user: UserId,
    /// Received up to here; 0: unchanged.
    pub delivered: SeqId,
    /// Read up to here; 0: unchanged.
    pub read: SeqId,
    /// The conversation's ordinal at `read`, from the index of records: a hint that apply clamps to what is possible.
    pub read_ordinal: Ordinal,
}

/// Something one shard asks of another, through the numbered outbox. Total: a refusal is an outcome, not an error.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// To the user's home: create the account whose name was claimed.
    CreateAccount {
        /// Allocated by the name's shard.
        user: UserId,
        /// The claimed name.
        name: String,
        /// What it begins with.
        seed: AccountSeed,
    },
    /// To the name's shard: the account exists, the claim is final.
    ConfirmName {
        /// The name.
        name: String,
        /// Its account.
        user: UserId,
    },
    /// To the peer's home: the initiator opened a 1:1.
    OpenPeer {
        /// Who asked.
        initiator: UserId,
        /// Whose home this is.
        peer: UserId,
    },
    /// To the conversation's shard: what one home shard grants. `may_send` of a side is the AND of both homes' bits.
    GrantDirect {
        /// The 1:1.
        conversation: ConversationId,
        /// Whose home speaks.
        home_of: UserId,
        /// Whether, as far as this home knows, the lower user may send.
        low_may_send: bool,
        /// Whether the higher user may.
        high_may_send: bool,
        /// Whether the user whose home speaks exists at all.
        exists: bool,
    },
    /// To the initiator's home: what the peer's home found, so that a 1:1 with nobody can be asked for again.
    PeerAnswered {
        /// Who asked.
        initiator: UserId,
        /// Who was asked for.
        peer: UserId,
        /// Whether there is such an account.
        exists: bool,
    },
}

/// The shared time stamp and the commands of one entry, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The proposer's clock; apply makes it monotonic.
    pub time: TimeMs,
    /// In order.
    pub commands: Vec<Command>,
}
