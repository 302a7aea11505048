//! `skein bench background`: the same load on two nodes, round by round in turn; one seals, merges and checkpoints all the
//! time, the other never does.
//!
//! What always holds: both have taken the same messages before the first round, for longer than the dedup window, so that merges
//! are due; a round begins when the other node writes nothing any more; every message is checked as in `bench send`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use serde::Serialize;

use super::child::Setting;
use super::latency::Percentiles;
use super::local::LocalNode;
use super::page::Page;
use super::send::{self, OpenLoop, Report};
use crate::exit::{Failure, Outcome};
use crate::output::{Format, Globals};

/// Generations of a MiB, and merges of two: everything is busy at any rate worth measuring.
const BUSY: [Setting; 2] = [("sequencer.seal_bytes", "1MiB"), ("sequencer.merge_inputs", "2")];
/// Thresholds beyond reach.
const QUIET: [Setting; 4] = [
    ("sequencer.seal_bytes", "256GiB"),
    ("sequencer.unsealed_bytes_max", "512GiB"),
    ("sequencer.seal_age", "7d"),
    ("journal.held_files_max", "65536"),
];
/// How long a node has to write nothing to count as at rest, and how long that is waited for.
const REST: Duration = Duration::from_secs(2);
const REST_WITHIN: Duration = Duration::from_secs(120);
/// What p99 may rise by.
const GATE: f64 = 1.30;

/// Arguments.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n  skein bench background --rate 20000 --rounds 5 -o json\n\n\
    Takes rounds x 2 x (seconds + some 10) and 2 x --before seconds, and room for all messages twice.\n\
    Exit code 5: a message was lost, duplicated, altered or out of order.")]
pub struct Args {
    /// Messages a second, open loop
    #[arg(long, default_value_t = 20_000.0)]
    rate: f64,
    /// Connections: half send, half receive
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Messages in a frame
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Seconds of a round
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Rounds of each node, in turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load before the first round: merges are due after two minutes
    #[arg(long, default_value_t = 150.0)]
    before: f64,
    /// Conversations of two
    #[arg(long, default_value_t = 1000)]
    conversations: usize,
    /// Draw texts from this chat file instead of 200 bytes each
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
}

/// One round of one node.
#[derive(Clone, Debug, Serialize)]
struct Round {
    send_to_durable_ms: Percentiles,
    send_to_receive_ms: Percentiles,
    /// Megabytes written beside the journal meanwhile: segments, merges, store.
    background_mb: f64,
    /// Merges carried out meanwhile.
    merges: f64,
}

/// What is told.
#[derive(Clone, Debug, Serialize)]
struct Told {
    rate: f64,
    quiet: Vec<Round>,
    busy: Vec<Round>,
    /// Medians over the rounds.
    quiet_p99_ms: f64,
    busy_p99_ms: f64,
    /// Busy over quiet; wanted at most 1.30.
    ratio: f64,
    gate: f64,
    lost: u64,
    faults: u64,
}

/// A node and what became of its rounds.
struct Side {
    node: LocalNode,
    rounds: Vec<Round>,
    lost: u64,
    faults: u64,
}

/// Runs it.
pub fn run(args: &Args, globals: &Globals) -> Outcome {
    let mut sides = [Side::start(&QUIET)?, Side::start(&BUSY)?];
    for side in &mut sides {
        side.load(args, globals, args.before)?;
    }
    for number in 1..=args.rounds.max(1) {
        eprintln!("bench: round {number} of {}", args.rounds.max(1));
        for side in &mut sides {
            let round = side.load(args, globals, args.seconds)?;
            side.rounds.push(round);
        }
    }
    let told = told(args, sides);
    print(&told, globals.output)?;
    let is_clean = told.lost + told.faults == 0;
    if is_clean { Ok(()) } else { Err(Failure::Mismatch("the checker found faults (see the figures)".into())) }
}

impl Side {
    fn start(settings: &[Setting]) -> anyhow::Result<Side> {
        Ok(Side { node: LocalNode::start_with(None, None, None, settings)?, rounds: Vec::new(), lost: 0, faults: 0 })
    }

