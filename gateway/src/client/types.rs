//! What is asked and answered, with types of its own for every number.

use std::time::Duration;

use bytes::Bytes;
use logstore::RecordKind;
use logstore::id::{ClientMsgId, ConversationId, Ordinal, SeqId, ServerMsgId, ShardId, TimeMs, UserId};

use super::{MessageClock, Refusal};

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub id: UserId,
    /// Its name.
    pub name: String,
}

/// What signing in gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Who signed in.
    pub user: User,
    /// For `hello`.
    pub access_token: String,
    /// For the next pair; good once. Empty: cannot be refreshed.
    pub refresh_token: String,
    /// When the access token ends.
    pub access_expires: TimeMs,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub conversation: ConversationId,
    /// Chosen at the first attempt, kept for every other.
    pub client_msg_id: ClientMsgId,
    /// Text or custom.
    pub kind: RecordKind,
    /// Its body.
    pub content: Bytes,
}

impl Outgoing {
    /// A text under a new id.
    pub fn text(conversation: ConversationId, text: impl Into<String>, clock: MessageClock) -> Outgoing {
        let content = Bytes::from(text.into());
        Outgoing { conversation, client_msg_id: clock.id(), kind: RecordKind::TEXT, content }
    }

    /// An upper bound of its bytes inside a `Send`.
    pub fn wire_bytes_max(&self) -> usize {
        self.content.len() + 64
    }
}

/// A durable message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its place in the conversation.
    pub seq_id: SeqId,
    /// The id the server gave it.
    pub server_msg_id: ServerMsgId,
    /// The log's time.
    pub time: TimeMs,
    /// An earlier attempt had stored it.
    pub duplicate: bool,
}

/// What became of one message.
pub type SendOutcome = Result<Stored, Refusal>;

/// A change of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Who made it.
    pub actor: UserId,
    /// Who is in from here on.
    pub joined: Vec<UserId>,
    /// For whom this is the last record.
    pub left: Vec<UserId>,
}

/// A record of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose record it is.
    pub conversation: ConversationId,
    /// Its place there.
    pub seq_id: SeqId,
    /// Countable messages up to it; 0: not told (own messages whose predecessor is not held).
    pub ordinal: Ordinal,
    /// Text, custom, membership or something newer.
    pub kind: RecordKind,
    /// Who sent it.
    pub sender: UserId,
    /// The id the server gave it.
    pub server_msg_id: ServerMsgId,
    /// The id its sender gave it.
    pub client_msg_id: ClientMsgId,
    /// The log's time.
    pub sent_at: TimeMs,
    /// Its body.
    pub content: Bytes,
    /// Of a membership record.
    pub membership: Option<Membership>,
    /// Its content is gone for ever: recalled or erased.
    pub removed: bool,
    /// Of a recall record.
    pub recalled: Option<Recalled>,
}

/// A message that was recalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// Its place.
    pub seq_id: SeqId,
    /// Its ordinal.
    pub ordinal: Ordinal,
    /// Who had sent it.
    pub sender: UserId,
    /// Whether an operator recalled it; else the record's sender did.
    pub by_operator: bool,
}

/// What retention has removed of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweptShard {
    /// The shard.
    pub shard: ShardId,
    /// Trims.
    pub trims: u64,
    /// Messages removed.
    pub messages: u64,
    /// Whether more was to go than may go in a day.
    pub held_back: bool,
    /// Whether everything was looked at; else time was over.
    pub complete: bool,
}

/// Segments of a shard that become one, or one that is written once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactPlan {
    /// The shard.
    pub shard: ShardId,
    /// Its first seal.
    pub first_seal: u64,
    /// Its last seal.
    pub last_seal: u64,
    /// Segments that are read.
    pub inputs: u64,
    /// Bytes of their files.
    pub file_bytes: u64,
    /// The level of what is made.
    pub level: u32,
    /// What was trimmed, recalled or erased by this Seal is dropped; 0: nothing.
    pub drops_upto_seal: u64,
    /// Whether it is under way.
    pub asked: bool,
}

/// An erasure that is not done in one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// The shard.
    pub shard: ShardId,
    /// Whose messages.
    pub user: UserId,
    /// Messages of later entries stay.
    pub upto_index: u64,
    /// When it was asked for, by the log's time.
    pub asked_at: TimeMs,
    /// What it waits for, for people.
    pub waits_for: String,
}

