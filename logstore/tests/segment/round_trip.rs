//! What was sealed is read back: whole, by conversation, by message id, by key.

use std::collections::BTreeMap;

use bytes::Bytes;
use logstore::RecordKind;
use logstore::id::{
    BodyHash, ClientMsgId, ConversationId, LogIndex, Ordinal, SegmentOrdinal, SeqId, ServerMsgId, TimeMs, UserId,
};
use logstore::io::faulty::FaultyDisk;
use logstore::segment::{
    BuildOptions, DeltaRow, Item, PageEnd, PageRequest, SealedBody, SealedRecord, Section, Segment, TrimmedRange,
};
use proptest::prelude::*;

use crate::support::*;

/// Any record at all: the codec may not rely on what is usual. Place, ordinal, time and index are set afterwards.
fn any_record() -> impl Strategy<Value = SealedRecord> {
    let kind = prop_oneof![3 => Just(1_u8), 1 => any::<u8>()];
    let body = prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 0..80).prop_map(Some),
        1 => proptest::collection::vec(any::<u8>(), 2000..6000).prop_map(Some),
        1 => Just(None)
    ];
    (kind, any::<u64>(), 0..4_u64, any::<u64>(), any::<u128>(), any::<bool>(), body).prop_map(
        |(kind, hash, sender, server, client, is_derived, body)| SealedRecord {
            conversation: ConversationId::default(),
            seq: SeqId(0),
            ordinal: Ordinal(0),
            kind: RecordKind(kind),
            sender: UserId(if sender == 3 { hash } else { sender }),
            server_msg_id: ServerMsgId(server),
            client_msg_id: ClientMsgId(client),
            body_hash: match &body {
                Some(body) if is_derived => BodyHash(xxh(RecordKind(kind), body)),
                _ => BodyHash(hash),
            },
            time: TimeMs(0),
            index: LogIndex(0),
            body: body.map_or(SealedBody::Removed, |body| SealedBody::Kept(Bytes::from(body))),
        },
    )
}

/// Gives records of chosen conversations places that follow each other; some runs of them are trimmed.
fn placed(records: Vec<(u8, u8, SealedRecord)>) -> Vec<Item> {
    let mut last: BTreeMap<ConversationId, (u64, u64)> = BTreeMap::new();
    let items = records.into_iter().enumerate().map(|(place, (conversation, trims, mut record))| {
        record.conversation = match conversation % 3 {
            0 => ConversationId::direct(UserId(1), UserId(1 + u64::from(conversation))),
            1 => ConversationId::group(u64::from(conversation)),
            _ => ConversationId::system(UserId(u64::from(conversation))),
        };
        let start = (u64::from(conversation) * 1000, u64::from(conversation) * 900);
        let (seq, ordinal) = last.entry(record.conversation).or_insert(start);
        record.seq = SeqId(*seq + 1);
        record.ordinal = Ordinal(*ordinal + u64::from(record.kind.is_countable()));
        record.time = TimeMs(EPOCH + place as u64 * 7);
        record.index = LogIndex(1 + place as u64 / 3);
        let item = if trims < 240 {
            Item::Record(record)
        } else {
            let range = record.trimmed();
            let seqs = u64::from(trims - 239);
            Item::Trimmed(TrimmedRange { last: SeqId(range.first.0 + seqs - 1), ..range })
        };
        (*seq, *ordinal) = (item.last().0, item.ordinal().0);
        item
    });
    sorted(items.collect())
}

/// Neighbouring trimmed ranges are one.
fn joined(items: &[Item]) -> Vec<Item> {
    let mut out: Vec<Item> = Vec::new();
    for item in items {
        match (out.last_mut(), item) {
            (Some(Item::Trimmed(last)), Item::Trimmed(next)) if last.conversation == next.conversation => {
                *last = TrimmedRange { first: last.first, ordinal_before: last.ordinal_before, ..*next };
            }
            _ => out.push(item.clone()),
        }
    }
    out
}

