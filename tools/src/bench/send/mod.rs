//! `skein bench send`: messages through everything, with the checker on.
//!
//! Half of the connections send from this process, half receive in another; every message is checked there for
//! order, loss and duplicates. Method and figures: benches/README.md.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use clap::Args as ClapArgs;

use crate::bench::accounts::{AdminArgs, refuse_tls};
use crate::bench::cpu::Cpu;
use crate::bench::floors::{FloorFile, SyncFloor, loopback_round_trip_us};
use crate::bench::local::LocalNode;
use crate::bench::page::Page;
use crate::bench::poll::{monotonic_ns, raise_open_files};
use crate::exit::{Failure, Outcome};
use crate::output::{Format, Globals};
use crate::replay::resolve;
use plan::{Order, ReceiverPlan, Texts, Window};
use receiver::{ReceiverReport, Said};
pub use report::Report;
use report::{CpuReport, Floors, JournalReport};
use sender::{Load, Senders};
use setup::Cast;

mod arrivals;
mod check;
mod lone;
mod plan;
mod receiver;
mod report;
mod sender;
mod setup;
mod stamp;

pub use receiver::run as run_receiver;

/// Frames of a connection on their way when the loop is closed.
const CLOSED_WINDOW: usize = 4;
/// And when it is open: more would only measure the queue.
const OPEN_WINDOW: usize = 64;

/// Milliseconds between receipts.
const RECEIPTS_MS: u64 = 100;

/// A load whose rate does not depend on the server.
#[derive(Clone, Debug)]
pub struct OpenLoop {
    /// Half send, half receive.
    pub connections: usize,
    /// Messages in a frame.
    pub batch: usize,
    /// Messages a second over all connections.
    pub rate: f64,
    /// Seconds measured.
    pub seconds: f64,
    /// Seconds of load before.
    pub warmup: f64,
    /// Conversations of two.
    pub conversations: usize,
    /// Texts are drawn from this file.
    pub texts: Option<PathBuf>,
}

/// Arguments.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    skein bench send --connections 16 --batch 64 --rate max --seconds 5\n  \
    skein bench send --connections 50 --batch 1 --rate 50000 --texts chat.jsonl.gz -o json\n  \
    skein bench send --server 127.0.0.1:7400 --data-dir ./skein-data --rate 10000\n\n\
    Exit code 5: a message was lost, duplicated, altered or out of order.")]
pub struct Args {
    /// Connections: half send, half receive
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Messages in a frame
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Messages a second over all connections, open loop; or "max": closed loop
    #[arg(long, default_value = "max")]
    rate: String,
    /// Seconds measured
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds of load before
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Conversations of two
    #[arg(long, default_value_t = 1000)]
    conversations: usize,
    /// Draw texts from this chat file instead of 200 bytes each
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Frames of one connection on their way [default: 4 closed loop, 64 open loop]
    #[arg(long)]
    window: Option<usize>,
    /// Milliseconds between receipts of a receiver; 0: none
    #[arg(long, default_value_t = RECEIPTS_MS)]
    receipts_ms: u64,
    /// HTTP address of a server named with --server, for its journal's figures
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Runs it.
pub fn run(args: &Args, globals: &Globals) -> Outcome {
    let load = args.load()?;
    raise_open_files();
    let target = Target::open(args, globals)?;
    let report = measure(args, load, &target)?;
    print(&report, globals.output)?;
    if report.is_clean() { Ok(()) } else { Err(Failure::Mismatch("the checker found faults (see the figures)".into())) }
}

/// Runs a load on a node of this process; tells, does not print.
pub fn on_node(args: &Args, globals: &Globals, node: &LocalNode) -> Result<Report, Failure> {
    measure(args, args.load()?, &Target::of(globals, node))
}

impl Args {
    /// An open loop with the usual window and receipts.
    pub fn open_loop(of: OpenLoop) -> Args {
        let OpenLoop { connections, batch, rate, seconds, warmup, conversations, texts } = of;
        Args {
            connections,
            batch,
            rate: rate.to_string(),
            seconds,
            warmup,
            conversations,
            texts,
            window: None,
            receipts_ms: RECEIPTS_MS,
            http: None,
            admin: AdminArgs { data_dir: None, admin_key: None },
        }
    }

