//! A node that reads around damage: what it serves is what was written, what it lacks it says, and nothing is changed.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::HashMap;
use std::sync::Arc;

use logstore::id::{ConversationId, SeqId};
use logstore::io::faulty::FaultyDisk;
use logstore::{Journal, JournalOptions};
use sequencer::{Capacity, Command, Record, Sequencer, SequencerOptions};

use world::{World, options, text};

const SHARDS: u16 = 3;

fn shards() -> SequencerOptions {
    SequencerOptions { shards: SHARDS, ..options() }
}

fn journal() -> JournalOptions {
    JournalOptions { file_bytes: 256 << 10, block_bytes_max: 64 << 10, ..JournalOptions::default() }
}

/// What a node held when it stopped.
struct Before {
    disk: FaultyDisk,
    /// One group a shard, in the order of shards.
    groups: Vec<ConversationId>,
    records: HashMap<ConversationId, Vec<Record>>,
    digests: Vec<u128>,
    /// The seq up to which each group is sealed.
    sealed: u64,
}

/// Two seals of each shard, and something above them in the journal.
async fn before() -> Before {
    let disk = FaultyDisk::new();
    let world = World::on_with(&disk, shards(), journal()).await;
    let mut groups: Vec<Option<ConversationId>> = vec![None; usize::from(SHARDS)];
    for number in 1.. {
        let group = ConversationId::group(number);
        let place = usize::from(world.shard_of(group).id().0);
        if groups[place].is_none() {
            groups[place] = Some(world.group(number, &[10, 11]).await);
        }
        if groups.iter().all(Option::is_some) {
            break;
        }
    }
    let groups: Vec<_> = groups.into_iter().flatten().collect();
    let mut sealed = 0;
    for round in 0..3 {
        for n in 0..5 {
            for group in &groups {
                sealed = world.send(text(*group, 10, format!("{round}.{n}"))).await.seq.0;
            }
        }
        if round < 2 {
            for group in &groups {
                world.shard_of(*group).seal().await.unwrap();
            }
        }
    }
    let (mut records, mut digests) = (HashMap::new(), Vec::new());
    for group in &groups {
        let shard = world.shard_of(*group);
        records.insert(*group, shard.history(*group, SeqId(1), SeqId(99), 99, usize::MAX).await.unwrap());
        digests.push(shard.read(|state, _| state.digest()));
    }
    world.stop().await;
    Before { disk, groups, records, digests, sealed: sealed - 5 }
}

/// Opens what is sound of a disk; nothing of it is changed.
async fn around(disk: &FaultyDisk) -> sequencer::Result<Arc<Sequencer>> {
    let steps = disk.steps();
    let (journal, damage) = Journal::open_around_damage(disk.handle(), journal()).unwrap();
    let opened = Sequencer::open_around_damage(shards(), journal, damage).await;
    assert_eq!(disk.steps(), steps, "something was written");
    opened
}

impl Before {
    fn damaged(&self, path: &str, change: impl Fn(&mut Vec<u8>)) -> FaultyDisk {
        let disk = self.disk.clone_unsynced();
        disk.damage(path, change);
        disk
    }

    /// Reads every record by itself: each is as it was, or an error. States how many of each group there are.
    async fn read(&self, node: &Sequencer) -> Vec<usize> {
        let mut counts = Vec::new();
        for group in &self.groups {
            let mut count = 0;
            for expected in &self.records[group] {
                let seq = expected.head.seq;
                match node.shard_of(*group).history(*group, seq, seq, 1, usize::MAX).await {
                    Ok(records) if records.is_empty() => {
                        assert!(node.shard_of(*group).is_damaged(), "{seq} of {group} is gone, and nobody says so");
                    }
                    Ok(records) => {
                        assert_eq!(
                            (records[0].head.server_msg_id, &records[0].body),
                            (expected.head.server_msg_id, &expected.body)
                        );
                        count += 1;
                    }
                    Err(error) => assert!(error.is_damage(), "{error}"),
                }
            }
            counts.push(count);
        }
        counts
    }

    fn all(&self) -> Vec<usize> {
        self.groups.iter().map(|group| self.records[group].len()).collect()
    }

