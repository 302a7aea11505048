//! What is there already of what is to be imported, and whether the two go together.
//!
//! What always holds: it changes nothing; whatever stands in the way is named by its id and name.

use std::fs::File;
use std::io::{BufReader, Seek};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use gateway::client::{Connection, IMPORT_BYTES_MAX, ImportPlace};
use hashbrown::HashMap;
use logstore::RecordKind;
use logstore::id::{ConversationId, SeqId, UserId};
use sequencer::state::SKEW_MS;
use sequencer::{Import, ImportId};

use super::super::fill::Erased;
use super::sender::bytes_of;
use super::steps;
use crate::exit::Failure;
use crate::jsonl::line::{Account, Conversation, Line, Name, Record};
use crate::jsonl::read::Lines;
use crate::jsonl::verify::Verified;
use crate::log::Progress;

/// Asked about in one request; names are the longest of it.
const ASKED: usize = 500;
const ASKED_BYTES: usize = 32 << 10;
/// Contradictions that are named.
const NAMED: usize = 10;

/// What is to be done.
#[derive(Default)]
pub struct Plan {
    /// Conversations that are there, be it in part: how far.
    standing: HashMap<ConversationId, Standing>,
    /// Accounts that are not there.
    pub accounts_new: u64,
    /// Records that are not there.
    pub records_to_send: u64,
}

#[derive(Clone, Copy)]
enum Standing {
    /// Of this import, up to a record.
    Upto(SeqId),
    /// Of this import, and over.
    Over,
}

impl Plan {
    /// Whether anything is to be done about a conversation.
    pub fn is_to_do(&self, conversation: ConversationId) -> bool {
        !matches!(self.standing.get(&conversation), Some(Standing::Over))
    }

    /// Whether a record is not there.
    pub fn lacks(&self, record: &Record) -> bool {
        match self.standing.get(&ConversationId(record.conversation.0)) {
            Some(Standing::Over) => false,
            Some(Standing::Upto(last)) => record.seq > last.0,
            None => true,
        }
    }

    /// Whether a part of a conversation is there.
    pub fn is_unfinished(&self, conversation: ConversationId) -> bool {
        matches!(self.standing.get(&conversation), Some(Standing::Upto(_)))
    }

    /// Of each of those the newest record that is there.
    pub fn unfinished(&self) -> impl Iterator<Item = SeqId> {
        self.standing.values().filter_map(|standing| match standing {
            Standing::Upto(last) => Some(*last),
            Standing::Over => None,
        })
    }

    /// How many conversations are there as a whole.
    pub fn there(&self) -> u64 {
        self.standing.values().filter(|standing| matches!(standing, Standing::Over)).count() as u64
    }
}

/// Reads the whole input once more and asks about everything in it.
pub async fn compare(
    input: &mut File,
    verified: &Verified,
    import: ImportId,
    connection: &Connection,
) -> Result<Plan, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let ahead = u64::try_from(now.as_millis()).unwrap_or(u64::MAX).saturating_add(SKEW_MS);
    if verified.time.0 > ahead {
        return Err(anyhow::anyhow!("the input has times in the future: its latest is {} ms", verified.time.0).into());
    }
    input.rewind()?;
    let progress = Progress::begin("compared", verified.end.lines);
    let mut lines = Lines::new(BufReader::with_capacity(super::super::BUFFER_BYTES, &*input));
    let mut asker = Asker::new(connection, import, ahead);
    while let Some(line) = lines.next_line()? {
        progress.add(1);
        asker.line(line).await?;
    }
    asker.ask().await?;
    asker.finish()
}

/// How far the import of each conversation is, whatever else is there.
pub async fn standing(
    input: &mut File,
    verified: &Verified,
    import: ImportId,
    connection: &Connection,
) -> Result<Plan, Failure> {
    let mut asker = Asker::new(connection, import, u64::MAX);
    let mut lines = super::head(input, verified)?;
    while let Some(line) = lines.next_line()? {
        if matches!(line, Line::Conversation(_)) {
            asker.line(line).await?;
        }
    }
    super::check_unchanged(&lines, verified)?;
    asker.ask().await?;
    Ok(asker.plan)
}

/// What waits to be asked about.
#[derive(Default)]
struct Asked {
    accounts: Vec<Account>,
    names: Vec<Name>,
    conversations: Vec<ConversationId>,
    bytes: usize,
}

struct Asker<'a> {
    connection: &'a Connection,
    import: ImportId,
    ahead: u64,
    asked: Asked,
    plan: Plan,
    wrong: Vec<String>,
}

