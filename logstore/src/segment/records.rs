//! Records inside a block: runs of one conversation each, heads as differences, message ids apart.
//!
//! ```text
//! plain:  10 bytes a record: the low 80 bits of its client_msg_id, big-endian (a UUIDv7's version, variant and randomness)
//!
//! raw:    +-----------+------------+-----+-----+-----+
//!         | base time | base index | run | run | ... |        "v" is a varint, "d" a varint distance from something
//!         | v         | v          |     |     |     |
//!         +-----------+------------+-----+-----+-----+
//!
//! run:    +--------------+--------------+-----------+------------------+------+------+-----+---+
//!         | conversation | first record | first seq | countable before | item | item | ... | 0 |
//!         | 16 B, BE     | v            | v         | d from seq       |      |      |     |   |
//!         +--------------+--------------+-----------+------------------+------+------+-----+---+
//!
//! item:   +-------+------+-----------------+----------------+-------------+-------------+-----------+------------+------------+
//!         | flags | kind | sender          | time           | index       | id time     | server ms | server low | hash, body |
//!         | u8    | u8   | 8 B, v, nothing | d from the last| d from last | d from time | d, or no  | v          |            |
//!         +-------+------+-----------------+----------------+-------------+-------------+-----------+------------+------------+
//!
//! flags:  7  6  5  4  3  2  1  0
//!         1  0  |  |  |  |  +--+-- 0 body, its hash is derived; 1 hash (8 B) and body; 2 hash, no body; 3 trimmed range
//!               |  |  |  +-------- 1: the kind is text and not stated
//!               |  |  +----------- 1: the server id's time is the record's and not stated
//!               +--+-------------- sender: 0 stated; 1 the last one's; 2 the one before that; 3 its place in the run's list (v)
//! ```
//!
//! A body is `length v, bytes`. A trimmed range states `flags, time, index, seqs v, countable v` and has no message id. "First
//! record" is how many message ids of the block come before the run's. The list of senders begins with the two
//! halves of the conversation id (62 bits each), which in a 1:1 are its users; stated senders are added up to 64.
//! Distances of the first item of a run are from the block's base.
//!
//! What always holds: a run can be read from its first byte alone, given the block's base; a block begins with a run.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::block::Block;
use super::record::{BODY_BYTES_MAX, Item, SealedBody, SealedRecord, TrimmedRange};
use super::varint::{self, Cursor};
use crate::id::{
    BodyHash, ClientMsgId, ConversationId, LogIndex, Ordinal, SeqId, ServerMsgId, ShardId, TimeMs, UserId,
};
use crate::record::RecordKind;

/// Bytes of a client_msg_id that are kept uncompressed.
pub(super) const ID_BYTES: usize = 10;
const ITEM: u8 = 0x80;
const END: u8 = 0;
const UNUSED: u8 = 0x40;
const BODY: u8 = 0b11;
const BODY_DERIVED: u8 = 0;
const BODY_HASHED: u8 = 1;
const BODY_REMOVED: u8 = 2;
const TRIMMED: u8 = 3;
const IS_TEXT: u8 = 1 << 2;
const SERVER_TIME_SAME: u8 = 1 << 3;
const SENDER_SHIFT: u32 = 4;
const SENDER_STATED: u8 = 0;
const SENDER_LAST: u8 = 1;
const SENDER_BEFORE: u8 = 2;
const SENDER_LISTED: u8 = 3;
/// More would be searched longer than their ids take to write.
const SENDERS_MAX: usize = 64;
const SERVER_LOW_BITS: u32 = 22;

/// How most body hashes are made; one that differs is stated.
fn derived_hash(kind: RecordKind, body: &[u8]) -> BodyHash {
    BodyHash(xxh3_64_with_seed(body, u64::from(kind.0)))
}

/// What the next item's differences are from.
#[derive(Clone)]
struct Last {
    next: SeqId,
    ordinal: Ordinal,
    time: TimeMs,
    index: LogIndex,
    senders: Senders,
}

/// The senders of a run, most of whom have sent before.
#[derive(Clone)]
struct Senders {
    last: UserId,
    before: UserId,
    list: Vec<UserId>,
}

impl Senders {
    fn new(conversation: ConversationId) -> Senders {
        let half = |bits: u128| UserId(bits as u64 & (ConversationId::ID_LIMIT - 1));
        let (low, high) = (half(conversation.0), half(conversation.0 >> 64));
        Senders { last: low, before: high, list: Vec::new() }
    }

