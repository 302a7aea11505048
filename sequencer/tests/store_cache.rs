//! The state store: it is the fold of its deltas, as of one mark, whatever crashes, fails or rots; and what is not
//! its own bytes is named and thrown away.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use logstore::id::{LogIndex, ShardId};
use logstore::io::Disk;
use logstore::io::faulty::{FaultyDisk, Operation, Survives};
use proptest::prelude::*;
use sequencer::Error;
use sequencer::store::cache::{Mark, Opened, StateCache};

const SHARD: ShardId = ShardId(7);
const MEMORY: usize = 1 << 20;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
type Delta = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

fn path() -> String {
    StateCache::path(SHARD)
}

fn open(disk: &FaultyDisk) -> sequencer::Result<Opened> {
    StateCache::open(disk.handle(), &path(), SHARD, MEMORY)
}

/// Opens a store that must be well.
fn whole(disk: &FaultyDisk) -> StateCache {
    let Opened { cache, discarded } = open(disk).unwrap();
    assert_eq!(discarded, None);
    cache
}

fn mark(ordinal: u64) -> Mark {
    Mark { ordinal, index: LogIndex(ordinal * 10), identity: [ordinal as u8; 32] }
}

fn absorb(cache: &StateCache, delta: &Delta, ordinal: u64) -> sequencer::Result<()> {
    cache.absorb(delta.iter().map(|(key, value)| Ok((key, value.as_ref()))), mark(ordinal))
}

fn fold(rows: &mut Rows, delta: &Delta) {
    for (key, value) in delta {
        match value {
            Some(value) => drop(rows.insert(key.clone(), value.clone())),
            None => drop(rows.remove(key)),
        }
    }
}

/// Every row, read in small pieces.
fn all(cache: &StateCache, prefix: &[u8]) -> sequencer::Result<Rows> {
    let (mut rows, mut after) = (Rows::new(), None::<Vec<u8>>);
    loop {
        let piece = cache.scan(prefix, after.as_deref(), 300)?;
        let Some((last, _)) = piece.last() else { return Ok(rows) };
        after = Some(last.to_vec());
        rows.extend(piece.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
    }
}

/// Deltas that set, replace and remove rows of several prefixes; some values are larger than a page.
fn deltas(count: u64) -> Vec<Delta> {
    let row = |delta: u64, n: u64| {
        let key = format!("{}/{:03}", n % 3, (n * 7 + delta * 11) % 60).into_bytes();
        let bytes = if n == 5 { 9000 } else { 20 + (n * 31 % 90) as usize };
        let value = vec![(delta * 16 + n % 16) as u8; bytes];
        (key, (!(n + delta).is_multiple_of(4)).then_some(value))
    };
    (1..=count).map(|delta| (0..40).map(|n| row(delta, n)).collect()).collect()
}

fn any_delta() -> impl Strategy<Value = Delta> {
    let key = proptest::collection::vec(0..4_u8, 0..6);
    let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..60));
    proptest::collection::btree_map(key, value, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_store_is_the_fold_of_its_deltas(list in proptest::collection::vec((any_delta(), any::<bool>()), 1..8)) {
        let disk = FaultyDisk::new();
        let (mut cache, mut rows) = (whole(&disk), Rows::new());
        for (ordinal, (delta, restart)) in (1..).zip(&list) {
            absorb(&cache, delta, ordinal).unwrap();
            fold(&mut rows, delta);
            if *restart {
                drop(cache);
                cache = whole(&disk);
            }
            prop_assert_eq!(cache.mark(), mark(ordinal));
            prop_assert_eq!(&all(&cache, b"").unwrap(), &rows);
        }
        for first in 0..4 {
            let expected: Rows = rows.clone().into_iter().filter(|(key, _)| key.first() == Some(&first)).collect();
            prop_assert_eq!(all(&cache, &[first]).unwrap(), expected);
        }
        let keys: Vec<Vec<u8>> = list.iter().flat_map(|(delta, _)| delta.keys().cloned()).collect();
        let found = cache.get_all(keys.iter().map(Vec::as_slice)).unwrap();
        for (key, found) in keys.iter().zip(found) {
            prop_assert_eq!(found.as_deref(), rows.get(key).map(Vec::as_slice));
        }
        // One delta of everything gives the same content.
        let other = FaultyDisk::new();
        let anew = whole(&other);
        let delta = rows.into_iter().map(|(key, value)| (key, Some(value))).collect();
        absorb(&anew, &delta, 1).unwrap();
        prop_assert_eq!(anew.hash().unwrap(), cache.hash().unwrap());
        cache.verify().unwrap();
    }
}

