//! Delivered and read cursors: noted at once, replicated later and merged.

use bytes::Bytes;
use fanout::{Code, Fault};
use logstore::id::{ConversationId, SeqId};

use super::{Answer, encode, parse};
use crate::connection::Caller;
use crate::session::Gateway;
use crate::wire::{convert, proto};

pub(super) async fn delivered(gateway: &Gateway, caller: Caller, body: &Bytes) -> Answer {
    let moves = moves(gateway, body)?;
    Ok(reply(&gateway.services().receipts.delivered(caller.user, &moves).await))
}

pub(super) async fn read(gateway: &Gateway, caller: Caller, body: &Bytes) -> Answer {
    let moves = moves(gateway, body)?;
    Ok(reply(&gateway.services().receipts.read(caller.user, &moves).await))
}

fn moves(gateway: &Gateway, body: &Bytes) -> Result<Vec<(ConversationId, SeqId)>, Fault> {
    let cursors: proto::Cursors = parse(body.clone())?;
    let (moves, most) = (cursors.moves.len(), gateway.limits().cursor_moves as usize);
    if moves > most {
        return Err(Fault::new(Code::TooMany, format!("{moves} cursors in one request, at most {most}")));
    }
    convert::cursor_moves(&cursors)
}

fn reply(refused: &[(u32, Fault)]) -> bytes::BytesMut {
    encode(&proto::CursorsReply { refusals: convert::refusals(refused) })
}
