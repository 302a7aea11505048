//! The frame: a fixed header that is parsed without protobuf, and a body that is not looked at here.
//!
//! ```text
//!  0               4    5      6           8               12
//!  +---------------+----+------+-----------+---------------+-----------
//!  | length u32 LE | v  | flags| operation | request id    | body ...
//!  +---------------+----+------+-----------+---------------+-----------
//!    bytes after     u8   u8     u16 LE      u32 LE, 0 in
//!    this field                              pushes
//! ```
//!
//! What always holds: a length is checked before anything is allocated for it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes of the header, length field included.
pub const HEADER_BYTES: usize = 12;
/// The protocol version in every header.
pub const VERSION: u8 = 1;
/// Largest frame a server accepts, header included: what messaging servers commonly allow a stanza.
pub const CLIENT_FRAME_BYTES_MAX: usize = 64 << 10;
/// Largest frame a client accepts, header included: a page of history or a batch of deliveries.
pub const SERVER_FRAME_BYTES_MAX: usize = 1 << 20;

/// Flag: this answers the request with the same id.
pub const FLAG_RESPONSE: u8 = 1;
/// Flag: the body is an `Error`.
pub const FLAG_ERROR: u8 = 2;
/// Flag: the server speaks unasked.
pub const FLAG_PUSH: u8 = 4;

/// A header without its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Protocol version.
    pub version: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// See [`super::operation::Operation`].
    pub operation: u16,
    /// Chosen by the client; 0 in pushes.
    pub request_id: u32,
}

/// A whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// Its body.
    pub body: Bytes,
}

/// Why bytes are not a frame; the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is below the header's own rest.
    #[error("frame length {length} is shorter than a header")]
    TooShort {
        /// What the length field says.
        length: u32,
    },
    /// The length field is above the limit.
    #[error("frame of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// What the length field says.
        length: u32,
        /// Largest allowed, length field excluded.
        limit: u32,
    },
    /// Not version 1.
    #[error("protocol version {found}; this side speaks {known}")]
    Version {
        /// In the header.
        found: u8,
        /// Ours.
        known: u8,
    },
}

/// Takes the next whole frame off `buffer`; `Ok(None)` when more bytes are needed.
pub fn decode(buffer: &mut BytesMut, frame_bytes_max: usize) -> Result<Option<Frame>, FrameError> {
    let Some(length) = peek_length(buffer, frame_bytes_max)? else { return Ok(None) };
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let mut bytes = buffer.split_to(4 + length).freeze();
    bytes.advance(4);
    let header = Header {
        version: bytes.get_u8(),
        flags: bytes.get_u8(),
        operation: bytes.get_u16_le(),
        request_id: bytes.get_u32_le(),
    };
    Ok(Some(Frame { header, body: bytes }))
}

/// The checked length of the frame at the head of `buffer`, once its version byte is there too.
fn peek_length(buffer: &[u8], frame_bytes_max: usize) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<5>() else { return Ok(None) };
    let length = u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]);
    let limit = (frame_bytes_max - 4) as u32;
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    if (length as usize) < HEADER_BYTES - 4 {
        return Err(FrameError::TooShort { length });
    }
    if prefix[4] != VERSION {
        return Err(FrameError::Version { found: prefix[4], known: VERSION });
    }
    Ok(Some(length as usize))
}

/// Appends a header whose length is not known yet; returns where it begins, for [`finish`].
pub fn begin(out: &mut BytesMut, flags: u8, operation: u16, request_id: u32) -> usize {
    let start = out.len();
    let operation = operation.to_le_bytes();
    let id = request_id.to_le_bytes();
    out.put_slice(&[0, 0, 0, 0, VERSION, flags, operation[0], operation[1], id[0], id[1], id[2], id[3]]);
    start
}

/// Patches the length of the frame that [`begin`] put at `start` and that ends where `out` ends.
pub fn finish(out: &mut BytesMut, start: usize) {
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Appends a frame whose body `write` puts into the buffer.
pub fn encode_with(out: &mut BytesMut, flags: u8, operation: u16, request_id: u32, write: impl FnOnce(&mut BytesMut)) {
    let start = begin(out, flags, operation, request_id);
    write(out);
    finish(out, start);
}

/// Appends a frame with a protobuf body.
pub fn encode(out: &mut BytesMut, flags: u8, operation: u16, request_id: u32, body: &impl prost::Message) {
    encode_with(out, flags, operation, request_id, |out| {
        // A BytesMut grows: encoding into it cannot run out of room.
        body.encode_raw(out);
    });
}
