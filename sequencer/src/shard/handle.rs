//! One shard on this node, as the parts above see it.

use std::sync::Arc;
use std::time::Duration;

use logstore::id::{ConnectionId, ConversationId, LogIndex, SeqId, ShardId};
use logstore::{Entry, Journal, Records};
use tokio::sync::oneshot;

use crate::raft::group::Group;
use crate::runtime;
use crate::shard::core::ShardCore;
use crate::shard::proposer::Proposer;
use crate::shard::sealing::MergeWhen;
use crate::shard::tail::TailReader;
use crate::shard::{Capacity, Proposal, ProposalResult, Record, ShardStatus, history};
use crate::state::{Brought, Look, ShardState};
use crate::{Command, Error, Outcome, Result};

/// Longer than any failover; a probe that takes longer has failed.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// One shard on this node.
pub struct Shard {
    pub(super) core: Arc<ShardCore>,
    pub(super) proposer: Arc<Proposer>,
    /// None if the node reads around damage.
    pub(super) group: Option<Group>,
    pub(super) journal: Journal,
    pub(super) merge_when: MergeWhen,
    /// Whether sealed entries stay in the journal as long as there is a place for them.
    pub(super) keeps_sealed: bool,
    /// What of it cannot be read, in words.
    pub(super) damage: Vec<String>,
}

impl Shard {
    /// Its id.
    pub fn id(&self) -> ShardId {
        self.core.shard()
    }

    /// Hands commands to the proposer. Never waits and never fails silently: a refusal comes through `reply` too.
    pub fn propose(&self, proposal: Proposal) {
        self.proposer.propose(proposal);
    }

    /// Proposes one command and waits for its outcome.
    pub async fn execute(&self, command: Command) -> std::result::Result<Outcome, Capacity> {
        let (done, wait) = oneshot::channel();
        let reply = Box::new(move |results: ProposalResult| drop(done.send(results)));
        self.propose(Proposal { commands: vec![command], pipeline: Vec::new(), reply });
        let results = wait.await.unwrap_or_default();
        results.into_iter().next().unwrap_or(Err(Capacity::NotLeading))
    }

    /// A connection is closed: what the proposer knows of its pipelines is dropped.
    pub fn forget_connection(&self, connection: ConnectionId) {
        self.proposer.forget(connection);
    }

    /// Looks at what is always in memory of applied state; keep it short, apply waits meanwhile. Rows are for [`Shard::look`].
    pub fn read<T>(&self, look: impl FnOnce(&ShardState, &Records) -> T) -> T {
        let (state, records) = &*self.core.read();
        look(state, records)
    }

