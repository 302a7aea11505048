//! Shards brought to a moment of their logs hold exactly what came before it, and go on from there, whatever their clocks said.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use logstore::id::{ConversationId, LogIndex, NodeId, ShardId, TimeMs, UserId};
use logstore::io::Disk;
use logstore::segment::{BlockCache, Item, SealedRecord};
use logstore::{Entry, EntryKind, JournalOptions, Manifest, SegmentSet};
use sequencer::founding::{self, Planted};
use sequencer::points::{EntryRun, Reached, replay_to};
use sequencer::state::name_home;
use sequencer::{AccountSeed, Clock, Command, Outcome, SequencerOptions, SystemClock};

use world::{SOON, World, id_now, options, text};

impl World {
    async fn claim(&self, name: &str) -> UserId {
        let command = Command::ClaimName { name: name.to_owned(), seed: AccountSeed::default(), request: id_now() };
        match self.shard_of(name_home(name)).execute(command).await {
            Ok(Outcome::Claimed { user, .. }) => user,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Waits until a claim is final.
    async fn confirmed(&self, name: &str) {
        let shard = self.shard_of(name_home(name));
        let confirmed = shard.wait_for(SOON, |state| state.name(name).filter(|row| row.confirmed).map(|row| row.user));
        let user = confirmed.await.unwrap_or_else(|| panic!("{name} is never confirmed"));
        let home = self.shard_of(ConversationId::system(user));
        let there = home.look(|state, _| state.user(user).map(|row| row.name.clone())).await.unwrap();
        assert_eq!(there.as_deref(), Some(name));
    }
}

/// A clock that is set forward and back all the time.
struct Jumping {
    asked: AtomicU64,
    by_ms: u64,
}

impl Clock for Jumping {
    fn now(&self) -> TimeMs {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        TimeMs(SystemClock.now().0 + asked % self.by_ms)
    }
}

/// Logs of all shards above a cut.
struct Logs {
    dir: tempfile::TempDir,
    bases: Vec<Manifest>,
    entries: BTreeMap<ShardId, Vec<Entry>>,
    /// Names that were claimed.
    names: Vec<String>,
    /// What all of it comes to.
    records: Vec<SealedRecord>,
}

fn records(sets: &[Arc<SegmentSet>]) -> Vec<SealedRecord> {
    let items = sets.iter().flat_map(|set| set.segments()).flat_map(|segment| segment.items());
    let records = items.map(Result::unwrap).filter_map(|item| match item {
        Item::Record(record) => Some(record),
        Item::Trimmed(_) => None,
    });
    let mut records: Vec<_> = records.collect();
    records.sort_by_key(|record| (record.conversation, record.seq));
    records
}

/// Names, accounts, groups and messages, with Seals and merges between them, and effects under way at any time.
async fn logs(clock: Arc<dyn Clock>) -> Logs {
    let dir = tempfile::tempdir().unwrap();
    let options = SequencerOptions { merge_inputs: 2, ..options() };
    let world = World::in_dir_by(dir.path(), options, clock).await;
    world.claim("before").await;
    let group = world.group(1, &[10, 11]).await;
    world.send(text(group, 10, "before")).await;
    let base = world.sequencer.cut(true).await.unwrap().sealed().await.unwrap();
    let mut names = vec!["before".to_owned()];
    for round in 0..60_u64 {
        for n in 0..4 {
            names.push(format!("user-{round}-{n}"));
            world.claim(names.last().unwrap()).await;
        }
        world.send(text(group, 10 + round % 2, format!("{round}"))).await;
        world.group(100 + round, &[10, round + 11]).await;
    }
    let shards = world.sequencer.shards().to_vec();
    let mut entries = BTreeMap::new();
    let whole = world.sequencer.cut(true).await.unwrap().sealed().await.unwrap();
    for ((shard, base), whole) in shards.iter().zip(&base).zip(&whole) {
        let [mut after, upto] = [base, whole].map(|set| set.manifest().checkpoint().unwrap().seal.index);
        let of_it = entries.entry(shard.id()).or_insert_with(Vec::new);
        while after < upto {
            let read = shard.entries(after, upto, 10_000).await.unwrap();
            after = read.last().expect("the journal has them").id.index;
            of_it.extend(read);
        }
    }
    let bases = base.iter().map(|set| set.manifest().clone()).collect();
    let records = records(&whole);
    world.stop().await;
    Logs { dir, bases, entries, names, records }
}

fn time_of(entry: &Entry) -> Option<TimeMs> {
    let bytes = entry.payload.get(4..12).filter(|_| entry.kind == EntryKind::Normal)?;
    Some(TimeMs(u64::from_le_bytes(bytes.try_into().unwrap())))
}

impl Logs {
    /// When the first and the last entry were made.
    fn span(&self) -> [u64; 2] {
        let times = || self.entries.values().flatten().filter_map(time_of).map(|time| time.0);
        [times().min().unwrap(), times().max().unwrap()]
    }

    /// A directory at a moment.
    fn at(&self, at: TimeMs) -> (tempfile::TempDir, Vec<Reached>) {
        let dir = tempfile::tempdir().unwrap();
        copy(&self.dir.path().join("segments"), &dir.path().join("segments"));
        let disk = logstore::io::real(dir.path());
        let run = |shard: ShardId| -> sequencer::Result<EntryRun<'_, sequencer::Error>> {
            Ok(Box::new(self.entries[&shard].iter().cloned().map(Ok)))
        };
        let reached = replay_to(&disk, &self.bases, at, &run).unwrap();
        let planted: Vec<Planted> = reached.iter().map(|one| one.planted).collect();
        let options = JournalOptions { file_bytes: 4 << 20, ..JournalOptions::default() };
        founding::plant(&disk, options, NodeId(1), &planted).unwrap();
        (dir, reached)
    }
}

/// Everything, for merges have taken the place of what a base lists: the test keeps what it had.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

fn sets(dir: &Path, bases: &[Manifest]) -> Vec<Arc<SegmentSet>> {
    let disk: Arc<dyn Disk> = logstore::io::real(dir);
    let open = |base: &Manifest| SegmentSet::open(&disk, base.shard(), &Arc::new(BlockCache::new(1 << 20))).unwrap();
    bases.iter().map(|base| Arc::new(open(base))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_moment_has_every_record_up_to_it_and_none_after_it() {
    let logs = logs(Arc::new(SystemClock)).await;
    let [first, last] = logs.span();
    let step = ((last - first) / 9).max(1);
    for at in [first - 1, first, last - 1, last].into_iter().chain((first..last).step_by(step as usize)).map(TimeMs) {
        let (dir, reached) = logs.at(at);
        let sets = sets(dir.path(), &logs.bases);
        let expected: Vec<_> = logs.records.iter().filter(|record| record.time <= at).cloned().collect();
        assert_eq!(records(&sets), expected, "at {at:?}");
        for (set, one) in sets.iter().zip(&reached) {
            set.verify().unwrap();
            let base = logs.bases.iter().find(|base| base.shard() == one.planted.shard).unwrap();
            let mut upto = base.checkpoint().unwrap().seal.index;
            for entry in &logs.entries[&one.planted.shard] {
                if time_of(entry).is_some_and(|time| time > at) {
                    break;
                }
                upto = entry.id.index;
            }
            assert_eq!((one.upto, one.is_cut_lower), (upto, false), "shard {}", one.planted.shard);
            assert!(one.time <= at.max(TimeMs(first - 1)));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_at_which_effects_are_under_way_loses_none_and_keeps_none_that_was_not_sent() {
    let (mut cut_lower, mut rounds) = (0, 0);
    for by_ms in [1, 5, 60, 400, 400, 2000] {
        rounds += 1;
        let logs = logs(Arc::new(Jumping { asked: AtomicU64::new(by_ms), by_ms })).await;
        let [first, last] = logs.span();
        let at = TimeMs(first + (last - first) * rounds / 8);
        let (dir, reached) = logs.at(at);
        cut_lower += reached.iter().filter(|one| one.is_cut_lower).count();
        let world = World::in_dir(dir.path(), options()).await;
        for name in &logs.names {
            let shard = world.shard_of(name_home(name));
            if shard.look(|state, _| state.name(name).is_some()).await.unwrap() {
                world.confirmed(name).await;
            }
        }
        // What is asked for anew finds no numbers of effects that others take for known.
        for n in 0..40 {
            let name = format!("new-{n}");
            world.claim(&name).await;
            world.confirmed(&name).await;
        }
        for shard in world.sequencer.shards() {
            let empty = shard.wait_for(SOON, |state| state.outbox_targets().is_empty().then_some(()));
            assert!(empty.await.is_some(), "shard {} has effects that nobody takes", shard.id());
        }
        world.stop().await;
    }
    assert!(cut_lower > 0, "clocks were apart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_are_missing_are_an_error() {
    let mut logs = logs(Arc::new(SystemClock)).await;
    let at = TimeMs(logs.span()[1]);
    let shard = logs.bases[0].shard();
    let gone = logs.entries.get_mut(&shard).unwrap().remove(1);
    let dir = tempfile::tempdir().unwrap();
    copy(&logs.dir.path().join("segments"), &dir.path().join("segments"));
    let run = |shard: ShardId| -> sequencer::Result<EntryRun<'_, sequencer::Error>> {
        Ok(Box::new(logs.entries[&shard].iter().cloned().map(Ok)))
    };
    let error = replay_to(&logstore::io::real(dir.path()), &logs.bases, at, &run).unwrap_err();
    let LogIndex(index) = gone.id.index;
    assert!(error.to_string().contains(&format!("entry {index}")), "{error}");
}
