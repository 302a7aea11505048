//! `skein backup restore`: a save becomes a new node's data directory, of a history of its own.
//!
//! ```text
//! choose --> open, verified --> bodies of erased messages left out --> laid out --> journal --> identity
//! ```
//!
//! What always holds: only an empty directory is taken; every file is verified before the directory is a node's; what is
//! interrupted leaves one that no node starts on and that the next attempt clears. What was erased, as any save in the directory knows,
//! comes into no file of it. The first start begins the new history
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
use logstore::{Manifest, SegmentSet};
use sequencer::erased_again::{self, Erased};
use sequencer::founding::Planted;
use serde::Serialize;

use super::erased::KnownErasures;
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
    /// The newest save whose log time is not after this one, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    at: Option<SystemTime>,
}

/// What was restored.
#[derive(Serialize)]
struct Summary {
    data_dir: String,
    save: u64,
    log_time_ms: u64,
    history: String,
    restored_from: String,
    shards: usize,
    records: u64,
    /// How many users' messages were erased, as any save knows: what there was of them is left out.
    users_erased: usize,
}

impl Row for Summary {
    const COLUMNS: &'static [&'static str] =
        &["data dir", "save", "restored to", "history", "restored from", "shards", "records", "users erased"];

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
        ]
    }
}

/// Runs it.
pub fn run(args: Args, printer: &mut Printer) -> Outcome {
    let at = args.at.map(|at| at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64));
    let store = Store::at(&args.path);
    let save = super::choose(&store, args.save, at)?;
    let sets = store.sets(&save)?;
    let known = KnownErasures::of(&store)?;
    let of = save.history_id()?;
    let erased = sets.iter().map(|set| known.of_shard(of, set)).collect::<anyhow::Result<Vec<_>>>()?;
    let history = lay_out(&store, &save, &sets.iter().zip(&erased).collect::<Vec<_>>(), &args.data_dir)?;
    let records = sets.iter().flat_map(|set| set.manifest().segments()).map(|info| info.counts.records).sum();
    printer.one(&Summary {
        data_dir: args.data_dir.display().to_string(),
        save: save.save,
        log_time_ms: save.log_time_ms(),
        history,
        restored_from: save.history.clone(),
        shards: sets.len(),
        records,
        users_erased: known.by_user().len(),
    })
}

/// Makes the data directory of shards, each with what is to be erased of it; states its history.
fn lay_out(
    store: &Store,
    save: &Save,
    shards: &[(&Arc<SegmentSet>, &Erased)],
    data_dir: &Path,
) -> anyhow::Result<String> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let owner = owner_of_this_process(([127, 0, 0, 1], 0).into(), &now);
    let dir = NewDataDir::begin(data_dir, &owner)?;
    let disk = logstore::io::real(dir.path());
    let bytes = shards.iter().flat_map(|(set, _)| set.manifest().segments()).map(|info| info.file_bytes).sum();
    let progress = Progress::begin("restored", bytes);
    let mut planted = Vec::with_capacity(shards.len());
    for (set, erased) in shards {
        let manifest = bring(set, erased, store.root(), (&disk, dir.path()), &progress)?;
        let shard = manifest.shard();
        let checkpoint = manifest.checkpoint().with_context(|| format!("shard {shard} has nothing in the save"))?;
        planted.push(Planted { shard, sealed: checkpoint.seal });
        manifest.store(&*disk)?;
        let cache = Arc::new(logstore::segment::BlockCache::new(1 << 20));
        SegmentSet::open(&disk, shard, &cache)?.verify()?;
    }
    sync_dir(&dir.path().join("segments"))?;
    plant(&disk, NodeId(1), &planted)?;
    let identity = dir.finish(save.dev, &now, Some(save.history_id()?))?;
    Ok(format!("{:032x}", identity.history.0))
}

/// Brings a shard's segments, copied or written once more; states which they are.
fn bring(
    set: &SegmentSet,
    erased: &Erased,
    from: &Path,
    (disk, to): (&Arc<dyn Disk>, &Path),
    progress: &Progress,
) -> anyhow::Result<Manifest> {
    let rewritten = if erased.is_empty() { Vec::new() } else { erased_again::rewrite(disk, set, erased)? };
    for info in set.manifest().segments() {
        if !rewritten.iter().any(|new| new.span.first == info.span.first) {
            copy(&from.join(info.path()), &to.join(info.path()))?;
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