#[test]
fn a_delta_that_cannot_be_taken_in_changes_nothing() {
    let disk = FaultyDisk::new();
    let cache = whole(&disk);
    let list = deltas(2);
    absorb(&cache, &list[0], 5).unwrap();
    let (rows, hash) = (all(&cache, b"").unwrap(), cache.hash().unwrap());
    for ordinal in [1, 5] {
        assert!(matches!(absorb(&cache, &list[1], ordinal), Err(Error::NotNext { .. })));
    }
    let unsorted = [("b", Some("1")), ("a", Some("2"))].map(Ok);
    assert!(matches!(cache.absorb(unsorted, mark(6)), Err(Error::NotNext { .. })));
    let broken = [Ok(("a", Some("1"))), Err(Error::NoSuchShard(SHARD))];
    assert!(matches!(cache.absorb(broken, mark(6)), Err(Error::NoSuchShard(SHARD))));
    assert_eq!((cache.mark(), cache.hash().unwrap(), all(&cache, b"").unwrap()), (mark(5), hash, rows));
    absorb(&cache, &list[1], 6).unwrap();
    assert_ne!(cache.hash().unwrap(), hash);
    let cache = cache.discard().unwrap();
    assert_eq!((cache.mark(), all(&cache, b"").unwrap()), (Mark::default(), Rows::new()));
    drop(cache);
    assert_eq!(whole(&disk).mark(), Mark::default());
}

fn survivors() -> Vec<Survives> {
    let torn = [1, 63, 500, 4096, 5000, 9000, 20_000].map(Survives::Prefix);
    [Survives::Nothing, Survives::Everything].into_iter().chain(torn).chain((0..6).map(Survives::Sectors)).collect()
}

/// The states after each of the deltas, by mark.
fn states(list: &[Delta]) -> Vec<Rows> {
    let mut states = vec![Rows::new()];
    for delta in list {
        let mut rows = states.last().unwrap().clone();
        fold(&mut rows, delta);
        states.push(rows);
    }
    states
}

#[test]
fn the_power_may_go_off_at_every_step() {
    let list = deltas(4);
    let states = states(&list);
    // Opened and closed twice; gives what was said to be durable.
    let live = |disk: &FaultyDisk| {
        let mut durable = 0;
        for ordinals in [1..3, 3..5] {
            let Ok(Opened { cache, .. }) = open(disk) else { return durable };
            for ordinal in ordinals {
                if absorb(&cache, &list[ordinal as usize - 1], ordinal).is_err() {
                    return durable;
                }
                durable = ordinal;
            }
        }
        durable
    };
    let undisturbed = FaultyDisk::new();
    assert_eq!(live(&undisturbed), 4);
    let steps = undisturbed.steps();
    assert!(steps > 40, "{steps}");
    for step in 0..=steps {
        let disk = FaultyDisk::new();
        disk.power_off_after(step);
        let durable = live(&disk);
        let crash = |survives| {
            let crashed = disk.crash(survives);
            let what = format!("step {step}, {survives:?}");
            let Opened { mut cache, discarded } = open(&crashed).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(discarded, None, "{what}");
            let found = cache.mark().ordinal;
            assert!(all(&cache, b"").unwrap() == states[found as usize], "{what}: not as of mark {found}");
            cache.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
            // It goes on from there.
            for (ordinal, delta) in (1..).zip(&list).skip(found as usize) {
                absorb(&cache, delta, ordinal).unwrap();
            }
            assert!(all(&cache, b"").unwrap() == states[list.len()], "{what}: at the end");
            found
        };
        for found in survivors().into_iter().map(crash) {
            assert!((durable..=durable + 1).contains(&found), "step {step}: {durable} was durable, {found} is there");
        }
    }
}

#[test]
fn a_store_that_crashes_again_and_again_ends_as_the_fold_of_all() {
    let list = deltas(30);
    let states = states(&list);
    let mut disk = FaultyDisk::new();
    for round in 0..400_u64 {
        disk.power_off_after(3 + round * 7 % 40);
        if let Ok(Opened { cache, discarded }) = open(&disk) {
            assert_eq!(discarded, None, "round {round}");
            let found = cache.mark().ordinal;
            assert!(all(&cache, b"").unwrap() == states[found as usize], "round {round}, mark {found}");
            for (ordinal, delta) in (1..).zip(&list).skip(found as usize) {
                if absorb(&cache, delta, ordinal).is_err() {
                    break;
                }
            }
        }
        disk = disk.crash(Survives::Sectors(round));
    }
    assert_eq!(whole(&disk).mark(), mark(30));
}