    fn load(&self) -> Result<Load, Failure> {
        let usage = |what: &str| Err(Failure::Usage(what.into()));
        if self.connections < 2 || self.batch == 0 || self.window == Some(0) {
            return usage("at least 2 connections, frames of at least 1 message and a window of at least 1 frame");
        }
        if self.conversations < self.connections / 2 {
            return usage("every sending connection needs a conversation");
        }
        if !(self.seconds.is_finite() && self.seconds > 0.0 && self.warmup.is_finite() && self.warmup >= 0.0) {
            return usage("--seconds must be above 0 and --warmup not below");
        }
        let rate = match self.rate.as_str() {
            "max" => None,
            number => match number.parse::<f64>() {
                Ok(rate) if rate.is_finite() && rate > 0.0 => Some(rate),
                _ => return usage("--rate is a number above 0, or max"),
            },
        };
        let window_frames = self.window.unwrap_or(if rate.is_some() { OPEN_WINDOW } else { CLOSED_WINDOW });
        Ok(Load { batch: self.batch, rate, window_frames })
    }
}

/// The server under load.
struct Target {
    globals: Globals,
    admin: AdminArgs,
    http: Option<SocketAddr>,
    pid: Option<u32>,
    /// Where floors are measured: on the server's disk, if it is here.
    dir: PathBuf,
    _node: Option<LocalNode>,
}

impl Target {
    /// The one named, else one of our own in a temporary directory.
    fn open(args: &Args, globals: &Globals) -> Result<Target, Failure> {
        let (globals, admin) = (globals.clone(), args.admin.clone());
        if globals.server.is_some() || admin.is_given() {
            refuse_tls(&globals)?;
            let pid = admin.data_dir.as_deref().and_then(owner_of);
            let dir = admin.data_dir.clone().unwrap_or_else(std::env::temp_dir);
            return Ok(Target { globals, admin, http: args.http, pid, dir, _node: None });
        }
        let node = LocalNode::start(None, None, None)?;
        let target = Target::of(&globals, &node);
        Ok(Target { _node: Some(node), ..target })
    }

    /// A node of this process, whose end is somebody else's to choose.
    fn of(globals: &Globals, node: &LocalNode) -> Target {
        Target {
            globals: globals.with_local(node.listen),
            admin: AdminArgs { data_dir: Some(node.data_dir.clone()), admin_key: None },
            http: Some(node.http),
            pid: Some(node.pid),
            dir: node.data_dir.clone(),
            _node: None,
        }
    }

