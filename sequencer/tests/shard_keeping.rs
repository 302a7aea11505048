//! Sealed entries that stay in the journal for saves to come: as long as there is a place, and no longer.
#![allow(clippy::unwrap_used)]

mod world;

use std::time::{Duration, Instant};

use logstore::JournalOptions;
use logstore::id::{LogIndex, ShardId};
use logstore::io::faulty::FaultyDisk;
use sequencer::{Command, SequencerOptions, Shard};

use world::{SOON, World, options, text};

const FILE_BYTES: u64 = 256 << 10;
const HELD_FILES_MAX: usize = 4;

fn keeping(keeps_sealed: bool) -> SequencerOptions {
    SequencerOptions { shards: 2, keeps_sealed, ..options() }
}

async fn open(disk: &FaultyDisk, keeps_sealed: bool) -> World {
    let journal =
        JournalOptions { file_bytes: FILE_BYTES, held_files_max: HELD_FILES_MAX, ..JournalOptions::default() };
    World::on_with(disk, keeping(keeps_sealed), journal).await
}

/// The first entry that can be had of a shard.
async fn first(shard: &Shard) -> Option<LogIndex> {
    for after in (0..shard.applied().0).map(LogIndex) {
        if let Some(entry) = shard.entries(after, shard.applied(), 1).await.unwrap().first() {
            return Some(entry.id.index);
        }
    }
    None
}

async fn seal_all(world: &World) {
    for shard in world.sequencer.shards() {
        shard.seal().await.unwrap();
    }
}

/// Waits for something that happens by itself.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !is_so().await {
        assert!(begin.elapsed() < SOON, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sealed_stays_while_there_is_a_place_also_through_a_restart() {
    for keeps in [true, false] {
        let disk = FaultyDisk::new();
        let mut world = open(&disk, keeps).await;
        let group = world.group(1, &[10, 11]).await;
        for n in 0..4 {
            world.send(text(group, 10, format!("{n}"))).await;
            seal_all(&world).await;
        }
        let id = world.shard_of(group).id();
        for _ in 0..2 {
            let shard = world.sequencer.shard(id).unwrap().clone();
            if keeps {
                assert_eq!(first(&shard).await, Some(LogIndex(1)));
                let all = shard.entries(LogIndex(0), shard.applied(), 1 << 20).await.unwrap();
                assert_eq!(all.len() as u64, shard.applied().0);
            } else {
                until("let go", async || first(&shard).await > Some(LogIndex(1))).await;
            }
            world = world.restart().await;
            seal_all(&world).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_gives_way_oldest_first_and_a_shard_at_rest_holds_nobody_back() {
    let disk = FaultyDisk::new();
    let world = open(&disk, true).await;
    let groups = [world.group(1, &[10]).await, world.group(2, &[10]).await, world.group(3, &[10]).await];
    let busy = groups[0];
    let resting: Vec<ShardId> = world.sequencer.shards().iter().map(|shard| shard.id()).collect();
    let resting = resting.into_iter().find(|id| *id != world.shard_of(busy).id()).unwrap();
    // What the Seal before the last one ended is nobody's need.
    seal_all(&world).await;
    seal_all(&world).await;
    let kept = first(world.sequencer.shard(resting).unwrap()).await;
    assert_eq!(kept, Some(LogIndex(1)));
    let mut before = LogIndex(0);
    for round in 0..12 {
        for n in 0..16 {
            world.send(text(busy, 10, vec![n; 8 << 10])).await;
        }
        world.shard_of(busy).seal().await.unwrap();
        until("files in use", async || world.journal.usage().files <= HELD_FILES_MAX).await;
        let now = first(world.shard_of(busy)).await.unwrap();
        assert!(now >= before, "round {round}");
        before = now;
    }
    assert!(before > LogIndex(1), "the oldest has gone");
    let kept = world.shard_of(busy).applied().0 - before.0;
    assert!(kept > 40, "a few files full of it are there: {kept}");
    let shard = world.sequencer.shard(resting).unwrap();
    until("the shard at rest", async || first(shard).await > Some(LogIndex(1))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_does_not_wait_for_saves() {
    let disk = FaultyDisk::new();
    let world = open(&disk, true).await;
    let group = world.group(1, &[10, 11]).await;
    world.send(text(group, 11, "to be erased")).await;
    seal_all(&world).await;
    for shard in world.sequencer.shards() {
        shard.execute(Command::Erase { user: logstore::id::UserId(11) }).await.unwrap();
    }
    for shard in world.sequencer.shards() {
        let done = shard.wait_for(SOON, |_| shard.read(|state, _| state.erasures().list().is_empty()).then_some(()));
        assert!(done.await.is_some(), "shard {}: {}", shard.id(), shard.erasing_waits_for());
    }
    assert!(first(world.shard_of(group)).await > Some(LogIndex(2)), "no entry of then is left");
}
