//! Damage is ordinary: the journal is cut and flipped at every byte of its last blocks. A torn tail is cut and all
//! before it stays; rot is named and nothing is cut; nothing panics.

#![allow(clippy::unwrap_used)]

mod support;

use logstore::id::{LogIndex, ShardId};
use logstore::io::faulty::{FaultyDisk, Operation, Survives};
use logstore::{Error, Journal, JournalOptions};
use support::{append, entries, id, open, purge, read_all, small, vote};

const FILE: &str = "journal/0000000001.journal";
/// Header, then the checkpoint block, then one block for each append.
const BLOCKS_AT: usize = 8192;
const BLOCK: usize = 4096;

fn options() -> JournalOptions {
    JournalOptions { reserve_files: 0, held_files_max: 100, proof_after: support::PATIENCE, ..small() }
}

fn reopen(disk: &FaultyDisk) -> logstore::Result<Journal> {
    open(&disk.handle(), options())
}

/// Appends of three entries of 100 bytes to shard 1, one block each; the last may have no proof after it.
fn written(appends: u64, proven: bool) -> FaultyDisk {
    let disk = FaultyDisk::new();
    let journal = reopen(&disk).unwrap();
    for n in 0..appends {
        append(&journal, 1, entries(1, n * 3 + 1..n * 3 + 4, 1, 100)).unwrap();
    }
    if proven {
        journal.close();
    }
    disk.crash(Survives::Nothing)
}

/// Bytes of a block of `written` that its CRCs cover: header, and three frames of 140 bytes aligned to 8.
const COVERED: usize = 64 + 3 * 144;

fn block_at(n: usize) -> usize {
    BLOCKS_AT + n * BLOCK
}

