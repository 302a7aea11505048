//! What is asked and answered, with types of its own for every number; converted from and to the wire here only.

use std::time::Duration;

use bytes::Bytes;
use logstore::RecordKind;
use logstore::id::{ClientMsgId, ConversationId, Ordinal, SeqId, ServerMsgId, ShardId, TimeMs, UserId};

use super::{Error, MessageClock, Refusal};
use crate::wire::proto;

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

    pub(super) fn to_wire(&self) -> proto::Outgoing {
        proto::Outgoing {
            conversation: conversation_bytes(self.conversation),
            client_msg_id: Bytes::copy_from_slice(&self.client_msg_id.0.to_be_bytes()),
            kind: u32::from(self.kind.0),
            content: self.content.clone(),
        }
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
}

impl Record {
    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        (self.kind == RecordKind::TEXT).then(|| std::str::from_utf8(&self.content).ok()).flatten()
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
    /// Members now.
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
    /// Of its state: equal on replicas at the same applied index.
    pub digest: Bytes,
}

/// What a probe measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// A durable commit on each shard.
    pub shards: Vec<Duration>,
    /// One lone append, start to ack.
    pub durable: Duration,
}

// ---- from the wire --------------------------------------------------------------------------------

pub(super) fn conversation_bytes(conversation: ConversationId) -> Bytes {
    Bytes::copy_from_slice(&conversation.to_bytes())
}

pub(super) fn conversation_id(bytes: &[u8]) -> Result<ConversationId, Error> {
    let bytes = <[u8; 16]>::try_from(bytes)
        .map_err(|_| Error::Protocol(format!("a conversation id of {} bytes", bytes.len())))?;
    Ok(ConversationId::from_bytes(bytes))
}

fn client_msg_id(bytes: &[u8]) -> Result<ClientMsgId, Error> {
    match <[u8; 16]>::try_from(bytes) {
        Ok(bytes) => Ok(ClientMsgId(u128::from_be_bytes(bytes))),
        // Records that no client sent (membership made by the system) may have none.
        Err(_) if bytes.is_empty() => Ok(ClientMsgId(0)),
        Err(_) => Err(Error::Protocol(format!("a client_msg_id of {} bytes", bytes.len()))),
    }
}

fn record_kind(kind: u32) -> Result<RecordKind, Error> {
    u8::try_from(kind).map(RecordKind).map_err(|_| Error::Protocol(format!("record kind {kind}")))
}

fn users(ids: Vec<u64>) -> Vec<UserId> {
    ids.into_iter().map(UserId).collect()
}

/// Converts a list, or says what is wrong with its first bad item.
pub(super) fn all<W, T>(items: Vec<W>) -> Result<Vec<T>, Error>
where
    T: TryFrom<W, Error = Error>,
{
    items.into_iter().map(T::try_from).collect()
}

impl From<proto::UserRef> for User {
    fn from(user: proto::UserRef) -> User {
        User { id: UserId(user.user), name: user.name }
    }
}

impl From<proto::Tokens> for Tokens {
    fn from(tokens: proto::Tokens) -> Tokens {
        Tokens {
            user: User { id: UserId(tokens.user), name: tokens.name },
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token,
            access_expires: TimeMs(tokens.access_expires_ms),
        }
    }
}

impl From<proto::Membership> for Membership {
    fn from(change: proto::Membership) -> Membership {
        Membership { actor: UserId(change.actor), joined: users(change.joined), left: users(change.left) }
    }
}

impl TryFrom<proto::Record> for Record {
    type Error = Error;

    fn try_from(record: proto::Record) -> Result<Record, Error> {
        if record.seq_id == 0 {
            return Err(Error::Protocol("a record without a seq_id".into()));
        }
        Ok(Record {
            conversation: conversation_id(&record.conversation)?,
            seq_id: SeqId(record.seq_id),
            ordinal: Ordinal(record.ordinal),
            kind: record_kind(record.kind)?,
            sender: UserId(record.sender),
            server_msg_id: ServerMsgId(record.server_msg_id),
            client_msg_id: client_msg_id(&record.client_msg_id)?,
            sent_at: TimeMs(record.sent_at_ms),
            content: record.content,
            membership: record.membership.map(Membership::from),
        })
    }
}

impl TryFrom<proto::HistoryReply> for HistoryPage {
    type Error = Error;

    fn try_from(reply: proto::HistoryReply) -> Result<HistoryPage, Error> {
        Ok(HistoryPage {
            records: all(reply.records)?,
            head: SeqId(reply.head_seq),
            next_from: (reply.next_from_seq != 0).then_some(SeqId(reply.next_from_seq)),
        })
    }
}

impl TryFrom<proto::Conversation> for Conversation {
    type Error = Error;

