//! From an operation's code to a service call, and from its result to an encoded answer.
//!
//! One table ([`answer`], and [`answer_now`] for what need not wait); the rules themselves are the services'. `hello` and
//! `message.send` have their own paths: one changes the connection, the other is most of the work.

mod account;
mod admin;
mod conversation;
mod export;
mod group;
pub(crate) mod hello;
mod live_import;
pub(crate) mod message;
mod read_only;
mod receipt;
mod removal;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fanout::{Code, Fault};
use futures::FutureExt;
use logstore::id::ConnectionId;
use prost::Message;

use crate::connection::{Caller, Connection, InFlight};
use crate::session::Gateway;
use crate::wire::frame::{HEADER_BYTES, Header, SERVER_FRAME_BYTES_MAX};
use crate::wire::operation::Operation;

/// Nothing is waited for longer: the outcome is then unknown, and a retry under the same id finds it out.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Body of an answer that every client takes.
const ANSWER_BYTES_MAX: usize = SERVER_FRAME_BYTES_MAX - HEADER_BYTES;

type Answer = Result<BytesMut, Fault>;

/// Answers what needs no waiting, on the connection's own task and so in its order; `None`: it waits, for what is not in memory too,
/// and gets a task of its own. What such an operation has done by then it may do again.
pub(crate) fn answer_now(gateway: &Gateway, caller: Caller, operation: Operation, body: &Bytes) -> Option<Answer> {
    if let Err(fault) = read_only::check(gateway, operation) {
        return Some(Err(fault));
    }
    match operation {
        Operation::Ping => Some(hello::ping(gateway, body)),
        Operation::Delivered => receipt::delivered(gateway, caller, body).now_or_never(),
        Operation::Read => receipt::read(gateway, caller, body).now_or_never(),
        _ => None,
    }
}

/// Answers an operation that waits.
async fn answer(gateway: &Arc<Gateway>, caller: Caller, operation: Operation, body: Bytes) -> Answer {
    read_only::check(gateway, operation)?;
    read_only::answered(gateway, answer_any(gateway, caller, operation, body).await)
}

async fn answer_any(gateway: &Arc<Gateway>, caller: Caller, operation: Operation, body: Bytes) -> Answer {
    match operation {
        Operation::Register => account::register(gateway, body).await,
        Operation::Login => account::login(gateway, body).await,
        Operation::Refresh => account::refresh(gateway, body).await,
        Operation::FindUsers => account::find(gateway, body).await,
        Operation::History => message::history(gateway, caller, body).await,
        Operation::Recall => removal::recall(gateway, caller, body).await,
        Operation::OpenDirect => conversation::open_direct(gateway, caller, body).await,
        Operation::ListConversations => conversation::list(gateway, caller, body).await,
        Operation::CreateGroup => group::create(gateway, caller, body).await,
        Operation::AddMembers => group::add(gateway, caller, body).await,
        Operation::RemoveMembers => group::remove(gateway, caller, body).await,
        Operation::LeaveGroup => group::leave(gateway, caller, body).await,
        Operation::ListMembers => group::members(gateway, caller, body).await,
        Operation::Delivered => receipt::delivered(gateway, caller, &body).await,
        Operation::Read => receipt::read(gateway, caller, &body).await,
        Operation::ImportUsers => admin::import_users(gateway, body).await,
        Operation::MintTokens => admin::mint_tokens(gateway, body).await,
        Operation::ListShards => admin::list_shards(gateway, body).await,
        Operation::SealShards => admin::seal_shards(gateway, body).await,
        Operation::Trim => removal::trim(gateway, body).await,
        Operation::Retain => removal::retain(gateway, body).await,
        Operation::EraseUser => removal::erase_user(gateway, body).await,
        Operation::ListErasures => removal::list_erasures(gateway),
        Operation::Compact => removal::compact(gateway, body).await,
        Operation::Sweep => removal::sweep(gateway, body).await,
        Operation::ImportSteps => live_import::take(gateway, body).await,
        Operation::LookImport => live_import::look(gateway, body).await,
        Operation::Probe => admin::probe(gateway).await,
        Operation::OpenExport => export::open(gateway, body).await,
        Operation::ListExport => export::list(gateway, body),
        Operation::ReadExport => export::read(gateway, body).await,
        Operation::CloseExport => export::close(gateway, body),
        Operation::ReadEntries => export::entries(gateway, body).await,
        _ => Err(unknown(operation)),
    }
}

/// Answers on a task of its own, with the request in flight until then.
pub(crate) fn spawn(
    gateway: &Arc<Gateway>,
    connection: &Arc<Connection>,
    caller: Caller,
    operation: Operation,
    header: Header,
    body: Bytes,
) {
    // Such answers may be as large as a frame: a few of them fill what a connection may have in flight.
    let in_flight = connection.begin(body.len() + ANSWER_BYTES_MAX / 8);
    let gateway = Arc::clone(gateway);
    tokio::spawn(async move {
        let answered = tokio::time::timeout(ANSWER_WITHIN, answer(&gateway, caller, operation, body)).await;
        let result = answered.unwrap_or_else(|_| Err(timed_out(operation))).and_then(check_size);
        finish(&gateway, in_flight, header, result);
    });
}

fn finish(gateway: &Gateway, in_flight: InFlight, header: Header, result: Answer) {
    match result {
        Ok(body) => in_flight.reply(header.operation, header.request_id, |out| out.extend_from_slice(&body)),
        Err(fault) => {
            gateway.figures().requests_refused.increment(1);
            log_ours(in_flight.connection_id(), header.operation, &fault);
            in_flight.refuse(header.operation, header.request_id, &fault);
        }
    }
}

/// A refusal is the client's affair, except when it was we who failed.
fn log_ours(connection: ConnectionId, operation: u16, fault: &Fault) {
    if fault.code == Code::Internal {
        tracing::error!(%connection, operation, %fault, "request failed");
    }
}

fn check_size(body: BytesMut) -> Answer {
    if body.len() > ANSWER_BYTES_MAX {
        return Err(Fault::new(Code::TooMany, format!("the answer has {} bytes: ask for less at a time", body.len())));
    }
    Ok(body)
}

fn timed_out(operation: Operation) -> Fault {
    let what = format!("{} took longer than {} s; its outcome is unknown", operation.name(), ANSWER_WITHIN.as_secs());
    Fault::later(Code::Timeout, what, Duration::from_secs(1))
}

fn unknown(operation: Operation) -> Fault {
    Fault::new(Code::UnknownOperation, format!("{} is not asked for", operation.name()))
}

/// Reads a request.
fn parse<T: Message + Default>(body: Bytes) -> Result<T, Fault> {
    T::decode(body).map_err(|error| Fault::new(Code::BadBody, error.to_string()))
}

/// Writes an answer.
fn encode(body: &impl Message) -> BytesMut {
    let mut out = BytesMut::with_capacity(body.encoded_len());
    body.encode_raw(&mut out);
    out
}
