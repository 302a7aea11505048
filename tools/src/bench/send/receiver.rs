//! The receiving half, a process of its own: connections that receive, check, and report receipts.
//!
//! It talks with the sending half in JSON lines: the plan and orders come on stdin; "ready" and at last the report
//! go to stdout. Times are the machine's monotonic clock, which both processes share.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use gateway::wire::frame::{FLAG_PUSH, Header};
use gateway::wire::operation::Operation;
use gateway::wire::proto;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::check::{Checker, Findings};
use super::plan::{Order, ReceiverPlan, Texts, Window};
use super::stamp::Stamp;
use crate::bench::accounts::client_name;
use crate::bench::latency::{Latency, Percentiles};
use crate::bench::poll::{Poller, monotonic_ns, raise_open_files};
use crate::bench::wire::{Id, Link, RecordView, decode, each_record, error_of};
use crate::replay::resolve;

/// Longest wait for one connection to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for hello and attach of all.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(60);
/// After the end: without anything new for so long, what is missing is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// Cursors in one request.
const MOVES_MAX: usize = 1000;
/// Longest turn.
const TURN: Duration = Duration::from_millis(20);

/// What this half says in the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReceiverReport {
    /// Of the checker.
    pub findings: Findings,
    /// Received inside the window.
    pub received_in_window: u64,
    /// From the moment a message was due until it was received here; of those due in the window.
    pub send_to_receive: Percentiles,
    /// Receipts that were refused.
    pub receipts_refused: u64,
    /// Deliver frames received.
    pub frames: u64,
}

/// What this half says on stdout.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Said {
    /// Every connection is attached.
    Ready,
    /// The end.
    Report(ReceiverReport),
}

/// Runs the half: everything it needs comes on stdin.
pub fn run() -> anyhow::Result<()> {
    let mut lines = std::io::stdin().lock().lines();
    let plan: ReceiverPlan = serde_json::from_str(&lines.next().context("no plan on stdin")??)?;
    let (orders_in, orders) = channel();
    // Ends with stdin; an unreadable order ends it early, which is seen as the sender's end.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str::<Order>(&line) else { return };
            if orders_in.send(order).is_err() {
                return;
            }
        }
    });
    drop(lines);
    raise_open_files();
    let mut half = Half::connect(plan)?;
    half.attach()?;
    say(&Said::Ready)?;
    let report = half.receive(&orders)?;
    say(&Said::Report(report))
}

fn say(said: &Said) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(said)?);
    Ok(())
}

struct Ear {
    link: Link,
    caught_up: bool,
    watching_writes: bool,
    /// Conversations received from since the last receipts.
    dirty: Vec<u32>,
    last_request: u32,
}

struct Half {
    plan: ReceiverPlan,
    poller: Poller,
    ready: Vec<usize>,
    ears: Vec<Ear>,
    conversations: HashMap<Id, u32>,
    /// Per conversation: the seq_id last receipted.
    receipted: Vec<u64>,
    checker: Checker,
    texts: Texts,
    window: Option<Window>,
    latency: Latency,
    in_window: u64,
    receipts_refused: u64,
    frames: u64,
    now_ns: u64,
}

impl Half {
    fn connect(plan: ReceiverPlan) -> anyhow::Result<Half> {
        let addr = resolve(&plan.server).map_err(|_| anyhow::anyhow!("cannot resolve {}", plan.server))?;
        let poller = Poller::new()?;
        let mut ears = Vec::with_capacity(plan.receivers.len());
        for (at, party) in plan.receivers.iter().enumerate() {
            let mut link = Link::connect(addr, CONNECT_TIMEOUT).context("cannot connect a receiver")?;
            link.outbox.put(Operation::Hello, 1, &hello(&party.token));
            link.flush()?;
            poller.add(link.stream(), at)?;
            ears.push(Ear { link, caught_up: false, watching_writes: false, dirty: Vec::new(), last_request: 1 });
        }
        Ok(Half {
            poller,
            ready: Vec::new(),
            ears,
            conversations: plan.pairs.iter().enumerate().map(|(at, pair)| (pair.id, at as u32)).collect(),
            receipted: plan.pairs.iter().map(|pair| pair.base_seq).collect(),
            checker: Checker::new(&plan.pairs),
            texts: Texts::open(plan.texts.as_deref())?,
            window: None,
            latency: Latency::new(),
            in_window: 0,
            receipts_refused: 0,
            frames: 0,
            now_ns: monotonic_ns(),
            plan,
        })
    }

    fn attach(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + ATTACH_TIMEOUT;
        while !self.ears.iter().all(|ear| ear.caught_up) {
            if Instant::now() > deadline {
                bail!("receivers were not caught up within {} s", ATTACH_TIMEOUT.as_secs());
            }
            self.turn()?;
        }
        Ok(())
    }