impl Record {
    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        (self.kind == RecordKind::TEXT && !self.removed).then(|| std::str::from_utf8(&self.content).ok()).flatten()
    }

    /// The record that a message of this device became.
    pub fn of_own(message: &Outgoing, stored: Stored, sender: UserId) -> Record {
        Record {
            conversation: message.conversation,
            seq_id: stored.seq_id,
            ordinal: Ordinal(0),
            kind: message.kind,
            sender,
            server_msg_id: stored.server_msg_id,
            client_msg_id: message.client_msg_id,
            sent_at: stored.time,
            content: message.content.clone(),
            membership: None,
            removed: false,
            recalled: None,
        }
    }
}

/// What to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Of which conversation.
    pub conversation: ConversationId,
    /// First wanted; newest first: last wanted, 0: the head.
    pub from: SeqId,
    /// The other end, inclusive; 0: as far as there is.
    pub to: SeqId,
    /// Most records; 0: the server's default page.
    pub limit: u32,
    /// Descending.
    pub newest_first: bool,
}

/// A page of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// In the order asked for.
    pub records: Vec<Record>,
    /// The newest record the reader may see.
    pub head: SeqId,
    /// Where the next page begins; `None`: complete.
    pub next_from: Option<SeqId>,
}

/// A conversation as this user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Which.
    pub conversation: ConversationId,
    /// Its newest record the reader may see.
    pub head: SeqId,
    /// The ordinal there.
    pub head_ordinal: Ordinal,
    /// When its newest record was stored.
    pub last_time: TimeMs,
    /// Read up to here.
    pub read: SeqId,
    /// Received up to here.
    pub delivered: SeqId,
    /// Others' countable records above `read`.
    pub unread: u64,
    /// Whether a member now.
    pub active: bool,
    /// Nothing before it is shown.
    pub visible_from: SeqId,
    /// The group's name.
    pub title: String,
    /// The other one of a 1:1; 0: a group.
    pub peer: UserId,
    /// Members now; 0: told to members only.
    pub member_count: u32,
    /// The index this row is as of.
    pub as_of: u64,
    /// The part of the session cursor it belongs to.
    pub slot: u32,
    /// Its newest record, in lists.
    pub last: Option<Record>,
}

/// A group change's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which group.
    pub conversation: ConversationId,
    /// The change's record; 0: nothing changed.
    pub seq_id: SeqId,
    /// Who was added or removed.
    pub changed: Vec<UserId>,
}

/// A member of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// 1 owner, 2 admin, 3 member.
    pub role: u32,
    /// The record by which they came.
    pub join: SeqId,
}

/// A page of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPage {
    /// In order of user id.
    pub members: Vec<Member>,
    /// Where the next page begins; `None`: complete.
    pub next_after: Option<UserId>,
    /// Members now.
    pub member_count: u32,
}

/// How far a member has received and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Where.
    pub conversation: ConversationId,
    /// Who.
    pub user: UserId,
    /// Received up to here; 0: not told.
    pub delivered: SeqId,
    /// Read up to here; 0: not told.
    pub read: SeqId,
}

/// One part of a session cursor: opaque but for its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which part.
    pub slot: u32,
    /// How far.
    pub value: u64,
}

/// A shard, as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which.
    pub shard: ShardId,
    /// Whether this node leads it.
    pub leading: bool,
    /// Its Raft term.
    pub term: u64,
    /// Its log's last index.
    pub last_index: u64,
    /// Applied up to here.
    pub applied_index: u64,
    /// Records not yet sealed.
    pub unsealed_records: u64,
    /// Conversations it holds.
    pub conversations: u64,
    /// Buckets it owns.
    pub buckets: u32,
    /// Of its state: equal on replicas at the same applied index; empty unless asked for.
    pub digest: Bytes,
    /// What is wrong with it, in words; none as a rule.
    pub troubles: Vec<String>,
}

/// What lies in the segments of a shard that was just sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedShard {
    /// Which.
    pub shard: ShardId,
    /// Seals so far, each in a durable segment.
    pub seals: u64,
    /// The entry of the last one: everything up to it is in segments.
    pub upto_index: u64,
    /// Segments, merged ones counted once.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of their files.
    pub file_bytes: u64,
    /// From the request to the durable segment.
    pub took: Duration,
}

/// What a probe measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// A durable commit on each shard.
    pub shards: Vec<Duration>,
    /// One lone append, start to ack.
    pub durable: Duration,
    /// What is wrong with shards that commit all the same.
    pub troubles: Vec<(ShardId, Vec<String>)>,
}
