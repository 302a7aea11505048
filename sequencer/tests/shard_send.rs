//! Messages through proposer, Raft, journal and apply, and back out of history; also after a restart.
#![allow(clippy::unwrap_used)]

mod world;

use logstore::id::{LogIndex, SeqId, UserId};
use sequencer::{Command, Outcome, Refusal, SequencerOptions, Stored, TailStep};

use world::{World, id_now, options, proposed, stored, text, text_with_id};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_get_contiguous_seq_ids_and_are_read_back_as_sent() {
    let world = World::new(options()).await;
    let group = world.group(1, &[10, 11]).await;
    for n in 0..20u64 {
        let stored = world.send(text(group, 10 + n % 2, format!("message {n}"))).await;
        assert_eq!(stored.seq, SeqId(n + 2), "record 1 is the group's creation");
    }
    let shard = world.shard_of(group);
    let records = shard.history(group, SeqId(1), SeqId(100), 1000, 1 << 20).await.unwrap();
    assert_eq!(records.iter().map(|r| r.head.seq.0).collect::<Vec<_>>(), (1..=21).collect::<Vec<_>>());
    for (n, record) in records[1..].iter().enumerate() {
        assert_eq!(record.body, format!("message {n}"));
        assert_eq!(record.head.sender, UserId(10 + n as u64 % 2));
        assert_eq!(record.head.ordinal.0, n as u64 + 1);
    }
    world.sequencer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_everything_with_its_seq_ids() {
    let world = World::new(options()).await;
    let groups = [1, 2, 3, 4, 5, 6].map(|n| (n, [100 + n, 200 + n]));
    let mut kept = Vec::new();
    for (number, members) in groups {
        let group = world.group(number, &members).await;
        let sends: Vec<_> = (0..50).map(|n| text(group, members[n % 2], format!("{number}/{n}"))).collect();
        let results = proposed(world.shard_of(group), sends.clone(), vec![]);
        let places: Vec<Stored> = results.iter().map(|r| stored(r.as_ref().unwrap())).collect();
        kept.push((group, sends, places));
    }
    let figures = |world: &World| -> Vec<_> {
        let status = world.sequencer.shards().iter().map(|shard| shard.status());
        status.map(|s| (s.shard, s.leading, s.conversations, s.unsealed_records, s.buckets)).collect()
    };
    let before = figures(&world);
    let world = world.restart().await;
    assert_eq!(figures(&world), before);
    for (group, sends, places) in kept {
        let shard = world.shard_of(group);
        let records = shard.history(group, SeqId(2), SeqId(51), 1000, 1 << 20).await.unwrap();
        assert_eq!(records.len(), 50);
        for ((record, send), place) in records.iter().zip(&sends).zip(&places) {
            assert_eq!((record.head.seq, record.head.server_msg_id), (place.seq, place.server_msg_id));
            assert_eq!((&record.body, record.head.client_msg_id), (&send.body, send.client_msg_id));
        }
        let again = proposed(shard, sends, vec![]);
        for (result, place) in again.iter().zip(places) {
            assert_eq!(result, &Ok(Outcome::Sent(Stored { duplicate: true, ..place })));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_gets_the_original_seq_id_and_another_body_under_its_id_is_a_conflict() {
    let world = World::new(options()).await;
    let group = world.group(1, &[10, 11]).await;
    let id = id_now();
    let first = world.send(text_with_id(group, 10, "once", id)).await;
    let again = world.send(text_with_id(group, 10, "once", id)).await;
    assert_eq!(again, Stored { duplicate: true, ..first });
    let other = Command::Send(text_with_id(group, 10, "twice", id));
    let outcome = world.shard_of(group).execute(other).await.unwrap();
    assert_eq!(outcome, Outcome::Refused(Refusal::IdempotencyConflict));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_senders_each_keep_their_order() {
    let world = World::new(options()).await;
    let group = world.group(1, &[1, 2, 3, 4, 5, 6, 7, 8]).await;
    let shard = world.shard_of(group).clone();
    let senders: Vec<_> = (1..=8u64)
        .map(|sender| {
            let shard = shard.clone();
            tokio::spawn(async move {
                for round in 0..40u64 {
                    let sends = (0..5).map(|n| text(group, sender, format!("{}", round * 5 + n))).collect();
                    let results = proposed(&shard, sends, vec![]);
                    let seqs: Vec<u64> = results.iter().map(|r| stored(r.as_ref().unwrap()).seq.0).collect();
                    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    let records = shard.history(group, SeqId(2), SeqId(10_000), 10_000, 1 << 30).await.unwrap();
    assert_eq!(records.len(), 8 * 200);
    for sender in 1..=8 {
        let own = records.iter().filter(|r| r.head.sender == UserId(sender));
        let numbers: Vec<u64> = own.map(|r| std::str::from_utf8(&r.body).unwrap().parse().unwrap()).collect();
        assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_reader_sees_every_record_once_in_order() {
    let world = World::new(options()).await;
    let group = world.group(1, &[10]).await;
    let shard = world.shard_of(group).clone();
    let mut reader = shard.tail(LogIndex(0));
    let follow = tokio::spawn(async move {
        let (mut seen, mut last) = (Vec::new(), LogIndex(0));
        while seen.len() < 501 {
            let Some(TailStep::Batches(batches)) = reader.next().await else { panic!("a gap or an end") };
            for batch in batches {
                assert_eq!(batch.applied.index, last.next());
                last = batch.applied.index;
                let bodies =
                    (0..batch.applied.records.len()).map(|at| (batch.applied.records[at].head.seq.0, batch.body(at)));
                seen.extend(bodies);
            }
        }
        seen
    });
    for n in 0..100 {
        let sends = (0..5).map(|m| text(group, 10, format!("{}", n * 5 + m))).collect();
        proposed(&shard, sends, vec![]);
    }
    let seen = follow.await.unwrap();
    assert_eq!(seen.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (1..=501).collect::<Vec<_>>());
    assert!(seen[1..].iter().enumerate().all(|(n, (_, body))| *body == format!("{n}")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_bounded_by_records_and_by_bytes_but_gives_one() {
    let world = World::new(options()).await;
    let group = world.group(1, &[10]).await;
    for n in 0..10 {
        world.send(text(group, 10, vec![b'a' + n; 1000])).await;
    }
    let shard = world.shard_of(group);
    let count = async |from, to, records, bytes| {
        let read = shard.history(group, SeqId(from), SeqId(to), records, bytes).await.unwrap();
        read.iter().map(|r| r.head.seq.0).collect::<Vec<_>>()
    };
    assert_eq!(count(2, 11, 3, 1 << 20).await, [2, 3, 4]);
    assert_eq!(count(2, 11, 100, 2_500).await, [2, 3]);
    assert_eq!(count(5, 11, 100, 10).await, [5]);
    assert_eq!(count(9, 4, 100, 1 << 20).await, [0u64; 0]);
    assert_eq!(count(12, u64::MAX, 100, 1 << 20).await, [0u64; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_fell_behind_the_tail_continues_from_the_floor_and_history_has_the_rest() {
    let world = World::new(SequencerOptions { tail_bytes: 20_000, ..options() }).await;
    let group = world.group(1, &[10]).await;
    let shard = world.shard_of(group);
    let mut reader = shard.tail(LogIndex(0));
    for n in 0..50 {
        world.send(text(group, 10, vec![n; 1_000])).await;
    }
    let Some(TailStep::Reset { floor }) = reader.next().await else { panic!("the tail is not that long") };
    let Some(TailStep::Batches(batches)) = reader.next().await else { panic!("no entries after a reset") };
    assert_eq!(batches[0].applied.index, floor.next());
    assert_eq!(batches.last().unwrap().applied.index, shard.applied());
    let first = batches[0].applied.records[0].head.seq;
    let below = shard.history(group, SeqId(1), SeqId(first.0 - 1), 1000, 1 << 20).await.unwrap();
    assert_eq!(below.len() as u64, first.0 - 1);
    assert!(below.iter().all(|record| record.head.index <= floor));
}
