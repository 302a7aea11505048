//! Sending and reading messages.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fanout::service::{HistoryPage, HistoryQuery, Outgoing, SendOutcome};
use fanout::{Code, Fault};
use logstore::id::SeqId;
use prost::encoding::{encode_key, encode_varint};

use super::conversation::page;
use super::{Answer, parse};
use crate::connection::feed::SendNumber;
use crate::connection::pipeline::Pipeline;
use crate::connection::{Caller, Connection, Shared};
use crate::session::Gateway;
use crate::wire::frame::{self, FLAG_RESPONSE, Header};
use crate::wire::{convert, proto, record, send};

/// Records in a page of history when the client does not say: some screens.
const PAGE: usize = 100;
/// A page ends soon after this many bytes, so that it fits a frame with its largest record.
const PAGE_BYTES: usize = 512 << 10;

/// Hands messages on; the answer is queued when each is durable or refused. Nothing waits and no task is made.
pub(crate) fn send(
    gateway: &Gateway,
    connection: &Arc<Connection>,
    pipeline: &mut Pipeline,
    caller: Caller,
    header: Header,
    body: Bytes,
) -> Result<(), Fault> {
    let mut request = send::decode(&body, gateway.limits().batch_messages as usize)?;
    if let Some(fault) = gateway.services().messages.check_count(request.messages.len()) {
        return Err(fault);
    }
    pipeline.enter(request.epoch)?;
    #[cfg(feature = "plants")]
    let swapped = reorder(&mut request.messages);
    let (count, taken) = (request.messages.len(), connection.begin(body.len()));
    let refused = place(gateway, pipeline, caller, &mut request.messages);
    let begun = connection.update(|shared| {
        if request.want_accepted {
            send::encode_accepted(&mut shared.out, header.request_id, count - refused.len());
        }
        shared.feed.as_mut().map(|feed| feed.send_begun())
    });
    let number = begun.flatten();
    let sent = gateway.figures().messages_sent.clone();
    let done = move |outcomes: Vec<SendOutcome>| {
        sent.increment(outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64);
        let outcomes = if refused.is_empty() { outcomes } else { merge(outcomes, refused) };
        #[cfg(feature = "plants")]
        let outcomes = reordered(outcomes, swapped);
        taken.finish(|shared| answer(shared, header, &outcomes, number));
    };
    if request.messages.is_empty() {
        done(Vec::new());
    } else {
        gateway.services().messages.send(caller.user, connection.id(), request.messages, Box::new(done));
    }
    Ok(())
}

/// The bug that is planted: the first two messages change places; says whether they have.
#[cfg(feature = "plants")]
fn reorder(messages: &mut [Outgoing]) -> bool {
    let reorders = logstore::plants::is_planted(logstore::plants::Plant::ReorderPipeline) && messages.len() > 1;
    if reorders {
        messages.swap(0, 1);
    }
    reorders
}

/// Outcomes where their messages were.
#[cfg(feature = "plants")]
fn reordered(mut outcomes: Vec<SendOutcome>, swapped: bool) -> Vec<SendOutcome> {
    if swapped {
        outcomes.swap(0, 1);
    }
    outcomes
}

/// Queues the answer, and lets the cursor pass the messages it tells of.
fn answer(shared: &mut Shared, header: Header, outcomes: &[SendOutcome], number: Option<SendNumber>) {
    let reply = |out: &mut BytesMut| send::encode_reply(out, outcomes);
    frame::encode_with(&mut shared.out, FLAG_RESPONSE, header.operation, header.request_id, reply);
    let (Some(feed), Some(number)) = (&mut shared.feed, number) else { return };
    if outcomes.iter().any(leaves_open) {
        feed.send_left_open(number);
    } else {
        feed.send_answered(number, &mut shared.out);
    }
}

/// Whether a message may be in the log though its answer does not say so.
fn leaves_open(outcome: &SendOutcome) -> bool {
    let codes = [Code::Draining, Code::Timeout, Code::Internal];
    outcome.as_ref().is_err_and(|fault| codes.contains(&fault.code))
}

/// Gives every message that may be handed on its place in the pipeline, and takes out the others: they must not take a
/// place, or what follows them would look like the successor of something lost.
fn place(
    gateway: &Gateway,
    pipeline: &mut Pipeline,
    caller: Caller,
    messages: &mut Vec<Outgoing>,
) -> Vec<(usize, Fault)> {
    let (mut refused, mut position) = (Vec::new(), 0);
    messages.retain_mut(|message| {
        let placed = match gateway.services().messages.check(caller.user, message) {
            Some(fault) => Err(fault),
            None => pipeline.next(message.conversation),
        };
        position += 1;
        match placed {
            Ok(n) => message.n = n,
            Err(fault) => refused.push((position - 1, fault)),
        }
        message.n != 0
    });
    refused
}

/// Puts refusals back where their messages were.
fn merge(outcomes: Vec<SendOutcome>, refused: Vec<(usize, Fault)>) -> Vec<SendOutcome> {
    let mut merged = Vec::with_capacity(outcomes.len() + refused.len());
    let mut outcomes = outcomes.into_iter();
    for (position, fault) in refused {
        merged.extend(outcomes.by_ref().take(position - merged.len()));
        merged.push(Err(fault));
    }
    merged.extend(outcomes);
    merged
}

pub(super) async fn history(gateway: &Gateway, caller: Caller, body: Bytes) -> Answer {
    let request: proto::History = parse(body)?;
    let query = HistoryQuery {
        conversation: convert::conversation_id(&request.conversation)?,
        from: SeqId(request.from_seq),
        to: SeqId(request.to_seq),
        limit: page(request.limit, PAGE, gateway.limits().history_records),
        newest_first: request.newest_first,
    };
    let page = gateway.services().messages.history(caller.user, query).await?;
    Ok(encode_page(&page))
}

/// Writes as much of a page as a frame takes, and where the rest begins.
fn encode_page(page: &HistoryPage) -> BytesMut {
    let (mut out, mut next_from) = (BytesMut::new(), page.next_from);
    for stored in &page.records {
        if out.len() >= PAGE_BYTES {
            next_from = Some(stored.head.seq);
            break;
        }
        record::put_element(&mut out, &stored.head, &stored.body);
    }
    for (number, value) in [(2, page.head.0), (3, next_from.map_or(0, |seq| seq.0))] {
        if value != 0 {
            encode_key(number, prost::encoding::WireType::Varint, &mut out);
            encode_varint(value, &mut out);
        }
    }
    out
}
