//! Journal files: their names and their headers.
//!
//! What always holds: a file has its final name only once its header is synced; until then it ends in
//! `.preparing` and nothing in it counts. A number is never used twice, a recycled file gets a new one.
//!
//! ```text
//!  0            8         12         16     24       28        32           40    44        52    56      4096
//!  +------------+---------+----------+------+--------+---------+------------+-----+---------+-----+-------+----
//!  | "SKEINJNL" | version | checksum | salt | number | remains | file bytes | crc | journal | crc | zeros | checkpoint ...
//!  | 8 B        | u32     | u32      | u64  | u32    | u32     | u64        | u32 | u64     | u32 |       |
//!  +------------+---------+----------+------+--------+---------+------------+-----+---------+-----+-------+----
//! ```
//!
//! `remains` is the lowest number of the file's former lives whose bytes may still lie in it; 0: it was zeros when it was made.
//! `journal` is the same in all files of a journal, and no other's.
//! The first `crc` covers bytes 0 to 40 (these 44 bytes keep their layout in every version), the second bytes 44 to 52. `checksum` 1 is CRC-32/ISO-HDLC
//! (IEEE 802.3, polynomial 0x04C11DB7, reflected), used for headers, blocks and frames.

use crate::{Error, Result};

use super::frame::{u32_at, u64_at};
use super::position::ALIGN;

/// The folder of the journal in the data directory.
pub(crate) const DIRECTORY: &str = "journal";
/// Bytes before the first block.
pub(crate) const FILE_HEAD: u64 = ALIGN;
const MAGIC: [u8; 8] = *b"SKEINJNL";
const VERSION: u32 = 1;
const CHECKSUM_CRC32_IEEE: u32 = 1;
const CRC_AT: usize = 40;
const JOURNAL_AT: usize = 44;
const JOURNAL_CRC_AT: usize = 52;
const HEAD_BYTES: usize = 56;

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHead {
    /// Of this life of the file.
    pub salt: u64,
    pub number: u32,
    /// The oldest of the file's former lives whose bytes may still be in it; 0: none.
    pub remains: u32,
    /// The size it was made with.
    pub file_bytes: u64,
    /// The journal it belongs to; 0: made before files said so.
    pub journal: u64,
}

impl FileHead {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; FILE_HEAD as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&CHECKSUM_CRC32_IEEE.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.salt.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.number.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.remains.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.file_bytes.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes[JOURNAL_AT..JOURNAL_CRC_AT].copy_from_slice(&self.journal.to_le_bytes());
        let crc = crc32fast::hash(&bytes[JOURNAL_AT..JOURNAL_CRC_AT]);
        bytes[JOURNAL_CRC_AT..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header of the file at `path`. `Ok(None)`: it does not verify.
    pub fn decode(bytes: &[u8], path: &str) -> Result<Option<FileHead>> {
        if bytes.len() < HEAD_BYTES || crc32fast::hash(&bytes[..CRC_AT]) != u32_at(bytes, CRC_AT) {
            return Ok(None);
        }
        let not_ours = |what: String| Error::NotOurs { path: path.to_owned(), what };
        if bytes[..8] != MAGIC {
            return Err(not_ours("it does not begin with SKEINJNL".to_owned()));
        }
        match u32_at(bytes, 8) {
            VERSION => {}
            found => return Err(Error::NewerFormat { path: path.to_owned(), found, known: VERSION }),
        }
        match u32_at(bytes, 12) {
            CHECKSUM_CRC32_IEEE => {}
            found => return Err(not_ours(format!("checksum {found} is unknown"))),
        }
        let (salt, number, file_bytes) = (u64_at(bytes, 16), u32_at(bytes, 24), u64_at(bytes, 32));
        let Some(journal) = decode_journal(&bytes[JOURNAL_AT..HEAD_BYTES]) else { return Ok(None) };
        Ok(Some(FileHead { salt, number, remains: u32_at(bytes, 28), file_bytes, journal }))
    }

    /// The oldest life of the file whose bytes may be in it once it has been used.
    pub fn oldest_life(&self) -> u32 {
        if self.remains == 0 { self.number } else { self.remains }
    }
}

/// `None`: it does not verify. Files that were made before there was one have zeros there.
fn decode_journal(bytes: &[u8]) -> Option<u64> {
    let (id, crc) = (u64_at(bytes, 0), u32_at(bytes, 8));
    (crc32fast::hash(&bytes[..8]) == crc || (id, crc) == (0, 0)).then_some(id)
}

/// The path of a file that may hold blocks.
pub(crate) fn path(number: u32) -> String {
    format!("{DIRECTORY}/{number:010}.journal")
}

/// The path of a file that is being made.
pub(crate) fn preparing_path(number: u32) -> String {
    format!("{DIRECTORY}/{number:010}.preparing")
}

/// The path of a file that was set aside: entries in it do not verify, and all else that was live was copied.
pub(crate) fn aside_path(number: u32) -> String {
    format!("{DIRECTORY}/{number:010}.rotten")
}

/// What a name in the journal's folder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    File(u32),
    Preparing,
    Aside(u32),
    Foreign,
}

pub(crate) fn parse_name(name: &str) -> Name {
    match name.split_once('.') {
        Some((number, "journal")) if number.len() == 10 => number.parse().map_or(Name::Foreign, Name::File),
        Some((number, "rotten")) if number.len() == 10 => number.parse().map_or(Name::Foreign, Name::Aside),
        Some((number, "preparing")) if number.parse::<u32>().is_ok() => Name::Preparing,
        _ => Name::Foreign,
    }
}

/// What tells a new journal from all others.
pub(crate) fn journal_id(seed: u64) -> u64 {
    salt(seed, 0).max(1)
}

/// The salt of a file's life: different for each number, unpredictable if the seed is (SplitMix64).
pub(crate) fn salt(seed: u64, number: u32) -> u64 {
    let mut z = seed.wrapping_add(u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_no_flip_passes() {
        let head = FileHead { salt: 0x0123_4567_89AB_CDEF, number: 7, remains: 3, file_bytes: 1 << 28, journal: 9 };
        let bytes = head.encode();
        assert_eq!(FileHead::decode(&bytes, "f").unwrap(), Some(head));
        for bit in 0..HEAD_BYTES * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FileHead::decode(&flipped, "f").unwrap(), None, "bit {bit}");
        }
    }

    #[test]
    fn a_header_without_a_journal_is_one_of_before() {
        let mut bytes = FileHead { salt: 1, number: 7, remains: 0, file_bytes: 1 << 28, journal: 9 }.encode();
        bytes[JOURNAL_AT..HEAD_BYTES].fill(0);
        assert_eq!(FileHead::decode(&bytes, "f").unwrap().map(|head| head.journal), Some(0));
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let mut bytes = FileHead { salt: 1, number: 7, remains: 0, file_bytes: 1 << 28, journal: 9 }.encode();
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        let error = FileHead::decode(&bytes, "journal/x").unwrap_err();
        assert!(matches!(error, Error::NewerFormat { found: 2, known: 1, .. }), "{error}");
    }

    #[test]
    fn names_are_told_apart() {
        assert_eq!(parse_name("0000000012.journal"), Name::File(12));
        assert_eq!(parse_name("0000000012.preparing"), Name::Preparing);
        assert_eq!(parse_name("0000000012.rotten"), Name::Aside(12));
        assert_eq!(parse_name("12.journal"), Name::Foreign);
        assert_eq!(parse_name("notes.txt"), Name::Foreign);
        assert_eq!(format!("{DIRECTORY}/0000000012.journal"), path(12));
    }
}