/// The shard's entries must be exactly 1 to `last`, and go on.
fn assert_ends(disk: &FaultyDisk, last: u64, what: &str) {
    let journal = reopen(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = journal.shard_log(ShardId(1)).last.map_or(0, |last| last.index.0);
    assert_eq!(found, last, "{what}");
    assert_eq!(read_all(&journal, 1, 1..last + 1).unwrap(), entries(1, 1..last + 1, 1, 100), "{what}");
    append(&journal, 1, entries(1, last + 1..last + 2, 1, 100)).unwrap();
    drop(journal);
    let journal = reopen(disk).unwrap_or_else(|error| panic!("{what}, once more: {error}"));
    assert_eq!(journal.shard_log(ShardId(1)).last, Some(id(last + 1, 1)), "{what}");
}

/// Opening must fail with rot at this place, naming these entries.
fn assert_rot(disk: &FaultyDisk, at: usize, affects: &str, what: &str) {
    match reopen(disk).err() {
        Some(Error::Rot { path, offset, affected, repair, .. }) => {
            assert_eq!((path.as_str(), offset), (FILE, at as u64), "{what}");
            assert!(affected.contains(affects), "{what}: {affected}");
            assert!(repair.contains("restore"), "{what}: {repair}");
        }
        other => panic!("{what}: not rot but {other:?}"),
    }
}

#[test]
fn a_file_cut_at_any_byte_of_its_last_two_blocks_keeps_the_blocks_before() {
    let whole = written(4, false);
    for cut in block_at(2)..=block_at(4) {
        let disk = whole.crash(Survives::Nothing);
        disk.damage(FILE, |bytes| bytes.truncate(cut));
        let whole_blocks = (2..4).filter(|n| cut >= block_at(*n) + COVERED).count();
        let kept = 2 + whole_blocks as u64;
        assert_ends(&disk, kept * 3, &format!("cut at {cut}"));
    }
}

#[test]
fn a_flip_in_the_last_block_before_it_is_proven_is_a_torn_tail() {
    let whole = written(3, false);
    for byte in 0..BLOCK {
        let disk = whole.crash(Survives::Nothing);
        disk.flip(FILE, block_at(2) + byte, 1 << (byte % 8));
        assert_ends(&disk, if byte < COVERED { 6 } else { 9 }, &format!("byte {byte}"));
    }
}

#[test]
fn a_flip_in_a_block_that_another_follows_is_rot() {
    let whole = written(4, false);
    for byte in 0..BLOCK {
        let disk = whole.crash(Survives::Nothing);
        disk.flip(FILE, block_at(1) + byte, 1 << (byte % 8));
        if byte < COVERED {
            assert_rot(&disk, block_at(1), "shard 1 entries 4 to 6", &format!("byte {byte}"));
        } else {
            assert_ends(&disk, 12, &format!("byte {byte} of the zeros behind the block"));
        }
    }
}

#[test]
fn a_flip_in_the_newest_acknowledged_block_is_rot_once_the_proof_is_written() {
    let whole = written(3, true);
    for byte in 0..COVERED {
        let disk = whole.crash(Survives::Nothing);
        disk.flip(FILE, block_at(2) + byte, 1 << (byte % 8));
        assert_rot(&disk, block_at(2), "shard 1 possibly from entry 7 on", &format!("byte {byte}"));
    }
}

#[test]
fn the_idle_writer_proves_the_newest_block_by_itself() {
    let disk = FaultyDisk::new();
    let journal = open(&disk.handle(), JournalOptions { reserve_files: 0, ..small() }).unwrap();
    append(&journal, 1, entries(1, 1..4, 1, 100)).unwrap();
    let acknowledged = disk.syncs();
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while disk.syncs() == acknowledged {
        assert!(std::time::Instant::now() < deadline, "the proof is never synced");
        std::thread::yield_now();
    }
    // The count is raised as the sync begins; the next lock of the disk comes after it.
    let after = std::iter::repeat_with(|| disk.crash(Survives::Nothing))
        .find(|after| after.bytes(FILE)[block_at(1)..block_at(1) + 4] == *b"SKBL")
        .unwrap();
    after.flip(FILE, block_at(0) + 64 + 40 + 20, 1);
    assert_rot(&after, block_at(0), "shard 1", "flip after the proof");
}

#[test]
fn damage_to_the_proof_itself_loses_nothing() {
    let whole = written(3, true);
    for byte in 0..64 {
        let disk = whole.crash(Survives::Nothing);
        disk.flip(FILE, block_at(3) + byte, 1 << (byte % 8));
        assert_ends(&disk, 9, &format!("byte {byte}"));
    }
}

#[test]
fn zeroed_pages_are_told_apart_like_any_other_damage() {
    let zero = |disk: &FaultyDisk, at: usize| disk.damage(FILE, |bytes| bytes[at..at + BLOCK].fill(0));
    let torn = written(3, false);
    zero(&torn, block_at(2));
    assert_ends(&torn, 6, "the last page before it is proven");
    let rotten = written(3, true);
    zero(&rotten, block_at(2));
    assert_rot(&rotten, block_at(2), "from entry 7 on", "the last page once it is proven");
    let middle = written(3, false);
    zero(&middle, block_at(0));
    assert_rot(&middle, block_at(0), "shard 1 entries 0 to 3", "the first page");
}

#[test]
fn a_flip_in_a_files_header_or_checkpoint_is_rot() {
    let whole = written(3, true);
    for byte in 0..56 {
        let disk = whole.crash(Survives::Nothing);
        disk.flip(FILE, byte, 1 << (byte % 8));
        assert_rot(&disk, 0, "", &format!("header byte {byte}"));
    }
    for byte in 0..64 {
        let disk = whole.crash(Survives::Nothing);
        disk.flip(FILE, 4096 + byte, 1 << (byte % 8));
        assert_rot(&disk, 4096, "", &format!("checkpoint byte {byte}"));
    }
}

#[test]
fn a_file_of_a_newer_version_is_refused_by_name() {
    let disk = written(1, true);
    disk.damage(FILE, |bytes| {
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..40]);
        bytes[40..44].copy_from_slice(&crc.to_le_bytes());
    });
    let error = reopen(&disk).err().unwrap();
    assert!(matches!(&error, Error::NewerFormat { path, found: 2, known: 1 } if path == FILE), "{error}");
}