    fn code(&self, sender: UserId) -> (u8, usize) {
        if sender == self.last {
            return (SENDER_LAST, 0);
        }
        if sender == self.before {
            return (SENDER_BEFORE, 0);
        }
        let place = self.list.iter().position(|listed| *listed == sender);
        place.map_or((SENDER_STATED, 0), |place| (SENDER_LISTED, place))
    }

    fn note(&mut self, code: u8, sender: UserId) {
        if code == SENDER_LAST {
            return;
        }
        if code == SENDER_STATED && self.list.len() < SENDERS_MAX {
            self.list.push(sender);
        }
        self.before = std::mem::replace(&mut self.last, sender);
    }
}

/// Fills one block after the other.
pub(super) struct RecordBlockWriter {
    shard: ShardId,
    pub(super) ids: Vec<u8>,
    pub(super) raw: Vec<u8>,
    base: (TimeMs, LogIndex),
    run: Option<Last>,
}

impl RecordBlockWriter {
    pub(super) fn new(shard: ShardId) -> RecordBlockWriter {
        RecordBlockWriter { shard, ids: Vec::new(), raw: Vec::new(), base: Default::default(), run: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Bytes so far, before compression.
    pub(super) fn len(&self) -> usize {
        self.ids.len() + self.raw.len()
    }

    /// About how long a block would be with this item in it, never less.
    pub(super) fn len_with(&self, item: &Item) -> usize {
        const RUN_AND_HEAD_MAX: usize = 150;
        let body = if let Item::Record(record) = item { record.body.len() } else { 0 };
        self.len() + RUN_AND_HEAD_MAX + body
    }

    /// Begins the run of the conversation of its first item; states where.
    pub(super) fn begin_run(&mut self, first: &Item) -> usize {
        debug_assert!(self.run.is_none());
        if self.raw.is_empty() {
            self.base = (first.time(), first.index());
            varint::put(&mut self.raw, self.base.0.0);
            varint::put(&mut self.raw, self.base.1.0);
        }
        let at = self.raw.len();
        self.raw.extend_from_slice(&first.conversation().to_bytes());
        varint::put(&mut self.raw, (self.ids.len() / ID_BYTES) as u64);
        varint::put(&mut self.raw, first.first().0);
        varint::put_distance(&mut self.raw, first.first().0, first.ordinal_before().0);
        self.run = Some(Last {
            next: first.first(),
            ordinal: first.ordinal_before(),
            time: self.base.0,
            index: self.base.1,
            senders: Senders::new(first.conversation()),
        });
        at
    }

    /// Adds the next item of the run that was begun.
    pub(super) fn push(&mut self, item: &Item) {
        let Some(mut last) = self.run.take() else { unreachable!("the builder begins a run before it pushes") };
        match item {
            Item::Record(record) => self.push_record(record, &mut last),
            Item::Trimmed(range) => self.push_trimmed(range, &last),
        }
        last.next = item.last().next();
        (last.ordinal, last.time, last.index) = (item.ordinal(), item.time(), item.index());
        self.run = Some(last);
    }

    /// Ends the run, if one was begun.
    pub(super) fn end_run(&mut self) {
        if self.run.take().is_some() {
            self.raw.push(END);
        }
    }

    /// Makes room for the next block.
    pub(super) fn clear(&mut self) {
        debug_assert!(self.run.is_none());
        self.ids.clear();
        self.raw.clear();
    }

    fn push_record(&mut self, record: &SealedRecord, last: &mut Last) {
        let hash = record.body.kept().map(|body| derived_hash(record.kind, body));
        let body = match hash {
            None => BODY_REMOVED,
            Some(hash) if hash == record.body_hash => BODY_DERIVED,
            Some(_) => BODY_HASHED,
        };
        let (sender, listed) = last.senders.code(record.sender);
        let (server_time, server_low) = split_server_id(record.server_msg_id);
        let (is_text, is_same) = (record.kind == RecordKind::TEXT, server_time == server_time_of(record.time));
        let flags = if is_text { IS_TEXT } else { 0 } | if is_same { SERVER_TIME_SAME } else { 0 };
        let out = &mut self.raw;
        out.push(ITEM | body | flags | sender << SENDER_SHIFT);
        if !is_text {
            out.push(record.kind.0);
        }
        match sender {
            SENDER_STATED => out.extend_from_slice(&record.sender.0.to_le_bytes()),
            SENDER_LISTED => varint::put(out, listed as u64),
            _ => {}
        }
        last.senders.note(sender, record.sender);
        varint::put_distance(out, last.time.0, record.time.0);
        varint::put_distance(out, last.index.0, record.index.0);
        let id = record.client_msg_id.0.to_be_bytes();
        varint::put_distance(out, record.time.0, (record.client_msg_id.0 >> 80) as u64);
        self.ids.extend_from_slice(&id[16 - ID_BYTES..]);
        if !is_same {
            varint::put_distance(out, server_time_of(record.time), server_time);
        }
        varint::put(out, server_low ^ u64::from(self.shard.0) << 10);
        if body != BODY_DERIVED {
            out.extend_from_slice(&record.body_hash.0.to_le_bytes());
        }
        if let SealedBody::Kept(bytes) = &record.body {
            varint::put(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
    }

    fn push_trimmed(&mut self, range: &TrimmedRange, last: &Last) {
        let out = &mut self.raw;
        out.push(ITEM | TRIMMED);
        varint::put_distance(out, last.time.0, range.time.0);
        varint::put_distance(out, last.index.0, range.index.0);
        varint::put(out, range.last.0 - range.first.0);
        varint::put(out, range.ordinal.0 - range.ordinal_before.0);
    }
}

/// A snowflake's milliseconds since its epoch, and the rest of it.
fn split_server_id(id: ServerMsgId) -> (u64, u64) {
    (id.0 >> SERVER_LOW_BITS, id.0 & ((1 << SERVER_LOW_BITS) - 1))
}

/// The milliseconds that a snowflake made at this time has.
fn server_time_of(time: TimeMs) -> u64 {
    time.0.wrapping_sub(ServerMsgId::EPOCH_MS)
}

/// A block whose records can be read.
pub(super) struct RecordBlock {
    block: Block,
    shard: ShardId,
    base: (TimeMs, LogIndex),
    first_run: usize,
}

impl RecordBlock {
    /// Looks at a verified block; `None` if it does not begin as one of records does.
    pub(super) fn new(block: Block, shard: ShardId) -> Option<RecordBlock> {
        let mut cursor = Cursor::new(&block.bytes[block.plain..], 0);
        let base = (TimeMs(cursor.varint()?), LogIndex(cursor.varint()?));
        let first_run = cursor.at();
        Some(RecordBlock { block, shard, base, first_run })
    }

    /// Where the first run begins.
    pub(super) fn first_run(&self) -> usize {
        self.first_run
    }

    fn raw(&self) -> &[u8] {
        &self.block.bytes[self.block.plain..]
    }

    fn ids(&self) -> &[u8] {
        &self.block.bytes[..self.block.plain]
    }

    /// Reads the run that begins at `at`; `None` if none does. Of records below `from` the body is passed over, as if it had
    /// been removed.
    pub(super) fn run(&self, at: usize, from: SeqId) -> Option<RunReader<'_>> {
        let mut cursor = Cursor::new(self.raw(), at);
        let conversation = ConversationId::from_bytes(cursor.array()?);
        let record = cursor.length()?;
        let next = SeqId(cursor.varint()?);
        let ordinal = Ordinal(cursor.distance(next.0)?);
        let senders = Senders::new(conversation);
        let last = Last { next, ordinal, time: self.base.0, index: self.base.1, senders };
        Some(RunReader { block: self, cursor, conversation, record, last, from })
    }
}

/// Reads the items of a run.
pub(super) struct RunReader<'a> {
    block: &'a RecordBlock,
    cursor: Cursor<'a>,
    conversation: ConversationId,
    /// How many message ids of the block come before the next one.
    record: usize,
    last: Last,
    from: SeqId,
}

/// Bytes of a block that verified make no sense.
#[derive(Debug)]
pub(super) struct Malformed;

impl RunReader<'_> {
    pub(super) fn conversation(&self) -> ConversationId {
        self.conversation
    }

    /// The next item; `None` at the end of the run.
    pub(super) fn next(&mut self) -> Result<Option<Item>, Malformed> {
        let flags = self.cursor.byte().ok_or(Malformed)?;
        if flags == END {
            return Ok(None);
        }
        self.item(flags).map(Some).ok_or(Malformed)
    }

    /// Where the next run begins, if there is one. To be asked at the end of this one.
    pub(super) fn following_run(&self) -> Option<usize> {
        (!self.cursor.is_at_end()).then_some(self.cursor.at())
    }

    fn item(&mut self, flags: u8) -> Option<Item> {
        if flags & (ITEM | UNUSED) != ITEM {
            return None;
        }
        let item = match flags & BODY {
            TRIMMED if flags == ITEM | TRIMMED => Item::Trimmed(self.trimmed()?),
            TRIMMED => return None,
            _ => Item::Record(self.record(flags)?),
        };
        self.last.next = SeqId(item.last().0.checked_add(1)?);
        (self.last.ordinal, self.last.time, self.last.index) = (item.ordinal(), item.time(), item.index());
        Some(item)
    }

    fn trimmed(&mut self) -> Option<TrimmedRange> {
        let time = TimeMs(self.cursor.distance(self.last.time.0)?);
        let index = LogIndex(self.cursor.distance(self.last.index.0)?);
        let first = self.last.next;
        let last = SeqId(first.0.checked_add(self.cursor.varint()?)?);
        let ordinal_before = self.last.ordinal;
        let ordinal = Ordinal(ordinal_before.0.checked_add(self.cursor.varint()?)?);
        Some(TrimmedRange { conversation: self.conversation, first, last, ordinal_before, ordinal, time, index })
    }

    fn record(&mut self, flags: u8) -> Option<SealedRecord> {
        let kind = if flags & IS_TEXT != 0 { RecordKind::TEXT } else { RecordKind(self.cursor.byte()?) };
        let sender = self.sender(flags >> SENDER_SHIFT & 0b11)?;
        let time = TimeMs(self.cursor.distance(self.last.time.0)?);
        let index = LogIndex(self.cursor.distance(self.last.index.0)?);
        let client_msg_id = self.client_msg_id(time)?;
        let server_msg_id = self.server_msg_id(flags, time)?;
        let (body_hash, body) = self.body(flags & BODY, kind)?;
        Some(SealedRecord {
            conversation: self.conversation,
            seq: self.last.next,
            ordinal: Ordinal(self.last.ordinal.0.wrapping_add(u64::from(kind.is_countable()))),
            kind,
            sender,
            server_msg_id,
            client_msg_id,
            body_hash,
            time,
            index,
            body,
        })
    }

    fn sender(&mut self, code: u8) -> Option<UserId> {
        let senders = &self.last.senders;
        let sender = match code {
            SENDER_LAST => senders.last,
            SENDER_BEFORE => senders.before,
            SENDER_LISTED => *senders.list.get(self.cursor.length()?)?,
            _ => UserId(u64::from_le_bytes(self.cursor.array()?)),
        };
        self.last.senders.note(code, sender);
        Some(sender)
    }

    fn client_msg_id(&mut self, time: TimeMs) -> Option<ClientMsgId> {
        let high = self.cursor.distance(time.0)?;
        let mut bytes = [0; 16];
        let low = self.block.ids().get(self.record * ID_BYTES..)?.get(..ID_BYTES)?;
        bytes[16 - ID_BYTES..].copy_from_slice(low);
        self.record += 1;
        (high < 1 << 48).then(|| ClientMsgId(u128::from_be_bytes(bytes) | u128::from(high) << 80))
    }

    fn server_msg_id(&mut self, flags: u8, time: TimeMs) -> Option<ServerMsgId> {
        let same = server_time_of(time);
        let high = if flags & SERVER_TIME_SAME != 0 { same } else { self.cursor.distance(same)? };
        let low = self.cursor.varint()? ^ u64::from(self.block.shard.0) << 10;
        let fits = high < 1 << (64 - SERVER_LOW_BITS) && low < 1 << SERVER_LOW_BITS;
        fits.then_some(ServerMsgId(high << SERVER_LOW_BITS | low))
    }

    fn body(&mut self, code: u8, kind: RecordKind) -> Option<(BodyHash, SealedBody)> {
        let stated = match code {
            BODY_DERIVED => None,
            _ => Some(BodyHash(u64::from_le_bytes(self.cursor.array()?))),
        };
        if code == BODY_REMOVED {
            return Some((stated?, SealedBody::Removed));
        }
        let (start, len) = self.body_place()?;
        if self.last.next < self.from {
            return Some((stated.unwrap_or_default(), SealedBody::Removed));
        }
        let bytes = self.block.block.bytes.slice(start..start + len);
        let hash = stated.unwrap_or_else(|| derived_hash(kind, &bytes));
        Some((hash, SealedBody::Kept(bytes)))
    }

    /// Where in the block a body lies, and its length.
    fn body_place(&mut self) -> Option<(usize, usize)> {
        let len = self.cursor.length().filter(|len| *len <= BODY_BYTES_MAX)?;
        let start = self.block.block.plain + self.cursor.at();
        self.cursor.take(len)?;
        Some((start, len))
    }
}
