//! Operations that fail, a disk that is full, syncs that hang: what is told to whom, and what goes on.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

use bytes::Bytes;
use logstore::id::{LogIndex, ShardId};
use logstore::io::faulty::{FaultyDisk, Operation, Survives};
use logstore::{Completion, Entry, Error, Executor, Journal, JournalOptions, Refused, Vote};
use support::{PATIENCE, append, entries, entry, id, open, open_watched, purge, range, read_all, small, vote};

fn options() -> JournalOptions {
    JournalOptions { reserve_files: 0, proof_after: PATIENCE, ..small() }
}

/// A completion that sends its name, and whether all went well.
fn tell(to: &mpsc::Sender<(&'static str, bool)>, name: &'static str) -> Completion {
    let to = to.clone();
    Box::new(move |result| to.send((name, result.is_ok())).unwrap())
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} never came");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn a_failed_sync_or_write_is_final() {
    for operation in [Operation::Sync, Operation::Write] {
        let disk = FaultyDisk::new();
        let (journal, deaths) = open_watched(&disk.handle(), options());
        append(&journal, 1, entries(1, 1..4, 1, 100)).unwrap();
        let (told, order) = mpsc::channel();
        disk.hold_syncs();
        journal.append(ShardId(1), vec![entry(1, 4, 1, 100)], tell(&told, "in flight"));
        if operation == Operation::Sync {
            disk.fail(Operation::Sync, 1, ErrorKind::Other);
        } else {
            assert!(disk.wait_for_held_sync(PATIENCE));
            disk.fail(Operation::Write, 1, ErrorKind::Other);
        }
        journal.append(ShardId(1), vec![entry(1, 5, 1, 100)], tell(&told, "queued"));
        journal.save_vote(ShardId(2), Vote(Bytes::from_static(b"v")), tell(&told, "vote"));
        disk.release_syncs();
        until("the end", || !deaths.lock().unwrap().is_empty());
        let outcomes: Vec<_> = order.try_iter().collect();
        assert_eq!(outcomes.len(), 3, "{operation:?}: every waiter is told: {outcomes:?}");
        if operation == Operation::Sync {
            assert!(outcomes.iter().all(|(_, ok)| !ok), "{operation:?}: {outcomes:?}");
        } else {
            assert_eq!(outcomes.iter().filter(|(_, ok)| *ok).collect::<Vec<_>>(), [&("in flight", true)]);
        }
        let (syncs, steps) = (disk.syncs(), disk.steps());
        assert_eq!(journal.check_room(1), Err(Refused::Stopped));
        assert!(append(&journal, 1, vec![entry(1, 6, 1, 100)]).is_err());
        assert!(vote(&journal, 1, b"later").is_err());
        journal.close();
        assert_eq!((disk.syncs(), disk.steps()), (syncs, steps), "{operation:?}: nothing is tried again");
        assert_eq!(deaths.lock().unwrap().len(), 1);
        // What had been acknowledged is there.
        let journal = open(&disk.crash(Survives::Nothing).handle(), options()).unwrap();
        assert_eq!(read_all(&journal, 1, 1..4).unwrap(), entries(1, 1..4, 1, 100));
    }
}

#[test]
fn a_block_whose_sync_failed_is_on_the_disk_before_a_restart_believes_it() {
    // The second entry makes a block larger than blocks usually are.
    for bytes in [100, options().block_bytes_max * 3 / 2] {
        let disk = FaultyDisk::new();
        let journal = open(&disk.handle(), options()).unwrap();
        append(&journal, 1, vec![entry(1, 1, 1, 100)]).unwrap();
        disk.fail(Operation::Sync, 1, ErrorKind::Other);
        assert!(append(&journal, 1, vec![entry(1, 2, 1, bytes)]).is_err());
        // The process starts again and reads what the disk does not have.
        let restarted = disk.clone_unsynced();
        let journal = open(&restarted.handle(), options()).unwrap();
        let believed = journal.last_index(ShardId(1)).0;
        let after_power_loss = open(&restarted.crash(Survives::Nothing).handle(), options()).unwrap();
        assert_eq!(after_power_loss.last_index(ShardId(1)).0, believed, "of {bytes} bytes");
        assert_eq!(believed, 2);
    }
}

#[test]
fn a_failed_proof_is_as_final_as_any_other_sync() {
    let disk = FaultyDisk::new();
    let short = JournalOptions { proof_after: std::time::Duration::from_millis(1), ..options() };
    let (journal, deaths) = open_watched(&disk.handle(), short);
    disk.fail(Operation::Sync, 2, ErrorKind::Other);
    append(&journal, 1, entries(1, 1..2, 1, 100)).unwrap();
    until("the end", || !deaths.lock().unwrap().is_empty());
    assert!(append(&journal, 1, entries(1, 2..3, 1, 100)).is_err());
}

