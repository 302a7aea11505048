//! `skein chat`: a conversation in the terminal, line by line.

use std::collections::{HashSet, VecDeque};
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args as ClapArgs;
use gateway::client::{Backlog, Event, Outgoing, Progress, Record, Session, SessionOptions, Ticket};
use hashbrown::HashMap;
use logstore::id::{ClientMsgId, ConversationId, SeqId};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio::time::{Instant, sleep_until};

use super::identity::Identity;
use super::record::{Names, RecordRow};
use super::send::say;
use super::stop::asked_to_stop;
use super::tail::Side;
use super::target::Target;
use crate::exit::Failure;
use crate::output::{Format, Globals, Printer};

/// Messages of the past shown at the start.
const RECENT: u64 = 20;
/// Lines that wait for their ack; beyond, typing waits.
const UNSETTLED_MAX: usize = 256;
/// How often the server is told what was read.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Arguments.
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:\n  \
    skein chat --with bob\n  \
    skein chat --group welcome\n\n\
    Every line typed is a message. /quit or Ctrl-D ends; a line that begins with // is sent with one / less.")]
pub struct Args {
    #[command(flatten)]
    target: Target,
}

/// Runs it.
pub async fn run(args: Args, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let identity = Identity::of(globals)?;
    let signed = identity.connect().await?;
    let conversation = args.target.open(&signed).await?;
    let head = super::tail::head_of(conversation, &signed).await?;
    let mut progress = Progress::default();
    progress.note_record(conversation, SeqId(head.0.saturating_sub(RECENT)));
    let options = SessionOptions { backlog: Backlog::Skip, progress, ..SessionOptions::default() };
    let mut session = identity.session(options).await?;
    eprintln!("signed in as {}; type a line to send it, /quit to end", signed.welcome.user.name);
    let mut chat = Chat {
        conversation,
        printer,
        names: Names::default(),
        side: Side { identity: &identity, signed: Some(signed), delivered: HashMap::new() },
        input: Some(BufReader::new(tokio::io::stdin()).lines()),
        shows_own: !std::io::stdin().is_terminal(),
        typed: HashSet::new(),
        unsettled: VecDeque::new(),
        tell_at: None,
    };
    let result = tokio::select! {
        result = chat.run(&mut session) => result,
        () = asked_to_stop() => Ok(()),
    };
    chat.tell_read().await;
    result
}

struct Chat<'a> {
    conversation: ConversationId,
    printer: &'a mut Printer,
    names: Names,
    side: Side<'a>,
    /// `None`: everything has been typed.
    input: Option<Lines<BufReader<Stdin>>>,
    /// Whether lines sent from here are shown: on a terminal they stand there already.
    shows_own: bool,
    typed: HashSet<ClientMsgId>,
    unsettled: VecDeque<Ticket>,
    tell_at: Option<Instant>,
}

impl Chat<'_> {
    async fn run(&mut self, session: &mut Session) -> Result<(), Failure> {
        let sender = session.sender();
        while self.input.is_some() || !self.unsettled.is_empty() {
            let may_type = self.input.is_some() && self.unsettled.len() < UNSETTLED_MAX;
            let tell_at = self.tell_at;
            tokio::select! {
                group = session.next_group() => self.show(group?).await?,
                line = next_line(&mut self.input), if may_type => match line? {
                    Some(line) => {
                        let message = Outgoing::text(self.conversation, line, sender.clock());
                        self.typed.insert(message.client_msg_id);
                        self.unsettled.push_back(sender.send(message).await?);
                    }
                    None => self.input = None,
                },
                outcome = first_settled(&mut self.unsettled), if !self.unsettled.is_empty() => {
                    if let Err(refusal) = outcome? {
                        eprintln!("skein: not sent: {refusal}");
                    }
                }
                () = sleep_until(tell_at.unwrap_or_else(Instant::now)), if tell_at.is_some() => self.tell_read().await,
            }
        }
        // What came with the last acks.
        while let Some(group) = futures::FutureExt::now_or_never(session.next_group()) {
            self.show(group?).await?;
        }
        Ok(())
    }

    async fn show(&mut self, group: Vec<Event>) -> Result<(), Failure> {
        group.iter().for_each(say);
        let is_here = |record: &&Record| record.conversation == self.conversation;
        let records: Vec<Record> = group.iter().filter_map(record_of).filter(is_here).cloned().collect();
        if records.is_empty() {
            return Ok(());
        }
        self.side.learn(&mut self.names, &records).await?;
        for record in &records {
            let is_typed = self.typed.remove(&record.client_msg_id);
            if !is_typed || self.shows_own {
                self.print(record)?;
            }
            self.side.delivered.insert(record.conversation, record.seq_id);
        }
        self.tell_at.get_or_insert(Instant::now() + TELL_EVERY);
        self.printer.flush()
    }

    fn print(&mut self, record: &Record) -> Result<(), Failure> {
        let row = RecordRow::new(record, &self.names);
        match self.printer.format() {
            Format::Table => self.printer.line(&row.chat_line()),
            _ => self.printer.row(&row),
        }
    }

    /// Tells the server what was read: what is on the screen of somebody who talks has been.
    async fn tell_read(&mut self) {
        self.tell_at = None;
        let upto: Vec<_> = self.side.delivered.iter().map(|(&conversation, &seq)| (conversation, seq)).collect();
        self.side.tell_delivered().await;
        if let (false, Ok(signed)) = (upto.is_empty(), self.side.connection().await) {
            // It matters to others only.
            let _ = signed.connection.read(&upto).await;
        }
    }
}

fn record_of(event: &Event) -> Option<&Record> {
    match event {
        Event::Record(record) => Some(record),
        _ => None,
    }
}

/// The next line to send; `None`: the end.
async fn next_line(input: &mut Option<Lines<BufReader<Stdin>>>) -> Result<Option<String>, Failure> {
    let Some(lines) = input else { return Ok(None) };
    match lines.next_line().await? {
        Some(line) if line.trim_end() == "/quit" => Ok(None),
        Some(line) => {
            Ok(Some(line.strip_prefix('/').filter(|rest| rest.starts_with('/')).map_or(line.clone(), str::to_owned)))
        }
        None => Ok(None),
    }
}

/// What became of the oldest line; it stays the oldest until that is known.
async fn first_settled(unsettled: &mut VecDeque<Ticket>) -> Result<gateway::client::SendOutcome, Failure> {
    match unsettled.front_mut() {
        Some(ticket) => {
            let outcome = ticket.settle().await;
            unsettled.pop_front();
            Ok(outcome?)
        }
        None => std::future::pending().await,
    }
}
