//! Groups and their members.

use bytes::Bytes;
use logstore::id::{ConversationId, SeqId, UserId};

use super::conversation::page;
use super::{Answer, encode, parse};
use crate::connection::Caller;
use crate::session::Gateway;
use crate::wire::{convert, proto};

/// Members in a page, asked or not: 20 KiB of answer.
const PAGE: usize = 1000;

pub(super) async fn create(gateway: &Gateway, caller: Caller, body: Bytes) -> Answer {
    let request: proto::CreateGroup = parse(body)?;
    let request_id = convert::request_id(&request.request_id)?;
    let members = convert::users(request.members);
    let created = gateway.services().groups.create(caller.user, &request.name, members, request_id).await?;
    let (group, seq, members) = created;
    Ok(reply(group, seq, members))
}

pub(super) async fn add(gateway: &Gateway, caller: Caller, body: Bytes) -> Answer {
    let (group, users, request_id) = change(body)?;
    let (seq, added) = gateway.services().groups.add(caller.user, group, users, request_id).await?;
    Ok(reply(group, seq, added))
}

pub(super) async fn remove(gateway: &Gateway, caller: Caller, body: Bytes) -> Answer {
    let (group, users, request_id) = change(body)?;
    let (seq, removed) = gateway.services().groups.remove(caller.user, group, users, request_id).await?;
    Ok(reply(group, seq, removed))
}

pub(super) async fn leave(gateway: &Gateway, caller: Caller, body: Bytes) -> Answer {
    let request: proto::LeaveGroup = parse(body)?;
    let group = convert::conversation_id(&request.conversation)?;
    let request_id = convert::request_id(&request.request_id)?;
    let seq = gateway.services().groups.leave(caller.user, group, request_id).await?;
    Ok(reply(group, seq, vec![caller.user]))
}

pub(super) async fn members(gateway: &Gateway, caller: Caller, body: Bytes) -> Answer {
    let request: proto::ListMembers = parse(body)?;
    let group = convert::conversation_id(&request.conversation)?;
    let after = (request.after != 0).then_some(UserId(request.after));
    let limit = page(request.limit, PAGE, PAGE as u64);
    let page = gateway.services().groups.members(caller.user, group, after, limit).await?;
    Ok(encode(&convert::members(page)))
}

fn change(body: Bytes) -> Result<(ConversationId, Vec<UserId>, logstore::id::ClientMsgId), fanout::Fault> {
    let request: proto::ChangeMembers = parse(body)?;
    let group = convert::conversation_id(&request.conversation)?;
    Ok((group, convert::users(request.users), convert::request_id(&request.request_id)?))
}

fn reply(group: ConversationId, seq: SeqId, changed: Vec<UserId>) -> bytes::BytesMut {
    encode(&proto::GroupReply {
        conversation: convert::id_bytes(group.0),
        seq_id: seq.0,
        changed: changed.into_iter().map(|user| user.0).collect(),
    })
}
