//! `skein backup restore`: a save becomes a new node's data directory, of a history of its own.
//!
//! ```text
//! choose --> open, verified --> bodies of erased messages left out --> laid out --> journal --> identity
//!                               (to a moment: entries replayed, then bodies left out)
//! ```
//!
//! What always holds: only an empty directory is taken; every file is verified before the directory is a node's; what is
//! interrupted leaves one that no node starts on and that the next attempt clears. What was erased, as any save in the directory knows,
//! is in no file of it when it is a node's. The first start begins the new history
//! in every shard, and the next life of every outbox.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args as ClapArgs;
use gateway::data_dir::owner_of_this_process;
use gateway::new_data_dir::NewDataDir;
use logstore::id::{NodeId, TimeMs};
use logstore::io::Disk;
use logstore::segment::BlockCache;
use logstore::{Manifest, SegmentSet};
use sequencer::erased_again::{self, Erased};
use sequencer::founding::Planted;
use serde::Serialize;

use super::erased::KnownErasures;
use super::restore_point::{self, Moment};
use super::store::{Save, Store, sync_dir};
use crate::exit::Outcome;
use crate::import::plant;
use crate::log::Progress;
use crate::output::{Printer, Row};

/// Arguments.
#[derive(ClapArgs)]
pub struct Args {
    /// Where backups lie
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The data directory to make
    #[arg(long, value_name = "D")]
    data_dir: PathBuf,
    /// This save [default: the newest]
    #[arg(long, value_name = "N", conflicts_with = "at")]
    save: Option<u64>,
    /// This moment of the log's time, RFC 3339: everything up to it, and nothing later
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    at: Option<SystemTime>,
}

/// What was restored.
#[derive(Serialize)]
struct Summary {
    data_dir: String,
    /// The save, or the one that a moment was reached from.
    save: u64,
    /// Of the last entry.
    log_time_ms: u64,
    history: String,
    restored_from: String,
    shards: usize,
    records: u64,
    /// How many users' messages were erased, as any save knows: what there was of them is left out.
    users_erased: usize,
    /// Shards that end before the moment that was asked for, because clocks that were set back left no other causal cut.
    shards_cut_lower: usize,
}

impl Row for Summary {
    const COLUMNS: &'static [&'static str] = &[
        "data dir",
        "save",
        "restored to",
        "history",
        "restored from",
        "shards",
        "records",
        "users erased",
        "shards cut lower",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.data_dir.clone(),
            self.save.to_string(),
            crate::user::log_time(TimeMs(self.log_time_ms)),
            self.history.clone(),
            self.restored_from.clone(),
            self.shards.to_string(),
            self.records.to_string(),
            self.users_erased.to_string(),
            self.shards_cut_lower.to_string(),
        ]
    }
}

/// The shards of a directory in the making.
#[derive(Default)]
pub(super) struct LaidOut {
    pub(super) planted: Vec<Planted>,
    pub(super) log_time: TimeMs,
    pub(super) records: u64,
    pub(super) cut_lower: usize,
}

/// Where a directory is being made.
pub(super) struct Place<'a> {
    /// Its files as a disk.
    pub(super) disk: &'a Arc<dyn Disk>,
    pub(super) path: &'a Path,
}

/// Runs it.
pub fn run(args: Args, printer: &mut Printer) -> Outcome {
    let at = args.at.map(|at| at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64));
    let store = Store::at(&args.path);
    let moment = at.map(|at| Moment::of(&store, TimeMs(at))).transpose()?;
    let save = match &moment {
        Some(moment) => moment.base().clone(),
        None => super::choose(&store, args.save)?,
    };
    let sets = store.sets(&save)?;
    let known = KnownErasures::of(&store)?;
    let (history, laid_out) = make(&save, &args.data_dir, |place| match &moment {
        Some(moment) => restore_point::lay_out(&store, moment, &sets, &known, place),
        None => lay_out(&store, &save, &sets, &known, place),
    })?;
    printer.one(&Summary {
        data_dir: args.data_dir.display().to_string(),
        save: save.save,
        log_time_ms: laid_out.log_time.0,
        history,
        restored_from: save.history.clone(),
        shards: sets.len(),
        records: laid_out.records,
        users_erased: known.by_user().len(),
        shards_cut_lower: laid_out.cut_lower,
    })
}

