//! `skein import --live --abort`: what an interrupted import has brought of this input is taken out again.
//!
//! ```text
//! input --> verified whole --> how far is each conversation? --> members out --> given up: its records are trimmed
//! ```
//!
//! What always holds: conversations that are whole stay, and nobody ever saw the others; it can be interrupted and run again. Accounts and
//! names stay: they are whole by themselves.

use std::fs::File;

use sequencer::ImportId;
use serde::Serialize;

use super::compare::{Plan, standing};
use super::sender::Sender;
use super::{Target, check_unchanged, head, import_of, steps};
use crate::exit::{Failure, Outcome};
use crate::jsonl::verify::Verified;
use crate::output::{Printer, Row};
use crate::user::block_on;

/// What was given up.
#[derive(Serialize)]
struct Summary {
    import: String,
    conversations_given_up: u64,
    records_removed: u64,
    conversations_whole: u64,
    dry_run: bool,
}

impl Row for Summary {
    const COLUMNS: &'static [&'static str] =
        &["import", "conversations given up", "records removed", "conversations whole", "dry run"];

    fn cells(&self) -> Vec<String> {
        let counts = [self.conversations_given_up, self.records_removed, self.conversations_whole];
        let dry_run = if self.dry_run { "yes" } else { "no" };
        let cells = [self.import.clone()].into_iter().chain(counts.map(|count| count.to_string()));
        cells.chain([dry_run.to_owned()]).collect()
    }
}

/// Gives up the import of a verified input.
pub fn run(input: &mut File, verified: &Verified, target: &Target<'_>, printer: &mut Printer) -> Outcome {
    let import = import_of(verified)?;
    let summary = block_on(async {
        let connection = target.connect().await?;
        let plan = standing(input, verified, import, &connection).await?;
        if !target.dry_run {
            let mut sender = Sender::new(&connection);
            give_up(input, verified, import, &plan, &mut sender).await?;
        }
        Ok::<_, Failure>(Summary {
            import: format!("{:032x}", import.0),
            conversations_given_up: plan.unfinished().count() as u64,
            records_removed: plan.unfinished().map(|last| last.0).sum(),
            conversations_whole: plan.there(),
            dry_run: target.dry_run,
        })
    })?;
    printer.one(&summary)
}

async fn give_up(
    input: &mut File,
    verified: &Verified,
    import: ImportId,
    plan: &Plan,
    sender: &mut Sender<'_>,
) -> Result<(), Failure> {
    let mut steps = steps::Out::new(import, plan);
    let mut lines = head(input, verified)?;
    while let Some(line) = lines.next_line()? {
        for step in steps.of(line) {
            sender.add(step).await?;
        }
    }
    check_unchanged(&lines, verified)?;
    for step in steps.finish() {
        sender.add(step).await?;
    }
    sender.flush().await
}
