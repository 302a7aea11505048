//! The power goes off at every step of sealing and merging: the old set opens, or the new one, and work goes on.

use std::sync::Arc;

use logstore::SegmentSet;
use logstore::io::Disk;
use logstore::io::faulty::{FaultyDisk, Survives};
use logstore::merge::MergePolicy;
use logstore::segment::{BlockCache, BuildOptions};

use crate::shard::*;
use crate::support::*;

/// Spills as often as it can, so that there are many steps.
fn options() -> BuildOptions {
    BuildOptions { block_bytes: 512, spool_bytes: 0, ..BuildOptions::default() }
}

/// Three seals before; then a seal and a merge, until the power goes. States how many of the two were acknowledged.
fn live(disk: &FaultyDisk, before: &Shard) -> (usize, Model) {
    let (mut done, mut model) = (0, before.model.clone());
    let cache = Arc::new(BlockCache::new(1 << 20));
    let mut log = Log::new(9);
    (1..=3).for_each(|ordinal| drop(log.seal(ordinal, 25, 4, 30)));
    let (span, items) = log.seal(4, 25, 4, 30);
    let rows = delta(&mut Chance(5), 10, 100);
    let Ok(set) = SegmentSet::open(&disk.handle(), SHARD, &cache) else { return (0, model) };
    let mut shard = Shard { options: options(), ..Shard::new(&FaultyDisk::new().handle(), 0) };
    (shard.disk, shard.set) = (disk.handle(), Arc::new(set));
    model.add(&items, &rows);
    let Ok(info) = shard.build(span, &items, &rows) else { return (done, model) };
    let next = shard.set.manifest().sealed(info, checkpoint(&span)).unwrap();
    let Ok(set) = shard.set.publish(next) else { return (done, model) };
    (done, shard.set) = (1, Arc::new(set));
    let plan = shard.plan(&MergePolicy { seals_min: 3, seals_max: 3, ..MergePolicy::default() }).unwrap();
    let Ok(info) = shard.merge_file(&plan) else { return (done, model) };
    let next = shard.set.manifest().merged(info).unwrap();
    if shard.set.publish(next).is_ok() {
        done = 2;
    }
    (done, model)
}

#[test]
fn the_power_may_go_off_at_every_step_of_a_seal_and_a_merge() {
    let disk = FaultyDisk::new();
    let mut before = Shard { options: options(), ..Shard::new(&disk.handle(), 9) };
    for _ in 0..3 {
        let ordinal = before.set.manifest().last().next();
        let (span, items) = before.log.seal(ordinal.0, 25, 4, 30);
        let info = before.build(span, &items, &[]).unwrap();
        let next = before.set.manifest().sealed(info, checkpoint(&span)).unwrap();
        before.set = Arc::new(before.set.publish(next).unwrap());
        before.model.add(&items, &[]);
    }
    let start = disk.crash(Survives::Nothing);
    let whole = start.crash(Survives::Nothing);
    assert_eq!(live(&whole, &before).0, 2);
    let steps = whole.steps();
    assert!(steps > 40, "{steps} steps");
    for step in 0..=steps {
        let disk = start.crash(Survives::Nothing);
        disk.power_off_after(step);
        let (done, sealed) = live(&disk, &before);
        let survivors = [Survives::Nothing, Survives::Everything, Survives::Prefix(300)];
        for survives in survivors.into_iter().chain((0..4).map(Survives::Sectors)) {
            let after = disk.crash(survives);
            let set = SegmentSet::open(&after.handle(), SHARD, &Arc::new(BlockCache::new(1 << 20)))
                .unwrap_or_else(|error| panic!("step {step}, {survives:?}: {error}"));
            let last = set.manifest().last().0;
            assert!(last >= if done > 0 { 4 } else { 3 }, "step {step}, {survives:?}: an acknowledged seal is lost");
            assert!(done < 2 || set.segments().len() == 2, "step {step}, {survives:?}: the merge is lost");
            set.remove_leftovers().unwrap();
            let model = if last == 4 { &sealed } else { &before.model };
            check(&set, model, &before.rules);
            let names = after.list("segments/00005").unwrap();
            assert_eq!(names.len(), set.segments().len() + 1, "step {step}: {names:?}");
            // What was interrupted is done again.
            drop(set);
            if last == 3 && survives == Survives::Everything {
                assert_eq!(live(&after, &before).0, 2, "step {step}");
            }
        }
    }
}
