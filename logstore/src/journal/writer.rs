//! The one who writes: group commit, in steps.
//!
//! What always holds: at most one block is not synced; nobody is told "done" before the sync that covers his
//! frames has returned; after a failed write or sync nothing is written any more and nobody is told "done".
//!
//! What arrives during a sync is the next block: there is no timer in the path of an append. When nothing is
//! queued an empty proof block follows, which states that the block before it was synced; it is synced after a
//! moment of idleness, and the next block overwrites it.
//!
//! A step never waits for work and asks no clock: `driver` says who steps, and how it waits in between.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;

use crate::id::{LogId, ShardId};
use crate::io::{Context, DataFile, Part, Parts, read_full};
use crate::{Error, Result};

use super::Entry;
use super::batch::{Batch, What, Work};
use super::block::{BLOCK_HEAD, BlockBuilder, BlockKind};
use super::checkpoint::Checkpoint;
use super::copy_forward::{self, Copy};
use super::file::{self, FILE_HEAD, FileHead};
use super::frame::{self, FrameHead, FrameKind};
use super::position::{ALIGN, Position};
use super::reserve::{self, ReadyFile};
use super::state::{Shared, State};

/// Writes the queue's work to the active file.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    active: ReadyFile,
    /// Where the next block goes: everything before it is synced.
    tail: u32,
    proof: Proof,
    /// What the frames written so far say of each shard.
    checkpoint: Checkpoint,
    /// What is being written.
    batch: Batch,
    /// Committed ids that go with the batch.
    committed: Vec<(ShardId, Option<LogId>)>,
    /// Entries that are written again with the batch, and where their frames begin in the block.
    copies: Vec<Copy>,
    copy_starts: Vec<u32>,
    /// The block that is written and not synced.
    unsynced: Option<Unsynced>,
}

/// Where a block is that is not synced, and its bytes.
#[derive(Clone, Copy)]
struct Unsynced {
    at: Position,
    bytes: u32,
}

/// What is to happen before the writer's next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterNext {
    /// Nothing: there is more to do.
    Step,
    /// Nothing either; the next step syncs what this one wrote. Somebody who simulates lets pass here what a sync takes.
    Sync,
    /// Until there is work; if a time is named, an idle step follows when it has passed without any.
    Wait(Option<Duration>),
    /// The journal is closed and everything is synced, or it has failed.
    Ended,
}

/// How far the last acknowledged block is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Missing,
    Written,
    Synced,
}

/// What the writer does next.
#[derive(Clone, Copy)]
enum Step {
    Commit,
    WriteProof,
    SyncProof,
    /// Nobody has asked for anything for a while.
    Idle,
    NextFile,
    /// Nothing, until there is work; if there is a limit, until that has passed.
    Wait(Option<Duration>),
    Close,
}

impl Writer {
    /// A writer that goes on at `tail` of `active`; what is before it is synced and proven.
    pub fn new(shared: Arc<Shared>, active: ReadyFile, tail: u32, checkpoint: Checkpoint) -> Writer {
        Writer {
            shared,
            active,
            tail,
            proof: Proof::Missing,
            checkpoint,
            batch: Batch::new(),
            committed: Vec::new(),
            copies: Vec::new(),
            copy_starts: Vec::new(),
            unsynced: None,
        }
    }

    /// Makes durable, and proves, what recovery found: it may have been read from the page cache of a process
    /// that died before its sync, or whose sync failed.
    ///
    /// After a failed sync the kernel holds pages that are not on the disk for clean, and another sync would write
    /// nothing: so the last block is written again, as it was read. All before it were synced before it was written.
    pub fn prove_recovered(&mut self, last_block: u32) -> Result<()> {
        self.write_again(last_block)?;
        sync(&self.active)?;
        self.write_proof()?;
        self.sync_proof()
    }

    /// Takes files out of use that were not, or not yet, when the journal stopped.
    pub fn retire_recovered(&self) {
        self.shared.state.lock().retire(self.active.head.number);
    }

    /// Writes the active file from an offset to its end as it is read.
    fn write_again(&self, from: u32) -> Result<()> {
        let mut bytes = vec![0; (self.tail - from) as usize];
        let path = file::path(self.active.head.number);
        let read = read_full(&*self.active.file, &mut bytes, u64::from(from)).context("read", &path)?;
        write(&self.active, &bytes[..read], from, Parts::all(Part::JournalBlocks))
    }

