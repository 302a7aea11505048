//! The sending half: frames leave when they are due, acks are matched and checked.
//!
//! What always holds: a connection's frames leave in the order they were due; after a refusal nothing leaves on that
//! connection until everything on its way is answered, then a new epoch begins. A refused message is counted, not
//! repeated.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use gateway::client::Refusal;
use gateway::wire::frame::{FLAG_PUSH, Header};
use gateway::wire::operation::Operation;
use gateway::wire::proto;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::arrivals::Arrivals;
use super::plan::{Pair, Party, Texts, Window};
use super::stamp::{NUMBERS, Stamp};
use crate::bench::accounts::client_name;
use crate::bench::latency::Latency;
use crate::bench::poll::{Poller, monotonic_ns};
use crate::bench::wire::{Link, SendAck, decode, error_of};
use crate::bench::zipf::Zipf;

/// The skew of conversations: the busiest of 1,000 gets one message in nine.
const ZIPF_EXPONENT: f64 = 0.9;
/// Longest wait for one connection to stand, and for all to be greeted.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const GREET_TIMEOUT: Duration = Duration::from_secs(60);
/// After the end: without an answer for so long, what is unanswered stays so.
const PATIENCE: Duration = Duration::from_secs(15);
/// Frames are not looked for more often than this: a wake-up a frame would cost more than the frame.
const TICK_NS: u64 = 100_000;
/// Longest turn.
const TURN: Duration = Duration::from_millis(20);
/// Bytes waiting for the socket; more wait as arrivals.
const OUTBOX_BYTES_MAX: usize = 512 << 10;

/// How a run sends.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Messages in a frame.
    pub batch: usize,
    /// Messages a second over all connections; `None`: as fast as answers come.
    pub rate: Option<f64>,
    /// Frames of one connection on their way.
    pub window_frames: usize,
}

/// What the half counted.
#[derive(Default)]
pub struct Counts {
    /// Written.
    pub sent: u64,
    /// Durable.
    pub acked: u64,
    /// Of them: acknowledged inside the window.
    pub acked_in_window: u64,
    /// Refused, and why the first was.
    pub refused: u64,
    /// Of the first refusal.
    pub first_refusal: Option<String>,
    /// Never answered.
    pub unanswered: u64,
    /// Acks whose seq_ids do not rise.
    pub order_violations: u64,
    /// Receipts pushed to senders.
    pub receipt_frames: u64,
}

struct Flight {
    request_id: u32,
    due_ns: u64,
    conversations: Vec<u32>,
}

struct Mouth {
    link: Link,
    arrivals: Arrivals,
    zipf: Zipf,
    /// Conversations of this sender; what the Zipf draws from.
    conversations: Vec<u32>,
    flights: VecDeque<Flight>,
    spare: Vec<Vec<u32>>,
    epoch: u32,
    refused: bool,
    last_request: u32,
    welcome: Option<proto::HelloReply>,
    watching_writes: bool,
}

/// All sending connections.
pub struct Senders {
    poller: Poller,
    ready: Vec<usize>,
    mouths: Vec<Mouth>,
    pairs: Vec<Pair>,
    texts: Texts,
    load: Load,
    chance: SmallRng,
    /// Per conversation: the number of the last message written.
    numbers: Vec<u32>,
    /// Per conversation: (acknowledged, highest seq_id).
    acked: Vec<(u64, u64)>,
    ack: SendAck,
    latency: Latency,
    window: Window,
    counts: Counts,
    clock_ahead_ms: i64,
    unix_ms: u64,
    moved: Instant,
}

impl Senders {
    /// Connects everybody.
    pub fn connect(
        server: SocketAddr,
        parties: &[Party],
        pairs: Vec<Pair>,
        texts: Texts,
        load: Load,
    ) -> anyhow::Result<Senders> {
        let mut senders = Senders {
            poller: Poller::new()?,
            ready: Vec::new(),
            mouths: Vec::with_capacity(parties.len()),
            numbers: vec![0; pairs.len()],
            acked: pairs.iter().map(|pair| (0, pair.base_seq)).collect(),
            ack: SendAck::default(),
            latency: Latency::new(),
            window: Window { from_ns: 0, to_ns: 0 },
            counts: Counts::default(),
            chance: SmallRng::seed_from_u64(0x5eed),
            clock_ahead_ms: 0,
            unix_ms: 0,
            moved: Instant::now(),
            pairs,
            texts,
            load,
        };
        for (at, party) in parties.iter().enumerate() {
            let mouth = senders.mouth(server, at, party)?;
            senders.poller.add(mouth.link.stream(), at)?;
            senders.mouths.push(mouth);
        }
        senders.greet()?;
        Ok(senders)
    }

