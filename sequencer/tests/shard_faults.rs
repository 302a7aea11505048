//! Shards when the power goes, a sync fails or the disk is full.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logstore::id::{ClientMsgId, ConversationId, SeqId};
use logstore::io::faulty::{FaultyDisk, Operation, Survives};
use parking_lot::Mutex;
use sequencer::{Capacity, Outcome, Send, Stored};

use world::{World, options, proposed, stored, text};

/// Sends to some groups until told to stop; what was acknowledged is noted when it was.
async fn keep_sending(world: &World, groups: &[ConversationId], stop: Arc<AtomicBool>) -> Arc<Mutex<Acked>> {
    let acked = Arc::new(Mutex::new(Acked::default()));
    for (sender, group) in groups.iter().copied().enumerate() {
        let (shard, acked, stop) = (world.shard_of(group).clone(), acked.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let sends: Vec<Send> = (0..7).map(|n| text(group, sender as u64 + 1, format!("{n}"))).collect();
                acked.lock().sent.extend(sends.iter().map(|send| (send.client_msg_id, send.clone())));
                let results = world::propose(&shard, sends.clone(), vec![]).recv().unwrap();
                let places = results.iter().zip(sends).filter_map(|(result, send)| match result {
                    Ok(Outcome::Sent(place)) => Some((send.client_msg_id, *place)),
                    _ => None,
                });
                acked.lock().places.extend(places);
            }
        });
    }
    acked
}

/// What clients know.
#[derive(Clone, Default)]
struct Acked {
    sent: HashMap<ClientMsgId, Send>,
    places: HashMap<ClientMsgId, Stored>,
}

/// Everything acknowledged is where it was said to be, in contiguous order, and nothing is there twice.
async fn check(world: &World, groups: &[ConversationId], known: &Acked) {
    let mut found = HashMap::new();
    for group in groups {
        let records = world.shard_of(*group).history(*group, SeqId(1), SeqId(u64::MAX), usize::MAX, usize::MAX).await;
        for (at, record) in records.unwrap().into_iter().enumerate() {
            assert_eq!(record.head.seq, SeqId(at as u64 + 1));
            assert!(found.insert(record.head.client_msg_id, record).is_none(), "one id twice");
        }
    }
    for (id, place) in &known.places {
        let record = found.get(id).expect("an acknowledged message is lost");
        assert_eq!((record.head.seq, record.head.server_msg_id), (place.seq, place.server_msg_id));
        assert_eq!(record.body, known.sent[id].body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_every_crash() {
    let survivors = [Survives::Nothing, Survives::Everything, Survives::Prefix(5_000), Survives::Sectors(7)];
    let mut disk = FaultyDisk::new();
    let mut known = Acked::default();
    let members: Vec<u64> = (1..=6).collect();
    let mut world = World::on(&disk, options()).await;
    let mut groups = Vec::new();
    for number in 1..=6 {
        groups.push(world.group(number, &members).await);
    }
    for survives in survivors {
        let stop = Arc::new(AtomicBool::new(false));
        let acked = keep_sending(&world, &groups, stop.clone()).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        let before = acked.lock().clone();
        let crashed = disk.crash(survives);
        stop.store(true, Ordering::Relaxed);
        world.sequencer.shutdown().await;
        known.places.extend(before.places);
        known.sent.extend(acked.lock().sent.clone());

        disk = crashed;
        world = World::on(&disk, options()).await;
        check(&world, &groups, &known).await;
        resend(&world, &mut known);
        check(&world, &groups, &known).await;
    }
    assert!(known.places.len() > 100, "{} messages prove nothing", known.places.len());
}

/// Sends everything again: what was acknowledged gets its old place, the rest gets one.
fn resend(world: &World, known: &mut Acked) {
    let mut by_group: HashMap<ConversationId, Vec<Send>> = HashMap::new();
    for send in known.sent.values() {
        by_group.entry(send.conversation).or_default().push(send.clone());
    }
    for (group, sends) in by_group {
        let results = proposed(world.shard_of(group), sends.clone(), vec![]);
        for (send, result) in sends.iter().zip(results) {
            let place = stored(&result.unwrap());
            let first = known.places.entry(send.client_msg_id).or_insert(place);
            assert_eq!((first.seq, first.server_msg_id), (place.seq, place.server_msg_id));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_refuses_everything_after_it_and_hangs_nobody() {
    let disk = FaultyDisk::new();
    let world = World::on(&disk, options()).await;
    let (group, other) = (world.group(1, &[10]).await, world.group(5, &[10]).await);
    disk.fail(Operation::Sync, 1, ErrorKind::Other);
    for conversation in [group, other, group] {
        let results = proposed(world.shard_of(conversation), vec![text(conversation, 10, "x")], vec![]);
        assert_eq!(results, vec![Err(Capacity::NotLeading)]);
    }
    world.sequencer.shutdown().await;
    let world = World::on(&disk.crash(Survives::Nothing), options()).await;
    let again = world.send(text(group, 10, "after")).await;
    assert_eq!(again.seq, SeqId(2), "nothing of what was refused was acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_before_the_log_and_takes_up_again_when_there_is_room() {
    let disk = FaultyDisk::new();
    disk.set_capacity(20 << 20);
    let world = World::on(&disk, options()).await;
    let group = world.group(1, &[10]).await;
    let shard = world.shard_of(group);
    let send = || vec![text(group, 10, vec![b'x'; 40_000])];
    let mut taken = 0;
    let refused = loop {
        match proposed(shard, send(), vec![]).remove(0) {
            Ok(outcome) => taken = stored(&outcome).seq.0,
            Err(why) => break why,
        }
        assert!(taken < 2_000, "20 MiB do not hold that much");
    };
    assert_eq!(refused, Capacity::NoSpace);
    let read = shard.history(group, SeqId(taken), SeqId(taken), 1, 1 << 20).await.unwrap();
    assert_eq!(read.len(), 1, "a full disk is read");
    disk.heal();
    let deadline = std::time::Instant::now() + world::SOON;
    let seq = loop {
        match proposed(shard, send(), vec![]).remove(0) {
            Ok(outcome) => break stored(&outcome).seq,
            Err(why) => assert!(std::time::Instant::now() < deadline, "still {why:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(seq, SeqId(taken + 1), "what was refused took no seq_id");
}