impl<'a> Asker<'a> {
    fn new(connection: &'a Connection, import: ImportId, ahead: u64) -> Asker<'a> {
        Asker { connection, import, ahead, asked: Asked::default(), plan: Plan::default(), wrong: Vec::new() }
    }

    async fn line(&mut self, line: Line) -> Result<(), Failure> {
        match line {
            Line::Account(account) => {
                self.asked.bytes += 9;
                self.asked.accounts.push(account);
            }
            Line::Name(name) => {
                self.asked.bytes += name.name.len() + 4;
                self.asked.names.push(name);
            }
            Line::Conversation(conversation) => {
                self.check_conversation(&conversation);
                self.asked.bytes += 18;
                self.asked.conversations.push(ConversationId(conversation.conversation.0));
            }
            Line::Record(_) if self.asked.bytes > 0 => {
                self.ask().await?;
                self.record(line);
            }
            line => self.record(line),
        }
        let asked = self.asked.accounts.len() + self.asked.names.len() + self.asked.conversations.len();
        if asked >= ASKED || self.asked.bytes >= ASKED_BYTES { self.ask().await } else { Ok(()) }
    }

    fn record(&mut self, line: Line) {
        let Line::Record(record) = line else { return };
        if !self.plan.lacks(&record) {
            return;
        }
        self.plan.records_to_send += 1;
        let named = format!("record {} of conversation {}", record.seq, record.conversation);
        let is_creation = record.seq == 1 && RecordKind(record.kind) == RecordKind::MEMBERSHIP;
        if !is_creation && (record.client_msg_id.0 >> 80) as u64 > self.ahead {
            self.wrong.push(format!("{named}: its client_msg_id says a time in the future"));
        }
        match steps::record(self.import, record, &Erased::new()) {
            Ok(Import::Record(record)) if !record.has_possible_sender() => {
                self.wrong.push(format!("{named}: {} cannot have sent it", record.sender));
            }
            Ok(step) => self.check_size(&named, &step),
            Err(what) => self.wrong.push(format!("{named}: {what}")),
        }
    }

    fn check_conversation(&mut self, line: &Conversation) {
        let named = format!("conversation {}", line.conversation);
        if line.upkeep.as_ref().is_some_and(|keep| keep.before > 1) {
            self.wrong.push(format!(
                "{named}: records of it were trimmed; such a conversation can be imported into a new data directory only"
            ));
        }
        let (conversation, import) = (ConversationId(line.conversation.0), self.import);
        let row = line.clone().row(sequencer::founding::CONTENT_INDEX, 0);
        self.check_size(&named, &Import::Begin { conversation, import, row });
    }

    fn check_size(&mut self, named: &str, step: &Import) {
        let bytes = bytes_of(step);
        if bytes > IMPORT_BYTES_MAX {
            self.wrong.push(format!("{named}: {bytes} bytes are more than a request holds ({IMPORT_BYTES_MAX})"));
        }
    }

    async fn ask(&mut self) -> Result<(), Failure> {
        let Asked { accounts, names, conversations, .. } = std::mem::take(&mut self.asked);
        let users: Vec<UserId> = accounts.iter().map(|account| UserId(account.user.0)).collect();
        let asked_names: Vec<String> = names.iter().map(|name| name.name.clone()).collect();
        let look = self.connection.look_import(&users, &asked_names, &conversations).await?;
        let there: HashMap<UserId, &str> = look.users.iter().map(|user| (user.id, user.name.as_str())).collect();
        for account in &accounts {
            match there.get(&UserId(account.user.0)) {
                None => self.plan.accounts_new += 1,
                Some(name) if *name == account.name => {}
                Some(name) => {
                    let what = format!("account {} ({}) is {name} there", account.user, account.name);
                    self.wrong.push(what);
                }
            }
        }
        let there: HashMap<&str, UserId> = look.names.iter().map(|user| (user.name.as_str(), user.id)).collect();
        for name in &names {
            if let Some(user) = there.get(name.name.as_str()).filter(|user| user.0 != name.user.0) {
                self.wrong.push(format!("the name {} of account {} is account {user}'s there", name.name, name.user));
            }
        }
        look.conversations.iter().for_each(|place| self.place(place));
        Ok(())
    }

    fn place(&mut self, place: &ImportPlace) {
        let ImportPlace { conversation, last_seq, is_empty, import } = *place;
        match import {
            Some((import, true)) if import == self.import => {
                self.plan.standing.insert(conversation, Standing::Over);
            }
            Some((import, false)) if import == self.import => {
                self.plan.standing.insert(conversation, Standing::Upto(last_seq));
            }
            Some((import, false)) => {
                self.wrong.push(format!(
                    "conversation {conversation} is being imported from another input ({:032x})",
                    import.0
                ));
            }
            _ if is_empty => {}
            _ => self
                .wrong
                .push(format!("conversation {conversation} is not empty there: it has had {last_seq} records")),
        }
    }

    fn finish(self) -> Result<Plan, Failure> {
        let more = self.wrong.len().saturating_sub(NAMED);
        if self.wrong.is_empty() {
            return Ok(self.plan);
        }
        let named = self.wrong[..self.wrong.len().min(NAMED)].join("; ");
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let refused = || -> anyhow::Result<Plan> { bail!("nothing was changed: {named}{more}") };
        Ok(refused()?)
    }
}
