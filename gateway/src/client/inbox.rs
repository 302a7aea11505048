//! The rules of receiving, without IO: what comes over connections, in whatever order and however often, goes on to
//! the owner in order of seq_id, each record once, none left out.
//!
//! What always holds:
//! - a record is handed on only when its predecessor was, or is known not to be visible to this user;
//! - the session cursor never passes a record that is not handed on ([`Event::Told`] follows the records it tells);
//! - a row older than one held is ignored;
//! - what is held back is bounded: beyond, it is dropped and read again from the server's history.
//!
//! Holes are due for filling only after a grace, because most are no holes: the ack of an own message and the push of
//! its predecessor travel apart. Time is an argument (milliseconds on any steady clock).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hashbrown::HashMap;
use logstore::id::{ConversationId, Ordinal, SeqId, UserId};

use super::event::{Event, Progress, unhex};
use super::{Conversation, HistoryPage, Record, Step};
use crate::wire::proto;

/// Widest range of one fill: far below what servers refuse as absurd.
const FILL_RECORDS_MAX: u64 = 10_000;
/// Time given to records that are on their way before a hole is filled by a read.
pub const HOLE_GRACE_MS: u64 = 100;
/// Time given to a server that does not know yet what it must know.
pub const BEHIND_RETRY_MS: u64 = 200;
/// Reads of one hole that told nothing new before the connection is given up.
pub const BEHIND_RETRIES_MAX: u32 = 25;
/// Records read of a conversation whose newest should have come and did not.
const NEWEST_RECORDS: u64 = 200;

/// What is wanted of the time before the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// Nothing of conversations that are new here: their rows, and records from now on. What [`Progress`] knows is completed.
    Skip,
    /// What was missed since the cursor; of conversations that are new here, the newest.
    Newest,
    /// Everything this user may see.
    All,
}

/// A range of history that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Of which conversation.
    pub conversation: ConversationId,
    /// First missing.
    pub from: SeqId,
    /// Last missing.
    pub to: SeqId,
    /// The connection it was wanted on; an answer of an earlier one is ignored.
    generation: u64,
}

/// The server keeps answering less than it has already told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server does not have records {from} to {to} of {conversation}, of which it told")]
pub struct StillBehind {
    /// Of which conversation.
    pub conversation: ConversationId,
    /// First missing.
    pub from: SeqId,
    /// Last missing.
    pub to: SeqId,
}

/// What a device has received.
pub struct Inbox {
    backlog: Backlog,
    user: UserId,
    history: Bytes,
    slots: BTreeMap<u32, Slot>,
    threads: HashMap<ConversationId, Thread>,
    /// Holes in the order in which they are to be filled.
    due: BTreeSet<(u64, ConversationId)>,
    holes: usize,
    held: usize,
    held_max: usize,
    /// Own messages of conversations of which this connection has not told yet.
    early: Vec<Record>,
    attach: Attach,
    /// `CaughtUp` was said once.
    past_is_over: bool,
    generation: u64,
}

/// Where this connection is in telling what was before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attach {
    Telling,
    Told,
    Announced,
}

#[derive(Default)]
struct Slot {
    /// Handed on up to here.
    told: u64,
    /// Received up to here.
    seen: u64,
    holes: usize,
    /// Conversations whose rows came with this connection, with the first record they show.
    rows: Vec<(ConversationId, u64)>,
}

/// One conversation.
#[derive(Default)]
struct Thread {
    /// The record to hand on next; 0: the first that comes decides.
    next: u64,
    /// Of the record before `next`; 0: not known.
    ordinal: u64,
    /// The newest record that is known to exist.
    head: u64,
    /// Of the newest row.
    as_of: u64,
    slot: Option<u32>,
    hole: Option<Box<Hole>>,
}

/// Something is missing at `next`.
struct Hole {
    held: BTreeMap<u64, Record>,
    due_ms: u64,
    filling: bool,
    retries: u32,
}

impl Inbox {
    /// Begins where `progress` ends; holds back `held_max` records at most.
    pub fn new(backlog: Backlog, progress: &Progress, held_max: usize) -> Inbox {
        let mut inbox = Inbox {
            backlog,
            user: UserId(0),
            history: unhex(&progress.history).unwrap_or_default().into(),
            slots: BTreeMap::new(),
            threads: HashMap::new(),
            due: BTreeSet::new(),
            holes: 0,
            held: 0,
            held_max,
            early: Vec::new(),
            attach: Attach::Telling,
            past_is_over: false,
            generation: 0,
        };
        for (&slot, &value) in &progress.steps {
            inbox.slots.insert(slot, Slot { told: value, seen: value, ..Slot::default() });
        }
        for (name, &last) in &progress.conversations {
            if let Ok(id) = u128::from_str_radix(name, 16) {
                inbox.threads.insert(ConversationId(id), Thread { next: last + 1, head: last, ..Thread::default() });
            }
        }
        inbox
    }

