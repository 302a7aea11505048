//! What a segment cannot hold is refused by name, and nothing gets a final name.

use bytes::Bytes;
use logstore::Error;
use logstore::id::{ConversationId, LogIndex, Ordinal, SegmentOrdinal, SeqId, TimeMs, UserId};
use logstore::io::faulty::FaultyDisk;
use logstore::segment::{
    DeltaRow, HeadRow, InputError, Item, Level, NewSegment, SealedRecord, SegmentBuilder, Span, VALUE_BYTES_MAX,
};

use crate::support::*;

fn three() -> Vec<SealedRecord> {
    let mut chance = Chance(1);
    (1..=3).map(|seq| record(&mut chance, ConversationId::group(1), seq, seq + 10, b"text")).collect()
}

fn refused(span: Span, items: Vec<SealedRecord>, rows: &[DeltaRow], making: Making<'_>) -> InputError {
    let disk = FaultyDisk::new().handle();
    let items: Vec<_> = items.into_iter().map(Item::Record).collect();
    let error = try_build(&disk, span, &items, rows, making).unwrap_err();
    assert!(disk.list("segments/00005").unwrap().is_empty(), "no file stays");
    match error {
        Error::Input(why) => why,
        other => panic!("{other}"),
    }
}

fn refused_after(change: impl Fn(&mut Vec<SealedRecord>)) -> InputError {
    let mut records = three();
    change(&mut records);
    refused(seal(1, 10, 20), records, &[], Making::default())
}

#[test]
fn holes_and_disorder_within_a_conversation_are_refused() {
    let hole = refused_after(|records| drop(records.remove(1)));
    assert!(matches!(hole, InputError::Hole { expected: SeqId(2), found: SeqId(3), .. }), "{hole}");
    let twice = refused_after(|records| records.insert(1, records[0].clone()));
    assert!(matches!(twice, InputError::Hole { expected: SeqId(2), found: SeqId(1), .. }), "{twice}");
    let zero = refused_after(|records| records[0].seq = SeqId(0));
    assert!(matches!(zero, InputError::Hole { found: SeqId(0), .. }), "{zero}");
    let ordinal = refused_after(|records| records[2].ordinal = Ordinal(9));
    assert!(matches!(ordinal, InputError::WrongOrdinal { seq: SeqId(3), .. }), "{ordinal}");
    let time = refused_after(|records| records[1].time = TimeMs(EPOCH));
    assert!(matches!(time, InputError::Falls { seq: SeqId(2), what: "time", .. }), "{time}");
    let index = refused_after(|records| records[0].index = LogIndex(15));
    assert!(matches!(index, InputError::Falls { seq: SeqId(2), what: "log index", .. }), "{index}");
}

#[test]
fn conversations_out_of_order_and_entries_of_other_ranges_are_refused() {
    let mut chance = Chance(2);
    let records = (1..=40).map(|group| record(&mut chance, ConversationId::group(group), 1, group + 10, b""));
    let why = refused(seal(1, 10, 100), records.collect(), &[], Making::default());
    assert!(matches!(why, InputError::Unsorted { .. }), "{why}");
    for range in [(11, 20), (10, 12)] {
        let why = refused(seal(1, range.0, range.1), three(), &[], Making::default());
        assert!(matches!(why, InputError::OutsideRange { .. }), "{why}");
    }
}

#[test]
fn state_rows_out_of_order_twice_or_too_large_are_refused() {
    let row = |key: &str, value: usize| DeltaRow {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(Bytes::from(vec![0; value])),
    };
    for rows in [[row("b", 1), row("a", 1)], [row("a", 1), row("a", 2)]] {
        let why = refused(seal(1, 10, 20), three(), &rows, Making::default());
        assert!(matches!(why, InputError::UnsortedKey { .. }), "{why}");
    }
    let large = [row("a", VALUE_BYTES_MAX + 1)];
    let why = refused(seal(1, 10, 20), three(), &large, Making::default());
    assert!(matches!(why, InputError::TooLarge { what: "a state value", .. }), "{why}");
    let long = [DeltaRow { key: Bytes::from(vec![0; 5000]), value: None }];
    let why = refused(seal(1, 10, 20), three(), &long, Making::default());
    assert!(matches!(why, InputError::TooLarge { what: "a state key", .. }), "{why}");
}

