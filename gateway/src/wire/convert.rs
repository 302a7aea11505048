//! Between the generated bodies and the types of the parts below. Nothing generated goes further than here and
//! `operation/`.

use std::time::Duration;

use bytes::Bytes;
use fanout::service::{ConversationSummary, ErasureStatus, FoundConversation, MembersPage, Swept};
use fanout::{Code, Fault};
use logstore::id::{ClientMsgId, ConversationId, LogIndex, SeqId, ShardId, UserId};
use logstore::{BodyPlace, Manifest};
use sequencer::state::{MembershipBody, RecallBody, Role};
use sequencer::{CompactPlan, CursorMoved, Record, ShardStatus};

use super::{proto, record};
use crate::session::Issued;

/// An id of 16 bytes.
pub fn id16(bytes: &[u8], field: &str) -> Result<u128, Fault> {
    let bytes = <[u8; 16]>::try_from(bytes)
        .map_err(|_| Fault::new(Code::BadField, format!("{field} has {} bytes, not 16", bytes.len())))?;
    Ok(u128::from_be_bytes(bytes))
}

/// The conversation a request names.
pub fn conversation_id(bytes: &Bytes) -> Result<ConversationId, Fault> {
    id16(bytes, "conversation").map(ConversationId)
}

/// The request id that makes a retry the same request.
pub fn request_id(bytes: &Bytes) -> Result<ClientMsgId, Fault> {
    id16(bytes, "request_id").map(ClientMsgId)
}

/// An id's bytes on the wire.
pub fn id_bytes(id: u128) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

/// The users a request names.
pub fn users(ids: Vec<u64>) -> Vec<UserId> {
    ids.into_iter().map(UserId).collect()
}

/// A refusal's body.
pub fn error(fault: &Fault) -> proto::Error {
    proto::Error {
        code: fault.code.number(),
        message: fault.message.clone(),
        retry_after_ms: fault.retry_after.as_millis() as u64,
    }
}

/// A refusal inside a batch.
pub fn refusal(position: u32, fault: &Fault) -> proto::SendRefusal {
    proto::SendRefusal { position, error: Some(error(fault)) }
}

/// Refusals of a batch.
pub fn refusals(refused: &[(u32, Fault)]) -> Vec<proto::SendRefusal> {
    refused.iter().map(|(position, fault)| refusal(*position, fault)).collect()
}

/// Issued tokens.
pub fn tokens(issued: Issued) -> proto::Tokens {
    proto::Tokens {
        user: issued.user.0,
        name: issued.name,
        access_token: issued.access_token,
        refresh_token: issued.refresh_token,
        access_expires_ms: issued.access_expires.0,
    }
}

/// An account by id and name.
pub fn user_ref((user, name): (UserId, String)) -> proto::UserRef {
    proto::UserRef { user: user.0, name }
}

/// A conversation that something is to be imported into.
pub fn found_conversation(found: &FoundConversation) -> proto::ImportPlace {
    proto::ImportPlace {
        conversation: id_bytes(found.conversation.0),
        last_seq: found.last_seq.0,
        empty: found.is_empty,
        import: found.import.map_or_else(Bytes::new, |import| id_bytes(import.import.0)),
        over: found.import.is_some_and(|import| import.is_over),
    }
}

/// A membership record's content.
pub fn membership(body: MembershipBody) -> proto::Membership {
    let ids = |users: Vec<UserId>| users.into_iter().map(|user| user.0).collect();
    proto::Membership { actor: body.actor.0, joined: ids(body.joined), left: ids(body.left) }
}

/// A recall record's content.
pub fn recalled(body: RecallBody) -> proto::Recalled {
    let RecallBody { seq, ordinal, sender, by_operator } = body;
    proto::Recalled { seq_id: seq.0, ordinal: ordinal.0, sender: sender.0, by_operator }
}

/// An erasure that is not done.
pub fn erasure(status: &ErasureStatus) -> proto::Erasure {
    proto::Erasure {
        shard: slot(status.shard),
        user: status.erasure.user.0,
        upto_index: status.erasure.upto.0,
        asked_at_ms: status.erasure.asked.0,
        waits_for: status.waits_for.into(),
    }
}

/// What retention has removed of a shard.
pub fn swept(swept: &Swept) -> proto::SweptShard {
    let Swept { shard, trims, messages, held_back, complete } = *swept;
    proto::SweptShard { shard: slot(shard), trims, messages, held_back, complete }
}

