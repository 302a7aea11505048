//! `skein log rebuild`: the state stores, caches of what segments say, made anew.
//!
//! What always holds: the directory is locked as by a node; nothing but the stores is touched; a store that is made anew of the same
//! segments has the same hash as the one before, or the one before was not what was written.

use std::sync::Arc;
use std::time::SystemTime;

use clap::Args as ClapArgs;
use gateway::data_dir::{DataDir, HeldDataDir, Owner};
use logstore::SegmentSet;
use logstore::id::ShardId;
use logstore::io::{self, Disk};
use logstore::segment::{BlockCache, Level, Segment};
use sequencer::store::cache::{Mark, Opened, StateCache};
use serde::Serialize;

use super::fact::hex;
use super::offline::{DataArgs, shards};
use super::progress::Progress;
use crate::exit::Failure;
use crate::output::{Printer, Row};

/// What redb may keep of a store in memory.
const STORE_MEMORY_BYTES: usize = 64 << 20;
/// Nothing is looked up in segments.
const CACHE_BYTES: u64 = 1 << 20;

/// Arguments of `rebuild`.
#[derive(ClapArgs)]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Serialize)]
struct StoreRow {
    shard: u16,
    segments: u64,
    rows: u64,
    upto_index: u64,
    /// Of the store that was there; empty: there was none, or it was damaged, see `before`.
    hash_before: String,
    hash: String,
    /// "equal", "differs", "other" (of segments that are not there), "none" or "damaged".
    before: &'static str,
}

impl Row for StoreRow {
    const COLUMNS: &'static [&'static str] = &["shard", "segments", "rows", "up to", "before", "hash"];

    fn cells(&self) -> Vec<String> {
        let numbers =
            [u64::from(self.shard), self.segments, self.rows, self.upto_index].map(|number| number.to_string());
        numbers.into_iter().chain([self.before.to_owned(), self.hash.clone()]).collect()
    }
}

/// Makes all stores anew; fails if one that was there had another state.
pub fn run(args: Args, printer: &mut Printer) -> Result<(), Failure> {
    let path = &args.data.data_dir;
    // Refuses what is not a node's directory before the lock makes one of it.
    drop(HeldDataDir::hold(path)?);
    let _lock = DataDir::lock(path, &owner())?;
    let (disk, cache) = (io::real(path), Arc::new(BlockCache::new(CACHE_BYTES)));
    let mut rows = Vec::new();
    for shard in shards(&*disk)? {
        let set = SegmentSet::open(&disk, shard, &cache)?;
        rows.extend(rebuild(&disk, shard, &set)?);
    }
    printer.list(&rows)?;
    match rows.iter().filter(|row| row.before == "differs").count() {
        0 => Ok(()),
        stores => Err(Failure::Mismatch(format!(
            "{stores} stores held another state than their segments; they are right now"
        ))),
    }
}

fn owner() -> Owner {
    let started = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    Owner { pid: std::process::id(), listen: "nothing: skein log rebuild".into(), started }
}

/// Makes a store anew; `None` if nothing is sealed.
fn rebuild(disk: &Arc<dyn Disk>, shard: ShardId, set: &SegmentSet) -> Result<Option<StoreRow>, Failure> {
    if set.segments().is_empty() {
        return Ok(None);
    }
    let Before { verdict, hash: hash_before, mark: mark_before, store } = before(disk, shard)?;
    let known =
        mark_before.and_then(|known| set.segments().iter().position(|segment| Mark::of(segment.info()) == known));
    let segments = &set.segments()[..=known.unwrap_or_else(|| as_far_as_a_node(set.segments()))];
    let store = store.discard()?;
    let rows = absorb_all(&store, segments)?;
    let hash = store.hash()?;
    let before = match hash_before {
        None => verdict,
        Some(_) if known.is_none() => "other",
        Some(before) if before == hash => "equal",
        Some(_) => "differs",
    };
    Ok(Some(StoreRow {
        shard: shard.0,
        segments: segments.len() as u64,
        rows,
        upto_index: store.mark().index.0,
        hash_before: hash_before.map(|hash| hex(&hash)).unwrap_or_default(),
        hash: hex(&hash),
        before,
    }))
}

/// A store as it was found.
struct Before {
    /// What to say of it if it has no hash.
    verdict: &'static str,
    hash: Option<[u8; 32]>,
    mark: Option<Mark>,
    store: StateCache,
}

fn before(disk: &Arc<dyn Disk>, shard: ShardId) -> Result<Before, Failure> {
    let path = StateCache::path(shard);
    let was_there = disk.list(StateCache::DIRECTORY)?.iter().any(|name| path.ends_with(name.as_str()));
    let Opened { cache: store, discarded } = StateCache::open(disk.clone(), &path, shard, STORE_MEMORY_BYTES)?;
    if discarded.is_some() || store.mark() == Mark::default() {
        let verdict = if was_there && discarded.is_some() { "damaged" } else { "none" };
        return Ok(Before { verdict, hash: None, mark: None, store });
    }
    match store.hash() {
        Ok(hash) => Ok(Before { verdict: "", hash: Some(hash), mark: Some(store.mark()), store }),
        Err(sequencer::Error::StoreDamaged { .. }) => {
            Ok(Before { verdict: "damaged", hash: None, mark: Some(store.mark()), store })
        }
        Err(error) => Err(error.into()),
    }
}

/// A node's store has absorbed what was merged; before anything was, whatever there is.
fn as_far_as_a_node(segments: &[Arc<Segment>]) -> usize {
    let merged = segments.iter().rposition(|segment| segment.span().level > Level(0));
    merged.unwrap_or(segments.len().saturating_sub(1))
}

/// Gives a store these deltas, oldest first; states how many rows that were.
fn absorb_all(store: &StateCache, segments: &[Arc<Segment>]) -> Result<u64, Failure> {
    let rows = segments.iter().map(|segment| segment.info().counts.delta_rows).sum();
    let progress = Progress::begin("rows", rows);
    for segment in segments {
        let delta = segment.delta_rows().map(|row| {
            progress.add(1);
            row.map(|row| (row.key, row.value)).map_err(sequencer::Error::from)
        });
        store.absorb(delta, Mark::of(segment.info()))?;
    }
    Ok(rows)
}
