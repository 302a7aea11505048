//! `skein conversations`: the list, newest first.

use bytes::Bytes;
use clap::Args as ClapArgs;
use gateway::client::{Conversation, Record};
use serde::Serialize;

use super::identity::Identity;
use super::record::{Names, RecordRow};
use super::{log_time, target};
use crate::exit::Failure;
use crate::output::{Globals, Printer, Row};

/// Conversations asked for at a time.
const PAGE: u32 = 200;

/// Arguments.
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:\n  skein conversations\n  skein conversations --all --limit 1000 -o json")]
pub struct Args {
    /// Also those left
    #[arg(long)]
    all: bool,
    /// Most conversations, in as many pages as it takes [default: all]
    #[arg(long, value_name = "K")]
    limit: Option<usize>,
}

#[derive(Serialize)]
struct ConversationRow {
    conversation: String,
    kind: &'static str,
    name: String,
    unread: u64,
    head_seq: u64,
    read_seq: u64,
    delivered_seq: u64,
    visible_from: u64,
    members: u32,
    active: bool,
    last_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<RecordRow>,
}

impl Row for ConversationRow {
    const COLUMNS: &'static [&'static str] =
        &["conversation", "kind", "name", "unread", "head", "members", "last at", "last"];

    fn cells(&self) -> Vec<String> {
        let last = self.last.as_ref().map_or_else(String::new, |last| shortened(&last.words()));
        let name = if self.active { self.name.clone() } else { format!("{} (left)", self.name) };
        vec![
            self.conversation.clone(),
            self.kind.into(),
            name,
            self.unread.to_string(),
            self.head_seq.to_string(),
            self.members.to_string(),
            self.last_time.clone(),
            last,
        ]
    }
}

/// Runs it.
pub async fn run(args: Args, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let identity = Identity::of(globals)?;
    let signed = identity.connect().await?;
    let mut left = args.limit.unwrap_or(usize::MAX);
    let mut after = Bytes::new();
    let mut rows = Vec::new();
    let mut names = Names::default();
    while left > 0 {
        let limit = left.min(PAGE as usize) as u32;
        let (page, next) = signed.connection.list_conversations(limit, after, args.all).await?;
        left -= page.len().min(left);
        let last: Vec<Record> = page.iter().filter_map(|row| row.last.clone()).collect();
        names.learn(&signed.connection, &last).await?;
        names.learn_ids(&signed.connection, page.iter().map(|row| row.peer).collect()).await?;
        rows.extend(page.iter().map(|row| conversation_row(row, &names)));
        if next.is_empty() || page.is_empty() {
            break;
        }
        after = next;
    }
    printer.list(&rows)
}

fn conversation_row(row: &Conversation, names: &Names) -> ConversationRow {
    let name = if row.peer.0 == 0 { row.title.clone() } else { names.of(row.peer) };
    ConversationRow {
        conversation: row.conversation.to_string(),
        kind: target::kind(row.conversation),
        name,
        unread: row.unread,
        head_seq: row.head.0,
        read_seq: row.read.0,
        delivered_seq: row.delivered.0,
        visible_from: row.visible_from.0,
        members: row.member_count,
        active: row.active,
        last_time: log_time(row.last_time),
        last: row.last.as_ref().map(|last| RecordRow::new(last, names)),
    }
}

/// As much as fits beside the other columns.
fn shortened(words: &str) -> String {
    const CHARS_MAX: usize = 40;
    match words.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words.to_owned(),
    }
}
