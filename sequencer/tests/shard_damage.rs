//! Rot that is found while a node runs: what it has reached is told, never served, and everything else goes on.
#![allow(clippy::unwrap_used)]

mod world;

use std::io::ErrorKind;

use logstore::JournalOptions;
use logstore::id::{ConversationId, SeqId};
use logstore::io::faulty::{FaultyDisk, Operation};
use sequencer::{Error, Record, SequencerOptions};

use world::{World, options, text};

/// One shard, and nothing of what it reads stays in memory.
async fn forgetful(disk: &FaultyDisk) -> World {
    let options = SequencerOptions { shards: 1, block_cache_bytes: 0, ..options() };
    World::on_with(disk, options, JournalOptions { file_bytes: 1 << 20, tail_cache_bytes: 1, ..Default::default() })
        .await
}

async fn read(world: &World, group: ConversationId, from: u64, to: u64) -> sequencer::Result<Vec<Record>> {
    world.shard_of(group).history(group, SeqId(from), SeqId(to), usize::MAX, usize::MAX).await
}

/// What a read of a conversation that rot has reached is answered.
async fn unreadable(world: &World, group: ConversationId, from: u64, to: u64) -> String {
    let error = read(world, group, from, to).await.expect_err("rot is never served");
    assert!(matches!(&error, Error::Unreadable { conversation, .. } if *conversation == group), "{error}");
    assert!(error.to_string().contains("shard 0"), "{error}");
    error.to_string()
}

fn segment(disk: &FaultyDisk) -> String {
    let names = disk.handle().list("segments/00000").unwrap();
    format!("segments/00000/{}", names.iter().find(|name| name.ends_with(".segment")).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_of_a_block_that_rots_is_told_with_its_file_and_place_and_other_reads_go_on() {
    let disk = FaultyDisk::new();
    let world = forgetful(&disk).await;
    let (rotten, sound) = (world.group(1, &[10]).await, world.group(2, &[10]).await);
    // Two blocks: a block that is half full ends between conversations.
    for group in [rotten, sound] {
        for n in 0..40u32 {
            world.send(text(group, 10, std::iter::repeat_n(n.to_le_bytes(), 250).flatten().collect::<Vec<_>>())).await;
        }
    }
    world.shard_of(rotten).seal().await.unwrap();
    let last = world.send(text(rotten, 10, "above the damage")).await.seq.0;
    let path = segment(&disk);
    let expected = read(&world, rotten, 1, last).await.unwrap();
    let others = read(&world, sound, 1, last).await.unwrap();

    let sealed = disk.bytes(&path);
    let block_bytes = 20 + u32::from_le_bytes(sealed[64 + 4..64 + 8].try_into().unwrap()) as usize;
    // The place of the conversation's block: the first of the file, or the second.
    let first = {
        disk.flip(&path, 64 + 30, 1);
        let is_first = read(&world, rotten, 1, 2).await.is_err();
        disk.flip(&path, 64 + 30, 1);
        if is_first { 64 } else { 64 + block_bytes }
    };
    for at in (first..first + block_bytes.min(400)).step_by(7) {
        disk.flip(&path, at, 0x10);
        let said = unreadable(&world, rotten, 1, 2).await;
        assert!(said.contains(&format!("{path} at offset {first}")), "byte {at}: {said}");
        disk.flip(&path, at, 0x10);
    }

    disk.flip(&path, first + 30, 1);
    assert_eq!(read(&world, sound, 1, last).await.unwrap(), others, "another conversation of the segment");
    assert_eq!(read(&world, rotten, last, last).await.unwrap(), expected[last as usize - 1..], "what is newer");
    world.send(text(rotten, 10, "sends go on")).await;
    disk.flip(&path, first + 30, 1);
    assert_eq!(read(&world, rotten, 1, last).await.unwrap(), expected, "nothing was remembered of what was wrong");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_medium_that_fails_is_an_error_of_the_read_and_of_nothing_else() {
    let disk = FaultyDisk::new();
    let world = forgetful(&disk).await;
    let group = world.group(1, &[10]).await;
    world.send(text(group, 10, "sealed")).await;
    world.shard_of(group).seal().await.unwrap();
    world.send(text(group, 10, "in the journal")).await;
    world.send(text(group, 10, "too")).await;
    for (under, range) in [("segments/", 1..=2), ("journal/", 3..=3)] {
        disk.fail_under(under, Operation::Read, ErrorKind::Other);
        let said = unreadable(&world, group, *range.start(), *range.end()).await;
        assert!(said.contains("read ") && said.contains(under), "{said}");
        disk.heal();
        world.send(text(group, 10, "sends go on")).await;
        let records = read(&world, group, *range.start(), *range.end()).await.unwrap();
        assert_eq!(records.len(), range.count());
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_rots_in_the_journal_is_told_with_its_entry_and_its_neighbours_are_read() {
    let disk = FaultyDisk::new();
    let world = forgetful(&disk).await;
    let group = world.group(1, &[10]).await;
    for body in ["one", "two that will rot", "three"] {
        world.send(text(group, 10, body)).await;
    }
    let path = "journal/0000000001.journal";
    let bytes = disk.bytes(path);
    let at = bytes.windows(17).position(|window| window == b"two that will rot").unwrap();
    disk.flip(path, at + 5, 0x80);
    let said = unreadable(&world, group, 1, 9).await;
    assert!(said.contains(path) && said.contains("at offset") && said.contains("shard 0 entry"), "{said}");
    assert_eq!(read(&world, group, 1, 2).await.unwrap().len(), 2);
    assert_eq!(read(&world, group, 4, 4).await.unwrap()[0].body, "three");
    world.stop().await;
}
