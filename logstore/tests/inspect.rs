//! Looking at a journal says what a start would say, and changes nothing.

#![allow(clippy::unwrap_used)]

mod support;

use logstore::id::{LogIndex, ShardId};
use logstore::io::faulty::{FaultyDisk, Survives};
use logstore::{Error, JournalFileRole, JournalInspection, JournalOptions, JournalReplay};
use support::{append, entries, id, open, purge, small, vote};

const FILE: &str = "journal/0000000001.journal";
const BLOCK: usize = 4096;
/// Header, then the checkpoint block, then one block for each append.
const BLOCKS_AT: usize = 2 * BLOCK;

fn options() -> JournalOptions {
    JournalOptions { reserve_files: 0, held_files_max: 100, proof_after: support::PATIENCE, ..small() }
}

/// Appends of three entries to shard 1, one block each, the last without a proof after it.
fn written(appends: u64) -> FaultyDisk {
    let disk = FaultyDisk::new();
    let journal = open(&disk.handle(), options()).unwrap();
    for n in 0..appends {
        append(&journal, 1, entries(1, n * 3 + 1..n * 3 + 4, 1, 100)).unwrap();
    }
    disk.crash(Survives::Nothing)
}

/// What a look comes to; the disk must be as it was.
fn look(disk: &FaultyDisk) -> logstore::Result<JournalReplay> {
    let steps = disk.steps();
    let journal = JournalInspection::open(&*disk.handle()).unwrap();
    let replay = journal.replay(&mut |_| {});
    assert_eq!(disk.steps(), steps, "a look has changed something");
    match journal.into_damaged().pop() {
        None => replay,
        Some(damaged) => Err(damaged),
    }
}

/// Where rot is.
fn rot(error: Error) -> (String, u64) {
    match error {
        Error::Rot { path, offset, .. } => (path, offset),
        other => panic!("not rot but {other}"),
    }
}

#[test]
fn a_look_finds_torn_and_rotten_what_a_start_does_whichever_byte_is_flipped() {
    let whole = written(3);
    let blocks = BLOCKS_AT + BLOCK..BLOCKS_AT + 3 * BLOCK;
    for at in (0..44).chain(BLOCK..BLOCK + 64).chain(blocks.filter(|at| at % BLOCK < 600)) {
        let disk = whole.crash(Survives::Nothing);
        disk.flip(FILE, at, 1 << (at % 8));
        let seen = look(&disk);
        match (seen, open(&disk.handle(), options())) {
            (Ok(seen), Ok(journal)) => {
                let last = journal.shard_log(ShardId(1)).last;
                assert_eq!(seen.shards[&ShardId(1)].last, last, "byte {at}");
                assert!(seen.torn.is_none() || last == Some(id(6, 1)), "byte {at}: {:?}", seen.torn);
            }
            (Err(seen), Err(started)) => assert_eq!(seen.to_string(), started.to_string(), "byte {at}"),
            (seen, started) => panic!("byte {at}: {seen:?}, but a start: {:?}", started.err()),
        }
    }
}

#[test]
fn a_block_whose_write_was_interrupted_is_named_and_is_no_rot() {
    let disk = written(3);
    disk.flip(FILE, BLOCKS_AT + 2 * BLOCK + 100, 1);
    let torn = look(&disk).unwrap().torn.unwrap();
    assert_eq!((torn.path.as_str(), torn.offset), (FILE, (BLOCKS_AT + 2 * BLOCK) as u64));
    let disk = written(3);
    assert_eq!(look(&disk).unwrap().torn, None);
    disk.flip(FILE, BLOCKS_AT + BLOCK + 100, 1);
    assert_eq!(rot(look(&disk).unwrap_err()), (FILE.to_owned(), (BLOCKS_AT + BLOCK) as u64));
}

#[test]
fn files_blocks_and_frames_are_shown_as_they_were_written() {
    let disk = FaultyDisk::new();
    let journal = open(&disk.handle(), JournalOptions { reserve_files: 1, ..options() }).unwrap();
    vote(&journal, 2, b"for nine").unwrap();
    // More than one file of 64 KiB.
    for n in 0..30 {
        append(&journal, 1, entries(1, n + 1..n + 2, 1, 3000)).unwrap();
    }
    purge(&journal, 1, id(2, 1)).unwrap();
    journal.close();
    disk.handle().create("journal/0000000099.preparing").unwrap();
    disk.handle().create("journal/notes.txt").unwrap();

    let journal = JournalInspection::open(&*disk.handle()).unwrap();
    let roles: Vec<_> = journal.files().iter().map(|file| (file.number, file.role)).collect();
    let ready = roles.iter().filter(|(_, role)| *role == JournalFileRole::Ready).count();
    assert!(roles.len() > 4 && ready >= 1 && roles[0] == (Some(1), JournalFileRole::Used), "{roles:?}");
    assert_eq!(roles.iter().filter(|(number, _)| number.is_none()).count(), 2);

    let (mut indexes, mut votes, mut kinds) = (Vec::new(), 0, Vec::new());
    for file in journal.files().iter().filter(|file| file.role == JournalFileRole::Used) {
        let mut next = BLOCK as u64;
        let end = journal.walk(file.number.unwrap(), &mut |block| {
            assert_eq!((Some(block.file()), block.offset()), (file.number, next));
            next += u64::from(block.bytes()).next_multiple_of(BLOCK as u64);
            kinds.push(block.kind());
            assert_eq!(block.frames().count(), block.frame_count() as usize);
            for frame in block.frames().filter(|_| block.kind() == "commit") {
                votes += usize::from(frame.kind == "vote" && frame.payload == b"for nine" && frame.id.is_none());
                indexes.extend(frame.entry.and(frame.id).map(|id| id.index));
            }
        });
        assert!(end.unwrap().unwrap() >= 2 * BLOCK as u64);
    }
    assert_eq!(indexes, (1..=30).map(LogIndex).collect::<Vec<_>>());
    assert_eq!((votes, kinds[0]), (1, "checkpoint"));
    assert_eq!(journal.walk(77, &mut |_| panic!("there is no such file")).unwrap(), None);
    let (mut seen, replay) = (0, journal.replay(&mut |_| {}).unwrap());
    journal.replay(&mut |block| seen += block.frame_count()).unwrap();
    assert!(seen >= 32);
    assert_eq!((replay.shards[&ShardId(1)].purged, replay.torn), (Some(id(2, 1)), None));
}
