//! `skein import`: an export becomes a new node's data directory, with every id, seq_id, ordinal and time it had.
//!
//! ```text
//! input --> verified whole --> segments, journal --> identity        a node starts on it only after the last step
//! ```
//!
//! What always holds: nothing is made before the whole input was verified; what is interrupted leaves a directory that no node
//! starts on and that the next attempt clears; memory is bounded by accounts and conversations, not by records.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use clap::Args as ClapArgs;
use gateway::data_dir::owner_of_this_process;
use gateway::new_data_dir::{NewDataDir, new_history};
use logstore::JournalOptions;
use logstore::id::{NodeId, TimeMs};
use logstore::io::Disk;
use sequencer::founding::{self, NewShards};
use serde::Serialize;

use crate::backup::{self, erased::KnownErasures, store::Store};
use crate::bench::accounts::AdminArgs;
use crate::exit::{Failure, Outcome};
use crate::jsonl::verify::{Verified, verify};
use crate::jsonl::{self, Selection};
use crate::log::Progress;
use crate::output::{Globals, Printer, Row};

mod fill;
mod live;

/// Shards of a new node, unless told otherwise: a large cluster's, and a dev node's.
const SHARDS: u16 = 64;
const SHARDS_DEV: u16 = 4;
/// The first files of the journal: a node makes larger ones when it needs them.
const JOURNAL_FILE_BYTES: u64 = 4 << 20;
/// Read at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// Arguments.
#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    skein import all.jsonl --data-dir ./new-data && skein server --data-dir ./new-data --config skein.toml\n  \
    skein import some.jsonl --live --data-dir ./skein-data --dry-run\n  \
    skein import some.jsonl --live --admin-key admin.pem --server 10.0.0.5:7400\n  \
    skein import some.jsonl --live --admin-key admin.pem --server 10.0.0.5:7400 --abort\n\n\
    The whole input is verified first; the first line that is wrong is named, and nothing is made then. The directory must\n\
    be empty or not there; one that an interrupted import has left is begun anew. Everybody signs in again: open sessions\n\
    and keys are not exported. With --live nobody sees a conversation before all of it is there; an import that was\n\
    interrupted goes on when it is run again.")]
pub struct Args {
    /// What `skein export` wrote: JSON lines (`-`: standard input), or a directory, of which the newest save is taken
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The data directory to make; with --live that of the running node, for its admin key
    #[arg(long, value_name = "D", required_unless_present = "admin_key")]
    data_dir: Option<PathBuf>,
    /// Into a running cluster instead, into conversations that are empty there
    #[arg(long, conflicts_with_all = ["shards", "dev"])]
    live: bool,
    /// Give up an import into a running cluster that was interrupted: of conversations that are not whole nothing stays
    #[arg(long, requires = "live")]
    abort: bool,
    /// The admin key of the running cluster
    #[arg(long, value_name = "FILE", requires = "live", conflicts_with = "data_dir")]
    admin_key: Option<PathBuf>,
    /// How many shards it has [default: 64, with --dev 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    shards: Option<u16>,
    /// Make it a directory for `skein server --dev`
    #[arg(long)]
    dev: bool,
    /// Leave out messages that were erased, as any save in this directory of backups knows; one that is imported is such
    /// a directory itself
    #[arg(long, value_name = "PATH")]
    erasures: Option<PathBuf>,
    /// Only verify the input; with --live say what would be done, too
    #[arg(long)]
    dry_run: bool,
}

/// What was imported.
#[derive(Serialize)]
struct Summary {
    data_dir: String,
    history: String,
    shards: u16,
    accounts: u64,
    conversations: u64,
    members: u64,
    records: u64,
}

impl Row for Summary {
    const COLUMNS: &'static [&'static str] =
        &["data dir", "history", "shards", "accounts", "conversations", "members", "records"];

    fn cells(&self) -> Vec<String> {
        let counts = [self.accounts, self.conversations, self.members, self.records];
        let words = [self.data_dir.clone(), self.history.clone(), self.shards.to_string()];
        words.into_iter().chain(counts.map(|count| count.to_string())).collect()
    }
}

