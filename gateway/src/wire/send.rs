//! The bodies of `message.send`, read and written by hand: they are most of what a gateway does.
//!
//! A body read here is what prost would read, and a reply written here is what prost would write; tests hold the two
//! against each other. Contents are slices of the frame: nothing is copied, and one allocation serves all messages.

use bytes::{BufMut, Bytes, BytesMut};
use fanout::service::{Outgoing, SendOutcome};
use fanout::{Code, Fault};
use logstore::RecordKind;
use logstore::id::{ClientMsgId, ConversationId};
use prost::encoding::{encode_varint, encoded_len_varint};

use super::convert;
use super::proto;
use super::reader::{Field, Malformed, Reader};

/// A send as it arrives. The messages' places in their pipelines (`n`) are still 0.
#[derive(Clone, Debug)]
pub struct SendBody {
    /// The pipeline's epoch, also in every message.
    pub epoch: u32,
    /// Whether the client wants to hear that the gateway has taken them.
    pub want_accepted: bool,
    /// In order.
    pub messages: Vec<Outgoing>,
}

/// Reads a send of at most `messages_max` messages.
pub fn decode(body: &Bytes, messages_max: usize) -> Result<SendBody, Fault> {
    let mut send = SendBody { epoch: 0, want_accepted: false, messages: Vec::new() };
    let mut fields = Reader::new(body, 0, body.len());
    while let Some(field) = fields.next().map_err(malformed)? {
        match field {
            Field::Varint { number: 1, value } => send.epoch = value as u32,
            Field::Varint { number: 3, value } => send.want_accepted = value != 0,
            Field::Bytes { number: 2, start, end } => {
                if send.messages.len() == messages_max {
                    return Err(Fault::new(Code::TooMany, format!("more than {messages_max} messages in one send")));
                }
                if send.messages.is_empty() {
                    // Most clients send messages of like size: one allocation for the frame.
                    send.messages.reserve(((body.len() - start) / (end - start + 2).max(1) + 1).min(messages_max));
                }
                send.messages.push(decode_message(body, start, end)?);
            }
            Field::Varint { number: 2, .. } | Field::Bytes { number: 1 | 3, .. } => return Err(malformed(Malformed)),
            _ => {}
        }
    }
    send.messages.iter_mut().for_each(|message| message.epoch = send.epoch);
    Ok(send)
}

fn decode_message(body: &Bytes, start: usize, end: usize) -> Result<Outgoing, Fault> {
    let (mut conversation, mut client_msg_id, mut kind, mut content) = ((0, 0), (0, 0), 0u64, (0, 0));
    let mut fields = Reader::new(body, start, end);
    while let Some(field) = fields.next().map_err(malformed)? {
        match field {
            Field::Bytes { number: 1, start, end } => conversation = (start, end),
            Field::Bytes { number: 2, start, end } => client_msg_id = (start, end),
            Field::Varint { number: 3, value } => kind = value,
            Field::Bytes { number: 4, start, end } => content = (start, end),
            Field::Varint { number: 1 | 2 | 4, .. } | Field::Bytes { number: 3, .. } => {
                return Err(malformed(Malformed));
            }
            _ => {}
        }
    }
    let kind = u8::try_from(kind).map_err(|_| Fault::new(Code::BadField, format!("no kind {kind}")))?;
    Ok(Outgoing {
        conversation: ConversationId(convert::id16(&body[conversation.0..conversation.1], "conversation")?),
        client_msg_id: ClientMsgId(convert::id16(&body[client_msg_id.0..client_msg_id.1], "client_msg_id")?),
        kind: RecordKind(kind),
        body: body.slice(content.0..content.1),
        epoch: 0,
        n: 0,
    })
}

fn malformed(_: Malformed) -> Fault {
    Fault::new(Code::BadBody, "the body of the send does not parse")
}

/// Appends a `SendReply` for these outcomes.
pub fn encode_reply(out: &mut BytesMut, outcomes: &[SendOutcome]) {
    let stored = |outcome: &SendOutcome| outcome.as_ref().map_or((0, 0, 0), |s| (s.seq.0, s.server_msg_id.0, s.time.0));
    if outcomes.is_empty() {
        return;
    }
    put_packed(out, 1, outcomes.iter().map(|o| stored(o).0));
    out.put_u8(2 << 3 | 2);
    encode_varint(8 * outcomes.len() as u64, out);
    outcomes.iter().for_each(|o| out.put_u64_le(stored(o).1));
    put_packed(out, 3, outcomes.iter().map(|o| stored(o).2));
    for (position, outcome) in outcomes.iter().enumerate() {
        if let Err(fault) = outcome {
            let refusal = convert::refusal(position as u32, fault);
            prost::encoding::message::encode(4, &refusal, out);
        }
    }
    let duplicates = outcomes.iter().zip(0u64..).filter(|(o, _)| o.as_ref().is_ok_and(|s| s.duplicate));
    if duplicates.clone().next().is_some() {
        put_packed(out, 5, duplicates.map(|(_, position)| position));
    }
}

/// Appends a packed field of varints.
fn put_packed(out: &mut BytesMut, number: u8, values: impl Iterator<Item = u64> + Clone) {
    let length: usize = values.clone().map(encoded_len_varint).sum();
    out.put_u8(number << 3 | 2);
    encode_varint(length as u64, out);
    values.for_each(|value| encode_varint(value, out));
}

/// Appends the push that says that the gateway has taken a send.
pub fn encode_accepted(out: &mut BytesMut, request_id: u32, messages: usize) {
    let accepted = proto::Accepted { request_id, messages: messages as u32 };
    super::frame::encode(out, super::frame::FLAG_PUSH, super::operation::Operation::Accepted.number(), 0, &accepted);
}
