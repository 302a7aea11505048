//! Merges and the store change how a shard is kept, never what it is.

use logstore::id::SegmentOrdinal;
use logstore::io::faulty::{FaultyDisk, Survives};

use super::absorb::{believed, follow};
use super::replica::{Log, Replica, content, restored};
use super::restore;
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
    assert_eq!(store_hash(&eager.disk), store_hash(&lazy.disk), "deltas are values: the way does not matter");
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
        (restored.state.digest(), content(&restored.sealed))
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
            assert_eq!(restored.state.digest(), digest, "{at}");
            assert_eq!(content(&restored.sealed), records, "{at}");
            counts.insert(restored.sealed.segments().len());
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
    let sealed = restored(&disk).sealed;
    assert_eq!(sealed.manifest().store_mark(), SegmentOrdinal(8));
    let store = believed(&disk.handle(), sealed.manifest()).unwrap().unwrap();
    let state = restore::above_store(sealed.manifest().shard(), &sealed, &store).unwrap();
    drop(store);
    assert_eq!(state.digest(), digest);
    assert_eq!(restored(&disk).state.digest(), digest);
}

#[test]
fn a_store_that_is_lost_damaged_or_of_another_life_is_made_anew_and_changes_nothing() {
    let (disk, digest) = merged();
    let path = StateCache::path(restored(&disk).sealed.manifest().shard());
    let whole = (store_hash(&disk), disk.bytes(&path).len());
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
        assert_eq!(restored.state.digest(), digest, "trial {trial}");
        follow(&disk.handle(), restored.sealed.manifest(), &restored.sealed, &mut |_| {}, &|| true).unwrap();
        assert_eq!(store_hash(&disk), whole.0, "trial {trial}");
    }
}

/// All merges carried out, and the digest as of the last Seal.
fn merged() -> (FaultyDisk, u128) {
    let disk = unmerged(&log());
    let digest = restored(&disk).state.digest();
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

fn store_hash(disk: &FaultyDisk) -> [u8; 32] {
    let sealed = restored(disk).sealed;
    believed(&disk.handle(), sealed.manifest()).unwrap().expect("it is believed").hash().unwrap()
}
