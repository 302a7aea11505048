//! Retention: what conversations need not keep any more is trimmed, by a job that proposes it.
//!
//! What always holds: what is trimmed follows from the log's time and numbers, read when a trim is proposed, never when it is applied; of
//! one shard the job removes no more than a twentieth of its messages a day, whatever the policies say, unless an operator forces it; it
//! walks the directories of segments a few rows at a time, so memory does not grow with the shard. What is not sealed yet is left alone.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use logstore::SegmentSet;
use logstore::id::{ConversationId, Ordinal, SeqId, ShardId, TimeMs};
use logstore::segment::DirectoryRow;
use sequencer::state::Floor;
use sequencer::{Command, Outcome, Retention, Shard};
use tokio::sync::mpsc;

use super::Core;
use super::account::unexpected;
use super::removal::{Removals, last_removed};
use crate::Fault;

/// The part of a shard's messages that may go in a day.
const DAY_PART: u64 = 20;
/// Rows of directories looked at under one lock.
const ROWS: usize = 256;
/// A round of the job stops here and goes on with the next one.
const ROUND: Duration = Duration::from_secs(600);

/// What conversations keep that say nothing themselves, and how often that is seen to.
#[derive(Clone, Copy, Debug)]
pub struct RetentionPolicy {
    /// Both 0: everything.
    pub default: Retention,
    /// Between two rounds.
    pub every: Duration,
}

/// What a round has removed of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// The shard.
    pub shard: ShardId,
    /// Trims.
    pub trims: u64,
    /// Countable messages removed.
    pub messages: u64,
    /// Whether more was to go than may go in a day.
    pub held_back: bool,
    /// Whether everything was looked at.
    pub complete: bool,
}

/// Sees to retention from time to time until the services are gone.
pub(super) async fn run(removals: Weak<Core>, policy: RetentionPolicy) {
    let mut tick = tokio::time::interval(policy.every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(core) = removals.upgrade() else { return };
        for swept in sweep(&core, policy.default, false, Instant::now() + ROUND).await {
            match swept {
                Ok(swept) => told(&swept),
                Err(fault) => tracing::warn!(%fault, "retention goes on later"),
            }
        }
    }
}

fn told(swept: &Swept) {
    metrics::counter!("skein_retention_trimmed_total").increment(swept.messages);
    let Swept { shard, messages, held_back, .. } = *swept;
    if held_back {
        tracing::warn!(
            shard = shard.0,
            messages,
            "retention has removed what it may of this shard today, and more is to go"
        );
    }
}

impl Removals {
    /// Trims what need not be kept, here and now, until everything was looked at or time is over. Forced: however much it is.
    pub async fn sweep(&self, force: bool, until: Instant) -> Result<Vec<Swept>, Fault> {
        sweep(self.core(), self.default_retention(), force, until).await.into_iter().collect()
    }
}

async fn sweep(core: &Arc<Core>, default: Retention, force: bool, until: Instant) -> Vec<Result<Swept, Fault>> {
    let mut swept = Vec::new();
    for shard in core.sequencer.shards() {
        let sweep = Sweep { shard, default, force, until };
        swept.push(sweep.run().await);
    }
    swept
}

/// A round over one shard.
struct Sweep<'a> {
    shard: &'a Arc<Shard>,
    default: Retention,
    force: bool,
    until: Instant,
}

/// What a shard says of a conversation that may have something to trim.
struct Candidate {
    row: DirectoryRow,
    last: SeqId,
    floor: Floor,
    retention: Retention,
}

