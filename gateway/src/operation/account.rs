//! Accounts and sessions.

use bytes::Bytes;
use fanout::{Code, Fault};

use super::{Answer, encode, parse};
use crate::session::Gateway;
use crate::wire::{convert, proto};

pub(super) async fn register(gateway: &Gateway, body: Bytes) -> Answer {
    if gateway.registration_closed() {
        return Err(Fault::new(Code::Forbidden, "registration is closed here: an administrator makes accounts"));
    }
    let request: proto::Register = parse(body)?;
    let request_id = convert::request_id(&request.request_id)?;
    let grant = gateway.services().accounts.register(&request.name, &request.password, request_id).await?;
    Ok(encode(&convert::tokens(gateway.tokens().issue(&grant, gateway.now()))))
}

pub(super) async fn login(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::Login = parse(body)?;
    let grant = gateway.services().accounts.login(&request.name, &request.password).await?;
    Ok(encode(&convert::tokens(gateway.tokens().issue(&grant, gateway.now()))))
}

pub(super) async fn refresh(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::Refresh = parse(body)?;
    let (user, session, secret) = gateway.tokens().verify_refresh(&request.refresh_token, gateway.now())?;
    let grant = gateway.services().accounts.refresh(user, session, secret).await?;
    Ok(encode(&convert::tokens(gateway.tokens().issue(&grant, gateway.now()))))
}

pub(super) async fn find(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::FindUsers = parse(body)?;
    let (asked, most) = (request.names.len() + request.ids.len(), gateway.limits().find_users as usize);
    if asked > most {
        return Err(Fault::new(Code::TooMany, format!("{asked} users asked for, at most {most} at a time")));
    }
    let accounts = &gateway.services().accounts;
    let mut users = accounts.find_names(&request.names).await?;
    users.extend(accounts.find_ids(&convert::users(request.ids)).await?);
    Ok(encode(&proto::FoundUsers { users: users.into_iter().map(convert::user_ref).collect() }))
}