/// Enough for several files; small entries of shard 2 between those of shard 1.
fn several_files(disk: &FaultyDisk) -> Journal {
    let journal = reopen(disk).unwrap();
    for n in 0..40 {
        append(&journal, 1, entries(1, n * 2 + 1..n * 2 + 3, 1, 2000)).unwrap();
        append(&journal, 2, entries(2, n + 1..n + 2, 1, 10)).unwrap();
    }
    vote(&journal, 1, b"vote").unwrap();
    journal
}

#[test]
fn damage_in_an_older_file_is_rot_wherever_it_is() {
    let whole = FaultyDisk::new();
    several_files(&whole).close();
    assert!(whole.bytes("journal/0000000003.journal").len() > 4, "several files are used");
    for block in 0..14 {
        let disk = whole.crash(Survives::Nothing);
        disk.flip(FILE, 4096 * (1 + block) + 20, 4);
        assert!(matches!(reopen(&disk).err(), Some(Error::Rot { ref path, .. }) if path == FILE), "block {block}");
    }
}

#[test]
fn a_file_that_is_gone_is_named() {
    for (gone, named) in [(1, "0000000000"), (2, "0000000003")] {
        let disk = FaultyDisk::new();
        several_files(&disk).close();
        disk.handle().remove(&format!("journal/{gone:010}.journal")).unwrap();
        let error = reopen(&disk).err().unwrap();
        assert!(matches!(&error, Error::Rot { path, .. } if path.contains(named)), "{gone}: {error}");
        assert!(error.to_string().contains("is gone"), "{error}");
    }
}

/// Whether a file of another number holds what the first file held.
fn first_file_is_recycled(disk: &FaultyDisk) -> bool {
    let names = disk.handle().list("journal").unwrap();
    let holds = |name: &String| disk.bytes(&format!("journal/{name}")).windows(8).any(|bytes| bytes == b"1/1/1/..");
    names.iter().any(|name| !name.contains("0000000001") && holds(name))
}

#[test]
fn what_a_recycled_file_held_before_never_comes_back() {
    let disk = FaultyDisk::new();
    let options = || JournalOptions { reserve_files: 1, ..options() };
    let journal = open(&disk.handle(), options()).unwrap();
    vote(&journal, 2, b"saved once").unwrap();
    let mut next = 1;
    while !first_file_is_recycled(&disk) {
        append(&journal, 1, entries(1, next..next + 2, 1, 2000)).unwrap();
        next += 2;
        purge(&journal, 1, id(next - 2, 1)).unwrap();
        assert!(next < 1000, "the first file is never recycled");
    }
    journal.close();
    // On, through the recycled file: after each append its old blocks lie right behind the tail.
    let end = next + 80;
    while next < end {
        let journal = open(&disk.handle(), options()).unwrap();
        assert_eq!(journal.shard_log(ShardId(1)).last, Some(id(next - 1, 1)));
        append(&journal, 1, entries(1, next..next + 2, 1, 2000)).unwrap();
        next += 2;
        drop(journal);
        let crashed = disk.crash(Survives::Nothing);
        let found = open(&crashed.handle(), options()).unwrap();
        assert_eq!(found.shard_log(ShardId(1)).last, Some(id(next - 1, 1)));
        // Written in a file that is long gone: each checkpoint carries it on.
        assert_eq!(found.shard_log(ShardId(2)).vote.unwrap().0[..], *b"saved once");
    }
}

#[test]
fn a_payload_that_rots_under_a_running_journal_is_not_served() {
    let disk = FaultyDisk::new();
    let journal = open(&disk.handle(), JournalOptions { tail_cache_bytes: 0, ..options() }).unwrap();
    append(&journal, 1, entries(1, 1..4, 1, 100)).unwrap();
    disk.flip(FILE, block_at(0) + 64 + 144 + 60, 1);
    let error = read_all(&journal, 1, 1..4).unwrap_err();
    assert!(matches!(error, Error::Rot { ref affected, .. } if affected == "shard 1 entry 2"), "{error}");
    assert_eq!(read_all(&journal, 1, 3..4).unwrap(), entries(1, 3..4, 1, 100));
}

