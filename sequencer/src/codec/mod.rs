//! The bytes of an entry: a time and a batch of commands.
//!
//! ```text
//! 0        1        2                4                         12               16
//! +--------+--------+----------------+-------------------------+----------------+----------
//! | version| flags 0| reserved 0     | time, ms                | count          | commands
//! +--------+--------+----------------+-------------------------+----------------+----------
//!
//! command:  0        1        2                4                8
//!           +--------+--------+----------------+----------------+---------------------------
//!           | kind   | sub    | reserved 0     | len            | len bytes of fields
//!           +--------+--------+----------------+----------------+---------------------------
//! ```
//!
//! What always holds: decoding never panics whatever the bytes, takes no memory before it has checked a
//! length, and accepts only what encoding could have written. A `Send` is read in place: apply looks at
//! 72 bytes of it and never at its body.

mod command;
mod conversation_row;
mod field;
mod import;
mod state_key;
mod state_row;

use bytes::{Bytes, BytesMut};
use logstore::id::{BodyHash, ClientMsgId, ConnectionId, ConversationId, LogIndex, ShardId, TimeMs, UserId};
use logstore::{BodyPlace, RecordKind};

pub(crate) use command::{put_membership, put_recall_body, read_membership, read_recall_body};
pub(crate) use import::{IMPORTED_HEAD_LEN, imported_at};
pub(crate) use state_row::{StateRow, put_outbox_page, put_place, put_recalled, put_trimmed};

use crate::command::Batch;
use crate::{Command, Error, Send};
use field::{Fields, Length, Sink};

/// The version this code writes.
const VERSION: u8 = 1;
/// Bytes before the first command.
const BATCH_HEAD_LEN: usize = 16;
/// Bytes before a command's fields.
const COMMAND_HEAD_LEN: usize = 8;
/// Bytes of a send before its body, its command head included.
pub(crate) const SEND_HEAD_LEN: usize = COMMAND_HEAD_LEN + 64;

/// Bytes that are not what they should be: what was expected, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Byte offset into the payload.
    pub offset: usize,
    /// What was expected there.
    pub what: &'static str,
}

impl Malformed {
    /// The error, with the entry's place added.
    pub fn at(self, shard: ShardId, index: LogIndex) -> Error {
        Error::Malformed { shard, index, offset: self.offset, what: self.what }
    }
}

/// Builds the payload of one entry after another, in a buffer that is used again.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    bytes: BytesMut,
    count: u32,
}

impl BatchBuilder {
    /// A buffer that one large command has grown beyond this is given back: entries of the usual size are smaller.
    const BUFFER_BYTES_MAX: usize = 256 * 1024;

    /// A builder with nothing in it.
    pub fn new() -> BatchBuilder {
        BatchBuilder::default()
    }

    /// Adds a command; a send's body is copied here, once. Returns the bytes of the entry so far.
    pub fn add(&mut self, command: &Command) -> usize {
        self.begin();
        put_command(&mut self.bytes, command);
        self.count += 1;
        self.bytes.len()
    }

    /// Bytes of the entry so far; 0 if nothing was added.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Commands added.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Stamps the entry and hands out its payload; the builder begins anew, in the same buffer.
    ///
    /// The payload is a copy of exactly its size: it stays in caches, where a slice of the buffer would hold all of it.
    pub fn finish(&mut self, time: TimeMs) -> Bytes {
        self.begin();
        self.bytes[0] = VERSION;
        self.bytes[4..12].copy_from_slice(&time.0.to_le_bytes());
        self.bytes[12..16].copy_from_slice(&self.count.to_le_bytes());
        let payload = Bytes::copy_from_slice(&self.bytes);
        self.count = 0;
        self.bytes.clear();
        if self.bytes.capacity() > Self::BUFFER_BYTES_MAX {
            self.bytes = BytesMut::new();
        }
        payload
    }

    /// Leaves room for the head before the first command.
    fn begin(&mut self) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&[0; BATCH_HEAD_LEN]);
        }
    }
}

/// How many bytes a command adds to an entry.
pub fn encoded_len(command: &Command) -> usize {
    match command {
        Command::Send(send) => SEND_HEAD_LEN + send.body.len(),
        other => {
            let mut length = Length::default();
            command::put_fields(&mut length, other);
            COMMAND_HEAD_LEN + length.0
        }
    }
}

impl Batch {
    /// Encodes at once what a [`BatchBuilder`] gathers.
    pub fn encode(&self) -> Bytes {
        let mut builder = BatchBuilder::new();
        for command in &self.commands {
            builder.add(command);
        }
        builder.finish(self.time)
    }