fn sizes() -> impl Strategy<Value = BuildOptions> {
    let block = prop_oneof![Just(256_usize), Just(1 << 10), Just(4 << 10), Just(64 << 10)];
    let zstd = prop_oneof![Just(1), Just(3), Just(-5)];
    let spool = prop_oneof![Just(0_usize), Just(200), Just(4 << 20)];
    (block, zstd, spool).prop_map(|(block_bytes, zstd_level, spool_bytes)| BuildOptions {
        block_bytes,
        delta_block_bytes: block_bytes / 2,
        zstd_level,
        spool_bytes,
        sync_bytes: 10_000,
    })
}

fn any_rows() -> impl Strategy<Value = Vec<DeltaRow>> {
    let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from));
    let rows = proptest::collection::btree_map(proptest::collection::vec(0..4_u8, 0..12), value, 0..120);
    rows.prop_map(|rows| rows.into_iter().map(|(key, value)| DeltaRow { key: Bytes::from(key), value }).collect())
}

fn expected_page(items: &[Item], request: &PageRequest) -> Vec<SealedRecord> {
    let of = items.iter().filter(|item| item.conversation() == request.conversation);
    let held: Vec<_> = of.collect();
    let (Some(low), Some(high)) = (held.first(), held.last()) else { return Vec::new() };
    let (first, last) = (request.first.max(low.first()), request.last.min(high.last()));
    if first > last || request.records_max == 0 {
        return Vec::new();
    }
    let (first, last) = match request.from {
        PageEnd::Oldest => (first.0, last.0.min(first.0.saturating_add(request.records_max - 1))),
        PageEnd::Newest => (first.0.max(last.0.saturating_sub(request.records_max - 1)), last.0),
    };
    let inside = |item: &&Item| match item {
        Item::Record(record) if (first..=last).contains(&record.seq.0) => Some(record.clone()),
        _ => None,
    };
    let mut records: Vec<_> = held.iter().filter_map(inside).collect();
    if request.from == PageEnd::Newest {
        records.reverse();
    }
    let mut bytes = 0;
    let fits = records.iter().enumerate().take_while(|(place, record)| {
        bytes += record.body.len();
        bytes <= request.bytes_max || *place == 0
    });
    let count = fits.count();
    records.truncate(count);
    if request.from == PageEnd::Newest {
        records.reverse();
    }
    records
}

fn check_pages(segment: &Segment, items: &[Item], seed: u64) -> Result<(), TestCaseError> {
    let mut chance = Chance(seed);
    for _ in 0..40 {
        let Some(around) = (!items.is_empty()).then(|| &items[chance.below(items.len() as u64) as usize]) else {
            break;
        };
        let first = around.first().0.saturating_sub(chance.below(6));
        let request = PageRequest {
            conversation: around.conversation(),
            first: SeqId(first),
            last: SeqId(first + chance.below(30)),
            from: if chance.below(2) == 0 { PageEnd::Oldest } else { PageEnd::Newest },
            records_max: [0, 1, 3, 50, u64::MAX][chance.below(5) as usize],
            bytes_max: [0, 60, 5000, usize::MAX][chance.below(4) as usize],
        };
        let page = segment.page(&request).unwrap();
        prop_assert_eq!(&page.records, &expected_page(items, &request), "{:?}", request);
        let Some((low, high)) = page.complete else { continue };
        let held = page.records.iter().all(|record| (low..=high).contains(&record.seq));
        prop_assert!(held && low >= request.first && high <= request.last, "{:?} for {:?}", page.complete, request);
    }
    Ok(())
}

