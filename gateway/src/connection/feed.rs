//! What one attached connection has been told, shard by shard: the fence between catching up and live.
//!
//! ```text
//!                    announced                 answered
//!      Wanted ───────────────────▶ Holding ───────────────▶ Live
//!        ▲   (from what was taken)    │                       │
//!        └────────────────────────────┴───────────────────────┘
//!          tail reset, reader lags      hole, tail reset, reader lags
//! ```
//!
//! What always holds, per shard:
//! - Whatever of the log is at or below `taken` has been written to the connection, or is an own record (which its sender
//!   is told by the answer to the send instead).
//! - What the device is told, the step, is `taken`, but stays below every own record whose answer may not be written. It
//!   never falls.
//! - While `Wanted`, live entries are dropped: the announcement is still to come, so its answer holds them.
//! - While `Holding`, live entries are kept, in order. The answer as of A covers those at or below A; the rest follow it.
//! - While `Live`, entries are written as they come. In a conversation each record follows the one before it without a
//!   hole; a smaller one is dropped, a hole makes the shard `Wanted`, so that the log fills it.
//!
//! Nothing here waits or reads a clock; bytes go into a buffer that somebody else writes to a socket.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use fanout::Limits;
use fanout::service::ConversationSummary;
use hashbrown::HashMap;
use logstore::id::{ConnectionId, ConversationId, LogIndex, SeqId, ShardId};
use prost::Message;
use sequencer::Record;

use super::held::Held;
pub use super::own::SendNumber;

use super::own::Own;
use crate::wire::frame::{self, FLAG_PUSH};
use crate::wire::operation::Operation;
use crate::wire::{convert, proto, record};

/// Frames of a backlog end soon after this many bytes: clients take up to 1 MiB, and a record has at most 64 KiB.
const FRAME_BYTES: usize = 128 << 10;
/// Conversations whose last record is remembered. Forgetting one is safe, the fence does not need it: it only means that
/// the next record of that conversation is not checked against the one before.
const GIVEN_MAX: usize = 4096;
/// A hole that so many readings of the log have not filled is no hole but how the log is.
const HOLES_MAX: u8 = 3;

/// A record of a live entry: where its bytes are, and what decides whether they are written.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// Its conversation.
    pub conversation: ConversationId,
    /// Its place there.
    pub seq: SeqId,
    /// The connection it came over.
    pub origin: ConnectionId,
    /// Where its bytes begin, as an element of `Deliver.records`.
    pub start: u32,
    /// Where they end.
    pub end: u32,
}

/// What the caller has to do after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Then {
    /// Nothing.
    Nothing,
    /// Run rounds until [`Feed::begin_round`] has nothing left. Said once until then.
    CatchUp,
}

/// A shard to be announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Position of the shard.
    pub slot: usize,
    /// Its id.
    pub shard: ShardId,
    /// Names the round: an answer to an earlier one is void.
    pub round: u32,
    /// What was taken for the connection: the answer has what is above.
    pub taken: LogIndex,
}

/// The bounds a feed keeps.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes queued beyond which the reader lags.
    pub outbound_bytes: usize,
    /// Bytes held for the connection while its shards wait for answers.
    pub hold_bytes: usize,
}

impl Bounds {
    /// As the table of limits says.
    pub fn new(limits: &Limits) -> Bounds {
        Bounds { outbound_bytes: limits.outbound_bytes as usize, hold_bytes: limits.attach_hold_bytes as usize }
    }
}

enum Stage {
    Wanted,
    Holding(Box<Held>),
    Live,
}

struct Slot {
    taken: LogIndex,
    stage: Stage,
    round: u32,
    holes: u8,
}

/// An attached connection's side of the tails.
pub struct Feed {
    connection: ConnectionId,
    shards: Arc<[ShardId]>,
    slots: Box<[Slot]>,
    given: HashMap<ConversationId, SeqId>,
    own: Own,
    /// An answer left open what became of its messages: own records are written as everybody's are.
    gives_own: bool,
    /// Shards became wanted where nobody could be told.
    owes_round: bool,
    bounds: Bounds,
    lagging: bool,
    catching_up: bool,
}

