//! Delivered and read cursors: noted at once, passed on live, replicated merged.
//!
//! What always holds: a noted cursor is at or below the newest record its user sees, and of several only the highest is
//! kept, so what waits is bounded by who has something to say, not by how often it is said. `read` waits a second at
//! most, `delivered` five: losing that much in a crash shows a message as unread once more, nothing else.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use logstore::Records;
use logstore::id::{ConversationId, Ordinal, SeqId, ShardId, UserId};
use parking_lot::Mutex;
use sequencer::state::Look;
use sequencer::{Capacity, Command, CursorMove, CursorMoved, Proposal, Refusal, Shard};
use smallvec::SmallVec;
use tokio::sync::{Notify, oneshot};

use super::{Core, is_small, named};
use crate::tail::Tails;
use crate::visible::Visible;
use crate::{Code, Fault};

/// How often read cursors are replicated.
const READ_EVERY: Duration = Duration::from_secs(1);

/// Delivered cursors are replicated with every fifth round.
const ROUNDS_PER_DELIVERED: u64 = 5;

/// Cursors that wait on one shard at most: some 6 MiB. Beyond it the client is told to come back.
const PENDING_MAX: usize = 1 << 16;

/// Moves in one command: below an entry's 64 KiB.
const MOVES_PER_COMMAND: usize = 1000;

/// The rules of receipts.
pub struct Receipts {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    pending: Vec<(ShardId, Mutex<Pending>)>,
    /// Told when so much waits that the next round should not.
    crowded: Arc<Notify>,
    tails: OnceLock<Arc<Tails>>,
}

/// Cursors of one shard that are not replicated yet.
#[derive(Default)]
struct Pending {
    cursors: HashMap<Reader, Noted>,
    /// How many of them have a read cursor: a round with none of them takes nothing.
    reads: usize,
}

#[derive(Clone, Copy, Default)]
struct Noted {
    delivered: SeqId,
    read: SeqId,
    /// `None`: the record is sealed, and its ordinal is read before the move is proposed.
    read_ordinal: Option<Ordinal>,
}

/// A member of a conversation.
type Reader = (ConversationId, UserId);

/// Which of its two cursors a user moves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Delivered,
    Read,
}

impl Receipts {
    /// Starts the task that replicates; it ends with the last handle.
    pub(super) fn start(core: Arc<Core>) -> Receipts {
        let pending = core.sequencer.shards().iter().map(|shard| (shard.id(), Mutex::default())).collect();
        let crowded = Arc::new(Notify::new());
        let inner = Arc::new(Inner { core, pending, crowded: Arc::clone(&crowded), tails: OnceLock::new() });
        tokio::spawn(replicate(Arc::downgrade(&inner), crowded));
        Receipts { inner }
    }

    pub(super) fn pass_on_to(&self, tails: Arc<Tails>) {
        if self.inner.tails.set(tails).is_err() {
            tracing::warn!("receipts are passed on already");
        }
    }

    /// The user has received up to these; replicated lazily (within 5 s), merged. One result per cursor that is refused: (position, why).
    pub async fn delivered(&self, user: UserId, moves: &[(ConversationId, SeqId)]) -> Vec<(u32, Fault)> {
        let mut passed: Vec<(ShardId, SmallVec<[CursorMoved; 4]>)> = Vec::new();
        let passing = |shard, cursor| match passed.iter_mut().find(|(id, _)| *id == shard) {
            Some((_, cursors)) => cursors.push(cursor),
            None => passed.push((shard, SmallVec::from_iter([cursor]))),
        };
        let refused = self.inner.note_all(user, moves, Which::Delivered, passing).await;
        if let Some(tails) = self.inner.tails.get() {
            passed.iter().for_each(|(shard, cursors)| tails.pass_on(*shard, cursors));
        }
        refused
    }

    /// The user has read up to these; replicated merged, one command a shard and second. Returns when noted, before it is durable.
    pub async fn read(&self, user: UserId, moves: &[(ConversationId, SeqId)]) -> Vec<(u32, Fault)> {
        self.inner.note_all(user, moves, Which::Read, |_, _| ()).await
    }

    /// Replicates everything pending (at disconnect, drain and shutdown).
    pub async fn flush(&self) {
        self.inner.flush().await;
    }
}

impl Inner {
    /// Notes moves; `news` hears of those that are to be passed on.
    async fn note_all(
        &self,
        user: UserId,
        moves: &[(ConversationId, SeqId)],
        which: Which,
        mut news: impl FnMut(ShardId, CursorMoved),
    ) -> Vec<(u32, Fault)> {
        let mut refused = Vec::new();
        for (position, &(conversation, seq)) in moves.iter().enumerate() {
            let noted = match self.check_count(position) {
                Ok(()) => self.note(user, conversation, seq, which).await,
                Err(fault) => Err(fault),
            };
            match noted {
                Ok(Some((shard, cursor))) => news(shard, cursor),
                Ok(None) => {}
                Err(fault) => refused.push((position as u32, fault)),
            }
        }
        refused
    }

