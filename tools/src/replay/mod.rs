//! `skein replay`: a chat file as its senders over the client protocol, verified.
//!
//! [`chat`] reads the file, [`schedule`] says what may go out, [`player`] is a user at its connection, [`stage`] the
//! loop over all of them, [`hear`] judges what the server says, [`seat`] what a member has received.

use std::io::IsTerminal;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use logstore::id::ConversationId;

use crate::bench::accounts::{self, AdminArgs};
use crate::bench::poll::raise_open_files;
use crate::exit::{Failure, Outcome};
use crate::output::{Format, Globals};
pub use chat::Chat;
pub use figures::Figures;
use stage::{Audience, Phase, Stage, StageError};

mod chat;
mod figures;
mod hear;
mod player;
mod schedule;
mod seat;
mod stage;

/// Arguments.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    skein replay chat.jsonl.gz --data-dir ./skein-data\n  \
    skein replay chat.jsonl --rate 10000 --map groups.json -o json --admin-key admin.pem\n\n\
    Exit codes: 0 verified, 3 refused, 4 server unreachable, 5 a message differs.")]
pub struct Args {
    /// JSON lines, plain or gzip: sent_at, conversation, index, sender, text
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Messages a second, all conversations together [default: as fast as it goes]
    #[arg(long, value_name = "R")]
    pub rate: Option<f64>,
    /// Write which group each conversation of the file became
    #[arg(long, value_name = "OUT.json")]
    pub map: Option<PathBuf>,
}

/// Runs it.
pub fn run(args: Args, globals: &Globals) -> Outcome {
    if args.rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
        return Err(Failure::Usage("--rate must be above 0".into()));
    }
    accounts::refuse_tls(globals)?;
    let chat = Chat::open(&args.file).with_context(|| args.file.display().to_string())?;
    let figures = replay(chat, &args.admin, globals, args.rate, args.map.as_deref())?;
    print(&figures, globals.output)?;
    verdict(&figures)
}

/// Replays a chat against a server; words and progress go to stderr.
pub fn replay(
    chat: Chat,
    admin: &AdminArgs,
    globals: &Globals,
    rate: Option<f64>,
    map: Option<&Path>,
) -> Result<Figures, Failure> {
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (server, accounts) = runtime.block_on(accounts::prepare(admin, globals, &chat.users))?;
    drop(runtime);
    let addr = resolve(&server)?;
    let run = format!("replay {:08x}", rand::random::<u32>());
    let stage = Stage::new(chat, accounts, addr, run, rate).map_err(StageError::into_failure)?;
    let mut show = Show { map, bar: ProgressBar::hidden(), said: 0, failed: None };
    let tally = stage.play(&mut show).map_err(StageError::into_failure)?;
    show.bar.finish_and_clear();
    match show.failed {
        Some(error) => Err(Failure::Failed(error)),
        None => Ok(tally.figures()),
    }
}

/// The address behind a name.
pub fn resolve(server: &str) -> Result<SocketAddr, Failure> {
    let unreachable = |error: anyhow::Error| Failure::Unreachable(error.context(format!("cannot resolve {server}")));
    let mut found = server.to_socket_addrs().map_err(|error| unreachable(error.into()))?;
    found.next().ok_or_else(|| unreachable(anyhow::anyhow!("no address")))
}

/// Prints the figures on stdout.
pub fn print(figures: &Figures, format: Format) -> Outcome {
    match format {
        Format::Json => println!("{}", serde_json::to_string(figures)?),
        Format::Table => figures.table().iter().for_each(|(name, words)| println!("{name:<16} {words}")),
        Format::Plain => figures.table().iter().for_each(|(name, words)| println!("{name}\t{words}")),
    }
    Ok(())
}

/// Fails if anything differs.
pub fn verdict(figures: &Figures) -> Outcome {
    if figures.mismatches == 0 {
        return Ok(());
    }
    Err(Failure::Mismatch(format!("{} mismatches in {} messages", figures.mismatches, figures.messages)))
}

/// Shows progress on stderr: a bar on a terminal, else a line every 5 %.
struct Show<'a> {
    map: Option<&'a Path>,
    bar: ProgressBar,
    said: u64,
    failed: Option<anyhow::Error>,
}

impl Audience for Show<'_> {
    fn phase(&mut self, phase: Phase, stage: &Stage) {
        self.said = 0;
        self.bar.finish_and_clear();
        if std::io::stderr().is_terminal() && phase != Phase::Done {
            let style = ProgressStyle::with_template("{msg:>10} {wide_bar} {percent:>3} % {per_sec} {eta}");
            self.bar = ProgressBar::new(1).with_message(words(phase));
            self.bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        }
        if let (Phase::Playing, Some(path)) = (phase, self.map) {
            self.failed = write_map(path, stage).err();
        }
    }

    fn progress(&mut self, phase: Phase, done: u64, of: u64) {
        if !self.bar.is_hidden() {
            self.bar.set_length(of);
            self.bar.set_position(done);
        } else if phase == Phase::Playing && done * 20 / of.max(1) > self.said {
            self.said = done * 20 / of.max(1);
            eprintln!("replay: {} %", self.said * 5);
        }
    }
}

fn words(phase: Phase) -> &'static str {
    match phase {
        Phase::Connecting => "connecting",
        Phase::Creating => "groups",
        Phase::Playing => "replaying",
        Phase::Reading | Phase::Done => "verifying",
    }
}

/// File conversation → group id, as JSON.
fn write_map(path: &Path, stage: &Stage) -> anyhow::Result<()> {
    let pairs = stage.chat().conversations.iter().zip(stage.groups());
    let map: serde_json::Map<String, serde_json::Value> = pairs
        .map(|(conversation, group)| (conversation.id.clone(), ConversationId::from_bytes(group.id).to_string().into()))
        .collect();
    let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    serde_json::to_writer(std::io::BufWriter::new(file), &map)?;
    Ok(())
}