    fn page(&self) -> Page {
        self.http.map(Page::of).unwrap_or_default()
    }
}

/// The process that holds a data directory, as its lock file says.
fn owner_of(data_dir: &Path) -> Option<u32> {
    let lock = std::fs::read_to_string(data_dir.join("skein.lock")).ok()?;
    let line = lock.lines().find_map(|line| line.strip_prefix("pid"))?;
    line.trim_start_matches([' ', '=']).trim().parse().ok()
}

/// The machine and the load at one edge of the window.
struct Edge {
    server: Option<Cpu>,
    sender: Cpu,
    receiver: Cpu,
    page: Page,
}

fn measure(args: &Args, load: Load, target: &Target) -> Result<Report, Failure> {
    let floor = FloorFile::create(&target.dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    eprintln!("bench: opening {} conversations", args.conversations);
    let cast =
        runtime.block_on(setup::prepare(&target.admin, &target.globals, args.connections, args.conversations))?;
    drop(runtime);
    let addr = resolve(&cast.server)?;

    eprintln!("bench: measuring what the machine can do");
    let page_sync = floor.measure(1)?;
    let loopback_us = loopback_round_trip_us()?;
    let lone_send_us = lone::lone_send(addr, &cast.lone.0, &cast.lone.1)?.p50 * 1e3;

    let texts = Texts::open(args.texts.as_deref())?;
    let mut other = OtherHalf::start(&receiver_plan(args, &cast))?;
    let mut senders = Senders::connect(addr, &cast.senders, cast.pairs, texts, load)?;
    let from_ns = monotonic_ns() + (args.warmup * 1e9) as u64;
    let window = Window { from_ns, to_ns: from_ns + (args.seconds * 1e9) as u64 };
    other.tell(&Order::Begin(window))?;
    eprintln!("bench: {} s of load after {} s of warming up", args.seconds, args.warmup);
    let mut edges = Vec::with_capacity(2);
    senders.run(window, || edges.push(edge(target, other.pid())))?;
    other.tell(&Order::Finish(senders.acked().to_vec()))?;
    let received = other.finish()?;

    let journal = journal_report(&edges, window, senders.counts().acked_in_window);
    let block_sync = match &journal {
        Some(journal) => Some(floor.measure(journal.block_bytes as usize)?),
        None => None,
    };
    let floors = floors(page_sync, block_sync, loopback_us, lone_send_us, journal.as_ref());
    Ok(report(args, load, window, &senders, &received, &edges, journal, floors))
}

fn receiver_plan(args: &Args, cast: &Cast) -> ReceiverPlan {
    ReceiverPlan {
        server: cast.server.clone(),
        receivers: cast.receivers.clone(),
        pairs: cast.pairs.clone(),
        texts: args.texts.clone(),
        receipts_ms: args.receipts_ms,
    }
}

fn edge(target: &Target, receiver: u32) -> Edge {
    Edge {
        server: target.pid.map(Cpu::of),
        sender: Cpu::of(std::process::id()),
        receiver: Cpu::of(receiver),
        page: target.page(),
    }
}

fn floors(
    page_sync: SyncFloor,
    block_sync: Option<SyncFloor>,
    loopback_us: f64,
    lone_send_us: f64,
    journal: Option<&JournalReport>,
) -> Floors {
    let sync_us = journal.and_then(|journal| journal.sync_us);
    let bare_us = block_sync.as_ref().map(|floor| 1e6 / floor.blocks_per_s);
    Floors {
        lone_send_ratio: lone_send_us / (loopback_us + page_sync.p50_us),
        group_commit_ratio: sync_us.zip(bare_us).map(|(ours, bare)| ours / bare),
        page_sync,
        block_sync,
        loopback_us,
        lone_send_us,
    }
}

fn journal_report(edges: &[Edge], window: Window, messages: u64) -> Option<JournalReport> {
    let [before, after] = edges else { return None };
    let grew = |name: &str| after.page.since(&before.page, name);
    let syncs = grew("skein_journal_syncs_total").filter(|syncs| *syncs > 0.0)?;
    Some(JournalReport {
        syncs_per_s: syncs / window.seconds(),
        block_bytes: grew("skein_journal_bytes_total")? / syncs,
        messages_per_sync: messages as f64 / syncs,
        sync_us: grew("skein_journal_sync_seconds_sum").map(|seconds| seconds * 1e6 / syncs),
    })
}

#[allow(clippy::too_many_arguments)]
fn report(
    args: &Args,
    load: Load,
    window: Window,
    senders: &Senders,
    received: &ReceiverReport,
    edges: &[Edge],
    journal: Option<JournalReport>,
    floors: Floors,
) -> Report {
    let (counts, findings) = (senders.counts(), received.findings);
    Report {
        connections: args.connections,
        batch: load.batch,
        rate: load.rate,
        conversations: args.conversations,
        seconds: window.seconds(),
        sent: counts.sent,
        acked: counts.acked,
        received: findings.received,
        lost: findings.lost,
        duplicates: findings.duplicates,
        order_violations: findings.order_violations + counts.order_violations,
        altered: findings.altered,
        refused: counts.refused,
        unanswered: counts.unanswered,
        first_refusal: counts.first_refusal.clone(),
        sends_per_s: counts.acked_in_window as f64 / window.seconds(),
        deliveries_per_s: received.received_in_window as f64 / window.seconds(),
        send_to_durable_ms: senders.send_to_durable().percentiles(),
        send_to_receive_ms: received.send_to_receive,
        cpu: cpu_report(edges, counts.acked_in_window),
        journal,
        floors,
    }
}

fn cpu_report(edges: &[Edge], messages: u64) -> CpuReport {
    let [before, after] = edges else { return CpuReport::default() };
    let each = |cpu: Cpu| if messages == 0 { 0.0 } else { cpu.seconds() * 1e6 / messages as f64 };
    let server = after.server.as_ref().zip(before.server.as_ref()).map(|(after, before)| after.since(before));
    CpuReport {
        server_us_per_msg: server.clone().map(each),
        sender_us_per_msg: each(after.sender.since(&before.sender)),
        receiver_us_per_msg: each(after.receiver.since(&before.receiver)),
        server_threads_us_per_msg: server.map(|cpu| cpu.us_each(messages)).unwrap_or_default(),
    }
}

fn print(report: &Report, format: Format) -> Outcome {
    match format {
        Format::Json => println!("{}", serde_json::to_string(report)?),
        Format::Table => report.table().iter().for_each(|(name, words)| println!("{name:<16} {words}")),
        Format::Plain => report.table().iter().for_each(|(name, words)| println!("{name}\t{words}")),
    }
    Ok(())
}

/// The receiving process.
struct OtherHalf {
    child: Child,
    orders: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl OtherHalf {
    fn start(plan: &ReceiverPlan) -> anyhow::Result<OtherHalf> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench", "receive"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the receiving half")?;
        let orders = child.stdin.take().context("the receiving half has no stdin")?;
        let said = BufReader::new(child.stdout.take().context("the receiving half has no stdout")?);
        let mut other = OtherHalf { child, orders, said };
        other.tell(plan)?;
        match other.hear()? {
            Said::Ready => Ok(other),
            Said::Report(_) => bail!("the receiving half ended before it began"),
        }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn tell(&mut self, what: &impl serde::Serialize) -> anyhow::Result<()> {
        writeln!(self.orders, "{}", serde_json::to_string(what)?).context("the receiving half is gone")
    }

    fn hear(&mut self) -> anyhow::Result<Said> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        serde_json::from_str(&line).context("the receiving half ended")
    }

    fn finish(mut self) -> anyhow::Result<ReceiverReport> {
        match self.hear()? {
            Said::Report(report) => Ok(report),
            Said::Ready => bail!("the receiving half was ready twice"),
        }
    }
}

impl Drop for OtherHalf {
    fn drop(&mut self) {
        // It has ended, or is of no use any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
