//! The journal beside a bare loop that writes and syncs the same bytes to a file written before.
//!
//! `bare` is the floor: what the disk takes. `lone` is one append at a time, waited for: the floor, two changes of
//! thread and the frames. `group` keeps a second block's worth of appends queued while the first is synced, as under
//! load: the gate is 1.5 times the floor. `group` cuts its block into 16 appends over 4 shards.
//!
//! Files lie under cargo's target directory; set `CARGO_TARGET_DIR` to measure another disk.

use std::hint::black_box;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use logstore::id::{LogId, LogIndex, NodeId, ShardId, Term};
use logstore::{Entry, EntryKind, Executor, Journal, JournalOptions};

const FILE_BYTES: u64 = 64 << 20;
const SIZES: [usize; 4] = [4 << 10, 16 << 10, 64 << 10, 256 << 10];
const SHARDS: u16 = 4;
const APPENDS_PER_BLOCK: usize = 16;

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
    file: std::sync::Arc<dyn logstore::io::DataFile>,
    block: Vec<u8>,
    offset: u64,
}

impl Bare {
    fn new(root: &Path, bytes: usize) -> Bare {
        let file = logstore::io::real(root).create("bare").expect("a new file");
        for offset in (0..FILE_BYTES).step_by(1 << 20) {
            file.write_at(&vec![0; 1 << 20], offset).expect("room for the file");
        }
        file.sync_data().expect("a sync");
        Bare { file, block: vec![7; bytes], offset: 0 }
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
    last: [u64; SHARDS as usize],
    told: Sender<()>,
    durable: Receiver<()>,
    appended: usize,
}

impl Load {
    fn new(root: &Path) -> Load {
        let options = JournalOptions {
            file_bytes: FILE_BYTES,
            tail_cache_bytes: 32 << 20,
            executor: Executor::new(|job| drop(std::thread::spawn(job))),
            ..JournalOptions::default()
        };
        let dies = Box::new(|error: &logstore::Error| panic!("{error}"));
        let journal = Journal::open(logstore::io::real(root), options, dies).expect("a new journal");
        let (told, durable) = channel();
        Load { journal, payload: Bytes::from(vec![7; 256 << 10]), last: Default::default(), told, durable, appended: 0 }
    }

    fn append(&mut self, shard: u16, bytes: usize) {
        let last = &mut self.last[usize::from(shard)];
        *last += 1;
        let id = LogId { term: Term(1), leader: NodeId(1), index: LogIndex(*last) };
        let entry = Entry { id, kind: EntryKind::Normal, payload: self.payload.slice(..bytes) };
        let told = self.told.clone();
        let done = move |result: std::io::Result<()>| {
            result.expect("a durable append");
            let _ = told.send(());
        };
        self.journal.append(ShardId(shard), vec![entry], Box::new(done));
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

criterion_group!(benches, journal);
criterion_main!(benches);