    /// The session cursor for the next `hello`; `None`: nothing was ever told.
    pub fn cursor(&self) -> Option<proto::Cursor> {
        if self.history.is_empty() {
            return None;
        }
        let step = |(&slot, at): (&u32, &Slot)| proto::CursorStep { slot, value: at.told };
        Some(proto::Cursor { history: self.history.clone(), steps: self.slots.iter().map(step).collect() })
    }

    /// A new connection stands: what was held is forgotten, because everything above the cursor comes again.
    pub fn connected(&mut self, user: UserId, history: &Bytes) {
        self.user = user;
        self.generation += 1;
        self.attach = Attach::Telling;
        self.forget_held();
        self.early.clear();
        if self.history.is_empty() {
            self.history = history.clone();
        }
    }

    /// Records came, and with them the device is told up to `step`.
    pub fn deliver(&mut self, records: Vec<Record>, step: Option<Step>, now_ms: u64, out: &mut Vec<Event>) {
        let slot = step.map(|step| step.slot);
        for record in records {
            self.accept(record, slot, now_ms, out);
        }
        if let Some(step) = step {
            self.see(step, out);
        }
        self.announce(out);
    }

    /// A message of this device was stored.
    pub fn sent(&mut self, record: Record, now_ms: u64, out: &mut Vec<Event>) {
        if self.attach == Attach::Telling && !self.threads.contains_key(&record.conversation) {
            self.early.push(record);
            return;
        }
        self.accept(record, None, now_ms, out);
        self.announce(out);
    }

    /// Rows that changed since the cursor, before anything live of their slot.
    pub fn attached(&mut self, rows: Vec<Conversation>, slot: u32, out: &mut Vec<Event>) {
        for row in rows {
            if self.take_row(&row, slot) {
                out.push(Event::Row(row));
            }
        }
    }

    /// Everything up to `step` has been sent; `all`: of every slot.
    pub fn caught_up(&mut self, step: Step, all: bool, now_ms: u64, out: &mut Vec<Event>) {
        let rows = std::mem::take(&mut self.slots.entry(step.slot).or_default().rows);
        for (conversation, visible_from) in rows {
            self.expect_head(conversation, visible_from, now_ms);
        }
        self.see(step, out);
        if all && self.attach == Attach::Telling {
            self.attach = Attach::Told;
            for record in std::mem::take(&mut self.early) {
                self.accept(record, None, now_ms, out);
            }
        }
        self.announce(out);
    }

    /// The cursor belonged to another history.
    pub fn reset(&mut self, history: Bytes, forks: Vec<(ConversationId, SeqId)>, out: &mut Vec<Event>) {
        self.forget_held();
        self.generation += 1;
        self.history = history;
        self.slots.clear();
        let mut kept = HashMap::new();
        for &(conversation, fork) in &forks {
            if let Some(thread) = self.threads.get(&conversation) {
                let next = thread.next.min(fork.0 + 1);
                kept.insert(conversation, Thread { next, head: next.saturating_sub(1), ..Thread::default() });
            }
        }
        self.threads = kept;
        out.push(Event::Reset { history: self.history.clone(), keep: forks });
    }

