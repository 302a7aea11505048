//! From and to the wire: the only file that knows both the generated bodies and the client's own types.
//!
//! What always holds: what the server says is doubted; a body that makes no sense is [`Error::Protocol`].

use std::time::Duration;

use bytes::Bytes;
use logstore::RecordKind;
use logstore::id::{ClientMsgId, ConversationId, Ordinal, SeqId, ServerMsgId, ShardId, TimeMs, UserId};
use sequencer::ImportId;

use super::{
    CompactPlan, Conversation, Erasure, Error, Group, HistoryPage, ImportPlace, Member, MemberPage, Membership,
    Outgoing, Probe, Recalled, Receipt, Record, Refusal, SealedShard, SendOutcome, Shard, Step, Stored, SweptShard,
    Tokens, User,
};
use crate::wire::proto;

impl Outgoing {
    pub(super) fn to_wire(&self) -> proto::Outgoing {
        proto::Outgoing {
            conversation: conversation_bytes(self.conversation),
            client_msg_id: Bytes::copy_from_slice(&self.client_msg_id.0.to_be_bytes()),
            kind: u32::from(self.kind.0),
            content: self.content.clone(),
        }
    }
}

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

impl From<proto::Recalled> for Recalled {
    fn from(recalled: proto::Recalled) -> Recalled {
        Recalled {
            seq_id: SeqId(recalled.seq_id),
            ordinal: Ordinal(recalled.ordinal),
            sender: UserId(recalled.sender),
            by_operator: recalled.by_operator,
        }
    }
}

impl TryFrom<proto::SweptShard> for SweptShard {
    type Error = Error;

    fn try_from(swept: proto::SweptShard) -> Result<SweptShard, Error> {
        let shard = u16::try_from(swept.shard).map_err(|_| Error::Protocol(format!("shard {}", swept.shard)))?;
        let proto::SweptShard { trims, messages, held_back, complete, .. } = swept;
        Ok(SweptShard { shard: ShardId(shard), trims, messages, held_back, complete })
    }
}

impl TryFrom<proto::CompactPlan> for CompactPlan {
    type Error = Error;

    fn try_from(plan: proto::CompactPlan) -> Result<CompactPlan, Error> {
        let shard = u16::try_from(plan.shard).map_err(|_| Error::Protocol(format!("shard {}", plan.shard)))?;
        Ok(CompactPlan {
            shard: ShardId(shard),
            first_seal: plan.first_seal,
            last_seal: plan.last_seal,
            inputs: plan.inputs,
            file_bytes: plan.file_bytes,
            level: plan.level,
            drops_upto_seal: plan.drops_upto_seal,
            asked: plan.asked,
        })
    }
}

impl TryFrom<proto::ImportPlace> for ImportPlace {
    type Error = Error;

    fn try_from(place: proto::ImportPlace) -> Result<ImportPlace, Error> {
        let import = match &place.import[..] {
            [] => None,
            bytes => Some((ImportId(conversation_id(bytes)?.0), place.over)),
        };
        let (conversation, last_seq) = (conversation_id(&place.conversation)?, SeqId(place.last_seq));
        Ok(ImportPlace { conversation, last_seq, is_empty: place.empty, import })
    }
}

impl TryFrom<proto::Erasure> for Erasure {
    type Error = Error;

    fn try_from(erasure: proto::Erasure) -> Result<Erasure, Error> {
        let shard = u16::try_from(erasure.shard).map_err(|_| Error::Protocol(format!("shard {}", erasure.shard)))?;
        Ok(Erasure {
            shard: ShardId(shard),
            user: UserId(erasure.user),
            upto_index: erasure.upto_index,
            asked_at: TimeMs(erasure.asked_at_ms),
            waits_for: erasure.waits_for,
        })
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
            removed: record.removed,
            recalled: record.recalled.map(Recalled::from),
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
            troubles: info.troubles,
        })
    }
}

impl TryFrom<proto::SealedShard> for SealedShard {
    type Error = Error;

    fn try_from(sealed: proto::SealedShard) -> Result<SealedShard, Error> {
        let shard = u16::try_from(sealed.shard).map_err(|_| Error::Protocol(format!("shard {}", sealed.shard)))?;
        Ok(SealedShard {
            shard: ShardId(shard),
            seals: sealed.seals,
            upto_index: sealed.upto_index,
            segments: sealed.segments,
            records: sealed.records,
            file_bytes: sealed.file_bytes,
            took: Duration::from_millis(sealed.took_ms),
        })
    }
}

impl From<proto::ProbeReply> for Probe {
    fn from(reply: proto::ProbeReply) -> Probe {
        Probe {
            shards: reply.took_us.into_iter().map(Duration::from_micros).collect(),
            durable: Duration::from_micros(reply.durable_us),
            troubles: reply.troubles.into_iter().filter_map(troubles).collect(),
        }
    }
}

fn troubles(of: proto::ShardTroubles) -> Option<(ShardId, Vec<String>)> {
    Some((ShardId(u16::try_from(of.shard).ok()?), of.troubles))
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
