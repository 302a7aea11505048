//! Damage of every byte: what is read is right, or an error that names what is wrong.

use std::sync::Arc;

use logstore::Error;
use logstore::id::{ConversationId, SeqId, TimeMs};
use logstore::io::faulty::FaultyDisk;
use logstore::io::{DataFile, Disk};
use logstore::segment::{
    BlockCache, BuildOptions, DeltaRow, Item, PageEnd, PageRequest, SealedRecord, Section, Segment, SegmentInfo,
};

use crate::support::*;

struct Sealed {
    disk: FaultyDisk,
    info: SegmentInfo,
    items: Vec<Item>,
    rows: Vec<DeltaRow>,
}

/// Some blocks of everything, in a few kilobytes.
fn small() -> Sealed {
    let disk = FaultyDisk::new();
    let mut log = Log::new(4);
    let (span, items) = log.seal(1, 60, 5, 40);
    let rows = delta(&mut log.chance, 20, 1000);
    let options = BuildOptions { block_bytes: 1 << 10, delta_block_bytes: 200, ..BuildOptions::default() };
    let making = Making { options, heads: Some(Box::new(std::iter::empty())), ..Making::default() };
    let info = try_build(&disk.handle(), span, &items, &rows, making).unwrap();
    assert!(info.counts.record_blocks > 2 && info.counts.delta_blocks > 2, "{info:?}");
    Sealed { disk, info, items, rows }
}

/// Every way of reading: each gives what is right, or fails with a typed error that names the file. States how many failed.
fn read_all(disk: &Arc<dyn Disk>, sealed: &Sealed) -> Vec<Error> {
    let mut errors = Vec::new();
    let path = sealed.info.path();
    let segment = match Segment::open(disk, &path, &Arc::new(BlockCache::new(1 << 20))) {
        Ok(segment) => Arc::new(segment),
        Err(error) => return vec![error],
    };
    let mut note = |error: Error| {
        assert!(matches!(&error, Error::SegmentRot { path: named, .. } if *named == path), "{error}");
        errors.push(error);
    };
    let mut items = sealed.items.iter();
    for item in segment.items() {
        match item {
            Ok(item) => assert_eq!(Some(&item), items.next()),
            Err(error) => note(error),
        }
    }
    let mut rows = sealed.rows.iter();
    for row in segment.delta_rows() {
        match row {
            Ok(row) => assert_eq!(Some(&row), rows.next()),
            Err(error) => note(error),
        }
    }
    for row in &sealed.rows {
        match segment.delta_get(&row.key) {
            Ok(value) => assert_eq!(value, Some(row.value.clone())),
            Err(error) => note(error),
        }
    }
    for group in 1..=5 {
        let conversation = ConversationId::group(group);
        let expected = records_of(sealed, conversation);
        let (first, last, from) = (SeqId(1), SeqId(u64::MAX), PageEnd::Newest);
        let whole = PageRequest { conversation, first, last, from, records_max: u64::MAX, bytes_max: usize::MAX };
        for request in [whole, PageRequest { from: PageEnd::Oldest, ..whole }] {
            match segment.page(&request) {
                Ok(page) => assert_eq!(page.records, expected),
                Err(error) => note(error),
            }
        }
        for record in expected {
            match segment.find_id(conversation, record.sender, record.client_msg_id, TimeMs(0)) {
                Ok(found) => assert_eq!(found, Some(record)),
                Err(error) => note(error),
            }
        }
        match segment.head(conversation) {
            Ok(head) => assert_eq!(head.unwrap().seq.0, records_of(sealed, conversation).len() as u64),
            Err(error) => note(error),
        }
    }
    errors
}

fn records_of(sealed: &Sealed, conversation: ConversationId) -> Vec<SealedRecord> {
    let record = |item: &Item| match item {
        Item::Record(record) if record.conversation == conversation => Some(record.clone()),
        _ => None,
    };
    sealed.items.iter().filter_map(record).collect()
}

fn open_fails(disk: &FaultyDisk, path: &str) -> Error {
    let opened = Segment::open(&disk.handle(), path, &Arc::new(BlockCache::new(0)));
    opened.err().unwrap_or_else(|| panic!("{path} was opened"))
}

#[test]
fn every_flipped_byte_is_named_and_nothing_wrong_is_ever_read() {
    let sealed = small();
    let path = sealed.info.path();
    assert!(read_all(&sealed.disk.handle(), &sealed).is_empty());
    for offset in 0..sealed.info.file_bytes as usize {
        let mask = 1 << (offset % 8);
        sealed.disk.flip(&path, offset, mask);
        let errors = read_all(&sealed.disk.handle(), &sealed);
        assert!(!errors.is_empty(), "a flipped byte at {offset} went unseen");
        sealed.disk.flip(&path, offset, mask);
    }
    assert!(read_all(&sealed.disk.handle(), &sealed).is_empty());
}