    /// When the next hole is due.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.due.first().map(|&(due_ms, _)| due_ms)
    }

    /// A range to read now, if a hole is due.
    pub fn take_fill(&mut self, now_ms: u64) -> Option<Fill> {
        let &(due_ms, conversation) = self.due.first()?;
        if due_ms > now_ms {
            return None;
        }
        self.due.pop_first();
        let thread = self.threads.get_mut(&conversation)?;
        // What a wider hole has beyond is asked for next.
        let (from, to) = (thread.next, thread.missing_upto().min(thread.next + FILL_RECORDS_MAX - 1));
        thread.hole.as_mut()?.filling = true;
        Some(Fill { conversation, from: SeqId(from), to: SeqId(to), generation: self.generation })
    }

    /// The answer to a fill. A page that ends early is asked on; absent records inside a complete page are not
    /// visible; a head below what was told of is a server that is behind, and is asked again.
    pub fn filled(
        &mut self,
        fill: Fill,
        page: HistoryPage,
        now_ms: u64,
        out: &mut Vec<Event>,
    ) -> Result<(), StillBehind> {
        if fill.generation != self.generation {
            return Ok(());
        }
        let Some(thread) = self.threads.get_mut(&fill.conversation) else { return Ok(()) };
        let before = thread.next;
        for record in page.records {
            if record.conversation == fill.conversation && record.seq_id <= fill.to && record.seq_id.0 >= thread.next {
                thread.hand_on(record, out);
            }
        }
        let behind = match page.next_from {
            Some(next) => {
                thread.skip_to(next.0.min(fill.to.0 + 1));
                thread.next == before
            }
            None if page.head < fill.to => true,
            None => {
                thread.skip_to(fill.to.0 + 1);
                false
            }
        };
        let result = if behind { thread.retry(fill) } else { Ok(()) };
        let due_ms = if behind { now_ms + BEHIND_RETRY_MS } else { now_ms };
        self.settle_hole(fill.conversation, true, due_ms, out);
        self.announce(out);
        result
    }

    /// The server will never show what a fill asked for (no longer a member).
    pub fn invisible(&mut self, fill: Fill, now_ms: u64, out: &mut Vec<Event>) {
        let nothing = HistoryPage { records: Vec::new(), head: fill.to, next_from: None };
        // A complete page is never behind.
        let _ = self.filled(fill, nothing, now_ms, out);
    }

    /// A fill got no answer; it is due again.
    pub fn unanswered(&mut self, fill: Fill, now_ms: u64, out: &mut Vec<Event>) {
        if fill.generation == self.generation {
            self.settle_hole(fill.conversation, true, now_ms + BEHIND_RETRY_MS, out);
        }
    }

    fn accept(&mut self, record: Record, slot: Option<u32>, now_ms: u64, out: &mut Vec<Event>) {
        let conversation = record.conversation;
        let seq = record.seq_id.0;
        let first = self.first_of_new_thread(&record);
        let thread = self.threads.entry(conversation).or_insert_with(|| Thread { next: first, ..Thread::default() });
        if let Some(slot) = slot {
            thread.belong_to(slot, &mut self.slots);
        }
        thread.head = thread.head.max(seq);
        if thread.next == 0 {
            thread.next = seq;
        }
        if seq < thread.next {
            return;
        }
        if seq == thread.next {
            thread.hand_on(record, out);
            if thread.hole.is_some() {
                self.settle_hole(conversation, false, now_ms + HOLE_GRACE_MS, out);
            }
            return;
        }
        self.hold(record, now_ms);
    }

    /// Where a conversation begins of which nothing was told before `record`: while the connection tells what was,
    /// the first that comes; later it is new, and all of it is wanted, or what is from this user's joining on.
    fn first_of_new_thread(&self, record: &Record) -> u64 {
        let joins = record.membership.as_ref().is_some_and(|change| change.joined.contains(&self.user));
        match (self.backlog, self.attach) {
            (Backlog::All, _) => 1,
            (_, Attach::Telling) if !self.skips_no_more() => 0,
            _ if joins => record.seq_id.0,
            _ => 1,
        }
    }

    /// Whether the past that was to be skipped is over: what begins now is wanted from its beginning.
    fn skips_no_more(&self) -> bool {
        matches!(self.backlog, Backlog::Skip) && self.past_is_over
    }

    fn hold(&mut self, record: Record, now_ms: u64) {
        let conversation = record.conversation;
        self.open_hole(conversation, now_ms + HOLE_GRACE_MS);
        let room = self.held < self.held_max;
        let Some(hole) = self.threads.get_mut(&conversation).and_then(|thread| thread.hole.as_mut()) else { return };
        if !room {
            // The head is noted: the fill reads what is dropped here.
            self.held -= hole.held.len();
            hole.held.clear();
        } else if hole.held.insert(record.seq_id.0, record).is_none() {
            self.held += 1;
        }
    }

    /// The row, unless one as new is held.
    fn take_row(&mut self, row: &Conversation, slot: u32) -> bool {
        let is_new = !self.threads.contains_key(&row.conversation);
        let thread = self.threads.entry(row.conversation).or_default();
        if row.as_of < thread.as_of {
            return false;
        }
        thread.as_of = row.as_of;
        thread.head = thread.head.max(row.head.0);
        thread.belong_to(slot, &mut self.slots);
        match self.backlog {
            Backlog::Skip if is_new && !self.past_is_over => thread.next = row.head.0 + 1,
            // Skipping, it began while this device was away: none of it is the past that was to be skipped.
            Backlog::Skip | Backlog::All if is_new => thread.next = row.visible_from.0.max(1),
            _ => {}
        }
        self.slots.entry(slot).or_default().rows.push((row.conversation, row.visible_from.0));
        true
    }

    /// Whatever a row promised must be here now; what is not is a hole, also when nothing follows it.
    fn expect_head(&mut self, conversation: ConversationId, visible_from: u64, now_ms: u64) {
        let Some(thread) = self.threads.get_mut(&conversation) else { return };
        if thread.next == 0 {
            thread.next = visible_from.max(thread.head.saturating_sub(NEWEST_RECORDS - 1)).max(1);
        }
        if thread.next <= thread.head {
            self.open_hole(conversation, now_ms);
        }
    }

    fn open_hole(&mut self, conversation: ConversationId, due_ms: u64) {
        let Some(thread) = self.threads.get_mut(&conversation) else { return };
        if thread.hole.is_some() {
            return;
        }
        thread.hole = Some(Box::new(Hole { held: BTreeMap::new(), due_ms, filling: false, retries: 0 }));
        self.due.insert((due_ms, conversation));
        self.holes += 1;
        if let Some(slot) = thread.slot {
            self.slots.entry(slot).or_default().holes += 1;
        }
    }

    /// Hands on what is held and follows; then the hole is closed, or due again at `due_ms`, unless a read of it is
    /// under way (`read_ended`: it was until now).
    fn settle_hole(&mut self, conversation: ConversationId, read_ended: bool, due_ms: u64, out: &mut Vec<Event>) {
        let Some(thread) = self.threads.get_mut(&conversation) else { return };
        let Some(mut hole) = thread.hole.take() else { return };
        let held_before = hole.held.len();
        while let Some(first) = hole.held.first_entry() {
            if *first.key() > thread.next {
                break;
            }
            let record = first.remove();
            if record.seq_id.0 == thread.next {
                thread.hand_on(record, out);
            }
        }
        self.held -= held_before - hole.held.len();
        if thread.next <= thread.head {
            if read_ended || !hole.filling {
                self.due.remove(&(hole.due_ms, conversation));
                self.due.insert((due_ms, conversation));
                hole.due_ms = due_ms;
                hole.filling = false;
            }
            thread.hole = Some(hole);
            return;
        }
        let slot = thread.slot;
        self.due.remove(&(hole.due_ms, conversation));
        self.holes -= 1;
        if let Some(slot) = slot {
            self.slots.entry(slot).or_default().holes -= 1;
            self.tell(slot, out);
        }
    }

    fn forget_held(&mut self) {
        for thread in self.threads.values_mut() {
            thread.hole = None;
            thread.slot = None;
        }
        for slot in self.slots.values_mut() {
            *slot = Slot { told: slot.told, seen: slot.told, ..Slot::default() };
        }
        self.due.clear();
        self.holes = 0;
        self.held = 0;
    }

    fn see(&mut self, step: Step, out: &mut Vec<Event>) {
        let slot = self.slots.entry(step.slot).or_default();
        slot.seen = slot.seen.max(step.value);
        self.tell(step.slot, out);
    }

    /// Moves a slot's cursor to what was received, if all of it was handed on.
    fn tell(&mut self, slot: u32, out: &mut Vec<Event>) {
        let Some(at) = self.slots.get_mut(&slot) else { return };
        if at.holes == 0 && at.told < at.seen {
            at.told = at.seen;
            out.push(Event::Told(Step { slot, value: at.told }));
        }
    }

    fn announce(&mut self, out: &mut Vec<Event>) {
        if self.attach == Attach::Told && self.holes == 0 {
            self.attach = Attach::Announced;
            self.past_is_over = true;
            out.push(Event::CaughtUp);
        }
    }
}

