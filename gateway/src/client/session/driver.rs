//! The task behind a session: one loop over everything that can happen to it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fanout::Code;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::stall::Stall;
use super::{Now, Owner, SessionOptions, TokenSource};
use crate::client::inbox::{Fill, Inbox};
use crate::client::outbox::{BatchLimits, Outbox};
use crate::client::{
    Backlog, Backoff, Connection, Error, Event, Greeting, HistoryPage, HistoryQuery, Outgoing, Push, Pushes, Record,
    Refusal, SendOutcome, Welcome,
};

/// Reads of holes under way.
const FILLS_MAX: usize = 4;

/// The driver's ends of what it shares with the session's owner.
pub(super) struct Ends {
    pub(super) commands: mpsc::Receiver<Vec<(Outgoing, Owner)>>,
    pub(super) events: mpsc::Sender<Vec<Event>>,
    pub(super) now: watch::Sender<Option<Now>>,
}

/// What the task owns.
pub(super) struct Driver {
    server: String,
    options: SessionOptions,
    tokens: Arc<dyn TokenSource>,
    inbox: Inbox,
    outbox: Outbox<Owner>,
    ends: Ends,
    /// Events that wait for room.
    out: Vec<Event>,
    started: Instant,
    senders_gone: bool,
    stall: Stall,
}

/// A connection that has been greeted.
pub(super) struct Standing {
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
    /// Makes the first connection.
    pub(super) async fn start(
        server: &str,
        options: SessionOptions,
        tokens: Arc<dyn TokenSource>,
        ends: Ends,
    ) -> Result<(Driver, Standing), Error> {
        let mut driver = Driver {
            inbox: Inbox::new(options.backlog, &options.progress, options.held_max),
            outbox: Outbox::default(),
            server: server.to_owned(),
            options,
            tokens,
            ends,
            out: Vec::new(),
            started: Instant::now(),
            senders_gone: false,
            stall: Stall::default(),
        };
        let standing = driver.connect().await?;
        Ok((driver, standing))
    }

    /// Runs until nobody wants the session, or it cannot go on; returns why.
    pub(super) async fn run(&mut self, first: Standing) -> Error {
        let mut standing = first;
        loop {
            let broken = self.follow(standing).await;
            self.ends.now.send_replace(None);
            self.outbox.disconnected();
            self.stall.forget();
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
        self.ends.now.send_replace(Some(Now { connection: connection.clone(), user, clock }));
        Ok(Standing { connection, pushes, welcome })
    }

    /// Tries until a connection stands, or the time for it is over.
    async fn reconnect(&mut self, lost: Error, told_wait: Duration) -> Result<Standing, Error> {
        let mut backoff = Backoff::new(self.options.backoff_base, self.options.backoff_max);
        let give_up_at = self.options.give_up_after.map(|after| Instant::now() + after);
        let mut error = lost;
        let mut told_wait = Some(told_wait);
        loop {
            let unwanted = self.ends.commands.is_closed() && self.outbox.is_empty();
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
            if let Some(refusal) = self.stall.too_long(self.options.give_up_after, Instant::now()) {
                return Break::Over(Error::Refused(refusal));
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
            room = self.ends.events.reserve(), if !self.out.is_empty() => {
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
            messages = self.ends.commands.recv(), if has_room && !self.senders_gone => Action::Given(messages),
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
                self.stall.postponed(&refusal, Instant::now());
                self.tell_of_stall();
                return Ok(());
            }
            // The request itself is wrong: so is each of its messages.
            Err(Error::Refused(refusal)) => vec![Err(refusal); self.options.batches.messages_max],
            Err(Error::TooLarge { bytes, limit }) => vec![Err(too_long(bytes, limit)); 1],
            Err(error) => return Err(error),
        };
        self.stall.answered(&outcomes, Instant::now());
        self.tell_of_stall();
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

    fn tell_of_stall(&mut self) {
        self.out.extend(self.stall.news(Instant::now()).map(Event::Stalled));
    }

    fn take_page(&mut self, fill: Fill, answer: Result<HistoryPage, Error>) -> Result<(), Error> {
        let now_ms = self.now_ms();
        match answer {
            Ok(page) => {
                let filled = self.inbox.filled(fill, page, now_ms, &mut self.out);
                filled.map_err(|behind| Error::Protocol(behind.to_string()))?;
            }
            Err(Error::Refused(refusal)) if hides(&refusal) => self.inbox.invisible(fill, now_ms, &mut self.out),
            Err(Error::Refused(refusal)) if is_answered_later(&refusal) => {
                self.inbox.unanswered(fill, now_ms, &mut self.out);
            }
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
        if let Ok(room) = self.ends.events.try_reserve() {
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
        Error::Refused(refusal) => is_answered_later(refusal),
        Error::Unreachable { .. } | Error::Closed { .. } | Error::Timeout { .. } => true,
        Error::Protocol(_) | Error::TooLarge { .. } | Error::Tls { .. } | Error::SpeaksTls => false,
    }
}

fn page_of(fill: Fill) -> HistoryQuery {
    HistoryQuery { conversation: fill.conversation, from: fill.from, to: fill.to, limit: 0, newest_first: false }
}

fn too_long(bytes: usize, limit: usize) -> Refusal {
    Refusal {
        number: Code::TooLong.number(),
        message: format!("a frame of {bytes} bytes exceeds the server's {limit}"),
        retry_after: Duration::ZERO,
    }
}

/// Whether a refused read of history says that there is nothing for this user to see.
fn hides(refusal: &Refusal) -> bool {
    matches!(refusal.code(), Some(Code::NoSuchConversation | Code::NotMember))
}

/// Whether the same request may be answered later. A failure of the server's own is no statement about what is there.
fn is_answered_later(refusal: &Refusal) -> bool {
    refusal.is_of_the_moment() || refusal.code() == Some(Code::Internal)
}
