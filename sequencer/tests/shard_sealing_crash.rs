//! The power goes at every step of sealing: the freeze, the segment, its name, the manifest, the journal's letting go.
#![allow(clippy::unwrap_used)]

mod world;

use std::time::Duration;

use logstore::id::{ConversationId, SeqId};
use logstore::io::faulty::{FaultyDisk, Survives};
use logstore::{JournalOptions, Refused};
use sequencer::{Outcome, Record, Send, SequencerOptions, Stored};

use world::{World, options, proposed, text};

const ROUNDS: usize = 2;

fn one_shard() -> SequencerOptions {
    SequencerOptions { shards: 1, ..options() }
}

async fn history(world: &World, conversation: ConversationId) -> Vec<Record> {
    let shard = world.shard_of(conversation);
    shard.history(conversation, SeqId(1), SeqId(u64::MAX), usize::MAX, usize::MAX).await.unwrap()
}

/// Seals, or sees the node stop because the power has gone. Whether it was sealed.
async fn seal_or_stop(world: &World, conversation: ConversationId) -> bool {
    let shard = world.shard_of(conversation).clone();
    let stopped = async {
        while world.journal.check_room(0) != Err(Refused::Stopped) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        sealed = shard.seal() => sealed.is_ok(),
        () = stopped => false,
    }
}

/// Two sealed rounds of messages and an unsealed one; then the power goes after so many more steps of a third seal.
/// Whether that was before it was done.
async fn power_goes_after(steps: u64, survives: Survives) -> bool {
    let disk = FaultyDisk::new();
    let world = World::on_with(&disk, one_shard(), small_files()).await;
    let groups = [world.group(1, &[10]).await, world.group(2, &[10, 11]).await];
    let mut sent: Vec<(Send, Stored)> = Vec::new();
    for round in 0..=ROUNDS {
        for n in 0..8 {
            let send = text(groups[n % 2], 10, format!("{round}.{n}"));
            let place = world.send(send.clone()).await;
            sent.push((send, place));
        }
        if round < ROUNDS {
            world.shard_of(groups[0]).seal().await.unwrap();
        }
    }
    disk.power_off_after(steps);
    let is_sealed = seal_or_stop(&world, groups[0]).await;
    let crashed = disk.crash(survives);
    world.sequencer.shutdown().await;
    world.journal.close();

    let mut world = World::on_with(&crashed, one_shard(), small_files()).await;
    for again in 0..2 {
        for group in groups {
            let records = history(&world, group).await;
            assert!(records.iter().zip(1..).all(|(record, seq)| record.head.seq.0 == seq), "step {steps}");
            assert_eq!(records.len(), 1 + sent.len() / 2, "step {steps}");
        }
        for (send, place) in &sent {
            let retried = proposed(world.shard_of(send.conversation), vec![send.clone()], vec![]);
            assert_eq!(retried, [Ok(Outcome::Sent(Stored { duplicate: true, ..*place }))], "step {steps}");
        }
        if again == 0 {
            world.shard_of(groups[0]).seal().await.unwrap();
            world = world.restart().await;
        }
    }
    let leftovers: Vec<String> = crashed.handle().list("segments/00000").unwrap();
    assert!(leftovers.iter().all(|name| !name.ends_with(".tmp")), "step {steps}: {leftovers:?}");
    world.stop().await;
    !is_sealed
}

fn small_files() -> JournalOptions {
    JournalOptions { file_bytes: 256 << 10, block_bytes_max: 64 << 10, ..JournalOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_of_sealing_loses_nothing_and_applies_nothing_twice() {
    let survivors = [Survives::Nothing, Survives::Everything, Survives::Prefix(3_000), Survives::Sectors(11)];
    let mut steps = 0;
    while power_goes_after(steps, survivors[steps as usize % survivors.len()]).await {
        steps += 1;
    }
    assert!(steps > 10, "a seal takes {steps} steps: the power never went within it");
}
