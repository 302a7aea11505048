//! `skein shard`: what a node's shards hold, and sealing them.

use clap::Args;
use gateway::client::Shard;
use logstore::id::ShardId;
use serde::Serialize;

use super::connect;
use crate::bench::accounts::AdminArgs;
use crate::exit::Failure;
use crate::output::{Globals, Printer, Row};

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
    /// Which
    #[arg(value_name = "SHARD", required_unless_present = "all", conflicts_with = "all")]
    shards: Vec<u16>,
    /// All of them
    #[arg(long)]
    all: bool,
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
}

impl Row for ShardRow {
    const COLUMNS: &'static [&'static str] =
        &["shard", "leading", "term", "last", "applied", "unsealed", "conversations", "buckets", "digest"];

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
        ]
    }
}

/// Lists the shards.
pub async fn list(args: ListArgs, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let (connection, _) = connect(&args.admin, globals).await?;
    print(connection.list_shards(args.digest).await?, printer)
}

/// Seals shards and lists them.
pub async fn seal(args: SealArgs, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let (connection, _) = connect(&args.admin, globals).await?;
    let shards: Vec<_> = args.shards.iter().copied().map(ShardId).collect();
    print(connection.seal_shards(&shards).await?, printer)
}

fn print(shards: Vec<Shard>, printer: &mut Printer) -> Result<(), Failure> {
    printer.list(&shards.into_iter().map(row).collect::<Vec<_>>())
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
    }
}
