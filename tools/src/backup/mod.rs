//! `skein backup`: saves of a running node, what there is of them, and a new node's data directory made of one.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use clap::{Args as ClapArgs, Subcommand};
use serde::Serialize;

use crate::bench::accounts::AdminArgs;
use crate::exit::{Failure, Outcome};
use crate::export;
use crate::log::Progress;
use crate::output::{Globals, Printer, Row};

pub mod erased;
mod fetch;
mod restore;
pub mod store;

pub use fetch::Fetched;
use store::{Save, Store};

/// Arguments.
#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  skein backup save ./backups --data-dir ./skein-data\n  \
    skein backup status ./backups --deep\n  skein backup restore ./backups --data-dir ./restored")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Save what a running node holds at one moment of all its shards; files that were saved before stay
    #[command(after_help = "Examples:\n  skein backup save ./backups --data-dir ./skein-data\n  \
        skein backup save /mnt/backups --admin-key admin.pem --server 10.0.0.5:7400 -o json")]
    Save(SaveArgs),
    /// Make a new node's data directory of a save
    #[command(after_help = "Examples:\n  skein backup restore ./backups --data-dir ./restored\n  \
        skein backup restore ./backups --data-dir ./restored --at 2026-11-23T12:00:00Z\n\n\
        The directory must be empty or not there. The cluster's history is a new one: clients that were told more than was\n\
        saved forget it. Keys are not saved: make new ones with `skein config init-keys`, or put the old ones there.")]
    Restore(restore::Args),
    /// List saves; with --deep every byte of them is verified
    #[command(
        after_help = "Examples:\n  skein backup status ./backups\n  skein backup status ./backups --deep -o json"
    )]
    Status(StatusArgs),
}

/// Arguments of `save`.
#[derive(ClapArgs)]
struct SaveArgs {
    /// Where backups lie
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Hard links instead of copies, where PATH and --data-dir are on one file system: no room is taken, and no disk outlived
    #[arg(long, requires = "data_dir")]
    link: bool,
    /// How long to wait for the segments of the cut
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Arguments of `status`.
#[derive(ClapArgs)]
struct StatusArgs {
    /// Where backups lie
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Verify every byte
    #[arg(long)]
    deep: bool,
}

/// A save, for people.
#[derive(Serialize)]
pub struct SaveRow {
    save: u64,
    made: String,
    log_time_ms: u64,
    shards: usize,
    records: u64,
    files: u64,
    bytes: u64,
    /// Files that no older save has, and their bytes.
    new_files: u64,
    new_bytes: u64,
    state: String,
}

impl Row for SaveRow {
    const COLUMNS: &'static [&'static str] =
        &["save", "made", "log time", "shards", "records", "files", "bytes", "new files", "new bytes", "state"];

    fn cells(&self) -> Vec<String> {
        let time = crate::user::log_time(logstore::id::TimeMs(self.log_time_ms));
        let numbers = [self.records, self.files, self.bytes, self.new_files, self.new_bytes];
        let begin = [self.save.to_string(), self.made.clone(), time, self.shards.to_string()];
        let cells = begin.into_iter().chain(numbers.map(|number| number.to_string()));
        cells.chain([self.state.clone()]).collect()
    }
}

/// Runs it.
pub fn run(args: Args, globals: &Globals) -> Outcome {
    let mut printer = Printer::new(globals);
    match args.command {
        Command::Save(args) => {
            let link = args.admin.data_dir.clone().filter(|_| args.link);
            let (save, fetched) = save(&Store::at(&args.path), &args.admin, link, args.timeout, globals)?;
            printer.one(&row(&save, fetched, "saved")?)
        }
        Command::Restore(args) => restore::run(args, &mut printer),
        Command::Status(args) => status(&args, &mut printer),
    }
}