/// A merge or rewrite that is due.
pub fn compact_plan(plan: &CompactPlan) -> proto::CompactPlan {
    proto::CompactPlan {
        shard: slot(plan.shard),
        first_seal: plan.first.0,
        last_seal: plan.last.0,
        inputs: plan.inputs as u64,
        file_bytes: plan.bytes,
        level: u32::from(plan.level.0),
        drops_upto_seal: plan.drops.0,
        asked: plan.asked,
    }
}

/// A record, where it is one of few; deliveries and pages are written by [`record::put_element`].
pub fn record(record: &Record) -> proto::Record {
    let head = &record.head;
    let said = record::Said::of(head, &record.body);
    proto::Record {
        conversation: id_bytes(head.conversation.0),
        seq_id: head.seq.0,
        ordinal: head.ordinal.0,
        kind: u32::from(head.kind.0),
        sender: head.sender.0,
        server_msg_id: head.server_msg_id.0,
        client_msg_id: id_bytes(head.client_msg_id.0),
        sent_at_ms: head.time.0,
        content: if said.is_all() { Bytes::new() } else { record.body.clone() },
        membership: said.membership,
        removed: head.body == BodyPlace::Removed,
        recalled: said.recalled,
    }
}

/// A row of the list.
pub fn conversation(summary: &ConversationSummary) -> proto::Conversation {
    proto::Conversation {
        conversation: id_bytes(summary.conversation.0),
        head_seq: summary.head_seq.0,
        head_ordinal: summary.head_ordinal.0,
        last_time_ms: summary.last_time.0,
        read_seq: summary.read_seq.0,
        delivered_seq: summary.delivered_seq.0,
        unread: summary.unread,
        active: summary.active,
        visible_from: summary.visible_from.0,
        title: summary.title.clone(),
        peer: summary.peer.0,
        member_count: summary.member_count,
        as_of: summary.as_of.0,
        slot: slot(summary.shard),
        last: summary.last.as_ref().map(record),
    }
}

/// A page of members.
pub fn members(page: MembersPage) -> proto::MemberList {
    let member = |(user, role, join): (UserId, Role, SeqId)| proto::Member {
        user: user.0,
        role: role_number(role),
        join_seq: join.0,
    };
    proto::MemberList {
        members: page.members.into_iter().map(member).collect(),
        next_after: page.next_after.map_or(0, |user| user.0),
        member_count: page.member_count,
    }
}

fn role_number(role: Role) -> u32 {
    match role {
        Role::Owner => 1,
        Role::Admin => 2,
        Role::Member => 3,
    }
}

/// The moves a request names.
pub fn cursor_moves(cursors: &proto::Cursors) -> Result<Vec<(ConversationId, SeqId)>, Fault> {
    cursors.moves.iter().map(|m| Ok((conversation_id(&m.conversation)?, SeqId(m.seq_id)))).collect()
}

/// A moved cursor, told to others.
pub fn receipt(moved: &CursorMoved) -> proto::Receipt {
    proto::Receipt {
        conversation: id_bytes(moved.conversation.0),
        user: moved.user.0,
        delivered_seq: moved.delivered.0,
        read_seq: moved.read.0,
    }
}

/// A shard's number in cursors. Clients keep it without knowing what it is.
pub fn slot(shard: ShardId) -> u32 {
    u32::from(shard.0)
}

/// How far one slot has been told.
pub fn step(shard: ShardId, told: LogIndex) -> proto::CursorStep {
    proto::CursorStep { slot: slot(shard), value: told.0 }
}

/// What lies in a shard's segments once it is sealed.
pub fn sealed_shard(manifest: &Manifest, seals: u64, took: Duration) -> proto::SealedShard {
    let segments = manifest.segments();
    proto::SealedShard {
        shard: slot(manifest.shard()),
        seals,
        upto_index: segments.last().map_or(0, |info| info.span.upto.0),
        segments: segments.len() as u64,
        records: segments.iter().map(|info| info.counts.records).sum(),
        file_bytes: segments.iter().map(|info| info.file_bytes).sum(),
        took_ms: took.as_millis() as u64,
    }
}

/// A shard's figures.
pub fn shard_info(status: &ShardStatus) -> proto::ShardInfo {
    proto::ShardInfo {
        shard: slot(status.shard),
        leading: status.leading,
        term: status.term,
        last_index: status.last_index.0,
        applied_index: status.applied.0,
        unsealed_records: status.unsealed_records,
        conversations: status.conversations,
        buckets: status.buckets,
        digest: status.digest.map(id_bytes).unwrap_or_default(),
        troubles: status.troubles.clone(),
    }
}

/// What is wrong with a shard, if anything is.
pub fn shard_troubles(shard: ShardId, troubles: Vec<String>) -> Option<proto::ShardTroubles> {
    (!troubles.is_empty()).then(|| proto::ShardTroubles { shard: slot(shard), troubles })
}
