//! Copy-forward: live frames of the oldest file are written again, so that no shard holds the journal hostage.
//!
//! What always holds: copied is only what is live when its copy is put into a block, behind everything that could have ended its
//! life; a copy counts from the sync of its block on, and until then its original stays. So a copy never overrides a later
//! frame or truncation, and a file is retired only when nothing in it is needed. An entry that cannot be read any more holds no
//! file back but its own, which is set aside as it is; its shard is told.
//!
//! Copies ride in the blocks of others and never are more than half of what they ride with (or a small block), so that
//! they delay nobody by more than that; an idle journal copies a block at a time. What is copied is read ahead,
//! verified, on the executor.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::id::{LogIndex, ShardId};
use crate::io::DataFile;
use crate::{Error, Result};

use super::frame::frame_len;
use super::position::Position;
use super::reader::{self, Place};
use super::reserve;
use super::state::{ShardState, Shared, State};
use super::{Entry, JournalOptions};

/// Copies are at most this part of the block they ride with.
const BLOCK_PART: usize = 2;
/// With little to ride with, so much is copied all the same: to write and sync it costs little more than a small block.
const BLOCK_BYTES_MIN: usize = 32 << 10;
/// Files are worth copying once they hold so many times what is live. To copy all that is live takes `BLOCK_PART` times
/// its bytes of other frames: both together are then not more than what the copied files give back, and the journal
/// does not grow. With less garbage than this, copying would only turn the wheel faster.
const FILES_TO_LIVE: u64 = 1 + BLOCK_PART as u64;
/// Read ahead, or one entry if that is larger.
const READ_BYTES_MAX: usize = 1 << 20;
/// Looked at under one lock.
const SCAN_ENTRIES_MAX: usize = 1 << 15;

/// What is read and waits to be written again.
#[derive(Default)]
pub(crate) struct CopyForward {
    read: VecDeque<Copy>,
    read_bytes: usize,
    /// Whether a job is at work.
    reading: bool,
    walk: Walk,
    /// What may be copied now.
    credit_bytes: usize,
    /// Bytes copied since start.
    pub copied_bytes: u64,
}

/// One entry, and where it was read.
pub(crate) struct Copy {
    pub shard: ShardId,
    pub entry: Entry,
    pub from: Position,
}

/// A way through all entries, shard by shard, in search of those in one file.
#[derive(Default)]
struct Walk {
    file: u32,
    shard: ShardId,
    index: LogIndex,
    ended: bool,
}

impl Copy {
    pub fn frame_bytes(&self) -> usize {
        frame_len(self.entry.payload.len())
    }

    fn is_live(&self, shards: &HashMap<ShardId, ShardState>) -> bool {
        let location = shards.get(&self.shard).and_then(|shard| shard.index.get(self.entry.id.index));
        location.is_some_and(|location| location.position() == Some(self.from))
    }
}

impl CopyForward {
    /// Gives to `out` what goes along with a block: its share, as far as there is room.
    pub fn take(&mut self, shards: &HashMap<ShardId, ShardState>, share: usize, mut room: usize, out: &mut Vec<Copy>) {
        let Some(first) = self.read.front() else { return };
        // Saved up is only what the next copy needs: no block carries what others did not use.
        self.credit_bytes = (self.credit_bytes + share).min(share.max(first.frame_bytes()));
        while let Some(next) = self.read.front() {
            let (bytes, live) = (next.frame_bytes(), next.is_live(shards));
            if live && bytes > self.credit_bytes.min(room) {
                return;
            }
            self.read_bytes -= bytes;
            let Some(copy) = self.read.pop_front() else { return };
            if live {
                self.credit_bytes -= bytes;
                room -= bytes;
                out.push(copy);
            }
        }
    }

    /// Bytes of the copy that is the next to be written.
    pub fn next_bytes(&self) -> Option<usize> {
        self.read.front().map(Copy::frame_bytes)
    }

    /// Whether a job should read more of the file.
    fn wants_more(&self, file: u32) -> bool {
        let walked = self.walk.ended && self.walk.file == file;
        !self.reading && if walked { self.read.is_empty() } else { self.read_bytes < READ_BYTES_MAX / 2 }
    }
}

/// What may be copied along with a block of so many bytes.
pub(crate) fn share(block_bytes: usize, options: &JournalOptions) -> usize {
    (block_bytes / BLOCK_PART).max(BLOCK_BYTES_MIN.min(options.block_bytes_max / 4))
}

/// What an idle journal copies at once: whoever comes meanwhile waits for this block.
pub(crate) fn idle_share(options: &JournalOptions) -> usize {
    options.block_bytes_max / 2
}

impl State {
    /// The file whose live frames are to be copied: the oldest, if there are more than may be held back, an entry pins it,
    /// and it is worth it.
    pub fn file_to_copy(&self, options: &JournalOptions) -> Option<u32> {
        let files = self.files.used.len();
        if files <= options.held_files_max.max(1) {
            return None;
        }
        let oldest = *self.files.used.first_key_value()?.0;
        let pinned = self.shards.values().any(|shard| shard.index.is_in(oldest));
        let worth = files as u64 * options.file_bytes >= FILES_TO_LIVE * self.live_bytes();
        (pinned && worth).then_some(oldest)
    }

    /// Bytes of the frames of all entries that are not purged.
    pub fn live_bytes(&self) -> u64 {
        self.shards.values().map(|shard| shard.index.frame_bytes()).sum()
    }