/// Cuts a running node and saves it beside the saves there are.
pub fn save(
    store: &Store,
    admin: &AdminArgs,
    link: Option<PathBuf>,
    limit: Duration,
    globals: &Globals,
) -> Result<(Save, Fetched), Failure> {
    store.create()?;
    let last = store.saves()?.last().map_or(0, |save| save.save);
    let runtime = export::runtime()?;
    let remote = export::open(admin, globals, runtime.handle(), limit)?;
    let sets = export::sets(&remote, &remote.disk())?;
    let fetched = fetch::fetch(&remote, &sets, store.root(), link.as_deref())?;
    let made = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let save = Save::new(last + 1, made, remote.exported().history, remote.exported().dev, &sets);
    store.put(&save)?;
    Ok((save, fetched))
}

/// What a save holds.
pub fn row(save: &Save, new: Fetched, state: &str) -> Result<SaveRow, Failure> {
    let manifests = save.shards.iter().map(store::SavedShard::manifest).collect::<anyhow::Result<Vec<_>>>()?;
    let infos = || manifests.iter().flat_map(|manifest| manifest.segments());
    Ok(SaveRow {
        save: save.save,
        made: save.made.clone(),
        log_time_ms: save.log_time_ms(),
        shards: save.shards.len(),
        records: infos().map(|info| info.counts.records).sum(),
        files: infos().count() as u64,
        bytes: infos().map(|info| info.file_bytes).sum(),
        new_files: new.files,
        new_bytes: new.bytes,
        state: state.to_owned(),
    })
}

fn status(args: &StatusArgs, printer: &mut Printer) -> Outcome {
    let store = Store::at(&args.path);
    let mut seen = hashbrown::HashSet::new();
    let (mut rows, mut bad) = (Vec::new(), 0);
    for save in store.saves().map_err(|error| Failure::Mismatch(format!("{error:#}")))? {
        let mut new = Fetched::default();
        for info in save.shards.iter().map(store::SavedShard::manifest).collect::<anyhow::Result<Vec<_>>>()? {
            for info in info.segments().iter().filter(|info| seen.insert(info.path())) {
                (new.files, new.bytes) = (new.files + 1, new.bytes + info.file_bytes);
            }
        }
        let state = match check(&store, &save, args.deep) {
            Ok(()) if args.deep => "verified".to_owned(),
            Ok(()) => "complete".to_owned(),
            Err(error) => {
                bad += 1;
                format!("{error:#}")
            }
        };
        rows.push(row(&save, new, &state)?);
    }
    printer.list(&rows)?;
    match bad {
        0 => Ok(()),
        bad => Err(Failure::Mismatch(format!("{bad} saves cannot be restored"))),
    }
}

/// Whether a save can be restored: every file is there, and is what is listed; `deep`: to the last byte.
fn check(store: &Store, save: &Save, deep: bool) -> anyhow::Result<()> {
    let sets = store.sets(save)?;
    if deep {
        let progress = Progress::begin("verified", sets.len() as u64);
        for set in &sets {
            set.verify()?;
            progress.add(1);
        }
    }
    Ok(())
}

/// The save that is asked for: the newest, one by its number, or the newest whose log time is not after a time.
pub fn choose(store: &Store, number: Option<u64>, at_ms: Option<u64>) -> anyhow::Result<Save> {
    let saves = store.saves()?;
    let is_wanted = |save: &&Save| {
        number.is_none_or(|number| save.save == number) && at_ms.is_none_or(|at| save.log_time_ms() <= at)
    };
    let found = saves.iter().filter(is_wanted).max_by_key(|save| (save.log_time_ms(), save.save)).cloned();
    let oldest = saves.iter().map(Save::log_time_ms).min();
    found
        .ok_or_else(|| match (oldest, number) {
            (None, _) => anyhow!("no save was made yet"),
            (_, Some(number)) => anyhow!("there is no save {number}; `skein backup status` lists them"),
            (Some(oldest), _) => {
                anyhow!("the oldest save is of {}", crate::user::log_time(logstore::id::TimeMs(oldest)))
            }
        })
        .with_context(|| store.root().display().to_string())
}
