//! The loop that plays a file: every user's connection on one thread.
//!
//! A turn: release what is due, connect whoever is to be connected, write what may leave, wait, read what came.
//! What always holds: a turn that wakes up drains everything that is there before it writes, so that what belongs
//! together leaves together; the loop ends by itself when nothing has moved for [`PATIENCE`].

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::chat::Chat;
use super::figures::Tally;
use super::player::{Chore, Desk, Group, Player, Standing};
use super::schedule::{Pace, Schedule};
use super::seat::Seat;
use crate::bench::accounts::Account;
use crate::bench::ids::MessageIds;
use crate::bench::poll::Poller;
use crate::bench::wire::{Id, Link, Malformed, SendAck};
use crate::exit::Failure;

/// Without any progress for so long the replay gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest wait for one connection to stand: the loop is held up meanwhile.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections begun in one turn.
const CONNECTS_A_TURN: usize = 64;
/// Longest turn without an event.
const TURN: Duration = Duration::from_millis(50);
/// A connection silent for so long says something (servers close silent ones after 90 s by default).
const QUIET: Duration = Duration::from_secs(20);

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everybody connects.
    Connecting,
    /// Groups are created.
    Creating,
    /// Messages are sent and received.
    Playing,
    /// Everything is read back.
    Reading,
    /// All is compared.
    Done,
}

/// Why playing stopped.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The server refuses for good.
    #[error("{what}: the server answered {number}: {message}")]
    Refused {
        /// What was asked.
        what: String,
        /// The code.
        number: u32,
        /// Its words.
        message: String,
    },
    /// Bytes that are not the protocol.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Nothing moved.
    #[error("no progress for {} s while {phase:?}: {outstanding} requests and messages unanswered, {deliveries} deliveries missing{last}", PATIENCE.as_secs())]
    Stalled {
        /// Then.
        phase: Phase,
        /// Then.
        outstanding: usize,
        /// Then.
        deliveries: u64,
        /// The last error of a connection.
        last: String,
    },
}

impl StageError {
    /// With the exit code it deserves.
    pub fn into_failure(self) -> Failure {
        match self {
            StageError::Refused { .. } => Failure::Refused(self.into()),
            StageError::Stalled { .. } => Failure::Unreachable(self.into()),
            _ => Failure::Failed(self.into()),
        }
    }
}

/// Hears of progress.
pub trait Audience {
    /// A phase begins.
    fn phase(&mut self, phase: Phase, stage: &Stage);
    /// So many of the phase's steps are done.
    fn progress(&mut self, phase: Phase, done: u64, of: u64);
}

/// Everything a replay is made of.
pub struct Stage {
    pub(super) chat: Chat,
    pub(super) players: Vec<Player>,
    pub(super) groups: Vec<Group>,
    pub(super) conversations: HashMap<Id, u32>,
    pub(super) seats: Vec<Seat>,
    /// Per conversation: its first seat; they lie in the order of its members.
    pub(super) first_seat: Vec<u32>,
    pub(super) schedule: Schedule,
    pub(super) pace: Option<Pace>,
    /// Per message: the id of its first attempt.
    pub(super) ids: Vec<Option<Id>>,
    /// Per message: when it was sent (paced: when it was due and released), in ns since `begun`; 0: not yet.
    pub(super) sent_ns: Vec<u64>,
    pub(super) acked: Vec<bool>,
    pub(super) tally: Tally,
    pub(super) fresh: MessageIds,
    pub(super) dirty: Vec<u32>,
    pub(super) ack: SendAck,
    pub(super) last_error: String,
    pub(super) now: Instant,
    pub(super) begun: Instant,
    pub(super) moved: Instant,
    accounts: Vec<Account>,
    phase: Phase,
    play_begun: Instant,
    server: SocketAddr,
    run: String,
    poller: Poller,
    ready: Vec<usize>,
    swept: Instant,
}

impl Stage {
    /// A replay that has not begun. `run` names its groups; `rate` paces it.
    pub fn new(
        chat: Chat,
        accounts: Vec<Account>,
        server: SocketAddr,
        run: String,
        rate: Option<f64>,
    ) -> Result<Stage, StageError> {
        let now = Instant::now();
        let (seats, first_seat) = seats(&chat);
        let mut fresh = MessageIds::new();
        let requests = chat.conversations.iter().map(|_| Group { request: fresh.id(), ..Group::default() });
        Ok(Stage {
            groups: requests.collect(),
            players: accounts.iter().map(|account| Player::new(account.clone(), now)).collect(),
            conversations: HashMap::with_capacity(chat.conversations.len()),
            schedule: Schedule::new(&chat),
            pace: rate.map(Pace::new),
            ids: vec![None; chat.messages.len()],
            sent_ns: vec![0; chat.messages.len()],
            acked: vec![false; chat.messages.len()],
            tally: Tally::new(&chat),
            dirty: Vec::new(),
            ack: SendAck::default(),
            last_error: String::new(),
            now,
            begun: now,
            moved: now,
            phase: Phase::Connecting,
            play_begun: now,
            poller: Poller::new()?,
            ready: Vec::new(),
            swept: now,
            chat,
            accounts,
            seats,
            first_seat,
            fresh,
            server,
            run,
        })
    }

