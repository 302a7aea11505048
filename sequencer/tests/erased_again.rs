//! An erasure that comes to be known after segments were copied takes what they hold of it, and nothing else.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use logstore::SegmentSet;
use logstore::id::{LogIndex, ShardId, TimeMs, UserId};
use logstore::io::Disk;
use logstore::segment::{BlockCache, Item};
use sequencer::erased_again::{self, Erased};
use sequencer::state::ErasedRow;
use sequencer::{Command, Outcome, SequencerOptions};

use world::{World, options, text};

const GONE: u64 = 12;

fn random_body() -> Bytes {
    Bytes::from(std::iter::repeat_with(uuid_bytes).take(4).flatten().collect::<Vec<u8>>())
}

/// 16 bytes that nobody else has.
fn uuid_bytes() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let hash = || RandomState::new().hash_one(0_u8).to_le_bytes();
    [hash(), hash()].concat().try_into().unwrap()
}

fn open(disk: &Arc<dyn Disk>, shard: ShardId) -> SegmentSet {
    SegmentSet::open(disk, shard, &Arc::new(BlockCache::new(1 << 20))).unwrap()
}

fn bodies(set: &SegmentSet) -> BTreeSet<Bytes> {
    let items = set.segments().iter().flat_map(|segment| segment.items()).map(|item| item.unwrap());
    items.filter_map(|item| if let Item::Record(record) = item { record.body.kept().cloned() } else { None }).collect()
}

fn raw(dir: &Path) -> Vec<u8> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { raw(&path) } else { std::fs::read(path).unwrap() }).collect()
}

fn is_in(bytes: &[u8], body: &[u8]) -> bool {
    (0..bytes.len().saturating_sub(body.len() - 1)).any(|at| bytes[at] == body[0] && bytes[at..].starts_with(body))
}

/// Puts what was not written once more beside what was, as a restore does.
fn lay_out(disk: &Arc<dyn Disk>, set: &SegmentSet, erased: &Erased, [from, to]: [&Path; 2]) -> SegmentSet {
    let rewritten = erased_again::rewrite(disk, set, erased).unwrap();
    let mut manifest = set.manifest().clone();
    for info in manifest.segments().iter().filter(|info| rewritten.iter().all(|new| new.span.first != info.span.first))
    {
        disk.create_dir(&logstore::segment::shard_dir(info.span.shard)).unwrap();
        std::fs::copy(from.join(info.path()), to.join(info.path())).unwrap();
    }
    for info in rewritten {
        manifest = manifest.merged(info).unwrap();
    }
    manifest.store(&**disk).unwrap();
    open(disk, manifest.shard())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_segments_lose_what_was_erased_later_and_know_of_it_from_then_on() {
    let (dir, copy, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let world = World::in_dir(dir.path(), SequencerOptions { shards: 1, ..options() }).await;
    let group = world.group(1, &[10, 11, GONE]).await;
    let shard = world.sequencer.shards()[0].clone();
    let (mut gone, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        for sender in [10, GONE, 11] {
            let body = random_body();
            world.send(text(group, sender, body.clone())).await;
            if sender == GONE { gone.push(body) } else { kept.push(body) }
        }
        shard.seal().await.unwrap();
    }
    let before = shard.read(|_, records| records.sealed().clone());
    assert_eq!(shard.execute(Command::Erase { user: UserId(GONE) }).await.unwrap(), Outcome::Done);
    shard.seal().await.unwrap();
    let after = shard.read(|_, records| records.sealed().clone());
    let noted = erased_again::noted(after.segments().last().unwrap()).unwrap();
    assert_eq!(noted.keys().copied().collect::<Vec<_>>(), [UserId(GONE)]);
    assert!(before.segments().iter().all(|segment| erased_again::noted(segment).unwrap().is_empty()));
    assert!(gone.iter().all(|body| bodies(&before).contains(body)), "the search can tell");

    let disk = logstore::io::real(copy.path());
    let copied = lay_out(&disk, &before, &noted, [dir.path(), copy.path()]);
    copied.verify().unwrap();
    let (decoded, bytes) = (bodies(&copied), raw(copy.path()));
    assert!(gone.iter().all(|body| !decoded.contains(body) && !is_in(&bytes, body)));
    assert!(kept.iter().all(|body| decoded.contains(body) && is_in(&bytes, body)));
    let heads = |set: &SegmentSet| set.segments().iter().map(|segment| segment.info().counts.records).sum::<u64>();
    assert_eq!(heads(&copied), heads(&before), "every place stays");
    assert_eq!(erased_again::noted(copied.segments().last().unwrap()).unwrap(), noted, "it is known there, too");

    // Once more changes nothing: what is noted and gone is not written again.
    let disk = logstore::io::real(again.path());
    assert_eq!(erased_again::rewrite(&disk, &copied, &noted).unwrap().len(), 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_of_another_history_takes_what_was_sent_until_it_was_asked_for() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let world = World::in_dir(dir.path(), SequencerOptions { shards: 1, ..options() }).await;
    let group = world.group(1, &[10, GONE]).await;
    let shard = world.sequencer.shards()[0].clone();
    let (early, late) = (random_body(), random_body());
    let stored = world.send(text(group, GONE, early.clone())).await;
    while world.send(text(group, 10, "tick")).await.time == stored.time {}
    world.send(text(group, GONE, late.clone())).await;
    shard.seal().await.unwrap();
    let set = shard.read(|_, records| records.sealed().clone());
    let upto = erased_again::last_entry_at(&set, stored.time).unwrap();
    assert_eq!(erased_again::last_entry_at(&set, TimeMs(u64::MAX)).unwrap(), shard.read(|state, _| state.applied()));
    assert_eq!(erased_again::last_entry_at(&set, TimeMs(0)).unwrap(), LogIndex(0));
    let erased = Erased::from([(UserId(GONE), ErasedRow { upto, asked: stored.time })]);
    let copied = lay_out(&logstore::io::real(copy.path()), &set, &erased, [dir.path(), copy.path()]);
    assert!(!bodies(&copied).contains(&early) && bodies(&copied).contains(&late));
    world.stop().await;
}
