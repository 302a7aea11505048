//! A journal whose writer is stepped by the test: nothing happens between two steps, so that the moment between a write and its
//! sync can be looked at, and the power can go in it.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use logstore::id::ShardId;
use logstore::io::faulty::{FaultyDisk, Operation, Survives};
use logstore::{Completion, Journal, JournalOptions, SteppedWriter, Vote, WriterNext};
use support::{entries, entry, id, open, range, read_all, small};

/// What completions were told, in order: a name, and whether all went well.
type Told = Arc<Mutex<Vec<(u64, bool)>>>;

struct World {
    disk: FaultyDisk,
    journal: Journal,
    writer: SteppedWriter,
    told: Told,
    deaths: Arc<AtomicUsize>,
    rings: Arc<AtomicUsize>,
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl World {
    fn open(disk: FaultyDisk, options: JournalOptions) -> World {
        let (deaths, rings): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let (died, rang) = (deaths.clone(), rings.clone());
        let on_fatal = Box::new(move |_: &logstore::Error| count(&died));
        let on_ring = Box::new(move || count(&rang));
        let (journal, writer) = Journal::open_stepped(disk.handle(), options, on_fatal, on_ring).unwrap();
        World { disk, journal, writer, told: Told::default(), deaths, rings }
    }

    fn tell(&self, name: u64) -> Completion {
        let told = self.told.clone();
        Box::new(move |result| told.lock().unwrap().push((name, result.is_ok())))
    }

    fn append(&self, shard: u16, index: u64, payload_bytes: usize) {
        self.journal.append(ShardId(shard), vec![entry(shard, index, 1, payload_bytes)], self.tell(index));
    }

    fn told(&self) -> Vec<(u64, bool)> {
        self.told.lock().unwrap().clone()
    }

    /// Every file of the journal and its bytes.
    fn bytes(&self) -> Vec<(String, Vec<u8>)> {
        let mut names = self.disk.handle().list("journal").unwrap();
        names.sort();
        let paths = names.into_iter().map(|name| format!("journal/{name}"));
        paths.map(|path| (path.clone(), self.disk.bytes(&path))).collect()
    }
}

#[test]
fn one_step_writes_the_next_syncs_and_only_then_it_is_told() {
    let mut world = World::open(FaultyDisk::new(), small());
    let syncs = world.disk.syncs();
    world.append(1, 1, 100);
    assert_eq!(world.writer.step(false), WriterNext::Sync);
    assert_eq!((world.told(), world.disk.syncs()), (vec![], syncs), "written, not synced");
    assert_eq!(world.writer.step(false), WriterNext::Step);
    assert_eq!((world.told(), world.disk.syncs()), (vec![(1, true)], syncs + 1));
}

#[test]
fn what_arrives_while_a_sync_takes_its_time_is_one_block() {
    let mut world = World::open(FaultyDisk::new(), small());
    let syncs = world.disk.syncs();
    world.append(1, 1, 100);
    assert_eq!(world.writer.step(false), WriterNext::Sync);
    (2..20).for_each(|index| world.append(1, index, 100));
    assert!(world.writer.settle().is_some(), "the block before is to be proven in an idle moment");
    assert_eq!(world.told(), (1..20).map(|index| (index, true)).collect::<Vec<_>>());
    assert_eq!(world.disk.syncs(), syncs + 2);
}

#[test]
fn a_writer_that_waits_is_rung_for_and_is_idle_only_once() {
    let mut world = World::open(FaultyDisk::new(), small());
    world.append(1, 1, 100);
    assert_eq!(world.writer.settle(), Some(small().proof_after));
    assert_eq!(world.writer.step(true), WriterNext::Step);
    assert_eq!(world.writer.step(true), WriterNext::Wait(None), "the proof is synced");
    let rings = world.rings.load(Ordering::Relaxed);
    world.append(1, 2, 100);
    assert!(world.rings.load(Ordering::Relaxed) > rings);
    world.journal.save_committed(ShardId(1), Some(id(2, 1)));
    assert_eq!(world.writer.step(true), WriterNext::Sync, "work goes before what is for idle moments");
}

#[test]
fn power_that_goes_between_write_and_sync_takes_nothing_that_was_told() {
    let survivals = (0..20).map(Survives::Sectors).chain((0..40).map(|n| Survives::Prefix(n * 150)));
    for survives in survivals.chain([Survives::Nothing, Survives::Everything]) {
        let mut world = World::open(FaultyDisk::new(), small());
        world.journal.append(ShardId(1), entries(1, 1..11, 1, 300), world.tell(10));
        world.writer.settle();
        (11..21).for_each(|index| world.append(1, index, 300));
        assert_eq!(world.writer.step(false), WriterNext::Sync);
        assert_eq!(world.told(), [(10, true)]);
        let disk = world.disk.crash(survives);
        drop(world);
        let journal = open(&disk.handle(), small()).unwrap();
        let last = journal.last_index(ShardId(1)).0;
        assert!((10..=20).contains(&last), "{survives:?}: {last}");
        assert_eq!(read_all(&journal, 1, 1..last + 1).unwrap(), entries(1, 1..last + 1, 1, 300), "{survives:?}");
    }
}

#[test]
fn a_closed_journal_is_stepped_to_its_end_and_holds_everything() {
    let mut world = World::open(FaultyDisk::new(), small());
    (1..30).for_each(|index| world.append(1, index, 300));
    world.journal.save_committed(ShardId(1), Some(id(20, 1)));
    world.journal.close();
    world.append(1, 30, 300);
    while world.writer.step(false) != WriterNext::Ended {}
    assert_eq!(world.writer.step(true), WriterNext::Ended);
    assert_eq!(world.told().iter().filter(|(_, ok)| *ok).count(), 29);
    assert_eq!(world.told()[0], (30, false), "refused at once: it came after the end");
    let journal = open(&world.disk.crash(Survives::Nothing).handle(), small()).unwrap();
    assert_eq!(read_all(&journal, 1, 1..30).unwrap(), entries(1, 1..30, 1, 300));
    assert_eq!(journal.shard_log(ShardId(1)).committed, Some(id(20, 1)));
}

#[test]
fn a_sync_that_fails_ends_the_writer_and_everybody_is_told() {
    let mut world = World::open(FaultyDisk::new(), small());
    world.append(1, 1, 100);
    assert_eq!(world.writer.step(false), WriterNext::Sync);
    world.append(1, 2, 100);
    world.disk.fail(Operation::Sync, 1, ErrorKind::Other);
    assert_eq!(world.writer.step(false), WriterNext::Ended);
    assert_eq!(world.told(), [(1, false), (2, false)]);
    assert_eq!(world.deaths.load(Ordering::Relaxed), 1);
    assert_eq!(world.writer.step(true), WriterNext::Ended);
    assert_eq!(world.deaths.load(Ordering::Relaxed), 1, "said once");
}

/// Forty shards append, vote, purge and truncate through many files; what is next is drawn from a seed.
fn bytes_after(seed: u64) -> Vec<(String, Vec<u8>)> {
    let options = JournalOptions { queue_bytes_max: 1 << 20, proof_after: Duration::from_millis(1), ..small() };
    let mut world = World::open(FaultyDisk::new(), options);
    let (mut chance, mut next) = (seed, [1; 40]);
    for _ in 0..4_000 {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let shard = (chance >> 33) as usize % next.len();
        let (id16, last) = (ShardId(shard as u16), next[shard] - 1);
        match (chance >> 50) % 16 {
            0 => world.journal.save_vote(id16, Vote(Bytes::copy_from_slice(&chance.to_le_bytes())), world.tell(0)),
            1 if last > 0 => world.journal.save_committed(id16, Some(id(last, 1))),
            2 if last > 2 => world.journal.purge(id16, id(last - 1, 1), world.tell(0)),
            3..9 => drop(world.writer.step(chance & 1 == 1)),
            _ => {
                world.append(shard as u16, next[shard], 200 + (chance >> 56) as usize);
                next[shard] += 1;
            }
        }
    }
    world.writer.settle();
    assert!(world.told().iter().all(|(_, ok)| *ok));
    for (shard, next) in next.iter().enumerate().filter(|(_, next)| **next > 1) {
        let read = world.journal.read(ShardId(shard as u16), range(*next - 1..*next), 10_000).unwrap();
        assert_eq!(read[0].id, id(next - 1, 1));
    }
    world.bytes()
}

#[test]
fn the_same_steps_leave_the_same_bytes() {
    for seed in 1..4 {
        let first = bytes_after(seed);
        assert!(first.len() > 3, "several files: {}", first.len());
        assert!(first == bytes_after(seed), "seed {seed}: two runs differ");
        assert!(first != bytes_after(seed + 100));
    }
}