    fn mouth(&self, server: SocketAddr, at: usize, party: &Party) -> anyhow::Result<Mouth> {
        let mine = self.pairs.iter().enumerate().filter(|(_, pair)| pair.sender as usize == at);
        let conversations: Vec<u32> = mine.map(|(conversation, _)| conversation as u32).collect();
        let ranks: Vec<usize> = conversations.iter().map(|&conversation| conversation as usize + 1).collect();
        let mut link = Link::connect(server, CONNECT_TIMEOUT).context("cannot connect a sender")?;
        link.outbox.put(Operation::Hello, 1, &hello(&party.token));
        link.flush()?;
        Ok(Mouth {
            link,
            arrivals: Arrivals::closed(0, 0),
            zipf: Zipf::of_ranks(&ranks, ZIPF_EXPONENT),
            conversations,
            flights: VecDeque::new(),
            spare: Vec::new(),
            epoch: 1,
            refused: false,
            last_request: 1,
            welcome: None,
            watching_writes: false,
        })
    }

    fn greet(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + GREET_TIMEOUT;
        while self.mouths.iter().any(|mouth| mouth.welcome.is_none()) {
            if Instant::now() > deadline {
                bail!("senders were not greeted within {} s", GREET_TIMEOUT.as_secs());
            }
            self.turn(TURN)?;
        }
        let Some(welcome) = self.mouths[0].welcome.as_ref() else { bail!("there are no senders") };
        self.clock_ahead_ms = welcome.server_time_ms as i64 - unix_ms() as i64;
        let frame_bytes = self.load.batch * crate::bench::wire::outgoing_bytes_max(self.texts.bytes_max()) + 32;
        if self.load.batch > welcome.batch_messages_max as usize || frame_bytes > welcome.frame_bytes_max as usize {
            bail!(
                "frames of {} messages do not fit: the server takes {} messages and {} bytes",
                self.load.batch,
                welcome.batch_messages_max,
                welcome.frame_bytes_max
            );
        }
        Ok(())
    }

    /// Sends from now until the window closes, then waits for answers. `at_edges` is called when the window opens and
    /// when it closes.
    pub fn run(&mut self, window: Window, mut at_edges: impl FnMut()) -> anyhow::Result<()> {
        self.window = window;
        let begin_ns = monotonic_ns();
        let connections = self.mouths.len();
        for (at, mouth) in self.mouths.iter_mut().enumerate() {
            mouth.arrivals = match self.load.rate {
                Some(rate) => Arrivals::open(rate / self.load.batch as f64, at, connections, begin_ns, window.to_ns),
                None => Arrivals::closed(begin_ns, window.to_ns),
            };
        }
        let mut edges = [window.from_ns, window.to_ns].into_iter().peekable();
        self.moved = Instant::now();
        loop {
            let now_ns = monotonic_ns();
            if edges.next_if(|&edge| edge <= now_ns).is_some() {
                at_edges();
            }
            self.write_due(now_ns)?;
            let idle = self.mouths.iter().all(|mouth| mouth.flights.is_empty());
            if edges.peek().is_none() && (idle || self.moved.elapsed() > PATIENCE) {
                break;
            }
            self.turn(self.next_wait(now_ns))?;
        }
        let unanswered = self.mouths.iter().flat_map(|mouth| &mouth.flights).map(|flight| flight.conversations.len());
        self.counts.unanswered = unanswered.sum::<usize>() as u64;
        Ok(())
    }

    /// What was counted.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Due (open loop) or written (closed loop) to durable ack, of those due in the window.
    pub fn send_to_durable(&self) -> &Latency {
        &self.latency
    }

    /// Per conversation: how many were acknowledged, and the highest seq_id.
    pub fn acked(&self) -> &[(u64, u64)] {
        &self.acked
    }

    fn next_wait(&self, now_ns: u64) -> Duration {
        let room = |mouth: &&Mouth| mouth.may_write(&self.load);
        let due = self.mouths.iter().filter(room).filter_map(|mouth| mouth.arrivals.next_due(now_ns)).min();
        due.map_or(TURN, |due| Duration::from_nanos(due.saturating_sub(now_ns).max(TICK_NS)).min(TURN))
    }

    // ---- writing ----------------------------------------------------------------------------------

    fn write_due(&mut self, now_ns: u64) -> anyhow::Result<()> {
        self.unix_ms = unix_ms().saturating_add_signed(self.clock_ahead_ms);
        for at in 0..self.mouths.len() {
            let mut wrote = false;
            while self.mouths[at].may_write(&self.load) {
                let Some(due_ns) = self.mouths[at].arrivals.take(now_ns) else { break };
                self.write_frame(at, due_ns);
                wrote = true;
            }
            if wrote {
                self.flush(at)?;
            }
        }
        Ok(())
    }

    fn write_frame(&mut self, at: usize, due_ns: u64) {
        let mouth = &mut self.mouths[at];
        mouth.last_request = mouth.last_request.checked_add(1).unwrap_or(2);
        let request_id = mouth.last_request;
        let mut conversations = mouth.spare.pop().unwrap_or_default();
        let mut frame = mouth.link.outbox.begin_send(request_id, mouth.epoch);
        for _ in 0..self.load.batch {
            let conversation = mouth.conversations[mouth.zipf.draw(&mut self.chance)];
            let number = &mut self.numbers[conversation as usize];
            *number = (*number + 1) % NUMBERS;
            let id = Stamp { due_ns, number: *number }.to_id(self.unix_ms);
            frame.push(&self.pairs[conversation as usize].id, &id, self.texts.of(*number));
            conversations.push(conversation);
        }
        frame.finish();
        self.counts.sent += self.load.batch as u64;
        mouth.flights.push_back(Flight { request_id, due_ns, conversations });
    }

