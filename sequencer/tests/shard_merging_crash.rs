//! The power goes at steps of merging: the segment, its name, the manifest, the store that absorbs it, the files that go; with readers all the
//! while, whose rows and records come from below memory.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use logstore::id::{ConversationId, SegmentOrdinal, SeqId, TimeMs};
use logstore::io::faulty::{FaultyDisk, Survives};
use sequencer::{Clock, Outcome, Record, Send, SequencerOptions, Stored};

use world::{SOON, World, id_at, options, proposed, text_with_id};

/// A clock that tests move.
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> TimeMs {
        TimeMs(self.0.load(Ordering::Relaxed))
    }
}

const BEGIN: u64 = 1_800_000_000_000;
/// Long enough for a generation to leave the dedup window.
const PAUSE_MS: u64 = 180_000;
const GENERATIONS: u64 = 5;
/// Every step would take minutes; the offset of each run is another.
const STRIDE: u64 = 3;

/// Sealed messages on a disk, and where each is.
struct Base {
    disk: FaultyDisk,
    clock: Arc<Hand>,
    groups: [ConversationId; 2],
    sent: Vec<(Send, Stored)>,
    history: Vec<Vec<Record>>,
}

/// One shard; so many seals are a merge.
fn merging(merge_inputs: usize) -> SequencerOptions {
    SequencerOptions { shards: 1, merge_inputs, ..options() }
}

async fn history(world: &World, groups: [ConversationId; 2]) -> Result<Vec<Vec<Record>>, sequencer::Error> {
    let mut all = Vec::new();
    for group in groups {
        let shard = world.shard_of(group);
        all.push(shard.history(group, SeqId(1), SeqId(u64::MAX), usize::MAX, usize::MAX).await?);
    }
    Ok(all)
}

/// What clients get of records: bodies move when they are sealed.
fn seen(history: &[Vec<Record>]) -> Vec<(u64, u64, u64, Vec<u8>)> {
    let one = |r: &Record| (r.head.seq.0, r.head.server_msg_id.0, r.head.time.0, r.body.to_vec());
    history.iter().flatten().map(one).collect()
}

/// Seals, none of them merged.
async fn base() -> Base {
    let (disk, clock) = (FaultyDisk::new(), Arc::new(Hand(AtomicU64::new(BEGIN))));
    let world = World::on_by(&disk, merging(64), clock.clone()).await;
    let groups = [world.group(1, &[10, 11]).await, world.group(2, &[10]).await];
    let mut sent = Vec::new();
    for generation in 0..GENERATIONS {
        clock.0.fetch_add(PAUSE_MS, Ordering::Relaxed);
        for n in 0..6 {
            clock.0.fetch_add(1, Ordering::Relaxed);
            let send = text_with_id(groups[n % 2], 10, format!("{generation}.{n}"), id_at(clock.now()));
            let place = world.send(send.clone()).await;
            sent.push((send, place));
        }
        world.shard_of(groups[0]).seal().await.unwrap();
    }
    let history = history(&world, groups).await.unwrap();
    world.stop().await;
    Base { disk, clock, groups, sent, history }
}

/// Merged and absorbed, the last seal aside.
fn is_settled(world: &World, group: ConversationId) -> bool {
    world.shard_of(group).read(|_, records| {
        let manifest = records.sealed().manifest();
        manifest.segments().iter().any(|info| info.span.level.0 > 0) && manifest.store_mark() > SegmentOrdinal(0)
    })
}

/// Merges while somebody reads, until it is done or the power goes after so many steps. Whether the power went.
async fn power_goes_after(base: &Base, steps: u64, survives: Survives) -> bool {
    let disk = base.disk.crash(Survives::Everything);
    let world = World::on_by(&disk, merging(2), base.clock.clone()).await;
    disk.power_off_after(steps);
    world.shard_of(base.groups[0]).compact();
    let deadline = Instant::now() + SOON;
    let is_on = || disk.handle().list("segments").is_ok();
    while is_on() && !is_settled(&world, base.groups[0]) {
        if let Ok(read) = history(&world, base.groups).await {
            assert_eq!(seen(&read), seen(&base.history), "step {steps}, while it merges");
        }
        assert!(Instant::now() < deadline, "step {steps}: not merged in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let went_off = !is_on();
    let crashed = disk.crash(survives);
    world.sequencer.shutdown().await;
    world.journal.close();

    let world = World::on_by(&crashed, merging(2), base.clock.clone()).await;
    assert_eq!(seen(&history(&world, base.groups).await.unwrap()), seen(&base.history), "step {steps}");
    for (send, place) in &base.sent {
        let retried = proposed(world.shard_of(send.conversation), vec![send.clone()], vec![]);
        assert_eq!(retried, [Ok(Outcome::Sent(Stored { duplicate: true, ..*place }))], "step {steps}");
    }
    world.shard_of(base.groups[0]).compact();
    let deadline = Instant::now() + SOON;
    while !is_settled(&world, base.groups[0]) {
        assert!(Instant::now() < deadline, "step {steps}: what was begun is not ended");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(seen(&history(&world, base.groups).await.unwrap()), seen(&base.history), "step {steps}, merged");
    world.stop().await;
    went_off
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_of_a_merge_loses_nothing_and_readers_see_nothing_of_it() {
    let base = base().await;
    let survivors = [Survives::Nothing, Survives::Everything, Survives::Prefix(3_000), Survives::Sectors(11)];
    let mut round = 0;
    while power_goes_after(&base, round * STRIDE + round % STRIDE, survivors[round as usize % survivors.len()]).await {
        round += 1;
    }
    assert!(round > 5, "a merge takes {} steps: the power never went within it", round * STRIDE);
}
