//! One user of the file at its connection: what is to be sent, what is on its way, what is to be asked.
//!
//! What always holds: the messages of a conversation leave in order, also after a refusal or a new connection;
//! a message that was ever written keeps its id; nothing is forgotten before it is answered.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gateway::wire::operation::Operation;
use gateway::wire::proto;

use super::chat::Chat;
use crate::bench::accounts::{Account, client_name};
use crate::bench::ids::MessageIds;
use crate::bench::wire::{Id, Link, outgoing_bytes_max};

/// Send frames of one connection on their way.
const FLIGHTS_MAX: usize = 16;
/// Questions of one connection on their way.
const CHORES_MAX: usize = 16;
/// Bytes waiting for the socket; more wait as messages.
const OUTBOX_BYTES_MAX: usize = 256 << 10;
/// Records in a page of history.
const PAGE_RECORDS: u32 = 500;
/// First and longest wait before another attempt.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Something to ask, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// Create the group of this conversation.
    Create(u32),
    /// Read what this seat has missed.
    Fill(u32),
    /// Read this conversation from this seq_id on, to compare it.
    ReadBack(u32, u64),
}

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is none; one is to be made then.
    Down(Instant),
    /// It has said hello.
    Greeting,
    /// It may send.
    Ready,
}

/// What the server said it accepts.
#[derive(Clone, Copy, Debug)]
pub struct Accepts {
    frame_bytes: usize,
    batch_messages: usize,
}

impl Accepts {
    /// From the answer to hello.
    pub fn from_hello(reply: &proto::HelloReply) -> Accepts {
        let frame_bytes = (reply.frame_bytes_max as usize).clamp(1 << 10, 1 << 20);
        Accepts { frame_bytes, batch_messages: (reply.batch_messages_max as usize).clamp(1, 4096) }
    }
}

/// What pumping needs from the whole replay.
pub struct Desk<'a> {
    /// The file.
    pub chat: &'a Chat,
    /// Per conversation.
    pub groups: &'a [Group],
    /// Per message: chosen at its first attempt.
    pub ids: &'a mut [Option<Id>],
    /// Per message: when it was sent; kept from before, if set.
    pub sent_ns: &'a mut [u64],
    /// Per seat: (conversation, first index it lacks).
    pub lacks: &'a dyn Fn(u32) -> (u32, u32),
    /// Numbers of the accounts.
    pub accounts: &'a [Account],
    /// Makes ids.
    pub fresh: &'a mut MessageIds,
    /// Names this run's groups.
    pub run: &'a str,
    /// Since the start.
    pub now_ns: u64,
}

/// The group a conversation has become.
#[derive(Clone, Copy, Debug, Default)]
pub struct Group {
    /// Its id; zero until it is there.
    pub id: Id,
    /// The seq_id of its creation record: message i has this + 1 + i.
    pub base: u64,
    /// Makes a repeated creation the same.
    pub request: Id,
}

/// Send frame on its way.
struct Flight {
    request_id: u32,
    messages: Vec<u32>,
}

/// A user.
pub struct Player {
    /// Who.
    pub account: Account,
    /// The connection.
    pub link: Option<Link>,
    /// Where it is.
    pub standing: Standing,
    /// Whether room to write is being watched.
    pub watching_writes: bool,
    /// Whether there is something to pump.
    pub dirty: bool,
    /// Whether attach is complete on this connection.
    pub caught_up: bool,
    /// Since when it has asked or sent nothing.
    pub quiet_since: Instant,
    /// Seats told at attach to have news, until it is complete.
    pub news: Vec<u32>,
    queue: VecDeque<u32>,
    flights: VecDeque<Flight>,
    refused: Vec<u32>,
    chores: VecDeque<Chore>,
    doing: Vec<(u32, Chore)>,
    spare: Vec<Vec<u32>>,
    epoch: u32,
    last_request: u32,
    not_before: Option<Instant>,
    back_off: Duration,
    accepts: Accepts,
    history: Bytes,
    steps: Vec<(u32, u64)>,
    was_caught_up: bool,
}

impl Player {
    /// A user who has not connected.
    pub fn new(account: Account, now: Instant) -> Player {
        Player {
            account,
            link: None,
            standing: Standing::Down(now),
            watching_writes: false,
            dirty: false,
            caught_up: false,
            quiet_since: now,
            news: Vec::new(),
            queue: VecDeque::new(),
            flights: VecDeque::new(),
            refused: Vec::new(),
            chores: VecDeque::new(),
            doing: Vec::new(),
            spare: Vec::new(),
            epoch: 1,
            last_request: 0,
            not_before: None,
            back_off: BACK_OFF.0,
            accepts: Accepts { frame_bytes: 64 << 10, batch_messages: 256 },
            history: Bytes::new(),
            steps: Vec::new(),
            was_caught_up: false,
        }
    }

