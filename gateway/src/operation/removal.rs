//! Recall, trims, retention, erasure.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fanout::{Code, Fault};
use futures::future::try_join_all;
use logstore::id::{SeqId, UserId};
use sequencer::Retention;

use super::admin::not_sealed;
use super::conversation::no_such_user;
use super::{Answer, encode, parse};

use crate::connection::Caller;
use crate::session::{Gateway, Role};
use crate::wire::{convert, proto};

/// A sweep answers before its request is given up.
const SWEEP_WITHIN: Duration = Duration::from_secs(8);

pub(super) async fn recall(gateway: &Gateway, caller: Caller, body: Bytes) -> Answer {
    let request: proto::Recall = parse(body)?;
    let conversation = convert::conversation_id(&request.conversation)?;
    let (seq, id) = (SeqId(request.seq_id), convert::request_id(&request.request_id)?);
    let removals = &gateway.services().removals;
    let said = match caller.role {
        Role::Admin => removals.recall_as_operator(conversation, seq, id).await?,
        _ => removals.recall(caller.user, conversation, seq, id).await?,
    };
    Ok(encode(&proto::RecallReply { seq_id: said.0 }))
}

pub(super) async fn trim(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::Trim = parse(body)?;
    let conversation = convert::conversation_id(&request.conversation)?;
    let done = gateway.services().removals.trim(conversation, SeqId(request.before_seq)).await?;
    Ok(encode(&proto::TrimReply { before_seq: done.before.0, messages: done.messages }))
}

pub(super) async fn retain(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::Retain = parse(body)?;
    let conversation = convert::conversation_id(&request.conversation)?;
    let retention = Retention { age_ms: request.age_ms, records: request.records };
    gateway.services().removals.retain(conversation, (!request.by_default).then_some(retention)).await?;
    Ok(encode(&proto::RetainReply {}))
}

pub(super) async fn erase_user(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::EraseUser = parse(body)?;
    let user = match (request.user, request.name.as_str()) {
        (0, "") => return Err(Fault::new(Code::BadField, "a name or a user")),
        (0, name) => {
            let found = gateway.services().accounts.find_names(&[name.to_owned()]).await?;
            found.first().map(|(user, _)| *user).ok_or_else(|| no_such_user(name))?
        }
        (user, _) => UserId(user),
    };
    let pending = gateway.services().removals.erase(user).await?;
    Ok(encode(&proto::Erasures { erasures: pending.iter().map(convert::erasure).collect() }))
}

pub(super) fn list_erasures(gateway: &Gateway) -> Answer {
    let pending = gateway.services().removals.erasures();
    Ok(encode(&proto::Erasures { erasures: pending.iter().map(convert::erasure).collect() }))
}

pub(super) async fn sweep(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::Sweep = parse(body)?;
    let within = Duration::from_millis(request.within_ms).min(SWEEP_WITHIN);
    let swept = gateway.services().removals.sweep(request.force, Instant::now() + within).await?;
    Ok(encode(&proto::SweptShards { shards: swept.iter().map(convert::swept).collect() }))
}

pub(super) async fn compact(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::Compact = parse(body)?;
    let shards = gateway.sequencer().shards();
    if request.begin {
        try_join_all(shards.iter().map(|shard| shard.seal_and_compact())).await.map_err(not_sealed)?;
    }
    let mut plans = Vec::new();
    for shard in shards {
        plans.extend(shard.compact_plans().await?.iter().map(convert::compact_plan));
    }
    Ok(encode(&proto::CompactPlans { plans }))
}