/// A store of several deltas, closed.
fn written() -> (FaultyDisk, Rows) {
    let disk = FaultyDisk::new();
    let list = deltas(4);
    let cache = whole(&disk);
    for (ordinal, delta) in (1..).zip(&list) {
        absorb(&cache, delta, ordinal).unwrap();
    }
    drop(cache);
    (disk.crash(Survives::Nothing), states(&list).pop().unwrap())
}

#[test]
fn a_file_that_is_not_a_store_is_thrown_away_and_said_so() {
    let (written, _) = written();
    let mut chance = 1_u64;
    let mut noise = |_| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (chance >> 56) as u8
    };
    let len = written.bytes(&path()).len();
    let whole_file = written.bytes(&path());
    let replacements: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("zeros", vec![0; len]),
        ("random bytes", (0..len).map(&mut noise).collect()),
        ("few random bytes", (0..100).map(&mut noise).collect()),
        ("its head alone", whole_file[..8192].to_vec()),
        ("half of it", whole_file[..len / 2].to_vec()),
        ("all but its last byte", whole_file[..len - 1].to_vec()),
        ("all but its heads", [vec![0; 8192], whole_file[8192..].to_vec()].concat()),
        ("a file of redb's own", [b"redb\x1A\x0A\xA9\x0D\x0A".to_vec(), vec![7; 20_000]].concat()),
    ];
    for (what, bytes) in replacements {
        let disk = written.crash(Survives::Nothing);
        disk.damage(&path(), |file| file.clone_from(&bytes));
        let Opened { cache, discarded } = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(discarded.is_some(), "{what}");
        assert_eq!((cache.mark(), all(&cache, b"").unwrap()), (Mark::default(), Rows::new()), "{what}");
        absorb(&cache, &deltas(1)[0], 1).unwrap();
        drop(cache);
        assert_eq!(whole(&disk).mark(), mark(1), "{what}");
    }
}

#[test]
fn another_shards_store_is_thrown_away_and_a_newer_one_is_refused() {
    let (disk, _) = written();
    disk.handle().rename(&path(), &StateCache::path(ShardId(8))).unwrap();
    let opened = StateCache::open(disk.handle(), &StateCache::path(ShardId(8)), ShardId(8), MEMORY).unwrap();
    assert_eq!(opened.discarded.as_deref(), Some("it is that of shard 7"));

    let (disk, _) = written();
    disk.damage(&path(), |file| {
        for head in file[..8192].chunks_mut(4096) {
            head[8] = 2;
            let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&head[..4088], 0);
            head[4088..].copy_from_slice(&hash.to_le_bytes());
        }
    });
    let before = disk.bytes(&path());
    let error = open(&disk).err().unwrap();
    assert!(matches!(error, Error::Log(logstore::Error::NewerFormat { found: 2, known: 1, .. })), "{error}");
    assert!(disk.bytes(&path()) == before, "it is left as it is");
}