/// Runs it.
pub fn run(args: Args, globals: &Globals) -> Outcome {
    let mut printer = Printer::new(globals);
    let mut input = open(&args.path)?;
    let name = args.path.display().to_string();
    let verified = verify_file(&mut input).with_context(|| name.clone())?;
    let erased = erasures(&args)?;
    if args.live {
        let admin = AdminArgs { data_dir: args.data_dir, admin_key: args.admin_key };
        let target = live::Target { admin, globals, dry_run: args.dry_run };
        return match args.abort {
            true => live::abort::run(&mut input, &verified, &target, &mut printer),
            false => live::run(&mut input, &verified, &erased, &target, &mut printer),
        };
    }
    let data_dir = args.data_dir.clone().context("--data-dir is missing")?;
    let shards = args.shards.unwrap_or(if args.dev { SHARDS_DEV } else { SHARDS });
    let history = match args.dry_run {
        true => String::new(),
        false => lay_out(&data_dir, args.dev, shards, &mut input, &verified, &erased).with_context(|| name)?,
    };
    let Verified { end, .. } = verified;
    printer.one(&Summary {
        data_dir: if args.dry_run { String::new() } else { data_dir.display().to_string() },
        history,
        shards,
        accounts: end.accounts,
        conversations: end.conversations,
        members: end.members,
        records: end.records,
    })
}

/// The input as a file that can be read more than once.
fn open(path: &Path) -> Result<File, Failure> {
    if path != Path::new("-") && !path.is_dir() {
        return Ok(File::open(path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let mut spool = tempfile::tempfile().context("cannot make a temporary file")?;
    if path.is_dir() {
        let store = Store::at(path);
        let sets = store.sets(&backup::choose(&store, None)?)?;
        jsonl::write(&sets, &Selection::All, &mut BufWriter::new(&mut spool), &mut || ())?;
    } else {
        io::copy(&mut io::stdin().lock(), &mut spool).context("cannot keep standard input")?;
    }
    spool.flush()?;
    spool.rewind()?;
    Ok(spool)
}

/// What is to be left out, as backups know.
fn erasures(args: &Args) -> anyhow::Result<fill::Erased> {
    let mut erased = fill::Erased::new();
    for path in args.erasures.iter().chain(Some(&args.path).filter(|path| path.is_dir())) {
        for (user, asked) in KnownErasures::of(&Store::at(path))?.by_user() {
            let last = erased.entry(user).or_default();
            *last = asked.max(*last);
        }
    }
    Ok(erased)
}

fn verify_file(input: &mut File) -> anyhow::Result<Verified> {
    let progress = Progress::begin("verified", input.metadata()?.len());
    let mut reader = counted(input, &progress);
    Ok(verify(&mut reader, &mut || ())?)
}

/// Makes the data directory; states its history.
fn lay_out(
    data_dir: &Path,
    dev: bool,
    shards: u16,
    input: &mut File,
    verified: &Verified,
    erased: &fill::Erased,
) -> Result<String, anyhow::Error> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let owner = owner_of_this_process(([127, 0, 0, 1], 0).into(), &now);
    let dir = NewDataDir::begin(data_dir, &owner)?;
    let (disk, node, history) = (logstore::io::real(dir.path()), NodeId(1), new_history());
    let new = NewShards {
        node,
        history,
        shards,
        time: verified.time,
        window_from: verified.time.min(minutes_ago()?),
        last_record: verified.last_record,
        last_user: verified.last_user,
    };
    let progress = Progress::begin("imported", input.metadata()?.len());
    let planted = founding::found(&disk, &new, |content| -> anyhow::Result<()> {
        input.rewind()?;
        fill::records(counted(input, &progress), verified, erased, content)?;
        erased.iter().for_each(|(user, asked)| content.note_erased(*user, *asked));
        fill::rows(input, verified, content)
    })?;
    plant(&disk, node, &planted)?;
    let identity = gateway::data_dir::Identity { node, history, dev, created: now, restored_from: None };
    Ok(format!("{:032x}", dir.finish_as(identity)?.history.0))
}

/// Far enough back that the dedup window is as long as apply promises when a node starts: two minutes, and what clocks may be off.
fn minutes_ago() -> anyhow::Result<TimeMs> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(TimeMs((now.as_millis() as u64).saturating_sub(180_000)))
}

/// Makes the journal behind what was laid out.
pub fn plant(disk: &Arc<dyn Disk>, node: NodeId, planted: &[founding::Planted]) -> anyhow::Result<()> {
    let salt_seed = rand::random();
    let options = JournalOptions { file_bytes: JOURNAL_FILE_BYTES, salt_seed, ..JournalOptions::default() };
    founding::plant(disk, options, node, planted).map_err(|error| anyhow!(error))
}

/// Reads a file from where it is, told to a progress bar.
fn counted<'a>(input: &'a File, progress: &'a Progress) -> BufReader<Counted<'a>> {
    BufReader::with_capacity(BUFFER_BYTES, Counted { input, progress })
}

struct Counted<'a> {
    input: &'a File,
    progress: &'a Progress,
}

impl io::Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.progress.add(read as u64);
        Ok(read)
    }
}