#[test]
fn a_foreign_file_is_left_alone_and_a_file_that_only_claims_to_be_ours_is_refused() {
    let disk = written(1, true);
    disk.handle().create("journal/notes.txt").unwrap();
    assert_ends(&disk, 3, "a foreign file");
    disk.handle().rename(FILE, "journal/0000000009.journal").unwrap();
    assert!(matches!(reopen(&disk).err(), Some(Error::NotOurs { .. })));
}

#[test]
fn a_file_that_is_replaced_by_anything_is_refused_by_name_and_left_as_it_is() {
    let whole = FaultyDisk::new();
    let journal = several_files(&whole);
    journal.close();
    let used = journal.usage().files;
    let names = whole.handle().list("journal").unwrap();
    let noise: Vec<u8> = (0..64 << 10_u32).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let replacements = [
        ("nothing", vec![]),
        ("zeros", vec![0; 64 << 10]),
        ("noise", noise.clone()),
        ("a little noise", noise[..99].into()),
    ];
    for (name, (what, bytes)) in names[..used].iter().flat_map(|name| replacements.iter().map(move |with| (name, with)))
    {
        let (disk, path) = (whole.crash(Survives::Nothing), format!("journal/{name}"));
        disk.damage(&path, |file| file.clone_from(bytes));
        match reopen(&disk).err() {
            Some(Error::Rot { path: named, .. } | Error::NotOurs { path: named, .. }) => {
                assert_eq!(named, path, "{what}")
            }
            other => panic!("{path} replaced by {what}: {other:?}"),
        }
        assert!(disk.bytes(&path) == *bytes, "{path} replaced by {what}: changed");
    }
}

#[test]
fn a_file_of_the_same_name_from_another_node_is_refused_by_name() {
    let with_reserve = |salt_seed| JournalOptions { reserve_files: 2, salt_seed, ..options() };
    let live = |salt_seed| {
        let disk = FaultyDisk::new();
        let journal = open(&disk.handle(), with_reserve(salt_seed)).unwrap();
        append(&journal, 1, entries(1, 1..4, 1, 100)).unwrap();
        journal.close();
        disk
    };
    let (ours, other) = (live(1), live(2));
    for name in ours.handle().list("journal").unwrap() {
        let (disk, path) = (ours.crash(Survives::Nothing), format!("journal/{name}"));
        let foreign = other.bytes(&path);
        disk.damage(&path, |file| file.clone_from(&foreign));
        match open(&disk.handle(), with_reserve(3)).err() {
            Some(Error::NotOurs { path: named, what }) => {
                assert_eq!((named, what.as_str()), (path.clone(), "it is of another journal"))
            }
            other => panic!("{path}: {other:?}"),
        }
        assert!(disk.bytes(&path) == foreign);
    }
    // All files of a journal say the same, through restarts with other chance.
    let disk = ours;
    for salt_seed in 4..7 {
        let journal = open(&disk.handle(), with_reserve(salt_seed)).unwrap();
        let next = journal.last_index(ShardId(1)).0 + 1;
        append(&journal, 1, entries(1, next..next + 60, 1, 2000)).unwrap();
    }
    assert_eq!(open(&disk.handle(), with_reserve(7)).unwrap().last_index(ShardId(1)).0, 183);
}

fn copying() -> JournalOptions {
    JournalOptions { held_files_max: 2, reserve_files: 1, tail_cache_bytes: 0, ..options() }
}

/// Shard 9 has 20 entries and is never purged; shard 1 fills file after file.
fn with_copies(disk: &FaultyDisk) -> Journal {
    let journal = open(&disk.handle(), copying()).unwrap();
    append(&journal, 9, entries(9, 1..21, 1, 500)).unwrap();
    let mut next = 1;
    for _ in 0..40 {
        append(&journal, 1, entries(1, next..next + 6, 1, 2000)).unwrap();
        next += 6;
        purge(&journal, 1, id(next - 2, 1)).unwrap();
    }
    assert!(journal.usage().copied_bytes > 0 && journal.usage().files <= 4, "{:?}", journal.usage());
    journal
}

