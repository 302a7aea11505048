//! The journal on the real disk: what is written comes back, through all of its life.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use logstore::id::{LogIndex, ShardId};
use logstore::io::Disk;
use logstore::{Entry, EntryKind, Refused, Vote};
use support::{append, entries, entry, id, open, purge, range, read_all, small, truncate_after, vote, wait};

fn disk() -> (tempfile::TempDir, Arc<dyn Disk>) {
    let root = tempfile::tempdir().unwrap();
    let disk = logstore::io::real(root.path());
    (root, disk)
}

#[test]
fn everything_acknowledged_is_there_after_a_restart() {
    let (_root, disk) = disk();
    let journal = open(&disk, small()).unwrap();
    append(&journal, 1, entries(1, 0..40, 3, 1000)).unwrap();
    append(&journal, 2, entries(2, 5..90, 3, 700)).unwrap();
    vote(&journal, 1, b"first").unwrap();
    vote(&journal, 1, b"second").unwrap();
    journal.save_committed(ShardId(1), Some(id(30, 3)));
    append(&journal, 1, entries(1, 40..60, 4, 1000)).unwrap();
    journal.close();

    let journal = open(&disk, small()).unwrap();
    assert_eq!(journal.shards(), [ShardId(1), ShardId(2)]);
    let log = journal.shard_log(ShardId(1));
    assert_eq!(log.vote, Some(Vote(bytes::Bytes::from_static(b"second"))));
    assert_eq!((log.committed, log.purged, log.last), (Some(id(30, 3)), None, Some(id(59, 4))));
    assert_eq!(journal.last_index(ShardId(2)), LogIndex(89));
    let mut expected = entries(1, 0..40, 3, 1000);
    expected.extend(entries(1, 40..60, 4, 1000));
    assert_eq!(read_all(&journal, 1, 0..60).unwrap(), expected);
    assert_eq!(read_all(&journal, 2, 5..90).unwrap(), entries(2, 5..90, 3, 700));
}

#[test]
fn an_entry_is_readable_before_it_is_durable_and_by_pread_once_evicted() {
    let (_root, disk) = disk();
    let options = logstore::JournalOptions { tail_cache_bytes: 0, ..small() };
    let journal = open(&disk, options).unwrap();
    let (told, durable) = std::sync::mpsc::channel();
    let done = move |result: std::io::Result<()>| told.send(result.is_ok()).unwrap();
    journal.append(ShardId(1), entries(1, 1..9, 1, 100), Box::new(done));
    assert_eq!(read_all(&journal, 1, 1..9).unwrap(), entries(1, 1..9, 1, 100));
    assert!(durable.recv().unwrap());
    // The next commit's end evicts what is synced; its own entries too.
    append(&journal, 1, entries(1, 9..10, 1, 100)).unwrap();
    assert_eq!(journal.read_cached(ShardId(1), range(1..9), 1 << 20), None);
    assert_eq!(read_all(&journal, 1, 1..10).unwrap(), entries(1, 1..10, 1, 100));
}

#[test]
fn reads_cross_from_disk_into_the_cache() {
    let (_root, disk) = disk();
    let journal = open(&disk, small()).unwrap();
    append(&journal, 1, entries(1, 1..30, 1, 500)).unwrap();
    journal.close();
    let journal = open(&disk, small()).unwrap();
    append(&journal, 1, entries(1, 30..40, 1, 500)).unwrap();
    assert_eq!(journal.read(ShardId(1), range(20..35), 1 << 20).unwrap(), entries(1, 20..35, 1, 500));
    assert_eq!(journal.read(ShardId(1), range(28..99), 1 << 20).unwrap(), entries(1, 28..40, 1, 500));
    assert_eq!(journal.read(ShardId(1), range(28..99), 0).unwrap().len(), 1);
    assert!(journal.read(ShardId(1), range(40..41), 0).is_err());
    assert!(journal.read(ShardId(7), range(1..2), 0).is_err());
}