    /// Plays to the end.
    pub fn play(mut self, audience: &mut dyn Audience) -> Result<Tally, StageError> {
        audience.phase(self.phase, &self);
        while self.phase != Phase::Done {
            self.turn()?;
            if self.now - self.moved > PATIENCE {
                return Err(self.stalled());
            }
            let (done, of) = self.progress();
            audience.progress(self.phase, done, of);
            if done == of {
                self.next_phase();
                audience.phase(self.phase, &self);
            }
        }
        Ok(self.tally)
    }

    /// The file.
    pub fn chat(&self) -> &Chat {
        &self.chat
    }

    /// What the conversations have become.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    // ---- phases -----------------------------------------------------------------------------------

    /// (done, of) of this phase.
    fn progress(&self) -> (u64, u64) {
        match self.phase {
            Phase::Connecting => (self.tally.attached, self.players.len() as u64),
            Phase::Creating => (self.conversations.len() as u64, self.groups.len() as u64),
            Phase::Playing => {
                let of = self.tally.messages + self.tally.deliveries_expected;
                (self.tally.acked + self.tally.delivered, of)
            }
            Phase::Reading => (self.tally.conversations_read, self.groups.len() as u64),
            Phase::Done => (1, 1),
        }
    }

    fn next_phase(&mut self) {
        self.phase = match self.phase {
            Phase::Connecting => {
                self.ask_first_members(Chore::Create);
                Phase::Creating
            }
            Phase::Creating => {
                self.begin_playing();
                Phase::Playing
            }
            Phase::Playing => {
                self.tally.played = self.now - self.play_begun;
                self.ask_readers();
                Phase::Reading
            }
            Phase::Reading | Phase::Done => Phase::Done,
        };
    }

    fn ask_first_members(&mut self, chore: fn(u32) -> Chore) {
        for conversation in 0..self.groups.len() as u32 {
            let first = self.chat.conversations[conversation as usize].members[0];
            self.ask(first, chore(conversation));
        }
    }

    /// The last member reads: the one who heard most of it from others.
    fn ask_readers(&mut self) {
        for conversation in 0..self.groups.len() as u32 {
            let members = &self.chat.conversations[conversation as usize].members;
            let reader = members[members.len() - 1];
            self.ask(reader, Chore::ReadBack(conversation, 1));
        }
    }

    fn begin_playing(&mut self) {
        self.now = Instant::now();
        self.play_begun = self.now;
        for conversation in 0..self.groups.len() as u32 {
            let run = self.schedule.begin(&self.chat, conversation);
            self.release(conversation, run);
        }
    }

    /// These messages of a conversation may go (when they are due).
    pub(super) fn release(&mut self, conversation: u32, run: std::ops::Range<u32>) {
        for index in run {
            let message = self.chat.conversations[conversation as usize].messages[index as usize];
            match &mut self.pace {
                Some(pace) => {
                    self.sent_ns[message as usize] = (self.now - self.begun).as_nanos() as u64;
                    pace.hold(message);
                }
                None => self.enqueue(message),
            }
        }
    }

    fn release_due(&mut self) {
        let (play_begun, now) = (self.play_begun, self.now);
        let offset_ns = (play_begun - self.begun).as_nanos() as u64;
        while let Some(pace) = &mut self.pace {
            let Some(message) = pace.take_due(now - play_begun) else { return };
            // A message is sent when it is due, or when its sender could write it, whichever is later. Being
            // late in taking it up counts as waiting.
            let due_ns = offset_ns + pace.due(message).as_nanos() as u64;
            let sent = &mut self.sent_ns[message as usize];
            *sent = due_ns.max(*sent);
            self.enqueue(message);
        }
    }

    fn enqueue(&mut self, message: u32) {
        let sender = self.chat.messages[message as usize].sender;
        self.players[sender as usize].release(message);
        self.touch(sender);
    }

    pub(super) fn ask(&mut self, user: u32, chore: Chore) {
        self.players[user as usize].ask(chore);
        self.touch(user);
    }

    pub(super) fn touch(&mut self, user: u32) {
        let player = &mut self.players[user as usize];
        if !player.dirty {
            player.dirty = true;
            self.dirty.push(user);
        }
    }

    // ---- turns ------------------------------------------------------------------------------------

