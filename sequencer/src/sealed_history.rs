//! Whose log a data directory holds, as its newest segments say: found before anything is opened for writing.
//!
//! What always holds: nothing is changed. What is damaged says nothing here: whoever opens the shard names it.

use std::sync::Arc;

use logstore::id::{HistoryId, ShardId};
use logstore::io::Disk;
use logstore::segment::BlockCache;
use logstore::{Manifest, SegmentSet};

use crate::state::Key;
use crate::store::Row;

/// Where a directory a shard lies.
const SEGMENTS: &str = "segments";

/// The history that the newest segment of a shard says, of the first that has one; `None` if none is sealed. Reads one segment as a rule.
pub fn sealed_history(disk: &Arc<dyn Disk>) -> Option<HistoryId> {
    let shards = disk.list_dirs(SEGMENTS).ok()?;
    shards.iter().filter_map(|name| name.parse().ok()).find_map(|shard| of_shard(disk, ShardId(shard)))
}

fn of_shard(disk: &Arc<dyn Disk>, shard: ShardId) -> Option<HistoryId> {
    let manifest = Manifest::load(&**disk, shard).ok()??;
    let newest = SegmentSet::open_listed(disk, manifest.segments().last()?, &Arc::new(BlockCache::new(0))).ok()?;
    let value = newest.delta_get(&Key::Shard.encode()).ok()???;
    match Row::decode(&Key::Shard, &value).ok()? {
        Row::Shard(row) => row.own.history,
        _ => None,
    }
}
