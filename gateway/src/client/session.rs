//! A device: a connection that is made again whenever it ends, over which nothing sent is lost or doubled and nothing
//! received is missed.
//!
//! One task runs it ([`driver`]); the rules are in [`super::Inbox`] and [`super::Outbox`]. Whoever holds a [`Session`] must keep taking its
//! events: while they are not taken nothing more is read, acks included.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::outbox::BatchLimits;
use super::{Backlog, Connection, Error, Event, MessageClock, Options, Outgoing, Progress, SendOutcome, User};
use driver::{Driver, Ends};

mod driver;
mod stall;

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
    /// Longest time without a connection, or in which the server takes nothing of what is sent, before the session ends;
    /// `None`: it never does.
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
        let ends = Ends { commands: command_queue, events: event_queue, now };
        let (mut driver, standing) = Driver::start(server, options, tokens, ends).await?;
        tokio::spawn(async move {
            let error = driver.run(standing).await;
            // Tickets end with the driver, after the reason stands.
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