/// Makes a data directory of what `lay_out` lays there; states its history.
fn make(
    save: &Save,
    data_dir: &Path,
    lay_out: impl FnOnce(&Place<'_>) -> anyhow::Result<LaidOut>,
) -> anyhow::Result<(String, LaidOut)> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let owner = owner_of_this_process(([127, 0, 0, 1], 0).into(), &now);
    let dir = NewDataDir::begin(data_dir, &owner)?;
    let disk = logstore::io::real(dir.path());
    let laid_out = lay_out(&Place { disk: &disk, path: dir.path() })?;
    sync_dir(&dir.path().join("segments"))?;
    plant(&disk, NodeId(1), &laid_out.planted)?;
    let identity = dir.finish(save.dev, &now, Some(save.history_id()?))?;
    Ok((format!("{:032x}", identity.history.0), laid_out))
}

/// Lays out the shards of a save, each without what is to be erased of it.
fn lay_out(
    store: &Store,
    save: &Save,
    sets: &[Arc<SegmentSet>],
    known: &KnownErasures,
    place: &Place<'_>,
) -> anyhow::Result<LaidOut> {
    let of = save.history_id()?;
    let progress = progress_of(sets);
    let mut laid_out = LaidOut { log_time: TimeMs(save.log_time_ms()), ..LaidOut::default() };
    for set in sets {
        let manifest = bring(set, &known.of_shard(of, set)?, store.root(), place, &progress)?;
        laid_out.add(&manifest, place)?;
    }
    Ok(laid_out)
}

/// By the bytes of all segments.
pub(super) fn progress_of(sets: &[Arc<SegmentSet>]) -> Progress {
    let bytes = sets.iter().flat_map(|set| set.manifest().segments()).map(|info| info.file_bytes).sum();
    Progress::begin("restored", bytes)
}

impl LaidOut {
    /// Notes a shard that is there: its manifest is stored, and all it lists verifies.
    pub(super) fn add(&mut self, manifest: &Manifest, place: &Place<'_>) -> anyhow::Result<()> {
        let shard = manifest.shard();
        let checkpoint = manifest.checkpoint().with_context(|| format!("shard {shard} has nothing in the save"))?;
        self.planted.push(Planted { shard, sealed: checkpoint.seal });
        self.records += manifest.segments().iter().map(|info| info.counts.records).sum::<u64>();
        manifest.store(&**place.disk)?;
        Ok(SegmentSet::open(place.disk, shard, &Arc::new(BlockCache::new(1 << 20)))?.verify()?)
    }
}

/// Brings a shard's segments, copied or written once more; states which they are.
pub(super) fn bring(
    set: &SegmentSet,
    erased: &Erased,
    from: &Path,
    place: &Place<'_>,
    progress: &Progress,
) -> anyhow::Result<Manifest> {
    let rewritten = if erased.is_empty() { Vec::new() } else { erased_again::rewrite(place.disk, set, erased)? };
    for info in set.manifest().segments() {
        if !rewritten.iter().any(|new| new.span.first == info.span.first) {
            copy(&from.join(info.path()), &place.path.join(info.path()))?;
        }
        progress.add(info.file_bytes);
    }
    // Of a state store there is none yet.
    let mut manifest = set.manifest().absorbed(logstore::id::SegmentOrdinal(0))?;
    for info in rewritten {
        manifest = manifest.merged(info)?;
    }
    Ok(manifest)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let dir = to.parent().context("a segment lies in a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    fs::copy(from, to)
        .and_then(|_| File::open(to)?.sync_all())
        .with_context(|| format!("cannot write {}", to.display()))
}
