//! `skein message recall`: takes the content of a message back.

use std::time::SystemTime;

use clap::{Args as ClapArgs, Subcommand};
use gateway::client::{Connection, MessageClock};
use logstore::id::{ConversationId, SeqId, TimeMs};
use serde::Serialize;

use super::identity::Identity;
use super::parse_id;
use crate::admin;
use crate::bench::accounts::AdminArgs;
use crate::exit::Failure;
use crate::output::{Globals, Printer, Row};

/// What can be done with a message.
#[derive(Subcommand)]
pub enum Command {
    /// Recall a message: its content is gone for everybody, its place stays
    #[command(after_help = "Examples:\n  skein message recall 80000000000000000000000000000007 12\n  \
        skein message recall 80000000000000000000000000000007 12 --data-dir ./skein-data   # anybody's, as operator")]
    Recall(Args),
}

/// Arguments.
#[derive(ClapArgs)]
pub struct Args {
    /// The conversation's id, as `skein conversations -o json` prints it
    #[arg(value_name = "ID")]
    conversation: String,
    /// The message's seq_id
    #[arg(value_name = "SEQ")]
    seq: u64,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Serialize)]
struct RecallRow {
    conversation: String,
    seq_id: u64,
    /// The record that says so; 0: the content was gone already.
    recall_seq_id: u64,
}

impl Row for RecallRow {
    const COLUMNS: &'static [&'static str] = &["conversation", "recalled", "by record"];

    fn cells(&self) -> Vec<String> {
        let by = if self.recall_seq_id == 0 { "gone already".into() } else { self.recall_seq_id.to_string() };
        vec![self.conversation.clone(), self.seq_id.to_string(), by]
    }
}

/// Runs it.
pub async fn run(command: Command, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let Command::Recall(args) = command;
    let conversation = parse_id(&args.conversation).ok_or_else(|| {
        Failure::Usage(format!("{:?} is no conversation's id: 32 hexadecimal digits", args.conversation))
    })?;
    let by = if args.admin.is_given() {
        let (connection, _) = admin::connect(&args.admin, globals).await?;
        recall(&connection, conversation, args.seq).await?
    } else {
        let signed = Identity::of(globals)?.connect().await?;
        recall(&signed.connection, conversation, args.seq).await?
    };
    let row = RecallRow { conversation: conversation.to_string(), seq_id: args.seq, recall_seq_id: by.0 };
    printer.list(&[row])
}

async fn recall(connection: &Connection, conversation: ConversationId, seq: u64) -> Result<SeqId, Failure> {
    let now = connection.ping().await?;
    let clock = MessageClock::new(TimeMs(now.0), SystemTime::now());
    Ok(connection.recall(conversation, SeqId(seq), clock.id()).await?)
}
