//! `skein backup`: saves of a running node, what there is of them, and a new node's data directory made of one.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use clap::{Args as ClapArgs, Subcommand};
use logstore::id::TimeMs;
use serde::Serialize;

use crate::bench::accounts::AdminArgs;
use crate::exit::{Failure, Outcome};
use crate::export;
use crate::log::Progress;
use crate::output::{Globals, Printer, Row};

mod entries;
pub mod erased;
mod fetch;
mod points;
mod restore;
mod restore_point;
pub mod store;

use entries::Between;
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
        With --at every shard's log comes back up to its last entry that is not later; `skein backup status` tells from when\n\
        to when that can be. The directory must be empty or not there. The cluster's history is a new one: clients that were told more than was\n\
        saved forget it. Keys are not saved: make new ones with `skein config init-keys`, or put the old ones there.")]
    Restore(restore::Args),
    /// List saves, and which points in time they can be brought to; with --deep every byte of them is verified
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

/// Whether a save keeps what the log holds between the save before and itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Points {
    /// As far as the node still has it.
    Between,
    /// Nobody asks for points of time.
    None,
}

/// A save that was made.
pub struct Saved {
    /// What it lists.
    pub save: Save,
    /// What was not there before.
    pub fetched: Fetched,
    /// The points in time that it adds.
    points: Option<points::Range>,
    /// Why it adds none, although there is a save before it.
    no_points: Option<String>,
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
    /// Any moment from this one ...
    points_from_ms: Option<u64>,
    /// ... to this one can be restored because of it.
    points_to_ms: Option<u64>,
    state: String,
}

impl Row for SaveRow {
    const COLUMNS: &'static [&'static str] = &[
        "save",
        "made",
        "log time",
        "shards",
        "records",
        "files",
        "bytes",
        "new files",
        "new bytes",
        "any point from",
        "to",
        "state",
    ];

    fn cells(&self) -> Vec<String> {
        let time = crate::user::log_time(TimeMs(self.log_time_ms));
        let numbers = [self.records, self.files, self.bytes, self.new_files, self.new_bytes];
        let begin = [self.save.to_string(), self.made.clone(), time, self.shards.to_string()];
        let cells = begin.into_iter().chain(numbers.map(|number| number.to_string()));
        let point = |ms: Option<u64>| ms.map(|ms| crate::user::log_time(TimeMs(ms))).unwrap_or_default();
        cells.chain([point(self.points_from_ms), point(self.points_to_ms), self.state.clone()]).collect()
    }
}

/// Runs it.
pub fn run(args: Args, globals: &Globals) -> Outcome {
    let mut printer = Printer::new(globals);
    match args.command {
        Command::Save(args) => {
            let link = args.admin.data_dir.clone().filter(|_| args.link);
            let saved = save(&Store::at(&args.path), &args.admin, link, Points::Between, args.timeout, globals)?;
            if let Some(why) = &saved.no_points {
                eprintln!("no point between the save before and this one can be restored: {why}");
            }
            printer.one(&row(&saved.save, saved.fetched, saved.points, "saved")?)
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
    points: Points,
    limit: Duration,
    globals: &Globals,
) -> Result<Saved, Failure> {
    store.create()?;
    let mut saves = store.saves()?;
    let number = saves.last().map_or(0, |save| save.save) + 1;
    let runtime = export::runtime()?;
    let remote = export::open(admin, globals, runtime.handle(), points == Points::Between, limit)?;
    let sets = export::sets(&remote, &remote.disk())?;
    let made = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut save = Save::new(number, made, remote.exported().history, remote.exported().dev, &sets);
    let before = saves.last().filter(|before| points == Points::Between && before.history == save.history);
    // Before segments: those stay for the export, but the journal goes on letting go of entries.
    let between = before.map(|before| entries::fetch(&remote, store, before, &mut save)).transpose()?;
    let fetched = fetch::fetch(&remote, &sets, store.root(), link.as_deref())?;
    store.put(&save)?;
    saves.push(save.clone());
    let no_points = match between {
        Some(Between::Missing(why)) => Some(format!("{why}; see journal.keep_for_backups")),
        Some(Between::Kept) | None => None,
    };
    Ok(Saved { save, fetched, points: points::added(&saves), no_points })
}

/// What a save holds.
pub fn row(save: &Save, new: Fetched, points: Option<points::Range>, state: &str) -> Result<SaveRow, Failure> {
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
        points_from_ms: points.map(|points| points.from.0),
        points_to_ms: points.map(|points| points.to.0),
        state: state.to_owned(),
    })
}

