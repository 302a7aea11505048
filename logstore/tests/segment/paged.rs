//! Sections larger than what stays in memory: looked up page by page, checked each time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use logstore::Error;
use logstore::id::{ConversationId, SeqId, TimeMs};
use logstore::io::Disk;
use logstore::io::faulty::FaultyDisk;
use logstore::segment::{BlockCache, BuildOptions, DeltaRow, Item, Level, Section, Segment, SegmentInfo, Span};
use proptest::prelude::*;

use crate::support::*;

/// Every section that is read in pages has several.
struct Large {
    info: SegmentInfo,
    items: Vec<Item>,
    rows: Vec<DeltaRow>,
}

const GROUPS: u64 = 3_000;
const PAGED: [Section; 5] =
    [Section::BlockIndex, Section::IdFilter, Section::Directory, Section::DeltaFilter, Section::Heads];

fn large(disk: &Arc<dyn Disk>) -> Large {
    let mut log = Log::new(9);
    let (span, items) = log.seal(1, 20_000, GROUPS, 60);
    // A merge: of a seal the filter over keys would stay in memory.
    let span = Span { level: Level(1), ..span };
    let rows = delta(&mut log.chance, 20_000, 1_000_000);
    let options = BuildOptions { block_bytes: 1 << 10, delta_block_bytes: 1 << 10, ..BuildOptions::default() };
    let making = Making { options, heads: Some(Box::new(std::iter::empty())), ..Making::default() };
    let info = try_build(disk, span, &items, &rows, making).unwrap();
    Large { info, items, rows }
}

fn section(segment: &Segment, wanted: Section) -> (u64, u64) {
    let found = segment.sections().find(|(section, ..)| *section == wanted).unwrap();
    (found.1, found.2)
}

/// Looks everything up, one by one; gives what failed.
fn look_up(segment: &Arc<Segment>, large: &Large) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut note = |error: Error| {
        let named = matches!(&error, Error::SegmentRot { path, .. } if *path == large.info.path());
        assert!(named, "{error}");
        errors.push(error);
    };
    let mut last = BTreeMap::new();
    for item in &large.items {
        let Item::Record(record) = item else { continue };
        last.insert(record.conversation, record.seq);
        match segment.find_id(record.conversation, record.sender, record.client_msg_id, TimeMs(0)) {
            Ok(found) => assert_eq!(found.as_ref(), Some(record)),
            Err(error) => note(error),
        }
    }
    for group in 1..=GROUPS + 500 {
        let conversation = ConversationId::group(group);
        let expected = last.get(&conversation).copied();
        match segment.find(conversation) {
            Ok(row) => assert_eq!(row.map(|row| row.last), expected, "{conversation}"),
            Err(error) => note(error),
        }
        match segment.head(conversation) {
            Ok(head) => assert_eq!(head.map(|head| head.seq), expected, "{conversation}"),
            Err(error) => note(error),
        }
    }
    for row in &large.rows {
        match segment.delta_get(&row.key) {
            Ok(value) => assert_eq!(value, Some(row.value.clone())),
            Err(error) => note(error),
        }
    }
    errors
}

fn open_large(disk: &Arc<dyn Disk>, large: &Large) -> Arc<Segment> {
    Arc::new(Segment::open(disk, &large.info.path(), &Arc::new(BlockCache::new(64 << 20))).unwrap())
}

#[test]
fn everything_is_found_in_sections_of_many_pages_and_nothing_else() {
    let disk = FaultyDisk::new();
    let large = large(&disk.handle());
    let segment = open_large(&disk.handle(), &large);
    for wanted in PAGED {
        let (_, bytes) = section(&segment, wanted);
        assert!(bytes > 20_000, "{wanted} has {bytes} bytes: it stays in memory");
    }
    assert!(look_up(&segment, &large).is_empty());
    let keys: BTreeSet<_> = large.rows.iter().map(|row| &row.key[..]).collect();
    let absent: Vec<_> = (0..5_000).map(|n| format!("member/{n:07}x")).collect();
    assert!(
        absent.iter().all(|key| segment.delta_get(key.as_bytes()).unwrap().is_none() && !keys.contains(key.as_bytes()))
    );
    segment.verify().unwrap();
    disk.shorten_reads(1_000);
    assert!(look_up(&segment, &large).is_empty(), "short reads change nothing");
    let directory: Vec<_> = segment.directory().collect::<logstore::Result<_>>().unwrap();
    let heads: Vec<_> = segment.heads().collect::<logstore::Result<_>>().unwrap();
    assert_eq!((directory.len() as u64, heads.len()), (large.info.counts.conversations, directory.len()));
    assert!(
        directory.iter().zip(&heads).all(|(row, head)| (row.conversation, row.last) == (head.conversation, head.seq))
    );
}