fn check_directory(segment: &Segment, items: &[Item]) -> Result<(), TestCaseError> {
    let rows: Vec<_> = segment.directory().collect::<logstore::Result<_>>().unwrap();
    let runs: Vec<&[Item]> = items.chunk_by(|a, b| a.conversation() == b.conversation()).collect();
    prop_assert_eq!(rows.len(), runs.len());
    for (row, run) in rows.iter().zip(runs) {
        let (first, last) = (&run[0], &run[run.len() - 1]);
        prop_assert_eq!((row.conversation, row.first, row.last), (first.conversation(), first.first(), last.last()));
        prop_assert_eq!((row.ordinal_before, row.ordinal), (first.ordinal_before(), last.ordinal()));
        prop_assert_eq!((row.first_time, row.last_time, row.last_index), (first.time(), last.time(), last.index()));
        prop_assert_eq!(row.previous_segment.0, row.conversation.0 as u64 % 4);
        prop_assert_eq!(segment.find(row.conversation).unwrap(), Some(*row));
    }
    prop_assert_eq!(segment.find(ConversationId::group(999_999)).unwrap(), None);
    Ok(())
}

fn check_ids(segment: &Segment, items: &[Item]) -> Result<(), TestCaseError> {
    for item in items {
        let Item::Record(record) = item else { continue };
        let (conversation, sender, id) = (record.conversation, record.sender, record.client_msg_id);
        let found = segment.find_id(conversation, sender, id, record.time).unwrap();
        prop_assert_eq!(found.as_ref(), Some(record));
        let other = ClientMsgId(id.0 ^ 1);
        let is_other = items.iter().any(|item| matches!(item, Item::Record(record) if record.client_msg_id == other));
        prop_assert!(is_other || segment.find_id(conversation, sender, other, TimeMs(0)).unwrap().is_none());
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn what_was_sealed_is_read_back(
        records in proptest::collection::vec((0..12_u8, any::<u8>(), any_record()), 0..200),
        rows in any_rows(),
        options in sizes(),
        seed: u64,
    ) {
        let pushed = placed(records);
        let items_in = joined(&pushed);
        let disk = FaultyDisk::new().handle();
        let previous = |conversation: ConversationId| Ok(Some(SegmentOrdinal(conversation.0 as u64 % 4)));
        let making = Making { options, previous: &previous, heads: None };
        let info = try_build(&disk, seal(9, 0, 1000), &pushed, &rows, making).unwrap();
        let segment = open(&disk, &info);
        prop_assert_eq!(segment.info(), &info);
        prop_assert_eq!(items(&segment), items_in.clone());
        prop_assert_eq!(crate::support::rows(&segment), rows.clone());
        check_directory(&segment, &items_in)?;
        check_pages(&segment, &items_in, seed)?;
        check_ids(&segment, &items_in)?;
        for row in &rows {
            prop_assert_eq!(segment.delta_get(&row.key).unwrap(), Some(row.value.clone()));
            let absent = [&row.key[..], b"\xFF"].concat();
            prop_assert_eq!(segment.delta_get(&absent).unwrap(), None);
        }
        prop_assert_eq!(disk.list("segments/00005").unwrap().len(), 1, "no temporary file stays");
    }

    #[test]
    fn identity_is_that_of_the_content_alone(
        records in proptest::collection::vec((0..6_u8, any::<u8>(), any_record()), 1..60),
        rows in any_rows(),
        options in sizes(),
    ) {
        let items = placed(records);
        let disk = FaultyDisk::new().handle();
        let one = build(&disk, seal(9, 0, 1000), &items, &rows);
        let making = Making { options, ..Making::default() };
        // Neighbouring trimmed ranges are one range, however they are handed over.
        let other = try_build(&disk, seal(9, 0, 1000), &joined(&items), &rows, making).unwrap();
        prop_assert_eq!(one.identity, other.identity);
        let moved = build(&disk, seal(10, 0, 1000), &items, &rows);
        prop_assert_ne!(one.identity, moved.identity);
        let fewer = build(&disk, seal(9, 0, 1000), &items[..items.len() - 1], &rows);
        prop_assert_ne!(one.identity, fewer.identity);
    }
}

#[test]
fn a_seal_of_nothing_is_a_segment_too() {
    let disk = FaultyDisk::new().handle();
    let info = build(&disk, seal(1, 10, 11), &[], &[]);
    let segment = open(&disk, &info);
    assert!(items(&segment).is_empty() && rows(&segment).is_empty());
    assert_eq!(segment.find(ConversationId::group(1)).unwrap(), None);
    assert_eq!(segment.delta_get(b"key").unwrap(), None);
}

#[test]
fn a_file_of_the_real_disk_outlives_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let disk = logstore::io::real(dir.path());
    let mut log = Log::new(1);
    let (span, content) = log.seal(1, 5000, 40, 120);
    let rows_in = delta(&mut log.chance, 300, 1000);
    let info = build(&disk, span, &content, &rows_in);
    let segment = open(&disk, &info);
    let other_user = segment.clone();
    segment.remove_when_unused();
    drop(segment);
    assert_eq!(disk.list("segments/00005").unwrap().len(), 1, "somebody still reads it");
    assert_eq!((items(&other_user), rows(&other_user)), (content, rows_in));
    drop(other_user);
    assert!(disk.list("segments/00005").unwrap().is_empty());
}