fn status(args: &StatusArgs, printer: &mut Printer) -> Outcome {
    let store = Store::at(&args.path);
    let mut seen = hashbrown::HashSet::new();
    let (mut rows, mut bad) = (Vec::new(), 0);
    let saves = store.saves().map_err(|error| Failure::Mismatch(format!("{error:#}")))?;
    for (place, save) in saves.iter().enumerate() {
        let mut new = Fetched::default();
        for info in save.shards.iter().map(store::SavedShard::manifest).collect::<anyhow::Result<Vec<_>>>()? {
            for info in info.segments().iter().filter(|info| seen.insert(info.path())) {
                (new.files, new.bytes) = (new.files + 1, new.bytes + info.file_bytes);
            }
        }
        let before = place.checked_sub(1).map(|before| &saves[before]);
        let state = match check(&store, before, save, args.deep) {
            Ok(()) if args.deep => "verified".to_owned(),
            Ok(()) => "complete".to_owned(),
            Err(error) => {
                bad += 1;
                format!("{error:#}")
            }
        };
        rows.push(row(save, new, points::added(&saves[..=place]), &state)?);
    }
    printer.list(&rows)?;
    match bad {
        0 => Ok(()),
        bad => Err(Failure::Mismatch(format!("{bad} saves cannot be restored"))),
    }
}

/// Whether a save can be restored: every file is there, and is what is listed; `deep`: to the last byte.
fn check(store: &Store, before: Option<&Save>, save: &Save, deep: bool) -> anyhow::Result<()> {
    let sets = store.sets(save)?;
    entries::verify(store, before, save, deep)?;
    if deep {
        let progress = Progress::begin("verified", sets.len() as u64);
        for set in &sets {
            set.verify()?;
            progress.add(1);
        }
    }
    Ok(())
}

/// The save that is asked for: the newest, or one by its number.
pub fn choose(store: &Store, number: Option<u64>) -> anyhow::Result<Save> {
    let saves = store.saves()?;
    let is_wanted = |save: &&Save| number.is_none_or(|number| save.save == number);
    let found = saves.iter().filter(is_wanted).max_by_key(|save| (save.log_time_ms(), save.save)).cloned();
    found
        .ok_or_else(|| match number {
            Some(number) if !saves.is_empty() => {
                anyhow!("there is no save {number}; `skein backup status` lists them")
            }
            _ => anyhow!("no save was made yet"),
        })
        .with_context(|| store.root().display().to_string())
}

/// The save to begin with, and those whose entries lead from it to a moment.
fn lead_to(store: &Store, at: TimeMs) -> anyhow::Result<Vec<Save>> {
    let saves = store.saves()?;
    let found = points::lead_to(&saves, at).map(<[Save]>::to_vec);
    found.ok_or_else(|| out_of_reach(&saves, at)).with_context(|| store.root().display().to_string())
}

/// What can be restored instead.
fn out_of_reach(saves: &[Save], at: TimeMs) -> anyhow::Error {
    let said = crate::user::log_time;
    let points = points::ranges(saves).into_iter().flat_map(|range| [range.from, range.to]);
    let points = points.map(|point| (point, format!("--at {}", said(point))));
    let saves = saves.iter().map(|save| {
        let time = TimeMs(save.log_time_ms());
        (time, format!("--save {} (of {})", save.save, said(time)))
    });
    let (before, after): (Vec<_>, Vec<_>) = points.chain(saves).partition(|(point, _)| *point <= at);
    let nearest =
        [before.into_iter().max_by_key(|(point, _)| *point), after.into_iter().min_by_key(|(point, _)| *point)];
    let nearest: Vec<_> = nearest.into_iter().flatten().map(|(_, words)| words).collect();
    match nearest[..] {
        [] => anyhow!("no save was made yet"),
        _ => anyhow!("{} cannot be restored exactly; nearest: {}", said(at), nearest.join(", ")),
    }
}
