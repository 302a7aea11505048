//! What happens to a shard's records when they are sealed: nothing that anybody could see.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use logstore::id::{ConversationId, LogIndex, SeqId, TimeMs};
use sequencer::{Capacity, Clock, Outcome, Record, Refusal, SequencerOptions, Shard, Stored};

use world::{World, id_at, options, proposed, slot, text, text_with_id};

/// A clock that tests move.
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> TimeMs {
        TimeMs(self.0.load(Ordering::Relaxed))
    }
}

fn one_shard() -> SequencerOptions {
    SequencerOptions { shards: 1, ..options() }
}

async fn history(shard: &Shard, conversation: ConversationId) -> Vec<Record> {
    shard.history(conversation, SeqId(1), SeqId(u64::MAX), usize::MAX, usize::MAX).await.unwrap()
}

/// What clients get of records: bodies move when they are sealed.
fn seen(records: &[Record]) -> Vec<(u64, u64, u64, u128, u64, Vec<u8>)> {
    let one = |r: &Record| {
        let head = r.head;
        (head.seq.0, head.ordinal.0, head.server_msg_id.0, head.client_msg_id.0, head.body_hash.0, r.body.to_vec())
    };
    records.iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_reads_the_same_across_segments_and_memory_and_after_a_restart() {
    let world = World::new(one_shard()).await;
    let groups = [world.group(1, &[10, 11]).await, world.group(2, &[10]).await];
    for round in 0..3 {
        for n in 0..20 {
            world.send(text(groups[n % 2], 10, format!("{round}.{n}"))).await;
        }
        let shard = world.shard_of(groups[0]);
        let before = seen(&history(shard, groups[0]).await);
        if round < 2 {
            assert_eq!(shard.seal().await.unwrap(), round + 1);
            assert_eq!(shard.read(|_, records| records.len()), 0, "memory lets go of what is sealed");
            assert_eq!(seen(&history(shard, groups[0]).await), before);
        }
    }
    let shard = world.shard_of(groups[0]).clone();
    let (first, second) = (history(&shard, groups[0]).await, history(&shard, groups[1]).await);
    assert_eq!((first.len(), second.len()), (31, 31));
    assert!(first.iter().zip(1..).all(|(record, seq)| record.head.seq.0 == seq));
    let page = shard.history(groups[0], SeqId(9), SeqId(24), 12, usize::MAX).await.unwrap();
    assert_eq!(seen(&page), seen(&first[8..20]), "a page across all seams ends where it is full");
    let digest = shard.status_with_digest().unwrap().digest.unwrap();
    let generation = shard.read(|state, _| state.generation());
    drop(shard);

    let world = world.restart().await;
    let shard = world.shard_of(groups[0]);
    assert_eq!(seen(&history(shard, groups[0]).await), seen(&first));
    assert_eq!(seen(&history(shard, groups[1]).await), seen(&second));
    assert_eq!(shard.read(|state, _| state.generation()), generation);
    assert_ne!(digest, 0);
    let next = world.send(text(groups[0], 10, "after")).await;
    assert_eq!(next.seq, SeqId(32));
    world.sequencer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_lets_go_of_what_was_sealed_one_seal_ago() {
    let world = World::new(one_shard()).await;
    let group = world.group(1, &[10]).await;
    let mut sealed_at = Vec::new();
    for n in 0..3 {
        world.send(text(group, 10, format!("{n}"))).await;
        world.shard_of(group).seal().await.unwrap();
        sealed_at.push(world.shard_of(group).applied());
    }
    let shard = world.shard_of(group);
    let first = || world.journal.shard_log(shard.id()).first.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while first() <= sealed_at[1] && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(first(), sealed_at[1].next(), "of {sealed_at:?}");
    let mut tail = shard.tail(LogIndex(sealed_at[1].0));
    assert!(
        matches!(tail.next().await, Some(sequencer::TailStep::Batches(_))),
        "the last seal but one can be resumed from"
    );
    world.sequencer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_of_a_message_whose_id_is_only_in_a_segment_gets_its_original_place() {
    let start = 1_800_000_000_000;
    let clock = Arc::new(Hand(AtomicU64::new(start)));
    let world = World::with_clock(one_shard(), clock.clone()).await;
    let group = world.group(1, &[10]).await;
    let id = id_at(TimeMs(start));
    let first = world.send(text_with_id(group, 10, "once", id)).await;
    for _ in 0..4 {
        clock.0.fetch_add(180_000, Ordering::Relaxed);
        world.send(text_with_id(group, 10, "later", id_at(clock.now()))).await;
        world.shard_of(group).seal().await.unwrap();
    }
    let retried = |world: &World| {
        let shard = world.shard_of(group);
        assert!(shard.read(|state, _| state.look_up_old(group, logstore::id::UserId(10), id)).is_none());
        let again = proposed(shard, vec![text_with_id(group, 10, "once", id)], vec![slot(1, 1, 1)]);
        assert_eq!(again, vec![Ok(Outcome::Sent(Stored { duplicate: true, ..first }))]);
        let other = proposed(shard, vec![text_with_id(group, 10, "twice", id)], vec![slot(1, 1, 2)]);
        assert_eq!(other, vec![Ok(Outcome::Refused(Refusal::IdempotencyConflict))]);
        let unseen = text_with_id(group, 10, "unseen", id_at(TimeMs(start + 1)));
        let late = proposed(shard, vec![unseen.clone(), unseen], vec![slot(1, 1, 3), slot(1, 1, 4)]);
        let places: Vec<_> = late.iter().map(|result| world::stored(result.as_ref().unwrap())).collect();
        assert_eq!((places[0].seq, places[0].duplicate, places[1].duplicate), (places[1].seq, false, true));
    };
    retried(&world);
    let world = world.restart().await;
    retried(&world);
    world.sequencer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_or_segments_of_another_time_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::in_dir(dir.path(), one_shard()).await;
    let group = world.group(1, &[10]).await;
    for n in 0..3 {
        world.send(text(group, 10, format!("{n}"))).await;
        world.shard_of(group).seal().await.unwrap();
    }
    world.stop().await;
    for gone in ["journal", "segments"] {
        let (here, away) = (dir.path().join(gone), dir.path().join("away"));
        std::fs::rename(&here, &away).unwrap();
        let error = world::open_error(dir.path(), one_shard()).await;
        assert!(matches!(error, sequencer::Error::Apart { .. } | sequencer::Error::NoSuchShard(_)), "{gone}: {error}");
        // A refused start may have begun a new one, or not even that.
        let _ = std::fs::remove_dir_all(&here);
        std::fs::rename(&away, &here).unwrap();
    }
    let world = World::in_dir(dir.path(), one_shard()).await;
    assert_eq!(history(world.shard_of(group), group).await.len(), 4);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_holds_too_much_unsealed_refuses_until_it_is_sealed() {
    let world = World::new(SequencerOptions { unsealed_bytes_max: 20_000, ..one_shard() }).await;
    let group = world.group(1, &[10]).await;
    let shard = world.shard_of(group);
    let mut refused = Vec::new();
    while refused.is_empty() {
        let results = proposed(shard, vec![text(group, 10, vec![b'x'; 1000])], vec![]);
        refused.extend(results.into_iter().filter_map(Result::err));
    }
    assert_eq!(refused, [Capacity::NoSpace]);
    assert!(history(shard, group).await.len() > 15, "what was accepted is there");
    shard.seal().await.unwrap();
    world.send(text(group, 10, "room again")).await;
    world.sequencer.shutdown().await;
}