    fn receive(&mut self, orders: &Receiver<Order>) -> anyhow::Result<ReceiverReport> {
        let interval = Duration::from_millis(self.plan.receipts_ms.max(1));
        let (mut receipted, mut moved, mut received) = (Instant::now(), Instant::now(), 0);
        let mut finish: Option<Vec<(u64, u64)>> = None;
        loop {
            self.turn()?;
            match orders.try_recv() {
                Ok(Order::Begin(window)) => self.window = Some(window),
                Ok(Order::Finish(acked)) => (finish, moved) = (Some(acked), Instant::now()),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) if finish.is_some() => {}
                Err(TryRecvError::Disconnected) => bail!("the sending half is gone"),
            }
            if self.plan.receipts_ms > 0 && receipted.elapsed() >= interval {
                receipted = Instant::now();
                self.send_receipts()?;
            }
            if self.checker.findings.received != received {
                (received, moved) = (self.checker.findings.received, Instant::now());
            }
            if let Some(acked) = &finish
                && (self.checker.has_all(acked) || moved.elapsed() > PATIENCE)
            {
                self.checker.finish(acked);
                return Ok(self.report());
            }
        }
    }

    fn report(&self) -> ReceiverReport {
        ReceiverReport {
            findings: self.checker.findings,
            received_in_window: self.in_window,
            send_to_receive: self.latency.percentiles(),
            receipts_refused: self.receipts_refused,
            frames: self.frames,
        }
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.wait(TURN, |token| ready.push(token))?;
        for token in ready.drain(..) {
            self.read(token)?;
        }
        self.ready = ready;
        Ok(())
    }

    fn read(&mut self, at: usize) -> anyhow::Result<()> {
        let ear = &mut self.ears[at];
        if ear.watching_writes && ear.link.flush()? {
            ear.watching_writes = false;
            self.poller.watch_writing(ear.link.stream(), at, false)?;
        }
        ear.link.inbox.expect_much();
        ear.link.receive().context("a receiver's connection ended")?;
        let mut inbox = std::mem::take(&mut ear.link.inbox);
        self.now_ns = monotonic_ns();
        while let Some((header, body)) = inbox.next_frame()? {
            self.hear(at, &header, inbox.body(body))?;
        }
        self.ears[at].link.inbox = inbox;
        Ok(())
    }

    fn hear(&mut self, at: usize, header: &Header, body: &[u8]) -> anyhow::Result<()> {
        let operation = Operation::from_number(header.operation);
        if let Some(error) = error_of(header, body)? {
            if !matches!(operation, Some(Operation::Delivered | Operation::Read)) {
                bail!("a receiver was refused: {}", error.message);
            }
            self.receipts_refused += 1;
        }
        match operation {
            Some(Operation::Deliver) if header.flags & FLAG_PUSH != 0 => {
                self.frames += 1;
                each_record(body, |record| {
                    self.take(at, &record);
                    Ok::<(), crate::bench::wire::Malformed>(())
                })?;
            }
            Some(Operation::CaughtUp) => self.ears[at].caught_up |= decode::<proto::CaughtUp>(body)?.all,
            Some(Operation::Closing) => bail!("closed: {}", decode::<proto::Error>(body)?.message),
            _ => {}
        }
        Ok(())
    }

    fn take(&mut self, at: usize, record: &RecordView<'_>) {
        let Some(&conversation) = self.conversations.get(&record.conversation) else { return };
        let conversation_at = conversation as usize;
        if record.seq_id <= self.plan.pairs[conversation_at].base_seq {
            return;
        }
        let stamp = Stamp::of_id(&record.client_msg_id);
        let intact = record.content == self.texts.of(stamp.number);
        let before = self.checker.seq_id(conversation_at);
        if !self.checker.take(conversation_at, record.seq_id, stamp.number, intact) {
            return;
        }
        if before == self.receipted[conversation_at] {
            self.ears[at].dirty.push(conversation);
        }
        if let Some(window) = &self.window {
            self.in_window += u64::from(window.holds(self.now_ns));
            if window.holds(stamp.due_ns) {
                self.latency.record(self.now_ns.saturating_sub(stamp.due_ns));
            }
        }
    }

    /// Every conversation received from since the last time is delivered, and read, up to where it is.
    fn send_receipts(&mut self) -> anyhow::Result<()> {
        for at in 0..self.ears.len() {
            let mut dirty = std::mem::take(&mut self.ears[at].dirty);
            for some in dirty.chunks(MOVES_MAX) {
                let moves = some.iter().map(|&conversation| self.receipt(conversation as usize)).collect();
                let cursors = proto::Cursors { moves };
                let ear = &mut self.ears[at];
                for operation in [Operation::Delivered, Operation::Read] {
                    ear.last_request += 1;
                    ear.link.outbox.put(operation, ear.last_request, &cursors);
                }
            }
            dirty.clear();
            let ear = &mut self.ears[at];
            ear.dirty = dirty;
            if !ear.link.flush()? && !ear.watching_writes {
                ear.watching_writes = true;
                self.poller.watch_writing(ear.link.stream(), at, true)?;
            }
        }
        Ok(())
    }

    fn receipt(&mut self, conversation: usize) -> proto::CursorMove {
        let seq_id = self.checker.seq_id(conversation);
        self.receipted[conversation] = seq_id;
        proto::CursorMove { conversation: Bytes::copy_from_slice(&self.plan.pairs[conversation].id), seq_id }
    }
}

fn hello(token: &str) -> proto::Hello {
    proto::Hello {
        version: 1,
        token: token.into(),
        device: "bench-receiver".into(),
        client: client_name(),
        attach: true,
        ..proto::Hello::default()
    }
}
