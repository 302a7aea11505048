//! Bodies of the client protocol read where they lie, without an allocation a message.
//!
//! The client library owns its frames and hands out values; a load generator cannot afford that. What always holds:
//! nothing from the peer is trusted with a length; a body that does not parse is [`Malformed`], never a panic.

use gateway::wire::frame::{FLAG_ERROR, Header};
use gateway::wire::proto;

pub use super::link::{Link, outgoing_bytes_max};

/// Bytes the peer sent that are not the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent bytes that are not the protocol: {0}")]
pub struct Malformed(pub(super) &'static str);

/// A conversation's or message's 16 bytes.
pub type Id = [u8; 16];

fn take_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed("a number is cut off"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed("a number without end"))
}

/// A field of a protobuf body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A varint or fixed number.
    Number(u64),
    /// Bytes, a string, a message, or packed numbers.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn number(self) -> Result<u64, Malformed> {
        match self {
            Value::Number(number) => Ok(number),
            Value::Bytes(_) => Err(Malformed("bytes where a number belongs")),
        }
    }

    fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Number(_) => Err(Malformed("a number where bytes belong")),
        }
    }

    fn id(self) -> Result<Id, Malformed> {
        self.bytes()?.try_into().map_err(|_| Malformed("an id that is not 16 bytes"))
    }
}

/// The fields of a protobuf body, in order.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The next (number, value).
    pub fn next_field(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = take_varint(&mut self.0)?;
        let value = match tag & 7 {
            0 => Value::Number(take_varint(&mut self.0)?),
            1 => Value::Number(u64::from_le_bytes(self.take_array()?)),
            2 => {
                let length = take_varint(&mut self.0)? as usize;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Number(u32::from_le_bytes(self.take_array()?).into()),
            _ => return Err(Malformed("an unknown wire type")),
        };
        Ok(Some(((tag >> 3) as u32, value)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(Malformed("a field is cut off"))?;
        self.0 = rest;
        Ok(head)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed("a field is cut off"))
    }
}

/// A record where it lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Of which conversation.
    pub conversation: Id,
    /// Its place.
    pub seq_id: u64,
    /// 1 text, 2 custom, 128 membership.
    pub kind: u64,
    /// Who wrote it.
    pub sender: u64,
    /// Its sender's id for it.
    pub client_msg_id: Id,
    /// Its body.
    pub content: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Reads a `Record`.
    pub fn parse(body: &'a [u8]) -> Result<RecordView<'a>, Malformed> {
        let mut record = RecordView::default();
        let mut fields = Fields(body);
        while let Some((field, value)) = fields.next_field()? {
            match field {
                1 => record.conversation = value.id()?,
                2 => record.seq_id = value.number()?,
                4 => record.kind = value.number()?,
                5 => record.sender = value.number()?,
                7 if value.bytes()?.len() == 16 => record.client_msg_id = value.id()?,
                9 => record.content = value.bytes()?,
                _ => {}
            }
        }
        Ok(record)
    }
}

/// Calls `each` for every record of a `Deliver` or a `HistoryReply` (both keep them in field 1).
pub fn each_record<'a, E: From<Malformed>>(
    body: &'a [u8],
    mut each: impl FnMut(RecordView<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut fields = Fields(body);
    while let Some((field, value)) = fields.next_field()? {
        if field == 1 {
            each(RecordView::parse(value.bytes()?)?)?;
        }
    }
    Ok(())
}

/// The `step` of a `Deliver` (field 2) or `CaughtUp` (field 1): (slot, value).
pub fn parse_step(body: &[u8], step_field: u32) -> Result<Option<(u32, u64)>, Malformed> {
    let mut fields = Fields(body);
    let mut step = None;
    while let Some((field, value)) = fields.next_field()? {
        if field == step_field {
            step = Some(parse_cursor_step(value.bytes()?)?);
        }
    }
    Ok(step)
}

fn parse_cursor_step(body: &[u8]) -> Result<(u32, u64), Malformed> {
    let (mut slot, mut told) = (0, 0);
    let mut fields = Fields(body);
    while let Some((field, value)) = fields.next_field()? {
        match field {
            1 => slot = value.number()? as u32,
            2 => told = value.number()?,
            _ => {}
        }
    }
    Ok((slot, told))
}

/// A durable ack: one seq_id a message in the order sent (0: refused), and why some were refused.
#[derive(Default)]
pub struct SendAck {
    /// One a message.
    pub seq_ids: Vec<u64>,
    /// Those refused.
    pub refusals: Vec<proto::SendRefusal>,
}

impl SendAck {
    /// Reads a `SendReply` into this one's memory.
    pub fn read(&mut self, body: &[u8]) -> Result<(), Malformed> {
        self.seq_ids.clear();
        self.refusals.clear();
        let mut fields = Fields(body);
        while let Some((field, value)) = fields.next_field()? {
            match (field, value) {
                (1, Value::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        self.seq_ids.push(take_varint(&mut packed)?);
                    }
                }
                (1, Value::Number(seq_id)) => self.seq_ids.push(seq_id),
                (4, value) => self.refusals.push(decode(value.bytes()?)?),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Reads a body that is too rare to be worth a view.
pub fn decode<M: prost::Message + Default>(body: &[u8]) -> Result<M, Malformed> {
    M::decode(body).map_err(|_| Malformed("a body that does not parse"))
}

/// The error a frame carries, if it does.
pub fn error_of(header: &Header, body: &[u8]) -> Result<Option<proto::Error>, Malformed> {
    if header.flags & FLAG_ERROR == 0 { Ok(None) } else { decode(body).map(Some) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_body_or_malformed(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = RecordView::parse(&bytes);
            let _ = SendAck::default().read(&bytes);
            let _ = parse_step(&bytes, 2);
        }
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let record = proto::Record {
            conversation: Bytes::copy_from_slice(&[7; 16]),
            seq_id: 300,
            ordinal: 299,
            kind: 1,
            sender: u64::MAX,
            server_msg_id: 5,
            client_msg_id: Bytes::copy_from_slice(&[9; 16]),
            sent_at_ms: 1,
            content: Bytes::from_static("שלום".as_bytes()),
            membership: None,
            removed: false,
            recalled: None,
        };
        let deliver = proto::Deliver {
            records: vec![record.clone(), record],
            step: Some(proto::CursorStep { slot: 3, value: 1 << 40 }),
        };
        let body = deliver.encode_to_vec();
        let mut seen = 0;
        each_record(&body, |view| {
            seen += 1;
            assert_eq!((view.conversation, view.seq_id, view.kind, view.sender), ([7; 16], 300, 1, u64::MAX));
            assert_eq!((view.client_msg_id, view.content), ([9; 16], "שלום".as_bytes()));
            Ok::<(), Malformed>(())
        })
        .unwrap();
        assert_eq!(seen, 2);
        assert_eq!(parse_step(&body, 2).unwrap(), Some((3, 1 << 40)));
    }

    #[test]
    fn an_ack_reads_into_the_same_memory() {
        let mut ack = SendAck::default();
        for seq_ids in [vec![1, 0, u64::MAX], vec![5]] {
            let refusals = vec![proto::SendRefusal { position: 1, error: None }];
            let reply = proto::SendReply { seq_ids: seq_ids.clone(), refusals: refusals.clone(), ..Default::default() };
            ack.read(&reply.encode_to_vec()).unwrap();
            assert_eq!((&ack.seq_ids, &ack.refusals), (&seq_ids, &refusals));
        }
    }
}
