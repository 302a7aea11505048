//! A run of one shard's log in a file of its own: what saves keep, so that points between them can be restored.
//!
//! ```text
//! header                                                                                    block, one behind the other
//!  0            8         12      14  16        32      40     48    60    64                0     4            8         12        16
//!  +------------+---------+-------+---+---------+-------+------+-----+-----+---------- - - -  +-----+------------+---------+---------+------
//!  | "SKEINENT" | version | shard | 0 | history | after | upto | 0   | crc | blocks           | crc | stored len | raw len | entries | zstd
//!  | 8 B        | u32 = 1 | u16   |u16| u128    | u64   | u64  | 12 B| u32 |                  | u32 | u32        | u32     | u32     | frame
//!  +------------+---------+-------+---+---------+-------+------+-----+-----+---------- - - -  +-----+------------+---------+---------+------
//!
//! raw:  entries x { term u64 | kind u8: 0 blank, 1 commands, 2 membership | length u32 | payload }
//! ```
//!
//! Little-endian; the CRCs are those of the journal. That of a block covers the header's CRC (u32) and the block's offset (u64) before all of the
//! block behind its own: a block verifies in its own place of its own file only. Entries are those after `after` up to `upto`, in order.
//!
//! What always holds: no length is used before it was checked, nothing is given of a block that does not verify, and a file that ends before
//! `upto`, or goes on behind it, is an error.

mod read;
mod write;

use crate::EntryKind;
use crate::id::{HistoryId, LogIndex, ShardId};

pub use read::EntriesReader;
pub use write::EntriesWriter;

const MAGIC: &[u8; 8] = b"SKEINENT";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
const BLOCK_HEADER_BYTES: usize = 16;
const ENTRY_HEADER_BYTES: usize = 13;
/// A block is written when it has so many bytes.
const BLOCK_BYTES: usize = 1 << 20;
/// Far more than a node takes for one entry.
const ENTRY_BYTES_MAX: usize = 64 << 20;
/// What a block may hold uncompressed: almost a whole one, and the largest entry behind it.
const RAW_BYTES_MAX: usize = BLOCK_BYTES + ENTRY_HEADER_BYTES + ENTRY_BYTES_MAX;

/// Which entries a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntriesHead {
    /// Of this shard,
    pub shard: ShardId,
    /// in this history,
    pub history: HistoryId,
    /// above this one
    pub after: LogIndex,
    /// up to this one.
    pub upto: LogIndex,
}

/// Why entries cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum EntriesError {
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file is of a format this program does not know.
    #[error("format version {0}: this program reads up to {VERSION}")]
    Newer(u32),
    /// Bytes are not what was written, or are missing.
    #[error("at offset {offset}: {what}")]
    Bad {
        /// Where the header or block begins.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// An entry that does not follow, or is larger than a file takes.
    #[error("entry {0} cannot be written here")]
    Unfit(LogIndex),
}

fn kind_byte(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::Blank => 0,
        EntryKind::Normal => 1,
        EntryKind::Membership => 2,
    }
}

fn kind_of(byte: u8) -> Option<EntryKind> {
    Some(match byte {
        0 => EntryKind::Blank,
        1 => EntryKind::Normal,
        2 => EntryKind::Membership,
        _ => return None,
    })
}

fn block_crc(header_crc: u32, offset: u64, bytes: [&[u8]; 2]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header_crc.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    bytes.iter().for_each(|bytes| hasher.update(bytes));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::Entry;
    use crate::id::{LogId, NodeId, Term};

    const HEAD: EntriesHead =
        EntriesHead { shard: ShardId(7), history: HistoryId(9), after: LogIndex(40), upto: LogIndex(43) };

    fn entry(index: u64, kind: EntryKind, payload: &[u8]) -> Entry {
        let id = LogId { term: Term(index / 2), leader: NodeId(0), index: LogIndex(index) };
        Entry { id, kind, payload: Bytes::copy_from_slice(payload) }
    }

    fn three() -> Vec<Entry> {
        vec![
            entry(41, EntryKind::Blank, b""),
            entry(42, EntryKind::Normal, &[7; 300]),
            entry(43, EntryKind::Membership, b"members"),
        ]
    }

    fn written(head: EntriesHead, entries: &[Entry]) -> Vec<u8> {
        let mut writer = EntriesWriter::begin(Vec::new(), head).unwrap();
        entries.iter().for_each(|entry| writer.push(entry).unwrap());
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<(EntriesHead, Vec<Entry>), EntriesError> {
        let reader = EntriesReader::open(bytes)?;
        let head = reader.head();
        Ok((head, reader.collect::<Result<_, _>>()?))
    }

    #[test]
    fn entries_survive_their_bytes() {
        assert_eq!(read(&written(HEAD, &three())).unwrap(), (HEAD, three()));
    }

    #[test]
    fn entries_of_many_blocks_survive_too() {
        let head = EntriesHead { upto: LogIndex(140), ..HEAD };
        let entries: Vec<_> =
            (41..=140).map(|n| entry(n, EntryKind::Normal, &vec![n as u8; n as usize * 999])).collect();
        let bytes = written(head, &entries);
        assert_eq!(read(&bytes).unwrap().1, entries);
    }

    #[test]
    fn a_file_that_is_cut_or_goes_on_is_refused_wherever_that_is() {
        let bytes = written(HEAD, &three());
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(read(&[&bytes[..], &[0]].concat()).is_err());
        assert!(read(&[&bytes[..], &bytes[HEADER_BYTES..]].concat()).is_err(), "a block that verifies elsewhere");
    }

    #[test]
    fn a_bit_that_flips_anywhere_is_found() {
        let bytes = written(HEAD, &three());
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(read(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_its_number() {
        let mut bytes = written(HEAD, &three());
        bytes[8] = 2;
        assert!(matches!(read(&bytes), Err(EntriesError::Newer(2))));
    }

    #[test]
    fn an_entry_that_does_not_follow_is_not_taken_and_a_file_without_its_last_does_not_finish() {
        let mut writer = EntriesWriter::begin(Vec::new(), HEAD).unwrap();
        assert!(matches!(writer.push(&three()[1]), Err(EntriesError::Unfit(LogIndex(42)))));
        writer.push(&three()[0]).unwrap();
        assert!(writer.finish().is_err());
        let mut writer = EntriesWriter::begin(Vec::new(), HEAD).unwrap();
        three().iter().for_each(|entry| writer.push(entry).unwrap());
        assert!(writer.push(&entry(44, EntryKind::Blank, b"")).is_err(), "behind its end");
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            // The same behind a header that verifies.
            let head = written(EntriesHead { upto: HEAD.after, ..HEAD }, &[]);
            let _ = read(&[&head[..], &bytes[..]].concat());
        }

        #[test]
        fn any_entries_survive(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..50)) {
            let entries: Vec<_> = payloads.iter().zip(41..).map(|(bytes, n)| entry(n, EntryKind::Normal, bytes)).collect();
            let head = EntriesHead { upto: LogIndex(40 + entries.len() as u64), ..HEAD };
            prop_assert_eq!(read(&written(head, &entries)).unwrap(), (head, entries));
        }
    }
}
