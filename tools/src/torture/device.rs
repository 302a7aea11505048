//! One person's client: sends, reads, joins and leaves, loses its connection, dies and begins anew, and writes everything down.
//!
//! What always holds: an `invoke` is noted before the message is given to the client library; no more than [`UNSETTLED_MAX`] messages wait for
//! their ack; what a client that died had under way is never heard of again by its sender, and so is unknown.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use gateway::client::{
    Backlog, Error, Event, HistoryQuery, Outgoing, Progress, SendOutcome, Session, SessionOptions, SessionSender,
};
use hashbrown::{HashMap, HashSet};
use logstore::RecordKind;
use logstore::id::{ClientMsgId, ConversationId, SeqId, UserId};
use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::act::{Act, Who, choose};
use super::history::{Change, Op, Replica};
use super::recorder::Recorder;
use super::stage::{Place, change_of};

/// Messages without an ack; who has more waits.
const UNSETTLED_MAX: usize = 64;
/// Requests under way.
const REQUESTS_MAX: usize = 8;
/// Between attempts to begin.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// Refusals below this number are decisions; the others say that nothing is known.
const DECISIONS_END: u32 = 400;

/// What everybody does now.
#[derive(Clone)]
pub enum Phase {
    /// Load.
    Load,
    /// Nothing new; what is under way is brought to its end.
    Settle,
    /// Everything was read back: a client is done when it has been given all of this.
    Finish(Arc<HashMap<(UserId, ConversationId), SeqId>>),
}

/// What a client is made of.
pub struct Device {
    /// Whose it is.
    pub user: UserId,
    /// For `hello`.
    pub token: String,
    /// Where nodes take clients.
    pub listen: Vec<SocketAddr>,
    /// Where it may write.
    pub places: Vec<Place>,
    /// Mean time between two choices.
    pub pace: Duration,
    /// Its own.
    pub chance: SmallRng,
    /// Everybody's.
    pub recorder: Arc<Recorder>,
    /// Everybody's.
    pub phase: watch::Receiver<Phase>,
    /// Its connections that it closed itself: what was on its way may travel twice.
    pub cuts: Arc<AtomicU64>,
    /// Conversations that the last change it was told of let it into.
    pub inside: HashSet<ConversationId>,
    /// Told once everything it has under way has come to its end.
    pub settled: tokio::sync::mpsc::Sender<UserId>,
}

/// A client between its birth and its death.
struct Life {
    session: Session,
    sender: SessionSender,
    replica: Replica,
    tickets: FuturesUnordered<Task<Settled>>,
    requests: FuturesUnordered<Task<()>>,
    /// Messages without an answer.
    under_way: HashMap<ClientMsgId, ConversationId>,
}

type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A message whose fate is known.
struct Settled {
    conversation: ConversationId,
    id: ClientMsgId,
    disturbances: u64,
    outcome: Result<SendOutcome, Error>,
}

/// How a life ends.
enum End {
    Died,
    Done,
}