#[test]
fn truncated_entries_are_replaced_also_after_a_restart() {
    let (_root, disk) = disk();
    let journal = open(&disk, small()).unwrap();
    append(&journal, 1, entries(1, 1..20, 1, 100)).unwrap();
    truncate_after(&journal, 1, Some(id(10, 1))).unwrap();
    assert_eq!(journal.shard_log(ShardId(1)).last, Some(id(10, 1)));
    assert!(journal.read(ShardId(1), range(11..12), 100).is_err());
    append(&journal, 1, entries(1, 11..15, 2, 100)).unwrap();
    journal.close();
    let journal = open(&disk, small()).unwrap();
    assert_eq!(journal.shard_log(ShardId(1)).last, Some(id(14, 2)));
    assert_eq!(read_all(&journal, 1, 11..15).unwrap(), entries(1, 11..15, 2, 100));
    truncate_after(&journal, 1, None).unwrap();
    assert_eq!(journal.shard_log(ShardId(1)).last, None);
}

#[test]
fn a_purge_beyond_the_end_is_where_the_log_goes_on() {
    let (_root, disk) = disk();
    let journal = open(&disk, small()).unwrap();
    append(&journal, 1, entries(1, 1..20, 1, 100)).unwrap();
    purge(&journal, 1, id(50, 2)).unwrap();
    assert!(append(&journal, 1, entries(1, 20..21, 2, 100)).is_err());
    append(&journal, 1, entries(1, 51..53, 2, 100)).unwrap();
    journal.close();
    let journal = open(&disk, small()).unwrap();
    let log = journal.shard_log(ShardId(1));
    assert_eq!((log.purged, log.last), (Some(id(50, 2)), Some(id(52, 2))));
    assert_eq!(read_all(&journal, 1, 51..53).unwrap(), entries(1, 51..53, 2, 100));
    assert!(journal.read(ShardId(1), range(19..20), 100).is_err());
}

#[test]
fn files_that_are_wholly_purged_are_recycled() {
    let (_root, disk) = disk();
    let journal = open(&disk, small()).unwrap();
    let mut next = 1;
    for round in 0..40 {
        append(&journal, 1, entries(1, next..next + 20, 1, 1000)).unwrap();
        append(&journal, 2, entries(2, round * 2 + 1..round * 2 + 3, 1, 10)).unwrap();
        vote(&journal, 3, &round.to_le_bytes()).unwrap();
        next += 20;
        if round >= 5 {
            purge(&journal, 1, id(next - 50, 1)).unwrap();
            purge(&journal, 2, id(round * 2, 1)).unwrap();
        }
    }
    journal.close();
    let files = disk.list("journal").unwrap();
    assert!(files.len() <= 8, "800 KB written, 60 KB live: {files:?}");
    let journal = open(&disk, small()).unwrap();
    assert_eq!(journal.shard_log(ShardId(1)).last, Some(id(next - 1, 1)));
    let purged = journal.shard_log(ShardId(1)).purged.unwrap().index.0;
    assert_eq!(read_all(&journal, 1, purged + 1..next).unwrap(), entries(1, purged + 1..next, 1, 1000));
    assert!(journal.shard_log(ShardId(3)).vote.is_some());
}

#[test]
fn a_gap_and_an_entry_larger_than_a_file_are_refused_before_anything_changes() {
    let (_root, disk) = disk();
    let journal = open(&disk, small()).unwrap();
    append(&journal, 1, vec![entry(1, 1, 1, 10)]).unwrap();
    assert!(append(&journal, 1, vec![entry(1, 3, 1, 10)]).is_err());
    assert!(append(&journal, 1, vec![entry(1, 2, 1, 40_000)]).is_err());
    assert!(vote(&journal, 1, &[0; 65]).is_err());
    assert_eq!(journal.last_index(ShardId(1)), LogIndex(1));
    append(&journal, 1, vec![entry(1, 2, 1, 30_000)]).unwrap();
}

