//! The order of a pipeline, refusals included, through the whole way from proposer to apply.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use logstore::id::{ConversationId, SeqId, TimeMs, UserId};
use sequencer::{Capacity, Clock, Command, GroupChange, Outcome, Refusal, Send, SequencerOptions, Stored};

use world::{World, id_at, options, proposed, slot, stored, text, text_with_id};

/// Results in short: a seq_id, or why not.
fn short(results: &[Result<Outcome, Capacity>]) -> Vec<String> {
    let one = |result: &Result<Outcome, Capacity>| match result {
        Ok(Outcome::Sent(place)) => place.seq.to_string(),
        Ok(Outcome::Refused(why)) => format!("{why:?}"),
        Ok(other) => format!("{other:?}"),
        Err(why) => format!("{why:?}"),
    };
    results.iter().map(one).collect()
}

fn texts(conversation: ConversationId, count: usize) -> Vec<Send> {
    (0..count).map(|n| text(conversation, 10, format!("{n}"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_out_of_turn_is_refused_and_those_behind_it_too() {
    let world = World::new(options()).await;
    let group = world.group(1, &[10]).await;
    let shard = world.shard_of(group);
    let slots = [1, 2, 4, 5].map(|n| slot(7, 1, n)).to_vec();
    let results = proposed(shard, texts(group, 4), slots);
    assert_eq!(short(&results), ["2", "3", "PredecessorFailed", "PredecessorFailed"]);
    let slots = [3, 4].map(|n| slot(7, 1, n)).to_vec();
    assert_eq!(short(&proposed(shard, texts(group, 2), slots)), ["4", "5"]);
    assert_eq!(short(&proposed(shard, texts(group, 1), vec![slot(7, 0, 1)])), ["PredecessorFailed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_for_good_does_not_stop_what_follows_it() {
    let world = World::new(options()).await;
    let group = world.group(1, &[10]).await;
    let sends = vec![text(group, 10, "a"), text(group, 99, "not a member"), text(group, 10, "b")];
    let slots = [1, 2, 3].map(|n| slot(7, 1, n)).to_vec();
    assert_eq!(short(&proposed(world.shard_of(group), sends, slots)), ["2", "NotMember", "3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_the_whole_proposal_and_the_epoch_waits_for_it() {
    let world = World::new(SequencerOptions { queue_commands_max: 8, ..options() }).await;
    let group = world.group(1, &[10]).await;
    let shard = world.shard_of(group);
    let slots = |from: u64, count: u64| (from..from + count).map(|n| slot(7, 1, n)).collect::<Vec<_>>();
    assert_eq!(short(&proposed(shard, texts(group, 2), slots(1, 2))), ["2", "3"]);
    let refused = proposed(shard, texts(group, 9), slots(3, 9));
    assert_eq!(refused, vec![Err(Capacity::QueueFull); 9]);
    assert_eq!(short(&proposed(shard, texts(group, 1), slots(12, 1))), ["PredecessorFailed"]);
    assert_eq!(short(&proposed(shard, texts(group, 2), slots(3, 2))), ["4", "5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_may_turn_out_otherwise_ends_the_epoch() {
    let world = World::new(options()).await;
    let (group, other) = (world.group(1, &[10]).await, world.group(5, &[10]).await);
    let ahead = id_at(TimeMs(sequencer::SystemClock.now().0 + 60_000));
    let shard = world.shard_of(group);
    let sends = vec![text(group, 10, "a"), text_with_id(group, 10, "ahead", ahead), text(group, 10, "b")];
    let slots = [1, 2, 3].map(|n| slot(7, 1, n)).to_vec();
    assert_eq!(short(&proposed(shard, sends, slots)), ["2", "ClockSkew", "PredecessorFailed"]);
    let slots = [2, 3].map(|n| slot(7, 1, n)).to_vec();
    assert_eq!(short(&proposed(shard, texts(group, 2), slots)), ["PredecessorFailed"; 2]);
    assert_eq!(short(&proposed(world.shard_of(other), texts(other, 1), vec![slot(7, 1, 1)])), ["2"]);
    assert_eq!(short(&proposed(shard, texts(group, 1), vec![slot(7, 2, 1)])), ["3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_messages_are_taken_one_after_the_other_and_keep_their_order() {
    let world = World::new(options()).await;
    let group = world.group(1, &[10, 11]).await;
    let shard = world.shard_of(group);
    let hour_ago = sequencer::SystemClock.now().0 - 3_600_000;
    let old: Vec<Send> = (0..20)
        .map(|n| text_with_id(group, 10, format!("old {n}"), id_at(TimeMs(hour_ago + n))))
        .chain((0..3).map(|n| text(group, 10, format!("new {n}"))))
        .collect();
    let slots = (1..=23).map(|n| slot(7, 1, n)).collect();
    let behind = world::propose(shard, texts(group, 1), vec![slot(7, 1, 24)]);
    let early = proposed(shard, old, slots);
    assert_eq!(short(&early), (2..=24).map(|seq| seq.to_string()).collect::<Vec<_>>());
    assert_eq!(short(&behind.recv().unwrap()), ["PredecessorFailed"], "it came before its predecessors");
    let late = proposed(shard, texts(group, 1), vec![slot(7, 1, 24)]);
    assert_eq!(short(&late), ["25"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_held_message_waits_behind_it() {
    let world = World::new(options()).await;
    let group = world.group(1, &[10, 11]).await;
    let shard = world.shard_of(group);
    let hour_ago = sequencer::SystemClock.now().0 - 3_600_000;
    let old: Vec<Send> =
        (0..10).map(|n| text_with_id(group, 10, format!("{n}"), id_at(TimeMs(hour_ago + n)))).collect();
    let first = world::propose(shard, old, (1..=10).map(|n| slot(7, 1, n)).collect());
    let second = world::propose(shard, texts(group, 3), (11..=13).map(|n| slot(7, 1, n)).collect());
    let results = tokio::task::block_in_place(|| [first, second].map(|r| r.recv_timeout(world::SOON).unwrap()));
    assert_eq!(short(&results.concat()), (2..=14).map(|seq| seq.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_larger_than_an_entry_is_spread_and_answered_once() {
    let world = World::new(SequencerOptions { entry_bytes_max: 4096, ..options() }).await;
    let group = world.group(1, &[10]).await;
    let sends: Vec<Send> = (0..100).map(|n| text(group, 10, vec![b'x'; 100 + n])).collect();
    let slots = (1..=100).map(|n| slot(7, 1, n)).collect();
    let results = proposed(world.shard_of(group), sends.clone(), slots);
    assert_eq!(short(&results), (2..=101).map(|seq| seq.to_string()).collect::<Vec<_>>());
    let large = proposed(world.shard_of(group), vec![text(group, 10, vec![b'y'; 10_000])], vec![slot(7, 1, 101)]);
    assert_eq!(short(&large), ["102"]);
    let records = world.shard_of(group).history(group, SeqId(2), SeqId(101), 200, 1 << 20).await.unwrap();
    assert!(records.iter().zip(&sends).all(|(record, send)| record.body == send.body));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_refuses() {
    let world = World::new(options()).await;
    let group = world.group(1, &[10]).await;
    world.sequencer.shutdown().await;
    let results = proposed(world.shard_of(group), texts(group, 2), vec![]);
    assert_eq!(results, vec![Err(Capacity::NotLeading); 2]);
}

/// A clock that tests move.
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> TimeMs {
        TimeMs(self.0.load(Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_left_the_dedup_window_is_looked_up() {
    let start = 1_800_000_000_000;
    let clock = Arc::new(Hand(AtomicU64::new(start)));
    let world = World::with_clock(SequencerOptions { shards: 1, ..options() }, clock.clone()).await;
    let group = world.group(1, &[10]).await;
    let shard = world.shard_of(group);
    let id = id_at(TimeMs(start));
    let first = world.send(text_with_id(group, 10, "once", id)).await;
    for _ in 0..4 {
        clock.0.fetch_add(180_000, Ordering::Relaxed);
        world.send(text_with_id(group, 10, "later", id_at(clock.now()))).await;
        shard.execute(Command::Seal).await.unwrap();
    }
    assert!(shard.read(|state, _| state.needs_look_up(id)));
    let again = proposed(shard, vec![text_with_id(group, 10, "once", id)], vec![slot(1, 1, 1)]);
    assert_eq!(again, vec![Ok(Outcome::Sent(Stored { duplicate: true, ..first }))]);
    let other = proposed(shard, vec![text_with_id(group, 10, "twice", id)], vec![slot(1, 1, 2)]);
    assert_eq!(other, vec![Ok(Outcome::Refused(Refusal::IdempotencyConflict))]);
    let unseen = text_with_id(group, 10, "unseen", id_at(TimeMs(start + 1)));
    let late = proposed(shard, vec![unseen.clone(), unseen], vec![slot(1, 1, 3), slot(1, 1, 4)]);
    let places: Vec<Stored> = late.iter().map(|r| stored(r.as_ref().unwrap())).collect();
    assert_eq!(places[1], Stored { duplicate: true, ..places[0] });
    assert!(!places[0].duplicate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_left_the_dedup_window_is_looked_up() {
    let clock = Arc::new(Hand(AtomicU64::new(1_800_000_000_000)));
    let world = World::with_clock(SequencerOptions { shards: 1, ..options() }, clock.clone()).await;
    let group = world.group(1, &[10]).await;
    let shard = world.shard_of(group);
    let (early, id) = (id_at(clock.now()), id_at(clock.now()));
    let change = |add: &[u64], remove: &[u64], id| {
        let users = |users: &[u64]| users.iter().copied().map(UserId).collect();
        Command::GroupChange(GroupChange::new(group, UserId(10), id, users(add), users(remove)))
    };
    let added = shard.execute(change(&[11, 12], &[], id)).await;
    assert!(matches!(added, Ok(Outcome::Group { seq: SeqId(2), .. })), "{added:?}");
    shard.execute(change(&[], &[11], id_at(clock.now()))).await.unwrap();
    for _ in 0..4 {
        clock.0.fetch_add(180_000, Ordering::Relaxed);
        world.send(text_with_id(group, 10, "later", id_at(clock.now()))).await;
        shard.execute(Command::Seal).await.unwrap();
    }
    assert!(shard.read(|state, _| state.needs_look_up(id)));
    assert_eq!(shard.execute(change(&[11, 12], &[], id)).await, added);
    let other = shard.execute(change(&[12], &[], id)).await;
    assert_eq!(other, Ok(Outcome::Refused(Refusal::IdempotencyConflict)));
    let unseen = shard.execute(change(&[13], &[], early)).await;
    assert!(matches!(unseen, Ok(Outcome::Group { seq: SeqId(8), .. })), "{unseen:?}");
    assert_eq!(shard.execute(change(&[13], &[], early)).await, unseen, "it is in the window now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_who_leaves_is_followed_by_the_longest_standing_member() {
    let world = World::new(SequencerOptions { shards: 1, ..options() }).await;
    let members: Vec<u64> = [10].into_iter().chain(5_000..8_000).collect();
    let group = world.group(1, &members).await;
    let shard = world.shard_of(group);
    let leave =
        |user| GroupChange::new(group, UserId(user), id_at(sequencer::SystemClock.now()), vec![], vec![UserId(user)]);
    for (leaver, heir) in [(10, 5_000), (5_000, 5_001), (7_000, 5_001), (5_001, 5_002)] {
        let left = shard.execute(Command::GroupChange(leave(leaver))).await;
        assert!(matches!(left, Ok(Outcome::Group { .. })), "{left:?}");
        let owner = shard.read(|state, _| state.conversation(group).unwrap().group.as_ref().unwrap().owner);
        assert_eq!(owner, UserId(heir));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_falls_behind_the_logs_time_refuses_nobody() {
    let start = 1_800_000_000_000;
    let clock = Arc::new(Hand(AtomicU64::new(start)));
    let world = World::with_clock(SequencerOptions { shards: 1, ..options() }, clock.clone()).await;
    let group = world.group(1, &[10]).await;
    let shard = world.shard_of(group);
    for _ in 0..2 {
        clock.0.fetch_add(200_000, Ordering::Relaxed);
        world.send(text_with_id(group, 10, "now", id_at(clock.now()))).await;
        shard.execute(Command::Seal).await.unwrap();
    }
    // By this clock an id of now is fresh; by the log's time it is from before the dedup window.
    clock.0.fetch_sub(180_000, Ordering::Relaxed);
    let late = text_with_id(group, 10, "late", id_at(clock.now()));
    assert!(shard.read(|state, _| state.needs_look_up(late.client_msg_id)));
    // In a pipeline: what has no place in one is in no order while ids are looked up.
    let both = vec![late.clone(), text_with_id(group, 10, "later", id_at(clock.now()))];
    let results = proposed(shard, both, vec![slot(7, 1, 1), slot(7, 1, 2)]);
    assert_eq!(short(&results), ["4", "5"]);
    let again = proposed(shard, vec![late], vec![slot(7, 2, 1)]);
    assert!(matches!(again[0], Ok(Outcome::Sent(Stored { seq: SeqId(4), duplicate: true, .. }))), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_generation_is_sealed_by_itself() {
    let world = World::new(SequencerOptions { seal_bytes: 50_000, ..options() }).await;
    let group = world.group(1, &[10]).await;
    let shard = world.shard_of(group);
    for _ in 0..20 {
        world.send(text(group, 10, vec![b'x'; 10_000])).await;
    }
    let sealed = shard.wait_for(world::SOON, |state| (state.generation() >= 3).then_some(()));
    assert!(sealed.await.is_some());
}