    /// The next entries in the file, of one shard; there may be none among those looked at. `None` at the end of the walk.
    fn next_places(&mut self, file: u32) -> Option<Plan> {
        let State { shards, files, copies: CopyForward { walk, .. }, .. } = self;
        if walk.file != file {
            *walk = Walk { file, ..Walk::default() };
        }
        let left = shards.iter().filter(|(id, shard)| **id >= walk.shard && shard.index.is_in(file));
        let Some((id, shard)) = left.filter(|_| !walk.ended).min_by_key(|(id, _)| **id) else {
            walk.ended = true;
            return None;
        };
        if *id > walk.shard {
            (walk.shard, walk.index) = (*id, LogIndex(0));
        }
        let mut plan = Plan { shard: *id, file: files.used.get(&file)?.file.clone(), places: Vec::new() };
        let mut bytes = 0;
        for (index, location) in shard.index.from(walk.index).take(SCAN_ENTRIES_MAX) {
            walk.index = index.next();
            if let Some(position) = location.position().filter(|position| position.file == file) {
                plan.places.push((index, position, *location));
                bytes += location.frame_bytes();
            }
            if bytes >= READ_BYTES_MAX {
                break;
            }
        }
        if walk.index >= shard.index.range().end {
            (walk.shard, walk.index) = (ShardId(id.0.saturating_add(1)), LogIndex(0));
            walk.ended |= id.0 == u16::MAX;
        }
        Some(plan)
    }
}

/// Starts a job that reads what is to be copied, unless there is nothing, or enough is read. To be called by the writer
/// between two blocks: nothing is on its way.
pub(crate) fn read_ahead(shared: &Arc<Shared>) {
    let late = {
        let mut state = shared.state.lock();
        let Some(file) = state.file_to_copy(&shared.options).filter(|file| state.copies.wants_more(*file)) else {
            return;
        };
        if state.copies.walk.ended {
            state.copies.walk = Walk::default();
        }
        (state.copies.reading, state.copies.walk.file) = (true, file);
        state.files.used.len() > 2 * shared.options.held_files_max.max(1)
    };
    let job = Job { shared: shared.clone() };
    if late {
        // The executor has no time, or drops its jobs.
        job.run();
    } else {
        shared.options.executor.run(Box::new(move || job.run()));
    }
}

/// Entries of one shard that are to be read.
struct Plan {
    shard: ShardId,
    file: Arc<dyn DataFile>,
    places: Vec<Place>,
}

/// What came of a plan.
struct Read {
    copies: Vec<Copy>,
    /// Entries that cannot be read, where they should be, and why.
    lost: Vec<(LogIndex, Position, Error)>,
}

impl Plan {
    /// Reads the entries together; one by one, if that fails. What is in memory of those that cannot be read is as good.
    fn read(&self, shared: &Shared) -> Read {
        if let Ok(copies) = self.read_of(&self.places) {
            return Read { copies, lost: Vec::new() };
        }
        let mut read = Read { copies: Vec::new(), lost: Vec::new() };
        for place in &self.places {
            let (index, from, _) = *place;
            match self.read_of(std::slice::from_ref(place)) {
                Ok(copy) => read.copies.extend(copy),
                Err(error) => match self.cached(shared, place) {
                    Some(entry) => read.copies.push(Copy { shard: self.shard, entry, from }),
                    None => read.lost.push((index, from, error)),
                },
            }
        }
        read
    }

    fn read_of(&self, places: &[Place]) -> Result<Vec<Copy>> {
        let mut entries = Vec::with_capacity(places.len());
        reader::read_places(&*self.file, self.shard, places, &mut entries)?;
        let from = places.iter().map(|(_, position, _)| *position);
        Ok(entries.into_iter().zip(from).map(|(entry, from)| Copy { shard: self.shard, entry, from }).collect())
    }

    fn cached(&self, shared: &Shared, (index, _, location): &Place) -> Option<Entry> {
        let cached = shared.state.lock().cache.get(self.shard, *index..index.next(), usize::MAX)?;
        cached.into_iter().find(|entry| (entry.id.index, entry.id.term) == (*index, location.term))
    }
}

/// Ends, on whichever path, with `reading` false.
struct Job {
    shared: Arc<Shared>,
}

impl Job {
    fn run(self) {
        let mut has_lost = false;
        while let Some(plan) = self.next() {
            let Read { copies, lost } = plan.read(&self.shared);
            let state = &mut *self.shared.state.lock();
            for copy in copies {
                state.copies.read_bytes += copy.frame_bytes();
                state.copies.read.push_back(copy);
            }
            for error in state.lose(plan.shard, lost) {
                has_lost = true;
                tracing::error!(%error, "an entry cannot be copied: its shard takes nothing new, and the file is kept");
            }
        }
        if has_lost {
            self.retire();
        }
    }

    /// What is lost holds back nobody: the files in which nothing else is live may go.
    fn retire(&self) {
        {
            let state = &mut *self.shared.state.lock();
            let newest = state.files.used.last_key_value().map(|(number, _)| *number);
            newest.into_iter().for_each(|newest| state.retire(newest));
        }
        reserve::top_up(&self.shared);
    }

    fn next(&self) -> Option<Plan> {
        let mut state = self.shared.state.lock();
        state.running().ok()?;
        let file = state.file_to_copy(&self.shared.options)?;
        if state.copies.read_bytes >= READ_BYTES_MAX {
            return None;
        }
        state.next_places(file)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.shared.state.lock().copies.reading = false;
        self.shared.work.ring();
    }
}
