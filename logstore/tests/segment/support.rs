//! What the tests of sealed files share: content from a seed, and segments made of it.

use std::sync::Arc;

use bytes::Bytes;
use logstore::id::{
    BodyHash, ClientMsgId, ConversationId, LogIndex, Ordinal, SegmentOrdinal, SeqId, ServerMsgId, ShardId, TimeMs,
    UserId,
};
use logstore::io::Disk;
use logstore::segment::{
    self, BlockCache, BuildOptions, CarriedHeads, DeltaRow, Item, Level, NewSegment, SealedBody, SealedRecord, Segment,
    SegmentInfo, Span,
};
use logstore::{RecordKind, Result};

pub const SHARD: ShardId = ShardId(5);
/// 2026-01-01, in milliseconds.
pub const EPOCH: u64 = 1_767_225_600_000;

/// So many cases, unless the environment asks for another number, as the nightly run does.
pub fn cases(usual: u32) -> proptest::prelude::ProptestConfig {
    let mut config = proptest::prelude::ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = usual;
    }
    config
}

/// Small numbers from a seed (SplitMix64).
#[derive(Clone)]
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

pub fn seal(ordinal: u64, after: u64, upto: u64) -> Span {
    Span {
        shard: SHARD,
        first: SegmentOrdinal(ordinal),
        last: SegmentOrdinal(ordinal),
        level: Level(0),
        after: LogIndex(after),
        upto: LogIndex(upto),
    }
}

/// A UUIDv7 of this time.
pub fn client_id(chance: &mut Chance, time: u64) -> ClientMsgId {
    let random = u128::from(chance.next()) << 64 | u128::from(chance.next());
    let version = 7_u128 << 76 | 2_u128 << 62;
    let spare = !(0xF_u128 << 76 | 3_u128 << 62) & ((1 << 80) - 1);
    ClientMsgId(u128::from(time) << 80 | version | random & spare)
}

/// A text record as a client's message becomes one.
pub fn record(chance: &mut Chance, conversation: ConversationId, seq: u64, index: u64, body: &[u8]) -> SealedRecord {
    let time = EPOCH + index * 3;
    let kind = RecordKind::TEXT;
    let id_time = time - chance.below(40);
    SealedRecord {
        conversation,
        seq: SeqId(seq),
        ordinal: Ordinal(seq),
        kind,
        sender: UserId(1 + chance.below(3)),
        server_msg_id: ServerMsgId::pack(TimeMs(time), SHARD, (index % 1024) as u16),
        client_msg_id: client_id(chance, id_time),
        body_hash: BodyHash(xxh(kind, body)),
        time: TimeMs(time),
        index: LogIndex(index),
        body: SealedBody::Kept(Bytes::copy_from_slice(body)),
    }
}

pub fn xxh(kind: RecordKind, body: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(body, u64::from(kind.0))
}

/// Sorts as files do. Items of one conversation keep their order.
pub fn sorted(mut items: Vec<Item>) -> Vec<Item> {
    items.sort_by_key(|item| {
        let conversation = item.conversation();
        (conversation.bucket(), conversation.to_bytes(), item.first())
    });
    items
}

/// A log of a few conversations, cut into seals: the content of each.
pub struct Log {
    pub chance: Chance,
    next_seq: std::collections::BTreeMap<ConversationId, u64>,
    next_index: u64,
}

impl Log {
    pub fn new(seed: u64) -> Log {
        Log { chance: Chance(seed), next_seq: Default::default(), next_index: 1 }
    }

    /// So many more records, of conversations chosen by chance, and the span they fill.
    pub fn seal(&mut self, ordinal: u64, records: u64, conversations: u64, body_bytes: u64) -> (Span, Vec<Item>) {
        let after = self.next_index - 1;
        let items = (0..records).map(|_| {
            let conversation = ConversationId::group(1 + self.chance.below(conversations));
            let seq = self.next_seq.entry(conversation).and_modify(|seq| *seq += 1).or_insert(1);
            let (seq, index) = (*seq, self.next_index);
            self.next_index += 1;
            let len = self.chance.below(body_bytes + 1) as usize;
            let body = text(&mut self.chance, len);
            Item::Record(record(&mut self.chance, conversation, seq, index, &body))
        });
        let items = sorted(items.collect());
        self.next_index += 1;
        (seal(ordinal, after, self.next_index - 1), items)
    }
}

/// Words, so that compression has something to do.
pub fn text(chance: &mut Chance, len: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = ["hello ", "there ", "what ", "about ", "tomorrow ", "at noon? ", "I think ", "maybe "];
    let mut text = String::new();
    while text.len() < len {
        text.push_str(WORDS[chance.below(8) as usize]);
    }
    text.truncate(len);
    text.into_bytes()
}

/// Rows whose keys are spread by chance; every fifth is a tombstone.
pub fn delta(chance: &mut Chance, rows: u64, key_space: u64) -> Vec<DeltaRow> {
    let mut by_key = std::collections::BTreeMap::new();
    for _ in 0..rows {
        let key = format!("member/{:08}", chance.below(key_space)).into_bytes();
        let len = chance.below(60) as usize;
        let value = (chance.below(5) > 0).then(|| Bytes::from(chance.bytes(len)));
        by_key.insert(key, value);
    }
    by_key.into_iter().map(|(key, value)| DeltaRow { key: Bytes::from(key), value }).collect()
}

/// What else a segment is made with.
pub struct Making<'a> {
    pub options: BuildOptions,
    pub previous: &'a segment::Previous<'a>,
    pub heads: Option<CarriedHeads<'a>>,
}

impl Default for Making<'_> {
    fn default() -> Self {
        Making { options: BuildOptions::default(), previous: &|_| Ok(None), heads: None }
    }
}

pub fn try_build(
    disk: &Arc<dyn Disk>,
    span: Span,
    items: &[Item],
    delta: &[DeltaRow],
    making: Making<'_>,
) -> Result<SegmentInfo> {
    let new = NewSegment {
        disk,
        span,
        log_time: TimeMs(EPOCH + span.upto.0 * 3),
        options: &making.options,
        previous: making.previous,
        heads: making.heads,
        pace: &mut |_| {},
    };
    segment::build(new, items.iter().cloned().map(Ok), delta.iter().cloned().map(Ok))
}

pub fn build(disk: &Arc<dyn Disk>, span: Span, items: &[Item], delta: &[DeltaRow]) -> SegmentInfo {
    try_build(disk, span, items, delta, Making::default()).unwrap()
}

pub fn open(disk: &Arc<dyn Disk>, info: &SegmentInfo) -> Arc<Segment> {
    Arc::new(Segment::open(disk, &info.path(), &Arc::new(BlockCache::new(1 << 20))).unwrap())
}

pub fn items(segment: &Arc<Segment>) -> Vec<Item> {
    segment.items().collect::<Result<_>>().unwrap()
}

pub fn rows(segment: &Arc<Segment>) -> Vec<DeltaRow> {
    segment.delta_rows().collect::<Result<_>>().unwrap()
}
