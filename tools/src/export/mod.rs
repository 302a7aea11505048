//! `skein export`: everything a running node holds at one moment of all its shards, as JSON lines or as segments.
//!
//! What always holds: the node serves on meanwhile; what is at PATH is whole or, if the command was interrupted, what was there
//! before: a new file has its name only once it is complete and synced.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args as ClapArgs, ValueEnum};
use hashbrown::HashSet;
use logstore::SegmentSet;
use logstore::id::ConversationId;
use logstore::io::Disk;
use logstore::segment::BlockCache;
use serde::Serialize;

use crate::admin::connect_with;
use crate::backup::{self, Points, store::Store};
use crate::bench::accounts::AdminArgs;
use crate::exit::{Failure, Outcome};
use crate::jsonl::{self, Selection, Written};
use crate::log::Progress;
use crate::output::{Globals, Printer, Row};
use crate::user::connect_options;

mod remote;

pub use remote::Remote;

/// Scans go past it; look-ups are few.
const CACHE_BYTES: u64 = 8 << 20;

/// Arguments.
#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    skein export --format jsonl --out all.jsonl --data-dir ./skein-data\n  \
    skein export --format native --out ./exported --data-dir ./skein-data\n  \
    skein export --format jsonl --out - --conversation 80000000000000000000000000000007 --admin-key admin.pem\n\n\
    The node serves on meanwhile. All shards are cut at one moment; JSON lines are the same bytes for the same content,\n\
    whatever cluster it lies in. They hold password hashes: keep them as you keep the data directory.")]
pub struct Args {
    /// What to write
    #[arg(long, value_enum)]
    format: Format,
    /// Where to; `-`: standard output
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Only this conversation and its members, by its 32 hex digits; may be repeated
    #[arg(long = "conversation", value_name = "ID", value_parser = parse_conversation)]
    conversations: Vec<ConversationId>,
    /// Hard links instead of copies, where PATH and --data-dir are on one file system (--format native)
    #[arg(long, requires = "data_dir")]
    link: bool,
    /// How long to wait for the segments of the cut
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    admin: AdminArgs,
}

/// What an export is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a line.
    Jsonl,
    /// Segment files, as a backup of one save: those that lie there under the same identity stay.
    Native,
}

/// What was written.
#[derive(Serialize)]
struct Summary {
    path: String,
    accounts: u64,
    conversations: u64,
    members: u64,
    records: u64,
    bytes: u64,
    blake3: String,
    cut: Vec<CutShard>,
}

/// Up to where a shard is in it.
#[derive(Serialize)]
struct CutShard {
    shard: u16,
    upto_index: u64,
    log_time_ms: u64,
}

impl Row for Summary {
    const COLUMNS: &'static [&'static str] =
        &["path", "accounts", "conversations", "members", "records", "bytes", "blake3", "cut"];

    fn cells(&self) -> Vec<String> {
        let numbers = [self.accounts, self.conversations, self.members, self.records, self.bytes];
        let cut = self.cut.iter().map(|at| format!("{}@{}", at.shard, at.upto_index)).collect::<Vec<_>>().join(" ");
        let cells = [self.path.clone()].into_iter().chain(numbers.map(|number| number.to_string()));
        cells.chain([self.blake3.clone(), cut]).collect()
    }
}

/// Runs it.
pub fn run(args: Args, globals: &Globals) -> Outcome {
    match args.format {
        Format::Jsonl => jsonl(args, globals),
        Format::Native => native(args, globals),
    }
}

/// A directory of backups that holds this one alone.
fn native(args: Args, globals: &Globals) -> Outcome {
    if !args.conversations.is_empty() {
        return Err(Failure::Usage("--conversation is for --format jsonl: segments hold many conversations".into()));
    }
    let link = args.admin.data_dir.clone().filter(|_| args.link);
    let store = Store::at(&args.out);
    let saved = backup::save(&store, &args.admin, link, Points::None, args.timeout, globals)?;
    store.keep_only(&saved.save)?;
    Printer::new(globals).one(&backup::row(&saved.save, saved.fetched, None, "exported")?)
}

