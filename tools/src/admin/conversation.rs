//! `skein conversation`: how long a conversation keeps its records.

use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};
use gateway::client::Retention;
use logstore::id::{ConversationId, SeqId};
use serde::Serialize;

use super::connect;
use crate::bench::accounts::AdminArgs;
use crate::exit::Failure;
use crate::output::{Globals, Printer, Row};
use crate::user::parse_id;

/// How long one request may take.
const SWEEP_WITHIN: Duration = Duration::from_secs(5);
/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Arguments of `trim`.
#[derive(Args)]
pub struct TrimArgs {
    /// The conversation's id, as `skein conversations -o json` prints it
    #[arg(value_name = "ID")]
    conversation: String,
    /// The first record that stays; one above the newest: none does
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    before: u64,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Arguments of `retain`.
#[derive(Args)]
#[command(group = ArgGroup::new("how").required(true).args(["days", "count", "off", "by_default"]))]
pub struct RetainArgs {
    /// The conversation's id, as `skein conversations -o json` prints it
    #[arg(value_name = "ID")]
    conversation: String,
    /// Keep what is not older
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: Option<u64>,
    /// Keep so many of the newest records
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Keep everything, whatever the configuration says
    #[arg(long)]
    off: bool,
    /// As the configuration says
    #[arg(long = "default")]
    by_default: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Serialize)]
struct TrimRow {
    conversation: String,
    before_seq: u64,
    messages: u64,
}

impl Row for TrimRow {
    const COLUMNS: &'static [&'static str] = &["conversation", "begins at", "messages removed"];

    fn cells(&self) -> Vec<String> {
        vec![self.conversation.clone(), self.before_seq.to_string(), self.messages.to_string()]
    }
}

#[derive(Serialize)]
struct RetainRow {
    conversation: String,
    days: Option<u64>,
    count: Option<u64>,
    by_default: bool,
}

impl Row for RetainRow {
    const COLUMNS: &'static [&'static str] = &["conversation", "keeps"];

    fn cells(&self) -> Vec<String> {
        let keeps = match (self.days, self.count) {
            (Some(days), _) => format!("{days} days"),
            (_, Some(count)) => format!("the newest {count}"),
            _ if self.by_default => "what the configuration says".into(),
            _ => "everything".into(),
        };
        vec![self.conversation.clone(), keeps]
    }
}

/// Arguments of `sweep`.
#[derive(Args)]
pub struct SweepArgs {
    /// Also more than 5 % of a shard's messages in a day
    #[arg(long)]
    force: bool,
    /// How long to go on
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Serialize)]
struct SweptRow {
    shard: u16,
    trims: u64,
    messages: u64,
    held_back: bool,
}

impl Row for SweptRow {
    const COLUMNS: &'static [&'static str] = &["shard", "trims", "messages removed", "held back"];

    fn cells(&self) -> Vec<String> {
        let held_back = if self.held_back { "yes" } else { "no" };
        vec![self.shard.to_string(), self.trims.to_string(), self.messages.to_string(), held_back.into()]
    }
}

/// Trims what need not be kept, in as many requests as it takes.
pub async fn sweep(args: SweepArgs, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let (connection, _) = connect(&args.admin, globals).await?;
    let until = Instant::now() + args.timeout;
    let mut rows: Vec<SweptRow> = Vec::new();
    loop {
        let swept = connection.sweep(args.force, SWEEP_WITHIN).await?;
        for one in &swept {
            let shard = one.shard.0;
            match rows.iter_mut().find(|row| row.shard == shard) {
                Some(row) => {
                    row.trims += one.trims;
                    row.messages += one.messages;
                    row.held_back = one.held_back;
                }
                None => {
                    let (trims, messages, held_back) = (one.trims, one.messages, one.held_back);
                    rows.push(SweptRow { shard, trims, messages, held_back });
                }
            }
        }
        if swept.iter().all(|one| one.complete) || Instant::now() >= until {
            return printer.list(&rows);
        }
    }
}

/// Trims a conversation.
pub async fn trim(args: TrimArgs, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let conversation = id(&args.conversation)?;
    let (connection, _) = connect(&args.admin, globals).await?;
    let (before, messages) = connection.trim(conversation, SeqId(args.before)).await?;
    printer.list(&[TrimRow { conversation: conversation.to_string(), before_seq: before.0, messages }])
}

/// Says how long a conversation keeps its records.
pub async fn retain(args: RetainArgs, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let conversation = id(&args.conversation)?;
    let (age_ms, records) = (args.days.map_or(0, |days| days * DAY_MS), args.count.unwrap_or(0));
    let retention = (!args.by_default).then_some(Retention { age_ms, records });
    let (connection, _) = connect(&args.admin, globals).await?;
    connection.retain(conversation, retention).await?;
    let (days, count, by_default) = (args.days, args.count, args.by_default);
    printer.list(&[RetainRow { conversation: conversation.to_string(), days, count, by_default }])
}

fn id(text: &str) -> Result<ConversationId, Failure> {
    parse_id(text).ok_or_else(|| Failure::Usage(format!("{text:?} is no conversation's id: 32 hexadecimal digits")))
}
