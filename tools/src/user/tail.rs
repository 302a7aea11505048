//! `skein tail`: messages as they come, first those missed since the last time.
//!
//! How far a saved sign-in has been shown what is noted after it was shown: after a kill a record may be shown twice,
//! never not at all.

use std::time::Duration;

use clap::Args as ClapArgs;
use gateway::client::{Backlog, Event, HistoryQuery, Progress, Record, Session, SessionOptions};
use hashbrown::HashMap;
use logstore::id::{ConversationId, SeqId};
use tokio::time::{Instant, sleep_until};

use super::identity::{Identity, Signed};
use super::record::{Names, print};
use super::send::say;
use super::stop::asked_to_stop;
use super::target::OptionalTarget;
use crate::exit::Failure;
use crate::output::{Globals, Printer};

/// Newest records shown of a conversation that was never shown.
const NEWEST: u64 = 200;
/// What was shown is noted this often.
const NOTE_EVERY: Duration = Duration::from_millis(500);
/// How long names are asked for while the server does not answer.
const NAMES_TIMEOUT: Duration = Duration::from_secs(30);

/// Arguments.
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:\n  \
    skein tail\n  \
    skein tail --with bob --once -o json\n  \
    skein tail --group welcome --from-beginning --limit 100\n  \
    SKEIN_TOKEN=$(skein token mint bob --data-dir ./skein-data) skein tail --new -o json\n\n\
    A saved sign-in is shown each record once: the next tail goes on where the last one ended.\n\
    The first one, and one with SKEIN_TOKEN, begins with the newest 200 of each conversation.")]
pub struct Args {
    #[command(flatten)]
    target: OptionalTarget,
    /// Everything from the first record on, whatever was shown before
    #[arg(long, conflicts_with = "new")]
    from_beginning: bool,
    /// Nothing of what was before
    #[arg(long)]
    new: bool,
    /// End after this many records
    #[arg(long, alias = "count", value_name = "N")]
    limit: Option<u64>,
    /// End when everything that was stored at the start has been shown
    #[arg(long)]
    once: bool,
}

/// Runs it.
pub async fn run(args: Args, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let identity = Identity::of(globals)?;
    let signed = identity.connect().await?;
    let only = match args.target.one() {
        Some(target) => Some(target.find(&signed).await?),
        None => None,
    };
    let saved = identity.progress()?;
    let (backlog, progress) = begin(&args, only, &saved, &signed).await?;
    let options = SessionOptions { backlog, progress: progress.clone(), ..SessionOptions::default() };
    let mut session = identity.session(options).await?;
    let shown = Shown { only, noted: if only.is_some() || args.new { saved } else { progress }, dirty_since: None };
    let side = Side { identity: &identity, signed: Some(signed), delivered: HashMap::new() };
    let mut tail = Tail { args, printer, names: Names::default(), side, shown, count: 0 };
    let result = tokio::select! {
        result = tail.follow(&mut session) => result,
        () = asked_to_stop() => Ok(()),
    };
    let noted = tail.note().await;
    result.and(noted)
}

/// Where to begin, and how.
async fn begin(
    args: &Args,
    only: Option<ConversationId>,
    saved: &Progress,
    signed: &Signed,
) -> Result<(Backlog, Progress), Failure> {
    let Some(conversation) = only else {
        return Ok(match (args.new, args.from_beginning) {
            (true, _) => (Backlog::Skip, Progress::default()),
            (_, true) => (Backlog::All, Progress::default()),
            _ => (Backlog::Newest, saved.clone()),
        });
    };
    let mut progress = Progress::default();
    // Asked in any case: nothing would ever come of a conversation that is not one's own.
    let head = head_of(conversation, signed).await?;
    if !args.new {
        let last = match (args.from_beginning, saved.last(conversation)) {
            (true, _) => SeqId(0),
            (false, SeqId(0)) => SeqId(head.0.saturating_sub(NEWEST)),
            (false, last) => last,
        };
        progress.note_record(conversation, last);
    }
    Ok((Backlog::Skip, progress))
}

/// The newest record; 0: there is no such conversation yet (a 1:1 in which nobody has written).
pub async fn head_of(conversation: ConversationId, signed: &Signed) -> Result<SeqId, Failure> {
    let query = HistoryQuery { conversation, from: SeqId(0), to: SeqId(0), limit: 1, newest_first: true };
    match signed.connection.history(query).await {
        Ok(page) => Ok(page.head),
        Err(error)
            if error.code() == Some(fanout::Code::NoSuchConversation)
                && super::target::kind(conversation) == "direct" =>
        {
            Ok(SeqId(0))
        }
        Err(error) => Err(error.into()),
    }
}