#[test]
fn a_journal_does_not_open_on_a_disk_that_fails_and_opens_when_it_is_well_again() {
    let whole = FaultyDisk::new();
    let journal = open(&whole.handle(), options()).unwrap();
    append(&journal, 1, entries(1, 1..4, 1, 100)).unwrap();
    drop(journal);
    for operation in [Operation::Open, Operation::List, Operation::Read, Operation::Sync, Operation::Write] {
        let disk = whole.crash(Survives::Everything);
        disk.fail(operation, 1, ErrorKind::Other);
        let error = open(&disk.handle(), options()).err();
        assert!(matches!(error, Some(Error::Io { .. })), "{operation:?}: {error:?}");
        let journal = open(&disk.handle(), options()).unwrap();
        assert_eq!(journal.last_index(ShardId(1)), LogIndex(3));
    }
    for operation in [Operation::Create, Operation::Allocate, Operation::Rename, Operation::SyncDir] {
        let disk = FaultyDisk::new();
        disk.fail(operation, 1, ErrorKind::Other);
        let error = open(&disk.handle(), options()).err();
        assert!(matches!(error, Some(Error::Io { .. })), "{operation:?}: {error:?}");
        append(&open(&disk.handle(), options()).unwrap(), 1, entries(1, 1..4, 1, 100)).unwrap();
    }
}

#[test]
fn sizes_that_cannot_work_are_refused() {
    for file_bytes in [0, 4096, (64 << 10) + 1, 1 << 32] {
        let error = open(&FaultyDisk::new().handle(), JournalOptions { file_bytes, ..options() }).err();
        assert!(matches!(error, Some(Error::BadOptions(_))), "{file_bytes}: {error:?}");
    }
}

#[test]
fn short_reads_change_nothing() {
    let disk = FaultyDisk::new();
    let journal = open(&disk.handle(), options()).unwrap();
    append(&journal, 1, entries(1, 1..30, 1, 1000)).unwrap();
    drop(journal);
    disk.shorten_reads(777);
    let journal = open(&disk.handle(), options()).unwrap();
    assert_eq!(read_all(&journal, 1, 1..30).unwrap(), entries(1, 1..30, 1, 1000));
}

/// A journal with an empty reserve and a disk that has no room for another file.
fn out_of_space() -> (FaultyDisk, Journal) {
    let disk = FaultyDisk::new();
    disk.set_capacity(3 * (64 << 10));
    let options = JournalOptions { reserve_files: 2, proof_after: std::time::Duration::from_millis(2), ..small() };
    let (journal, deaths) = open_watched(&disk.handle(), options);
    let mut next = 1;
    while journal.check_room(2048).is_ok() {
        append(&journal, 1, vec![entry(1, next, 1, 2000)]).unwrap();
        next += 1;
        assert!(next < 1000, "appends are never refused");
    }
    assert_eq!(journal.check_room(2048), Err(Refused::NoSpace));
    assert_eq!(*deaths.lock().unwrap(), Vec::<String>::new());
    (disk, journal)
}

#[test]
fn a_full_disk_refuses_before_the_append_and_serves_all_else() {
    let (disk, journal) = out_of_space();
    let last = journal.last_index(ShardId(1)).0;
    // What is in flight when space runs out still has its place, and so have votes.
    append(&journal, 1, entries(1, last + 1..last + 10, 1, 2000)).unwrap();
    vote(&journal, 1, b"vote").unwrap();
    assert_eq!(read_all(&journal, 1, 1..last + 10).unwrap(), entries(1, 1..last + 10, 1, 2000));
    assert_eq!(journal.check_room(1), Err(Refused::NoSpace));
    drop(journal);
    let journal = open(&disk.handle(), small()).unwrap();
    assert_eq!(journal.last_index(ShardId(1)).0, last + 9);
    assert_eq!(journal.check_room(1), Err(Refused::NoSpace));
}

#[test]
fn a_journal_recovers_by_itself_when_there_is_room_again() {
    let (disk, journal) = out_of_space();
    disk.heal();
    until("room", || journal.check_room(2048).is_ok());
    let last = journal.last_index(ShardId(1)).0;
    append(&journal, 1, entries(1, last + 1..last + 100, 1, 2000)).unwrap();
}

