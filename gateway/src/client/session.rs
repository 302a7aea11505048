//! A device: a connection that is made again whenever it ends, over which nothing sent is lost or doubled and nothing
//! received is missed.
//!
//! One task runs it; the rules are in [`Inbox`] and [`Outbox`]. Whoever holds a [`Session`] must keep taking its
//! events: while they are not taken nothing more is read, acks included.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::inbox::{Fill, Inbox};
use super::outbox::{BatchLimits, Outbox};
use super::{
    Backlog, Backoff, Connection, Error, Event, Greeting, HistoryPage, HistoryQuery, MessageClock, Options, Outgoing,
    Progress, Push, Pushes, Record, SendOutcome, User, Welcome,
};
use fanout::Code;

/// Reads of holes under way.
const FILLS_MAX: usize = 4;
/// Groups of events not taken; one more stops reading.
const EVENT_GROUPS_MAX: usize = 64;
/// Calls of [`SessionSender::send`] not yet taken.
const COMMANDS_MAX: usize = 64;

/// Gives access tokens.
pub trait TokenSource: Send + Sync + 'static {
    /// A token that is valid now; `rejected`: the one given last was not taken.
    fn token(&self, rejected: bool) -> Pin<Box<dyn Future<Output = Result<String, Error>> + Send + '_>>;
}

/// One token: there is no other when it is rejected, and the server says why once more.
impl TokenSource for String {
    fn token(&self, _rejected: bool) -> Pin<Box<dyn Future<Output = Result<String, Error>> + Send + '_>> {
        Box::pin(std::future::ready(Ok(self.clone())))
    }
}

/// How a session behaves.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Of each connection.
    pub connection: Options,
    /// Stable per installation.
    pub device: String,
    /// Whether to receive; `false`: sends only.
    pub attach: bool,
    /// What is wanted of the time before.
    pub backlog: Backlog,
    /// Where receiving begins.
    pub progress: Progress,
    /// Longest time without a connection before the session ends; `None`: it never does.
    pub give_up_after: Option<Duration>,
    /// First wait before a new connection.
    pub backoff_base: Duration,
    /// Longest wait before a new connection.
    pub backoff_max: Duration,
    /// Messages not settled; beyond, `send` waits.
    pub unsettled_max: usize,
    /// Records held back for a hole; beyond, they are read again later.
    pub held_max: usize,
    /// How batches are cut, within what the server allows.
    pub batches: BatchLimits,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions {
            connection: Options::default(),
            device: String::new(),
            attach: true,
            backlog: Backlog::Newest,
            progress: Progress::default(),
            give_up_after: None,
            backoff_base: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            unsettled_max: 4096,
            held_max: 10_000,
            batches: BatchLimits::default(),
        }
    }
}

/// A device that is signed in.
pub struct Session {
    sender: SessionSender,
    events: mpsc::Receiver<Vec<Event>>,
    taken: VecDeque<Event>,
    end: watch::Receiver<Option<Error>>,
}

/// Sends over a session; clones share it.
#[derive(Clone)]
pub struct SessionSender {
    commands: mpsc::Sender<Vec<(Outgoing, Owner)>>,
    now: watch::Receiver<Option<Now>>,
}

type Owner = oneshot::Sender<SendOutcome>;

/// The connection that stands.
#[derive(Clone)]
struct Now {
    connection: Connection,
    user: User,
    clock: MessageClock,
}

/// What becomes of a message, to come.
pub struct Ticket(oneshot::Receiver<SendOutcome>);

impl Ticket {
    /// Awaits it. An error means that the session ended before; the outcome is then unknown.
    pub async fn settled(mut self) -> Result<SendOutcome, Error> {
        self.settle().await
    }

    /// The same, for one that is kept while other things are awaited too; not to be called again once it has answered.
    pub async fn settle(&mut self) -> Result<SendOutcome, Error> {
        (&mut self.0).await.map_err(|_| Error::Closed { reason: "the session ended".into() })
    }
}