/// Everything a store can be asked, compared with what it should hold; `Err` only if it says that it is damaged.
fn ask(disk: &FaultyDisk, rows: &Rows, what: &str) -> Result<(), String> {
    let Opened { mut cache, discarded } = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    if let Some(why) = discarded {
        assert_eq!(cache.mark(), Mark::default(), "{what}");
        return Err(why);
    }
    assert_eq!(cache.mark(), mark(4), "{what}");
    let mut asked = || {
        for (key, value) in rows {
            assert_eq!(cache.get(key)?.as_deref(), Some(value.as_slice()), "{what}");
        }
        assert!(all(&cache, b"")? == *rows, "{what}");
        cache.hash()?;
        cache.verify()?;
        absorb(&cache, &deltas(5)[4], 5)
    };
    let answer = asked();
    match answer {
        Ok(()) => Ok(()),
        Err(Error::StoreDamaged { what, .. }) => {
            assert!(cache.hash().is_err(), "{what}: nothing is read of it any more");
            assert_eq!(cache.discard().unwrap().mark(), Mark::default());
            Err(what)
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

#[test]
fn a_flip_anywhere_is_noticed_or_changes_nothing() {
    let (written, rows) = written();
    let (mut noticed, mut harmless) = (0, 0);
    for at in (0..written.bytes(&path()).len()).step_by(211) {
        let disk = written.crash(Survives::Nothing);
        disk.flip(&path(), at, 1 << (at % 8));
        match ask(&disk, &rows, &format!("a flip at {at}")) {
            Ok(()) => harmless += 1,
            Err(_) => noticed += 1,
        }
    }
    assert!(noticed > 10 && harmless > 10, "{noticed} noticed, {harmless} in pages that are free");
}

#[test]
fn a_page_whose_last_life_the_disk_has_lost_is_never_a_panic() {
    // The file as of each delta; then single pages of older ones in the newest.
    let (list, disk) = (deltas(4), FaultyDisk::new());
    let (cache, mut lives) = (whole(&disk), Vec::new());
    for (ordinal, delta) in (1..).zip(&list) {
        absorb(&cache, delta, ordinal).unwrap();
        lives.push(disk.bytes(&path()));
    }
    drop(cache);
    let newest = disk.crash(Survives::Nothing);
    let (mut damaged, mut unharmed) = (0, 0);
    for life in lives {
        for at in (8192..life.len()).step_by(4104) {
            if newest.bytes(&path())[at..at + 4104] == life[at..at + 4104] {
                continue;
            }
            let disk = newest.crash(Survives::Nothing);
            disk.damage(&path(), |file| file[at..at + 4104].copy_from_slice(&life[at..at + 4104]));
            let Opened { mut cache, discarded } = open(&disk).unwrap();
            // What it says of single keys may be old; that it is not sound is found by a look at all of it.
            for key in list.iter().flat_map(Delta::keys) {
                let _ = cache.get(key);
            }
            match (discarded, cache.verify()) {
                (None, Ok(_)) => unharmed += 1,
                (Some(_), _) | (None, Err(Error::StoreDamaged { .. })) => damaged += 1,
                (None, Err(error)) => panic!("page at {at}: {error}"),
            }
        }
    }
    assert!(damaged > 3 && unharmed > 3, "{damaged} damaged, {unharmed} unharmed");
}

#[test]
fn errors_of_the_disk_are_told_and_gone_after_reopening() {
    let list = deltas(6);
    let all_of = states(&list);
    let operations =
        [Operation::Write, Operation::Sync, Operation::Read, Operation::Allocate, Operation::Open, Operation::Create];
    for (operation, nth) in operations.into_iter().flat_map(|operation| (1..6).map(move |nth| (operation, nth))) {
        let (disk, _) = written();
        let what = format!("{operation:?} {nth}");
        disk.fail(operation, nth, ErrorKind::Other);
        let first = open(&disk).and_then(|opened| absorb(&opened.cache, &list[4], 5));
        if let Err(error) = first {
            assert!(matches!(error, Error::Log(logstore::Error::Io { .. })), "{what}: {error}");
        }
        disk.heal();
        let Opened { cache, discarded } = open(&disk).unwrap();
        assert_eq!(discarded, None, "{what}");
        let found = cache.mark().ordinal;
        assert!(found >= 4 && all(&cache, b"").unwrap() == all_of[found as usize], "{what}: {found}");
    }
    // In place, and with a full disk.
    let (disk, _) = written();
    let cache = whole(&disk);
    disk.set_capacity(disk.bytes(&path()).len() as u64);
    let much: Delta = (0..200_u32).map(|n| (n.to_be_bytes().to_vec(), Some(vec![1; 4000]))).collect();
    let error = absorb(&cache, &much, 5).unwrap_err();
    assert!(
        matches!(&error, Error::Log(logstore::Error::Io { source, .. }) if source.kind() == ErrorKind::StorageFull)
    );
    disk.heal();
    let Opened { cache, discarded } = cache.reopen().unwrap();
    assert_eq!((discarded, cache.mark()), (None, mark(4)));
    absorb(&cache, &much, 5).unwrap();
}

#[test]
fn a_store_on_the_real_disk_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = logstore::io::real(root.path());
    let open = || StateCache::open(disk.clone(), &path(), SHARD, MEMORY).unwrap();
    let list = deltas(3);
    let cache = open().cache;
    for (ordinal, delta) in (1..).zip(&list) {
        absorb(&cache, delta, ordinal).unwrap();
    }
    let hash = cache.hash().unwrap();
    drop(cache);
    let Opened { cache, discarded } = open();
    assert_eq!((discarded, cache.mark(), cache.hash().unwrap()), (None, mark(3), hash));
    assert!(all(&cache, b"").unwrap() == states(&list)[3]);
}