    /// One step. `is_idle`: the time that the step before named has passed without work.
    pub fn step(&mut self, is_idle: bool) -> Result<WriterNext> {
        if let Some(unsynced) = self.unsynced {
            return self.sync_block(unsynced);
        }
        let shared = self.shared.clone();
        let step = self.choose(&mut shared.state.lock(), is_idle);
        self.go(step)
    }

    /// One step; waits before it, as a thread does, until there is one.
    pub fn step_or_wait(&mut self) -> Result<WriterNext> {
        if let Some(unsynced) = self.unsynced {
            return self.sync_block(unsynced);
        }
        let shared = self.shared.clone();
        let step = self.wait_for_step(&shared, shared.state.lock());
        self.go(step)
    }

    fn wait_for_step(&mut self, shared: &Shared, mut state: MutexGuard<'_, State>) -> Step {
        let mut is_idle = false;
        loop {
            match self.choose(&mut state, is_idle) {
                Step::Wait(limit) => is_idle = shared.work.wait(&mut state, limit),
                step => return step,
            }
        }
    }

    fn go(&mut self, step: Step) -> Result<WriterNext> {
        match step {
            Step::Commit => self.write_block(0)?,
            Step::WriteProof => self.write_proof()?,
            Step::SyncProof => self.sync_proof()?,
            Step::Idle => self.idle()?,
            Step::NextFile => self.leave_file()?,
            Step::Wait(limit) => return Ok(WriterNext::Wait(limit)),
            Step::Close => return Ok(WriterNext::Ended),
        }
        Ok(if self.unsynced.is_some() { WriterNext::Sync } else { WriterNext::Step })
    }

    /// What there is to do; fills `batch` and `committed` if that is a commit.
    fn choose(&mut self, state: &mut State, is_idle: bool) -> Step {
        let options = &self.shared.options;
        if state.next_file && !state.files.ready.is_empty() {
            state.next_file = false;
            return Step::NextFile;
        }
        if !state.queue.is_empty() {
            self.take(state);
            return Step::Commit;
        }
        if state.closing {
            return self.choose_last(state);
        }
        if self.proof == Proof::Missing {
            return Step::WriteProof;
        }
        let wants_files = state.files.wants_retry(options.reserve_files);
        let copies = state.copies.next_bytes().is_some() || state.file_to_copy(options).is_some();
        if self.proof == Proof::Synced && !wants_files && !copies && state.uncommitted.is_empty() {
            return Step::Wait(None);
        }
        if !is_idle {
            return Step::Wait(Some(options.proof_after));
        }
        if state.uncommitted.is_empty() {
            return Step::Idle;
        }
        self.take(state);
        Step::Commit
    }

    /// What is left to do when the journal is closed and nothing is queued.
    fn choose_last(&mut self, state: &mut State) -> Step {
        self.take(state);
        match self.proof {
            _ if !self.committed.is_empty() => Step::Commit,
            Proof::Missing => Step::WriteProof,
            Proof::Written => Step::SyncProof,
            Proof::Synced => Step::Close,
        }
    }

    fn take(&mut self, state: &mut State) {
        state.queue.take(&mut self.batch);
        for shard in state.uncommitted.drain(..) {
            if let Some(state) = state.shards.get_mut(&shard) {
                state.committed_unwritten = false;
                self.committed.push((shard, state.committed));
            }
        }
    }

    /// Writes one group commit, with at least `share` bytes of copies if there are any; the next step syncs it.
    fn write_block(&mut self, share: usize) -> Result<()> {
        for (shard, committed) in &self.committed {
            self.batch.block.add(&FrameHead::mark(FrameKind::Committed, *shard, *committed), &[]);
        }
        self.make_room()?;
        self.add_copies(share.max(copy_forward::share(self.batch.block.len(), &self.shared.options)));
        let at = Position { file: self.active.head.number, offset: self.tail };
        let bytes = self.batch.block.finish(BlockKind::Commit, at, at, self.active.head.salt);
        let unsynced = Unsynced { at, bytes: bytes.len() as u32 };
        let copied = self.copies.iter().map(|copy| copy.frame_bytes() as u64).sum();
        #[cfg(feature = "plants")]
        acknowledge_before_sync(&mut self.batch.works);
        write(&self.active, bytes, self.tail, Parts::but(Part::JournalBlocks, copied, Part::JournalCopies))?;
        self.unsynced = Some(unsynced);
        Ok(())
    }

