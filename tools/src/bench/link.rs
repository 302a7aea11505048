//! A connection that never blocks, and frames written where they leave from.
//!
//! What always holds: a frame's length is checked before memory is taken for it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::Duration;

use gateway::wire::frame::{HEADER_BYTES, Header, SERVER_FRAME_BYTES_MAX, VERSION};
use gateway::wire::operation::Operation;

use super::wire::{Id, Malformed};

/// A connection: bytes in, bytes out, frames between.
pub struct Link {
    stream: TcpStream,
    /// Frames received.
    pub inbox: Inbox,
    /// Frames to go.
    pub outbox: Outbox,
}

impl Link {
    /// Connects, waiting at most `timeout`.
    pub fn connect(addr: SocketAddr, timeout: Duration) -> io::Result<Link> {
        let stream = TcpStream::connect_timeout(&addr, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Link { stream, inbox: Inbox::default(), outbox: Outbox::default() })
    }

    /// For registration with a poller.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads once; 0 when nothing was there. The peer's end is an error.
    pub fn receive(&mut self) -> io::Result<usize> {
        self.inbox.receive(&mut self.stream)
    }

    /// Writes what the socket takes; `false` when some is left.
    pub fn flush(&mut self) -> io::Result<bool> {
        self.outbox.flush(&mut self.stream)
    }
}

/// Bytes received and not yet looked at.
#[derive(Default)]
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// Room an inbox begins with: most reads of a quiet connection fit.
const INBOX_BYTES: usize = 8 << 10;
/// An inbox that reads fill grows up to this (and to the largest frame).
const INBOX_BYTES_BUSY: usize = 256 << 10;

impl Inbox {
    fn receive(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        self.make_room();
        match stream.read(&mut self.buffer[self.end..]) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
            Ok(bytes) => {
                self.end += bytes;
                Ok(bytes)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Moves what is left to the front; grows when the last read filled everything or a frame is larger.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let wanted = match self.frame_length() {
            Some(length) if length > self.buffer.len() => length.min(SERVER_FRAME_BYTES_MAX),
            _ if self.end == self.buffer.len() => (self.buffer.len() * 4).clamp(INBOX_BYTES, SERVER_FRAME_BYTES_MAX),
            _ => return,
        };
        self.buffer.resize(wanted, 0);
    }

    /// Gives the buffer a size that suits a busy connection at once.
    pub fn expect_much(&mut self) {
        if self.buffer.len() < INBOX_BYTES_BUSY {
            self.buffer.resize(INBOX_BYTES_BUSY, 0);
        }
    }

    fn frame_length(&self) -> Option<usize> {
        let prefix = self.buffer[self.start..self.end].first_chunk::<4>()?;
        Some(u32::from_le_bytes(*prefix) as usize + 4)
    }

    /// The next whole frame: its header and where its body lies (see [`Inbox::body`]).
    pub fn next_frame(&mut self) -> Result<Option<(Header, Range<usize>)>, Malformed> {
        let Some(length) = self.frame_length() else { return Ok(None) };
        if !(HEADER_BYTES..=SERVER_FRAME_BYTES_MAX).contains(&length) {
            return Err(Malformed("a frame length out of bounds"));
        }
        if self.end - self.start < length {
            return Ok(None);
        }
        let at = self.start;
        let head: &[u8; HEADER_BYTES] = self.buffer[at..].first_chunk().ok_or(Malformed("a short header"))?;
        if head[4] != VERSION {
            return Err(Malformed("another protocol version"));
        }
        let header = Header {
            version: head[4],
            flags: head[5],
            operation: u16::from_le_bytes([head[6], head[7]]),
            request_id: u32::from_le_bytes([head[8], head[9], head[10], head[11]]),
        };
        self.start += length;
        Ok(Some((header, at + HEADER_BYTES..at + length)))
    }

    /// The body at a place [`Inbox::next_frame`] gave; valid until the next read.
    pub fn body(&self, at: Range<usize>) -> &[u8] {
        &self.buffer[at]
    }
}

/// Bytes to go.
#[derive(Default)]
pub struct Outbox {
    buffer: Vec<u8>,
    written: usize,
}

impl Outbox {
    fn flush(&mut self, stream: &mut impl Write) -> io::Result<bool> {
        while self.written < self.buffer.len() {
            match stream.write(&self.buffer[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.buffer.clear();
        self.written = 0;
        Ok(true)
    }

    /// Bytes not yet written to the socket.
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len() - self.written
    }

    /// Appends a frame with a protobuf body.
    pub fn put(&mut self, operation: Operation, request_id: u32, body: &impl prost::Message) {
        let start = self.begin(operation, request_id);
        body.encode_raw(&mut self.buffer);
        self.end(start);
    }

    /// Begins a send frame; add messages, then [`SendFrame::finish`].
    pub fn begin_send(&mut self, request_id: u32, epoch: u32) -> SendFrame<'_> {
        let start = self.begin(Operation::Send, request_id);
        if epoch != 0 {
            self.buffer.push(SEND_EPOCH);
            put_varint(&mut self.buffer, epoch.into());
        }
        SendFrame { outbox: self, start }
    }

    fn begin(&mut self, operation: Operation, request_id: u32) -> usize {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0, 0, 0, 0, VERSION, 0]);
        self.buffer.extend_from_slice(&operation.number().to_le_bytes());
        self.buffer.extend_from_slice(&request_id.to_le_bytes());
        start
    }

