//! Merges and the store change how a shard is kept, never what it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logstore::id::SegmentOrdinal;
use logstore::io::faulty::{FaultyDisk, Survives};
use logstore::segment::Level;

use super::absorb::follow;
use super::replica::{Log, Replica, content, restored};
use crate::store::SealedRows;
use crate::store::cache::StateCache;

/// Ten generations; merges of 1-4 and 5-8, and one of both.
fn log() -> Log {
    let mut log = Log::new();
    for number in 1..=10 {
        log.push_generation(number);
        match number {
            5 => log.push_merge(1, 4, 1),
            8 => log.push_merge(5, 8, 1),
            9 => log.push_merge(1, 8, 2),
            _ => {}
        }
    }
    log
}

/// Everything sealed, all merges asked for, none carried out.
fn unmerged(log: &Log) -> FaultyDisk {
    let replica = Replica::open(&FaultyDisk::new());
    replica.feed(log, usize::MAX);
    replica.seal();
    replica.journal.close();
    replica.disk
}

fn spans(replica: &Replica) -> Vec<(u64, u64, u8)> {
    replica.segments().iter().map(|id| (id.first.0, id.last.0, id.level.0)).collect()
}

#[test]
fn replicas_that_seal_and_merge_when_they_like_end_with_the_same_segments() {
    let log = log();
    let (eager, lazy) = (Replica::open(&FaultyDisk::new()), Replica::open(&FaultyDisk::new()));
    let mut seen = Vec::new();
    while (eager.core.applied().0 as usize) < log.entries.len() {
        eager.feed(&log, 1);
        eager.seal();
        eager.merge().unwrap();
        seen.push(spans(&eager));
    }
    while (lazy.core.applied().0 as usize) < log.entries.len() {
        lazy.feed(&log, 7);
    }
    lazy.seal();
    let before = lazy.content();
    lazy.merge().unwrap();

    assert!(seen.contains(&vec![(1, 4, 1), (5, 5, 0), (6, 6, 0)]), "one carried out every merge: {seen:?}");
    assert_eq!(spans(&lazy), [(1, 8, 2), (9, 9, 0), (10, 10, 0)], "the other what came of them");
    assert_eq!(eager.segments(), lazy.segments());
    assert_eq!((eager.digest(), eager.content()), (lazy.digest(), lazy.content()));
    assert_eq!(lazy.content(), before);
    assert_eq!(
        store_hash(eager.core.rows()),
        store_hash(lazy.core.rows()),
        "deltas are values: the way does not matter"
    );
}

#[test]
fn a_merge_waits_until_the_segments_know_of_it() {
    let mut log = Log::new();
    (1..=4).for_each(|number| log.push_generation(number));
    log.push_merge(1, 4, 1);
    let replica = Replica::open(&FaultyDisk::new());
    replica.feed(&log, usize::MAX);
    replica.seal();
    replica.merge().unwrap();
    assert_eq!(spans(&replica).len(), 4, "a state restored now would not ask for it");
    log.push_generation(5);
    replica.feed(&log, usize::MAX);
    replica.seal();
    replica.merge().unwrap();
    assert_eq!(spans(&replica), [(1, 4, 1), (5, 5, 0)]);
}

#[test]
fn a_merge_interrupted_at_any_step_leaves_old_or_new_segments_and_goes_on() {
    let log = log();
    let base = unmerged(&log);
    let (digest, records) = {
        let restored = restored(&base);
        (restored.state.digest_over_sealed().unwrap(), content(&restored.sealed))
    };
    let end = {
        let replica = Replica::open(&base.crash(Survives::Everything));
        replica.merge().unwrap();
        replica.segments()
    };
    let mut counts = std::collections::BTreeSet::new();
    for step in 0.. {
        let replica = Replica::open(&base.crash(Survives::Everything));
        replica.disk.power_off_after(step);
        let merged = replica.merge();
        for survives in [Survives::Nothing, Survives::Everything, Survives::Sectors(step)] {
            let disk = replica.disk.crash(survives);
            let restored = restored(&disk);
            let at = format!("step {step}, {survives:?}");
            assert_eq!(restored.state.digest_over_sealed().unwrap(), digest, "{at}");
            assert_eq!(content(&restored.sealed), records, "{at}");
            counts.insert(restored.sealed.segments().len());
            drop(restored);
            let again = Replica::open(&disk);
            again.merge().unwrap();
            let sealed = again.core.read().1.sealed().clone();
            again.work().store_follows(sealed.manifest());
            assert_eq!(again.segments(), end, "{at}");
            assert_eq!(again.core.read().1.sealed().manifest().store_mark(), SegmentOrdinal(8), "{at}");
            again.journal.close();
        }
        let is_whole = merged.is_ok() && replica.core.read().1.sealed().manifest().store_mark().0 > 0;
        replica.journal.close();
        if is_whole {
            assert!(step > 20, "there were steps to be interrupted at");
            assert_eq!(counts.into_iter().collect::<Vec<_>>(), [3, 10], "old or new");
            return;
        }
    }
}

