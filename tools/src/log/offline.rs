//! A data directory that no node runs in.
//!
//! What always holds: a directory that a node holds is refused and its owner named; while one is looked at no node starts in it;
//! files are opened for reading only.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::Args;
use gateway::data_dir::HeldDataDir;
use logstore::id::{SegmentOrdinal, ShardId, UserId};
use logstore::io::{self, Disk};
use logstore::segment::BlockCache;
use logstore::{JournalInspection, SegmentSet};
use sequencer::state::Key;
use sequencer::store::Row;

use crate::exit::Failure;

/// Look-ups go through it; scans go past it.
const CACHE_BYTES: u64 = 8 << 20;
/// The folder of sealed files.
const SEGMENTS: &str = "segments";

/// Which directory.
#[derive(Args, Clone, Debug)]
pub struct DataArgs {
    /// Data directory; no node may run in it
    #[arg(long, value_name = "D", env = "SKEIN_DATA_DIR")]
    pub data_dir: PathBuf,
}

/// The directory, held.
pub struct Offline {
    pub disk: Arc<dyn Disk>,
    pub cache: Arc<BlockCache>,
    path: PathBuf,
    _held: HeldDataDir,
}

impl Offline {
    /// Holds the directory to look at it.
    pub fn open(args: &DataArgs) -> Result<Offline, Failure> {
        let held = HeldDataDir::hold(&args.data_dir)?;
        let (disk, cache) = (io::read_only(&args.data_dir), Arc::new(BlockCache::new(CACHE_BYTES)));
        Ok(Offline { disk, cache, path: args.data_dir.clone(), _held: held })
    }

    /// Where it lies.
    pub fn data_dir(&self) -> &Path {
        &self.path
    }

    /// The shards that have anything sealed.
    pub fn shards(&self) -> Result<Vec<ShardId>, Failure> {
        shards(&*self.disk)
    }

    /// A shard's segments, verified to be those its manifest lists.
    pub fn sealed(&self, shard: ShardId) -> Result<SegmentSet, Failure> {
        Ok(SegmentSet::open(&self.disk, shard, &self.cache)?)
    }

    /// All shards' segments.
    pub fn all_sealed(&self) -> Result<Vec<SegmentSet>, Failure> {
        self.shards()?.into_iter().map(|shard| self.sealed(shard)).collect()
    }

    /// The journal.
    pub fn journal(&self) -> Result<JournalInspection, Failure> {
        Ok(JournalInspection::open(&*self.disk)?)
    }

    /// A path as it is typed (from here, or from the data directory) as the directory's own; `None` if there is no such file.
    pub fn file(&self, typed: &str) -> Option<String> {
        let typed = Path::new(typed);
        let inside = typed.strip_prefix(&self.path).unwrap_or(typed);
        let is_inside = inside.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        (is_inside && self.path.join(inside).is_file()).then(|| inside.to_str().map(str::to_owned)).flatten()
    }
}

/// The shards that have a folder with anything in it.
pub fn shards(disk: &dyn Disk) -> Result<Vec<ShardId>, Failure> {
    let names = disk.list_dirs(SEGMENTS).context("cannot list segments/")?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).map(ShardId).collect())
}

/// Whose name it is, as far as accounts are sealed.
pub fn user_named(sealed: &[SegmentSet], name: &str) -> Result<UserId, Failure> {
    let key = Key::Name(name.to_owned());
    for set in sealed {
        if let Some(Some(value)) = set.delta_get(&key.encode(), SegmentOrdinal(0))? {
            let row = Row::decode(&key, &value)
                .map_err(|bad| anyhow!("the row of name {name:?} does not decode: {bad:?}"))?;
            if let Row::Name(row) = row {
                return Ok(row.user);
            }
        }
    }
    Err(Failure::Failed(anyhow!("no account named {name:?} is sealed; give its number")))
}