#[test]
fn a_lookup_in_a_conversation_of_many_blocks_finds_the_block_across_pages_of_the_index() {
    let disk = FaultyDisk::new();
    let mut log = Log::new(3);
    let (span, items) = log.seal(1, 20_000, 2, 60);
    let options = BuildOptions { block_bytes: 1 << 10, ..BuildOptions::default() };
    let info = try_build(&disk.handle(), span, &items, &[], Making { options, ..Making::default() }).unwrap();
    assert!(info.counts.record_blocks > 4 * 75, "{info:?}");
    let segment = open(&disk.handle(), &info);
    for item in &items {
        let Item::Record(record) = item else { continue };
        let request = logstore::segment::PageRequest {
            conversation: record.conversation,
            first: record.seq,
            last: SeqId(record.seq.0 + 1),
            from: logstore::segment::PageEnd::Oldest,
            records_max: 1,
            bytes_max: usize::MAX,
        };
        assert_eq!(segment.page(&request).unwrap().records, std::slice::from_ref(record));
        // Nothing before its own time is looked at.
        let found = segment.find_id(record.conversation, record.sender, record.client_msg_id, record.time);
        assert_eq!(found.unwrap().as_ref(), Some(record));
    }
}

#[test]
fn a_file_that_is_cut_while_it_is_open_is_an_error_that_names_it() {
    let root = tempfile::tempdir().unwrap();
    let disk = logstore::io::real(root.path());
    let large = large(&disk);
    let segment = open_large(&disk, &large);
    let (offset, bytes) = section(&segment, Section::Directory);
    let file = std::fs::File::options().write(true).open(root.path().join(large.info.path())).unwrap();
    file.set_len(offset + bytes / 2).unwrap();
    let rows: Vec<_> = (1..=GROUPS).map(|group| segment.find(ConversationId::group(group))).collect();
    let cut = rows.iter().filter_map(|row| row.as_ref().err()).collect::<Vec<_>>();
    assert!(cut.len() > 1_000 && cut.len() < 2_000, "{} of {GROUPS}", cut.len());
    for error in cut {
        assert!(matches!(error, Error::SegmentRot { section: Section::Directory, .. }), "{error}");
        assert!(error.to_string().contains("the file is cut"), "{error}");
    }
    let read = segment.directory().take_while(Result::is_ok).count();
    assert!(read < GROUPS as usize && segment.directory().any(|row| row.is_err()));
}

proptest! {
    #![proptest_config(cases(6))]
    #[test]
    fn what_rots_after_it_was_verified_is_found_by_whoever_looks_there(which in 0..PAGED.len(), at: prop::sample::Index, bit in 0..8_u32) {
        let disk = FaultyDisk::new();
        let large = large(&disk.handle());
        let segment = open_large(&disk.handle(), &large);
        let (offset, bytes) = section(&segment, PAGED[which]);
        let at = offset as usize + at.index(bytes as usize);
        disk.flip(&large.info.path(), at, 1_u8 << bit);
        let errors = look_up(&segment, &large);
        prop_assert!(!errors.is_empty(), "a bit of {} at {at} went unseen", PAGED[which]);
        for error in errors {
            let Error::SegmentRot { offset, section, .. } = error else { panic!("{error}") };
            prop_assert_eq!(section, PAGED[which]);
            prop_assert!((offset..offset + 4096).contains(&(at as u64)), "{offset} names the page of {at}");
        }
        disk.flip(&large.info.path(), at, 1_u8 << bit);
        prop_assert!(look_up(&segment, &large).is_empty(), "nothing of it was kept");
    }
}
