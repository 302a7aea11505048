//! What the server says unasked.

use std::time::Duration;

use bytes::Bytes;
use logstore::id::{ConversationId, SeqId};
use prost::Message;
use tokio::sync::mpsc;

use super::convert::{all, conversation_id};
use super::{Conversation, Error, Receipt, Record, Refusal, Step};
use crate::wire::frame::Frame;
use crate::wire::operation::Operation;
use crate::wire::proto;

/// Something the server said unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// Records of one slot, in order; once they are kept, the device has been told up to `step`.
    Deliver {
        /// The records.
        records: Vec<Record>,
        /// How far that tells.
        step: Option<Step>,
    },
    /// Conversations that changed since the cursor.
    Attached {
        /// Their rows.
        rows: Vec<Conversation>,
        /// The slot they belong to.
        slot: u32,
    },
    /// Everything up to `step` has been sent for its slot.
    CaughtUp {
        /// How far.
        step: Step,
        /// Whether that is so for every slot.
        all: bool,
    },
    /// The cursor belongs to another history: keep only these conversations, up to these records.
    CursorReset {
        /// The history from here on.
        history: Bytes,
        /// What may be kept.
        forks: Vec<(ConversationId, SeqId)>,
    },
    /// The gateway has taken the messages of a send; they are not durable yet.
    Accepted {
        /// Of the `Send`.
        request_id: u32,
        /// How many.
        messages: u32,
    },
    /// How far others have received and read.
    Receipts(Vec<Receipt>),
    /// The server is about to stop.
    Drain {
        /// Come back after this long.
        reconnect_after: Duration,
        /// Other addresses that serve.
        alternatives: Vec<String>,
        /// For people.
        reason: String,
    },
    /// Why the server is about to close this connection.
    Closing(Refusal),
}

/// The pushes of one connection, in order; `None` once it has ended.
///
/// Whoever holds it must keep taking: while it is full nothing is read from the connection, answers included.
/// Drop it to have pushes thrown away.
pub struct Pushes {
    pub(super) receiver: mpsc::Receiver<Push>,
}

impl Pushes {
    /// The next push.
    pub async fn next(&mut self) -> Option<Push> {
        self.receiver.recv().await
    }
}

/// Reads a push; `None` for kinds that this side does not know.
pub(super) fn decode(frame: Frame) -> Result<Option<Push>, Error> {
    let body = frame.body;
    let Some(operation) = Operation::from_number(frame.header.operation) else { return Ok(None) };
    Ok(Some(match operation {
        Operation::Deliver => deliver(parse(body)?)?,
        Operation::Attached => {
            let attached: proto::Attached = parse(body)?;
            Push::Attached { rows: all(attached.conversations)?, slot: attached.slot }
        }
        Operation::CaughtUp => {
            let caught_up: proto::CaughtUp = parse(body)?;
            Push::CaughtUp { step: caught_up.step.unwrap_or_default().into(), all: caught_up.all }
        }
        Operation::CursorReset => cursor_reset(parse(body)?)?,
        Operation::Accepted => {
            let accepted: proto::Accepted = parse(body)?;
            Push::Accepted { request_id: accepted.request_id, messages: accepted.messages }
        }
        Operation::Receipts => Push::Receipts(all(parse::<proto::Receipts>(body)?.receipts)?),
        Operation::Drain => drain(parse(body)?),
        Operation::Closing => Push::Closing(parse::<proto::Error>(body)?.into()),
        _ => return Ok(None),
    }))
}

/// Reads a body.
pub(super) fn parse<T: Message + Default>(body: Bytes) -> Result<T, Error> {
    T::decode(body).map_err(|error| Error::Protocol(error.to_string()))
}

fn deliver(deliver: proto::Deliver) -> Result<Push, Error> {
    Ok(Push::Deliver { records: all(deliver.records)?, step: deliver.step.map(Step::from) })
}

fn cursor_reset(reset: proto::CursorReset) -> Result<Push, Error> {
    let fork = |fork: proto::CursorMove| Ok((conversation_id(&fork.conversation)?, SeqId(fork.seq_id)));
    let forks = reset.forks.into_iter().map(fork).collect::<Result<_, Error>>()?;
    Ok(Push::CursorReset { history: reset.history, forks })
}

fn drain(drain: proto::Drain) -> Push {
    Push::Drain {
        reconnect_after: Duration::from_millis(drain.reconnect_after_ms),
        alternatives: drain.alternatives,
        reason: drain.reason,
    }
}