#[test]
fn no_flip_makes_a_copy_into_something_else_or_loses_it_unnoticed() {
    let whole = FaultyDisk::new();
    with_copies(&whole).close();
    let expected = entries(9, 1..21, 1, 500);
    let (mut rot, mut unharmed) = (0, 0);
    for name in whole.handle().list("journal").unwrap() {
        let path = format!("journal/{name}");
        let bytes = whole.bytes(&path);
        for at in (0..bytes.len()).step_by(187).filter(|at| bytes[at & !4095..][..4096].iter().any(|byte| *byte != 0)) {
            let disk = whole.crash(Survives::Nothing);
            disk.flip(&path, at, 1 << (at % 8));
            match open(&disk.handle(), copying()) {
                Err(Error::Rot { .. }) => rot += 1,
                Err(error) => panic!("{path} at {at}: {error}"),
                Ok(journal) => {
                    assert_eq!(read_all(&journal, 9, 1..21).unwrap(), expected, "{path} at {at}");
                    assert_eq!(journal.shard_log(ShardId(1)).last, Some(id(240, 1)), "{path} at {at}");
                    unharmed += 1;
                }
            }
        }
    }
    // What is not proven any more is the former life of recycled files, and zeros.
    assert!(rot > 100 && unharmed > 100, "{rot} times rot, {unharmed} times nothing that counts");
}

#[test]
fn a_file_that_is_gone_is_missed_until_all_of_it_is_copied() {
    let disk = FaultyDisk::new();
    let journal = with_copies(&disk);
    journal.close();
    let used = journal.usage().files;
    let names = disk.handle().list("journal").unwrap();
    let mut missed = 0;
    for name in &names[..used - 1] {
        let disk = disk.crash(Survives::Nothing);
        disk.handle().remove(&format!("journal/{name}")).unwrap();
        match open(&disk.handle(), copying()) {
            Err(error) => {
                assert!(error.to_string().contains("gone"), "{error}");
                missed += 1;
            }
            Ok(journal) => assert_eq!(read_all(&journal, 9, 1..21).unwrap(), entries(9, 1..21, 1, 500)),
        }
    }
    assert!(missed > 0, "the copies are in one of {names:?}");
}

/// Shard 1 fills `rounds` files and is purged.
fn flow(journal: &Journal, rounds: u64) -> std::io::Result<()> {
    let mut next = journal.last_index(ShardId(1)).0 + 1;
    for _ in 0..rounds {
        append(journal, 1, entries(1, next..next + 6, 1, 2000))?;
        next += 6;
        purge(journal, 1, id(next - 2, 1))?;
    }
    Ok(())
}

/// Entry 2 of shard 9 has rotted, and shard 1 has gone on for so long that this was found.
fn with_rot(disk: &FaultyDisk) -> std::io::Result<Journal> {
    let journal = open(&disk.handle(), copying()).map_err(std::io::Error::other)?;
    append(&journal, 9, entries(9, 1..4, 1, 500))?;
    disk.flip(FILE, block_at(0) + 64 + 544 + 100, 1);
    flow(&journal, 40)?;
    Ok(journal)
}

const ASIDE: &str = "journal/0000000001.rotten";

#[test]
fn what_rots_before_it_is_copied_holds_back_nobody_else_and_is_kept_as_it_is() {
    let disk = FaultyDisk::new();
    let journal = with_rot(&disk).unwrap();
    assert!(journal.usage().files <= 4, "{:?}", journal.usage());
    assert_eq!((journal.has_lost(ShardId(9)), journal.has_lost(ShardId(1))), (true, false));
    let lost = journal.lost(ShardId(9));
    assert!(lost.len() == 1 && lost[0].to_string().contains(ASIDE), "{lost:?}");
    for error in [read_all(&journal, 9, 1..4).unwrap_err(), journal.lost(ShardId(9)).remove(0)] {
        assert!(matches!(error, Error::Rot { ref affected, .. } if affected == "shard 9 entry 2"), "{error}");
    }
    assert_eq!(read_all(&journal, 9, 1..2).unwrap(), entries(9, 1..2, 1, 500));
    assert_eq!(read_all(&journal, 9, 3..4).unwrap(), entries(9, 3..4, 1, 500));
    assert!(disk.handle().list("journal").unwrap().len() <= 6, "{:?}", disk.handle().list("journal"));
    journal.close();

    // A start names the file and what is lost, changes nothing; who reads around it has all else.
    let before = disk.bytes(ASIDE);
    for _ in 0..2 {
        let error = reopen(&disk).err().unwrap();
        let Error::Rot { path, offset, affected, .. } = &error else { panic!("{error}") };
        assert_eq!((path.as_str(), *offset, affected.as_str()), (ASIDE, block_at(0) as u64, "shard 9 entries 2 to 2"));
    }
    assert!(disk.bytes(ASIDE) == before);
    let (around, damage) = Journal::open_around_damage(disk.handle(), copying()).unwrap();
    assert!(damage.found.len() == 1 && damage.found[0].to_string().contains(ASIDE), "{:?}", damage.found);
    assert_eq!(damage.ends.into_iter().collect::<Vec<_>>(), [(ShardId(9), LogIndex(1))]);
    assert_eq!(read_all(&around, 9, 1..2).unwrap(), entries(9, 1..2, 1, 500));
    assert_eq!(around.last_index(ShardId(1)), LogIndex(240));
}