    fn end(&mut self, start: usize) {
        let length = (self.buffer.len() - start - 4) as u32;
        self.buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
}

// Protobuf tags (field number << 3 | wire type) of `Send` and `Outgoing`.
const SEND_EPOCH: u8 = 1 << 3;
const SEND_MESSAGES: u8 = 2 << 3 | 2;
const OUTGOING_CONVERSATION: u8 = 1 << 3 | 2;
const OUTGOING_CLIENT_MSG_ID: u8 = 2 << 3 | 2;
const OUTGOING_KIND: u8 = 3 << 3;
const OUTGOING_CONTENT: u8 = 4 << 3 | 2;
/// `Outgoing.kind` of text.
pub const KIND_TEXT: u8 = 1;
/// Two ids with tag and length, and the kind.
const OUTGOING_FIXED_BYTES: usize = 18 + 18 + 2;

/// Most bytes a message adds to a send frame.
pub fn outgoing_bytes_max(content: usize) -> usize {
    // Its own tag and length (a length below 2 MiB takes 3 bytes), the fixed part, content's tag and length.
    4 + OUTGOING_FIXED_BYTES + 4 + content
}

/// A send frame being written.
pub struct SendFrame<'a> {
    outbox: &'a mut Outbox,
    start: usize,
}

impl SendFrame<'_> {
    /// Appends one text message.
    pub fn push(&mut self, conversation: &Id, client_msg_id: &Id, text: &[u8]) {
        let out = &mut self.outbox.buffer;
        let content_bytes = if text.is_empty() { 0 } else { 1 + varint_bytes(text.len() as u64) + text.len() };
        out.push(SEND_MESSAGES);
        put_varint(out, (OUTGOING_FIXED_BYTES + content_bytes) as u64);
        out.extend_from_slice(&[OUTGOING_CONVERSATION, 16]);
        out.extend_from_slice(conversation);
        out.extend_from_slice(&[OUTGOING_CLIENT_MSG_ID, 16]);
        out.extend_from_slice(client_msg_id);
        out.extend_from_slice(&[OUTGOING_KIND, KIND_TEXT]);
        if !text.is_empty() {
            out.push(OUTGOING_CONTENT);
            put_varint(out, text.len() as u64);
            out.extend_from_slice(text);
        }
    }

    /// Bytes of the frame so far.
    pub fn bytes(&self) -> usize {
        self.outbox.buffer.len() - self.start
    }

    /// Writes the length.
    pub fn finish(self) {
        self.outbox.end(self.start);
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gateway::wire::{frame, proto};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn outgoing(id: u8, text: &str) -> proto::Outgoing {
        proto::Outgoing {
            conversation: Bytes::copy_from_slice(&[id; 16]),
            client_msg_id: Bytes::copy_from_slice(&[id ^ 0xff; 16]),
            kind: 1,
            content: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    proptest! {
        #[test]
        fn a_send_frame_is_what_the_schema_says(epoch in 0u32..400, texts in prop::collection::vec(".{0,300}", 0..20)) {
            let mut outbox = Outbox::default();
            let mut frame = outbox.begin_send(77, epoch);
            let messages: Vec<_> = texts.iter().enumerate().map(|(i, text)| outgoing(i as u8, text)).collect();
            let mut bytes_max = frame.bytes();
            for (message, text) in messages.iter().zip(&texts) {
                let (conversation, id) = (message.conversation[..].try_into().unwrap(), message.client_msg_id[..].try_into().unwrap());
                frame.push(&conversation, &id, text.as_bytes());
                bytes_max += outgoing_bytes_max(text.len());
            }
            prop_assert!(frame.bytes() <= bytes_max);
            frame.finish();
            let mut bytes = bytes::BytesMut::from(&outbox.buffer[..]);
            let found = frame::decode(&mut bytes, 1 << 20).unwrap().unwrap();
            prop_assert!(bytes.is_empty());
            prop_assert_eq!(found.header, Header { version: 1, flags: 0, operation: 20, request_id: 77 });
            prop_assert_eq!(proto::Send::decode(found.body).unwrap(), proto::Send { epoch, messages, want_accepted: false });
        }

        #[test]
        fn any_bytes_are_a_frame_or_malformed(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut inbox = Inbox { end: bytes.len(), buffer: bytes, start: 0 };
            if let Ok(Some((_, body))) = inbox.next_frame() {
                let _ = inbox.body(body);
            }
        }
    }

    #[test]
    fn frames_arrive_whole_however_they_are_cut() {
        let mut outbox = Outbox::default();
        outbox.put(Operation::Ping, 1, &proto::Ping { echo: 5 });
        outbox.put(Operation::Ping, 2, &proto::Ping { echo: 0 });
        let bytes = outbox.buffer;
        for cut in 1..bytes.len() {
            let mut inbox = Inbox::default();
            let mut ids = Vec::new();
            for mut part in [&bytes[..cut], &bytes[cut..]] {
                inbox.receive(&mut part).unwrap();
                while let Some((header, _)) = inbox.next_frame().unwrap() {
                    ids.push(header.request_id);
                }
            }
            assert_eq!(ids, [1, 2]);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_memory_is_taken() {
        let mut inbox = Inbox::default();
        inbox.receive(&mut &[0xff, 0xff, 0xff, 0x7f, 1][..]).unwrap();
        assert!(inbox.next_frame().is_err());
        inbox.make_room();
        assert!(inbox.buffer.len() <= SERVER_FRAME_BYTES_MAX);
    }
}
