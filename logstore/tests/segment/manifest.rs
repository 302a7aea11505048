//! The manifest, and a set of segments as it lists them: what does not belong there is refused by name.

use std::sync::Arc;

use bytes::Bytes;
use logstore::id::{SegmentOrdinal, ShardId};
use logstore::io::Disk;
use logstore::io::faulty::{FaultyDisk, Operation};
use logstore::segment::{BlockCache, SegmentInfo};
use logstore::{Checkpoint, Error, Manifest, SegmentSet};

use crate::shard::*;
use crate::support::*;

const PATH: &str = "segments/00005/MANIFEST";

fn sealed(disk: &FaultyDisk, seals: u64) -> Shard {
    let mut shard = Shard::new(&disk.handle(), 9);
    (0..seals).for_each(|_| shard.seal(30, 4, 30, 5));
    shard
}

fn reopen(disk: &FaultyDisk) -> logstore::Result<SegmentSet> {
    SegmentSet::open(&disk.handle(), SHARD, &Arc::new(BlockCache::new(1 << 20)))
}

fn refused(disk: &FaultyDisk) -> Error {
    let listed = disk.list("segments/00005").unwrap();
    let error = reopen(disk).err().unwrap_or_else(|| panic!("it was opened"));
    assert_eq!(disk.list("segments/00005").unwrap(), listed, "nothing was changed");
    error
}

#[test]
fn a_manifest_comes_back_with_all_that_was_said() {
    let disk = FaultyDisk::new();
    let shard = sealed(&disk, 5);
    let manifest = shard.set.manifest().absorbed(SegmentOrdinal(3)).unwrap();
    let manifest = manifest.with_checkpoint_state(Bytes::from_static(b"other members")).unwrap();
    manifest.store(&*disk.handle()).unwrap();
    let found = Manifest::load(&*disk.handle(), SHARD).unwrap().unwrap();
    assert_eq!(found, manifest);
    assert_eq!((found.store_mark(), found.last()), (SegmentOrdinal(3), SegmentOrdinal(5)));
    assert_eq!(Manifest::load(&*disk.handle(), ShardId(6)).unwrap(), None);
    let set = reopen(&disk).unwrap();
    check(&set, &shard.model, &shard.rules);
    assert_eq!(set.segment(SegmentOrdinal(6)).map(|segment| segment.path().to_owned()), None);
}

#[test]
fn a_manifest_that_does_not_hold_together_cannot_be_made() {
    let disk = FaultyDisk::new();
    let shard = sealed(&disk, 3);
    let manifest = shard.set.manifest();
    let last = manifest.segments()[2].clone();
    let of = |info: &SegmentInfo| checkpoint(&info.span);
    assert!(matches!(manifest.sealed(last.clone(), of(&last)), Err(Error::ManifestRot { .. })), "twice the same seal");
    let mut next = last.clone();
    (next.span.first, next.span.last) = (SegmentOrdinal(4), SegmentOrdinal(4));
    assert!(matches!(manifest.sealed(next.clone(), of(&next)), Err(Error::ManifestRot { .. })), "entries overlap");
    (next.span.after, next.span.upto) = (last.span.upto, logstore::id::LogIndex(last.span.upto.0 + 9));
    assert!(manifest.sealed(next.clone(), of(&next)).is_ok());
    assert!(matches!(manifest.sealed(next.clone(), of(&last)), Err(Error::ManifestRot { .. })), "another checkpoint");
    let large = Checkpoint { state: Bytes::from(vec![0; 70_000]), ..of(&next) };
    assert!(matches!(manifest.sealed(next.clone(), large), Err(Error::ManifestRot { .. })));
    next.span.shard = ShardId(6);
    assert!(matches!(manifest.sealed(next.clone(), of(&next)), Err(Error::Misplaced { what: "shard", .. })));
    assert!(matches!(manifest.absorbed(SegmentOrdinal(4)), Err(Error::ManifestRot { .. })));
    let mut wide = last.clone();
    wide.span.first = SegmentOrdinal(2);
    assert!(matches!(manifest.merged(wide), Err(Error::ManifestRot { .. })), "its entries do not follow");
}

#[test]
fn every_flipped_byte_and_every_cut_of_a_manifest_is_refused() {
    let disk = FaultyDisk::new();
    sealed(&disk, 2);
    let bytes = disk.bytes(PATH);
    for offset in 0..bytes.len() {
        disk.flip(PATH, offset, 1 << (offset % 8));
        let error = refused(&disk);
        let named = matches!(&error, Error::ManifestRot { path, .. } | Error::NotOurs { path, .. } | Error::NewerFormat { path, .. } if path == PATH);
        assert!(named, "byte {offset}: {error}");
        disk.flip(PATH, offset, 1 << (offset % 8));
    }
    for len in 0..bytes.len() {
        disk.damage(PATH, |now| now.truncate(len));
        assert!(matches!(refused(&disk), Error::ManifestRot { .. } | Error::NotOurs { .. }), "{len} bytes");
        disk.damage(PATH, |now| now.clone_from(&bytes));
    }
    assert!(reopen(&disk).is_ok());
}

