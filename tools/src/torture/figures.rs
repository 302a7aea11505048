//! What a run prints.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Args;
use super::check::Report;
use super::history::{History, Op};
use crate::bench::latency::Latency;
use crate::exit::{Failure, Outcome};
use crate::output::Format;

/// The figures, as `-o json` gives them.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// `pass`, or `fail`.
    pub verdict: &'static str,
    /// Repeats the plan.
    pub seed: u64,
    /// How many.
    pub nodes: u16,
    /// Of the load.
    pub seconds: f64,
    /// By kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Messages and changes of members.
    pub sends: u64,
    /// Durable.
    pub acked: u64,
    /// Refused for good.
    pub refused: u64,
    /// Neither.
    pub unknown: u64,
    /// Records that clients were given.
    pub deliveries: u64,
    /// In the history.
    pub events: u64,
    /// Broken promises.
    pub findings: u64,
    /// By point of the checker.
    pub findings_by_point: BTreeMap<&'static str, u64>,
    /// Some of them in words.
    pub examples: Vec<String>,
    /// From a fault to the first durable ack of a message sent after it, by shard that the node led.
    pub recovery_ms: RecoveryMs,
    /// Of the unknown: their client died.
    pub gone: u64,
    /// Sends that were durable within 2 s, of all that were not refused and whose client waited.
    pub durable_within_2s: f64,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RecoveryMs {
    /// How many.
    pub count: u64,
    /// Half are below.
    pub p50: f64,
    /// 99 % are below.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Figures {
    /// Of what was found in a history.
    pub fn of(args: &Args, seed: u64, history: &History, report: Report) -> Figures {
        let mut faults = BTreeMap::new();
        history.faults.iter().for_each(|fault| *faults.entry(fault.kind.name()).or_default() += 1);
        let mut latency = Latency::new();
        report.recoveries.iter().for_each(|recovery| latency.record(recovery.took_ns));
        let p = latency.percentiles();
        let recovery_ms = RecoveryMs { count: report.recoveries.len() as u64, p50: p.p50, p99: p.p99, max: p.max };
        let delivers = history.events.iter().filter(|event| matches!(event.op, Op::Deliver(_)));
        Figures {
            verdict: if report.findings.total() == 0 { "pass" } else { "fail" },
            seed,
            nodes: args.nodes,
            seconds: args.duration.as_secs_f64(),
            faults,
            sends: report.tally.sends,
            acked: report.tally.acked,
            refused: report.tally.refused,
            unknown: report.tally.unknown(),
            deliveries: delivers.count() as u64,
            events: history.events.len() as u64,
            findings: report.findings.total(),
            findings_by_point: report.findings.by_point().collect(),
            examples: report.findings.kept().iter().map(ToString::to_string).collect(),
            recovery_ms,
            gone: report.tally.gone,
            durable_within_2s: report.tally.share_in_time(),
        }
    }

    /// On stdout.
    pub fn print(&self, format: Format) -> Outcome {
        match format {
            Format::Json => println!("{}", serde_json::to_string(self)?),
            Format::Table => self.rows().iter().for_each(|(name, words)| println!("{name:<16} {words}")),
            Format::Plain => self.rows().iter().for_each(|(name, words)| println!("{name}\t{words}")),
        }
        Ok(())
    }

    /// Fails if anything was found.
    pub fn verdict(&self) -> Outcome {
        if self.findings == 0 {
            return Ok(());
        }
        let points: Vec<String> =
            self.findings_by_point.iter().map(|(point, count)| format!("{point} {count}")).collect();
        Err(Failure::Mismatch(format!("{} findings with seed {}: {}", self.findings, self.seed, points.join(", "))))
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let faults: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{count} x {kind}")).collect();
        let RecoveryMs { count, p50, p99, max } = self.recovery_ms;
        let mut rows = vec![
            ("verdict", self.verdict.to_owned()),
            ("run", format!("seed {}, {} nodes, {:.0} s", self.seed, self.nodes, self.seconds)),
            ("faults", if faults.is_empty() { "none".to_owned() } else { faults.join(", ") }),
            (
                "sends",
                format!(
                    "{}: {} durable, {} refused, {} unknown ({} of clients that died)",
                    self.sends, self.acked, self.refused, self.unknown, self.gone
                ),
            ),
            ("durable in 2 s", format!("{:.3} % of what was not refused or given up", self.durable_within_2s * 100.0)),
            ("deliveries", self.deliveries.to_string()),
            ("recovery", format!("p50 {p50:.0} ms, p99 {p99:.0} ms, max {max:.0} ms of {count}, by fault and shard")),
            ("findings", self.findings.to_string()),
        ];
        rows.extend(self.examples.iter().map(|words| ("", words.clone())));
        rows
    }
}