    fn check_count(&self, position: usize) -> Result<(), Fault> {
        let most = self.core.limits.cursor_moves;
        let fits = (position as u64) < most;
        fits.then_some(()).ok_or_else(|| Fault::new(Code::TooMany, format!("at most {most} cursors a request")))
    }

    /// Notes one move. Gives the cursor if it is news that others are to hear of.
    async fn note(
        &self,
        user: UserId,
        conversation: ConversationId,
        seq: SeqId,
        which: Which,
    ) -> Result<Option<(ShardId, CursorMoved)>, Fault> {
        named(conversation)?;
        let shard = self.core.shard_of(conversation);
        let checked = shard.look(|state, held| check(state, held, user, conversation, seq, which)).await?;
        let Some(checked) = checked? else {
            return Ok(None);
        };
        let mut pending = self.pending_of(shard.id()).lock();
        let is_news = pending.note((conversation, user), checked.noted)?;
        if pending.cursors.len() > PENDING_MAX / 2 {
            self.crowded.notify_one();
        }
        if !is_news {
            return Ok(None);
        }
        let Checked { noted, read, read_ordinal, small } = checked;
        let cursor = CursorMoved { conversation, user, delivered: noted.delivered, read, read_ordinal };
        Ok(small.then_some((shard.id(), cursor)))
    }

    fn pending_of(&self, shard: ShardId) -> &Mutex<Pending> {
        let found = self.pending.iter().find(|(id, _)| *id == shard);
        &found.expect("a shard of this node: there is one for each").1
    }

    async fn flush(&self) {
        for shard in self.core.sequencer.shards() {
            let all = self.pending_of(shard.id()).lock().take_all();
            self.replicate_on(shard, all).await;
        }
    }

    async fn round(&self, delivered_too: bool) {
        for shard in self.core.sequencer.shards() {
            let due = self.pending_of(shard.id()).lock().take_due(delivered_too);
            self.replicate_on(shard, due).await;
        }
    }

    /// Proposes moves; what the shard has no room for now waits for the next round.
    async fn replicate_on(&self, shard: &Shard, cursors: Vec<(Reader, Noted)>) {
        for chunk in cursors.chunks(MOVES_PER_COMMAND) {
            let mut moves = Vec::with_capacity(chunk.len());
            for &(reader, noted) in chunk {
                moves.push(cursor_move(shard, reader, noted).await);
            }
            if let Err(capacity) = propose(shard, moves).await {
                tracing::debug!(shard = %shard.id(), ?capacity, "cursors wait for the next round");
                self.pending_of(shard.id()).lock().put_back(chunk);
            }
        }
    }
}