#[test]
fn random_bytes_a_newer_version_and_the_manifest_of_another_shard_are_refused() {
    let disk = FaultyDisk::new();
    sealed(&disk, 2);
    let bytes = disk.bytes(PATH);
    for len in [0, 5, 20, 3000] {
        disk.damage(PATH, |now| *now = Chance(7).bytes(len));
        assert!(matches!(refused(&disk), Error::NotOurs { .. }), "{len} random bytes");
    }
    disk.damage(PATH, |now| now.clone_from(&bytes));
    disk.damage(PATH, |now| now[8] = 3);
    assert!(matches!(refused(&disk), Error::NewerFormat { found: 3, .. }));
    disk.damage(PATH, |now| now.clone_from(&bytes));
    disk.rename(PATH, "segments/00006/MANIFEST").unwrap();
    let error = Manifest::load(&*disk.handle(), ShardId(6)).unwrap_err();
    assert!(matches!(error, Error::Misplaced { what: "shard", .. }), "{error}");
    // Segments without the manifest that lists them are not taken for a new shard.
    assert!(matches!(refused(&disk), Error::MissingManifest { segments: 2, .. }));
}

#[test]
fn a_missing_segment_and_one_in_the_place_of_another_are_named() {
    let disk = FaultyDisk::new();
    let shard = sealed(&disk, 3);
    let paths: Vec<_> = shard.set.manifest().segments().iter().map(SegmentInfo::path).collect();
    let bytes: Vec<_> = paths.iter().map(|path| disk.bytes(path)).collect();
    drop(shard);
    // A segment of other seals, and one of the same seals with other content.
    disk.damage(&paths[1], |now| now.clone_from(&bytes[0]));
    assert!(matches!(refused(&disk), Error::Misplaced { what: "identity", path, .. } if path == paths[1]));
    let other_disk = FaultyDisk::new();
    let mut log = Log::new(1234);
    let (_, first) = log.seal(1, 30, 4, 30);
    let (span, _) = Log::new(9).seal(1, 30, 4, 30);
    let other = build(&other_disk.handle(), span, &first, &[]);
    let foreign = other_disk.bytes(&other.path());
    disk.damage(&paths[1], |now| now.clone_from(&bytes[1]));
    disk.damage(&paths[0], |now| now.clone_from(&foreign));
    let error = refused(&disk);
    assert!(matches!(&error, Error::Misplaced { what: "identity", path, .. } if *path == paths[0]), "{error}");
    // One of another shard.
    let mut moved = span;
    moved.shard = ShardId(9);
    let other = build(&other_disk.handle(), moved, &[], &[]);
    disk.damage(&paths[0], |now| *now = other_disk.bytes(&other.path()));
    assert!(matches!(refused(&disk), Error::Misplaced { what: "shard", .. }));
    disk.damage(&paths[0], |now| now.clone_from(&bytes[0]));
    assert!(reopen(&disk).is_ok());
    disk.remove(&paths[2]).unwrap();
    let error = refused(&disk);
    assert!(matches!(&error, Error::MissingSegment { path, .. } if *path == paths[2]), "{error}");
}

#[test]
fn what_a_crash_left_goes_by_name_and_nothing_else_does() {
    let disk = FaultyDisk::new();
    let shard = sealed(&disk, 2);
    for name in ["0000000004-0000000004.L0.tmp", "0000000004-0000000004.L0.directory.tmp", "MANIFEST.tmp", "notes.txt"]
    {
        disk.create(&format!("segments/00005/{name}")).unwrap();
    }
    let (span, items) = Log::new(9).seal(3, 30, 4, 30);
    let orphan = build(&disk.handle(), span, &items, &[]);
    let set = reopen(&disk).unwrap();
    let removed = set.remove_leftovers().unwrap();
    assert_eq!(removed.len(), 4, "{removed:?}");
    assert!(removed.contains(&orphan.path()));
    let left = disk.list("segments/00005").unwrap();
    assert_eq!(left.len(), 4, "{left:?}");
    check(&reopen(&disk).unwrap(), &shard.model, &shard.rules);
    assert!(set.remove_leftovers().unwrap().is_empty());
}

#[test]
fn a_manifest_that_cannot_be_written_leaves_the_old_one_in_force() {
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir] {
        let disk = FaultyDisk::new();
        let mut shard = sealed(&disk, 2);
        let ordinal = SegmentOrdinal(3);
        let (span, items) = shard.log.seal(ordinal.0, 30, 4, 30);
        let info = shard.build(span, &items, &[]).unwrap();
        let next = shard.set.manifest().sealed(info, checkpoint(&span)).unwrap();
        disk.fail(operation, 1, std::io::ErrorKind::Other);
        assert!(matches!(shard.set.publish(next), Err(Error::Io { .. })), "{operation:?}");
        shard.check();
        assert!(reopen(&disk).is_ok(), "{operation:?}");
    }
}