impl Session {
    /// Makes the first connection; fails if that fails. Later ones are made by themselves.
    pub async fn start(server: &str, options: SessionOptions, tokens: Arc<dyn TokenSource>) -> Result<Session, Error> {
        let (commands, command_queue) = mpsc::channel(COMMANDS_MAX);
        let (event_queue, events) = mpsc::channel(EVENT_GROUPS_MAX);
        let (now, now_seen) = watch::channel(None);
        let (end, end_seen) = watch::channel(None);
        let mut driver = Driver {
            inbox: Inbox::new(options.backlog, &options.progress, options.held_max),
            outbox: Outbox::default(),
            server: server.to_owned(),
            options,
            tokens,
            commands: command_queue,
            events: event_queue,
            now,
            out: Vec::new(),
            started: Instant::now(),
            senders_gone: false,
        };
        let standing = driver.connect().await?;
        tokio::spawn(async move {
            let error = driver.run(standing).await;
            driver.outbox.abandon();
            let _ = end.send(Some(error));
        });
        let sender = SessionSender { commands, now: now_seen };
        Ok(Session { sender, events, taken: VecDeque::new(), end: end_seen })
    }

    /// The next event; an error: the session is over.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.taken.pop_front() {
                return Ok(event);
            }
            match self.events.recv().await {
                Some(group) => self.taken.extend(group),
                None => return Err(self.end_reason().await),
            }
        }
    }

    /// All events that are there, or the next; an error: the session is over.
    pub async fn next_group(&mut self) -> Result<Vec<Event>, Error> {
        if !self.taken.is_empty() {
            return Ok(self.taken.drain(..).collect());
        }
        match self.events.recv().await {
            Some(group) => Ok(group),
            None => Err(self.end_reason().await),
        }
    }

    /// For sending, also while events are awaited elsewhere.
    pub fn sender(&self) -> SessionSender {
        self.sender.clone()
    }

    async fn end_reason(&mut self) -> Error {
        let ended = self.end.wait_for(Option::is_some).await;
        let reason = ended.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| Error::Closed { reason: "the session ended".into() })
    }
}

impl SessionSender {
    /// Takes a message behind all given before; waits while too many are unsettled.
    pub async fn send(&self, message: Outgoing) -> Result<Ticket, Error> {
        let mut tickets = self.send_all(vec![message]).await?;
        tickets.pop().ok_or_else(|| Error::Closed { reason: "the session ended".into() })
    }

    /// Takes messages behind all given before; one ticket each, in order.
    pub async fn send_all(&self, messages: Vec<Outgoing>) -> Result<Vec<Ticket>, Error> {
        let mut tickets = Vec::with_capacity(messages.len());
        let mut owned = Vec::with_capacity(messages.len());
        for message in messages {
            let (owner, ticket) = oneshot::channel();
            owned.push((message, owner));
            tickets.push(Ticket(ticket));
        }
        let gone = |_| Error::Closed { reason: "the session ended".into() };
        self.commands.send(owned).await.map_err(gone)?;
        Ok(tickets)
    }

    /// The connection that stands now, for requests; waits while there is none.
    pub async fn connection(&self) -> Result<Connection, Error> {
        Ok(self.standing().await?.connection)
    }

    /// Who is signed in.
    pub async fn user(&self) -> Result<User, Error> {
        Ok(self.standing().await?.user)
    }

    /// For ids of messages.
    pub fn clock(&self) -> MessageClock {
        self.now.borrow().as_ref().map_or_else(MessageClock::default, |now| now.clock)
    }

    async fn standing(&self) -> Result<Now, Error> {
        let mut now = self.now.clone();
        let standing =
            now.wait_for(Option::is_some).await.map_err(|_| Error::Closed { reason: "the session ended".into() })?;
        standing.clone().ok_or_else(|| Error::Closed { reason: "the session ended".into() })
    }
}