    /// Runs the load on it, and waits until it is at rest again.
    fn load(&mut self, args: &Args, globals: &Globals, seconds: f64) -> Result<Round, Failure> {
        let load = send::Args::open_loop(OpenLoop {
            connections: args.connections,
            batch: args.batch,
            rate: args.rate,
            seconds,
            warmup: 1.0,
            conversations: args.conversations,
            texts: args.texts.clone(),
        });
        let before = Page::of(self.node.http);
        let report = send::on_node(&load, globals, &self.node)?;
        let after = Page::of(self.node.http);
        self.note(&report);
        self.rest()?;
        let grew = |name: &str| after.since(&before, name).unwrap_or(0.0);
        let segments =
            ["seals", "merges_l1", "merges_l2", "store"].map(|part| grew(&written(part))).iter().sum::<f64>();
        Ok(Round {
            send_to_durable_ms: report.send_to_durable_ms,
            send_to_receive_ms: report.send_to_receive_ms,
            background_mb: segments / 1e6,
            merges: grew("skein_merges_total"),
        })
    }

    fn note(&mut self, report: &Report) {
        self.lost += report.lost;
        self.faults +=
            report.duplicates + report.order_violations + report.altered + report.unanswered + report.refused;
    }

    fn rest(&self) -> anyhow::Result<()> {
        let (began, mut before) = (Instant::now(), f64::NAN);
        while began.elapsed() < REST_WITHIN {
            let now = Page::of(self.node.http).get("skein_written_bytes_total").unwrap_or(0.0);
            if now == before {
                return Ok(());
            }
            before = now;
            std::thread::sleep(REST);
        }
        anyhow::bail!("the node still writes after {} s without load", REST_WITHIN.as_secs())
    }
}

/// The counter of one part, as [`Page`] names it.
fn written(part: &str) -> String {
    format!("skein_written_bytes_total{{part=\"{part}\"}}")
}

fn told(args: &Args, [quiet, busy]: [Side; 2]) -> Told {
    let (quiet_p99_ms, busy_p99_ms) = (median_p99(&quiet.rounds), median_p99(&busy.rounds));
    Told {
        rate: args.rate,
        quiet_p99_ms,
        busy_p99_ms,
        ratio: busy_p99_ms / quiet_p99_ms,
        gate: GATE,
        lost: quiet.lost + busy.lost,
        faults: quiet.faults + busy.faults,
        quiet: quiet.rounds,
        busy: busy.rounds,
    }
}

/// Of the sends' durable acks: the median over the rounds, so that one stall of the disk decides nothing.
fn median_p99(rounds: &[Round]) -> f64 {
    let mut all: Vec<f64> = rounds.iter().map(|round| round.send_to_durable_ms.p99).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print(told: &Told, format: Format) -> Outcome {
    if format == Format::Json {
        println!("{}", serde_json::to_string(told)?);
        return Ok(());
    }
    for (name, rounds) in [("quiet", &told.quiet), ("busy", &told.busy)] {
        for round in rounds {
            println!(
                "{name:<6} send -> durable {}; {:.1} MB of segments and store written, {} merges",
                round.send_to_durable_ms.words(),
                round.background_mb,
                round.merges
            );
        }
    }
    let (quiet, busy, ratio) = (told.quiet_p99_ms, told.busy_p99_ms, told.ratio);
    let verdict = if ratio <= GATE { "met" } else { "missed" };
    println!("p99    median of rounds: quiet {quiet:.2} ms, busy {busy:.2} ms: {ratio:.2} (gate {GATE}: {verdict})");
    println!("checked {} lost, {} other faults at {} messages/s", told.lost, told.faults, told.rate);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stalled_round_does_not_decide() {
        let round = |p99| Round {
            send_to_durable_ms: Percentiles { p99, ..Percentiles::default() },
            send_to_receive_ms: Percentiles::default(),
            background_mb: 0.0,
            merges: 0.0,
        };
        assert_eq!(median_p99(&[round(2.0), round(90.0), round(1.0)]), 2.0);
        assert!(median_p99(&[]).is_nan());
    }
}
