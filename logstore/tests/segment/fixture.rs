//! Files that the first version wrote, kept as they were: every later version reads them.
//!
//! `fixtures/v1` is a shard with a merge (heads, trimmed ranges, removed bodies) and two seals after it. What it holds follows from
//! a seed, so that the test knows it without the files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use logstore::SegmentSet;
use logstore::id::{ConversationId, LogIndex, SeqId, UserId};
use logstore::io::Disk;
use logstore::io::faulty::FaultyDisk;
use logstore::merge::MergePolicy;
use logstore::segment::BlockCache;

use crate::shard::*;
use crate::support::*;

const DIR: &str = "segments/00005";

fn v1() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1").join(DIR)
}

/// What the files hold, made anew.
fn shard(disk: &Arc<dyn Disk>) -> Shard {
    let mut shard = Shard::new(disk, 2026);
    shard.options.block_bytes = 2000;
    shard.options.delta_block_bytes = 500;
    (0..4).for_each(|_| shard.seal(40, 5, 60, 20));
    shard.rules.trims = [(ConversationId::group(1), SeqId(9))].into();
    shard.rules.recalls = [(ConversationId::group(2), SeqId(3))].into();
    shard.rules.erasures = [(UserId(3), LogIndex(60))].into();
    let policy = MergePolicy { seals_min: 4, ..MergePolicy::default() };
    shard.merge(&shard.plan(&policy).unwrap());
    (0..2).for_each(|_| shard.seal(40, 5, 60, 20));
    shard
}

#[test]
fn files_of_version_1_are_read() {
    let disk = FaultyDisk::new();
    for entry in std::fs::read_dir(v1()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let file = disk.create(&format!("{DIR}/{name}")).unwrap();
        file.write_at(&std::fs::read(entry.path()).unwrap(), 0).unwrap();
    }
    let set = SegmentSet::open(&disk.handle(), SHARD, &Arc::new(BlockCache::new(1 << 20))).unwrap();
    let expected = shard(&FaultyDisk::new().handle());
    check(&set, &expected.model, &expected.rules);
    let ids = |set: &SegmentSet| set.segments().iter().map(|segment| segment.info().id()).collect::<Vec<_>>();
    assert_eq!(ids(&set), ids(&expected.set), "the same content has the same names for ever");
    let merge = set.segments()[0].info().counts;
    assert!(merge.trimmed > 0 && merge.removed > 0 && merge.heads == Some(5), "{merge:?}");
    assert_eq!(set.manifest().checkpoint(), expected.set.manifest().checkpoint());
}

/// Only ever for a new version, into a directory of its own.
#[test]
#[ignore = "writes files; SKEIN_FIXTURE names the data directory"]
fn write_the_fixture_of_this_version() {
    let root = PathBuf::from(std::env::var_os("SKEIN_FIXTURE").unwrap());
    std::fs::create_dir_all(&root).unwrap();
    shard(&logstore::io::real(&root));
}