#[test]
fn a_segment_is_paced_by_the_bytes_it_writes() {
    let disk = FaultyDisk::new().handle();
    let mut log = Log::new(2);
    let (span, content) = log.seal(1, 20_000, 100, 200);
    let (mut paced, mut largest) = (0, 0);
    let new = logstore::segment::NewSegment {
        disk: &disk,
        span,
        log_time: TimeMs(EPOCH),
        options: &BuildOptions::default(),
        previous: &|_| Ok(None),
        heads: None,
        pace: &mut |bytes| (paced, largest) = (paced + bytes, bytes.max(largest)),
    };
    let info = logstore::segment::build(new, content.into_iter().map(Ok), []).unwrap();
    assert_eq!(paced, info.file_bytes);
    assert!(largest <= 256 << 10, "{largest}");
}

#[test]
fn what_finds_a_conversation_costs_less_than_48_bytes() {
    let disk = FaultyDisk::new().handle();
    let mut chance = Chance(8);
    // Users as a shard makes them: 41 bits of milliseconds, 12 of shard, 9 of counter.
    let user = |chance: &mut Chance| {
        UserId((EPOCH - ServerMsgId::EPOCH_MS + chance.below(1 << 34)) << 21 | chance.below(1 << 21))
    };
    let records = (0..20_000).map(|index| {
        let conversation = ConversationId::direct(user(&mut chance), user(&mut chance));
        Item::Record(record(&mut chance, conversation, 100_000, 1 + index, b"text"))
    });
    let items = sorted(records.collect());
    let far = |_| Ok(Some(SegmentOrdinal(1)));
    let making = Making { previous: &far, heads: Some(Box::new(std::iter::empty())), ..Making::default() };
    let info = try_build(&disk, seal(40_000, 0, 30_000), &items, &[], making).unwrap();
    let segment = open(&disk, &info);
    let bytes_of = |wanted: &[Section]| {
        let sections = segment.sections().filter(|(section, _, _)| wanted.contains(section));
        sections.map(|(_, _, bytes)| bytes as f64).sum::<f64>() / 20_000.0
    };
    let directory = bytes_of(&[Section::Directory, Section::DirectoryRestarts]);
    let heads = bytes_of(&[Section::Heads, Section::HeadsRestarts]);
    assert!(directory < 48.0 && heads < 48.0, "{directory:.1} B a directory row, {heads:.1} B a head");
    let (_, first, _) = segment.sections().next().unwrap();
    let filled: u64 = segment.sections().map(|(_, _, bytes)| bytes).sum();
    assert_eq!((first, first + filled + 1024), (64, info.file_bytes), "nothing lies between them");
}