#[test]
fn kinds_come_back_and_empty_payloads_are_entries() {
    let (_root, disk) = disk();
    let journal = open(&disk, small()).unwrap();
    let kinds = [EntryKind::Blank, EntryKind::Membership, EntryKind::Normal];
    let blank = |(kind, index)| Entry { id: id(index, 1), kind, payload: bytes::Bytes::new() };
    let list: Vec<_> = kinds.into_iter().zip(1..).map(blank).collect();
    append(&journal, 1, list.clone()).unwrap();
    journal.close();
    let journal = open(&disk, small()).unwrap();
    assert_eq!(read_all(&journal, 1, 1..4).unwrap(), list);
}

#[test]
fn a_closed_journal_accepts_nothing() {
    let (_root, disk) = disk();
    let journal = open(&disk, small()).unwrap();
    let (told, result) = std::sync::mpsc::channel();
    for index in 1..50 {
        let told = told.clone();
        let done = move |result: std::io::Result<()>| told.send(result.is_ok()).unwrap();
        journal.append(ShardId(1), vec![entry(1, index, 1, 1000)], Box::new(done));
    }
    journal.close();
    assert_eq!(result.try_iter().filter(|ok| *ok).count(), 49);
    assert_eq!(journal.check_room(1), Err(Refused::Stopped));
    assert!(wait(|done| journal.append(ShardId(1), vec![entry(1, 50, 1, 10)], done)).is_err());
    journal.close();
}

#[test]
fn appenders_of_many_shards_keep_their_order() {
    let (_root, disk) = disk();
    let journal = open(&disk, small()).unwrap();
    std::thread::scope(|scope| {
        for shard in 1..=4 {
            let journal = journal.clone();
            scope.spawn(move || {
                let (told, order) = std::sync::mpsc::channel();
                for index in 1..=200 {
                    let told = told.clone();
                    let done = move |result: std::io::Result<()>| {
                        result.unwrap();
                        told.send(index).unwrap();
                    };
                    journal.append(ShardId(shard), vec![entry(shard, index, 1, 300)], Box::new(done));
                    if index % 50 == 0 {
                        vote(&journal, shard, &index.to_le_bytes()).unwrap();
                        // A vote never overtakes what its own shard queued before it.
                        assert_eq!(order.try_iter().count(), 50);
                    }
                }
            });
        }
    });
    journal.close();
    let journal = open(&disk, small()).unwrap();
    for shard in 1..=4 {
        assert_eq!(read_all(&journal, shard, 1..201).unwrap(), entries(shard, 1..201, 1, 300));
        assert_eq!(journal.shard_log(ShardId(shard)).vote.unwrap().0[..], 200_u64.to_le_bytes());
    }
}

/// What a shard has that is never purged while others fill file after file.
fn stuck(journal: &logstore::Journal, shard: u16) {
    vote(journal, shard, b"kept").unwrap();
    append(journal, shard, entries(shard, 1..15, 1, 900)).unwrap();
    truncate_after(journal, shard, Some(id(12, 1))).unwrap();
    append(journal, shard, entries(shard, 13..31, 2, 900)).unwrap();
    purge(journal, shard, id(3, 1)).unwrap();
    journal.save_committed(ShardId(shard), Some(id(20, 2)));
}

fn assert_stuck(journal: &logstore::Journal, shard: u16) {
    let log = journal.shard_log(ShardId(shard));
    assert_eq!(log.vote, Some(Vote(bytes::Bytes::from_static(b"kept"))));
    assert_eq!((log.committed, log.purged, log.last), (Some(id(20, 2)), Some(id(3, 1)), Some(id(30, 2))));
    let mut expected = entries(shard, 4..13, 1, 900);
    expected.extend(entries(shard, 13..31, 2, 900));
    assert_eq!(read_all(journal, shard, 4..31).unwrap(), expected);
    let frames = expected.iter().map(|entry| (40 + entry.payload.len()).next_multiple_of(8) as u64);
    assert_eq!(journal.live_bytes(ShardId(shard)), frames.sum::<u64>());
}

