//! What the journal's handles and its writer share, under one lock.
//!
//! What always holds: a shard's state is what has been *accepted* (queued included), so that an entry is
//! readable the moment `append` returns; what is *durable* of it is what has a place in the index. The lock is
//! held for moves in memory only, never across a read, a write or a completion.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex};

use crate::Error;
use crate::id::{LogId, LogIndex, ShardId};
use crate::io::Disk;

use super::bell::Bell;
use super::copy_forward::CopyForward;
use super::frame::frame_len;
use super::index::{EntryIndex, Location};
use super::position::Position;
use super::queue::Queue;
use super::reserve::Files;
use super::tail_cache::TailCache;
use super::{Entry, JournalOptions, ShardLog, Vote};

/// Shared by all handles, the writer and the jobs that prepare files.
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub options: JournalOptions,
    /// What all files of this journal say they belong to.
    pub journal: u64,
    pub state: Mutex<State>,
    /// Wakes the writer.
    pub work: Bell,
    /// Wakes who waits for a file to be ready, or for a preparing job to end.
    pub files_changed: Condvar,
    pub on_fatal: Box<dyn Fn(&Error) + Send + Sync>,
}

/// What the lock protects.
pub(crate) struct State {
    pub shards: HashMap<ShardId, ShardState>,
    pub queue: Queue,
    pub cache: TailCache,
    pub files: Files,
    pub copies: CopyForward,
    /// Shards whose committed id is not written yet.
    pub uncommitted: Vec<ShardId>,
    /// Another file is to be begun.
    pub next_file: bool,
    /// Why nothing is accepted any more.
    pub stopped: Option<String>,
    /// The writer is to finish what is queued and end.
    pub closing: bool,
}

/// One shard.
#[derive(Default)]
pub(crate) struct ShardState {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    /// Whether the shard is in [`State::uncommitted`].
    pub committed_unwritten: bool,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    pub index: EntryIndex,
    /// Entries that cannot be read any more, and where they were.
    pub lost: BTreeMap<LogIndex, Position>,
    /// How many truncations it has seen since start.
    pub round: u32,
}

impl State {
    /// What recovery found of shards and files; blocks hold so many bytes of frames at most.
    pub fn new(shards: HashMap<ShardId, ShardState>, files: Files, block_bytes_max: usize) -> State {
        State {
            shards,
            queue: Queue::new(block_bytes_max),
            cache: TailCache::default(),
            files,
            copies: CopyForward::default(),
            uncommitted: Vec::new(),
            next_file: false,
            stopped: None,
            closing: false,
        }
    }

    /// Takes entries into the index; gives the shard's round. Nothing has changed after an error.
    pub fn accept(&mut self, shard: ShardId, entries: &[Entry], frame_bytes_max: usize) -> io::Result<u32> {
        self.running()?;
        let state = self.shards.entry(shard).or_default();
        state.check_append(shard, entries, frame_bytes_max)?;
        for entry in entries {
            let location = Location::pending(entry.id.term, entry.payload.len() as u32, state.round);
            state.index.push(entry.id.index, location);
            state.last = Some(entry.id);
        }
        Ok(state.round)
    }

    /// Takes out of the cache what is beyond its bound and synced: to be dropped where no lock is held.
    #[must_use]
    pub fn evict(&mut self, bytes_max: usize) -> Vec<Entry> {
        let State { cache, shards, .. } = self;
        let mut evicted = Vec::new();
        cache.evict(bytes_max, |shard, index| State::is_synced(shards, shard, index), &mut evicted);
        evicted
    }

    /// Forgets entries after `last`.
    pub fn truncate_after(&mut self, shard: ShardId, last: Option<LogId>) {
        let state = self.shards.entry(shard).or_default();
        let from = last.map_or(LogIndex(0), |last| last.index.next());
        state.round += 1;
        if state.last.is_some_and(|held| held.index >= from) {
            state.last = last.or(state.purged);
        }
        state.index.truncate_from(from);
        state.lost.split_off(&from);
        self.cache.truncate_from(shard, from);
    }

