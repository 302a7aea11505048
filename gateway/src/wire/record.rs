//! A record on the wire, written by hand: every delivery is made of these.
//!
//! ```text
//!  0a len  (field 1 of Deliver or HistoryReply: records)
//!    0a 10 conversation[16]   10 seq   18 ordinal   20 kind   29 sender[8]   31 server_msg_id[8]
//!    3a 10 client_msg_id[16]  40 sent_at   4a len content | 52 len membership | 58 01 (removed) | 62 len recalled
//! ```
//!
//! What is written is what prost would write: fields in order, those that are zero or empty left out.

use bytes::{BufMut, BytesMut};
use logstore::{BodyPlace, RecordHead, RecordKind};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use sequencer::state::{MembershipBody, RecallBody};

use super::convert;
use super::proto;

const RECORDS: u8 = 1 << 3 | 2;
const CONVERSATION: u8 = 1 << 3 | 2;
const SEQ: u8 = 2 << 3;
const ORDINAL: u8 = 3 << 3;
const KIND: u8 = 4 << 3;
const SENDER: u8 = 5 << 3 | 1;
const SERVER_MSG_ID: u8 = 6 << 3 | 1;
const CLIENT_MSG_ID: u8 = 7 << 3 | 2;
const SENT_AT: u8 = 8 << 3;
const CONTENT: u8 = 9 << 3 | 2;
const MEMBERSHIP: u8 = 10 << 3 | 2;
const REMOVED: u8 = 11 << 3;
const RECALLED: u8 = 12 << 3 | 2;

/// Bytes of the two ids of 16 bytes with their keys and lengths.
const IDS_BYTES: usize = 2 * 18;

/// What a record says, by its kind.
#[derive(Default)]
pub struct Said {
    /// Of a record of kind membership.
    pub membership: Option<proto::Membership>,
    /// Of a record of kind recall.
    pub recalled: Option<proto::Recalled>,
}

impl Said {
    /// What a body tells, for the kinds that have one of ours.
    pub fn of(head: &RecordHead, body: &[u8]) -> Said {
        match head.kind {
            RecordKind::MEMBERSHIP => {
                Said { membership: MembershipBody::decode(body).map(convert::membership), recalled: None }
            }
            RecordKind::RECALL => Said { membership: None, recalled: RecallBody::decode(body).map(convert::recalled) },
            _ => Said::default(),
        }
    }

    /// Whether the body is told by this, and not as content.
    pub fn is_all(&self) -> bool {
        self.membership.is_some() || self.recalled.is_some()
    }

    fn encoded_len(&self) -> usize {
        self.membership.as_ref().map_or(0, |membership| delimited_len(membership.encoded_len()))
            + self.recalled.as_ref().map_or(0, |recalled| delimited_len(recalled.encoded_len()))
    }
}

/// Appends a record as an element of field 1 (`Deliver.records`, `HistoryReply.records`).
pub fn put_element(out: &mut BytesMut, head: &RecordHead, body: &[u8]) {
    let said = Said::of(head, body);
    let content = if said.is_all() { &[] } else { body };
    let length = encoded_len(head, content, &said);
    out.reserve(length + 6);
    out.put_u8(RECORDS);
    encode_varint(length as u64, out);
    put_record(out, head, content, &said);
}

fn put_record(out: &mut BytesMut, head: &RecordHead, content: &[u8], said: &Said) {
    out.put_slice(&[CONVERSATION, 16]);
    out.put_slice(&head.conversation.to_bytes());
    put_varint(out, SEQ, head.seq.0);
    put_varint(out, ORDINAL, head.ordinal.0);
    put_varint(out, KIND, u64::from(head.kind.0));
    put_fixed(out, SENDER, head.sender.0);
    put_fixed(out, SERVER_MSG_ID, head.server_msg_id.0);
    out.put_slice(&[CLIENT_MSG_ID, 16]);
    out.put_slice(&head.client_msg_id.0.to_be_bytes());
    put_varint(out, SENT_AT, head.time.0);
    if !content.is_empty() {
        out.put_u8(CONTENT);
        encode_varint(content.len() as u64, out);
        out.put_slice(content);
    }
    if let Some(membership) = &said.membership {
        put_message(out, MEMBERSHIP, membership);
    }
    put_varint(out, REMOVED, u64::from(head.body == BodyPlace::Removed));
    if let Some(recalled) = &said.recalled {
        put_message(out, RECALLED, recalled);
    }
}

fn encoded_len(head: &RecordHead, content: &[u8], said: &Said) -> usize {
    IDS_BYTES
        + varint_len(head.seq.0)
        + varint_len(head.ordinal.0)
        + varint_len(u64::from(head.kind.0))
        + fixed_len(head.sender.0)
        + fixed_len(head.server_msg_id.0)
        + varint_len(head.time.0)
        + if content.is_empty() { 0 } else { delimited_len(content.len()) }
        + varint_len(u64::from(head.body == BodyPlace::Removed))
        + said.encoded_len()
}

fn put_message(out: &mut BytesMut, key: u8, message: &impl Message) {
    out.put_u8(key);
    encode_varint(message.encoded_len() as u64, out);
    message.encode_raw(out);
}

fn put_varint(out: &mut BytesMut, key: u8, value: u64) {
    if value != 0 {
        out.put_u8(key);
        encode_varint(value, out);
    }
}

fn put_fixed(out: &mut BytesMut, key: u8, value: u64) {
    if value != 0 {
        out.put_u8(key);
        out.put_u64_le(value);
    }
}

fn varint_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + encoded_len_varint(value) }
}

fn fixed_len(value: u64) -> usize {
    if value == 0 { 0 } else { 9 }
}

fn delimited_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}