fn jsonl(args: Args, globals: &Globals) -> Outcome {
    let mut printer = Printer::new(globals);
    let runtime = runtime()?;
    let remote = open(&args.admin, globals, runtime.handle(), false, args.timeout)?;
    let disk = remote.disk();
    let sets = sets(&remote, &disk)?;
    let selection = match args.conversations.is_empty() {
        true => Selection::All,
        false => Selection::Some(args.conversations.iter().copied().collect::<HashSet<_>>()),
    };
    let written = jsonl_to(&args.out, &sets, &selection)?;
    let cut = remote.exported().shards.iter();
    let cut = cut.map(|at| CutShard { shard: at.shard.0, upto_index: at.upto.0, log_time_ms: at.log_time.0 }).collect();
    let Written { end, bytes } = written;
    let summary = Summary {
        path: args.out.display().to_string(),
        accounts: end.accounts,
        conversations: end.conversations,
        members: end.members,
        records: end.records,
        bytes,
        blake3: end.blake3,
        cut,
    };
    if args.out == Path::new("-") {
        eprintln!("{} conversations, {} records, {} bytes", summary.conversations, summary.records, summary.bytes);
        return Ok(());
    }
    printer.one(&summary)
}

/// A runtime for the connection's tasks, beside the thread that reads and writes.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// Cuts a running node's shards; `every_shard`: also those in which nothing has happened get a Seal.
pub fn open(
    admin: &AdminArgs,
    globals: &Globals,
    runtime: &tokio::runtime::Handle,
    every_shard: bool,
    limit: Duration,
) -> Result<Arc<Remote>, Failure> {
    // A cut waits for every shard's Seal, and answers are small: neither takes longer than a busy disk.
    let options =
        gateway::client::Options { request_timeout: Duration::from_secs(60), ..connect_options(globals, None)? };
    let (connection, _) = runtime.block_on(connect_with(admin, globals, options))?;
    Ok(Remote::open(connection, runtime, every_shard, limit)?)
}

/// The segments of all shards of a cut.
pub fn sets(remote: &Remote, disk: &Arc<dyn Disk>) -> Result<Vec<Arc<SegmentSet>>, Failure> {
    let cache = Arc::new(BlockCache::new(CACHE_BYTES));
    let open = |at: &gateway::client::ExportShard| Ok(Arc::new(SegmentSet::open(disk, at.shard, &cache)?));
    remote.exported().shards.iter().map(open).collect()
}

fn jsonl_to(path: &Path, sets: &[Arc<SegmentSet>], selection: &Selection) -> Result<Written, Failure> {
    let records: u64 = sets.iter().flat_map(|set| set.manifest().segments()).map(|info| info.counts.records).sum();
    let progress = Progress::begin("exported", records);
    let mut step = || progress.add(1);
    if path == Path::new("-") {
        return Ok(jsonl::write(sets, selection, &mut BufWriter::new(io::stdout().lock()), &mut step)?);
    }
    let draft = draft_of(path)?;
    let file = File::create(&draft).with_context(|| format!("cannot write {}", draft.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let written = jsonl::write(sets, selection, &mut out, &mut step).and_then(|written| {
        out.flush()?;
        out.get_ref().sync_all()?;
        std::fs::rename(&draft, path)?;
        sync_dir_of(path)?;
        Ok(written)
    });
    if written.is_err() {
        // What is left of it is worth nothing; if it cannot be removed, its name says so.
        let _ = std::fs::remove_file(&draft);
    }
    Ok(written.with_context(|| format!("cannot write {}", path.display()))?)
}

/// Where a file is made that is to have this name.
fn draft_of(path: &Path) -> anyhow::Result<PathBuf> {
    let mut name = path.file_name().ok_or_else(|| anyhow!("{} is not the name of a file", path.display()))?.to_owned();
    name.push(".tmp");
    Ok(path.with_file_name(name))
}

fn sync_dir_of(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

/// A conversation by its 32 hex digits.
fn parse_conversation(text: &str) -> Result<ConversationId, String> {
    let id = Some(text).filter(|text| text.len() == 32).and_then(|text| u128::from_str_radix(text, 16).ok());
    let id = id.map(ConversationId).filter(|id| id.name().is_some());
    id.ok_or_else(|| "a conversation's id is 32 hex digits, as `skein conversations -o json` shows it".into())
}
