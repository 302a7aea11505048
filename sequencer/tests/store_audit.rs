//! A store compared with the segments it was made of: what is wrong with it is found, and nothing is changed by looking.

#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;

use logstore::SegmentSet;
use logstore::id::ShardId;
use logstore::io::faulty::{FaultyDisk, Survives};
use logstore::segment::BlockCache;
use sequencer::store::cache::{Audit, Mark, StateCache, audit};
use sequencer::{Error, SequencerOptions};

use world::{World, options, text};

const SHARD: ShardId = ShardId(0);
const MEMORY: usize = 1 << 20;

fn path() -> String {
    StateCache::path(SHARD)
}

/// A stopped node's disk with three segments and a store that has absorbed two of them.
async fn stopped() -> FaultyDisk {
    let disk = FaultyDisk::new();
    let world = World::on(&disk, SequencerOptions { shards: 1, ..options() }).await;
    for number in 1..=3 {
        let group = world.group(number, &[10, 11]).await;
        for n in 0..40 {
            world.send(text(group, 10, format!("{number} {n}"))).await;
        }
        world.shard_of(group).seal().await.unwrap();
    }
    world.stop().await;
    let set = segments(&disk);
    let store = store(&disk);
    for segment in &set.segments()[..2] {
        let rows = segment.delta_rows().map(|row| row.map(|row| (row.key, row.value)).map_err(Error::from));
        store.absorb(rows, Mark::of(segment.info())).unwrap();
    }
    drop(store);
    disk
}

fn segments(disk: &FaultyDisk) -> SegmentSet {
    SegmentSet::open(&disk.handle(), SHARD, &Arc::new(BlockCache::new(1 << 20))).unwrap()
}

fn store(disk: &FaultyDisk) -> StateCache {
    StateCache::open(disk.handle(), &path(), SHARD, MEMORY).unwrap().cache
}

/// Looks, and asserts that no byte has changed.
fn look(disk: &FaultyDisk) -> sequencer::Result<Audit> {
    let before = disk.bytes(&path());
    let set = segments(disk);
    let found = audit(&disk.handle(), set.manifest(), Some(&set), MEMORY);
    assert!(disk.bytes(&path()) == before && disk.handle().list("store").unwrap() == ["00000.redb"]);
    found
}

fn what_is_wrong(disk: &FaultyDisk) -> String {
    match look(disk) {
        Err(Error::StoreDamaged { path: found, what, .. }) if found == path() => what,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_store_is_told_by_its_mark_and_one_of_other_segments_or_none_by_not_being_used() {
    let disk = stopped().await;
    let (mark, hash) = (store(&disk).mark(), store(&disk).hash().unwrap());
    assert_eq!(mark, Mark::of(&segments(&disk).manifest().segments()[1]));
    assert_eq!(look(&disk).unwrap(), Audit::Sound { mark, hash });

    store(&disk).rename_absorbed([7; 32]).unwrap();
    assert_eq!(look(&disk).unwrap(), Audit::NotBelieved);
    drop(store(&disk).discard().unwrap());
    assert_eq!(look(&disk).unwrap(), Audit::NotBelieved, "it has absorbed nothing");
    disk.handle().remove(&path()).unwrap();
    let set = segments(&disk);
    assert_eq!(audit(&disk.handle(), set.manifest(), Some(&set), MEMORY).unwrap(), Audit::Absent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_verifies_and_holds_something_else_is_found_by_its_hash() {
    let disk = stopped().await;
    let mark = store(&disk).mark();
    let rows = store(&disk).scan(b"", None, usize::MAX).unwrap();
    for changed in 0..3 {
        let mut rows: Vec<_> = rows.iter().cloned().map(|(key, value)| (key, Some(value))).collect();
        match changed {
            0 => drop(rows.pop()),
            1 => rows[3].1 = Some("another value".into()),
            _ => rows.push(([&[0xFF; 9][..], b"a row of nobody's"].concat().into(), Some("here".into()))),
        }
        let other = store(&disk).discard().unwrap();
        other.absorb(rows.into_iter().map(Ok), mark).unwrap();
        drop(other);
        assert!(what_is_wrong(&disk).contains("not what the deltas"), "{changed}");
    }
    let set = segments(&disk);
    let alone = audit(&disk.handle(), set.manifest(), None, MEMORY).unwrap();
    assert!(matches!(alone, Audit::Sound { .. }), "without segments there is nothing to compare with");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flip_anywhere_in_a_store_is_found_or_is_where_nothing_is_read() {
    let whole = stopped().await;
    let sound = look(&whole).unwrap();
    let (mut found, mut harmless) = (0, 0);
    for at in (0..whole.bytes(&path()).len()).step_by(997) {
        let disk = whole.crash(Survives::Nothing);
        disk.flip(&path(), at, 1 << (at % 8));
        match look(&disk) {
            Ok(same) => {
                assert_eq!(same, sound, "a flip at {at}");
                harmless += 1;
            }
            Err(Error::StoreDamaged { .. }) => found += 1,
            Err(error) => panic!("a flip at {at}: {error}"),
        }
    }
    assert!(found > 10 && harmless > 10, "{found} found, {harmless} in pages that are free");
    for cut in [0, 100, 5000, whole.bytes(&path()).len() - 1] {
        let disk = whole.crash(Survives::Nothing);
        disk.damage(&path(), |bytes| bytes.truncate(cut));
        assert!(!what_is_wrong(&disk).is_empty(), "cut to {cut}");
    }
}
