//! The last 1,024 bytes of a segment: what is in it, and where.
//!
//! ```text
//!  0            8         12         16         56         88         112        216        568     1020   1024
//!  +------------+---------+----------+----------+----------+----------+----------+----------+-------+------+
//!  | "SKEINEND" | version | sections | span     | identity | times    | counts   | sections | zeros | crc  |
//!  | 8 B        | u32 = 1 | u32 = 11 | 40 B     | 32 B     | 3 x u64  | 13 x u64 | 11 x 32 B|       | u32  |
//!  +------------+---------+----------+----------+----------+----------+----------+----------+-------+------+
//!  |<-------------------------------------- crc covers -------------------------------------------->|
//!
//!  span:     bytes 16 to 55 of the header
//!  times:    log time at the Seal, first and last time of an item (0 if there is none)
//!  section:  offset u64 | len u64 | count u64 | crc u32 | 0 u32       crc: of a section that is not blocks; 0 of blocks, which have their own
//! ```
//!
//! A section's CRC is seeded with the segment's seed and the section's number, 0 for records and on in the order of the file.
//!
//! What always holds: the sections fill the file between header and footer, in their order, without a gap.

use super::format::{FOOTER_BYTES, HEADER_BYTES, Identity, Section, Span, VERSION, u32_at, u64_at};
use crate::id::TimeMs;
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"SKEINEND";
const SECTIONS: usize = Section::LISTED.len();
const COUNTS: usize = 13;
const COUNTS_AT: usize = 112;
const SECTIONS_AT: usize = COUNTS_AT + COUNTS * 8;
const SECTION_BYTES: usize = 32;
const CRC_AT: usize = FOOTER_BYTES - 4;
const _: () = assert!(SECTIONS_AT == 216 && SECTIONS_AT + SECTIONS * SECTION_BYTES <= CRC_AT);

/// How much of what a segment holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records, removed ones included.
    pub records: u64,
    /// Records whose body was removed.
    pub removed: u64,
    /// Records of which nothing is left.
    pub trimmed: u64,
    /// Conversations that a record or a trimmed range is of.
    pub conversations: u64,
    /// Bytes of bodies.
    pub body_bytes: u64,
    /// Blocks of records.
    pub record_blocks: u64,
    /// Bytes of these blocks before compression.
    pub record_raw_bytes: u64,
    /// Rows of the state delta, tombstones included.
    pub delta_rows: u64,
    /// Rows that say a key is gone.
    pub tombstones: u64,
    /// Blocks of the state delta.
    pub delta_blocks: u64,
    /// Bytes of these blocks before compression.
    pub delta_raw_bytes: u64,
    /// Whether there is a heads table, and how many rows it has.
    pub heads: Option<u64>,
}

/// A section of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) section: Section,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) count: u64,
    pub(super) crc: u32,
}

/// What the end of a segment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) span: Span,
    pub(super) identity: Identity,
    pub(super) log_time: TimeMs,
    pub(super) first_time: TimeMs,
    pub(super) last_time: TimeMs,
    pub(super) counts: Counts,
    /// In the order of [`Section::LISTED`].
    pub(super) sections: [Placed; SECTIONS],
}

impl Counts {
    /// How many numbers they are on disk.
    pub(crate) const NUMBERS: usize = COUNTS;

    pub(crate) fn to_numbers(self) -> [u64; COUNTS] {
        [
            self.records,
            self.removed,
            self.trimmed,
            self.conversations,
            self.body_bytes,
            self.record_blocks,
            self.record_raw_bytes,
            self.delta_rows,
            self.tombstones,
            self.delta_blocks,
            self.delta_raw_bytes,
            u64::from(self.heads.is_some()),
            self.heads.unwrap_or(0),
        ]
    }

    pub(crate) fn from_numbers(numbers: [u64; COUNTS]) -> Counts {
        let [
            records,
            removed,
            trimmed,
            conversations,
            body_bytes,
            record_blocks,
            record_raw_bytes,
            delta_rows,
            tombstones,
            delta_blocks,
            delta_raw_bytes,
            has_heads,
            heads,
        ] = numbers;
        let heads = (has_heads != 0).then_some(heads);
        Counts {
            records,
            removed,
            trimmed,
            conversations,
            body_bytes,
            record_blocks,
            record_raw_bytes,
            delta_rows,
            tombstones,
            delta_blocks,
            delta_raw_bytes,
            heads,
        }
    }
}