impl Device {
    /// Lives until everything is told.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut progress = Progress::default();
        for pipeline in 1.. {
            let mut life = self.begin(&progress).await?;
            if let End::Done = self.live(&mut life, pipeline, &mut progress).await? {
                break;
            }
        }
        Ok(())
    }

    async fn begin(&mut self, progress: &Progress) -> anyhow::Result<Life> {
        loop {
            let at = self.chance.random_range(0..self.listen.len());
            let options = SessionOptions {
                device: format!("torture of {}", self.user),
                backlog: Backlog::All,
                progress: progress.clone(),
                backoff_base: TRY_AGAIN,
                backoff_max: Duration::from_millis(500),
                ..SessionOptions::default()
            };
            match Session::start(&self.listen[at].to_string(), options, Arc::new(self.token.clone())).await {
                Ok(session) => {
                    let (sender, replica) = (session.sender(), Replica(at as u16 + 1));
                    let (tickets, requests) = (FuturesUnordered::new(), FuturesUnordered::new());
                    return Ok(Life { session, sender, replica, tickets, requests, under_way: HashMap::new() });
                }
                Err(error) if error.is_connection_lost() || is_of_the_moment(&error) => sleep(TRY_AGAIN).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn live(&mut self, life: &mut Life, pipeline: u32, progress: &mut Progress) -> anyhow::Result<End> {
        let mut next_act = Instant::now() + self.wait();
        let mut phase = self.phase.borrow_and_update().clone();
        let mut told_settled = false;
        loop {
            let is_quiet = life.tickets.is_empty() && life.requests.is_empty();
            match &phase {
                Phase::Settle if is_quiet && !told_settled => {
                    told_settled = true;
                    // Whoever waits for it has given up if it is gone.
                    let _ = self.settled.send(self.user).await;
                }
                Phase::Finish(heads) if self.has_all(heads, progress) => return Ok(End::Done),
                _ => {}
            }
            tokio::select! {
                group = life.session.next_group() => self.take(group?, progress)?,
                Some(settled) = life.tickets.next(), if !life.tickets.is_empty() => self.note_settled(&mut life.under_way, settled),
                Some(()) = life.requests.next(), if !life.requests.is_empty() => {}
                changed = self.phase.changed() => {
                    changed?;
                    phase = self.phase.borrow_and_update().clone();
                }
                () = sleep_until(next_act), if matches!(phase, Phase::Load) => {
                    next_act = Instant::now() + self.wait();
                    if self.act(life, pipeline).await? {
                        self.note_gone(life);
                        return Ok(End::Died);
                    }
                }
            }
        }
    }

    /// A refusal is final only if this was the same when the message was sent: else an earlier attempt of it may still be on its way.
    fn disturbances(&self) -> u64 {
        disturbances(&self.recorder, &self.cuts)
    }

    /// Between nothing and twice the mean.
    fn wait(&mut self) -> Duration {
        self.pace.mul_f64(self.chance.random_range(0.0..2.0))
    }

    fn has_all(&self, heads: &HashMap<(UserId, ConversationId), SeqId>, progress: &Progress) -> bool {
        self.places.iter().all(|place| {
            let head = heads.get(&(self.user, place.conversation));
            head.is_none_or(|&head| progress.last(place.conversation) >= head)
        })
    }

    fn take(&mut self, events: Vec<Event>, progress: &mut Progress) -> anyhow::Result<()> {
        for event in events {
            match &event {
                Event::Record(record) => {
                    let change = change_of(record);
                    if let Some(change) = &change {
                        self.note_change(record.conversation, change);
                    }
                    let op = Op::Deliver(change);
                    self.recorder.note(self.user, record.conversation, record.client_msg_id, record.seq_id, op);
                }
                Event::Reset { .. } => anyhow::bail!("the server told user {} of another history", self.user),
                _ => {}
            }
            progress.note(&event);
        }
        Ok(())
    }

    fn note_change(&mut self, conversation: ConversationId, change: &Change) {
        if change.joined.contains(&self.user) {
            self.inside.insert(conversation);
        }
        if change.left.contains(&self.user) {
            self.inside.remove(&conversation);
        }
    }

    fn note_settled(&self, under_way: &mut HashMap<ClientMsgId, ConversationId>, settled: Settled) {
        let Settled { conversation, id, disturbances, outcome } = settled;
        under_way.remove(&id);
        match outcome {
            Ok(Ok(stored)) => self.recorder.note(self.user, conversation, id, stored.seq_id, Op::Ack),
            Ok(Err(refusal)) if refusal.number < DECISIONS_END && disturbances == self.disturbances() => {
                self.recorder.note(self.user, conversation, id, SeqId(0), Op::Refuse);
            }
            _ => {}
        }
    }

    fn note_gone(&self, life: &mut Life) {
        for (id, conversation) in life.under_way.drain() {
            self.recorder.note(self.user, conversation, id, SeqId(0), Op::Gone);
        }
    }

    /// Does what chance says; `true`: dies of it.
    async fn act(&mut self, life: &mut Life, pipeline: u32) -> anyhow::Result<bool> {
        match choose(&mut self.chance, self.user, &self.places, |at| self.inside.contains(&at)) {
            Act::Send(conversation, count) if life.tickets.len() + count <= UNSETTLED_MAX => {
                self.send(life, pipeline, conversation, count).await?;
            }
            Act::Read(conversation) if life.requests.len() < REQUESTS_MAX => {
                life.requests.push(Box::pin(self.read(life, conversation)));
            }
            Act::Change(conversation, who) if life.requests.len() < REQUESTS_MAX => {
                life.requests.push(Box::pin(self.change(life, conversation, who)));
            }
            Act::Cut => {
                // Without a connection there is nothing to cut.
                if let Ok(Ok(connection)) = timeout(Duration::ZERO, life.sender.connection()).await {
                    self.cuts.fetch_add(1, Ordering::SeqCst);
                    connection.close();
                }
            }
            Act::Die => return Ok(true),
            // Enough is under way.
            Act::Send(..) | Act::Read(_) | Act::Change(..) => {}
        }
        Ok(false)
    }

    async fn send(
        &mut self,
        life: &mut Life,
        pipeline: u32,
        conversation: ConversationId,
        count: usize,
    ) -> anyhow::Result<()> {
        let clock = life.sender.clock();
        let mut messages = Vec::with_capacity(count);
        for _ in 0..count {
            let (id, kind) = (clock.id(), RecordKind::TEXT);
            let content = Bytes::from(format!("{:016x}", self.chance.random::<u64>()));
            self.recorder.note(self.user, conversation, id, SeqId(0), Op::Invoke { pipeline });
            messages.push(Outgoing { conversation, client_msg_id: id, kind, content });
        }
        let ids: Vec<ClientMsgId> = messages.iter().map(|message| message.client_msg_id).collect();
        let disturbances = self.disturbances();
        for (ticket, id) in life.sender.send_all(messages).await?.into_iter().zip(ids) {
            let settled = async move { Settled { conversation, id, disturbances, outcome: ticket.settled().await } };
            life.under_way.insert(id, conversation);
            life.tickets.push(Box::pin(settled));
        }
        Ok(())
    }

    /// Asks once for the newest record; an answer that does not come says nothing.
    fn read(&self, life: &Life, conversation: ConversationId) -> impl Future<Output = ()> + Send + 'static {
        let (recorder, sender, user, replica) = (self.recorder.clone(), life.sender.clone(), self.user, life.replica);
        async move {
            let Ok(connection) = sender.connection().await else { return };
            let since_ns = recorder.now_ns();
            let (from, to) = (SeqId(0), SeqId(0));
            let query = HistoryQuery { conversation, from, to, limit: 1, newest_first: true };
            if let Ok(page) = connection.history(query).await {
                recorder.note(user, conversation, ClientMsgId(0), page.head, Op::Read { since_ns, replica });
            }
        }
    }

    /// Changes who is a member, under one id until an answer comes.
    fn change(&self, life: &Life, group: ConversationId, who: Who) -> impl Future<Output = ()> + Send + 'static {
        let (recorder, cuts) = (self.recorder.clone(), self.cuts.clone());
        let (sender, user) = (life.sender.clone(), self.user);
        async move {
            let id = sender.clock().id();
            recorder.note(user, group, id, SeqId(0), Op::Invoke { pipeline: 0 });
            let before = disturbances(&recorder, &cuts);
            loop {
                let Ok(connection) = sender.connection().await else { return };
                let answer = match who {
                    Who::Add(other) => connection.add_members(group, &[other], id).await,
                    Who::Remove(other) => connection.remove_members(group, &[other], id).await,
                    Who::Leave => connection.leave_group(group, id).await,
                };
                let is_decided = before == disturbances(&recorder, &cuts);
                match answer {
                    Ok(done) if done.seq_id != SeqId(0) => {
                        return recorder.note(user, group, id, done.seq_id, Op::Ack);
                    }
                    // Nothing was to be changed.
                    Ok(_) if is_decided => return recorder.note(user, group, id, SeqId(0), Op::Refuse),
                    Err(Error::Refused(refusal)) if is_decided && refusal.number < DECISIONS_END => {
                        return recorder.note(user, group, id, SeqId(0), Op::Refuse);
                    }
                    Err(error) if error.is_connection_lost() || is_of_the_moment(&error) => sleep(TRY_AGAIN).await,
                    _ => return,
                }
            }
        }
    }
}

fn disturbances(recorder: &Recorder, cuts: &AtomicU64) -> u64 {
    recorder.disturbances() + cuts.load(Ordering::SeqCst)
}

fn is_of_the_moment(error: &Error) -> bool {
    matches!(error, Error::Refused(refusal) if refusal.is_of_the_moment())
}
