//! What happens to a shard's segments when they are merged: nothing that anybody could see.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use logstore::id::{ConversationId, SegmentOrdinal, SeqId, TimeMs};
use sequencer::{Clock, Record, SequencerOptions, Shard};

use world::{SOON, World, id_at, options, text_with_id};

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

struct Story {
    world: World,
    clock: Arc<Hand>,
    groups: [ConversationId; 2],
}

impl Story {
    async fn begin() -> Story {
        let clock = Arc::new(Hand(AtomicU64::new(BEGIN)));
        let options = SequencerOptions { shards: 1, merge_inputs: 2, ..options() };
        let world = World::with_clock(options, clock.clone()).await;
        let groups = [world.group(1, &[10, 11]).await, world.group(2, &[10]).await];
        Story { world, clock, groups }
    }

    fn shard(&self) -> &Arc<Shard> {
        self.world.shard_of(self.groups[0])
    }

    /// A few messages and a Seal.
    async fn generation(&self) {
        self.clock.0.fetch_add(PAUSE_MS, Ordering::Relaxed);
        for n in 0..6 {
            self.clock.0.fetch_add(1, Ordering::Relaxed);
            let at = self.clock.now();
            self.world.send(text_with_id(self.groups[n % 2], 10, format!("{n} at {}", at.0), id_at(at))).await;
        }
        self.shard().seal().await.unwrap();
    }

    async fn history(&self) -> Vec<Vec<Record>> {
        let mut all = Vec::new();
        for group in self.groups {
            all.push(self.shard().history(group, SeqId(1), SeqId(u64::MAX), usize::MAX, usize::MAX).await.unwrap());
        }
        all
    }

    /// Segments and, of them, merged ones; and what the store has absorbed.
    fn segments(&self) -> (usize, usize, SegmentOrdinal) {
        self.shard().read(|_, records| {
            let manifest = records.sealed().manifest();
            let merged = manifest.segments().iter().filter(|info| info.span.level.0 > 0).count();
            (manifest.segments().len(), merged, manifest.store_mark())
        })
    }

    /// Waits until everything that the log asks for is merged and absorbed.
    async fn settled(&self) {
        let deadline = Instant::now() + SOON;
        loop {
            let done = self.shard().read(|state, records| {
                let (manifest, spans) = (records.sealed().manifest(), state.layout().spans());
                let has =
                    |first, last| manifest.segments().iter().any(|s| (s.span.first, s.span.last) == (first, last));
                // The newest may have been asked for after the newest Seal.
                let known = manifest.checkpoint().map(|checkpoint| checkpoint.seal.index);
                let known: Vec<_> = spans.iter().filter(|span| Some(span.asked_at) <= known).collect();
                let last = known.last().map_or(SegmentOrdinal(0), |span| span.last);
                known.iter().all(|span| has(span.first, span.last)) && manifest.store_mark() == last
            });
            if done {
                return;
            }
            assert!(Instant::now() < deadline, "not merged in time: {:?}", self.segments());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn restart(self) -> Story {
        Story { world: self.world.restart().await, ..self }
    }
}

/// What clients get of records: bodies move when they are sealed.
fn seen(history: &[Vec<Record>]) -> Vec<(u64, u64, u64, u128, Vec<u8>)> {
    let one =
        |r: &Record| (r.head.seq.0, r.head.ordinal.0, r.head.server_msg_id.0, r.head.client_msg_id.0, r.body.to_vec());
    history.iter().flatten().map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_merges_its_old_segments_and_reads_the_same_before_and_after_and_across_restarts() {
    let mut story = Story::begin().await;
    let mut before = seen(&story.history().await);
    for round in 0..3 {
        for _ in 0..4 {
            story.generation().await;
        }
        story.settled().await;
        let now = seen(&story.history().await);
        assert_eq!(now.len(), before.len() + 24);
        assert!(before.iter().all(|record| now.contains(record)));
        let told = |story: &Story| story.shard().read(|state, _| (state.stored(), state.layout().clone()));
        let state = told(&story);
        story = story.restart().await;
        assert_eq!(seen(&story.history().await), now, "round {round}");
        assert_eq!(told(&story), state, "round {round}");
        before = now;
    }
    let (segments, merged, mark) = story.segments();
    assert!(merged >= 1 && mark > SegmentOrdinal(0), "{:?}", story.segments());
    assert!(segments < 12, "{segments} of 12 seals");
    story.world.sequencer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_has_an_idle_shard_merged_now() {
    let story = Story::begin().await;
    for _ in 0..8 {
        story.generation().await;
    }
    let before = seen(&story.history().await);
    story.shard().compact();
    let deadline = Instant::now() + SOON * 3;
    while !story.shard().compact_plans().await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "not merged in time: {:?}", story.shard().compact_plans().await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (segments, merged, _) = story.segments();
    assert!(merged >= 1 && segments <= 8, "{segments} segments, {merged} of them merged");
    assert_eq!(seen(&story.history().await), before);
    story.world.sequencer.shutdown().await;
}
