//! `skein import --live`: an export goes into a running cluster, into conversations that are empty there or not there yet.
//!
//! ```text
//! input --> verified whole --> compared with what is there --> accounts --> conversations, hidden --> records --> all are shown --> relations
//! ```
//!
//! What always holds: nothing is sent before the whole input was verified and nothing in it contradicts what is there; every step can be
//! sent again, so an import that was interrupted is taken up by running it once more; the same input is the same import. Who knows whom
//! is told last: a home that takes a 1:1 for open does not open it again, so it must not be told of one that may still be given up.

use std::fs::File;
use std::io::{BufReader, Read, Seek};

use anyhow::{Context, bail};
use gateway::client::Connection;
use sequencer::{Import, ImportId};
use serde::Serialize;

use super::fill::Erased;
use crate::admin::connect;
use crate::bench::accounts::AdminArgs;
use crate::exit::{Failure, Outcome};
use crate::jsonl::line::Line;
use crate::jsonl::read::Lines;
use crate::jsonl::verify::Verified;
use crate::log::Progress;
use crate::output::{Globals, Printer, Row};
use crate::user::block_on;

pub mod abort;
mod compare;
mod sender;
mod steps;

use compare::{Plan, compare};
use sender::Sender;

/// What was imported.
#[derive(Serialize)]
struct Summary {
    import: String,
    accounts: u64,
    accounts_made: u64,
    conversations: u64,
    conversations_there: u64,
    records: u64,
    records_sent: u64,
    dry_run: bool,
}

impl Row for Summary {
    const COLUMNS: &'static [&'static str] = &[
        "import",
        "accounts",
        "accounts made",
        "conversations",
        "conversations there",
        "records",
        "records sent",
        "dry run",
    ];

    fn cells(&self) -> Vec<String> {
        let numbers = [
            self.accounts,
            self.accounts_made,
            self.conversations,
            self.conversations_there,
            self.records,
            self.records_sent,
        ];
        let dry_run = if self.dry_run { "yes" } else { "no" };
        let cells = [self.import.clone()].into_iter().chain(numbers.map(|number| number.to_string()));
        cells.chain([dry_run.to_owned()]).collect()
    }
}

/// The running cluster.
pub struct Target<'a> {
    /// How to be its administrator.
    pub admin: AdminArgs,
    /// Where it is.
    pub globals: &'a Globals,
    /// Whether nothing is to be changed there.
    pub dry_run: bool,
}

impl Target<'_> {
    async fn connect(&self) -> Result<Connection, Failure> {
        Ok(connect(&self.admin, self.globals).await?.0)
    }
}

/// What is imported, in the order in which it is sent.
struct Source<'a> {
    verified: &'a Verified,
    erased: &'a Erased,
    import: ImportId,
    plan: &'a Plan,
}

/// Imports a verified input, without the bodies of what was erased.
pub fn run(
    input: &mut File,
    verified: &Verified,
    erased: &Erased,
    target: &Target<'_>,
    printer: &mut Printer,
) -> Outcome {
    let import = import_of(verified)?;
    let summary = block_on(async {
        let connection = target.connect().await?;
        let plan = compare(input, verified, import, &connection).await?;
        if !target.dry_run {
            let source = Source { verified, erased, import, plan: &plan };
            send(input, &source, &mut Sender::new(&connection)).await?;
        }
        Ok::<_, Failure>(Summary {
            import: format!("{:032x}", import.0),
            accounts: verified.end.accounts,
            accounts_made: plan.accounts_new,
            conversations: verified.end.conversations,
            conversations_there: plan.there(),
            records: verified.end.records,
            records_sent: plan.records_to_send,
            dry_run: target.dry_run,
        })
    })?;
    printer.one(&summary)
}

/// The same input is the same import.
fn import_of(verified: &Verified) -> anyhow::Result<ImportId> {
    let digits = verified.end.blake3.get(..32).context("a checksum has 64 digits")?;
    Ok(ImportId(u128::from_str_radix(digits, 16)?))
}

async fn send(input: &mut File, source: &Source<'_>, sender: &mut Sender<'_>) -> Result<(), Failure> {
    let Verified { last_record, last_user, .. } = *source.verified;
    sender.add(Import::Ids { last_record, last_user }).await?;
    sender.flush().await?;
    let mut steps = steps::Head::new(source.import, source.verified, source.plan);
    let mut lines = head(input, source.verified)?;
    while let Some(line) = lines.next_line()? {
        for step in steps.of(line) {
            sender.add(step).await?;
        }
    }
    check_unchanged(&lines, source.verified)?;
    if let Some(step) = steps.finish() {
        sender.add(step).await?;
    }
    records(input, source, sender).await?;
    // Only now is anything shown, and all of a shard at once.
    let ends = steps::Ends::new(source.import, source.verified, source.plan);
    send_each(input, source, sender, |line| ends.of(line)).await?;
    send_each(input, source, sender, steps::relation).await
}

/// Sends what single lines before records stand for.
async fn send_each(
    input: &mut File,
    source: &Source<'_>,
    sender: &mut Sender<'_>,
    step: impl Fn(Line) -> Option<Import>,
) -> Result<(), Failure> {
    let mut lines = head(input, source.verified)?;
    while let Some(line) = lines.next_line()? {
        if let Some(step) = step(line) {
            sender.add(step).await?;
        }
    }
    check_unchanged(&lines, source.verified)?;
    sender.flush().await
}

async fn records(input: &mut File, source: &Source<'_>, sender: &mut Sender<'_>) -> Result<(), Failure> {
    let progress = Progress::begin("imported", source.plan.records_to_send);
    input.rewind()?;
    let mut lines = Lines::new(BufReader::with_capacity(super::BUFFER_BYTES, &*input));
    loop {
        match lines.next_line()?.context("the input has become shorter")? {
            Line::Record(record) if source.plan.lacks(&record) => {
                let step = steps::record(source.import, record, source.erased);
                sender.add(step.map_err(|what| lines.bad(what.into()))?).await?;
                progress.add(1);
            }
            Line::End(_) if lines.hash_before().to_hex().as_str() == source.verified.end.blake3 => break,
            Line::End(_) => return Err(changed().into()),
            _ => {}
        }
    }
    sender.flush().await
}

/// The lines before records.
fn head<'a>(input: &'a mut File, verified: &Verified) -> anyhow::Result<Lines<BufReader<std::io::Take<&'a mut File>>>> {
    input.rewind()?;
    let head = input.take(verified.records_at);
    Ok(Lines::new(BufReader::with_capacity(super::BUFFER_BYTES, head)))
}

fn check_unchanged<R: std::io::BufRead>(lines: &Lines<R>, verified: &Verified) -> anyhow::Result<()> {
    // Without records the end is at the end of the head.
    if lines.hash_before() != verified.head_hash {
        bail!(changed());
    }
    Ok(())
}

fn changed() -> anyhow::Error {
    anyhow::anyhow!("the input has changed since it was verified")
}