#[test]
fn a_span_that_is_none_and_a_previous_segment_that_is_later_are_refused() {
    let span = seal(4, 10, 20);
    let spans = [
        Span { first: SegmentOrdinal(0), last: SegmentOrdinal(0), ..span },
        Span { last: SegmentOrdinal(3), ..span },
        Span { last: SegmentOrdinal(5), ..span },
        Span { upto: LogIndex(9), ..span },
        Span { first: SegmentOrdinal(5), level: Level(1), ..span },
    ];
    for span in spans {
        let why = refused(span, three(), &[], Making::default());
        assert!(matches!(why, InputError::BadSpan { .. }), "{why}");
    }
    let later = |_| Ok(Some(SegmentOrdinal(4)));
    let why = refused(span, three(), &[], Making { previous: &later, ..Making::default() });
    assert!(matches!(why, InputError::NotBefore { previous: SegmentOrdinal(4), .. }), "{why}");
}

#[test]
fn an_error_of_what_is_sealed_ends_the_attempt_and_the_next_one_succeeds() {
    let disk = FaultyDisk::new().handle();
    let making = Making::default();
    let new = |pace| NewSegment {
        disk: &disk,
        span: seal(1, 10, 20),
        log_time: TimeMs(EPOCH),
        options: &making.options,
        previous: &|_| Ok(None),
        heads: None,
        pace,
    };
    let failing = three().into_iter().map(Item::Record).map(Ok);
    let failing = failing.chain([Err(Error::Source("the entry is gone".into()))]);
    let (mut pace, mut other_pace) = (|_| {}, |_| {});
    let error = logstore::segment::build(new(&mut pace), failing, []).unwrap_err();
    assert_eq!(error.to_string(), "the entry is gone");
    assert!(disk.list("segments/00005").unwrap().is_empty());
    let mut builder = SegmentBuilder::create(new(&mut other_pace)).unwrap();
    builder.push_delta(&DeltaRow { key: Bytes::from_static(b"k"), value: None }).unwrap();
    let late = builder.push(Item::Record(three().remove(0))).unwrap_err();
    assert!(matches!(late, Error::Input(InputError::Late(_))), "{late}");
    drop(builder);
    let items: Vec<_> = three().into_iter().map(Item::Record).collect();
    assert_eq!(items.len() as u64, build(&disk, seal(1, 10, 20), &items, &[]).counts.records);
}

#[test]
fn heads_are_carried_over_and_those_of_the_segment_replace_them() {
    let disk = FaultyDisk::new().handle();
    let head = |group: u64| HeadRow {
        conversation: ConversationId::group(group),
        seq: SeqId(0),
        ordinal: Ordinal(0),
        index: LogIndex(3),
        time: TimeMs(EPOCH),
        segment: SegmentOrdinal(1),
    };
    let mut older: Vec<_> = (1..=60).map(head).collect();
    older.sort_by_key(|row| (row.conversation.bucket(), row.conversation));
    let mut chance = Chance(3);
    let records = (50..=70).map(|group| record(&mut chance, ConversationId::group(group), 1, group + 10, b"x"));
    let items = sorted(records.map(Item::Record).collect());
    let making = Making { heads: Some(Box::new(older.into_iter().map(Ok))), ..Making::default() };
    let info = try_build(&disk, seal(2, 10, 100), &items, &[], making).unwrap();
    assert_eq!(info.counts.heads, Some(70));
    let segment = open(&disk, &info);
    let rows: Vec<_> = segment.heads().collect::<logstore::Result<_>>().unwrap();
    assert!(rows.is_sorted_by_key(|row| (row.conversation.bucket(), row.conversation)));
    for group in 1..=70 {
        let found = segment.head(ConversationId::group(group)).unwrap().unwrap();
        assert_eq!((found.seq.0, found.segment.0), if group < 50 { (0, 1) } else { (1, 2) }, "{group}");
    }
    assert_eq!(segment.head(ConversationId::direct(UserId(1), UserId(2))).unwrap(), None);
    assert!(!open(&disk, &build(&disk, seal(3, 10, 100), &items, &[])).has_heads());
}