impl Thread {
    /// Notes which part of the cursor waits while a hole is open here.
    fn belong_to(&mut self, slot: u32, slots: &mut BTreeMap<u32, Slot>) {
        if self.slot.is_none() {
            self.slot = Some(slot);
            slots.entry(slot).or_default().holes += usize::from(self.hole.is_some());
        }
    }

    /// The last record before the first one held, or the newest there is.
    fn missing_upto(&self) -> u64 {
        let held = self.hole.as_ref().and_then(|hole| hole.held.first_key_value());
        held.map_or(self.head, |(&seq, _)| seq - 1)
    }

    fn hand_on(&mut self, mut record: Record, out: &mut Vec<Event>) {
        let follows = record.seq_id.0 == self.next && self.ordinal != 0;
        if record.ordinal == Ordinal(0) && follows {
            record.ordinal = Ordinal(self.ordinal + u64::from(record.kind.is_countable()));
        }
        self.ordinal = record.ordinal.0;
        self.next = record.seq_id.0 + 1;
        self.head = self.head.max(record.seq_id.0);
        out.push(Event::Record(record));
    }

    /// Nothing visible is before `next`.
    fn skip_to(&mut self, next: u64) {
        if next > self.next {
            self.next = next;
            self.ordinal = 0;
        }
    }

    fn retry(&mut self, fill: Fill) -> Result<(), StillBehind> {
        let Some(hole) = self.hole.as_mut() else { return Ok(()) };
        hole.retries += 1;
        if hole.retries <= BEHIND_RETRIES_MAX {
            return Ok(());
        }
        Err(StillBehind { conversation: fill.conversation, from: fill.from, to: fill.to })
    }
}

#[cfg(test)]
mod tests;
