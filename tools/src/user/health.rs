//! `skein health`: a real durable append, timed by the server.

use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use serde::Serialize;

use super::identity::Identity;
use crate::admin;
use crate::bench::accounts::AdminArgs;
use crate::exit::Failure;
use crate::output::{Globals, Printer, Row};

/// Arguments.
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:\n  \
    skein health\n  \
    skein health --data-dir ./skein-data -o json\n\n\
    Asks as whoever is signed in; with --data-dir or --admin-key as the administrator.\n\
    Exit codes: 0 every shard committed, 3 refused, 4 no server there.")]
pub struct Args {
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Serialize)]
struct Health {
    healthy: bool,
    server: String,
    shards: usize,
    /// One lone durable append, start to ack.
    durable_append_us: u64,
    slowest_shard_us: u64,
    shards_us: Vec<u64>,
    /// The whole request, seen from here.
    round_trip_us: u64,
    /// What is wrong with shards though they commit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    troubles: Vec<String>,
}

impl Row for Health {
    const COLUMNS: &'static [&'static str] =
        &["healthy", "server", "shards", "durable append", "slowest shard", "round trip", "trouble"];

    fn cells(&self) -> Vec<String> {
        vec![
            "yes".into(),
            self.server.clone(),
            self.shards.to_string(),
            millis(self.durable_append_us),
            millis(self.slowest_shard_us),
            millis(self.round_trip_us),
            self.troubles.join("; "),
        ]
    }
}

/// Runs it.
pub async fn run(args: Args, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let (connection, server) = if args.admin.data_dir.is_some() || args.admin.admin_key.is_some() {
        admin::connect(&args.admin, globals).await?
    } else {
        let identity = Identity::of(globals)?;
        (identity.connect().await?.connection, identity.server)
    };
    let started = Instant::now();
    let probe = connection.probe().await?;
    let round_trip_us = micros(started.elapsed());
    let troubles = probe.troubles.iter().map(|(shard, what)| format!("shard {}: {}", shard.0, what.join("; ")));
    let troubles = troubles.collect();
    let shards_us: Vec<u64> = probe.shards.iter().map(|took| micros(*took)).collect();
    printer.one(&Health {
        healthy: true,
        server,
        shards: shards_us.len(),
        durable_append_us: micros(probe.durable),
        slowest_shard_us: shards_us.iter().copied().max().unwrap_or(0),
        shards_us,
        round_trip_us,
        troubles,
    })
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

fn millis(us: u64) -> String {
    format!("{:.3} ms", us as f64 / 1000.0)
}
