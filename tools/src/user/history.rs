//! `skein history`: a conversation's records, page by page.

use clap::Args as ClapArgs;
use gateway::client::HistoryQuery;
use logstore::id::SeqId;

use super::identity::Identity;
use super::record::{Names, RecordRow};
use super::target::Target;
use crate::exit::Failure;
use crate::output::{Format, Globals, Printer};

/// Records asked for at a time.
const PAGE: u64 = 500;
/// Records shown from the newest backwards unless told otherwise.
const DEFAULT_LIMIT: u64 = 50;

/// Arguments.
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:\n  \
    skein history --with bob\n  \
    skein history --group welcome --from-seq 100 --limit 1000 -o json\n  \
    skein history --with bob --newest --limit 20\n\n\
    Every record is shown, so the seq_ids of one who was always a member are contiguous.\n\
    -o json: conversation, seq_id, kind (text, custom, membership), server_msg_id, client_msg_id, sender,\n\
    sent_at, ordinal; text; content_base64; actor, joined and left.")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// First record; with --newest the last one [default: the oldest; with --newest the newest]
    #[arg(long, value_name = "N")]
    from_seq: Option<u64>,
    /// Most records, in as many pages as it takes [default: all; with --newest 50]
    #[arg(long, value_name = "K")]
    limit: Option<u64>,
    /// From the newest backwards
    #[arg(long)]
    newest: bool,
}

/// Runs it.
pub async fn run(args: Args, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let identity = Identity::of(globals)?;
    let signed = identity.connect().await?;
    let conversation = args.target.find(&signed).await?;
    let mut names = Names::default();
    let mut left = args.limit.unwrap_or(if args.newest { DEFAULT_LIMIT } else { u64::MAX });
    let mut from = SeqId(args.from_seq.unwrap_or(u64::from(!args.newest)));
    while left > 0 {
        let query =
            HistoryQuery { conversation, from, to: SeqId(0), limit: left.min(PAGE) as u32, newest_first: args.newest };
        let page = signed.connection.history(query).await?;
        names.learn(&signed.connection, &page.records).await?;
        for record in &page.records {
            print(printer, &RecordRow::new(record, &names))?;
        }
        printer.flush()?;
        left = left.saturating_sub(page.records.len() as u64);
        match page.next_from {
            Some(next) if next != from => from = next,
            _ => break,
        }
    }
    Ok(())
}

fn print(printer: &mut Printer, row: &RecordRow) -> Result<(), Failure> {
    match printer.format() {
        Format::Table => printer.line(&row.history_line()),
        _ => printer.row(row),
    }
}
