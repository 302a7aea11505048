//! `skein user erase`: all messages of a user, out of every file.

use std::time::{Duration, Instant};

use clap::Args;
use gateway::client::{Connection, Erasure};
use serde::Serialize;

use super::connect;
use crate::bench::accounts::AdminArgs;
use crate::exit::Failure;
use crate::output::{Globals, Printer, Row};
use crate::user::log_time;

/// How often the server is asked how far it is.
const LOOK: Duration = Duration::from_millis(500);

/// Arguments of `erase`.
#[derive(Args)]
pub struct EraseArgs {
    /// The user's name
    #[arg(value_name = "NAME", required_unless_present = "status", conflicts_with = "status")]
    name: Option<String>,
    /// Say which erasures are not done, and what they wait for
    #[arg(long)]
    status: bool,
    /// Return when no reader sees the messages any more; files follow
    #[arg(long, conflicts_with = "status")]
    no_wait: bool,
    /// How long to wait for files
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Serialize)]
struct ErasureRow {
    user: String,
    shard: u16,
    upto_index: u64,
    asked_at: String,
    waits_for: String,
}

impl Row for ErasureRow {
    const COLUMNS: &'static [&'static str] = &["user", "shard", "up to", "asked at", "waits for"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.user.clone(),
            self.shard.to_string(),
            self.upto_index.to_string(),
            self.asked_at.clone(),
            self.waits_for.clone(),
        ]
    }
}

/// What was done.
#[derive(Serialize)]
struct DoneRow {
    user: String,
    /// Whether nothing in any file of the node decodes to a message of the user.
    done: bool,
    shards_pending: usize,
    took_ms: u64,
}

impl Row for DoneRow {
    const COLUMNS: &'static [&'static str] = &["user", "out of files", "shards pending", "took ms"];

    fn cells(&self) -> Vec<String> {
        let done = if self.done { "yes" } else { "no" };
        vec![self.user.clone(), done.into(), self.shards_pending.to_string(), self.took_ms.to_string()]
    }
}

/// Erases a user's messages, or says how far erasures are.
pub async fn run(args: EraseArgs, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let (connection, _) = connect(&args.admin, globals).await?;
    let Some(name) = args.name else {
        let pending = connection.list_erasures().await?;
        return printer.list(&pending.iter().map(row).collect::<Vec<_>>());
    };
    let began = Instant::now();
    let mut pending = connection.erase_user(&name).await?;
    if !args.no_wait {
        pending = wait(&connection, pending, began + args.timeout).await?;
    }
    let (done, shards_pending) = (pending.is_empty(), pending.len());
    printer.list(&[DoneRow { user: name, done, shards_pending, took_ms: began.elapsed().as_millis() as u64 }])?;
    match pending.first() {
        Some(first) if !args.no_wait => Err(Failure::Failed(anyhow::anyhow!(
            "not out of every file within the timeout: {shards_pending} shards wait, shard {} for its {}; it goes on: \
             skein user erase --status",
            first.shard.0,
            first.waits_for
        ))),
        _ => Ok(()),
    }
}

/// Waits until the server lists the user's erasures no more, or time is over.
async fn wait(connection: &Connection, begun: Vec<Erasure>, until: Instant) -> Result<Vec<Erasure>, Failure> {
    let is_of_these = |erasure: &Erasure| begun.iter().any(|one| one.user == erasure.user);
    let mut pending = begun.clone();
    while !pending.is_empty() && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        pending = connection.list_erasures().await?.into_iter().filter(is_of_these).collect();
    }
    Ok(pending)
}

fn row(erasure: &Erasure) -> ErasureRow {
    ErasureRow {
        user: erasure.user.to_string(),
        shard: erasure.shard.0,
        upto_index: erasure.upto_index,
        asked_at: log_time(erasure.asked_at),
        waits_for: erasure.waits_for.clone(),
    }
}
