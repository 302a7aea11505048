//! A shard that cannot be sealed: it says so, serves as long as it may, and holds up nobody.
#![allow(clippy::unwrap_used)]

mod world;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use logstore::JournalOptions;
use logstore::id::{ConversationId, SeqId};
use logstore::io::faulty::{FaultyDisk, Operation};
use sequencer::{Capacity, Error, SequencerOptions, Shard};

use world::{SOON, World, options, proposed, text};

fn two_shards() -> SequencerOptions {
    SequencerOptions { shards: 2, ..options() }
}

/// Small files, and a cache that forgets at once.
fn journal() -> JournalOptions {
    JournalOptions {
        file_bytes: 256 << 10,
        block_bytes_max: 64 << 10,
        tail_cache_bytes: 1,
        ..JournalOptions::default()
    }
}

/// A group on each of two shards.
async fn groups(world: &World) -> [ConversationId; 2] {
    let first = world.group(1, &[10]).await;
    for number in 2.. {
        let group = world.group(number, &[10]).await;
        if world.shard_of(group).id() != world.shard_of(first).id() {
            return [first, group];
        }
    }
    unreachable!("groups of all numbers are of one shard")
}

/// Waits until it holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn sealed_soon(shard: &Arc<Shard>) -> sequencer::Result<u64> {
    tokio::time::timeout(SOON, shard.seal()).await.expect("a seal is answered")
}

