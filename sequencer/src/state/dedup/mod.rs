//! Which message ids have been accepted: the window in which a retry is recognised, and what lies before it.
//!
//! ```text
//!            left the window                  the window
//!   |--- gen 1 ---|--- gen 2 ---|--- gen 3 ---|--- current ---|      accepted ids, in order of acceptance
//!   first         ^             floor         ^ Seal          next
//! ```
//!
//! Ids are kept exactly (`accepted`), in one sequence cut by Seals into generations, and found through an index of many
//! small tables (`index`). What always holds:
//! - the window is a function of the log alone: after each entry the oldest generation leaves while at least two
//!   remain and the log time it ended at is more than two minutes past. Every replica has the same one, also after a
//!   restart, or one would refuse what another accepts;
//! - only ids of accepted records are kept: refused ones are not in segments, so a rebuild could not bring them back;
//! - leaving the window is logical. A generation's ids stay for look-ups until its segment is published here, for
//!   until then they are nowhere else. (Nothing is published yet: every id of the log costs about 80 bytes.)

mod accepted;
mod index;
mod window;

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;
use logstore::id::{BodyHash, ClientMsgId, LogIndex, TimeMs};

use crate::{Refusal, Stored};
use accepted::Accepted;
pub(crate) use accepted::MessageKey;
use index::Index;

/// How long a generation stays in the window after its end, at least.
const WINDOW_MS: u64 = 2 * 60 * 1000;
/// How far a client's clock, which ids are made from, may be ahead of the log's time.
pub const SKEW_MS: u64 = 30 * 1000;
/// Ids a chunk holds: 256 KiB, allocated at once and never moved.
const CHUNK_LEN: usize = 4096;