    fn flush(&mut self, at: usize) -> anyhow::Result<()> {
        let mouth = &mut self.mouths[at];
        let left = !mouth.link.flush().context("a sender's connection ended")?;
        if left != mouth.watching_writes {
            self.poller.watch_writing(mouth.link.stream(), at, left)?;
            mouth.watching_writes = left;
        }
        Ok(())
    }

    // ---- reading ----------------------------------------------------------------------------------

    fn turn(&mut self, wait: Duration) -> anyhow::Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.wait(wait, |token| ready.push(token))?;
        for at in ready.drain(..) {
            self.read(at)?;
        }
        self.ready = ready;
        Ok(())
    }

    fn read(&mut self, at: usize) -> anyhow::Result<()> {
        if self.mouths[at].watching_writes {
            self.flush(at)?;
        }
        self.mouths[at].link.receive().context("a sender's connection ended")?;
        let mut inbox = std::mem::take(&mut self.mouths[at].link.inbox);
        let now_ns = monotonic_ns();
        while let Some((header, body)) = inbox.next_frame()? {
            self.hear(at, &header, inbox.body(body), now_ns)?;
        }
        self.mouths[at].link.inbox = inbox;
        Ok(())
    }

    fn hear(&mut self, at: usize, header: &Header, body: &[u8], now_ns: u64) -> anyhow::Result<()> {
        let error = error_of(header, body)?;
        match (Operation::from_number(header.operation), error) {
            (Some(Operation::Send), error) => self.hear_ack(at, header.request_id, body, error, now_ns)?,
            (_, Some(error)) => bail!("a sender was refused: {}", error.message),
            (Some(Operation::Hello), None) => self.mouths[at].welcome = Some(decode(body)?),
            (Some(Operation::Closing), None) => bail!("closed: {}", decode::<proto::Error>(body)?.message),
            (Some(Operation::Receipts), None) => self.counts.receipt_frames += u64::from(header.flags & FLAG_PUSH != 0),
            _ => {}
        }
        Ok(())
    }

    fn hear_ack(
        &mut self,
        at: usize,
        request_id: u32,
        body: &[u8],
        error: Option<proto::Error>,
        now_ns: u64,
    ) -> anyhow::Result<()> {
        let mouth = &mut self.mouths[at];
        let Some(place) = mouth.flights.iter().position(|flight| flight.request_id == request_id) else {
            return Ok(());
        };
        let Some(mut flight) = mouth.flights.remove(place) else { return Ok(()) };
        self.moved = Instant::now();
        match error {
            Some(error) => self.refuse(at, flight.conversations.len() as u64, Some(error)),
            None => {
                let mut ack = std::mem::take(&mut self.ack);
                ack.read(body)?;
                self.take_ack(at, &flight, &ack, now_ns);
                self.ack = ack;
            }
        }
        flight.conversations.clear();
        let mouth = &mut self.mouths[at];
        mouth.spare.push(flight.conversations);
        if mouth.refused && mouth.flights.is_empty() {
            mouth.refused = false;
            mouth.epoch += 1;
        }
        Ok(())
    }

    fn take_ack(&mut self, at: usize, flight: &Flight, ack: &SendAck, now_ns: u64) {
        let mut stored = 0;
        for (&conversation, &seq_id) in
            flight.conversations.iter().zip(&ack.seq_ids).filter(|(_, seq_id)| **seq_id != 0)
        {
            let (count, highest) = &mut self.acked[conversation as usize];
            // Acks of two frames may overtake each other, so only "never the same twice" is certain here; order is
            // the receivers' to check.
            self.counts.order_violations += u64::from(seq_id == *highest);
            (*count, *highest) = (*count + 1, seq_id.max(*highest));
            stored += 1;
        }
        let refused = flight.conversations.len() as u64 - stored;
        if refused > 0 {
            self.refuse(at, refused, ack.refusals.first().and_then(|refusal| refusal.error.clone()));
        }
        self.counts.acked += stored;
        if self.window.holds(now_ns) {
            self.counts.acked_in_window += stored;
        }
        if self.window.holds(flight.due_ns) {
            self.latency.record_many(now_ns.saturating_sub(flight.due_ns), stored);
        }
    }

    fn refuse(&mut self, at: usize, messages: u64, error: Option<proto::Error>) {
        self.mouths[at].refused = true;
        self.counts.refused += messages;
        if self.counts.first_refusal.is_none() {
            self.counts.first_refusal = error.map(|error| Refusal::from(error).to_string());
        }
    }
}

impl Mouth {
    fn may_write(&self, load: &Load) -> bool {
        !self.refused && self.flights.len() < load.window_frames && self.link.outbox.pending_bytes() < OUTBOX_BYTES_MAX
    }
}

fn hello(token: &str) -> proto::Hello {
    proto::Hello {
        version: 1,
        token: token.into(),
        device: "bench-sender".into(),
        client: client_name(),
        attach: true,
        ..proto::Hello::default()
    }
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
