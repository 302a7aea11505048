//! Sealed files: how fast one is made on one core, how small it is, how fast pages are read from it, and how fast several are merged.
//!
//! Bytes are those of the journal: 72 of a send's head (docs/format.md) and the body. Texts are those of the sample in this
//! repository, or of the chat file that `SKEIN_CHAT` names (JSON lines with `conversation`, `sender`, `text`, gzip or plain). With
//! a chat file its own conversations and senders are sealed as well. Sizes are printed before the first bench.
//!
//! `SKEIN_COLD=20000000` first seals so many messages of a twentieth as many conversations, evenly interleaved, merges them, and
//! compares pages with the page cache dropped to four random reads of 64 KiB in turn with them. It takes some 5 GB of memory and disk.
//!
//! Files lie under cargo's target directory; set `CARGO_TARGET_DIR` to measure another disk.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use logstore::id::{
    BodyHash, ClientMsgId, ConversationId, LogId, LogIndex, NodeId, Ordinal, SegmentOrdinal, SeqId, ServerMsgId,
    ShardId, Term, TimeMs, UserId,
};
use logstore::io::Disk;
use logstore::merge::{DropRules, MergePolicy, MergeRun};
use logstore::segment::{
    BlockCache, BuildOptions, DeltaRow, Item, Level, NewSegment, PageEnd, PageRequest, SealedBody, SealedRecord,
    SegmentInfo, Span,
};
use logstore::{Checkpoint, RecordKind, SegmentSet};

const SHARD: ShardId = ShardId(1);
const EPOCH_MS: u64 = 1_767_225_600_000;
/// A send's head in the journal.
const HEAD_BYTES: u64 = 72;
const PAGE: u64 = 50;

fn segment(criterion: &mut Criterion) {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory can be written");
    let disk = logstore::io::real(root.path());
    let chat = Chat::read();
    if let Some(records) = std::env::var("SKEIN_COLD").ok().and_then(|records| records.parse().ok()) {
        cold(&root.path().join("cold"), &chat, records);
    }
    let even = chat.log(300_000, 20_000);
    // A generation of a shard that a million conversations share: hardly two messages of one.
    let sparse = chat.log(300_000, 1_000_000);
    let cases = [("even", &even), ("sparse", &sparse)].into_iter().chain(chat.real.as_ref().map(|real| ("chat", real)));
    let mut group = criterion.benchmark_group("segment");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(5));
    for (name, items) in cases {
        let (info, cpu_seconds) = on_cpu(|| seal(&disk, span(1, 0, items), items));
        tell(name, items, &info, cpu_seconds);
        group.throughput(Throughput::Bytes(raw_bytes(items)));
        group.bench_function(format!("seal/{name}"), |bencher| bencher.iter(|| seal(&disk, span(1, 0, items), items)));
    }
    // Another data directory: the seals so far are in no manifest.
    let disk = logstore::io::real(&root.path().join("shard"));
    let set = shard(&disk, &even);
    pages(&mut group, &set);
    let plan = MergePolicy { seals_min: 2, ..MergePolicy::default() };
    let plan = plan.plan(set.manifest(), DropRules::default(), LogIndex(u64::MAX)).expect("several seals");
    group.throughput(Throughput::Bytes(raw_bytes(&even)));
    group.bench_function("merge", |bencher| {
        bencher.iter(|| {
            let options = &BuildOptions::default();
            let with = MergeRun { disk: &disk, set: &set, options, pace: &mut |_| {} };
            logstore::merge::run(&plan, with).expect("a merge")
        });
    });
    let set = merged(&disk, set);
    group.throughput(Throughput::Elements(1));
    bench_pages(&mut group, "page/merged", &set, 20_000);
    // Whole pages of 50: the gate's.
    let disk = logstore::io::real(&root.path().join("long"));
    let set = merged(&disk, shard(&disk, &chat.log(300_000, 4_000)));
    bench_pages(&mut group, "page of 50/merged", &set, 4_000);
    group.finish();
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn pages(group: &mut Group<'_>, set: &SegmentSet) {
    group.throughput(Throughput::Elements(1));
    bench_pages(group, "page/seals", set, 20_000);
    group.bench_function("head", |bencher| {
        let mut n = 0;
        bencher.iter(|| {
            n = (n + 7919) % 20_000;
            black_box(set.head(conversation(n)).expect("a head"))
        });
    });
}