    // ---- the connection ---------------------------------------------------------------------------

    /// A connection is there: says hello.
    pub fn greet(&mut self, mut link: Link) {
        let request_id = self.next_request();
        let steps = self.steps.iter().map(|&(slot, value)| proto::CursorStep { slot, value }).collect();
        let hello = proto::Hello {
            version: 1,
            capabilities: Vec::new(),
            token: self.account.token.clone(),
            device: "replay".into(),
            cursor: (!self.history.is_empty()).then(|| proto::Cursor { history: self.history.clone(), steps }),
            client: client_name(),
            attach: true,
            // At first only the news that there is older chat; later what was missed.
            bodies: self.was_caught_up,
        };
        link.outbox.put(Operation::Hello, request_id, &hello);
        self.link = Some(link);
        self.standing = Standing::Greeting;
    }

    /// Hello is answered: sending may begin.
    pub fn welcomed(&mut self, reply: &proto::HelloReply) {
        if self.history != reply.history {
            self.history = reply.history.clone();
            self.steps.clear();
        }
        self.accepts = Accepts::from_hello(reply);
        self.standing = Standing::Ready;
        self.back_off = BACK_OFF.0;
    }

    /// The connection is gone: everything unanswered is to be sent and asked again, in order.
    pub fn disconnected(&mut self, now: Instant) {
        self.link = None;
        self.watching_writes = false;
        self.caught_up = false;
        self.standing = Standing::Down(now + self.back_off);
        self.back_off = (self.back_off * 2).min(BACK_OFF.1);
        for flight in std::mem::take(&mut self.flights) {
            self.refused.extend(flight.messages);
        }
        self.resume();
        self.not_before = None;
        let asked = std::mem::take(&mut self.doing);
        for (_, chore) in asked.into_iter().rev() {
            self.chores.push_front(chore);
        }
        // What was missed is found anew at attach.
        self.chores.retain(|chore| !matches!(chore, Chore::Fill(_)));
    }

    /// Everything of this slot has been told up to `value`.
    pub fn told(&mut self, (slot, value): (u32, u64)) {
        match self.steps.iter_mut().find(|(known, _)| *known == slot) {
            Some((_, told)) => *told = value.max(*told),
            None => self.steps.push((slot, value)),
        }
    }

    /// Attach is complete.
    pub fn set_caught_up(&mut self) {
        self.caught_up = true;
        self.was_caught_up = true;
    }

    /// The server has another history: what it told before means nothing.
    pub fn forget_cursor(&mut self) {
        self.steps.clear();
    }

    // ---- sending ----------------------------------------------------------------------------------

    /// A message may go.
    pub fn release(&mut self, message: u32) {
        self.queue.push_back(message);
    }

    /// Something is to be asked.
    pub fn ask(&mut self, chore: Chore) {
        self.chores.push_back(chore);
    }

    /// Whether anything waits to leave.
    pub fn has_more(&self) -> bool {
        !(self.queue.is_empty() && self.chores.is_empty())
    }

    /// Until when a refusal of the moment holds this one back.
    pub fn held_until(&self) -> Option<Instant> {
        self.not_before
    }

    /// Messages and questions not answered yet.
    pub fn outstanding(&self) -> usize {
        let flying: usize = self.flights.iter().map(|flight| flight.messages.len()).sum();
        self.queue.len() + flying + self.refused.len() + self.chores.len() + self.doing.len()
    }

    /// Writes frames of what may leave into the outbox.
    pub fn pump(&mut self, now: Instant, desk: &mut Desk<'_>) {
        if self.standing != Standing::Ready || self.not_before.is_some_and(|until| now < until) {
            return;
        }
        self.not_before = None;
        while !self.chores.is_empty() && self.doing.len() < CHORES_MAX {
            self.pump_chore(desk);
        }
        while self.may_fly() {
            self.pump_frame(desk);
        }
    }

    /// After a refusal of the moment nothing new leaves until everything on its way is answered: then it is all
    /// sent again, in order, in a new epoch.
    fn may_fly(&self) -> bool {
        let room = self.link.as_ref().is_some_and(|link| link.outbox.pending_bytes() < OUTBOX_BYTES_MAX);
        room && self.refused.is_empty() && !self.queue.is_empty() && self.flights.len() < FLIGHTS_MAX
    }