#[test]
fn a_start_reads_the_store_and_what_is_newer_and_finds_the_same_state() {
    let (disk, digest) = merged();
    let restored = restored(&disk);
    assert_eq!(restored.sealed.manifest().store_mark(), SegmentOrdinal(8));
    assert!(restored.rows.store().is_some() && !restored.state.is_whole());
    assert_eq!(restored.state.digest_over_sealed().unwrap(), digest);
    restored.rows.lose_store();
    assert_eq!(restored.state.digest_over_sealed().unwrap(), digest, "of segments alone");
}

#[test]
fn a_store_that_is_lost_damaged_or_of_another_life_is_made_anew_and_changes_nothing() {
    let (disk, digest) = merged();
    let (path, hash) = {
        let restored = restored(&disk);
        (StateCache::path(restored.sealed.manifest().shard()), store_hash(&restored.rows))
    };
    let whole = (hash, disk.bytes(&path).len());
    for trial in 0..60 {
        let disk = disk.crash(Survives::Everything);
        match trial % 4 {
            0 => disk.handle().remove(&path).unwrap(),
            1 => disk.damage(&path, |bytes| bytes.truncate(whole.1 / 60 * trial)),
            // Every 7th of a KiB, in another place each time.
            2 => (trial..whole.1).step_by(7 << 7).for_each(|offset| disk.flip(&path, offset, 0x10)),
            _ => {
                let foreign = merged_otherwise();
                let bytes = foreign.bytes(&path);
                disk.damage(&path, |old| old.clone_from(&bytes));
            }
        }
        let restored = restored(&disk);
        assert_eq!(restored.state.digest_over_sealed().unwrap(), digest, "trial {trial}");
        let (sealed, rows) = (&restored.sealed, &restored.rows);
        follow(&disk.handle(), rows, sealed.manifest(), sealed, &mut |_| {}, &|| true).unwrap();
        assert_eq!(store_hash(rows), whole.0, "trial {trial}");
        assert_eq!(restored.state.digest_over_sealed().unwrap(), digest, "trial {trial}, from the new store");
    }
}

#[test]
fn a_merge_of_merges_costs_the_store_its_mark_and_no_row() {
    let log = log();
    let replica = Replica::open(&FaultyDisk::new());
    let mut before = None;
    while before.is_none() {
        replica.feed(&log, 1);
        replica.seal();
        match replica.due().filter(|plan| plan.level == Level(2)) {
            Some(plan) => before = Some(replica.work().merge(&plan).unwrap()),
            None => replica.merge().unwrap(),
        }
    }
    let sealed = replica.core.read().1.sealed().clone();
    let absorbed = |before| {
        let mut bytes = 0;
        let rows = replica.core.rows();
        let mark = follow(&replica.disk.handle(), rows, before, &sealed, &mut |more| bytes += more, &|| true).unwrap();
        assert_eq!(mark, SegmentOrdinal(8));
        bytes
    };
    assert_eq!(absorbed(before.as_ref().unwrap()), 0);
    assert_eq!(absorbed(sealed.manifest()), 0, "its mark is that of the larger segment now");
}

#[test]
fn seals_and_merges_at_the_same_time_lose_nothing() {
    let mut log = Log::new();
    for number in 1..=24 {
        log.push_generation(number);
        if number > 2 && number % 2 == 1 {
            log.push_merge(number - 2, number - 1, 1);
        }
    }
    let (calm, busy) = (Replica::open(&FaultyDisk::new()), Replica::open(&FaultyDisk::new()));
    calm.feed(&log, usize::MAX);
    calm.seal();
    let is_over = AtomicBool::new(false);
    busy.disk.hold_syncs();
    std::thread::scope(|threads| {
        // A slow disk, so that one is in the middle of publishing when the other comes.
        threads.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                if busy.disk.wait_for_held_sync(Duration::from_millis(5)) {
                    std::thread::sleep(Duration::from_millis(1));
                    busy.disk.release_one_sync();
                }
            }
        });
        let over = Over(&is_over);
        let sealing = threads.spawn(|| {
            while (busy.core.applied().0 as usize) < log.entries.len() {
                busy.feed(&log, 3);
                busy.seal();
            }
        });
        while !sealing.is_finished() {
            busy.merge().unwrap();
        }
        busy.merge().unwrap();
        drop(over);
    });
    busy.disk.release_syncs();
    assert_eq!(busy.content(), calm.content());
    calm.merge().unwrap();
    assert_eq!((busy.segments(), busy.digest()), (calm.segments(), calm.digest()));
    assert_eq!(busy.segments().len(), 13, "11 merges and two seals that nobody asked to merge");
}

/// Says that it is over, also when a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// All merges carried out, and the digest as of the last Seal.
fn merged() -> (FaultyDisk, u128) {
    let disk = unmerged(&log());
    let digest = restored(&disk).state.digest_over_sealed().unwrap();
    let replica = Replica::open(&disk);
    replica.merge().unwrap();
    replica.journal.close();
    (disk, digest)
}

/// The same shard in another life.
fn merged_otherwise() -> FaultyDisk {
    let mut log = Log::new();
    (1..=9).for_each(|number| log.push_generation(number + 1));
    log.push_merge(1, 8, 1);
    log.push_generation(10);
    let replica = Replica::open(&unmerged(&log));
    replica.merge().unwrap();
    replica.journal.close();
    replica.disk
}

fn store_hash(rows: &SealedRows) -> [u8; 32] {
    rows.store().expect("it is believed").hash().unwrap()
}