    /// Decodes an entry's payload; bodies of sends are slices of it.
    pub fn decode(payload: &Bytes) -> Result<Batch, Malformed> {
        let checked = check(payload)?;
        let time = checked.time;
        let commands = checked.map(|(_, view)| match view {
            View::Send(send) => Command::Send(send.to_owned(payload)),
            View::Other(command) => command,
        });
        Ok(Batch { time, commands: commands.collect() })
    }
}

/// Decodes the send command at `offset` of an entry's payload: how history finds a body again.
pub fn send_at(payload: &Bytes, offset: u32) -> Result<Send, Malformed> {
    let (head, _) = CommandHead::read(payload, offset as usize)?;
    match head.kind {
        command::SEND => Ok(SendView::read(payload, &head)?.to_owned(payload)),
        _ => Err(Malformed { offset: head.offset, what: "a send" }),
    }
}

/// Checks a whole payload before any of it is acted upon. Sends are only measured; other commands are decoded.
pub(crate) fn check(payload: &[u8]) -> Result<Checked<'_>, Malformed> {
    let mut fields = Fields::new(payload, 0);
    let [version, flags, r0, r1] = fields.array("a batch")?;
    if version != VERSION || flags != 0 || (r0, r1) != (0, 0) {
        return Err(Malformed { offset: 0, what: "version 1, no flags" });
    }
    let time = TimeMs(fields.u64()?);
    let count = fields.u32()?;
    let mut at = fields.at();
    let mut others = Vec::new();
    let mut send_count = 0;
    for _ in 0..count {
        let (head, end) = CommandHead::read(payload, at)?;
        match head.kind {
            command::SEND if head.len >= SEND_HEAD_LEN - COMMAND_HEAD_LEN => send_count += 1,
            command::SEND => return Err(Malformed { offset: at, what: "the 64 bytes that a send begins with" }),
            _ => others.push(command::read_fields(&payload[..end], &head)?),
        }
        at = end;
    }
    Fields::new(payload, at).finish()?;
    Ok(Checked { time, count, send_count, payload, at: BATCH_HEAD_LEN, others: others.into_iter() })
}

/// A payload that has been checked: gives its commands in order, each with its offset.
pub(crate) struct Checked<'a> {
    /// The proposer's clock.
    pub time: TimeMs,
    /// Commands not given yet.
    pub count: u32,
    /// How many of all commands are sends.
    pub send_count: usize,
    payload: &'a [u8],
    at: usize,
    others: std::vec::IntoIter<Command>,
}

impl<'a> Checked<'a> {
    /// The sends not given yet.
    pub fn sends(&self) -> impl Iterator<Item = SendView<'a>> {
        let (payload, mut at) = (self.payload, self.at);
        let commands = (0..self.count).map_while(move |_| {
            let (head, end) = CommandHead::read(payload, at).ok()?;
            at = end;
            Some(head)
        });
        let sends = commands.filter(|head| head.kind == command::SEND);
        sends.filter_map(move |head| SendView::read(payload, &head).ok())
    }
}

/// A command as apply sees it.
pub(crate) enum View<'a> {
    /// A send, in place.
    Send(SendView<'a>),
    /// Anything else, decoded.
    Other(Command),
}

impl<'a> Iterator for Checked<'a> {
    type Item = (u32, View<'a>);

    fn next(&mut self) -> Option<(u32, View<'a>)> {
        self.count = self.count.checked_sub(1)?;
        let (head, end) = CommandHead::read(self.payload, self.at).ok()?;
        self.at = end;
        let view = match head.kind {
            command::SEND => View::Send(SendView::read(self.payload, &head).ok()?),
            _ => View::Other(self.others.next()?),
        };
        Some((head.offset as u32, view))
    }
}

/// The 8 bytes before every command's fields.
pub(crate) struct CommandHead {
    kind: u8,
    sub: u8,
    len: usize,
    /// Where the command starts.
    offset: usize,
}

impl CommandHead {
    /// The head at `offset`, and where its command ends, which is inside `payload`.
    fn read(payload: &[u8], offset: usize) -> Result<(CommandHead, usize), Malformed> {
        let mut fields = Fields::new(payload, offset);
        let [kind, sub, r0, r1, l0, l1, l2, l3] = fields.array("a command")?;
        if (r0, r1) != (0, 0) || (sub != 0 && kind != command::SEND) {
            return Err(Malformed { offset, what: "reserved bytes of 0" });
        }
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        fields.take(len, "as many bytes as the command's length says")?;
        Ok((CommandHead { kind, sub, len, offset }, fields.at()))
    }
}

/// A send, read in place.
///
/// ```text
/// 0        1        2           4          8                24         32         40
/// +--------+--------+-----------+----------+----------------+----------+----------+-----
/// | kind 1 | record | reserved  | 64 + body| conversation   | sender   | origin   | ...
/// |        | kind   | 0         | length   | u128           |          |          |
/// +--------+--------+-----------+----------+----------------+----------+----------+-----
///      40                56           64              72
///      +-----------------+------------+---------------+--------
///  ... | client_msg_id   | body hash  | checked_upto  | body
///      | u128            |            |               |
///      +-----------------+------------+---------------+--------
/// ```
pub(crate) struct SendView<'a> {
    fields: &'a [u8; 64],
    kind: u8,
    body_offset: usize,
    body_len: usize,
}