/// The task behind a session.
struct Driver {
    server: String,
    options: SessionOptions,
    tokens: Arc<dyn TokenSource>,
    inbox: Inbox,
    outbox: Outbox<Owner>,
    commands: mpsc::Receiver<Vec<(Outgoing, Owner)>>,
    events: mpsc::Sender<Vec<Event>>,
    now: watch::Sender<Option<Now>>,
    /// Events that wait for room.
    out: Vec<Event>,
    started: Instant,
    senders_gone: bool,
}

/// A connection that has been greeted.
struct Standing {
    connection: Connection,
    pushes: Pushes,
    welcome: Welcome,
}

type Answers<T> = FuturesUnordered<Pin<Box<dyn Future<Output = T> + Send>>>;

/// What is awaited over one connection.
#[derive(Default)]
struct UnderWay {
    sends: Answers<(u64, Result<Vec<SendOutcome>, Error>)>,
    fills: Answers<(Fill, Result<HistoryPage, Error>)>,
}

/// Everything that can happen to a session whose connection stands.
enum Action {
    Acked(u64, Result<Vec<SendOutcome>, Error>),
    Read(Fill, Result<HistoryPage, Error>),
    Pushed(Push),
    Given(Option<Vec<(Outgoing, Owner)>>),
    Closed(Error),
    /// Time has passed, or events were given away.
    Nothing,
}

/// Why a connection is not followed any further.
enum Break {
    /// Another may do better.
    Lost(Error, Duration),
    /// Nobody wants this session any more, or it cannot go on.
    Over(Error),
}

impl Driver {
    /// Runs until nobody wants the session, or it cannot go on; returns why.
    async fn run(&mut self, first: Standing) -> Error {
        let mut standing = first;
        loop {
            let broken = self.follow(standing).await;
            self.now.send_replace(None);
            self.outbox.disconnected();
            let (error, wait) = match broken {
                Break::Over(error) => return error,
                Break::Lost(error, wait) => (error, wait),
            };
            standing = match self.reconnect(error, wait).await {
                Ok(standing) => standing,
                Err(error) => return error,
            };
        }
    }

    async fn connect(&mut self) -> Result<Standing, Error> {
        let mut rejected = false;
        loop {
            let token = self.tokens.token(rejected).await?;
            match self.greet(token).await {
                Err(Error::Refused(refusal)) if !rejected && refusal.code() == Some(Code::Unauthenticated) => {
                    rejected = true;
                }
                answer => return answer,
            }
        }
    }

    async fn greet(&mut self, token: String) -> Result<Standing, Error> {
        let (connection, pushes) = Connection::connect(&self.server, self.options.connection.clone()).await?;
        let greeting = Greeting {
            token,
            device: self.options.device.clone(),
            cursor: self.inbox.cursor(),
            attach: self.options.attach,
            bodies: self.options.attach && self.options.backlog != Backlog::Skip,
        };
        let welcome = connection.hello(greeting).await?;
        self.inbox.connected(welcome.user.id, &welcome.history);
        let (user, clock) = (welcome.user.clone(), welcome.clock);
        self.out.push(Event::Online { user: user.clone(), history: welcome.history.clone() });
        self.now.send_replace(Some(Now { connection: connection.clone(), user, clock }));
        Ok(Standing { connection, pushes, welcome })
    }

    /// Tries until a connection stands, or the time for it is over.
    async fn reconnect(&mut self, lost: Error, told_wait: Duration) -> Result<Standing, Error> {
        let mut backoff = Backoff::new(self.options.backoff_base, self.options.backoff_max);
        let give_up_at = self.options.give_up_after.map(|after| Instant::now() + after);
        let mut error = lost;
        let mut told_wait = Some(told_wait);
        loop {
            let unwanted = self.commands.is_closed() && self.outbox.is_empty();
            if unwanted || give_up_at.is_some_and(|at| Instant::now() >= at) {
                return Err(error);
            }
            let retry_in = backoff.next(rand::random()).max(told_wait.take().unwrap_or_default());
            self.out.push(Event::Offline { error, retry_in });
            self.offer_events();
            tokio::time::sleep(retry_in).await;
            error = match self.connect().await {
                Ok(standing) => return Ok(standing),
                Err(error) if may_pass(&error) => error,
                Err(error) => return Err(error),
            };
        }
    }