#[test]
fn a_shard_that_is_never_purged_holds_nobody_back() {
    let (_root, disk) = disk();
    let options = || logstore::JournalOptions { held_files_max: 4, tail_cache_bytes: 0, ..small() };
    let journal = open(&disk, options()).unwrap();
    stuck(&journal, 9);
    let (mut next, mut files_max) = (1, 0);
    for round in 0..400 {
        append(&journal, 1, entries(1, next..next + 8, 1, 1000)).unwrap();
        next += 8;
        purge(&journal, 1, id(next - 9, 1)).unwrap();
        files_max = files_max.max(disk.list("journal").unwrap().len());
        if round % 50 == 0 {
            assert_stuck(&journal, 9);
        }
    }
    // Held, the one being written, two ready, up to two kept to be recycled, one in the making.
    assert!(files_max <= 4 + 1 + 2 + 2 + 1, "3.2 MB written, 40 KB live: {files_max} files of 64 KiB");
    let usage = journal.usage();
    assert!(usage.copied_bytes > 2 * journal.live_bytes(ShardId(9)), "{usage:?}");
    assert!(usage.copied_bytes < 3_200_000 / 2, "copies are the smaller part of what is written: {usage:?}");
    assert_stuck(&journal, 9);
    journal.close();
    for _ in 0..2 {
        let journal = open(&disk, options()).unwrap();
        assert_stuck(&journal, 9);
        assert_eq!(read_all(&journal, 1, next - 8..next).unwrap(), entries(1, next - 8..next, 1, 1000));
        journal.close();
    }
    // It goes on where it was, and its end is an end.
    let journal = open(&disk, options()).unwrap();
    append(&journal, 9, entries(9, 31..33, 3, 900)).unwrap();
    truncate_after(&journal, 9, Some(id(10, 1))).unwrap();
    journal.close();
    let journal = open(&disk, options()).unwrap();
    assert_eq!(journal.shard_log(ShardId(9)).last, Some(id(10, 1)));
    assert_eq!(read_all(&journal, 9, 4..11).unwrap(), entries(9, 4..11, 1, 900));
}

#[test]
fn an_idle_journal_frees_its_old_files_too() {
    let (_root, disk) = disk();
    // Nothing is copied while the files are written.
    let journal = open(&disk, logstore::JournalOptions { held_files_max: 100, ..small() }).unwrap();
    stuck(&journal, 9);
    append(&journal, 1, entries(1, 1..400, 1, 1000)).unwrap();
    purge(&journal, 1, id(398, 1)).unwrap();
    assert_eq!(journal.oldest_file_pinned_by(), [ShardId(9)]);
    assert!(journal.usage().files > 6 && journal.usage().copied_bytes == 0, "{:?}", journal.usage());
    journal.close();
    let journal = open(&disk, logstore::JournalOptions { held_files_max: 2, ..small() }).unwrap();
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while journal.usage().files > 2 {
        assert!(std::time::Instant::now() < deadline, "{:?}", journal.usage());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_stuck(&journal, 9);
    journal.close();
    assert_stuck(&open(&disk, small()).unwrap(), 9);
}

#[test]
fn what_is_mostly_live_is_not_copied_round_and_round() {
    let (_root, disk) = disk();
    let journal = open(&disk, logstore::JournalOptions { held_files_max: 2, ..small() }).unwrap();
    for n in 0..40 {
        append(&journal, 1 + n % 4, entries(1 + n % 4, 10 * u64::from(n / 4) + 1..10 * u64::from(n / 4) + 11, 1, 1000))
            .unwrap();
    }
    let usage = journal.usage();
    assert_eq!((usage.copied_bytes, usage.live_bytes), (0, 400 * 1040));
    assert_eq!(journal.oldest_file_pinned_by(), [ShardId(1), ShardId(2), ShardId(3), ShardId(4)]);
    assert_eq!(journal.live_bytes(ShardId(1)), 100 * 1040);
}