#[test]
fn rot_names_the_section_the_shard_and_the_entries() {
    let sealed = small();
    let path = sealed.info.path();
    sealed.disk.flip(&path, 100, 1);
    let errors = read_all(&sealed.disk.handle(), &sealed);
    for error in &errors {
        let Error::SegmentRot { offset, section, shard, after, upto, .. } = error else { panic!("{error}") };
        assert_eq!((*offset, *section), (64, Section::Records), "{error}");
        assert_eq!((*shard, *after, *upto), (SHARD, sealed.info.span.after, sealed.info.span.upto));
    }
    assert!(errors.len() > 2);
    // The rest is read as ever.
    let others = (1..=5).map(ConversationId::group).filter(|group| records_of(&sealed, *group).len() > 2);
    assert!(others.count() > 2);
}

#[test]
fn a_file_cut_at_any_length_is_refused() {
    let sealed = small();
    let (path, bytes) = (sealed.info.path(), sealed.disk.bytes(&sealed.info.path()));
    for len in 0..bytes.len() {
        sealed.disk.damage(&path, |now| now.truncate(len));
        let error = open_fails(&sealed.disk, &path);
        assert!(matches!(error, Error::NotOurs { .. } | Error::SegmentRot { .. }), "{len} bytes: {error}");
        sealed.disk.damage(&path, |now| now.clone_from(&bytes));
    }
    sealed.disk.damage(&path, |now| now.push(0));
    assert!(matches!(open_fails(&sealed.disk, &path), Error::SegmentRot { .. }), "longer than it was");
}

#[test]
fn random_bytes_an_empty_file_and_a_newer_version_are_refused_by_name() {
    let sealed = small();
    let path = sealed.info.path();
    for len in [0, 1, 63, 64, 1088, 5000] {
        sealed.disk.damage(&path, |now| *now = Chance(len as u64).bytes(len));
        let error = open_fails(&sealed.disk, &path);
        assert!(matches!(&error, Error::NotOurs { path: named, .. } if *named == path), "{error}");
    }
    let sealed = small();
    sealed.disk.damage(&path, |now| now[8] = 2);
    let error = open_fails(&sealed.disk, &path);
    assert!(matches!(error, Error::NewerFormat { found: 2, .. }), "{error}");
}

#[test]
fn a_block_of_another_segment_or_another_place_is_rot() {
    let (one, other) = (small(), small());
    let mut log = Log::new(4);
    let (span, items) = log.seal(2, 60, 5, 40);
    let options = BuildOptions { block_bytes: 1 << 10, delta_block_bytes: 200, ..BuildOptions::default() };
    let next = try_build(&one.disk.handle(), span, &items, &[], Making { options, ..Making::default() }).unwrap();
    let foreign = one.disk.bytes(&next.path());
    // The first block has the same length: it holds the same records.
    one.disk.damage(&one.info.path(), |now| now[64..400].copy_from_slice(&foreign[64..400]));
    assert!(!read_all(&one.disk.handle(), &one).is_empty());
    assert!(read_all(&other.disk.handle(), &other).is_empty());
}

#[test]
fn short_reads_change_nothing_and_a_medium_error_is_one() {
    let sealed = small();
    sealed.disk.shorten_reads(7);
    assert!(read_all(&sealed.disk.handle(), &sealed).is_empty());
    sealed.disk.heal();
    let segment = open(&sealed.disk.handle(), &sealed.info);
    sealed.disk.fail_always(logstore::io::faulty::Operation::Read, std::io::ErrorKind::Other);
    let error = segment.items().next().unwrap().unwrap_err();
    assert!(matches!(error, Error::Io { operation: "read", .. }), "{error}");
    sealed.disk.heal();
    assert_eq!(items(&segment), sealed.items);
}

#[test]
fn lengths_from_a_file_are_checked_before_memory_is_taken() {
    // A header and a footer that verify around sections that do not fill the file.
    let sealed = small();
    let path = sealed.info.path();
    let bytes = sealed.disk.bytes(&path);
    let footer_at = bytes.len() - 1024;
    for place in 0..11 {
        for field in [0, 8] {
            let mut damaged = bytes.clone();
            let at = footer_at + 216 + place * 32 + field;
            damaged[at..at + 8].copy_from_slice(&(u64::MAX - 7).to_le_bytes());
            let crc = crc32fast::hash(&damaged[footer_at..footer_at + 1020]);
            damaged[footer_at + 1020..].copy_from_slice(&crc.to_le_bytes());
            sealed.disk.damage(&path, |now| now.clone_from(&damaged));
            let error = open_fails(&sealed.disk, &path);
            assert!(matches!(error, Error::SegmentRot { section: Section::Footer, .. }), "{error}");
        }
    }
    let file: Arc<dyn DataFile> = sealed.disk.open(&path).unwrap();
    assert!(!file.is_empty().unwrap());
}