    /// Looks at applied state at one index, rows that are not in memory included. `look` is asked again, and what it gave before is
    /// dropped, while they are read off the async workers: what it does beside looking it does only if
    /// [`Look::is_complete`]. Keep it short, apply waits meanwhile.
    pub async fn look<T>(&self, look: impl FnMut(&Look<'_>, &Records) -> T) -> Result<T> {
        self.core.look(look).await
    }

    /// The same as far as memory goes; `None` if rows that are not there were asked for.
    pub fn look_in_memory<T>(&self, look: impl FnOnce(&Look<'_>, &Records) -> T) -> Option<T> {
        self.core.try_look(&mut Brought::default(), look).ok()
    }

    /// Waits until `look` gives `Some`, asked anew after every applied entry; `None` after `limit`, or when the shard stops or its
    /// sealed rows cannot be read.
    pub async fn wait_for<T>(&self, limit: Duration, mut look: impl FnMut(&Look<'_>) -> Option<T> + Send) -> Option<T> {
        runtime::within(limit, self.seen(&mut look)).await.flatten()
    }

    async fn seen<T>(&self, look: &mut (impl FnMut(&Look<'_>) -> Option<T> + Send)) -> Option<T> {
        loop {
            let mut applied = std::pin::pin!(self.core.applied_signal().notified());
            applied.as_mut().enable();
            match self.look(|state, _| look(state)).await {
                Ok(None) => {}
                Ok(Some(found)) => return Some(found),
                Err(error) => {
                    tracing::warn!(%error, "a wait for applied state ends");
                    return None;
                }
            }
            if self.core.is_stopped() {
                return None;
            }
            applied.await;
        }
    }

    /// The last entry applied.
    pub fn applied(&self) -> LogIndex {
        self.core.applied()
    }

    /// Follows applied entries above `after` (everything kept, if it is older than that, begins with a `Reset`).
    pub fn tail(&self, after: LogIndex) -> TailReader {
        self.core.tail().reader(after)
    }

    /// Records `from..=to` of a conversation, ascending, at most `records_max` of them and about `bytes_max` bytes of
    /// bodies (at least one record if there is any). No authorisation: callers clip to what the reader may see. Records that rot
    /// has reached are never given: [`Error::Unreadable`] names file, offset, shard and conversation.
    pub async fn history(
        &self,
        conversation: ConversationId,
        from: SeqId,
        to: SeqId,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>> {
        let wanted = history::Wanted { conversation, from, to, records_max, bytes_max };
        let read = history::read(&self.core, &self.journal, wanted).await;
        read.map_err(|error| error.of_read(self.id(), conversation))
    }

    /// Committed entries above `after` up to `upto`, from the first on, about `bytes_max` of them, at least one; nothing if the journal has
    /// let go of the first, or it is not applied here.
    pub async fn entries(&self, after: LogIndex, upto: LogIndex, bytes_max: usize) -> Result<Vec<Entry>> {
        let (journal, shard, range) = (self.journal.clone(), self.id(), after.next()..upto.min(self.applied()).next());
        let read = runtime::blocking(move || journal.read(shard, range, bytes_max)).await;
        match read.map_err(|_| Error::Raft { shard, what: "the node is stopping".to_string() })? {
            Err(logstore::Error::NoSuchEntry { .. }) => Ok(Vec::new()),
            read => Ok(read?),
        }
    }

    /// Seals what there is and waits until its segment is durable; states how many seals there are. What keeps the segment
    /// from being made is told as soon as it is known to stay.
    pub async fn seal(&self) -> Result<u64> {
        let sealing = self.core.sealing();
        let generation = self.read(|state, _| state.generation());
        let failures = sealing.failures();
        let refused = |why| Error::Refused { shard: self.id(), why };
        self.execute(Command::Seal).await.map_err(refused)?;
        loop {
            let mut published = std::pin::pin!(sealing.published_signal().notified());
            published.as_mut().enable();
            let upto = sealing.published();
            if upto >= generation {
                return Ok(upto);
            }
            if let Some(what) = sealing.failed_after(failures) {
                return Err(Error::CannotSeal { shard: self.id(), generation: upto + 1, what });
            }
            if self.core.is_stopped() {
                return Err(refused(Capacity::NotLeading));
            }
            published.await;
        }
    }

    /// Commits a probe and says how long that took. A shard that would refuse messages for what it holds unsealed, or has lost,
    /// fails it.
    pub async fn probe(&self) -> Result<Duration> {
        if self.core.unsealed_bytes() > self.proposer.unsealed_bytes_max() {
            return Err(Error::Refused { shard: self.id(), why: Capacity::NoSpace });
        }
        if self.journal.has_lost(self.id()) {
            return Err(Error::Refused { shard: self.id(), why: Capacity::Damaged });
        }
        let began = runtime::Instant::now_here();
        match runtime::within(PROBE_LIMIT, self.execute(Command::Probe)).await {
            Some(Ok(_)) => Ok(runtime::Instant::now_here() - began),
            Some(Err(why)) => Err(Error::Refused { shard: self.id(), why }),
            None => {
                Err(Error::Timeout { shard: self.id(), what: "commit a probe", ms: PROBE_LIMIT.as_millis() as u64 })
            }
        }
    }

    /// What is wrong with it, in words for people; nothing, as a rule.
    pub fn troubles(&self) -> Vec<String> {
        let lost = self.journal.lost(self.id()).into_iter().map(|error| error.to_string());
        self.damage.iter().cloned().chain(lost).chain(self.core.sealing().troubles()).collect()
    }

    /// Whether it leads here.
    pub(super) fn leads(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.leading_term().is_some())
    }

    /// Whether any of it cannot be read, so that what is not found may have been there.
    pub fn is_damaged(&self) -> bool {
        !self.damage.is_empty()
    }

    /// Figures for people, cheap enough to be polled; without a digest.
    pub fn status(&self) -> ShardStatus {
        self.figures()
    }

    /// Figures for people, and the digest of everything. Walks all rows while apply waits, some 0.1 us a row in memory and 1 us a
    /// sealed one, and reads files: not for async workers.
    pub fn status_with_digest(&self) -> Result<ShardStatus> {
        let (applied, digest) = {
            let state = &self.core.read().0;
            (state.applied(), state.digest_over_sealed())
        };
        let digest = digest.map_err(|source| Error::SealedState { shard: self.id(), source })?;
        Ok(ShardStatus { applied, digest: Some(digest), ..self.figures() })
    }

    fn figures(&self) -> ShardStatus {
        let group = self.group.as_ref().map(Group::status);
        self.read(|state, unsealed| ShardStatus {
            shard: self.id(),
            leading: group.as_ref().is_some_and(|group| group.leading),
            term: group.as_ref().map_or(0, |group| group.term),
            last_index: group.map_or_else(|| self.journal.last_index(self.id()), |group| group.last_index),
            applied: state.applied(),
            unsealed_records: unsealed.len(),
            conversations: state.conversation_count(),
            buckets: state.buckets_owned(),
            digest: None,
            troubles: self.troubles(),
        })
    }
}