    /// Serves one connection until it breaks.
    async fn follow(&mut self, mut standing: Standing) -> Break {
        let mut under_way = UnderWay::default();
        let mut come_back_after = Duration::ZERO;
        loop {
            if let Err(error) = self.start_what_is_due(&standing, &mut under_way).await {
                return Break::Lost(error, come_back_after);
            }
            if self.senders_gone && self.outbox.is_empty() {
                return Break::Over(Error::Closed { reason: "this side ended the session".into() });
            }
            let action = self.next_action(&mut standing, &mut under_way).await;
            if let Err(error) = self.apply(action, &standing, &mut come_back_after) {
                return Break::Lost(error, come_back_after);
            }
        }
    }

    async fn next_action(&mut self, standing: &mut Standing, under_way: &mut UnderWay) -> Action {
        let has_room = self.outbox.len() < self.options.unsettled_max;
        let deadline = self.deadline();
        tokio::select! {
            room = self.events.reserve(), if !self.out.is_empty() => {
                let events = std::mem::take(&mut self.out);
                // Without anybody who takes events, sending goes on.
                let _ = room.map(|room| room.send(events));
                Action::Nothing
            }
            Some((batch, answer)) = under_way.sends.next(), if !under_way.sends.is_empty() => Action::Acked(batch, answer),
            Some((fill, answer)) = under_way.fills.next(), if !under_way.fills.is_empty() => Action::Read(fill, answer),
            push = standing.pushes.next(), if self.out.is_empty() => match push {
                Some(push) => Action::Pushed(push),
                None => Action::Closed(standing.connection.closed().await),
            },
            messages = self.commands.recv(), if has_room && !self.senders_gone => Action::Given(messages),
            () = sleep_until(deadline.unwrap_or(self.started)), if deadline.is_some() => Action::Nothing,
        }
    }

    fn apply(&mut self, action: Action, standing: &Standing, come_back_after: &mut Duration) -> Result<(), Error> {
        match action {
            Action::Acked(batch, answer) => return self.take_ack(batch, answer, &standing.welcome),
            Action::Read(fill, answer) => return self.take_page(fill, answer),
            Action::Pushed(push) => self.take_push(push, come_back_after),
            Action::Given(Some(messages)) => {
                messages.into_iter().for_each(|(message, owner)| self.outbox.push(message, owner));
            }
            Action::Given(None) => self.senders_gone = true,
            Action::Closed(error) => return Err(error),
            Action::Nothing => {}
        }
        Ok(())
    }

    async fn start_what_is_due(&mut self, standing: &Standing, under_way: &mut UnderWay) -> Result<(), Error> {
        let limits = self.batch_limits(&standing.welcome);
        let now_ms = self.now_ms();
        while let Some(batch) = self.outbox.take_batch(limits, now_ms) {
            let id = batch.id;
            match standing.connection.begin_send(batch.epoch, &batch.messages, false).await {
                Ok(reply) => under_way.sends.push(Box::pin(async move { (id, reply.wait().await) })),
                Err(error @ Error::TooLarge { .. }) => {
                    under_way.sends.push(Box::pin(std::future::ready((id, Err(error)))));
                }
                Err(error) => return Err(error),
            }
        }
        while under_way.fills.len() < FILLS_MAX
            && let Some(fill) = self.inbox.take_fill(now_ms)
        {
            let connection = standing.connection.clone();
            under_way.fills.push(Box::pin(async move { (fill, connection.history(page_of(fill)).await) }));
        }
        Ok(())
    }