/// A UUIDv7 begins with 48 bits of milliseconds: the clock of the client that chose it.
fn time_of(id: ClientMsgId) -> TimeMs {
    TimeMs((id.0 >> 80) as u64)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Generation {
    /// The number of the Seal that ends it.
    number: u64,
    /// The entry before its first one.
    after: LogIndex,
    /// The position of its first id.
    first: u64,
    /// The log time at its end; the current one has none yet.
    ended: TimeMs,
}

/// The accepted ids of one shard.
#[derive(Debug)]
pub(crate) struct Dedup {
    hasher: DefaultHashBuilder,
    index: Index,
    chunks: VecDeque<Vec<Accepted>>,
    /// Position of the first id of the first chunk.
    first: u64,
    /// Position of the next id.
    next: u64,
    /// Those that have left the window and are still held, oldest first.
    left: VecDeque<Generation>,
    /// Those before the current one, oldest first.
    window: VecDeque<Generation>,
    current: Generation,
    /// The log time of the last entry before the window; `None` if the window reaches back to the beginning.
    floor: Option<TimeMs>,
}

impl Dedup {
    pub fn new() -> Dedup {
        Dedup {
            hasher: DefaultHashBuilder::default(),
            index: Index::new(),
            chunks: VecDeque::new(),
            first: 0,
            next: 0,
            left: VecDeque::new(),
            window: VecDeque::new(),
            current: Generation { number: 1, after: LogIndex(0), first: 0, ended: TimeMs(0) },
            floor: None,
        }
    }

    /// The number of the Seal that will end the current generation.
    pub fn generation(&self) -> u64 {
        self.current.number
    }

    pub fn hash(&self, key: &MessageKey) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Brings near what [`Dedup::find`] will look at; see [`Index::touch`].
    pub fn touch(&self, hash: u64) -> u32 {
        self.index.touch(hash)
    }

    /// What became of a message whose id is in the window.
    pub fn find(&self, hash: u64, key: &MessageKey) -> Option<(Stored, BodyHash)> {
        self.find_from(self.window_start(), hash, key)
    }

    /// What became of a message whose id is in the window or in any generation that is still held.
    pub fn find_held(&self, key: &MessageKey) -> Option<(Stored, BodyHash)> {
        self.find_from(self.held_start(), self.hash(key), key)
    }

    /// Whether a first-seen id may be accepted, given the last Seal up to which older ids were looked up.
    pub fn admit(&self, id: ClientMsgId, now: TimeMs, checked_upto: u64) -> Result<(), Refusal> {
        if time_of(id).0 > now.0.saturating_add(SKEW_MS) {
            return Err(Refusal::ClockSkew);
        }
        if self.is_inside(id) {
            return Ok(());
        }
        let oldest = self.window.front().unwrap_or(&self.current).number;
        let reaches = oldest <= checked_upto.saturating_add(1) && checked_upto < self.current.number;
        if reaches { Ok(()) } else { Err(Refusal::Retry) }
    }

    /// Whether an id cannot have been accepted before the window began: its clock was at most 30 s ahead then.
    pub fn is_inside(&self, id: ClientMsgId) -> bool {
        self.floor.is_none_or(|floor| time_of(id).0.saturating_sub(SKEW_MS) > floor.0)
    }

    /// Whether an id cannot have been accepted by this log time: its clock was at most 30 s ahead then.
    pub fn is_after(&self, id: ClientMsgId, time: TimeMs) -> bool {
        time_of(id).0.saturating_sub(SKEW_MS) > time.0
    }

    /// Adds the id of an accepted record; it must not be in the window.
    pub fn insert(&mut self, hash: u64, key: &MessageKey, stored: &Stored, body_hash: BodyHash) {
        let accepted =
            Accepted::new(key, stored, body_hash).expect("authorised: a member of a group, or one of a 1:1's two");
        let (first, next) = (self.first, self.next);
        self.index.insert(hash, next as u32, |position| full_position(position, first) < next);
        if self.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK_LEN) {
            self.chunks.push_back(Vec::with_capacity(CHUNK_LEN));
        }
        let chunk = self.chunks.back_mut().expect("one was pushed if there was none");
        chunk.push(accepted);
        self.next += 1;
    }

    /// Ends the current generation at this log time, with this entry.
    pub fn seal(&mut self, now: TimeMs, index: LogIndex) {
        self.window.push_back(Generation { ended: now, ..self.current });
        let number = self.current.number + 1;
        self.current = Generation { number, after: index, first: self.next, ended: TimeMs(0) };
    }

    /// After every entry: lets generations leave the window.
    pub fn advance(&mut self, now: TimeMs) {
        while let Some(oldest) = self.window.front().copied() {
            if now.0 <= oldest.ended.0.saturating_add(WINDOW_MS) {
                return;
            }
            self.window.pop_front();
            self.left.push_back(oldest);
            self.floor = Some(oldest.ended);
        }
    }

    /// The entry before the window: a restart reads the ids of all later ones from segments and journal.
    pub fn begins_after(&self) -> LogIndex {
        self.window.front().unwrap_or(&self.current).after
    }

    /// Lets go of generations that have left the window, up to this one: their segments are published here.
    pub fn release(&mut self, upto: u64) {
        while self.left.front().is_some_and(|oldest| oldest.number <= upto) {
            self.left.pop_front();
        }
        let held = self.held_start();
        while self.first + CHUNK_LEN as u64 <= held && self.chunks.pop_front().is_some() {
            self.first += CHUNK_LEN as u64;
        }
    }

    /// What defines the window, for digests.
    pub fn bounds(&self) -> (u64, Option<TimeMs>) {
        (self.window.front().unwrap_or(&self.current).number, self.floor)
    }

    fn window_start(&self) -> u64 {
        self.window.front().unwrap_or(&self.current).first
    }

    fn held_start(&self) -> u64 {
        self.left.front().map_or(self.window_start(), |oldest| oldest.first)
    }

    fn find_from(&self, start: u64, hash: u64, key: &MessageKey) -> Option<(Stored, BodyHash)> {
        let is_key = |position: u32| self.at(position, start).is_some_and(|accepted| accepted.is(key));
        let found = self.index.find(hash, is_key)?;
        self.at(found, start).map(Accepted::stored)
    }

    /// The id at a position, unless that is before `start` or no longer held.
    fn at(&self, position: u32, start: u64) -> Option<&Accepted> {
        let position = full_position(position, self.first);
        if position < start || position >= self.next {
            return None;
        }
        let offset = (position - self.first) as usize;
        self.chunks.get(offset / CHUNK_LEN)?.get(offset % CHUNK_LEN)
    }
}

/// All bits of a position, which is less than 2^32 above the first one held. What is no longer held comes out above
/// every position there is.
fn full_position(position: u32, first: u64) -> u64 {
    first + u64::from(position.wrapping_sub(first as u32))
}
