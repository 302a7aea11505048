//! `skein log compact`: has the running node carry out what merges and rewrites are due, and waits.

use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use gateway::client::CompactPlan;
use serde::Serialize;

use crate::admin;
use crate::bench::accounts::AdminArgs;
use crate::exit::Failure;
use crate::output::{Globals, Printer, Row};

/// How often the node is asked how far it is.
const LOOK: Duration = Duration::from_millis(500);

/// Arguments.
#[derive(ClapArgs)]
pub struct Args {
    /// Only print the plans that are due
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for them
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    admin: AdminArgs,
}

/// A plan, as it is printed.
#[derive(Serialize)]
struct PlanRow {
    shard: u16,
    first_seal: u64,
    last_seal: u64,
    inputs: u64,
    level: u32,
    file_bytes: u64,
    drops_upto_seal: u64,
    asked: bool,
}

impl Row for PlanRow {
    const COLUMNS: &'static [&'static str] =
        &["shard", "seals", "segments", "level", "file bytes", "drops up to seal", "under way"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.shard.to_string(),
            format!("{}-{}", self.first_seal, self.last_seal),
            self.inputs.to_string(),
            self.level.to_string(),
            self.file_bytes.to_string(),
            if self.drops_upto_seal == 0 { "-".into() } else { self.drops_upto_seal.to_string() },
            if self.asked { "yes" } else { "no" }.into(),
        ]
    }
}

/// Prints the plans; unless told otherwise, has them carried out and waits.
pub async fn run(args: Args, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let connected = admin::connect(&args.admin, globals).await;
    let (connection, _) = connected.map_err(|failure| match failure {
        Failure::Unreachable(why) => Failure::Unreachable(anyhow::anyhow!(
            "{why:#}; merges are asked for in the log, so they need the node of this data directory: skein server --data-dir D"
        )),
        other => other,
    })?;
    let mut plans = connection.compact(!args.dry_run).await?;
    printer.list(&plans.iter().map(row).collect::<Vec<_>>())?;
    printer.flush()?;
    if args.dry_run {
        return Ok(());
    }
    let until = Instant::now() + args.timeout;
    while !plans.is_empty() {
        if Instant::now() >= until {
            return Err(Failure::Failed(anyhow::anyhow!("{} plans are not carried out yet; they go on", plans.len())));
        }
        tokio::time::sleep(LOOK).await;
        // What one plan made may be the input of the next one.
        plans = connection.compact(true).await?;
    }
    Ok(())
}

fn row(plan: &CompactPlan) -> PlanRow {
    PlanRow {
        shard: plan.shard.0,
        first_seal: plan.first_seal,
        last_seal: plan.last_seal,
        inputs: plan.inputs,
        level: plan.level,
        file_bytes: plan.file_bytes,
        drops_upto_seal: plan.drops_upto_seal,
        asked: plan.asked,
    }
}
