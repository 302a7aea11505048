//! `skein shard`: what a node's shards hold, and sealing them.

use std::time::Duration;

use clap::Args;
use gateway::client::{Options, SealedShard, Shard};
use logstore::id::ShardId;
use serde::Serialize;

use super::{connect, connect_with};
use crate::bench::accounts::AdminArgs;
use crate::exit::Failure;
use crate::output::{Globals, Printer, Row};
use crate::user::connect_options;

/// Arguments of `list`.
#[derive(Args)]
pub struct ListArgs {
    /// A digest of each shard's state: walks every row, and messages wait meanwhile
    #[arg(long)]
    digest: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Arguments of `seal`.
#[derive(Args)]
pub struct SealArgs {
    /// Which; may be repeated
    #[arg(long = "shard", value_name = "N", required_unless_present = "all", conflicts_with = "all")]
    shards: Vec<u16>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// How long to wait for the segments
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Serialize)]
struct ShardRow {
    shard: u16,
    leading: bool,
    term: u64,
    last_index: u64,
    applied_index: u64,
    unsealed_records: u64,
    conversations: u64,
    buckets: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    troubles: Vec<String>,
}

impl Row for ShardRow {
    const COLUMNS: &'static [&'static str] =
        &["shard", "leading", "term", "last", "applied", "unsealed", "conversations", "buckets", "digest", "trouble"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.shard.to_string(),
            if self.leading { "yes" } else { "no" }.into(),
            self.term.to_string(),
            self.last_index.to_string(),
            self.applied_index.to_string(),
            self.unsealed_records.to_string(),
            self.conversations.to_string(),
            self.buckets.to_string(),
            self.digest.clone(),
            self.troubles.join("; "),
        ]
    }
}

/// A shard that was just sealed.
#[derive(Serialize)]
struct SealedRow {
    shard: u16,
    seals: u64,
    upto_index: u64,
    segments: u64,
    records: u64,
    file_bytes: u64,
    took_ms: u64,
}

impl Row for SealedRow {
    const COLUMNS: &'static [&'static str] =
        &["shard", "seals", "up to", "segments", "records", "file bytes", "took ms"];

    fn cells(&self) -> Vec<String> {
        let numbers = [self.seals, self.upto_index, self.segments, self.records, self.file_bytes, self.took_ms];
        [self.shard.to_string()].into_iter().chain(numbers.map(|number| number.to_string())).collect()
    }
}

/// Lists the shards.
pub async fn list(args: ListArgs, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let (connection, _) = connect(&args.admin, globals).await?;
    let shards = connection.list_shards(args.digest).await?;
    printer.list(&shards.into_iter().map(row).collect::<Vec<_>>())
}

/// Seals shards and says what lies in their segments.
pub async fn seal(args: SealArgs, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let options = Options { request_timeout: args.timeout, ..connect_options(globals, None)? };
    let (connection, _) = connect_with(&args.admin, globals, options).await?;
    let shards: Vec<_> = args.shards.iter().copied().map(ShardId).collect();
    let sealed = connection.seal_shards(&shards).await?;
    printer.list(&sealed.into_iter().map(sealed_row).collect::<Vec<_>>())
}

fn sealed_row(sealed: SealedShard) -> SealedRow {
    SealedRow {
        shard: sealed.shard.0,
        seals: sealed.seals,
        upto_index: sealed.upto_index,
        segments: sealed.segments,
        records: sealed.records,
        file_bytes: sealed.file_bytes,
        took_ms: sealed.took.as_millis() as u64,
    }
}

fn row(shard: Shard) -> ShardRow {
    ShardRow {
        shard: shard.shard.0,
        leading: shard.leading,
        term: shard.term,
        last_index: shard.last_index,
        applied_index: shard.applied_index,
        unsealed_records: shard.unsealed_records,
        conversations: shard.conversations,
        buckets: shard.buckets,
        digest: shard.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        troubles: shard.troubles,
    }
}
