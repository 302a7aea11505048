//! The outline of a segment file: its name, its header, its sections.
//!
//! ```text
//! 0        64                                                                              len - 1024    len
//! +--------+---------------+--------------+------------------------------------------------+-----------+
//! | header | record blocks | delta blocks | block index, filters, directory, heads, ...    | footer    |
//! +--------+---------------+--------------+------------------------------------------------+-----------+
//!          |<-- verified when it is read ->|<- verified at open, and by pages when it is read >|
//! ```
//!
//! What always holds: sections follow each other without a gap, so that every byte of a file belongs to something that is
//! checked; integers are little-endian but for keys, which are big-endian so that they sort as bytes.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use crate::id::{ConversationId, LogIndex, SegmentOrdinal, ShardId};
use crate::{Error, Result};

/// The version this program writes, and the newest it reads.
pub(super) const VERSION: u32 = 1;
pub(super) const HEADER_BYTES: usize = 64;
pub(super) const FOOTER_BYTES: usize = 1024;
const MAGIC: &[u8; 8] = b"SKEINSEG";
/// CRC-32/ISO-HDLC, as in the journal.
const CHECKSUM_CRC32: u32 = 1;

/// Bucket and conversation, big-endian: what records, directory and heads are sorted by.
pub(super) type Key = [u8; KEY_BYTES];
pub(super) const KEY_BYTES: usize = 18;

pub(super) fn key(conversation: ConversationId) -> Key {
    let mut key = [0; KEY_BYTES];
    key[..2].copy_from_slice(&conversation.bucket().0.to_be_bytes());
    key[2..].copy_from_slice(&conversation.to_bytes());
    key
}

/// How often a segment's records have been rewritten: 0 is a seal, 1 and 2 are merges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(pub u8);

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.0)
    }
}

/// What part of which log a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The shard whose log it is.
    pub shard: ShardId,
    /// The first seal in it.
    pub first: SegmentOrdinal,
    /// The last seal in it; the same as the first at level 0.
    pub last: SegmentOrdinal,
    /// How often it was merged.
    pub level: Level,
    /// Entries above this one,
    pub after: LogIndex,
    /// up to and including this one, which is a Seal.
    pub upto: LogIndex,
}

/// BLAKE3 of a segment's canonical uncompressed content: equal on all replicas, whatever the bytes on their disks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub [u8; 32]);

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

/// Names a segment of a shard: which seals, at which level, with which content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentId {
    /// The first seal in it.
    pub first: SegmentOrdinal,
    /// The last seal in it.
    pub last: SegmentOrdinal,
    /// How often it was merged.
    pub level: Level,
    /// Its content.
    pub identity: Identity,
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{} {} {}", self.first, self.last, self.level, self.identity)
    }
}

/// A part of a sealed file, as errors and figures name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Section {
    /// The first 64 bytes.
    Header,
    /// Blocks of records.
    Records,
    /// Blocks of state rows.
    Delta,
    /// Where the blocks of records are.
    BlockIndex,
    /// Filters over the message ids of each block of records.
    IdFilter,
    /// A row a conversation.
    Directory,
    /// Where groups of rows of the directory begin.
    DirectoryRestarts,
    /// Where the blocks of state rows are.
    DeltaIndex,
    /// Where the entries of the delta index begin.
    DeltaRestarts,
    /// Filters over the keys of each block of state rows.
    DeltaFilter,
    /// A row for every conversation up to here.
    Heads,
    /// Where groups of rows of the heads table begin.
    HeadsRestarts,
    /// The last 1,024 bytes.
    Footer,
}

impl Section {
    /// The sections a footer lists, in the order of the file.
    pub(super) const LISTED: [Section; 11] = [
        Section::Records,
        Section::Delta,
        Section::BlockIndex,
        Section::IdFilter,
        Section::Directory,
        Section::DirectoryRestarts,
        Section::DeltaIndex,
        Section::DeltaRestarts,
        Section::DeltaFilter,
        Section::Heads,
        Section::HeadsRestarts,
    ];
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Section::Header => "header",
            Section::Records => "records",
            Section::Delta => "state delta",
            Section::BlockIndex => "block index",
            Section::IdFilter => "id filter",
            Section::Directory => "directory",
            Section::DirectoryRestarts => "directory restarts",
            Section::DeltaIndex => "delta index",
            Section::DeltaRestarts => "delta restarts",
            Section::DeltaFilter => "delta filter",
            Section::Heads => "heads",
            Section::HeadsRestarts => "heads restarts",
            Section::Footer => "footer",
        })
    }
}