impl Footer {
    pub(super) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(SECTIONS as u32).to_le_bytes());
        bytes[16..56].copy_from_slice(&self.span.header()[16..56]);
        bytes[56..88].copy_from_slice(&self.identity.0);
        let times = [self.log_time.0, self.first_time.0, self.last_time.0];
        for (place, number) in times.into_iter().chain(self.counts.to_numbers()).enumerate() {
            bytes[88 + place * 8..][..8].copy_from_slice(&number.to_le_bytes());
        }
        for (place, section) in self.sections.iter().enumerate() {
            let bytes = &mut bytes[SECTIONS_AT + place * SECTION_BYTES..][..SECTION_BYTES];
            bytes[..8].copy_from_slice(&section.offset.to_le_bytes());
            bytes[8..16].copy_from_slice(&section.len.to_le_bytes());
            bytes[16..24].copy_from_slice(&section.count.to_le_bytes());
            bytes[24..28].copy_from_slice(&section.crc.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the footer of a file of `file_bytes` bytes whose header states `span`.
    pub(super) fn decode(path: &str, span: Span, file_bytes: u64, bytes: &[u8; FOOTER_BYTES]) -> Result<Footer> {
        let rot = |what: &str| rot(path, span, file_bytes - FOOTER_BYTES as u64, Section::Footer, what);
        if &bytes[..8] != MAGIC || crc32fast::hash(&bytes[..CRC_AT]) != u32_at(bytes, CRC_AT) {
            return Err(rot("the footer does not verify (damaged, or the file is cut)"));
        }
        if bytes[16..56] != span.header()[16..56] || u32_at(bytes, 8) != VERSION || u32_at(bytes, 12) != SECTIONS as u32
        {
            return Err(rot("header and footer disagree"));
        }
        let mut identity = Identity([0; 32]);
        identity.0.copy_from_slice(&bytes[56..88]);
        let footer = Footer {
            span,
            identity,
            log_time: TimeMs(u64_at(bytes, 88)),
            first_time: TimeMs(u64_at(bytes, 96)),
            last_time: TimeMs(u64_at(bytes, 104)),
            counts: Counts::from_numbers(std::array::from_fn(|place| u64_at(bytes, COUNTS_AT + place * 8))),
            sections: std::array::from_fn(|place| section_at(bytes, place)),
        };
        if !footer.fills(file_bytes) {
            return Err(rot("its sections do not fill the file"));
        }
        Ok(footer)
    }

    /// A section.
    pub(super) fn section(&self, section: Section) -> Placed {
        let empty = Placed { section, offset: 0, len: 0, count: 0, crc: 0 };
        self.sections.iter().copied().find(|placed| placed.section == section).unwrap_or(empty)
    }

    fn fills(&self, file_bytes: u64) -> bool {
        let mut end = HEADER_BYTES as u64;
        for section in &self.sections {
            match end.checked_add(section.len) {
                Some(next) if section.offset == end => end = next,
                _ => return false,
            }
        }
        end.checked_add(FOOTER_BYTES as u64) == Some(file_bytes)
    }
}

fn section_at(bytes: &[u8; FOOTER_BYTES], place: usize) -> Placed {
    let at = SECTIONS_AT + place * SECTION_BYTES;
    Placed {
        section: Section::LISTED[place],
        offset: u64_at(bytes, at),
        len: u64_at(bytes, at + 8),
        count: u64_at(bytes, at + 16),
        crc: u32_at(bytes, at + 24),
    }
}

/// Rot somewhere in a segment.
pub(super) fn rot(path: &str, span: Span, offset: u64, section: Section, what: &str) -> Error {
    Error::SegmentRot {
        path: path.to_owned(),
        offset,
        section,
        what: what.to_owned(),
        shard: span.shard,
        after: span.after,
        upto: span.upto,
    }
}
