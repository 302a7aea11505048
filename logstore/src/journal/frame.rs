//! Frames: what blocks are made of, one for each entry, vote, mark, truncation and purge.
//!
//! What always holds: the CRC of a frame covers everything in it but itself, depends on nothing outside of it, and so
//! follows an entry wherever its bytes go.
//!
//! ```text
//!  0      4      8    9     10      12      16        24       32        40
//!  +------+------+----+-----+-------+-------+---------+--------+---------+---------+--------------+
//!  | crc  | len  |kind| tag | shard | flags |  index  |  term  | leader  | payload | 0 to 8 bytes |
//!  | u32  | u32  | u8 | u8  | u16   | u32   |  u64    |  u64   | u64     | len B   | alignment    |
//!  +------+------+----+-----+-------+-------+---------+--------+---------+---------+--------------+
//!         |<----------------------------- crc32 covers ------------------------->|
//! ```
//!
//! Flag 1: a copy of an entry, which was live when the copy was written; all other flags are 0.

use crate::id::{LogId, LogIndex, NodeId, ShardId, Term};

use super::EntryKind;

/// Bytes before a frame's payload.
pub(crate) const FRAME_HEAD: usize = 40;
/// Frames begin at multiples of this.
const FRAME_ALIGN: usize = 8;
const FLAG_COPY: u32 = 1;

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// An entry; tag: its [`EntryKind`].
    Entry,
    /// A vote; the payload is the vote.
    Vote,
    /// The last committed entry; tag 0: none.
    Committed,
    /// Entries after this one are forgotten; tag 0: all are.
    Truncate,
    /// Entries up to and including this one are forgotten.
    Purge,
    /// In a checkpoint: the first entry of a log that was never purged.
    First,
}

/// Everything in a frame but its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub kind: FrameKind,
    pub tag: u8,
    pub shard: ShardId,
    pub id: LogId,
    /// Bytes of payload.
    pub len: u32,
    /// Whether it is a copy of an entry that was live when this was written.
    pub copy: bool,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadFrame {
    /// It ends before it should.
    Short,
    /// Its CRC does not match.
    Crc,
    /// It is of a kind that does not exist.
    Kind,
    /// It has flags that do not exist.
    Flags,
}

impl FrameHead {
    pub fn entry(shard: ShardId, id: LogId, kind: EntryKind, len: usize) -> FrameHead {
        FrameHead { kind: FrameKind::Entry, tag: entry_tag(kind), shard, id, len: len as u32, copy: false }
    }

    /// The copy of an entry.
    pub fn copy(shard: ShardId, id: LogId, kind: EntryKind, len: usize) -> FrameHead {
        FrameHead { copy: true, ..FrameHead::entry(shard, id, kind, len) }
    }

    pub fn vote(shard: ShardId, len: usize) -> FrameHead {
        FrameHead { kind: FrameKind::Vote, tag: 0, shard, id: LogId::default(), len: len as u32, copy: false }
    }

    /// A mark without payload: committed, truncate, purge or first.
    pub fn mark(kind: FrameKind, shard: ShardId, id: Option<LogId>) -> FrameHead {
        FrameHead { kind, tag: u8::from(id.is_some()), shard, id: id.unwrap_or_default(), len: 0, copy: false }
    }

    /// The id of a mark.
    pub fn marked(&self) -> Option<LogId> {
        (self.tag != 0).then_some(self.id)
    }

    /// What an entry frame holds.
    pub fn entry_kind(&self) -> Option<EntryKind> {
        match self.tag {
            0 => Some(EntryKind::Blank),
            1 => Some(EntryKind::Normal),
            2 => Some(EntryKind::Membership),
            _ => None,
        }
    }

    /// Reads a head; the CRC is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<FrameHead, BadFrame> {
        let head: &[u8; FRAME_HEAD] = bytes.first_chunk().ok_or(BadFrame::Short)?;
        let frame = FrameHead {
            kind: kind_of(head[8]).ok_or(BadFrame::Kind)?,
            tag: head[9],
            shard: ShardId(u16::from_le_bytes([head[10], head[11]])),
            id: LogId {
                index: LogIndex(u64_at(head, 16)),
                term: Term(u64_at(head, 24)),
                leader: NodeId(u64_at(head, 32)),
            },
            len: u32_at(head, 4),
            copy: u32_at(head, 12) & FLAG_COPY != 0,
        };
        let is_entry = frame.kind == FrameKind::Entry;
        if is_entry && frame.entry_kind().is_none() {
            return Err(BadFrame::Kind);
        }
        if u32_at(head, 12) & !FLAG_COPY != 0 || (frame.copy && !is_entry) {
            return Err(BadFrame::Flags);
        }
        Ok(frame)
    }

    /// Reads a frame whose CRC must match; gives head and payload.
    pub fn decode_verified(bytes: &[u8]) -> Result<(FrameHead, &[u8]), BadFrame> {
        let head: &[u8; FRAME_HEAD] = bytes.first_chunk().ok_or(BadFrame::Short)?;
        let end = FRAME_HEAD + u32_at(head, 4) as usize;
        let frame = bytes.get(..end).ok_or(BadFrame::Short)?;
        if crc32fast::hash(&frame[4..]) != u32_at(head, 0) {
            return Err(BadFrame::Crc);
        }
        Ok((FrameHead::decode(bytes)?, &frame[FRAME_HEAD..]))
    }
}

