//! The shared, short-lived write-ahead part of the log: all shards of a node, in append order.
//!
//! What always holds: an entry is readable when `append` returns and durable when its completion is
//! called; everything of one shard is written in the order it was asked for; after a failed write or sync
//! nothing more is acknowledged.
//!
//! The parts: `frame`, `block`, `file` and `checkpoint` say what the bytes are; `batch`, `queue`, `index` and `tail_cache` are
//! what is in memory, held together by `state` under one lock; `writer` is the one who writes and `driver` who steps it, `reserve`
//! makes files before it needs them, `copy_forward` frees old ones, `reader` reads; `recovery`, `scan`, `replay` and
//! `hole` bring it all back, `around` what of it is sound; `inspect` looks at it without changing anything.

mod around;
mod batch;
mod bell;
mod block;
mod checkpoint;
mod copy_forward;
mod driver;
mod executor;
mod file;
mod frame;
mod hole;
mod index;
mod inspect;
mod position;
mod queue;
mod reader;
mod recovery;
mod replay;
mod reserve;
mod scan;
mod state;
mod tail_cache;
mod writer;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::id::{LogId, LogIndex, ShardId};
use crate::io::{Context, Disk};
use crate::{Error, Result};

pub use around::JournalDamage;
pub use driver::SteppedWriter;
pub use executor::Executor;
pub use inspect::{
    JournalBlock, JournalFile, JournalFileRole, JournalFrame, JournalInspection, JournalReplay, TornBlock,
};

use batch::{Framed, What, Work};
use bell::Bell;
use checkpoint::{Checkpoint, ShardMarks};
use driver::WriterEnd;
use position::{ALIGN, Position};
use recovery::{Recovered, Tail};
use reserve::Files;
use state::{Shared, State};
use writer::Writer;
pub use writer::WriterNext;

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

impl Vote {
    /// The largest vote that is kept.
    pub const BYTES_MAX: usize = 64;
}

/// Called once when what it came with is synced, on the writer thread: it must not block. What is refused is told
/// at once, on the caller's.
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
    /// The first entry that can be read.
    pub first: Option<LogIndex>,
    /// The last entry.
    pub last: Option<LogId>,
}

/// How much a journal holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalUsage {
    /// Files with blocks, the one that is being written included.
    pub files: usize,
    /// Files ready to be written.
    pub files_ready: usize,
    /// Bytes of each file.
    pub file_bytes: u64,
    /// Bytes of the frames of all entries that are not purged.
    pub live_bytes: u64,
    /// Bytes of frames that were copied forward since start.
    pub copied_bytes: u64,
}

/// Sizes and bounds.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Size of one journal file: a multiple of 4 KiB, from 64 KiB to below 4 GiB.
    pub file_bytes: u64,
    /// Most bytes in one block (one group commit), unless a single append is larger.
    pub block_bytes_max: usize,
    /// Files kept ready ahead of the active one.
    pub reserve_files: usize,
    /// Files with blocks beyond which live entries of the oldest are copied forward. At least 1, the one being written.
    pub held_files_max: usize,
    /// Bytes of recent entries kept in memory, all shards together.
    pub tail_cache_bytes: usize,
    /// Most bytes queued for the writer.
    pub queue_bytes_max: usize,
    /// After how much idleness the last acknowledged block is proven on disk.
    pub proof_after: Duration,
    /// Whether recycled files are zeroed before they are used again: see [`Journal::zero_recycled`].
    pub zero_recycled: bool,
    /// Chance, taken from the operating system by the caller: file salts are made of it.
    pub salt_seed: u64,
    /// Where files are prepared.
    pub executor: Executor,
}

impl Default for JournalOptions {
    fn default() -> Self {
        JournalOptions {
            file_bytes: 256 << 20,
            block_bytes_max: 1 << 20,
            reserve_files: 2,
            held_files_max: 8,
            tail_cache_bytes: 256 << 20,
            queue_bytes_max: 64 << 20,
            proof_after: Duration::from_secs(1),
            zero_recycled: false,
            salt_seed: 0,
            executor: Executor::inline(),
        }
    }
}