#[test]
fn a_file_that_was_set_aside_goes_when_what_is_lost_with_it_has_been_purged() {
    let disk = FaultyDisk::new();
    let journal = with_rot(&disk).unwrap();
    assert!(!disk.bytes(ASIDE).is_empty() && journal.oldest_trace() == 1, "its bytes are still there");
    purge(&journal, 9, id(2, 1)).unwrap();
    assert!(!journal.has_lost(ShardId(9)) && journal.lost(ShardId(9)).is_empty());
    flow(&journal, 3).unwrap();
    let names = disk.handle().list("journal").unwrap();
    assert!(names.iter().all(|name| !name.ends_with(".rotten")), "{names:?}");
    journal.close();
    let journal = reopen(&disk).unwrap();
    assert_eq!(read_all(&journal, 9, 3..4).unwrap(), entries(9, 3..4, 1, 500));

    // The same if the purge was all that got to the disk: a start lets the file go.
    let disk = FaultyDisk::new();
    let journal = with_rot(&disk).unwrap();
    let aside = disk.bytes(ASIDE);
    purge(&journal, 9, id(2, 1)).unwrap();
    flow(&journal, 3).unwrap();
    journal.close();
    let file = disk.handle().create(ASIDE).unwrap();
    file.write_at(&aside, 0).unwrap();
    reopen(&disk).unwrap();
    assert!(disk.handle().open(ASIDE).is_err());
}

#[test]
fn a_rotten_file_that_cannot_be_renamed_stays_and_is_tried_again_and_a_cut_of_power_loses_nothing_else() {
    let disk = FaultyDisk::new();
    let journal = open(&disk.handle(), copying()).unwrap();
    append(&journal, 9, entries(9, 1..4, 1, 500)).unwrap();
    disk.flip(FILE, block_at(0) + 64 + 544 + 100, 1);
    disk.fail_under("journal/0000000001", Operation::Rename, std::io::ErrorKind::Other);
    flow(&journal, 12).unwrap();
    assert!(disk.handle().open(ASIDE).is_err() && disk.handle().open(FILE).is_ok());
    disk.heal();
    flow(&journal, 12).unwrap();
    assert!(disk.handle().open(ASIDE).is_ok() && journal.usage().files <= 4);
    journal.close();

    let whole = FaultyDisk::new();
    with_rot(&whole).unwrap();
    let mut named = [0, 0];
    for step in (0..whole.steps()).rev().step_by(3) {
        let disk = FaultyDisk::new();
        disk.power_off_after(step);
        let _ = with_rot(&disk).map(|journal| journal.close());
        let disk = disk.crash(Survives::Nothing);
        match reopen(&disk) {
            Err(Error::Rot { path, affected, .. }) => {
                assert!(affected.contains("shard 9 "), "{step}: {affected}");
                named[usize::from(path == ASIDE)] += 1;
            }
            // Before the entry was there.
            Ok(journal) => assert!(journal.last_index(ShardId(9)).0 < 3, "{step}"),
            Err(error) => panic!("{step}: {error}"),
        }
    }
    assert!(named[0] > 10 && named[1] > 10, "{named:?}");
}