impl<'a> SendView<'a> {
    fn read(payload: &'a [u8], head: &CommandHead) -> Result<SendView<'a>, Malformed> {
        let begin = head.offset + COMMAND_HEAD_LEN;
        let fields = payload.get(begin..begin + head.len).and_then(|fields| fields.first_chunk());
        let Some(fields) = fields else {
            return Err(Malformed { offset: begin, what: "the 64 bytes that a send begins with" });
        };
        let body_len = head.len - fields.len();
        Ok(SendView { fields, kind: head.sub, body_offset: begin + fields.len(), body_len })
    }

    fn u64<const AT: usize>(&self) -> u64 {
        u64::from_le_bytes(self.fields[AT..AT + 8].try_into().expect("8 bytes are 8 bytes"))
    }
    fn u128<const AT: usize>(&self) -> u128 {
        u128::from_le_bytes(self.fields[AT..AT + 16].try_into().expect("16 bytes are 16 bytes"))
    }

    pub fn kind(&self) -> RecordKind {
        RecordKind(self.kind)
    }
    pub fn conversation(&self) -> ConversationId {
        ConversationId(self.u128::<0>())
    }
    pub fn sender(&self) -> UserId {
        UserId(self.u64::<16>())
    }
    pub fn origin(&self) -> ConnectionId {
        ConnectionId(self.u64::<24>())
    }
    pub fn client_msg_id(&self) -> ClientMsgId {
        ClientMsgId(self.u128::<32>())
    }
    pub fn body_hash(&self) -> BodyHash {
        BodyHash(self.u64::<48>())
    }
    pub fn checked_upto(&self) -> u64 {
        self.u64::<56>()
    }
    pub fn body_len(&self) -> usize {
        self.body_len
    }

    /// Where the body is. Payloads are far below 4 GiB (a command's length has 32 bits, an entry is bounded above).
    pub fn body(&self) -> BodyPlace {
        BodyPlace::InEntry { offset: self.body_offset as u32, len: self.body_len as u32 }
    }

    fn to_owned(&self, payload: &Bytes) -> Send {
        Send {
            conversation: self.conversation(),
            sender: self.sender(),
            origin: self.origin(),
            client_msg_id: self.client_msg_id(),
            kind: self.kind(),
            body_hash: self.body_hash(),
            checked_upto: self.checked_upto(),
            body: payload.slice(self.body_offset..self.body_offset + self.body_len),
        }
    }
}

fn put_command(bytes: &mut BytesMut, command: &Command) {
    if let Command::Send(send) = command {
        return put_send(bytes, send);
    }
    let start = bytes.len();
    bytes.extend_from_slice(&[command::kind_of(command), 0, 0, 0, 0, 0, 0, 0]);
    command::put_fields(bytes, command);
    let len = u32::try_from(bytes.len() - start - COMMAND_HEAD_LEN).expect("commands are bounded far below 4 GiB");
    bytes[start + 4..start + COMMAND_HEAD_LEN].copy_from_slice(&len.to_le_bytes());
}

fn put_send(bytes: &mut BytesMut, send: &Send) {
    let len =
        u32::try_from(SEND_HEAD_LEN - COMMAND_HEAD_LEN + send.body.len()).expect("bodies are bounded far below 4 GiB");
    let mut head = [0; SEND_HEAD_LEN];
    head[0] = command::SEND;
    head[1] = send.kind.0;
    head[4..8].copy_from_slice(&len.to_le_bytes());
    head[8..24].copy_from_slice(&send.conversation.0.to_le_bytes());
    head[24..32].copy_from_slice(&send.sender.0.to_le_bytes());
    head[32..40].copy_from_slice(&send.origin.0.to_le_bytes());
    head[40..56].copy_from_slice(&send.client_msg_id.0.to_le_bytes());
    head[56..64].copy_from_slice(&send.body_hash.0.to_le_bytes());
    head[64..72].copy_from_slice(&send.checked_upto.to_le_bytes());
    bytes.reserve(SEND_HEAD_LEN + send.body.len());
    bytes.put(&head);
    bytes.put(&send.body);
}
