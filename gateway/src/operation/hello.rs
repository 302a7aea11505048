//! `hello`, and `ping`.

use std::sync::Arc;

use bytes::Bytes;
use fanout::{Code, Fault};
use logstore::id::{HistoryId, LogIndex};

use super::{Answer, encode, parse};
use crate::connection::feed::{Bounds, Feed};
use crate::connection::{Connection, SignedIn, Timing};
use crate::session::{Claims, Gateway};
use crate::wire::frame::{self, FLAG_PUSH, FLAG_RESPONSE, Header};
use crate::wire::operation::Operation;
use crate::wire::{convert, proto};

/// A stable name of an installation is no longer than this.
const DEVICE_BYTES_MAX: usize = 64;
/// Steps a cursor may have: as many as there can be shards.
const STEPS_MAX: usize = 4096;
/// The client does not want `receipts` pushes.
const WITHOUT_RECEIPTS: &str = "without_receipts";
/// What this side knows; the answer to `hello` names those that both do.
const CAPABILITIES: &[&str] = &[WITHOUT_RECEIPTS];

/// Signs a connection in, answers, and begins to attach it if that is asked for.
pub(crate) fn greet(
    gateway: &Arc<Gateway>,
    connection: &Arc<Connection>,
    header: Header,
    body: &Bytes,
) -> Result<Claims, Fault> {
    let request: proto::Hello = parse(body.clone())?;
    check(&request)?;
    let claims = gateway.tokens().verify(&request.token, gateway.now())?;
    let cursors = if request.attach { cursors(gateway, request.cursor.as_ref())? } else { Told::Cursors(Vec::new()) };
    let who = SignedIn { user: claims.user, attached: request.attach, bodies: request.bodies };
    gateway.join(connection, who);
    let reply = reply(gateway, connection, &request, &claims);
    connection.update(|shared| {
        shared.without_receipts = reply.capabilities.iter().any(|name| name == WITHOUT_RECEIPTS);
        frame::encode(&mut shared.out, FLAG_RESPONSE, header.operation, header.request_id, &reply);
        if let Told::Otherwise(reset) = &cursors {
            frame::encode(&mut shared.out, FLAG_PUSH, Operation::CursorReset.number(), 0, reset);
        }
        if request.attach {
            let told = cursors.from(gateway.shards().len());
            let bounds = Bounds::new(gateway.limits());
            shared.feed = Some(Box::new(Feed::new(connection.id(), gateway.shards(), &told, bounds)));
        }
    });
    if request.attach {
        gateway.catch_up(connection);
    }
    Ok(claims)
}

fn check(request: &proto::Hello) -> Result<(), Fault> {
    if request.version < u32::from(frame::VERSION) {
        return Err(Fault::new(Code::BadVersion, format!("version {} is not spoken here", request.version)));
    }
    if request.device.len() > DEVICE_BYTES_MAX {
        return Err(Fault::new(Code::BadField, format!("device has more than {DEVICE_BYTES_MAX} bytes")));
    }
    Ok(())
}

fn reply(gateway: &Gateway, connection: &Connection, request: &proto::Hello, claims: &Claims) -> proto::HelloReply {
    let limits = gateway.limits();
    let known = |name: &String| CAPABILITIES.contains(&name.as_str());
    proto::HelloReply {
        version: u32::from(frame::VERSION),
        capabilities: request.capabilities.iter().filter(|name| known(name)).cloned().collect(),
        user: claims.user.0,
        name: claims.name.clone(),
        connection: connection.id().0,
        server_time_ms: gateway.now().0,
        history: convert::id_bytes(gateway.history().0),
        slots: gateway.shards().len() as u32,
        heartbeat_ms: Timing::new(limits).heartbeat().as_millis() as u64,
        frame_bytes_max: limits.frame_bytes as u32,
        batch_messages_max: limits.batch_messages as u32,
        text_bytes_max: limits.text_bytes as u32,
    }
}

/// What a device says it has been told.
enum Told {
    /// One index a shard.
    Cursors(Vec<LogIndex>),
    /// Something of another history: it keeps what the reset lists and is told everything.
    Otherwise(proto::CursorReset),
}

impl Told {
    fn from(self, shards: usize) -> Vec<LogIndex> {
        match self {
            Told::Cursors(cursors) => cursors,
            Told::Otherwise(_) => vec![LogIndex(0); shards],
        }
    }
}

fn cursors(gateway: &Gateway, cursor: Option<&proto::Cursor>) -> Result<Told, Fault> {
    let mut told = vec![LogIndex(0); gateway.shards().len()];
    let Some(cursor) = cursor.filter(|cursor| !cursor.history.is_empty()) else { return Ok(Told::Cursors(told)) };
    if cursor.steps.len() > STEPS_MAX {
        return Err(Fault::new(Code::TooMany, format!("a cursor of more than {STEPS_MAX} steps")));
    }
    if HistoryId(convert::id16(&cursor.history, "cursor.history")?) != gateway.history() {
        // No history is older than this one's beginning: nothing of another is kept.
        let history = convert::id_bytes(gateway.history().0);
        return Ok(Told::Otherwise(proto::CursorReset { history, forks: Vec::new() }));
    }
    // A slot that is not here is no reason to lock a device out: it is told the more.
    for step in &cursor.steps {
        if let Some(slot) = gateway.slot(step.slot) {
            told[slot] = told[slot].max(LogIndex(step.value));
        }
    }
    Ok(Told::Cursors(told))
}

pub(super) fn ping(gateway: &Gateway, body: &Bytes) -> Answer {
    let request: proto::Ping = parse(body.clone())?;
    Ok(encode(&proto::Pong { echo: request.echo, server_time_ms: gateway.now().0 }))
}