/// Replicates what is due, every second and when a table is half full, until the services are gone.
async fn replicate(inner: Weak<Inner>, crowded: Arc<Notify>) {
    let mut tick = tokio::time::interval(READ_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut rounds = 0u64;
    loop {
        let delivered_too = tokio::select! {
            _ = tick.tick() => {
                rounds += 1;
                rounds.is_multiple_of(ROUNDS_PER_DELIVERED)
            }
            () = crowded.notified() => true,
        };
        let Some(inner) = inner.upgrade() else { return };
        inner.round(delivered_too).await;
    }
}

async fn propose(shard: &Shard, moves: Vec<CursorMove>) -> Result<(), Capacity> {
    let (done, reply) = oneshot::channel();
    let proposal = Proposal {
        commands: vec![Command::MoveCursors(moves)],
        pipeline: Vec::new(),
        reply: Box::new(move |results| drop(done.send(results))),
    };
    shard.propose(proposal);
    let results = reply.await.map_err(|_| Capacity::NotLeading)?;
    results.into_iter().next().unwrap_or(Err(Capacity::NotLeading)).map(drop)
}

/// A move that is right.
struct Checked {
    noted: Noted,
    /// The read cursor as it is replicated, for who is told of a delivered one.
    read: SeqId,
    read_ordinal: Ordinal,
    small: bool,
}

/// Whether a member may move its cursor there; `None` if it is there already.
fn check(
    state: &Look<'_>,
    held: &Records,
    user: UserId,
    conversation: ConversationId,
    seq: SeqId,
    which: Which,
) -> Result<Option<Checked>, Fault> {
    let member = state.member(conversation, user).ok_or(Refusal::NotMember)?;
    let row = state.conversation(conversation).ok_or(Refusal::NoSuchConversation)?;
    if seq > Visible::of(member, row.last_seq).head() {
        return Err(Refusal::CursorAhead.into());
    }
    let noted = match which {
        Which::Delivered if seq <= member.delivered => return Ok(None),
        Which::Read if seq <= member.read => return Ok(None),
        Which::Delivered => Noted { delivered: seq, ..Noted::default() },
        Which::Read => {
            let read_ordinal = held.get(conversation, seq).map(|slot| slot.ordinal);
            Noted { delivered: SeqId(0), read: seq, read_ordinal }
        }
    };
    let small = is_small(state, conversation);
    Ok(Some(Checked { noted, read: member.read, read_ordinal: member.read_ordinal, small }))
}

/// The move to propose for what was noted. A read cursor whose record cannot be read now is left out: its device tells
/// it again.
async fn cursor_move(shard: &Shard, (conversation, user): Reader, noted: Noted) -> CursorMove {
    let ordinal = match noted.read_ordinal {
        Some(ordinal) => Some(ordinal),
        None if noted.read == SeqId(0) => Some(Ordinal(0)),
        None => ordinal_at(shard, conversation, noted.read).await,
    };
    let read = if ordinal.is_some() { noted.read } else { SeqId(0) };
    CursorMove { conversation, user, delivered: noted.delivered, read, read_ordinal: ordinal.unwrap_or_default() }
}

/// The ordinal of a sealed record.
async fn ordinal_at(shard: &Shard, conversation: ConversationId, seq: SeqId) -> Option<Ordinal> {
    match shard.history(conversation, seq, seq, 1, usize::MAX).await {
        // A record that was trimmed: the floor's ordinal counts, which is not below its own.
        Ok(records) => Some(records.first().map_or(Ordinal(0), |record| record.head.ordinal)),
        Err(error) => {
            tracing::warn!(%conversation, %seq, %error, "a read cursor waits: its record cannot be read");
            None
        }
    }
}

impl Pending {
    /// Merges a move; `false` if it is not above what waits already.
    fn note(&mut self, key: Reader, new: Noted) -> Result<bool, Fault> {
        if self.cursors.len() >= PENDING_MAX && !self.cursors.contains_key(&key) {
            return Err(Fault::later(Code::Busy, "too many cursors are waiting", READ_EVERY));
        }
        let kept = self.cursors.entry(key).or_default();
        let is_news = new.delivered > kept.delivered || new.read > kept.read;
        self.reads += usize::from(kept.read == SeqId(0) && new.read > SeqId(0));
        kept.delivered = kept.delivered.max(new.delivered);
        if new.read > kept.read {
            (kept.read, kept.read_ordinal) = (new.read, new.read_ordinal);
        }
        Ok(is_news)
    }

    fn put_back(&mut self, cursors: &[(Reader, Noted)]) {
        for &(reader, noted) in cursors {
            // A full table means that newer cursors came meanwhile; these are told again by their clients.
            let _ = self.note(reader, noted);
        }
    }

    /// What this round replicates: read cursors, and delivered ones when it is their turn.
    fn take_due(&mut self, delivered_too: bool) -> Vec<(Reader, Noted)> {
        if delivered_too {
            return self.take_all();
        }
        if self.reads == 0 {
            return Vec::new();
        }
        self.reads = 0;
        self.cursors.extract_if(|_, noted| noted.read > SeqId(0)).collect()
    }

    fn take_all(&mut self) -> Vec<(Reader, Noted)> {
        self.reads = 0;
        self.cursors.drain().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (ConversationId, UserId) = (ConversationId(2 << 126 | 1), UserId(1));

    fn delivered(seq: u64) -> Noted {
        Noted { delivered: SeqId(seq), ..Noted::default() }
    }

    fn read(seq: u64) -> Noted {
        Noted { read: SeqId(seq), read_ordinal: Some(Ordinal(seq)), ..Noted::default() }
    }

    #[test]
    fn only_the_highest_of_several_cursors_waits() {
        let mut pending = Pending::default();
        assert_eq!(pending.note(KEY, delivered(5)), Ok(true));
        assert_eq!(pending.note(KEY, delivered(3)), Ok(false));
        assert_eq!(pending.note(KEY, read(4)), Ok(true));
        assert_eq!(pending.note(KEY, read(2)), Ok(false));
        let due = pending.take_due(false);
        assert_eq!(due.len(), 1);
        let (_, noted) = due[0];
        assert_eq!((noted.delivered, noted.read, noted.read_ordinal), (SeqId(5), SeqId(4), Some(Ordinal(4))));
        assert!(pending.take_all().is_empty());
    }

    #[test]
    fn delivered_cursors_wait_for_their_round() {
        let mut pending = Pending::default();
        pending.note(KEY, delivered(5)).unwrap();
        assert!(pending.take_due(false).is_empty());
        assert_eq!(pending.take_due(true).len(), 1);
    }

    #[test]
    fn a_cursor_that_found_no_room_waits_again_below_newer_ones() {
        let mut pending = Pending::default();
        pending.note(KEY, read(4)).unwrap();
        let taken = pending.take_due(false);
        pending.note(KEY, read(6)).unwrap();
        pending.put_back(&taken);
        assert_eq!(pending.take_due(false)[0].1.read, SeqId(6));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut pending = Pending::default();
        for user in 1..=PENDING_MAX as u64 {
            assert_eq!(pending.note((KEY.0, UserId(user + 1)), delivered(1)), Ok(true));
        }
        assert_eq!(pending.note(KEY, delivered(1)).unwrap_err().code, Code::Busy);
        assert_eq!(pending.note((KEY.0, UserId(2)), delivered(2)), Ok(true));
    }
}