/// The newest page of one conversation after the other; the blocks are in the cache.
fn bench_pages(group: &mut Group<'_>, name: &str, set: &SegmentSet, conversations: u64) {
    let mut n = 0;
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            n = (n + 7919) % conversations;
            black_box(set.page(&newest_page(conversation(n))).expect("a page"))
        });
    });
}

/// The least that this thread has been on a core for it, of five times: other programs do not count.
fn on_cpu<T>(work: impl Fn() -> T) -> (T, f64) {
    let seconds = || {
        let spent = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        spent.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
    };
    let once = || {
        let begun = seconds();
        let done = work();
        (done, seconds() - begun)
    };
    (0..4).map(|_| once()).fold(once(), |best, next| if next.1 < best.1 { next } else { best })
}

/// Pages of a large merged segment, nothing of its blocks in memory.
fn cold(root: &Path, chat: &Chat, records: u64) {
    const SEALS: u64 = 16;
    const PAGES: usize = 2000;
    let (disk, conversations) = (logstore::io::real(root), records / 20);
    let cache = Arc::new(BlockCache::new(0));
    let mut set = SegmentSet::open(&disk, SHARD, &cache).expect("an empty shard");
    let mut writer = Writer::default();
    for seal in 0..SEALS {
        // Whole entries of eight messages.
        let share = records / SEALS / 8 * 8;
        let items = chat.part(&mut writer, seal * share..(seal + 1) * share, conversations);
        set = add_seal(&disk, set, items, (seal * share / 8, (seal + 1) * share / 8));
    }
    let set = merged(&disk, set);
    let path = root.join(set.segments()[0].path());
    let file = std::fs::File::open(&path).expect("the merged segment");
    let (mut pages, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..PAGES {
        let request = newest_page(conversation(writer.chance() % conversations));
        drop_cached(&file);
        pages.push(timed(|| drop(black_box(set.page(&request).expect("a page")))));
        let places: Vec<_> =
            (0..4).map(|_| writer.chance() % (set.segments()[0].info().file_bytes - (64 << 10))).collect();
        drop_cached(&file);
        floor.push(timed(|| {
            let mut bytes = vec![0; 64 << 10];
            places.iter().for_each(|place| file.read_exact_at(&mut bytes, *place).expect("a read"));
        }));
    }
    let reads = cache.figures().reads as f64 / PAGES as f64;
    let [pages, floor] = [pages, floor].map(|mut times| {
        times.sort();
        [times[PAGES / 2], times[PAGES * 99 / 100]].map(|time| time.as_micros())
    });
    eprintln!(
        "cold: {records} messages, {conversations} conversations, {:.0} MB: a page p50 {} p99 {} µs ({reads:.2} block reads), \
         four reads of 64 KiB p50 {} p99 {} µs",
        file.metadata().map_or(0, |data| data.len()) as f64 / 1e6,
        pages[0],
        pages[1],
        floor[0],
        floor[1],
    );
}

fn drop_cached(file: &std::fs::File) {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).expect("advice is taken");
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn newest_page(conversation: ConversationId) -> PageRequest {
    let (first, last, from) = (SeqId(1), SeqId(u64::MAX), PageEnd::Newest);
    PageRequest { conversation, first, last, from, records_max: PAGE, bytes_max: 1 << 20 }
}

fn tell(name: &str, items: &[Item], info: &SegmentInfo, cpu_seconds: f64) {
    let (raw, counts) = (raw_bytes(items), info.counts);
    let per = |bytes: u64| bytes as f64 / items.len() as f64;
    eprintln!(
        "{name}: {} records of {:.1} B raw, {:.1} B sealed: {:.3}; blocks {:.1} B before compression; {} conversations; \
         {:.0} MB/s of one core",
        items.len(),
        per(raw),
        per(info.file_bytes),
        info.file_bytes as f64 / raw as f64,
        per(counts.record_raw_bytes),
        counts.conversations,
        raw as f64 / 1e6 / cpu_seconds,
    );
}

fn raw_bytes(items: &[Item]) -> u64 {
    let body = |item: &Item| if let Item::Record(record) = item { record.body.len() as u64 } else { 0 };
    items.iter().map(|item| HEAD_BYTES + body(item)).sum()
}

fn seal(disk: &Arc<dyn Disk>, span: Span, items: &[Item]) -> SegmentInfo {
    let new = NewSegment {
        disk,
        span,
        log_time: TimeMs(EPOCH_MS + span.upto.0),
        options: &BuildOptions::default(),
        previous: &|_| Ok(None),
        heads: None,
        pace: &mut |_| {},
    };
    logstore::segment::build(new, items.iter().cloned().map(Ok), delta(items).map(Ok)).expect("a segment")
}

/// A row of each conversation, as a generation changes it: in the order of keys, which is not that of records.
fn delta(items: &[Item]) -> impl Iterator<Item = DeltaRow> {
    let mut rows: Vec<_> = items.chunk_by(|a, b| a.conversation() == b.conversation()).map(|all| &all[0]).collect();
    rows.sort_unstable_by_key(|item| item.conversation());
    rows.into_iter().map(|item| {
        let key = [&[1][..], &item.conversation().to_bytes()].concat();
        let mut value = [0; 45];
        let numbers = [item.first().0, item.ordinal().0, item.index().0, item.time().0];
        value[..32].as_chunks_mut().0.iter_mut().zip(numbers).for_each(|(at, number)| *at = number.to_le_bytes());
        DeltaRow { key: key.into(), value: Some(value.to_vec().into()) }
    })
}

/// The same log in eight seals.
fn shard(disk: &Arc<dyn Disk>, items: &[Item]) -> SegmentSet {
    let mut set = SegmentSet::open(disk, SHARD, &Arc::new(BlockCache::new(1 << 30))).expect("an empty shard");
    let share = items.iter().map(|item| item.index().0).max().unwrap_or(0) / 8 + 1;
    for seal in 0..8 {
        let (after, upto) = (seal * share, (seal + 1) * share);
        let part = items.iter().filter(|item| (after + 1..=upto).contains(&item.index().0)).cloned().collect();
        set = add_seal(disk, set, part, (after, upto));
    }
    set
}

fn add_seal(disk: &Arc<dyn Disk>, set: SegmentSet, items: Vec<Item>, (after, upto): (u64, u64)) -> SegmentSet {
    let ordinal = set.manifest().last().next();
    let after = set.segments().last().map_or(LogIndex(after), |last| last.span().upto);
    let span = Span { shard: SHARD, first: ordinal, last: ordinal, level: Level(0), after, upto: LogIndex(upto) };
    let new = NewSegment {
        disk,
        span,
        log_time: TimeMs(EPOCH_MS + upto),
        options: &BuildOptions::default(),
        previous: &|conversation| set.previous(conversation, ordinal),
        heads: None,
        pace: &mut |_| {},
    };
    let info = logstore::segment::build(new, items.into_iter().map(Ok), []).expect("a segment");
    let seal = LogId { term: Term(1), leader: NodeId(0), index: span.upto };
    let next = set.manifest().sealed(info, Checkpoint { seal, state: Bytes::new() }).expect("a chain");
    set.publish(next).expect("a manifest")
}

/// All segments as one.
fn merged(disk: &Arc<dyn Disk>, set: SegmentSet) -> SegmentSet {
    let (policy, options) = (MergePolicy { seals_min: 2, ..MergePolicy::default() }, BuildOptions::default());
    let plan = policy.plan(set.manifest(), DropRules::default(), LogIndex(u64::MAX)).expect("several seals");
    let mut pace = |_| {};
    let with = MergeRun { disk, set: &set, options: &options, pace: &mut pace };
    let info = logstore::merge::run(&plan, with).expect("a merge");
    let next = set.manifest().merged(info).expect("a chain");
    set.publish(next).expect("a manifest")
}

fn span(ordinal: u64, after: u64, items: &[Item]) -> Span {
    let upto = LogIndex(items.iter().map(|item| item.index().0).max().unwrap_or(0) + 1);
    let ordinal = SegmentOrdinal(ordinal);
    Span { shard: SHARD, first: ordinal, last: ordinal, level: Level(0), after: LogIndex(after), upto }
}

/// Every other one is a 1:1.
fn conversation(n: u64) -> ConversationId {
    let user = |n: u64| UserId((EPOCH_MS - ServerMsgId::EPOCH_MS + n * 977) << 21 | 1 << 9);
    if n.is_multiple_of(2) { ConversationId::direct(user(n), user(n + 1)) } else { ConversationId::group(user(n).0) }
}

struct Chat {
    texts: Vec<Bytes>,
    real: Option<Vec<Item>>,
}

impl Chat {
    fn read() -> Chat {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/sample/sample.jsonl");
        let named = std::env::var_os("SKEIN_CHAT").map(std::path::PathBuf::from);
        let lines = lines(named.as_deref().unwrap_or(&sample));
        let texts = lines.iter().map(|line| line.2.clone()).collect();
        let real = named.map(|_| Writer::default().log(&lines));
        Chat { texts, real }
    }

    /// So many records, spread evenly over so many conversations, a thousand a second.
    fn log(&self, records: u64, conversations: u64) -> Vec<Item> {
        self.part(&mut Writer::default(), 0..records, conversations)
    }

    fn part(&self, writer: &mut Writer, records: Range<u64>, conversations: u64) -> Vec<Item> {
        let items = records.map(|n| {
            let which = writer.chance() % conversations;
            let text = &self.texts[(writer.chance() % self.texts.len() as u64) as usize];
            let conversation = conversation(which);
            let sender = UserId(conversation.0 as u64 & (ConversationId::ID_LIMIT - 1));
            writer.record(conversation, sender, n, text)
        });
        sorted(items.collect())
    }
}

fn lines(path: &Path) -> Vec<(String, String, Bytes)> {
    let file = std::fs::File::open(path).expect("the chat file can be read");
    let source: Box<dyn Read> = if path.extension().is_some_and(|end| end == "gz") {
        Box::new(flate2::read::GzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let line = |line: std::io::Result<String>| {
        let value: serde_json::Value = serde_json::from_str(&line.expect("text")).expect("JSON");
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        (text("conversation"), text("sender"), Bytes::from(text("text")))
    };
    BufReader::new(source).lines().map(line).collect()
}

/// Gives messages the places that apply would.
#[derive(Default)]
struct Writer {
    state: u64,
    seqs: HashMap<ConversationId, u64>,
}

impl Writer {
    fn chance(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// Entries of some eight messages, a message a millisecond.
    fn record(&mut self, conversation: ConversationId, sender: UserId, n: u64, text: &Bytes) -> Item {
        let seq = self.seqs.entry(conversation).and_modify(|seq| *seq += 1).or_insert(1);
        let (seq, time) = (*seq, EPOCH_MS + n);
        let random = u128::from(self.chance()) << 64 | u128::from(self.chance());
        let spare = !(0xF_u128 << 76 | 3_u128 << 62) & ((1 << 80) - 1);
        let id_time = u128::from(time - self.chance() % 30);
        Item::Record(SealedRecord {
            conversation,
            seq: SeqId(seq),
            ordinal: Ordinal(seq),
            kind: RecordKind::TEXT,
            sender,
            server_msg_id: ServerMsgId::pack(TimeMs(time), SHARD, (n % 8) as u16),
            client_msg_id: ClientMsgId(id_time << 80 | 7 << 76 | 2 << 62 | random & spare),
            body_hash: sequencer_hash(text),
            time: TimeMs(time),
            index: LogIndex(n / 8 + 1),
            body: SealedBody::Kept(text.clone()),
        })
    }

    fn log(&mut self, lines: &[(String, String, Bytes)]) -> Vec<Item> {
        let (mut groups, mut users) = (HashMap::new(), HashMap::new());
        let items = lines.iter().enumerate().map(|(n, (group, user, text))| {
            let next = groups.len() as u64;
            let group = *groups.entry(group).or_insert_with(|| conversation(next * 2 + 1));
            let next = users.len() as u64;
            let sender =
                *users.entry(user).or_insert(UserId((EPOCH_MS - ServerMsgId::EPOCH_MS + next * 977) << 21 | 1 << 9));
            self.record(group, sender, n as u64, text)
        });
        sorted(items.collect())
    }
}

fn sequencer_hash(text: &[u8]) -> BodyHash {
    sequencer::Send::hash_of(RecordKind::TEXT, text)
}

fn sorted(mut items: Vec<Item>) -> Vec<Item> {
    items.sort_by_key(|item| (item.conversation().bucket(), item.conversation(), item.first()));
    items
}

criterion_group!(benches, segment);
criterion_main!(benches);
