//! The journal beside a bare loop that writes and syncs the same bytes to a file written before.
//!
//! `bare` is the floor: what the disk takes. `lone` is one append at a time, waited for: the floor, two changes of
//! thread and the frames. `group` keeps a second block's worth of appends queued while the first is synced, as under
//! load: the gate is 1.5 times the floor. `group` cuts its block into 16 appends over 4 shards.
//!
//! Before all that: lots of appends of 200 bytes, some on their way at all times, beside a bare loop whose blocks have the size that the
//! journal's then had, in turn. Told are the bytes a second of the journal's blocks over the loop's (gate 60 %), and those of the payloads
//! alone over the loop's: heads of frames and the padding of blocks are the difference.
//!
//! Files lie under cargo's target directory; set `CARGO_TARGET_DIR` to measure another disk.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use logstore::id::{LogId, LogIndex, NodeId, ShardId, Term};
use logstore::io::{Disk, Part, Written};
use logstore::{Completion, Entry, EntryKind, Executor, Journal, JournalOptions};

/// The server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FILE_BYTES: u64 = 64 << 20;
const SIZES: [usize; 4] = [4 << 10, 16 << 10, 64 << 10, 256 << 10];
const SHARDS: u16 = 4;
const APPENDS_PER_BLOCK: usize = 16;

/// Of a block and of a frame, as docs/format.md draws them.
const BLOCK_HEAD: usize = 64;
const FRAME_HEAD: usize = 40;

const SMALL_BYTES: usize = 200;
/// More than are queued at once: no two of them share a count of users.
const SMALL_PAYLOADS: usize = 4096;
/// Lots on their way: one is synced, one is queued, one is being appended.
const LOTS_AHEAD: usize = 3;
/// Each round of the one and of the other.
const ROUND: Duration = Duration::from_secs(1);
const ROUNDS: usize = 5;

/// Appends of 200 bytes beside the bare loop.
fn small_appends(_: &mut Criterion) {
    for bytes in SIZES {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory can be written");
        let written = Arc::new(Written::default());
        let disk = logstore::io::counted(logstore::io::real(root.path()), written.clone());
        let mut load = Load::on(disk);
        let mut rounds: Vec<[f64; 4]> = Vec::new();
        for _ in 0..ROUNDS {
            let (began, before) = (Instant::now(), blocks_of(&written));
            let payloads = load.small(bytes);
            let grew = blocks_of(&written).0 - before.0;
            let block = grew / (blocks_of(&written).1 - before.1).max(1.0);
            let blocks = grew / began.elapsed().as_secs_f64();
            let bare = Bare::new(root.path(), (block as usize).next_multiple_of(4096)).rate();
            rounds.push([blocks / bare, payloads / bare, payloads, block]);
        }
        let [ratio, of_payloads, rate, block] = [0, 1, 2, 3].map(|what| {
            rounds.sort_by(|a, b| a[what].total_cmp(&b[what]));
            rounds[ROUNDS / 2][what]
        });
        println!(
            "journal/appends of {SMALL_BYTES} B in lots of {bytes} B: {:.0} MB/s of them durable in blocks of {:.0} KiB; {ratio:.2} of a bare \
             loop's bytes, {of_payloads:.2} payloads alone (medians of {ROUNDS} rounds, gate 0.60)",
            rate / 1e6,
            block / 1024.0,
        );
    }
}

/// Bytes and number of the blocks written.
fn blocks_of(written: &Written) -> (f64, f64) {
    (written.bytes(Part::JournalBlocks) as f64, written.writes(Part::JournalBlocks) as f64)
}

fn journal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for bytes in SIZES {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory can be written");
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut bare = Bare::new(root.path(), bytes);
        group.bench_function(BenchmarkId::new("bare", bytes), |bencher| bencher.iter(|| bare.commit()));
        let mut load = Load::new(root.path());
        group.bench_function(BenchmarkId::new("lone", bytes), |bencher| bencher.iter(|| load.lone(bytes)));
        group.bench_function(BenchmarkId::new("group", bytes), |bencher| {
            bencher.iter_custom(|blocks| load.group(bytes, blocks));
        });
    }
    group.finish();
}

/// Writes and syncs through a file whose bytes are all written already, over and over.
struct Bare {
    file: Arc<dyn logstore::io::DataFile>,
    block: Vec<u8>,
    offset: u64,
}

impl Bare {
    fn new(root: &Path, bytes: usize) -> Bare {
        let disk = logstore::io::real(root);
        let _ = disk.remove("bare");
        let file = disk.create("bare").expect("a new file");
        for offset in (0..FILE_BYTES).step_by(1 << 20) {
            file.write_at(&vec![0; 1 << 20], offset).expect("room for the file");
        }
        file.sync_data().expect("a sync");
        Bare { file, block: vec![7; bytes], offset: 0 }
    }

    /// Bytes a second.
    fn rate(&mut self) -> f64 {
        let (began, mut blocks) = (Instant::now(), 0);
        while began.elapsed() < ROUND {
            self.commit();
            blocks += 1;
        }
        (blocks * self.block.len()) as f64 / began.elapsed().as_secs_f64()
    }

