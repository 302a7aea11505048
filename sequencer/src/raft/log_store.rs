//! openraft's log storage over the journal that all shards of a node share.
//!
//! What always holds: an entry is readable when `append` returns and durable when its callback fires; a vote,
//! a truncation and a purge are durable when awaited; nothing here blocks an async worker.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use logstore::id::{LogId, LogIndex, ShardId};
use logstore::{Completion, Entry, EntryKind, Journal, Vote};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use crate::raft::membership::{decode_membership, decode_vote, encode_membership, encode_vote};
use crate::raft::types::{
    Payload, RaftEntry, RaftLogId, RaftPayload, RaftVote, TypeConfig, index_of, log_id_of, raft_log_id_of,
};
use crate::runtime;
use crate::shard::core::ShardCore;

/// Most bytes of entries read at once: what one request to a follower carries.
const READ_BYTES_MAX: usize = 1 << 20;

/// One shard's log. A cheap handle: readers are clones.
#[derive(Clone)]
pub(crate) struct LogStore {
    journal: Journal,
    core: Arc<ShardCore>,
}

impl LogStore {
    /// The log of the core's shard.
    pub(crate) fn new(journal: Journal, core: Arc<ShardCore>) -> LogStore {
        LogStore { journal, core }
    }

    fn shard(&self) -> ShardId {
        self.core.shard()
    }

    /// Runs one journal operation and waits until it is durable.
    async fn durable(&self, start: impl FnOnce(&Journal, ShardId, Completion)) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        start(&self.journal, self.shard(), Box::new(move |result| drop(done.send(result))));
        wait.await.map_err(|_| io::Error::other("the journal has stopped"))?
    }

    /// What of `range` the log holds.
    fn clip(&self, range: impl RangeBounds<u64>) -> Range<LogIndex> {
        let log = self.journal.shard_log(self.shard());
        let Some((first, last)) = log.first.zip(log.last) else { return LogIndex(1)..LogIndex(1) };
        let (from, to) = ours(range);
        from.max(first)..to.min(last.index.next())
    }

    /// Entries from the start of `range`, at most about `bytes_max` of them, at least one.
    async fn read(&self, range: Range<LogIndex>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(entries) = self.journal.read_cached(self.shard(), range.clone(), bytes_max) {
            return Ok(entries);
        }
        let (journal, shard) = (self.journal.clone(), self.shard());
        runtime::blocking(move || journal.read(shard, range, bytes_max)).await?.map_err(io::Error::other)
    }

    /// The whole of `range`, read piece by piece as it is consumed.
    fn stream(&self, range: Range<LogIndex>) -> impl Stream<Item = io::Result<RaftEntry>> + Send + use<> {
        let walk = Walk { log: self.clone(), rest: range, read: VecDeque::new() };
        stream::unfold(walk, async |mut walk| walk.next().await.map(|item| (item, walk)))
    }
}

/// A walk over entries: what has been read, and what has not.
struct Walk {
    log: LogStore,
    rest: Range<LogIndex>,
    read: VecDeque<Entry>,
}

impl Walk {
    async fn next(&mut self) -> Option<io::Result<RaftEntry>> {
        if self.read.is_empty() && !self.rest.is_empty() {
            match self.log.read(self.rest.clone(), READ_BYTES_MAX).await {
                Ok(entries) => self.took(entries),
                Err(error) => return Some(self.fail(error)),
            }
        }
        self.read.pop_front().map(raft_entry)
    }

    fn took(&mut self, entries: Vec<Entry>) {
        self.rest.start = entries.last().map_or(self.rest.end, |last| last.id.index.next());
        self.read = entries.into();
    }