impl JournalOptions {
    /// The bounds of a file are those of its format; blocks must leave room for a checkpoint.
    fn check(&mut self) -> Result<()> {
        let possible = (64 << 10)..=u64::from(u32::MAX);
        if !possible.contains(&self.file_bytes) || !self.file_bytes.is_multiple_of(ALIGN) {
            let what = format!("files of {} bytes: a multiple of 4096 from 64 KiB to 4 GiB is needed", self.file_bytes);
            return Err(Error::BadOptions(what));
        }
        self.block_bytes_max = self.block_bytes_max.min(self.frame_bytes_max());
        Ok(())
    }

    /// An append of more than this is queued in parts, so that a block stays near its bound.
    fn part_bytes(&self) -> usize {
        self.block_bytes_max.min(256 << 10)
    }

    /// The largest frame: half a file is left for headers and the checkpoint.
    fn frame_bytes_max(&self) -> usize {
        self.file_bytes as usize / 2
    }
}

/// Entries that are named at most, of those that are lost.
const LOST_TOLD_MAX: usize = 8;

/// The journal of a node; a cheap handle, clone it freely.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    writer: Arc<WriterEnd>,
}

impl Journal {
    /// Opens (or creates) the journal under `journal/` of `disk`, recovers it and starts the writer thread.
    ///
    /// `on_fatal` is called once, from the writer thread, after every waiter has been failed, when
    /// a write or sync fails; the process must then stop.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        on_fatal: Box<dyn Fn(&Error) + Send + Sync>,
    ) -> Result<Journal> {
        let (shared, writer) = Journal::recover(disk, options, on_fatal, Bell::default())?;
        Ok(Journal { writer: Arc::new(WriterEnd::of_thread(writer, shared.clone())?), shared })
    }

    /// Opens it as [`Journal::open`] does, without a thread: the caller steps the writer, and files are made within steps, whatever
    /// the executor of the options. For simulations, where what happens in which order is not the operating system's affair.
    ///
    /// `on_ring` is called when a writer that waits may have something to do. It must not call the journal.
    pub fn open_stepped(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        on_fatal: Box<dyn Fn(&Error) + Send + Sync>,
        on_ring: Box<dyn Fn() + Send + Sync>,
    ) -> Result<(Journal, SteppedWriter)> {
        let options = JournalOptions { executor: Executor::inline(), ..options };
        let (shared, writer) = Journal::recover(disk, options, on_fatal, Bell::calling(on_ring))?;
        let end = Arc::new(WriterEnd::without_thread(shared.clone()));
        Ok((Journal { writer: end, shared }, SteppedWriter::new(writer)))
    }

    /// What was durable, and the writer that goes on behind it.
    fn recover(
        disk: Arc<dyn Disk>,
        mut options: JournalOptions,
        on_fatal: Box<dyn Fn(&Error) + Send + Sync>,
        work: Bell,
    ) -> Result<(Arc<Shared>, Writer)> {
        options.check()?;
        disk.create_dir(file::DIRECTORY).context("create", file::DIRECTORY)?;
        let Recovered { shards, files, tail, journal } = recovery::recover(&*disk, options.file_bytes)?;
        let checkpoint = Checkpoint::new(shards.iter().map(|(id, shard)| (*id, ShardMarks::of(shard))));
        let (zeroes, journal) = (options.zero_recycled, journal.unwrap_or(file::journal_id(options.salt_seed)));
        let shared = Arc::new(Shared {
            disk,
            journal,
            state: Mutex::new(State::new(shards, Files { zeroes, ..files }, options.block_bytes_max)),
            options,
            work,
            files_changed: Condvar::new(),
            on_fatal,
        });
        let Tail { file, last_block, offset } = match tail {
            Some(tail) => tail,
            None => begin(&shared, &checkpoint)?,
        };
        let mut writer = Writer::new(shared.clone(), file, offset, checkpoint);
        writer.prove_recovered(last_block)?;
        writer.retire_recovered();
        reserve::top_up(&shared);
        Ok((shared, writer))
    }

    /// Opens what is sound of a damaged journal, for reading alone: nothing is written, everything new is refused. States what
    /// is damaged.
    pub fn open_around_damage(disk: Arc<dyn Disk>, options: JournalOptions) -> Result<(Journal, JournalDamage)> {
        around::open(disk, options)
    }

    /// Where it lies; so do the sealed segments.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.shared.disk
    }

    /// Another file of this node has failed a write or sync for good: nothing is accepted from here on, and `on_fatal` is
    /// called.
    pub fn fail(&self, error: &Error) {
        let is_first = {
            let mut state = self.shared.state.lock();
            let is_first = state.stopped.is_none();
            state.stopped.get_or_insert_with(|| error.to_string());
            is_first
        };
        if is_first {
            (self.shared.on_fatal)(error);
        }
    }

    /// The shards that have anything in the journal.
    pub fn shards(&self) -> Vec<ShardId> {
        let mut shards: Vec<_> = self.shared.state.lock().shards.keys().copied().collect();
        shards.sort_unstable();
        shards
    }

    /// What the journal knows of a shard (all `None` if nothing).
    pub fn shard_log(&self, shard: ShardId) -> ShardLog {
        self.shared.state.lock().shards.get(&shard).map(state::ShardState::log).unwrap_or_default()
    }

    /// Whether an append of `bytes` would be accepted now. Asked before the proposal is made: never after.
    pub fn check_room(&self, bytes: usize) -> std::result::Result<(), Refused> {
        let (state, options) = (self.shared.state.lock(), &self.shared.options);
        if state.running().is_err() {
            Err(Refused::Stopped)
        } else if !state.files.has_room(options.reserve_files) {
            Err(Refused::NoSpace)
        } else if state.queue.bytes() + bytes > options.queue_bytes_max {
            Err(Refused::QueueFull)
        } else {
            Ok(())
        }
    }

    /// Queues entries of one shard. They are readable on return and durable when `done` is called.
    ///
    /// Entries that do not follow the shard's last one, or do not fit a file, are refused through `done`, as is
    /// everything once the journal has stopped.
    pub fn append(&self, shard: ShardId, entries: Vec<Entry>, done: Completion) {
        let options = &self.shared.options;
        let framed = Framed::entries(shard, &entries);
        let mut state = self.shared.state.lock();
        let round = match state.accept(shard, &entries, options.frame_bytes_max()) {
            Ok(round) => round,
            Err(error) => {
                drop(state);
                return done(Err(error));
            }
        };
        queue_parts(&mut state, shard, &entries, &framed.bytes, (round, options.part_bytes()), done);
        state.cache.push(shard, entries);
        let evicted = state.evict(options.tail_cache_bytes);
        drop(state);
        self.shared.work.ring();
        drop(evicted);
    }

    /// Queues a vote at the head of the queue; durable when `done` is called.
    pub fn save_vote(&self, shard: ShardId, vote: Vote, done: Completion) {
        if vote.0.len() > Vote::BYTES_MAX {
            let what = format!("a vote of {} bytes; at most {} are kept", vote.0.len(), Vote::BYTES_MAX);
            return done(Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, what)));
        }
        self.urgent(shard, What::Vote(vote.clone()), done, |state| {
            state.shards.entry(shard).or_default().vote = Some(vote);
        });
    }

    /// Notes the committed id; written with the next block, never waited for.
    pub fn save_committed(&self, shard: ShardId, committed: Option<LogId>) {
        let mut state = self.shared.state.lock();
        let known = state.shards.entry(shard).or_default();
        if known.committed == committed {
            return;
        }
        known.committed = committed;
        if !std::mem::replace(&mut known.committed_unwritten, true) {
            state.uncommitted.push(shard);
        }
    }

    /// Forgets entries after `last` (all for `None`); at the head of the queue of other work of other shards,
    /// never before earlier work of the same shard.
    pub fn truncate_after(&self, shard: ShardId, last: Option<LogId>, done: Completion) {
        self.urgent(shard, What::Truncate(last), done, |state| state.truncate_after(shard, last));
    }

    /// Forgets entries up to and including `upto`.
    pub fn purge(&self, shard: ShardId, upto: LogId, done: Completion) {
        self.urgent(shard, What::Purge(upto), done, |state| state.purge_upto(shard, upto));
    }

    /// Entries of `range` from its first on that are in the tail cache, up to about `bytes_max` (at least one);
    /// `None` if the first is not cached. Never blocks.
    pub fn read_cached(&self, shard: ShardId, range: Range<LogIndex>, bytes_max: usize) -> Option<Vec<Entry>> {
        self.shared.state.lock().cache.get(shard, range, bytes_max)
    }

    /// Entries of `range` from its first on, from cache or by `pread`, up to about `bytes_max` (at least one) or the
    /// end of the log. Blocks: call it off the async workers.
    pub fn read(&self, shard: ShardId, range: Range<LogIndex>, bytes_max: usize) -> Result<Vec<Entry>> {
        reader::read(&self.shared, shard, range, bytes_max)
    }

    /// Bytes of the shard's frames that are not purged: what it holds back of the journal.
    pub fn live_bytes(&self, shard: ShardId) -> u64 {
        self.shared.state.lock().shards.get(&shard).map_or(0, |shard| shard.index.frame_bytes())
    }

    /// Why entries of a shard that are not purged cannot be read any more, as far as copying them has found out; nothing, as a rule.
    pub fn lost(&self, shard: ShardId) -> Vec<Error> {
        let state = self.shared.state.lock();
        let lost = state.shards.get(&shard).into_iter().flat_map(|shard| shard.lost.keys());
        lost.filter_map(|index| state.lost(shard, *index)).take(LOST_TOLD_MAX).collect()
    }

    /// Whether there are such entries.
    pub fn has_lost(&self, shard: ShardId) -> bool {
        self.shared.state.lock().shards.get(&shard).is_some_and(|shard| !shard.lost.is_empty())
    }

    /// Whether a shard is why there are more files than may be held back.
    pub fn is_held_back_by(&self, shard: ShardId) -> bool {
        let state = self.shared.state.lock();
        let Some(oldest) = state.files.used.keys().next() else { return false };
        let is_pinned = || state.shards.get(&shard).is_some_and(|shard| shard.index.is_in(*oldest));
        state.files.used.len() > self.shared.options.held_files_max && is_pinned()
    }

    /// The last of a shard's entries that lies in a file which no longer has a place: one file less than may be held back is for whoever
    /// keeps entries for no need of his own, so that they are never why any are copied.
    pub fn without_place(&self, shard: ShardId) -> Option<LogIndex> {
        let state = self.shared.state.lock();
        let kept_files = self.shared.options.held_files_max.saturating_sub(1).max(1);
        let oldest_kept = *state.files.used.keys().rev().nth(kept_files - 1)?;
        state.shards.get(&shard)?.index.last_before_file(oldest_kept)
    }

    /// Whether files are zeroed before they are used again, as they are while something is being erased.
    pub fn zeroes_recycled(&self) -> bool {
        self.shared.state.lock().files.zeroes
    }

    /// The shards that would have to be sealed and purged for the oldest file to be recycled; none if there is one
    /// file only.
    pub fn oldest_file_pinned_by(&self) -> Vec<ShardId> {
        let state = self.shared.state.lock();
        let Some(oldest) = state.files.used.keys().next().filter(|_| state.files.used.len() > 1) else {
            return Vec::new();
        };
        let pins = state.shards.iter().filter(|(_, shard)| shard.index.is_in(*oldest));
        let mut shards: Vec<_> = pins.map(|(id, _)| *id).collect();
        shards.sort_unstable();
        shards
    }

    /// From now on nothing of a file's former life may be left when it is used again; ready files that hold such bytes are
    /// zeroed too. Costs what making new files costs, so it is for as long as something is being erased.
    pub fn zero_recycled(&self, zero: bool) {
        self.shared.state.lock().files.zeroes = zero;
        reserve::top_up(&self.shared);
    }

    /// The number of the file that is being written: what is purged now lies in it or in files with lower numbers.
    pub fn newest_file(&self) -> u32 {
        self.shared.state.lock().files.used.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// The lowest number of a file of which any byte is left, also in files that have been recycled since. Something purged has left
    /// the journal without a trace once this is above what [`Journal::newest_file`] was then.
    pub fn oldest_trace(&self) -> u32 {
        self.shared.state.lock().files.oldest_life()
    }

    /// Has the writer begin another file as soon as one is ready, so that what is purged can leave the one it writes.
    pub fn begin_next_file(&self) {
        self.shared.state.lock().next_file = true;
        self.shared.work.ring();
    }

    /// How much the journal holds.
    pub fn usage(&self) -> JournalUsage {
        let state = self.shared.state.lock();
        JournalUsage {
            files: state.files.used.len(),
            files_ready: state.files.ready.len(),
            file_bytes: self.shared.options.file_bytes,
            live_bytes: state.live_bytes(),
            copied_bytes: state.copies.copied_bytes,
        }
    }

    /// Writes and syncs what is queued and stops the writer thread.
    pub fn close(&self) {
        self.writer.close();
    }

    /// The newest index of the shard that has been appended (readable, maybe not yet durable).
    pub fn last_index(&self, shard: ShardId) -> LogIndex {
        let state = self.shared.state.lock();
        state.shards.get(&shard).and_then(|shard| shard.last).map_or(LogIndex(0), |last| last.index)
    }

    fn urgent(&self, shard: ShardId, what: What, done: Completion, change: impl FnOnce(&mut State)) {
        let framed = what.framed(shard);
        let mut state = self.shared.state.lock();
        if let Err(error) = state.running() {
            drop(state);
            return done(Err(error));
        }
        change(&mut state);
        let work = Work { shard, what, frames: 0..0, done: Some(done) };
        state.queue.push_urgent(work, &framed.bytes, framed.count);
        drop(state);
        self.shared.work.ring();
    }
}

