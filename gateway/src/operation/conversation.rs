//! The conversation list, and opening 1:1s.

use bytes::Bytes;
use fanout::{Code, Fault};
use logstore::id::UserId;

use super::{Answer, encode, parse};
use crate::connection::Caller;
use crate::session::Gateway;
use crate::wire::{convert, proto};

/// Conversations in a page when the client does not say: a screen or two.
const PAGE: usize = 50;

pub(super) async fn open_direct(gateway: &Gateway, caller: Caller, body: Bytes) -> Answer {
    let request: proto::OpenDirect = parse(body)?;
    let peer = peer(gateway, request).await?;
    let summary = gateway.services().conversations.open_direct(caller.user, peer).await?;
    Ok(encode(&convert::conversation(&summary)))
}

async fn peer(gateway: &Gateway, request: proto::OpenDirect) -> Result<UserId, Fault> {
    match (request.user, request.name.is_empty()) {
        (0, true) => Err(Fault::new(Code::BadField, "neither user nor name says who")),
        (0, false) => {
            let found = gateway.services().accounts.find_names(std::slice::from_ref(&request.name)).await?;
            let (user, _) = found.first().ok_or_else(|| no_such_user(&request.name))?;
            Ok(*user)
        }
        (user, _) => Ok(UserId(user)),
    }
}

pub(super) fn no_such_user(name: &str) -> Fault {
    Fault::new(Code::NoSuchUser, format!("nobody is named {name:?}"))
}

pub(super) async fn list(gateway: &Gateway, caller: Caller, body: Bytes) -> Answer {
    let request: proto::ListConversations = parse(body)?;
    let limit = page(request.limit, PAGE, gateway.limits().list_conversations);
    let conversations = &gateway.services().conversations;
    let page = conversations.list(caller.user, limit, &request.after, request.with_left).await?;
    Ok(encode(&proto::ConversationList {
        conversations: page.items.iter().map(convert::conversation).collect(),
        next_after: page.next_after.unwrap_or_default().into(),
    }))
}

/// How many items a page has: as asked, or the default, and never more than the limit.
pub(super) fn page(asked: u32, default: usize, most: u64) -> usize {
    let wanted = if asked == 0 { default } else { asked as usize };
    wanted.min(most as usize)
}