impl Sweep<'_> {
    async fn run(&self) -> Result<Swept, Fault> {
        let mut swept = Swept { shard: self.shard.id(), trims: 0, messages: 0, held_back: false, complete: true };
        // A shard that nobody writes to has no time of its own: this moves it on.
        self.shard.execute(Command::Probe).await?;
        let (set, now) = self.shard.read(|state, records| (records.sealed().clone(), state.time()));
        let mut rows = rows(set);
        while let Some(rows) = rows.recv().await {
            for candidate in self.candidates(rows?) {
                if swept.held_back || Instant::now() >= self.until {
                    swept.complete = swept.held_back;
                    return Ok(swept);
                }
                self.trim(&candidate, now, &mut swept).await?;
            }
        }
        Ok(swept)
    }

    fn candidates(&self, rows: Vec<DirectoryRow>) -> Vec<Candidate> {
        self.shard.read(|state, _| {
            let look = |row: DirectoryRow| {
                let conversation = state.conversation(row.conversation).filter(|row| !row.is_hidden())?;
                let own = conversation.upkeep.as_ref().and_then(|upkeep| upkeep.retention);
                let (retention, floor) = (own.unwrap_or(self.default), conversation.floor());
                let keeps_all = retention == Retention::default();
                let is_left = row.last >= floor.before;
                (!keeps_all && is_left).then_some(Candidate { row, last: conversation.last_seq, floor, retention })
            };
            rows.into_iter().filter_map(look).collect()
        })
    }

    async fn trim(&self, candidate: &Candidate, now: TimeMs, swept: &mut Swept) -> Result<(), Fault> {
        let conversation = candidate.row.conversation;
        let floor =
            self.shard.read(|state, _| state.conversation(conversation).map_or(candidate.floor, |row| row.floor()));
        let begin = floor.before.max(SeqId(1));
        let wanted = self.before(candidate, begin, now).await?;
        if wanted <= begin {
            return Ok(());
        }
        let (mut before, mut last) = (wanted, last_removed(self.shard, conversation, wanted).await?);
        let allowed = self.allowed();
        if last.0.0.saturating_sub(floor.ordinal.0) > allowed {
            swept.held_back = true;
            if allowed == 0 {
                return Ok(());
            }
            // So many places hold at most so many messages.
            before = SeqId(begin.0 + allowed).min(wanted);
            last = last_removed(self.shard, conversation, before).await?;
        }
        swept.messages += self.propose(conversation, before, last, floor).await?;
        swept.trims += 1;
        Ok(())
    }

    async fn propose(
        &self,
        conversation: ConversationId,
        before: SeqId,
        (ordinal, time): (Ordinal, TimeMs),
        floor: Floor,
    ) -> Result<u64, Fault> {
        match self.shard.execute(Command::Trim { conversation, before, ordinal, time }).await? {
            Outcome::Done => Ok(ordinal.0.saturating_sub(floor.ordinal.0)),
            Outcome::Refused(refusal) => Err(refusal.into()),
            other => Err(unexpected(&other)),
        }
    }

    /// Messages that may still go today: a twentieth of what there was when the day began, less what has gone since.
    fn allowed(&self) -> u64 {
        if self.force {
            return u64::MAX;
        }
        self.shard.read(|state, _| {
            let today = state.trimmed().today(state.time());
            let at_dawn = (state.stored() + today).saturating_sub(state.trimmed().ever);
            (at_dawn / DAY_PART).saturating_sub(today)
        })
    }

    /// The first record of this segment's that has to stay, or the one after its last.
    async fn before(&self, candidate: &Candidate, begin: SeqId, now: TimeMs) -> Result<SeqId, Fault> {
        let Candidate { row, last, retention, .. } = candidate;
        let end = row.last.next();
        let by_count = match retention.records {
            0 => end,
            records => SeqId((last.0 + 1).saturating_sub(records)).min(end),
        };
        let by_age = match retention.age_ms {
            0 => end,
            age_ms => self.first_since(row, begin, TimeMs(now.0.saturating_sub(age_ms))).await?,
        };
        Ok(by_count.min(by_age))
    }

    /// The first record of the row at or after a time. Log times of a conversation never fall.
    async fn first_since(&self, row: &DirectoryRow, begin: SeqId, since: TimeMs) -> Result<SeqId, Fault> {
        if row.last_time < since {
            return Ok(row.last.next());
        }
        let (mut low, mut high) = (begin.max(row.first), row.last);
        if row.first_time >= since || low > high {
            return Ok(begin.min(low));
        }
        while low < high {
            let middle = SeqId(low.0 + (high.0 - low.0) / 2);
            let records = self.shard.history(row.conversation, middle, middle, 1, usize::MAX).await?;
            match records.first() {
                Some(record) if record.head.time >= since => high = middle,
                _ => low = middle.next(),
            }
        }
        Ok(low)
    }
}

/// The directory rows of all segments, oldest first, some at a time; read off the async workers, no further ahead than is asked for.
fn rows(set: Arc<SegmentSet>) -> mpsc::Receiver<Result<Vec<DirectoryRow>, Fault>> {
    let (send, receive) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        // Whoever asked may have gone, or an error was told: nothing more is wanted then.
        let _ = send_rows(&set, &send);
    });
    receive
}

/// `None`: it ended early.
fn send_rows(set: &SegmentSet, to: &mpsc::Sender<Result<Vec<DirectoryRow>, Fault>>) -> Option<()> {
    for segment in set.segments() {
        let mut directory = segment.directory();
        loop {
            let rows: Result<Vec<_>, _> = directory.by_ref().take(ROWS).collect();
            match rows {
                Ok(rows) if rows.is_empty() => break,
                Ok(rows) => to.blocking_send(Ok(rows)).ok()?,
                Err(error) => return to.blocking_send(Err(sequencer::Error::from(error).into())).ok(),
            }
        }
    }
    Some(())
}