    fn segments(&self, shard: usize) -> Vec<String> {
        let dir = format!("segments/{shard:05}");
        let names = self.disk.handle().list(&dir).unwrap();
        names.into_iter().filter(|name| name.ends_with(".segment")).map(|name| format!("{dir}/{name}")).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sound_is_read_as_it_was_and_takes_nothing_new() {
    let before = before().await;
    let node = around(&before.disk.clone_unsynced()).await.unwrap();
    assert_eq!(before.read(&node).await, before.all());
    let digests: Vec<_> = node.shards().iter().map(|shard| shard.read(|state, _| state.digest())).collect();
    assert_eq!(digests, before.digests, "the state is that of the last entry");
    assert!(node.is_read_only() && node.damage().is_empty() && node.shards().iter().all(|shard| !shard.is_damaged()));
    let shard = &node.shards()[0];
    let sent = shard.execute(Command::Send(text(before.groups[0], 10, "no"))).await;
    assert_eq!(sent.unwrap_err(), Capacity::ReadOnly);
    assert!(shard.seal().await.is_err() && shard.probe().await.is_err());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rot_in_one_entry_ends_one_shard_there_and_no_other() {
    let before = before().await;
    let path = "journal/0000000001.journal";
    let bytes = before.disk.bytes(path);
    // The body of the second unsealed message of the second group.
    let at = bytes.windows(3).enumerate().filter(|(_, window)| window == b"2.1").map(|(at, _)| at).nth(1).unwrap();
    let node = around(&before.damaged(path, |bytes| bytes[at] ^= 4)).await.unwrap();
    let whole = before.all();
    let counts = before.read(&node).await;
    assert_eq!((counts[0], counts[2]), (whole[0], whole[2]), "{:?}", node.damage());
    assert_eq!(counts[1], before.sealed as usize + 1, "what is below the damage is served");
    assert!(node.damage().iter().any(|what| what.contains(path) && what.contains("at offset")), "{:?}", node.damage());
    let damaged: Vec<_> = node.shards().iter().map(|shard| shard.is_damaged()).collect();
    assert_eq!(damaged, [false, true, false], "{:?}", node.shards()[1].troubles());
    assert!(node.shards()[1].troubles()[0].contains("may be lost"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_is_lost_leaves_what_is_sealed() {
    let before = before().await;
    let damaged = before.damaged("journal/0000000001.journal", |bytes| bytes[..4096].fill(0xa5));
    let node = around(&damaged).await.unwrap();
    assert_eq!(before.read_upto(&node).await, vec![before.sealed as usize; 3]);
}

impl Before {
    /// As [`Before::read`], where the journal is gone and with it what is not sealed: nobody can know of that.
    async fn read_upto(&self, node: &Sequencer) -> Vec<usize> {
        let mut counts = Vec::new();
        for group in &self.groups {
            let shard = node.shard_of(*group);
            let records = shard.history(*group, SeqId(1), SeqId(self.sealed), 99, usize::MAX).await.unwrap();
            counts.push(records.len());
            assert!(!node.damage().is_empty());
        }
        counts
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_is_missing_or_cut_takes_what_needs_it_and_nothing_of_other_shards() {
    let before = before().await;
    let whole = before.all();
    for (place, at_least) in [(0, 0), (1, 6)] {
        let path = before.segments(1)[place].clone();
        for is_removed in [true, false] {
            let disk = before.damaged(&path, |bytes| bytes.truncate(bytes.len() / 2));
            if is_removed {
                disk.handle().remove(&path).unwrap();
            }
            let node = around(&disk).await.unwrap();
            let counts = before.read(&node).await;
            assert_eq!((counts[0], counts[2]), (whole[0], whole[2]), "{path}");
            assert_eq!(counts[1], at_least, "{path}: {:?}", node.shards()[1].troubles());
            assert!(node.shards()[1].troubles().iter().any(|what| what.contains(&path)), "it is named");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_rots_leaves_its_shard_empty_and_says_so() {
    let before = before().await;
    let node = around(&before.damaged("segments/00001/MANIFEST", |bytes| bytes[40] ^= 1)).await.unwrap();
    let (whole, counts) = (before.all(), before.read(&node).await);
    assert_eq!(counts, [whole[0], 0, whole[2]]);
    assert!(node.shards()[1].troubles().iter().any(|what| what.contains("segments/00001/MANIFEST")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_byte_of_whatever_file_rots_what_is_served_is_what_was_written() {
    let before = before().await;
    let mut files: Vec<String> = (0..usize::from(SHARDS)).flat_map(|shard| before.segments(shard)).collect();
    files.push("segments/00000/MANIFEST".into());
    let mut served = 0;
    for path in &files {
        let len = before.disk.bytes(path).len();
        for at in (0..len).step_by(len / 40 + 1) {
            if let Ok(node) = around(&before.damaged(path, |bytes| bytes[at] ^= 0x20)).await {
                served += before.read(&node).await.into_iter().sum::<usize>();
            }
        }
    }
    let path = "journal/0000000001.journal";
    let used = before.disk.bytes(path).iter().rposition(|byte| *byte != 0).unwrap();
    for at in (4096..used).step_by(used / 200) {
        if let Ok(node) = around(&before.damaged(path, |bytes| bytes[at] ^= 0x20)).await {
            served += before.read_any(&node).await;
        }
    }
    assert!(served > 1000, "{served} records prove nothing");
}

impl Before {
    /// As [`Before::read`], where a torn end is no damage that anybody could tell.
    async fn read_any(&self, node: &Sequencer) -> usize {
        let mut served = 0;
        for group in &self.groups {
            for expected in &self.records[group] {
                let seq = expected.head.seq;
                let read = node.shard_of(*group).history(*group, seq, seq, 1, usize::MAX).await;
                for record in read.unwrap_or_default() {
                    assert_eq!(
                        (record.head.server_msg_id, record.head.seq, &record.body),
                        (expected.head.server_msg_id, seq, &expected.body)
                    );
                    served += 1;
                }
            }
        }
        served
    }
}