struct Tail<'a> {
    args: Args,
    printer: &'a mut Printer,
    names: Names,
    side: Side<'a>,
    shown: Shown,
    count: u64,
}

impl Tail<'_> {
    async fn follow(&mut self, session: &mut Session) -> Result<(), Failure> {
        loop {
            let due = self.shown.dirty_since.map(|since| since + NOTE_EVERY);
            let group = tokio::select! {
                group = session.next_group() => group?,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.note().await?;
                    continue;
                }
            };
            if self.show(group).await? {
                return Ok(());
            }
        }
    }

    /// Shows events; `true`: that was all that was wanted.
    async fn show(&mut self, group: Vec<Event>) -> Result<bool, Failure> {
        let records: Vec<Record> = group.iter().filter_map(|event| self.shown.wanted(event)).cloned().collect();
        self.side.learn(&mut self.names, &records).await?;
        let mut is_over = self.args.limit == Some(0);
        for event in &group {
            if is_over {
                break;
            }
            say(event);
            if let Some(record) = self.shown.wanted(event) {
                print(self.printer, record, &self.names)?;
                self.side.delivered.insert(record.conversation, record.seq_id);
                self.count += 1;
            }
            self.shown.note(event);
            is_over = self.args.limit == Some(self.count) || (self.args.once && *event == Event::CaughtUp);
        }
        self.printer.flush()?;
        Ok(is_over)
    }

    /// Notes what was shown, here and with the server.
    async fn note(&mut self) -> Result<(), Failure> {
        if self.shown.dirty_since.take().is_some() && !self.args.new {
            self.side.identity.save_progress(&self.shown.noted)?;
        }
        self.side.tell_delivered().await;
        Ok(())
    }
}

/// What was shown.
struct Shown {
    only: Option<ConversationId>,
    noted: Progress,
    dirty_since: Option<Instant>,
}

impl Shown {
    fn wanted<'e>(&self, event: &'e Event) -> Option<&'e Record> {
        match event {
            Event::Record(record) if self.only.is_none_or(|only| only == record.conversation) => Some(record),
            _ => None,
        }
    }

    /// A tail of one conversation notes only that: the cursor tells of all.
    fn note(&mut self, event: &Event) {
        match (self.only, self.wanted(event)) {
            (None, _) => self.noted.note(event),
            (Some(_), Some(record)) => self.noted.note_record(record.conversation, record.seq_id),
            (Some(_), None) => return,
        }
        self.dirty_since.get_or_insert_with(Instant::now);
    }
}

/// A second connection for questions: on the session's own, an answer could wait behind events that wait for the answer.
pub struct Side<'a> {
    /// Who asks.
    pub identity: &'a Identity,
    /// The connection, while it stands.
    pub signed: Option<Signed>,
    /// What the server has not been told to have been received.
    pub delivered: HashMap<ConversationId, SeqId>,
}

impl Side<'_> {
    /// Asks for names, again and again for a while: a restarting server is no reason to show none.
    pub async fn learn(&mut self, names: &mut Names, records: &[Record]) -> Result<(), Failure> {
        let give_up_at = Instant::now() + NAMES_TIMEOUT;
        loop {
            let failure = match self.connection().await {
                Ok(signed) => match names.learn(&signed.connection, records).await {
                    Ok(()) => return Ok(()),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            self.signed = None;
            if Instant::now() >= give_up_at || !matches!(failure, Failure::Unreachable(_)) {
                return Err(failure);
            }
            tokio::time::sleep(NOTE_EVERY).await;
        }
    }

    /// Tells the server what was received; it matters to senders only, so that a failure is no failure here.
    pub async fn tell_delivered(&mut self) {
        if self.delivered.is_empty() {
            return;
        }
        let upto: Vec<_> = self.delivered.drain().collect();
        let Ok(signed) = self.connection().await else { return };
        for some in upto.chunks(500) {
            if signed.connection.delivered(some).await.is_err() {
                self.signed = None;
                return;
            }
        }
    }

    /// The connection, made again if it ended.
    pub async fn connection(&mut self) -> Result<&Signed, Failure> {
        if self.signed.as_ref().is_none_or(|signed| signed.connection.is_closed()) {
            self.signed = Some(self.identity.connect().await?);
        }
        self.signed.as_ref().ok_or_else(|| Failure::Unreachable(anyhow::anyhow!("no connection")))
    }
}