    fn pump_frame(&mut self, desk: &mut Desk<'_>) {
        let request_id = self.next_request();
        let mut messages = self.spare.pop().unwrap_or_default();
        let Some(link) = &mut self.link else { return };
        let mut frame = link.outbox.begin_send(request_id, self.epoch);
        desk.fresh.look_at_clock();
        while let Some(&message) = self.queue.front() {
            let text = desk.chat.text(message);
            let full = frame.bytes() + outgoing_bytes_max(text.len()) > self.accepts.frame_bytes;
            if messages.len() == self.accepts.batch_messages || (full && !messages.is_empty()) {
                break;
            }
            let at = message as usize;
            let id = *desk.ids[at].get_or_insert_with(|| desk.fresh.id());
            frame.push(&desk.groups[desk.chat.messages[at].conversation as usize].id, &id, text.as_bytes());
            if desk.sent_ns[at] == 0 {
                desk.sent_ns[at] = desk.now_ns;
            }
            messages.push(message);
            self.queue.pop_front();
        }
        frame.finish();
        self.flights.push_back(Flight { request_id, messages });
    }

    fn pump_chore(&mut self, desk: &mut Desk<'_>) {
        let Some(chore) = self.chores.pop_front() else { return };
        let request_id = self.next_request();
        let Some(link) = &mut self.link else { return };
        match chore {
            Chore::Create(conversation) => {
                link.outbox.put(Operation::CreateGroup, request_id, &create_group(desk, conversation));
            }
            Chore::Fill(seat) => {
                let (conversation, lacks) = (desk.lacks)(seat);
                let group = &desk.groups[conversation as usize];
                let from = group.base + 1 + u64::from(lacks);
                link.outbox.put(Operation::History, request_id, &history(group, from));
            }
            Chore::ReadBack(conversation, from) => {
                link.outbox.put(Operation::History, request_id, &history(&desk.groups[conversation as usize], from));
            }
        }
        self.doing.push((request_id, chore));
    }

    /// Says something so that the server knows the connection lives.
    pub fn ping(&mut self) {
        let request_id = self.next_request();
        if let Some(link) = &mut self.link {
            link.outbox.put(Operation::Ping, request_id, &proto::Ping { echo: 0 });
        }
    }

    // ---- answers ----------------------------------------------------------------------------------

    /// The messages of an answered send frame.
    pub fn landed(&mut self, request_id: u32) -> Option<Vec<u32>> {
        let at = self.flights.iter().position(|flight| flight.request_id == request_id)?;
        self.flights.remove(at).map(|flight| flight.messages)
    }

    /// Gives a landed frame's memory back.
    pub fn recycle(&mut self, mut messages: Vec<u32>) {
        messages.clear();
        self.spare.push(messages);
    }

    /// A message was refused for now.
    pub fn refuse(&mut self, message: u32, retry_at: Instant) {
        self.refused.push(message);
        self.hold_until(retry_at);
    }

    /// Once everything on its way is answered, what was refused takes its place at the front again.
    pub fn resume_if_landed(&mut self) {
        if !self.refused.is_empty() && self.flights.is_empty() {
            self.resume();
        }
    }

    fn resume(&mut self) {
        // File order is the order within every conversation, and what waits in the queue came later.
        self.refused.sort_unstable();
        for message in self.refused.drain(..).rev() {
            self.queue.push_front(message);
        }
        self.epoch += 1;
    }

    /// The question this answers.
    pub fn done(&mut self, request_id: u32) -> Option<Chore> {
        let at = self.doing.iter().position(|(id, _)| *id == request_id)?;
        Some(self.doing.swap_remove(at).1)
    }

    /// Asks again later.
    pub fn ask_again(&mut self, chore: Chore, retry_at: Instant) {
        self.chores.push_front(chore);
        self.hold_until(retry_at);
    }

    /// Nothing leaves before then.
    pub fn pause_until(&mut self, at: Instant) {
        self.hold_until(at);
    }

    fn hold_until(&mut self, at: Instant) {
        self.not_before = Some(self.not_before.map_or(at, |until| until.max(at)));
    }

    fn next_request(&mut self) -> u32 {
        // 0 is the id of pushes.
        self.last_request = self.last_request.checked_add(1).unwrap_or(1);
        self.last_request
    }
}

fn create_group(desk: &Desk<'_>, conversation: u32) -> proto::CreateGroup {
    let planned = &desk.chat.conversations[conversation as usize];
    proto::CreateGroup {
        name: format!("{} {}", desk.run, planned.id),
        members: planned.members[1..].iter().map(|&user| desk.accounts[user as usize].user).collect(),
        request_id: Bytes::copy_from_slice(&desk.groups[conversation as usize].request),
    }
}

fn history(group: &Group, from_seq: u64) -> proto::History {
    let conversation = Bytes::copy_from_slice(&group.id);
    proto::History { conversation, from_seq, to_seq: 0, limit: PAGE_RECORDS, newest_first: false }
}