    fn commit(&mut self) {
        self.file.write_at(&self.block, self.offset).expect("a write");
        black_box(self.file.sync_data().expect("a sync"));
        self.offset = (self.offset + self.block.len() as u64) % (FILE_BYTES - self.block.len() as u64);
        self.offset &= !4095;
    }
}

/// A journal and who appends to it.
struct Load {
    journal: Journal,
    payload: Bytes,
    /// Payloads of 200 bytes that own theirs, as entries do.
    small: Vec<Bytes>,
    last: [u64; SHARDS as usize],
    told: Sender<()>,
    durable: Receiver<()>,
    appended: usize,
}

impl Load {
    fn new(root: &Path) -> Load {
        Load::on(logstore::io::real(root))
    }

    fn on(disk: Arc<dyn Disk>) -> Load {
        let options = JournalOptions {
            file_bytes: FILE_BYTES,
            tail_cache_bytes: 32 << 20,
            executor: Executor::new(|job| drop(std::thread::spawn(job))),
            ..JournalOptions::default()
        };
        let dies = Box::new(|error: &logstore::Error| panic!("{error}"));
        let journal = Journal::open(disk, options, dies).expect("a new journal");
        let (told, durable) = channel();
        let small = (0..SMALL_PAYLOADS).map(|_| Bytes::from(vec![7; SMALL_BYTES])).collect();
        Load {
            journal,
            payload: Bytes::from(vec![7; 256 << 10]),
            small,
            last: Default::default(),
            told,
            durable,
            appended: 0,
        }
    }

    fn append(&mut self, shard: u16, bytes: usize) {
        let told = self.told.clone();
        let done = move |result: std::io::Result<()>| {
            result.expect("a durable append");
            let _ = told.send(());
        };
        self.append_with(shard, bytes, Box::new(done));
    }

    fn append_with(&mut self, shard: u16, bytes: usize, done: Completion) {
        self.append_payload(shard, self.payload.slice(..bytes), done);
    }

    fn append_payload(&mut self, shard: u16, payload: Bytes, done: Completion) {
        let bytes = payload.len();
        let last = &mut self.last[usize::from(shard)];
        *last += 1;
        let id = LogId { term: Term(1), leader: NodeId(1), index: LogIndex(*last) };
        let entry = Entry { id, kind: EntryKind::Normal, payload };
        self.journal.append(ShardId(shard), vec![entry], done);
        self.purge_sometimes(bytes);
    }

    /// Lets files be recycled, so that a bench takes no more room than a few of them.
    fn purge_sometimes(&mut self, bytes: usize) {
        self.appended += bytes;
        if self.appended < FILE_BYTES as usize / 2 {
            return;
        }
        self.appended = 0;
        for (shard, last) in self.last.iter().enumerate() {
            let id = LogId { term: Term(1), leader: NodeId(1), index: LogIndex(*last) };
            self.journal.purge(ShardId(shard as u16), id, Box::new(|_| {}));
        }
    }

    /// Lots of appends of 200 bytes for a round, as many at once as take `bytes`; bytes of them a second.
    ///
    /// Only the last of each lot tells: appends are synced in the order in which they were made.
    fn small(&mut self, bytes: usize) -> f64 {
        let at_once = (bytes - BLOCK_HEAD) / (SMALL_BYTES + FRAME_HEAD);
        let (began, mut lots) = (Instant::now(), 0);
        while began.elapsed() < ROUND {
            for n in 1..at_once {
                let payload = self.small[n % SMALL_PAYLOADS].clone();
                self.append_payload(n as u16 % SHARDS, payload, Box::new(untold));
            }
            self.append(0, SMALL_BYTES);
            lots += 1;
            if lots > LOTS_AHEAD {
                self.durable.recv().expect("the journal lives");
            }
        }
        (0..lots.min(LOTS_AHEAD)).for_each(|_| self.durable.recv().expect("the journal lives"));
        (lots * at_once * SMALL_BYTES) as f64 / began.elapsed().as_secs_f64()
    }

    /// One append that fills a block of `bytes`, waited for.
    fn lone(&mut self, bytes: usize) {
        self.append(0, bytes - 64 - 40);
        self.durable.recv().expect("the journal lives");
    }

    /// Blocks of `bytes`, a next one queued while each is synced.
    fn group(&mut self, bytes: usize, blocks: u64) -> Duration {
        let payload = (bytes - 64) / APPENDS_PER_BLOCK - 40;
        let begun = Instant::now();
        for block in 0..blocks + 1 {
            if block < blocks {
                (0..APPENDS_PER_BLOCK).for_each(|n| self.append(n as u16 % SHARDS, payload & !7));
            }
            if block > 0 {
                (0..APPENDS_PER_BLOCK).for_each(|_| self.durable.recv().expect("the journal lives"));
            }
        }
        begun.elapsed()
    }
}

fn untold(result: std::io::Result<()>) {
    result.expect("a durable append");
}

criterion_group!(benches, small_appends, journal);
criterion_main!(benches);