    fn turn(&mut self) -> Result<(), StageError> {
        self.now = Instant::now();
        self.release_due();
        self.sweep()?;
        self.write_dirty();
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.wait(self.next_wait(), |token| ready.push(token))?;
        self.now = Instant::now();
        for token in ready.drain(..) {
            self.read(token as u32)?;
        }
        self.ready = ready;
        Ok(())
    }

    fn next_wait(&self) -> Duration {
        let due = self.pace.as_ref().and_then(Pace::next_due);
        due.map_or(TURN, |due| (self.play_begun + due).saturating_duration_since(Instant::now()).min(TURN))
    }

    /// Now and then: connects who is to be connected, keeps quiet connections alive, ends holds.
    fn sweep(&mut self) -> Result<(), StageError> {
        if self.now - self.swept < Duration::from_millis(10) {
            return Ok(());
        }
        self.swept = self.now;
        let mut connects = 0;
        for user in 0..self.players.len() as u32 {
            let player = &mut self.players[user as usize];
            match player.standing {
                Standing::Down(at) if at <= self.now && connects < CONNECTS_A_TURN => {
                    connects += 1;
                    self.connect(user)?;
                }
                Standing::Ready if player.held_until().is_some_and(|until| until <= self.now) => self.touch(user),
                Standing::Ready if self.now - player.quiet_since > QUIET => {
                    player.ping();
                    self.touch(user);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn connect(&mut self, user: u32) -> Result<(), StageError> {
        let player = &mut self.players[user as usize];
        match Link::connect(self.server, CONNECT_TIMEOUT) {
            Ok(link) => {
                self.poller.add(link.stream(), user as usize)?;
                player.greet(link);
                self.touch(user);
            }
            Err(error) => self.lose(user, &error),
        }
        Ok(())
    }

    /// A connection ended: its user comes back later.
    pub(super) fn lose(&mut self, user: u32, why: &dyn std::fmt::Display) {
        self.last_error = why.to_string();
        let player = &mut self.players[user as usize];
        let had_one = player.link.is_some();
        player.disconnected(self.now);
        if had_one {
            player.news.clear();
            self.tally.connections_lost += 1;
            self.forget_pushes(user);
        }
    }

    fn write_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for user in dirty.drain(..) {
            self.players[user as usize].dirty = false;
            if let Err(error) = self.write(user) {
                self.lose(user, &error);
            }
        }
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    fn write(&mut self, user: u32) -> std::io::Result<()> {
        let seats = &self.seats;
        let mut desk = Desk {
            chat: &self.chat,
            groups: &self.groups,
            ids: &mut self.ids,
            sent_ns: &mut self.sent_ns,
            lacks: &|seat| (seats[seat as usize].conversation, seats[seat as usize].next),
            accounts: &self.accounts,
            fresh: &mut self.fresh,
            run: &self.run,
            now_ns: (self.now - self.begun).as_nanos() as u64,
        };
        let player = &mut self.players[user as usize];
        player.pump(self.now, &mut desk);
        let Some(link) = &mut player.link else { return Ok(()) };
        if link.outbox.pending_bytes() == 0 {
            return Ok(());
        }
        player.quiet_since = self.now;
        let left = !link.flush()?;
        if left != player.watching_writes {
            self.poller.watch_writing(link.stream(), user as usize, left)?;
            player.watching_writes = left;
        }
        Ok(())
    }

    /// Reads what is there, frame by frame.
    fn read(&mut self, user: u32) -> Result<(), StageError> {
        let Some(link) = &mut self.players[user as usize].link else { return Ok(()) };
        let ended = link.receive().err();
        let mut inbox = std::mem::take(&mut link.inbox);
        while let Some((header, at)) = inbox.next_frame()? {
            self.hear(user, &header, inbox.body(at))?;
        }
        let player = &mut self.players[user as usize];
        if let Some(link) = &mut player.link {
            link.inbox = inbox;
        }
        if player.watching_writes || player.has_more() {
            self.touch(user);
        }
        if let Some(error) = ended {
            self.lose(user, &error);
        }
        Ok(())
    }

    fn stalled(&self) -> StageError {
        let last =
            if self.last_error.is_empty() { String::new() } else { format!(" (last error: {})", self.last_error) };
        StageError::Stalled {
            phase: self.phase,
            outstanding: self.players.iter().map(Player::outstanding).sum(),
            deliveries: self.tally.deliveries_expected - self.tally.delivered,
            last,
        }
    }
}

fn seats(chat: &Chat) -> (Vec<Seat>, Vec<u32>) {
    let (mut seats, mut first_seat) = (Vec::new(), Vec::with_capacity(chat.conversations.len()));
    for (conversation, planned) in chat.conversations.iter().enumerate() {
        first_seat.push(seats.len() as u32);
        seats.extend(planned.members.iter().map(|&user| Seat::new(user, conversation as u32)));
    }
    (seats, first_seat)
}