    fn fail(&mut self, error: io::Error) -> io::Result<RaftEntry> {
        self.rest.start = self.rest.end;
        Err(error)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<RaftEntry>> {
        let mut entries = std::pin::pin!(self.stream(self.clip(range)));
        let mut all = Vec::new();
        while let Some(entry) = entries.next().await {
            all.push(entry?);
        }
        Ok(all)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        let entries = self.read(self.clip(start..end), READ_BYTES_MAX).await?;
        entries.into_iter().map(raft_entry).collect()
    }

    /// The way to apply: what is in memory is handed over without waiting.
    async fn entries_stream<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<RaftEntry>> + OptionalSend {
        self.stream(self.clip(range))
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        let Some(vote) = self.journal.shard_log(self.shard()).vote else { return Ok(None) };
        let vote = decode_vote(&vote.0);
        vote.map(Some).ok_or_else(|| unreadable(self.shard(), "its vote does not decode"))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let log = self.journal.shard_log(self.shard());
        let purged = log.purged.map(raft_log_id_of);
        let last = log.last.map(raft_log_id_of);
        Ok(LogState { last_log_id: last.or(purged), last_purged_log_id: purged })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        let vote = Vote(encode_vote(vote));
        self.durable(|journal, shard, done| journal.save_vote(shard, vote, done)).await
    }

    /// Lazy: a committed id that is too old only makes a restart wait for its election to know more.
    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        self.journal.save_committed(self.shard(), committed.as_ref().map(log_id_of));
        Ok(())
    }

    /// Clamped: after a crash the saved id may be above the log that was synced.
    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        let log = self.journal.shard_log(self.shard());
        Ok(clamp(log.committed, log.last).map(raft_log_id_of))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().map(journal_entry).collect();
        self.core.appended(&entries);
        self.journal.append(self.shard(), entries, Box::new(|result| callback.io_completed(result)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> io::Result<()> {
        let last = last.as_ref().map(log_id_of);
        self.core.truncated(last.map_or(LogIndex(0), |id| id.index));
        self.durable(|journal, shard, done| journal.truncate_after(shard, last, done)).await
    }

    async fn purge(&mut self, upto: RaftLogId) -> io::Result<()> {
        let upto = log_id_of(&upto);
        self.durable(|journal, shard, done| journal.purge(shard, upto, done)).await
    }
}

/// The lower of the two, by index.
fn clamp(committed: Option<LogId>, last: Option<LogId>) -> Option<LogId> {
    let (committed, last) = (committed?, last?);
    Some(if committed.index <= last.index { committed } else { last })
}

/// A range of openraft's indexes in ours: from inclusive, to exclusive.
fn ours(range: impl RangeBounds<u64>) -> (LogIndex, LogIndex) {
    let from = match range.start_bound() {
        Bound::Included(i) => index_of(*i),
        Bound::Excluded(i) => index_of(*i).next(),
        Bound::Unbounded => LogIndex(1),
    };
    let to = match range.end_bound() {
        Bound::Included(i) => index_of(*i).next(),
        Bound::Excluded(i) => index_of(*i),
        Bound::Unbounded => LogIndex(u64::MAX),
    };
    (from, to)
}

fn journal_entry(entry: RaftEntry) -> Entry {
    let id = log_id_of(&entry.log_id);
    match entry.payload {
        RaftPayload::Blank => Entry { id, kind: EntryKind::Blank, payload: bytes::Bytes::new() },
        RaftPayload::Normal(Payload(payload)) => Entry { id, kind: EntryKind::Normal, payload },
        RaftPayload::Membership(m) => Entry { id, kind: EntryKind::Membership, payload: encode_membership(&m) },
    }
}

fn raft_entry(entry: Entry) -> io::Result<RaftEntry> {
    let payload = match entry.kind {
        EntryKind::Blank => RaftPayload::Blank,
        EntryKind::Normal => RaftPayload::Normal(Payload(entry.payload)),
        EntryKind::Membership => RaftPayload::Membership(
            decode_membership(&entry.payload)
                .ok_or_else(|| io::Error::other(format!("entry {}: not a membership", entry.id.index)))?,
        ),
    };
    Ok(RaftEntry { log_id: raft_log_id_of(entry.id), payload })
}

fn unreadable(shard: ShardId, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("shard {shard}: {what}"))
}