impl Span {
    /// The header of a file of this span.
    ///
    /// ```text
    ///  0            8         12         16      18      19   24      32     40      48     56    60     64
    ///  +------------+---------+----------+-------+-------+----+-------+------+-------+------+-----+------+
    ///  | "SKEINSEG" | version | checksum | shard | level | 0  | first | last | after | upto | 0   | crc  |
    ///  | 8 B        | u32 = 1 | u32 = 1  | u16   | u8    | 5B | u64   | u64  | u64   | u64  | 4 B | u32  |
    ///  +------------+---------+----------+-------+-------+----+-------+------+-------+------+-----+------+
    ///  |<------------------------------------ crc covers ---------------------------------------->|
    /// ```
    pub(super) fn header(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&CHECKSUM_CRC32.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.shard.0.to_le_bytes());
        bytes[18] = self.level.0;
        for (place, number) in [self.first.0, self.last.0, self.after.0, self.upto.0].into_iter().enumerate() {
            bytes[24 + 8 * place..][..8].copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header back.
    pub(super) fn from_header(path: &str, bytes: &[u8; HEADER_BYTES]) -> Result<Span> {
        let not_ours = |what: &str| Error::NotOurs { path: path.to_owned(), what: what.to_owned() };
        if &bytes[..8] != MAGIC {
            return Err(not_ours("it does not begin as a segment does"));
        }
        let version = u32_at(bytes, 8);
        if version > VERSION {
            return Err(Error::NewerFormat { path: path.to_owned(), found: version, known: VERSION });
        }
        if crc32fast::hash(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(not_ours("its header does not verify (rot, or not a segment)"));
        }
        if version == 0 || u32_at(bytes, 12) != CHECKSUM_CRC32 {
            return Err(not_ours("its header states a version or checksum that does not exist"));
        }
        Ok(Span {
            shard: ShardId(u16::from_le_bytes([bytes[16], bytes[17]])),
            level: Level(bytes[18]),
            first: SegmentOrdinal(u64_at(bytes, 24)),
            last: SegmentOrdinal(u64_at(bytes, 32)),
            after: LogIndex(u64_at(bytes, 40)),
            upto: LogIndex(u64_at(bytes, 48)),
        })
    }

    /// What block CRCs are seeded with, so that a block of another segment never verifies in this one.
    pub(super) fn seed(&self) -> u64 {
        xxh3_64(&self.header())
    }

    /// Whether a seal is in it.
    pub fn contains(&self, ordinal: SegmentOrdinal) -> bool {
        (self.first..=self.last).contains(&ordinal)
    }
}

/// The directory of a shard's sealed files.
pub fn shard_dir(shard: ShardId) -> String {
    format!("segments/{:05}", shard.0)
}

/// A segment's file name: the seals in it, its level, and the beginning of its identity, so that a rewrite of the same
/// seals has another name.
pub fn file_name(span: &Span, identity: &Identity) -> String {
    let start: String = identity.0[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{:010}-{:010}.{}.{start}.segment", span.first.0, span.last.0, span.level)
}

/// What a file is called while it is made. Whatever ends like this is removed at start.
pub(crate) const UNFINISHED: &str = ".tmp";

/// How final names of segments end.
pub(crate) const FINISHED: &str = ".segment";

/// Where a segment is written before it gets its name.
pub(super) fn unfinished_path(span: &Span) -> String {
    format!("{}/{:010}-{:010}.{}{UNFINISHED}", shard_dir(span.shard), span.first.0, span.last.0, span.level)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span {
        shard: ShardId(3),
        first: SegmentOrdinal(17),
        last: SegmentOrdinal(32),
        level: Level(1),
        after: LogIndex(1000),
        upto: LogIndex(2000),
    };

    #[test]
    fn a_header_comes_back_and_every_flipped_bit_is_seen() {
        let header = SPAN.header();
        assert_eq!(Span::from_header("f", &header).unwrap(), SPAN);
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = header;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Span::from_header("f", &damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_its_number() {
        let mut header = SPAN.header();
        header[8] = 9;
        let error = Span::from_header("f", &header).unwrap_err();
        assert!(matches!(error, Error::NewerFormat { found: 9, known: VERSION, .. }), "{error}");
    }

    #[test]
    fn names_sort_as_the_seals_in_them_do() {
        let name = file_name(&SPAN, &Identity([0xAB; 32]));
        assert_eq!(name, "0000000017-0000000032.L1.abababababababab.segment");
        assert!(name < file_name(&Span { first: SegmentOrdinal(100), ..SPAN }, &Identity([0; 32])));
        assert!(unfinished_path(&SPAN).starts_with("segments/00003/"));
    }
}