    fn take_ack(
        &mut self,
        batch: u64,
        answer: Result<Vec<SendOutcome>, Error>,
        welcome: &Welcome,
    ) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let outcomes = match answer {
            Ok(outcomes) => outcomes,
            Err(Error::Refused(refusal)) if refusal.is_of_the_moment() => {
                self.outbox.postponed(batch, refusal.retry_after, now_ms);
                return Ok(());
            }
            // The request itself is wrong: so is each of its messages.
            Err(Error::Refused(refusal)) => vec![Err(refusal); self.options.batches.messages_max],
            Err(Error::TooLarge { bytes, limit }) => vec![Err(too_long(bytes, limit)); 1],
            Err(error) => return Err(error),
        };
        for settled in self.outbox.answered(batch, outcomes, now_ms) {
            if let (true, Ok(stored)) = (self.options.attach, &settled.outcome) {
                let record = Record::of_own(&settled.message, *stored, welcome.user.id);
                self.inbox.sent(record, now_ms, &mut self.out);
            }
            // An owner that does not want to know is none of our business.
            let _ = settled.owner.send(settled.outcome);
        }
        Ok(())
    }

    fn take_page(&mut self, fill: Fill, answer: Result<HistoryPage, Error>) -> Result<(), Error> {
        let now_ms = self.now_ms();
        match answer {
            Ok(page) => {
                let filled = self.inbox.filled(fill, page, now_ms, &mut self.out);
                filled.map_err(|behind| Error::Protocol(behind.to_string()))?;
            }
            Err(Error::Refused(refusal)) if refusal.is_of_the_moment() => {
                self.inbox.unanswered(fill, now_ms, &mut self.out);
            }
            Err(Error::Refused(_)) => self.inbox.invisible(fill, now_ms, &mut self.out),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn take_push(&mut self, push: Push, come_back_after: &mut Duration) {
        let now_ms = self.now_ms();
        let out = &mut self.out;
        match push {
            Push::Deliver { records, step } => self.inbox.deliver(records, step, now_ms, out),
            Push::Attached { rows, slot } => self.inbox.attached(rows, slot, out),
            Push::CaughtUp { step, all } => self.inbox.caught_up(step, all, now_ms, out),
            Push::CursorReset { history, forks } => self.inbox.reset(history, forks, out),
            Push::Receipts(receipts) => out.extend(receipts.into_iter().map(Event::Receipt)),
            Push::Drain { reconnect_after, reason, .. } => {
                *come_back_after = reconnect_after;
                out.push(Event::Draining { reason });
            }
            // The connection's end tells why it closed; `accepted` is not asked for.
            Push::Closing(_) | Push::Accepted { .. } => {}
        }
    }

    /// Gives events away if there is room, without waiting.
    fn offer_events(&mut self) {
        if let Ok(room) = self.events.try_reserve() {
            room.send(std::mem::take(&mut self.out));
        }
    }

    /// When something is due that no message announces.
    fn deadline(&self) -> Option<Instant> {
        let due_ms = [self.inbox.next_due_ms(), self.outbox.next_due_ms()].into_iter().flatten().min()?;
        Some(self.started + Duration::from_millis(due_ms))
    }

    fn batch_limits(&self, welcome: &Welcome) -> BatchLimits {
        let ours = self.options.batches;
        BatchLimits {
            messages_max: ours.messages_max.min(welcome.batch_messages_max),
            frame_bytes_max: match welcome.frame_bytes_max {
                0 => ours.frame_bytes_max,
                theirs => ours.frame_bytes_max.min(theirs),
            },
            in_flight_max: ours.in_flight_max,
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// Whether another attempt to connect may fare better.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Refused(refusal) => refusal.is_of_the_moment() || refusal.code() == Some(Code::Internal),
        Error::Unreachable { .. } | Error::Closed { .. } | Error::Timeout { .. } => true,
        Error::Protocol(_) | Error::TooLarge { .. } => false,
    }
}

fn page_of(fill: Fill) -> HistoryQuery {
    HistoryQuery { conversation: fill.conversation, from: fill.from, to: fill.to, limit: 0, newest_first: false }
}

fn too_long(bytes: usize, limit: usize) -> super::Refusal {
    super::Refusal {
        number: Code::TooLong.number(),
        message: format!("a frame of {bytes} bytes exceeds the server's {limit}"),
        retry_after: Duration::ZERO,
    }
}