#[test]
fn a_file_that_cannot_be_made_for_any_reason_refuses_and_is_tried_again() {
    for operation in [Operation::Create, Operation::Allocate, Operation::Rename, Operation::SyncDir] {
        let disk = FaultyDisk::new();
        let options = JournalOptions { proof_after: std::time::Duration::from_millis(2), ..small() };
        let (journal, deaths) = open_watched(&disk.handle(), options);
        disk.fail_always(operation, ErrorKind::Other);
        let mut next = 1;
        while journal.check_room(2048).is_ok() {
            append(&journal, 1, vec![entry(1, next, 1, 2000)]).unwrap();
            next += 1;
        }
        assert_eq!(journal.check_room(2048), Err(Refused::NoSpace), "{operation:?}");
        disk.heal();
        until("room", || journal.check_room(2048).is_ok());
        append(&journal, 1, entries(1, next..next + 60, 1, 2000)).unwrap();
        assert_eq!(*deaths.lock().unwrap(), Vec::<String>::new());
        drop(journal);
        let journal = open(&disk.handle(), small()).unwrap();
        assert_eq!(read_all(&journal, 1, 1..next + 60).unwrap(), entries(1, 1..next + 60, 1, 2000));
    }
}

#[test]
fn an_executor_that_drops_its_jobs_costs_speed_only() {
    let disk = FaultyDisk::new();
    let options = JournalOptions { executor: Executor::new(drop), ..small() };
    let journal = open(&disk.handle(), options).unwrap();
    for n in 0..100 {
        append(&journal, 1, vec![entry(1, n, 1, 2000)]).unwrap();
    }
    journal.close();
}

#[test]
fn files_are_prepared_where_the_executor_says() {
    let disk = FaultyDisk::new();
    let (jobs, queue) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
    let options = JournalOptions { executor: Executor::new(move |job| jobs.send(job).unwrap()), ..small() };
    let journal = open(&disk.handle(), options).unwrap();
    assert_eq!(disk.handle().list("journal").unwrap().len(), 1);
    // Nothing has failed yet: the reserve is merely not there.
    journal.check_room(1).unwrap();
    let job = queue.recv().unwrap();
    std::thread::spawn(job).join().unwrap();
    assert_eq!(disk.handle().list("journal").unwrap().len(), 3);
    assert!(queue.try_recv().is_err());
    journal.close();
}

/// An executor that runs its jobs at once, or keeps them.
#[derive(Clone, Default)]
struct Jobs(Arc<Mutex<Option<Vec<Job>>>>);

type Job = Box<dyn FnOnce() + Send>;

impl Jobs {
    fn executor(&self) -> Executor {
        let jobs = self.clone();
        Executor::new(move |job| match &mut *jobs.0.lock().unwrap() {
            Some(kept) => kept.push(job),
            None => job(),
        })
    }

    fn keep(&self) {
        *self.0.lock().unwrap() = Some(Vec::new());
    }

    fn run(&self) {
        let kept = self.0.lock().unwrap().take().unwrap();
        kept.into_iter().for_each(|job| job());
    }
}

#[test]
fn a_recycling_step_that_fails_leaves_no_gap_that_the_next_start_takes_for_a_missing_file() {
    for operation in [Operation::Rename, Operation::SyncDir, Operation::Remove] {
        let (disk, jobs) = (FaultyDisk::new(), Jobs::default());
        // Files that are to be without a trace are removed where others would be kept to be used again.
        let zero_recycled = operation == Operation::Remove;
        let options = || JournalOptions { reserve_files: 2, executor: jobs.executor(), zero_recycled, ..options() };
        let journal = open(&disk.handle(), options()).unwrap();
        for index in 1..200 {
            append(&journal, 1, vec![entry(1, index, 1, 2000)]).unwrap();
        }
        jobs.keep();
        // One more file is begun, so that the reserve wants a file.
        append(&journal, 1, entries(1, 200..240, 1, 1000)).unwrap();
        purge(&journal, 1, id(238, 1)).unwrap();
        disk.fail(operation, 1, ErrorKind::Other);
        jobs.run();
        // What is tried again goes well.
        append(&journal, 1, vec![entry(1, 240, 1, 2000)]).unwrap();
        purge(&journal, 1, id(239, 1)).unwrap();
        // Every file is in use or ready; in use is the active one, and maybe the one before it.
        until(&format!("{operation:?}: the job's end"), || {
            let (usage, names) = (journal.usage(), disk.handle().list("journal").unwrap());
            usage.files <= 2 && usage.files_ready >= 2 && usage.files + usage.files_ready == names.len()
        });
        journal.check_room(1).unwrap();
        journal.close();
        for survives in [Survives::Nothing, Survives::Everything] {
            let journal = open(&disk.crash(survives).handle(), options())
                .unwrap_or_else(|error| panic!("{operation:?}, {survives:?}: {error}"));
            assert_eq!(read_all(&journal, 1, 240..241).unwrap(), entries(1, 240..241, 1, 2000));
        }
    }
}