/// The first file of a journal that has none with blocks.
fn begin(shared: &Shared, checkpoint: &Checkpoint) -> Result<Tail> {
    let ready = shared.state.lock().files.ready.pop_front();
    let ready = match ready {
        Some(ready) => ready,
        None => {
            let number = reserve::take_number(&mut shared.state.lock().files);
            reserve::prepare_now(shared, number)?
        }
    };
    let offset = writer::begin_file(&ready, Position::default(), checkpoint)?;
    shared.state.lock().files.begin(ready.clone());
    Ok(Tail { file: ready, last_block: file::FILE_HEAD as u32, offset })
}

/// Queues an append in parts of about `part_bytes`; only the last tells the caller, as parts of one shard are written
/// in order.
fn queue_parts(
    state: &mut State,
    shard: ShardId,
    mut entries: &[Entry],
    mut frames: &[u8],
    (round, part_bytes): (u32, usize),
    done: Completion,
) {
    let mut done = Some(done);
    while done.is_some() {
        let (mut count, mut bytes) = (0, 0);
        for len in frame::lens(frames) {
            if count > 0 && bytes + len > part_bytes {
                break;
            }
            (count, bytes) = (count + 1, bytes + len);
        }
        let (part, later) = entries.split_at(count);
        let done = if later.is_empty() { done.take() } else { None };
        let work = Work { shard, what: What::append(part, round), frames: 0..0, done };
        state.queue.push(work, &frames[..bytes], count as u32);
        (entries, frames) = (later, &frames[bytes..]);
    }
}