    /// Syncs what the step before wrote, and tells who waits for it.
    fn sync_block(&mut self, Unsynced { at, bytes }: Unsynced) -> Result<WriterNext> {
        sync(&self.active)?;
        self.unsynced = None;
        metrics::counter!("skein_journal_bytes_total").increment(u64::from(bytes));
        self.tail += bytes;
        self.proof = Proof::Missing;
        self.note_written();
        let (forgot, copies) = self.publish(at);
        if forgot {
            reserve::top_up(&self.shared);
        }
        if copies {
            copy_forward::read_ahead(&self.shared);
        }
        Ok(WriterNext::Step)
    }

    /// Begins another file, so that this one can go.
    fn leave_file(&mut self) -> Result<()> {
        self.begin_next_file()?;
        self.shared.state.lock().retire(self.active.head.number);
        reserve::top_up(&self.shared);
        Ok(())
    }

    fn idle(&mut self) -> Result<()> {
        copy_forward::read_ahead(&self.shared);
        if self.make_room_for_copy()? {
            self.write_block(copy_forward::idle_share(&self.shared.options))
        } else if self.proof == Proof::Written {
            self.sync_proof()
        } else {
            reserve::top_up(&self.shared);
            Ok(())
        }
    }

    /// Whether a copy is there and has room. Copies alone begin a file only if the reserve is whole: it is for what has been
    /// accepted.
    fn make_room_for_copy(&mut self) -> Result<bool> {
        let room = (self.active.head.file_bytes - u64::from(self.tail)) as usize;
        let (next, ready) = {
            let state = self.shared.state.lock();
            (state.copies.next_bytes(), state.files.ready.len())
        };
        match next {
            Some(next) if BLOCK_HEAD + next <= room => Ok(true),
            Some(_) if ready >= self.shared.options.reserve_files.max(1) => {
                self.begin_next_file()?;
                reserve::top_up(&self.shared);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Fills what the block leaves of its file with copies, up to the block's share.
    fn add_copies(&mut self, share: usize) {
        let room = (self.active.head.file_bytes - u64::from(self.tail)) as usize - self.batch.block.len();
        {
            let State { copies, shards, .. } = &mut *self.shared.state.lock();
            copies.take(shards, share, room, &mut self.copies);
        }
        for copy in &self.copies {
            let Entry { id, kind, payload } = &copy.entry;
            let start = self.batch.block.add(&FrameHead::copy(copy.shard, *id, *kind, payload.len()), payload);
            self.copy_starts.push(start);
        }
    }

    /// Goes to the next file if the block does not fit this one.
    fn make_room(&mut self) -> Result<()> {
        if self.fits() {
            return Ok(());
        }
        self.begin_next_file()?;
        reserve::top_up(&self.shared);
        if self.fits() {
            return Ok(());
        }
        Err(Error::Stopped(format!("files of {} bytes are too small for so many shards", self.active.head.file_bytes)))
    }

    fn begin_next_file(&mut self) -> Result<()> {
        let next = self.next_file()?;
        let before = Position { file: self.active.head.number, offset: self.tail };
        let tail = begin_file(&next, before, &self.checkpoint)?;
        self.shared.state.lock().files.begin(next.clone());
        (self.active, self.tail) = (next, tail);
        Ok(())
    }

    fn fits(&self) -> bool {
        u64::from(self.tail) + self.batch.block.stride() <= self.active.head.file_bytes
    }

    /// The next ready file; made here and now if the reserve is used up.
    fn next_file(&self) -> Result<ReadyFile> {
        let mut state = self.shared.state.lock();
        loop {
            if let Some(ready) = state.files.ready.pop_front() {
                return Ok(ready);
            }
            if !state.files.preparing {
                break;
            }
            self.shared.files_changed.wait(&mut state);
        }
        // No job is at work: a full reserve was used up while the executor had no time.
        let number = reserve::take_number(&mut state.files);
        drop(state);
        reserve::prepare_now(&self.shared, number)
    }

    /// Carries what the block says over to the next checkpoint.
    fn note_written(&mut self) {
        for work in &self.batch.works {
            self.checkpoint.note(work);
        }
        for (shard, committed) in self.committed.drain(..) {
            self.checkpoint.note_committed(shard, committed);
        }
    }

    /// States where the synced entries are, then tells everybody. Says whether files may have become free, and
    /// whether entries are to be copied.
    fn publish(&mut self, block: Position) -> (bool, bool) {
        let mut bytes = 0;
        let mut forgot = !self.copies.is_empty();
        let (wants_copies, evicted) = {
            let mut state = self.shared.state.lock();
            for work in &self.batch.works {
                bytes += work.bytes();
                settle(&mut state, work, self.batch.block.at(&work.frames), block);
                forgot |= matches!(work.what, What::Truncate(_) | What::Purge(_));
            }
            state.queue.written(bytes);
            for (copy, start) in self.copies.drain(..).zip(self.copy_starts.drain(..)) {
                let to = Position { offset: block.offset + start, ..block };
                settle_copy(&mut state, &copy, to);
            }
            if forgot {
                state.retire(self.active.head.number);
            }
            let evicted = state.evict(self.shared.options.tail_cache_bytes);
            (state.file_to_copy(&self.shared.options).is_some(), evicted)
        };
        drop(evicted);
        self.batch.works.drain(..).filter_map(|work| work.done).for_each(|done| done(Ok(())));
        self.batch.clear();
        (forgot, wants_copies)
    }

    fn write_proof(&mut self) -> Result<()> {
        let at = Position { file: self.active.head.number, offset: self.tail };
        if u64::from(self.tail) < self.active.head.file_bytes {
            let mut proof = BlockBuilder::new(ALIGN as usize);
            let bytes = proof.finish(BlockKind::Proof, at, at, self.active.head.salt);
            write(&self.active, bytes, self.tail, Parts::all(Part::JournalProofs))?;
        }
        self.proof = Proof::Written;
        Ok(())
    }

    fn sync_proof(&mut self) -> Result<()> {
        sync(&self.active)?;
        self.proof = Proof::Synced;
        Ok(())
    }

    /// The end: whoever waits is told so, and nothing is accepted from here on.
    pub fn fail(&mut self, error: &Error) {
        let mut waiting = std::mem::take(&mut self.batch.works);
        {
            let mut state = self.shared.state.lock();
            state.stopped = Some(error.to_string());
            waiting.extend(state.queue.drain());
        }
        self.shared.files_changed.notify_all();
        for done in waiting.into_iter().filter_map(|work| work.done) {
            done(Err(error.into()));
        }
        (self.shared.on_fatal)(error);
    }
}

/// Begins a file with its checkpoint block, synced; gives where the next block goes. `before` is where the
/// file before it ends.
pub(crate) fn begin_file(ready: &ReadyFile, before: Position, checkpoint: &Checkpoint) -> Result<u32> {
    let FileHead { salt, number, .. } = ready.head;
    let mut block = checkpoint.block();
    let at = Position { file: number, offset: FILE_HEAD as u32 };
    let bytes = block.finish(BlockKind::Checkpoint, at, before, salt);
    write(ready, bytes, at.offset, Parts::all(Part::JournalCheckpoints))?;
    sync(ready)?;
    Ok(at.offset + bytes.len() as u32)
}

/// The bug that is planted: whoever waits is told before anything is written, and some time passes in between.
#[cfg(feature = "plants")]
fn acknowledge_before_sync(works: &mut [Work]) {
    const GAP: std::time::Duration = std::time::Duration::from_millis(5);
    if crate::plants::is_planted(crate::plants::Plant::AckBeforeQuorum) {
        works.iter_mut().filter_map(|work| work.done.take()).for_each(|done| done(Ok(())));
        std::thread::sleep(GAP);
    }
}

fn write(to: &ReadyFile, bytes: &[u8], offset: u32, parts: Parts) -> Result<()> {
    to.file.write_as(bytes, u64::from(offset), parts).context("write", &file::path(to.head.number))
}

fn sync(to: &ReadyFile) -> Result<()> {
    let took = DataFile::sync_data(&*to.file).context("sync", &file::path(to.head.number))?;
    metrics::counter!("skein_journal_syncs_total").increment(1);
    metrics::histogram!("skein_journal_sync_seconds").record(took.as_secs_f64());
    Ok(())
}

fn settle_copy(state: &mut State, copy: &Copy, to: Position) {
    let bytes = copy.frame_bytes() as u64;
    state.copies.copied_bytes += bytes;
    metrics::counter!("skein_journal_copied_bytes_total").increment(bytes);
    if let Some(shard) = state.shards.get_mut(&copy.shard) {
        shard.index.relocate(copy.entry.id.index, copy.from, to);
    }
}

/// States where the entries of a synced work are; `frames` are theirs.
fn settle(state: &mut State, work: &Work, frames: &[u8], block: Position) {
    let What::Append { first, round, .. } = work.what else { return };
    let Some(shard) = state.shards.get_mut(&work.shard) else { return };
    let at = Position { offset: block.offset + work.frames.start, ..block };
    shard.index.settle(first, round, at, frame::lens(frames));
}