const SECRET: &[u8] = b"what nobody may find again";

/// Whether the bytes are in any file of the journal.
fn is_anywhere(disk: &FaultyDisk, bytes: &[u8]) -> bool {
    let names = disk.handle().list("journal").unwrap();
    names.iter().any(|name| disk.bytes(&format!("journal/{name}")).windows(bytes.len()).any(|found| found == bytes))
}

#[test]
fn what_is_purged_leaves_no_trace_once_recycled_files_are_zeroed() {
    for restart in [false, true] {
        let disk = FaultyDisk::new();
        let options = || JournalOptions { reserve_files: 2, ..options() };
        let journal = open(&disk.handle(), options()).unwrap();
        append(&journal, 1, entries(1, 1..20, 1, 2000)).unwrap();
        let secret = Entry { payload: Bytes::from(SECRET.repeat(20)), ..entry(1, 20, 1, 0) };
        append(&journal, 1, vec![secret]).unwrap();
        purge(&journal, 1, id(20, 1)).unwrap();
        let kept = journal.newest_file();
        // Through several lives of the file, none filled as far as the first.
        for index in 21..100 {
            append(&journal, 1, vec![entry(1, index, 1, 2000)]).unwrap();
            purge(&journal, 1, id(index, 1)).unwrap();
            if index % 3 == 0 {
                let before = journal.newest_file();
                journal.begin_next_file();
                until("the next file", || journal.newest_file() > before);
            }
        }
        assert!(is_anywhere(&disk, SECRET) && journal.oldest_trace() <= kept, "recycled files keep it");
        let journal = if restart {
            journal.close();
            open(&disk.handle(), options()).unwrap()
        } else {
            journal
        };
        let done = journal.newest_file();
        journal.zero_recycled(true);
        journal.begin_next_file();
        until("the trace's end", || journal.oldest_trace() > done);
        assert!(!is_anywhere(&disk, SECRET));
        journal.close();
        let after = disk.crash(Survives::Nothing);
        assert!(!is_anywhere(&after, SECRET));
        let journal = open(&after.handle(), options()).unwrap();
        assert_eq!(journal.shard_log(ShardId(1)).last, Some(id(99, 1)));
        assert!(journal.oldest_trace() > done, "a restart knows it too");
    }
}

#[test]
fn the_queue_is_bounded_and_what_is_in_it_is_never_evicted() {
    let disk = FaultyDisk::new();
    let journal = open(&disk.handle(), JournalOptions { tail_cache_bytes: 0, ..options() }).unwrap();
    disk.hold_syncs();
    let (told, order) = mpsc::channel();
    let mut next = 1;
    while journal.check_room(1040).is_ok() {
        journal.append(ShardId(1), vec![entry(1, next, 1, 1000)], tell(&told, "append"));
        next += 1;
    }
    assert_eq!(journal.check_room(1040), Err(Refused::QueueFull));
    assert_eq!(next, 1 + (32 << 10) / 1040);
    let cached = journal.read_cached(ShardId(1), range(1..next), 1 << 20).unwrap();
    assert_eq!(cached, entries(1, 1..next, 1, 1000));
    disk.release_syncs();
    for _ in 1..next {
        assert!(order.recv_timeout(PATIENCE).unwrap().1);
    }
    journal.check_room(1040).unwrap();
    assert_eq!(journal.read_cached(ShardId(1), range(1..2), 0), None);
}

#[test]
fn what_waits_for_its_sync_stays_in_memory_while_the_synced_leaves_it() {
    let disk = FaultyDisk::new();
    let journal = open(&disk.handle(), JournalOptions { tail_cache_bytes: 0, ..options() }).unwrap();
    disk.hold_syncs();
    let (told, order) = mpsc::channel();
    journal.append(ShardId(1), entries(1, 1..4, 1, 100), tell(&told, "first"));
    assert!(disk.wait_for_held_sync(PATIENCE));
    journal.append(ShardId(1), entries(1, 4..7, 1, 100), tell(&told, "second"));
    disk.release_one_sync();
    assert_eq!(order.recv_timeout(PATIENCE).unwrap(), ("first", true));
    assert_eq!(journal.read_cached(ShardId(1), range(1..4), 0), None);
    assert_eq!(read_all(&journal, 1, 1..7).unwrap(), entries(1, 1..7, 1, 100));
    disk.release_syncs();
    assert_eq!(order.recv_timeout(PATIENCE).unwrap(), ("second", true));
    assert_eq!(journal.read_cached(ShardId(1), range(4..7), 0), None);
    assert_eq!(read_all(&journal, 1, 1..7).unwrap(), entries(1, 1..7, 1, 100));
}