    fn try_from(row: proto::Conversation) -> Result<Conversation, Error> {
        Ok(Conversation {
            conversation: conversation_id(&row.conversation)?,
            head: SeqId(row.head_seq),
            head_ordinal: Ordinal(row.head_ordinal),
            last_time: TimeMs(row.last_time_ms),
            read: SeqId(row.read_seq),
            delivered: SeqId(row.delivered_seq),
            unread: row.unread,
            active: row.active,
            visible_from: SeqId(row.visible_from),
            title: row.title,
            peer: UserId(row.peer),
            member_count: row.member_count,
            as_of: row.as_of,
            slot: row.slot,
            last: row.last.map(Record::try_from).transpose()?,
        })
    }
}

impl TryFrom<proto::GroupReply> for Group {
    type Error = Error;

    fn try_from(reply: proto::GroupReply) -> Result<Group, Error> {
        Ok(Group {
            conversation: conversation_id(&reply.conversation)?,
            seq_id: SeqId(reply.seq_id),
            changed: users(reply.changed),
        })
    }
}

impl From<proto::MemberList> for MemberPage {
    fn from(list: proto::MemberList) -> MemberPage {
        let member = |m: proto::Member| Member { user: UserId(m.user), role: m.role, join: SeqId(m.join_seq) };
        MemberPage {
            members: list.members.into_iter().map(member).collect(),
            next_after: (list.next_after != 0).then_some(UserId(list.next_after)),
            member_count: list.member_count,
        }
    }
}

impl TryFrom<proto::Receipt> for Receipt {
    type Error = Error;

    fn try_from(receipt: proto::Receipt) -> Result<Receipt, Error> {
        Ok(Receipt {
            conversation: conversation_id(&receipt.conversation)?,
            user: UserId(receipt.user),
            delivered: SeqId(receipt.delivered_seq),
            read: SeqId(receipt.read_seq),
        })
    }
}

impl From<proto::CursorStep> for Step {
    fn from(step: proto::CursorStep) -> Step {
        Step { slot: step.slot, value: step.value }
    }
}

impl TryFrom<proto::ShardInfo> for Shard {
    type Error = Error;

    fn try_from(info: proto::ShardInfo) -> Result<Shard, Error> {
        let shard = u16::try_from(info.shard).map_err(|_| Error::Protocol(format!("shard {}", info.shard)))?;
        Ok(Shard {
            shard: ShardId(shard),
            leading: info.leading,
            term: info.term,
            last_index: info.last_index,
            applied_index: info.applied_index,
            unsealed_records: info.unsealed_records,
            conversations: info.conversations,
            buckets: info.buckets,
            digest: info.digest,
        })
    }
}

impl From<proto::ProbeReply> for Probe {
    fn from(reply: proto::ProbeReply) -> Probe {
        Probe {
            shards: reply.took_us.into_iter().map(Duration::from_micros).collect(),
            durable: Duration::from_micros(reply.durable_us),
        }
    }
}

/// Turns the columns of a durable ack into one outcome a message.
pub(super) fn send_outcomes(reply: proto::SendReply, messages: usize) -> Result<Vec<SendOutcome>, Error> {
    let columns = [reply.seq_ids.len(), reply.server_msg_ids.len(), reply.server_times_ms.len()];
    if columns != [messages; 3] {
        return Err(Error::Protocol(format!("an ack with columns of {columns:?} for {messages} messages")));
    }
    let mut outcomes = Vec::with_capacity(messages);
    for at in 0..messages {
        outcomes.push(Ok(Stored {
            seq_id: SeqId(reply.seq_ids[at]),
            server_msg_id: ServerMsgId(reply.server_msg_ids[at]),
            time: TimeMs(reply.server_times_ms[at]),
            duplicate: false,
        }));
    }
    for at in reply.duplicates {
        if let Some(Ok(stored)) = outcomes.get_mut(at as usize) {
            stored.duplicate = true;
        }
    }
    for refusal in reply.refusals {
        if let Some(outcome) = outcomes.get_mut(refusal.position as usize) {
            *outcome = Err(Refusal::from(refusal.error.unwrap_or_default()));
        }
    }
    let lost = outcomes.iter().position(|outcome| matches!(outcome, Ok(stored) if stored.seq_id == SeqId(0)));
    match lost {
        Some(at) => Err(Error::Protocol(format!("message {at} was neither stored nor refused"))),
        None => Ok(outcomes),
    }
}

/// The refusals of a batch that answers nothing for what went well: (position, why).
pub(super) fn refusals(refusals: Vec<proto::SendRefusal>) -> Vec<(usize, Refusal)> {
    refusals.into_iter().map(|r| (r.position as usize, Refusal::from(r.error.unwrap_or_default()))).collect()
}
