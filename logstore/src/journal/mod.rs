//! The shared, short-lived write-ahead part of the log: all shards of a node, in append order.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::Result;
use crate::id::{LogId, LogIndex, ShardId};
use crate::io::Disk;

/// What a journal entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Nothing: a new leader's first entry.
    Blank,
    /// A batch of commands.
    Normal,
    /// A Raft membership.
    Membership,
}

/// One Raft entry, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Term, leader, index.
    pub id: LogId,
    /// What the payload is.
    pub kind: EntryKind,
    /// Opaque to logstore.
    pub payload: Bytes,
}

/// A Raft vote, opaque to logstore: at most 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote(pub Bytes);

/// Called once, on the writer thread, when what it came with is synced (or never will be).
pub type Completion = Box<dyn FnOnce(std::result::Result<(), std::io::Error>) + Send>;

/// Why the journal refuses an append before it is made; nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Fewer ready files than the reserve: no room that is certain.
    NoSpace,
    /// The writer's queue holds as many bytes as it may.
    QueueFull,
    /// The journal has stopped after a failed write or sync.
    Stopped,
}

/// Where a shard's log begins and ends, and what its replica has promised.
#[derive(Clone, Debug, Default)]
pub struct ShardLog {
    /// The last vote saved.
    pub vote: Option<Vote>,
    /// The last committed id saved, never above `last`.
    pub committed: Option<LogId>,
    /// The last purged entry.
    pub purged: Option<LogId>,
    /// The last entry.
    pub last: Option<LogId>,
}

/// Sizes and bounds.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Size of one journal file.
    pub file_bytes: u64,
    /// Most bytes in one block (one group commit).
    pub block_bytes_max: usize,
    /// Files kept ready ahead of the active one.
    pub reserve_files: usize,
    /// Bytes of recent entries kept in memory, all shards together.
    pub tail_cache_bytes: usize,
    /// Most bytes queued for the writer.
    pub queue_bytes_max: usize,
}

impl Default for JournalOptions {
    fn default() -> Self {
        JournalOptions {
            file_bytes: 256 << 20,
            block_bytes_max: 1 << 20,
            reserve_files: 2,
            tail_cache_bytes: 256 << 20,
            queue_bytes_max: 64 << 20,
        }
    }
}

/// The journal of a node; a cheap handle, clone it freely.
#[derive(Clone)]
pub struct Journal {}

impl Journal {
    /// Opens (or creates) the journal under `journal/` of `disk`, recovers it and starts the writer thread.
    ///
    /// `on_fatal` is called once, from the writer thread, after every waiter has been failed, when
    /// a write or sync fails; the process must then stop.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        on_fatal: Box<dyn Fn(&crate::Error) + Send + Sync>,
    ) -> Result<Journal> {
        let _ = (disk, options, on_fatal);
        unimplemented!()
    }

    /// The shards that have anything in the journal.
    pub fn shards(&self) -> Vec<ShardId> {
        unimplemented!()
    }

    /// What the journal knows of a shard (all `None` if nothing).
    pub fn shard_log(&self, shard: ShardId) -> ShardLog {
        let _ = shard;
        unimplemented!()
    }

    /// Whether an append of `bytes` would be accepted now. Asked before the proposal is made: never after.
    pub fn check_room(&self, bytes: usize) -> std::result::Result<(), Refused> {
        let _ = bytes;
        unimplemented!()
    }

    /// Queues entries of one shard. They are readable on return and durable when `done` is called.
    pub fn append(&self, shard: ShardId, entries: Vec<Entry>, done: Completion) {
        let _ = (shard, entries, done);
        unimplemented!()
    }

    /// Queues a vote at the head of the queue; durable when `done` is called.
    pub fn save_vote(&self, shard: ShardId, vote: Vote, done: Completion) {
        let _ = (shard, vote, done);
        unimplemented!()
    }

    /// Notes the committed id; written with the next block, never waited for.
    pub fn save_committed(&self, shard: ShardId, committed: Option<LogId>) {
        let _ = (shard, committed);
        unimplemented!()
    }

    /// Forgets entries after `last` (all for `None`); at the head of the queue of other work of other shards,
    /// never before earlier work of the same shard.
    pub fn truncate_after(&self, shard: ShardId, last: Option<LogId>, done: Completion) {
        let _ = (shard, last, done);
        unimplemented!()
    }

    /// Forgets entries up to and including `upto`.
    pub fn purge(&self, shard: ShardId, upto: LogId, done: Completion) {
        let _ = (shard, upto, done);
        unimplemented!()
    }

    /// Entries of `range` that are all in the tail cache, up to about `bytes_max` (at least one); `None` if
    /// any of the first is not cached. Never blocks.
    pub fn read_cached(&self, shard: ShardId, range: Range<LogIndex>, bytes_max: usize) -> Option<Vec<Entry>> {
        let _ = (shard, range, bytes_max);
        unimplemented!()
    }

    /// Entries of `range`, from cache or by `pread`, up to about `bytes_max` (at least one). Blocks: call it
    /// off the async workers.
    pub fn read(&self, shard: ShardId, range: Range<LogIndex>, bytes_max: usize) -> Result<Vec<Entry>> {
        let _ = (shard, range, bytes_max);
        unimplemented!()
    }

    /// Writes and syncs what is queued and stops the writer thread.
    pub fn close(&self) {
        unimplemented!()
    }

    /// The newest index of the shard that has been appended (readable, maybe not yet durable).
    pub fn last_index(&self, shard: ShardId) -> LogIndex {
        let _ = shard;
        unimplemented!()
    }
}