#[test]
fn a_vote_overtakes_other_shards_appends_and_never_its_own() {
    let disk = FaultyDisk::new();
    let journal = open(&disk.handle(), JournalOptions { block_bytes_max: 4096, ..options() }).unwrap();
    disk.hold_syncs();
    let (told, order) = mpsc::channel();
    journal.append(ShardId(1), vec![entry(1, 1, 1, 3000)], tell(&told, "first of 1"));
    assert!(disk.wait_for_held_sync(PATIENCE));
    // One block each, queued behind the one whose sync hangs.
    journal.append(ShardId(1), vec![entry(1, 2, 1, 3000)], tell(&told, "second of 1"));
    journal.append(ShardId(2), vec![entry(2, 1, 1, 3000)], tell(&told, "first of 2"));
    journal.append(ShardId(3), vec![entry(3, 1, 1, 3000)], tell(&told, "first of 3"));
    journal.save_vote(ShardId(3), Vote(Bytes::from_static(b"3")), tell(&told, "vote of 3"));
    journal.save_vote(ShardId(4), Vote(Bytes::from_static(b"4")), tell(&told, "vote of 4"));
    disk.release_syncs();
    let told: Vec<_> = (0..6).map(|_| order.recv_timeout(PATIENCE).unwrap()).collect();
    let names: Vec<_> = told.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["first of 1", "first of 3", "vote of 3", "vote of 4", "second of 1", "first of 2"]);
}

#[test]
fn what_queues_during_a_sync_is_one_block() {
    let disk = FaultyDisk::new();
    let journal = open(&disk.handle(), options()).unwrap();
    disk.hold_syncs();
    let (told, order) = mpsc::channel();
    journal.append(ShardId(1), vec![entry(1, 1, 1, 10)], tell(&told, "first"));
    assert!(disk.wait_for_held_sync(PATIENCE));
    for n in 0..50 {
        journal.append(ShardId(2 + n % 5), vec![entry(2 + n % 5, 1 + u64::from(n / 5), 1, 50)], tell(&told, "more"));
    }
    let before = disk.syncs();
    disk.release_syncs();
    assert_eq!((0..51).filter(|_| order.recv_timeout(PATIENCE).unwrap().1).count(), 51);
    assert_eq!(disk.syncs(), before + 1, "fifty appends of five shards, one sync");
}

#[test]
fn an_entry_replaced_while_its_predecessor_is_written_is_read_as_what_it_is_now() {
    let disk = FaultyDisk::new();
    let journal = open(&disk.handle(), JournalOptions { tail_cache_bytes: 0, ..options() }).unwrap();
    disk.hold_syncs();
    let (told, order) = mpsc::channel();
    journal.append(ShardId(1), entries(1, 1..4, 1, 100), tell(&told, "old"));
    assert!(disk.wait_for_held_sync(PATIENCE));
    journal.truncate_after(ShardId(1), Some(id(1, 1)), tell(&told, "truncation"));
    journal.append(ShardId(1), entries(1, 2..4, 2, 100), tell(&told, "new"));
    assert_eq!(read_all(&journal, 1, 2..4).unwrap(), entries(1, 2..4, 2, 100));
    disk.release_syncs();
    for expected in ["old", "truncation", "new"] {
        assert_eq!(order.recv_timeout(PATIENCE).unwrap(), (expected, true));
    }
    assert_eq!(journal.read_cached(ShardId(1), range(2..4), 1 << 20), None, "evicted, as nothing may stay");
    assert_eq!(read_all(&journal, 1, 2..4).unwrap(), entries(1, 2..4, 2, 100));
}

#[test]
fn the_last_handle_may_go_with_a_completion() {
    let disk = FaultyDisk::new();
    let journal = open(&disk.handle(), options()).unwrap();
    let (told, order) = mpsc::channel();
    let held = journal.clone();
    disk.hold_syncs();
    let done: Completion = Box::new(move |_| {
        drop(held);
        told.send(()).unwrap();
    });
    journal.append(ShardId(1), vec![entry(1, 1, 1, 10)], done);
    drop(journal);
    disk.release_syncs();
    order.recv_timeout(PATIENCE).unwrap();
}