/// Adds a frame, aligned, to `out`.
pub(crate) fn encode(out: &mut Vec<u8>, head: &FrameHead, payload: &[u8]) {
    debug_assert_eq!(head.len as usize, payload.len());
    let start = out.len();
    let mut bytes = [0; FRAME_HEAD];
    bytes[4..8].copy_from_slice(&head.len.to_le_bytes());
    bytes[8] = kind_byte(head.kind);
    bytes[9] = head.tag;
    bytes[10..12].copy_from_slice(&head.shard.0.to_le_bytes());
    bytes[12..16].copy_from_slice(&(u32::from(head.copy) * FLAG_COPY).to_le_bytes());
    bytes[16..24].copy_from_slice(&head.id.index.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&head.id.term.0.to_le_bytes());
    bytes[32..40].copy_from_slice(&head.id.leader.0.to_le_bytes());
    out.extend_from_slice(&bytes);
    out.extend_from_slice(payload);
    let crc = crc32fast::hash(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    out.resize(start + frame_len(payload.len()), 0);
}

/// Bytes a frame with such a payload takes, alignment included.
pub(crate) fn frame_len(payload: usize) -> usize {
    (FRAME_HEAD + payload).next_multiple_of(FRAME_ALIGN)
}

/// How many bytes each of these frames takes; they are our own and whole.
pub(crate) fn lens(mut frames: &[u8]) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let len = frame_len(u32_at(frames.get(..FRAME_HEAD)?, 4) as usize);
        frames = frames.get(len..)?;
        Some(len)
    })
}

/// The frames of a block's body: each with the offset where it begins. Stops after an error.
pub(crate) struct Frames<'a> {
    body: &'a [u8],
    offset: usize,
}

impl<'a> Frames<'a> {
    pub fn new(body: &'a [u8]) -> Frames<'a> {
        Frames { body, offset: 0 }
    }

    fn step(&mut self) -> Result<(usize, FrameHead, &'a [u8]), BadFrame> {
        let offset = self.offset;
        let rest = &self.body[offset..];
        let head = FrameHead::decode(rest)?;
        let payload = rest.get(FRAME_HEAD..FRAME_HEAD + head.len as usize).ok_or(BadFrame::Short)?;
        self.offset = (offset + frame_len(payload.len())).min(self.body.len());
        Ok((offset, head, payload))
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<(usize, FrameHead, &'a [u8]), BadFrame>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset >= self.body.len() {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.offset = self.body.len();
        }
        Some(step)
    }
}

fn entry_tag(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::Blank => 0,
        EntryKind::Normal => 1,
        EntryKind::Membership => 2,
    }
}

fn kind_byte(kind: FrameKind) -> u8 {
    match kind {
        FrameKind::Entry => 1,
        FrameKind::Vote => 2,
        FrameKind::Committed => 3,
        FrameKind::Truncate => 4,
        FrameKind::Purge => 5,
        FrameKind::First => 6,
    }
}

/// 0 is no kind: zeros are never a frame.
fn kind_of(byte: u8) -> Option<FrameKind> {
    match byte {
        1 => Some(FrameKind::Entry),
        2 => Some(FrameKind::Vote),
        3 => Some(FrameKind::Committed),
        4 => Some(FrameKind::Truncate),
        5 => Some(FrameKind::Purge),
        6 => Some(FrameKind::First),
        _ => None,
    }
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(*bytes[offset..].first_chunk().expect("the offset is a constant inside a header"))
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(*bytes[offset..].first_chunk().expect("the offset is a constant inside a header"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_head() -> impl Strategy<Value = (FrameHead, Vec<u8>)> {
        let kinds = prop_oneof![
            Just(FrameKind::Entry),
            Just(FrameKind::Vote),
            Just(FrameKind::Committed),
            Just(FrameKind::Truncate),
            Just(FrameKind::Purge),
            Just(FrameKind::First)
        ];
        let id = (any::<u64>(), any::<u64>(), any::<u64>());
        let payload = proptest::collection::vec(any::<u8>(), 0..200);
        (kinds, 0..3_u8, any::<bool>(), any::<u16>(), id, payload).prop_map(
            |(kind, tag, copy, shard, (index, term, leader), payload)| {
                let id = LogId { index: LogIndex(index), term: Term(term), leader: NodeId(leader) };
                let copy = copy && kind == FrameKind::Entry;
                (FrameHead { kind, tag, shard: ShardId(shard), id, len: payload.len() as u32, copy }, payload)
            },
        )
    }

    proptest! {
        #[test]
        fn frames_come_back_as_they_were_written(frames in proptest::collection::vec(any_head(), 1..8)) {
            let mut body = Vec::new();
            for (head, payload) in &frames {
                encode(&mut body, head, payload);
            }
            let mut read = Vec::new();
            for frame in Frames::new(&body) {
                let (offset, head, payload) = frame.unwrap();
                prop_assert_eq!(FrameHead::decode_verified(&body[offset..]).unwrap(), (head, payload));
                read.push((head, payload.to_vec()));
            }
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn no_flipped_bit_passes((head, payload) in any_head(), bit in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            encode(&mut bytes, &head, &payload);
            let bit = bit.index((FRAME_HEAD + payload.len()) * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(FrameHead::decode_verified(&bytes).is_err());
        }

        #[test]
        fn flags_that_do_not_exist_are_refused((head, payload) in any_head(), flag in 1..32_usize) {
            let mut bytes = Vec::new();
            encode(&mut bytes, &head, &payload);
            bytes[12 + flag / 8] |= 1_u8 << (flag % 8);
            prop_assert_eq!(FrameHead::decode(&bytes), Err(BadFrame::Flags));
        }

        #[test]
        fn garbage_is_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(FrameHead::decode_verified(&bytes).is_err());
            prop_assert!(Frames::new(&bytes).count() <= bytes.len() / FRAME_HEAD + 1);
        }
    }
}