/// Where the bytes lie in the journal.
fn place_of(disk: &FaultyDisk, needle: &[u8]) -> (String, usize) {
    let files = disk.handle().list("journal").unwrap().into_iter().map(|name| format!("journal/{name}"));
    let find = |path: String| {
        let at = disk.bytes(&path).windows(needle.len()).position(|window| window == needle)?;
        Some((path, at))
    };
    files.filter_map(find).next().expect("what was acknowledged is in the journal")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rot_in_what_is_to_be_sealed_is_told_to_who_waits_and_holds_up_nobody_else() {
    let disk = FaultyDisk::new();
    let world = World::on_with(&disk, two_shards(), journal()).await;
    let [group, other] = groups(&world).await;
    world.send(text(group, 10, "bytes that will rot")).await;
    let (path, offset) = place_of(&disk, b"bytes that will rot");
    let (shard, neighbour) = (world.shard_of(group).clone(), world.shard_of(other).clone());
    disk.flip(&path, offset, 1);

    let waits: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn({
                let shard = shard.clone();
                async move { sealed_soon(&shard).await }
            })
        })
        .collect();
    for wait in waits {
        let error = wait.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::CannotSeal { generation: 1, .. }), "{error}");
        assert!(error.to_string().contains(&path) && error.to_string().contains("rot"), "{error}");
    }
    assert!(shard.status().troubles[0].contains(&path), "{:?}", shard.status().troubles);
    assert!(neighbour.status().troubles.is_empty());
    assert_eq!(sealed_soon(&neighbour).await.unwrap(), 1, "the neighbour's turn comes");
    shard.probe().await.unwrap();
    world.send(text(group, 10, "it serves")).await;

    disk.flip(&path, offset, 1);
    assert!(sealed_soon(&shard).await.unwrap() >= 1, "who asks has it tried again");
    until("all is well again", || shard.status().troubles.is_empty()).await;
    let records = shard.history(group, SeqId(1), SeqId(9), 9, usize::MAX).await.unwrap();
    assert_eq!(records.iter().map(|record| record.head.seq.0).collect::<Vec<_>>(), [1, 2, 3]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_passes_is_tried_again_and_nobody_who_waits_hears_of_it() {
    for operation in [Operation::Create, Operation::Write, Operation::Rename, Operation::Open] {
        let disk = FaultyDisk::new();
        let world = World::on_with(&disk, two_shards(), journal()).await;
        let [group, _] = groups(&world).await;
        world.send(text(group, 10, "kept")).await;
        let shard = world.shard_of(group).clone();
        disk.fail_under("segments/", operation, ErrorKind::Other);
        let sealing = tokio::spawn({
            let shard = shard.clone();
            async move { sealed_soon(&shard).await }
        });
        until("the shard says what is wrong", || !shard.status().troubles.is_empty()).await;
        assert!(!sealing.is_finished(), "{operation:?}");
        world.send(text(group, 10, "meanwhile")).await;
        disk.heal();
        assert_eq!(sealing.await.unwrap().unwrap(), 1, "{operation:?}");
        assert!(shard.status().troubles.is_empty());
        let world = world.restart().await;
        assert_eq!(world.send(text(group, 10, "after")).await.seq, SeqId(4));
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_while_sealing_stops_the_node() {
    for operation in [Operation::Sync, Operation::SyncDir] {
        let disk = FaultyDisk::new();
        let world = World::on_with(&disk, two_shards(), journal()).await;
        let [group, _] = groups(&world).await;
        world.send(text(group, 10, "kept")).await;
        disk.fail_under("segments/", operation, ErrorKind::Other);
        let sealing = tokio::spawn({
            let shard = world.shard_of(group).clone();
            async move { shard.seal().await }
        });
        until("the journal takes no more", || world.journal.check_room(0).is_err()).await;
        world.sequencer.shutdown().await;
        assert!(sealing.await.unwrap().is_err(), "{operation:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_cannot_be_sealed_serves_up_to_its_bound_and_the_disk_does_not_fill() {
    let disk = FaultyDisk::new();
    let options = SequencerOptions { seal_bytes: 100_000, unsealed_bytes_max: 300_000, ..two_shards() };
    let journal = JournalOptions { held_files_max: 4, ..journal() };
    let (held_files_max, file_bytes) = (journal.held_files_max, journal.file_bytes);
    let world = World::on_with(&disk, options, journal).await;
    let [group, other] = groups(&world).await;
    let stuck = world.shard_of(group).clone();
    disk.fail_under(&format!("segments/{:05}/", stuck.id().0), Operation::Create, ErrorKind::PermissionDenied);

    let message = |group| vec![text(group, 10, vec![b'x'; 4000])];
    let mut accepted = 0;
    let refused = loop {
        match proposed(&stuck, message(group), vec![]).remove(0) {
            Ok(_) => accepted += 1,
            Err(why) => break why,
        }
        assert!(accepted < 1000, "300 kB do not hold that much");
    };
    assert_eq!(refused, Capacity::NoSpace);
    assert!(accepted >= 70, "{accepted} are less than the bound");
    assert!(matches!(stuck.probe().await, Err(Error::Refused { why: Capacity::NoSpace, .. })));
    until("it says why", || stuck.status().troubles.iter().any(|what| what.contains("segments/"))).await;

    // Many times what the files hold goes through the other shard.
    let (mut files_max, rounds) = (0, 40 * file_bytes as usize / 4000 / 20);
    for _ in 0..rounds {
        let sends = (0..20).flat_map(|_| message(other)).collect::<Vec<_>>();
        // It has a bound of its own, and is sealed when it comes near: then there is room again.
        let neighbour = world.shard_of(other);
        until("the neighbour takes more", || proposed(neighbour, sends.clone(), vec![]).iter().all(Result::is_ok))
            .await;
        files_max = files_max.max(world.journal.usage().files);
    }
    let live_files = 300_000 / file_bytes as usize + 1;
    assert!(files_max <= 2 * held_files_max + 3 * live_files, "{files_max} files are held back");
    assert!(world.journal.usage().copied_bytes >= 300_000, "what is stuck was copied forward");
    assert!(matches!(proposed(&stuck, message(group), vec![])[0], Err(Capacity::NoSpace)), "stuck all the time");
    let records = stuck.history(group, SeqId(1), SeqId(u64::MAX), usize::MAX, usize::MAX).await.unwrap();
    assert_eq!(records.len(), 1 + accepted, "what was accepted is read");

    disk.heal();
    sealed_soon(&stuck).await.unwrap();
    until("it has caught up", || proposed(&stuck, message(group), vec![])[0].is_ok()).await;
    let world = world.restart().await;
    let stuck = world.shard_of(group);
    let records = stuck.history(group, SeqId(1), SeqId(u64::MAX), usize::MAX, usize::MAX).await.unwrap();
    assert_eq!(records.len(), 2 + accepted);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_whose_acknowledged_entries_rot_takes_nothing_new_and_the_disk_does_not_fill() {
    let disk = FaultyDisk::new();
    let options = SequencerOptions { seal_bytes: 100_000, ..two_shards() };
    let journal = JournalOptions { held_files_max: 4, ..journal() };
    let held_files_max = journal.held_files_max;
    let world = World::on_with(&disk, options.clone(), journal).await;
    let [group, other] = groups(&world).await;
    world.send(text(group, 10, "before")).await;
    world.send(text(group, 10, "bytes that will rot")).await;
    world.send(text(group, 10, "after")).await;
    let (path, offset) = place_of(&disk, b"bytes that will rot");
    disk.flip(&path, offset, 1);
    let (shard, neighbour) = (world.shard_of(group), world.shard_of(other));

    let sends = || (0..20).map(|_| text(other, 10, vec![b'x'; 4000])).collect::<Vec<_>>();
    let mut files_max = 0;
    for round in 0.. {
        until("the neighbour takes more", || proposed(neighbour, sends(), vec![]).iter().all(Result::is_ok)).await;
        files_max = files_max.max(world.journal.usage().files);
        let found = world.journal.has_lost(shard.id());
        if found && disk.handle().list("journal").unwrap().iter().any(|name| name.ends_with(".rotten")) {
            break;
        }
        assert!(round < 1000, "it is found when the file is to be copied");
    }
    let aside = path.replace(".journal", ".rotten");
    for _ in 0..60 {
        until("the neighbour takes more", || proposed(neighbour, sends(), vec![]).iter().all(Result::is_ok)).await;
        files_max = files_max.max(world.journal.usage().files);
    }
    assert!(files_max <= 2 * held_files_max + 3, "{files_max} files are held back");
    assert!(shard.status().troubles.iter().any(|what| what.contains(&aside)), "{:?}", shard.status().troubles);
    assert!(neighbour.status().troubles.is_empty());
    let refused = proposed(shard, vec![text(group, 10, "new")], vec![]).remove(0);
    assert_eq!(refused.unwrap_err(), Capacity::Damaged);
    assert!(matches!(shard.probe().await, Err(Error::Refused { why: Capacity::Damaged, .. })));
    let read = |seq| shard.history(group, SeqId(seq), SeqId(seq), 9, usize::MAX);
    assert_eq!(read(2).await.unwrap()[0].body.as_ref(), b"before");
    assert!(read(3).await.unwrap_err().to_string().contains("rot"), "what has rotted is never served");
    assert_eq!(read(4).await.unwrap()[0].body.as_ref(), b"after");
    world.stop().await;
    let names = disk.handle().list("journal").unwrap();
    assert!(names.len() <= 3 * held_files_max, "{names:?}");
}