impl Feed {
    /// A connection that has been told `cursors`, one a shard. Its caller runs rounds at once.
    pub fn new(connection: ConnectionId, shards: Arc<[ShardId]>, cursors: &[LogIndex], bounds: Bounds) -> Feed {
        debug_assert_eq!(shards.len(), cursors.len());
        let slot = |&taken: &LogIndex| Slot { taken, stage: Stage::Wanted, round: 0, holes: 0 };
        Feed {
            connection,
            shards,
            slots: cursors.iter().map(slot).collect(),
            given: HashMap::new(),
            own: Own::default(),
            gives_own: false,
            owes_round: false,
            bounds,
            lagging: false,
            catching_up: true,
        }
    }

    /// A live entry has come for this connection. `bytes` is what the spots point into.
    pub fn entry<'a>(
        &mut self,
        slot: usize,
        index: LogIndex,
        spots: impl Iterator<Item = &'a Spot> + Clone,
        bytes: &[u8],
        out: &mut BytesMut,
    ) -> Then {
        let taken = self.slots[slot].taken;
        match self.slots[slot].stage {
            Stage::Wanted => Then::Nothing,
            Stage::Holding(_) => {
                self.hold(slot, index, spots, bytes);
                Then::Nothing
            }
            // The dispatcher was behind the answer, which holds this entry.
            Stage::Live if index <= taken => Then::Nothing,
            Stage::Live if out.len() >= self.bounds.outbound_bytes => {
                self.lag();
                Then::Nothing
            }
            Stage::Live => self.write_entry(slot, index, spots, bytes, out),
        }
    }

    fn hold<'a>(&mut self, slot: usize, index: LogIndex, spots: impl Iterator<Item = &'a Spot> + Clone, bytes: &[u8]) {
        let room = self.bounds.hold_bytes.saturating_sub(self.held_bytes());
        if let Stage::Holding(held) = &mut self.slots[slot].stage {
            held.keep(index, spots, bytes, room);
        }
    }

    /// What all shards hold.
    fn held_bytes(&self) -> usize {
        let held = |slot: &Slot| if let Stage::Holding(held) = &slot.stage { held.bytes } else { 0 };
        self.slots.iter().map(held).sum()
    }

    /// A send was taken from this connection; it is answered, or left open, once.
    pub fn send_begun(&mut self) -> SendNumber {
        self.own.begin()
    }

    /// The answer to a send has been written, and it tells the place of every message that has one. What the cursor did
    /// not pass because of it, it passes now.
    pub fn send_answered(&mut self, number: SendNumber, out: &mut BytesMut) {
        let (slots, shards) = (&self.slots, &self.shards);
        self.own.answered(number, |slot, below| {
            let taken = slots[slot].taken;
            let start = frame::begin(out, FLAG_PUSH, Operation::Deliver.number(), 0);
            put_step(out, shards[slot], below.map_or(taken, |below| taken.min(below)));
            frame::finish(out, start);
        });
    }

    /// The answer to a send has been written, but leaves open what became of some message. Its record, should there be
    /// one, is told as everybody's are: what was skipped is read from the log, what comes is written.
    pub fn send_left_open(&mut self, number: SendNumber) {
        self.gives_own = true;
        self.given.clear();
        for (slot, told) in self.own.left_open(number) {
            let slot = &mut self.slots[slot];
            slot.taken = slot.taken.min(told);
            slot.stage = Stage::Wanted;
            self.owes_round = true;
        }
    }

    /// Whether pushes that are not part of the log may be queued.
    pub fn takes_hints(&self, out: &BytesMut) -> bool {
        !self.lagging && out.len() < self.bounds.outbound_bytes
    }

    /// The tail of a shard was cut: what lies below its floor is known to the log alone.
    pub fn reset(&mut self, slot: usize) -> Then {
        self.slots[slot].stage = Stage::Wanted;
        self.wanted()
    }

    /// What was queued has been read down to `queued` bytes; a reader that lagged may catch up.
    pub fn drained(&mut self, queued: usize) -> Then {
        let catches_up = self.lagging && queued <= self.bounds.outbound_bytes / 4;
        if !catches_up && !self.owes_round {
            return Then::Nothing;
        }
        self.lagging &= !catches_up;
        self.owes_round = false;
        self.wanted()
    }

    /// Whether a backlog may be queued behind `queued` bytes.
    pub fn has_room(&self, queued: usize) -> bool {
        queued < self.bounds.outbound_bytes / 2
    }

    /// The shards that are to be announced now, each with [`Feed::announce`]. Empty: there is nothing to do, and the next
    /// [`Then::CatchUp`] begins the next run of rounds.
    pub fn begin_round(&mut self) -> Vec<usize> {
        let wanted = |slot: &usize| !self.lagging && matches!(self.slots[*slot].stage, Stage::Wanted);
        let slots: Vec<usize> = (0..self.slots.len()).filter(wanted).collect();
        self.catching_up = !slots.is_empty();
        slots
    }

    /// A shard is announced now: from here on its live entries are held. `None`: it is not wanted any more.
    pub fn announce(&mut self, slot: usize) -> Option<Wish> {
        let of_shard = &mut self.slots[slot];
        if self.lagging || !matches!(of_shard.stage, Stage::Wanted) {
            return None;
        }
        of_shard.round = of_shard.round.wrapping_add(1);
        of_shard.stage = Stage::Holding(Box::default());
        Some(Wish { slot, shard: self.shards[slot], round: of_shard.round, taken: of_shard.taken })
    }

    /// Whether an answer to this wish is still waited for.
    pub fn waits_for(&self, wish: Wish) -> bool {
        let slot = &self.slots[wish.slot];
        slot.round == wish.round && matches!(slot.stage, Stage::Holding(_))
    }

    /// The announcement failed or its answer was too old: it is to be made again.
    pub fn unanswered(&mut self, wish: Wish, forget_cursor: bool) {
        if self.waits_for(wish) {
            let slot = &mut self.slots[wish.slot];
            slot.stage = Stage::Wanted;
            if forget_cursor {
                slot.taken = LogIndex(0);
            }
        }
    }

    /// Appends a frame with the first of `rows`; says how many went in. `None`: the answer is void.
    pub fn write_rows(
        &mut self,
        wish: Wish,
        rows: &[ConversationSummary],
        as_of: LogIndex,
        out: &mut BytesMut,
    ) -> Option<usize> {
        if !self.waits_for(wish) {
            return None;
        }
        let (mut conversations, mut bytes) = (Vec::new(), 0);
        for row in rows {
            let row = convert::conversation(row);
            bytes += row.encoded_len();
            conversations.push(row);
            if bytes >= FRAME_BYTES {
                break;
            }
        }
        let count = conversations.len();
        let attached = proto::Attached { conversations, slot: convert::slot(wish.shard), as_of: as_of.0 };
        frame::encode(out, FLAG_PUSH, Operation::Attached.number(), 0, &attached);
        Some(count)
    }

    /// Appends a frame with the first of a backlog's `records` that the connection has not got; says how many were
    /// looked at. It has no step: the cursor moves when all of it is told. `None`: the answer is void.
    pub fn write_backlog(&mut self, wish: Wish, records: &[Record], out: &mut BytesMut) -> Option<usize> {
        if !self.waits_for(wish) {
            return None;
        }
        let start = frame::begin(out, FLAG_PUSH, Operation::Deliver.number(), 0);
        let mut count = 0;
        for stored in records {
            count += 1;
            let head = &stored.head;
            if self.given.get(&head.conversation).is_some_and(|given| head.seq <= *given) {
                continue;
            }
            self.note(head.conversation, head.seq);
            record::put_element(out, head, &stored.body);
            if out.len() - start >= FRAME_BYTES {
                break;
            }
        }
        finish_or_drop(out, start);
        Some(count)
    }

    /// All of an answer is written: what was held and is above it follows, then the word that this shard is caught up.
    pub fn answered(&mut self, wish: Wish, rows: &[ConversationSummary], as_of: LogIndex, out: &mut BytesMut) {
        if !self.waits_for(wish) {
            return;
        }
        for row in rows {
            if self.given.get(&row.conversation).is_none_or(|given| *given < row.head_seq) {
                self.note(row.conversation, row.head_seq);
            }
        }
        let slot = &mut self.slots[wish.slot];
        slot.taken = slot.taken.max(as_of);
        let Stage::Holding(held) = std::mem::replace(&mut slot.stage, Stage::Wanted) else { return };
        if held.overflown {
            return;
        }
        slot.stage = Stage::Live;
        for entry in held.entries.iter().filter(|entry| entry.index > as_of) {
            let _ = self.write_entry(wish.slot, entry.index, entry.spots.iter(), &entry.bytes, out);
            if !matches!(self.slots[wish.slot].stage, Stage::Live) {
                return;
            }
        }
        self.write_caught_up(wish, out);
    }

    fn write_caught_up(&mut self, wish: Wish, out: &mut BytesMut) {
        let all = self.slots.iter().all(|slot| matches!(slot.stage, Stage::Live));
        let step = convert::step(wish.shard, self.own.step(wish.slot, self.slots[wish.slot].taken));
        let caught_up = proto::CaughtUp { step: Some(step), all };
        frame::encode(out, FLAG_PUSH, Operation::CaughtUp.number(), 0, &caught_up);
    }

    /// Writes what of an entry this connection has not got. At a hole the entry stops, and with it the cursor.
    fn write_entry<'a>(
        &mut self,
        slot: usize,
        index: LogIndex,
        spots: impl Iterator<Item = &'a Spot>,
        bytes: &[u8],
        out: &mut BytesMut,
    ) -> Then {
        let mut start = frame::begin(out, FLAG_PUSH, Operation::Deliver.number(), 0);
        for spot in spots {
            match self.check(slot, index, spot) {
                Check::Skip => {}
                Check::Give => {
                    if out.len() - start >= FRAME_BYTES {
                        frame::finish(out, start);
                        start = frame::begin(out, FLAG_PUSH, Operation::Deliver.number(), 0);
                    }
                    out.put_slice(&bytes[spot.start as usize..spot.end as usize]);
                }
                Check::Hole => {
                    finish_or_drop(out, start);
                    self.slots[slot].stage = Stage::Wanted;
                    return self.wanted();
                }
            }
        }
        let taken = &mut self.slots[slot].taken;
        *taken = index.max(*taken);
        if out.len() > start + frame::HEADER_BYTES {
            put_step(out, self.shards[slot], self.own.step(slot, *taken));
        }
        finish_or_drop(out, start);
        Then::Nothing
    }

    /// Whether a record is the next one of its conversation.
    fn check(&mut self, slot: usize, index: LogIndex, spot: &Spot) -> Check {
        match self.given.get_mut(&spot.conversation) {
            Some(given) if spot.seq <= *given => return Check::Skip,
            Some(given) if spot.seq != given.next() && self.slots[slot].holes < HOLES_MAX => {
                self.slots[slot].holes += 1;
                return Check::Hole;
            }
            Some(given) => {
                *given = spot.seq;
                self.slots[slot].holes = 0;
            }
            None => self.note(spot.conversation, spot.seq),
        }
        if spot.origin != self.connection || self.gives_own {
            return Check::Give;
        }
        // Its sender has the answer to the send instead of a copy, or will have.
        self.own.note(slot, index);
        Check::Skip
    }

    fn note(&mut self, conversation: ConversationId, seq: SeqId) {
        if self.given.len() >= GIVEN_MAX && !self.given.contains_key(&conversation) {
            self.given.clear();
        }
        self.given.insert(conversation, seq);
    }

    /// The reader lags: nothing more is queued for it, and the log tells it what it misses from here on.
    fn lag(&mut self) {
        self.lagging = true;
        self.slots.iter_mut().for_each(|slot| slot.stage = Stage::Wanted);
    }

    fn wanted(&mut self) -> Then {
        if self.catching_up || self.lagging {
            return Then::Nothing;
        }
        self.catching_up = true;
        Then::CatchUp
    }
}

enum Check {
    Give,
    Skip,
    Hole,
}

/// Appends field 2 of `Deliver`.
fn put_step(out: &mut BytesMut, shard: ShardId, told: LogIndex) {
    prost::encoding::message::encode(2, &convert::step(shard, told), out);
}

/// Ends a frame; one without a body has nothing to say.
fn finish_or_drop(out: &mut BytesMut, start: usize) {
    if out.len() == start + frame::HEADER_BYTES {
        out.truncate(start);
    } else {
        frame::finish(out, start);
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