    /// Forgets entries up to and including `upto`, which may lie beyond the last one.
    pub fn purge_upto(&mut self, shard: ShardId, upto: LogId) {
        let state = self.shards.entry(shard).or_default();
        if state.purged.is_none_or(|purged| purged.index < upto.index) {
            state.purged = Some(upto);
        }
        if state.last.is_none_or(|last| last.index < upto.index) {
            state.last = Some(upto);
        }
        state.index.purge_upto(upto.index);
        state.lost = state.lost.split_off(&upto.index.next());
        self.cache.purge_upto(shard, upto.index);
    }

    /// Takes files before `active` out of use, as far as no entry in them is live and can be read.
    pub fn retire(&mut self, active: u32) {
        // What ends the life of entries must be on the disk before they are not.
        if !self.queue.forgets() {
            let needed = self.shards.values().filter_map(|shard| shard.index.oldest_file()).min();
            let rotten = self.shards.values().flat_map(|shard| shard.lost.values()).map(|at| at.file).collect();
            self.files.retire_before(needed.unwrap_or(active).min(active), &rotten);
        }
    }

    /// Notes that these entries cannot be read any more; gives those of them that are live.
    pub fn lose(&mut self, shard: ShardId, entries: Vec<(LogIndex, Position, Error)>) -> Vec<Error> {
        let Some(state) = self.shards.get_mut(&shard) else { return Vec::new() };
        let mut lost = Vec::new();
        for (index, at, error) in entries {
            if state.index.lose(index, at) {
                state.lost.insert(index, at);
                lost.push(error);
            }
        }
        lost
    }

    /// Why an entry cannot be read, if it is lost.
    pub fn lost(&self, shard: ShardId, index: LogIndex) -> Option<Error> {
        let at = *self.shards.get(&shard)?.lost.get(&index)?;
        let affected = format!("shard {shard} entry {index}");
        Some(self.files.rot_at(at, "an entry that was durable cannot be read any more", &affected))
    }

    /// An error once nothing is accepted any more.
    pub fn running(&self) -> io::Result<()> {
        match &self.stopped {
            Some(reason) => Err(io::Error::other(format!("the journal has stopped: {reason}"))),
            None if self.closing => Err(io::Error::other("the journal is closed")),
            None => Ok(()),
        }
    }

    /// Whether an entry is synced.
    pub fn is_synced(shards: &HashMap<ShardId, ShardState>, shard: ShardId, index: LogIndex) -> bool {
        let location = shards.get(&shard).and_then(|state| state.index.get(index));
        location.is_none_or(|location| location.position().is_some())
    }
}

impl ShardState {
    /// What a replica is told of its log; the committed id never beyond the last entry.
    pub fn log(&self) -> ShardLog {
        let committed = self.committed.map(|committed| match self.last {
            Some(last) if last.index < committed.index => Some(last),
            Some(_) => Some(committed),
            None => None,
        });
        let held = self.index.range();
        ShardLog {
            vote: self.vote.clone(),
            committed: committed.flatten(),
            purged: self.purged,
            first: (!held.is_empty()).then_some(held.start),
            last: self.last,
        }
    }

    fn check_append(&self, shard: ShardId, entries: &[Entry], frame_bytes_max: usize) -> io::Result<()> {
        let mut expected = self.last.map(|last| last.index.next());
        for entry in entries {
            let index = entry.id.index;
            if expected.is_some_and(|expected| expected != index) {
                let expected = expected.unwrap_or_default();
                return Err(refusal(format!("shard {shard}: entry {index} appended where {expected} is next")));
            }
            if frame_len(entry.payload.len()) > frame_bytes_max {
                let len = entry.payload.len();
                return Err(refusal(format!("shard {shard}: entry {index} of {len} bytes does not fit a file")));
            }
            expected = Some(index.next());
        }
        Ok(())
    }
}

fn refusal(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
