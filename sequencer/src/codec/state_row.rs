//! The values of sealed rows. Drawn in `docs/format.md`.
//!
//! What always holds: a value begins with its version and is whole, never a difference; decoding never panics whatever
//! the bytes, takes no memory before it has checked a length, and accepts only what encoding could have written.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use logstore::id::{Bucket, ClientMsgId, HistoryId, LogIndex, Ordinal, SegmentOrdinal, SeqId, ShardId, TimeMs, UserId};
use logstore::segment::Level;

use super::Malformed;
use super::command::{put_effect, read_effect};
use super::field::{Fields, Sink};
use crate::Effect;
use crate::state::{
    EndedGeneration, ErasedRow, Erasure, Erasures, Figures, InboxRow, Interval, Key, Layout, MemberRow, MergedSpan,
    NameRow, OutboxHead, OwnRow, Peer, RelationRow, Role, SessionRow, ShardRow, Trimmed, UserRow,
};
use crate::store::Row;

/// The version of most rows.
const VERSION: u8 = 1;
/// The version of a row that says what a row of version 1 had no place for, behind that.
const VERSION_MORE: u8 = 2;
/// The version of a conversation's row that says where an import of it is, behind that.
const VERSION_IMPORT: u8 = 3;
/// Room for most rows at once.
const ROW_BYTES: usize = 128;
/// An effect takes at least its kind, an id and a length.
const EFFECT_LEN_MIN: usize = 13;

/// A row that is sealed as one value.
pub(crate) trait StateRow: Sized {
    /// Writes the fields after the version.
    fn put(&self, out: &mut BytesMut);

    /// Reads what `put` writes.
    fn read(f: &mut Fields<'_>) -> Result<Self, Malformed>;

    /// Whether it says what version 1 has no place for.
    fn has_more(&self) -> bool {
        false
    }

    /// Writes that.
    fn put_more(&self, _out: &mut BytesMut) {}

    /// Reads what `put_more` writes.
    fn read_more(&mut self, f: &mut Fields<'_>) -> Result<(), Malformed> {
        f.fail("a row of version 1")
    }

    /// Whether it says where an import is.
    fn has_import(&self) -> bool {
        false
    }

    /// Writes that.
    fn put_import(&self, _out: &mut BytesMut) {}

    /// Reads what `put_import` writes.
    fn read_import(&mut self, f: &mut Fields<'_>) -> Result<(), Malformed> {
        f.fail("a row of a version that is known")
    }

    /// The value's bytes.
    fn encode(&self) -> Bytes {
        if self.has_import() {
            value(VERSION_IMPORT, |out| {
                self.put(out);
                self.put_more(out);
                self.put_import(out);
            })
        } else if self.has_more() {
            value(VERSION_MORE, |out| {
                self.put(out);
                self.put_more(out);
            })
        } else {
            value(VERSION, |out| self.put(out))
        }
    }

    /// Reads a value after its version.
    fn decode(version: u8, f: &mut Fields<'_>) -> Result<Self, Malformed> {
        let mut row = Self::read(f)?;
        if version == VERSION_MORE || version == VERSION_IMPORT {
            row.read_more(f)?;
            if !row.has_more() {
                return f.fail("more than version 1 says");
            }
        }
        if version == VERSION_IMPORT {
            row.read_import(f)?;
        }
        Ok(row)
    }

    /// Reads a whole value.
    fn read_value(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut f = Fields::new(bytes, 0);
        let version = read_version(&mut f)?;
        let row = Self::decode(version, &mut f)?;
        f.finish()?;
        Ok(row)
    }
}

/// The value of an outbox page.
pub(crate) fn put_outbox_page<'a>(effects: impl ExactSizeIterator<Item = &'a Arc<Effect>>) -> Bytes {
    value(VERSION, |out| {
        out.count(effects.len());
        effects.for_each(|effect| put_effect(out, effect));
    })
}

/// The value of a note that a conversation was trimmed.
pub(crate) fn put_trimmed(before: SeqId) -> Bytes {
    value(VERSION, |out| out.u64(before.0))
}

/// The value of a place: its key says all.
pub(crate) fn put_place() -> Bytes {
    Bytes::from_static(&[VERSION])
}

/// The value of a note that a message was recalled.
pub(crate) fn put_recalled() -> Bytes {
    Bytes::from_static(&[VERSION])
}

impl Row {
    /// The value's bytes.
    pub fn encode(&self) -> Bytes {
        match self {
            Row::Conversation(row) => row.encode(),
            Row::Member(row) => row.encode(),
            Row::User(row) => row.encode(),
            Row::Name(row) => row.encode(),
            Row::Relation(row) => row.encode(),
            Row::Outbox(row) => row.encode(),
            Row::OutboxPage(effects) => value(VERSION, |out| out.list(effects, put_effect)),
            Row::Inbox(row) => row.encode(),
            Row::Shard(row) => row.encode(),
            Row::Trimmed(before) => put_trimmed(*before),
            Row::Recalled => put_recalled(),
            Row::Erased(row) => row.encode(),
            Row::Place => put_place(),
            Row::Figures(row) => row.encode(),
        }
    }

    /// The row of a key from its value's bytes.
    pub fn decode(key: &Key, bytes: &[u8]) -> Result<Row, Malformed> {
        let mut f = Fields::new(bytes, 0);
        let version = read_version(&mut f)?;
        if version == VERSION_IMPORT && !matches!(key, Key::Conversation(_)) {
            return Err(Malformed { offset: 0, what: "a row of a version that is known" });
        }
        let row = match key {
            Key::Conversation(_) => Row::Conversation(StateRow::decode(version, &mut f)?),
            Key::Member(..) => Row::Member(StateRow::decode(version, &mut f)?),
            Key::User(_) => Row::User(StateRow::decode(version, &mut f)?),
            Key::Name(_) => Row::Name(StateRow::decode(version, &mut f)?),
            Key::Relation(..) => Row::Relation(StateRow::decode(version, &mut f)?),
            Key::Outbox(_) => Row::Outbox(StateRow::decode(version, &mut f)?),
            Key::OutboxPage(..) if version == VERSION => Row::OutboxPage(f.list(EFFECT_LEN_MIN, read_effect)?),
            Key::OutboxPage(..) => return f.fail("a row of version 1"),
            Key::Inbox(_) => Row::Inbox(StateRow::decode(version, &mut f)?),
            Key::Shard => Row::Shard(Box::new(StateRow::decode(version, &mut f)?)),
            Key::Erased(_) => Row::Erased(StateRow::decode(version, &mut f)?),
            Key::Trimmed(..) if version == VERSION => Row::Trimmed(SeqId(f.u64()?)),
            Key::Recalled(..) if version == VERSION => Row::Recalled,
            Key::Place(..) if version == VERSION => Row::Place,
            Key::Trimmed(..) | Key::Recalled(..) | Key::Place(..) => return f.fail("a row of version 1"),
            Key::Figures => Row::Figures(StateRow::decode(version, &mut f)?),
        };
        f.finish()?;
        Ok(row)
    }
}

fn read_version(f: &mut Fields<'_>) -> Result<u8, Malformed> {
    match f.u8()? {
        version @ (VERSION | VERSION_MORE | VERSION_IMPORT) => Ok(version),
        _ => Err(Malformed { offset: 0, what: "a row of a version that is known" }),
    }
}

impl StateRow for MemberRow {
    fn put(&self, out: &mut BytesMut) {
        out.u8(match self.role {
            Role::Owner => 1,
            Role::Admin => 2,
            Role::Member => 3,
        });
        out.u64(self.visible_from.0);
        out.u64(self.delivered.0);
        out.u64(self.read.0);
        out.u64(self.read_ordinal.0);
        out.u64(self.join_ordinal.0);
        out.u64(self.left_at.0.0);
        out.u64(self.left_at.1.0);
        out.u64(self.changed_at.0);
        out.list(&self.intervals, |out, interval| {
            out.u64(interval.join.0);
            // No interval ends before record 2, so that 0 says that it is open.
            out.u64(interval.end.map_or(0, |end| end.0));
        });
    }

    fn read(f: &mut Fields<'_>) -> Result<MemberRow, Malformed> {
        let role = match f.u8()? {
            1 => Role::Owner,
            2 => Role::Admin,
            3 => Role::Member,
            _ => return f.fail("a role this version knows"),
        };
        Ok(MemberRow {
            role,
            visible_from: SeqId(f.u64()?),
            delivered: SeqId(f.u64()?),
            read: SeqId(f.u64()?),
            read_ordinal: Ordinal(f.u64()?),
            join_ordinal: Ordinal(f.u64()?),
            left_at: (Ordinal(f.u64()?), TimeMs(f.u64()?)),
            changed_at: LogIndex(f.u64()?),
            intervals: f.list(16, read_interval)?.into(),
        })
    }
}

fn read_interval(f: &mut Fields<'_>) -> Result<Interval, Malformed> {
    let (join, end) = (SeqId(f.u64()?), SeqId(f.u64()?));
    Ok(Interval { join, end: (end != SeqId(0)).then_some(end) })
}

impl StateRow for UserRow {
    fn put(&self, out: &mut BytesMut) {
        out.u64(self.created.0);
        out.text(&self.name);
        out.text(&self.password_phc);
        out.list(&self.sessions, |out, session| {
            out.u64(session.session);
            out.put(&session.refresh_hash);
            out.put(&session.previous_hash);
            out.u64(session.expires.0);
        });
    }

    fn read(f: &mut Fields<'_>) -> Result<UserRow, Malformed> {
        Ok(UserRow {
            created: TimeMs(f.u64()?),
            name: f.text()?,
            password_phc: f.text()?,
            sessions: f.list(80, read_session)?,
        })
    }
}

fn read_session(f: &mut Fields<'_>) -> Result<SessionRow, Malformed> {
    Ok(SessionRow {
        session: f.u64()?,
        refresh_hash: f.array("a hash")?,
        previous_hash: f.array("a hash")?,
        expires: TimeMs(f.u64()?),
    })
}

impl StateRow for NameRow {
    fn put(&self, out: &mut BytesMut) {
        out.u64(self.user.0);
        out.u128(self.request.0);
        out.bool(self.confirmed);
        out.u64(self.claimed.0);
    }

    fn read(f: &mut Fields<'_>) -> Result<NameRow, Malformed> {
        Ok(NameRow {
            user: UserId(f.u64()?),
            request: ClientMsgId(f.u128()?),
            confirmed: f.bool()?,
            claimed: TimeMs(f.u64()?),
        })
    }
}

impl StateRow for RelationRow {
    fn put(&self, out: &mut BytesMut) {
        out.u8(match self.peer {
            Peer::Asked => 1,
            Peer::Known => 2,
            Peer::Unknown => 3,
        });
    }

    fn read(f: &mut Fields<'_>) -> Result<RelationRow, Malformed> {
        let peer = match f.u8()? {
            1 => Peer::Asked,
            2 => Peer::Known,
            3 => Peer::Unknown,
            _ => return f.fail("what is known of a peer"),
        };
        Ok(RelationRow { peer })
    }
}

impl StateRow for OutboxHead {
    fn put(&self, out: &mut BytesMut) {
        out.u64(self.first);
        out.u64(self.count);
    }

    fn read(f: &mut Fields<'_>) -> Result<OutboxHead, Malformed> {
        let head = OutboxHead { first: f.counter()?, count: f.u64()? };
        let fits = head.first > 0 && head.first.checked_add(head.count).is_some();
        if fits { Ok(head) } else { f.fail("numbers from 1 on") }
    }
}

impl StateRow for InboxRow {
    fn put(&self, out: &mut BytesMut) {
        out.u64(self.incarnation);
        out.u64(self.last);
    }

    fn read(f: &mut Fields<'_>) -> Result<InboxRow, Malformed> {
        Ok(InboxRow { incarnation: f.u64()?, last: f.counter()? })
    }
}

impl StateRow for Figures {
    fn put(&self, out: &mut BytesMut) {
        out.u64(self.conversations);
    }

    fn read(f: &mut Fields<'_>) -> Result<Figures, Malformed> {
        Ok(Figures { conversations: f.u64()? })
    }
}

impl StateRow for ShardRow {
    fn put(&self, out: &mut BytesMut) {
        out.u64(self.applied.0);
        out.u64(self.generation);
        out.option(self.floor.as_ref(), |out, floor| out.u64(floor.0));
        out.list(&self.window, |out, ended| {
            out.u64(ended.number);
            out.u64(ended.after.0);
            out.u64(ended.ended.0);
        });
        self.own.put(out);
    }

    fn read(f: &mut Fields<'_>) -> Result<ShardRow, Malformed> {
        Ok(ShardRow {
            applied: LogIndex(f.counter()?),
            generation: f.counter()?,
            floor: f.option(|f| f.u64().map(TimeMs))?,
            window: f.list(24, read_ended)?,
            own: OwnRow::read(f)?,
        })
    }

    fn has_more(&self) -> bool {
        self.own.has_more()
    }

    fn put_more(&self, out: &mut BytesMut) {
        self.own.put_more(out);
    }

    fn read_more(&mut self, f: &mut Fields<'_>) -> Result<(), Malformed> {
        self.own.read_more(f)
    }
}

fn read_ended(f: &mut Fields<'_>) -> Result<EndedGeneration, Malformed> {
    Ok(EndedGeneration { number: f.counter()?, after: LogIndex(f.u64()?), ended: TimeMs(f.u64()?) })
}

impl StateRow for OwnRow {
    fn put(&self, out: &mut BytesMut) {
        out.u16(self.shard.0);
        out.option(self.history.as_ref(), |out, history| out.u128(history.0));
        out.u64(self.incarnation);
        out.u64(self.table_epoch);
        out.list(&self.table, |out, (from, to, shard)| {
            out.u16(from.0);
            out.u16(to.0);
            out.u16(shard.0);
        });
        out.u64(self.time.0);
        for (ms, counter) in [self.last_record, self.last_user] {
            out.u64(ms);
            out.u16(counter);
        }
        out.u64(self.stored);
        out.u64(self.accepted);
        let plain: Vec<_> = self.layout.spans().iter().filter(|span| span.drops.0 == 0).collect();
        out.list(&plain, |out, span| put_merged_span(out, span));
    }

    fn read(f: &mut Fields<'_>) -> Result<OwnRow, Malformed> {
        let mut own = OwnRow::new(ShardId(f.u16()?));
        own.history = f.option(|f| f.u128().map(HistoryId))?;
        own.incarnation = f.u64()?;
        let epoch = f.u64()?;
        own.set_table(epoch, f.list(6, |f| Ok((Bucket(f.u16()?), Bucket(f.u16()?), ShardId(f.u16()?))))?);
        own.time = TimeMs(f.u64()?);
        own.last_record = read_last_id(f, OwnRow::RECORDS_PER_MS)?;
        own.last_user = read_last_id(f, OwnRow::USERS_PER_MS)?;
        own.stored = f.u64()?;
        own.accepted = f.u64()?;
        own.layout = match Layout::of(f.list(25, read_merged_span)?) {
            Some(layout) => layout,
            None => return f.fail("merged spans that ascend"),
        };
        Ok(own)
    }

    fn has_more(&self) -> bool {
        let drops = self.layout.spans().iter().any(|span| span.drops.0 > 0);
        drops || !self.erasures.list().is_empty() || self.trimmed != Trimmed::default()
    }

    fn put_more(&self, out: &mut BytesMut) {
        out.list(self.erasures.list(), |out, erasure| {
            out.u64(erasure.user.0);
            out.u64(erasure.upto.0);
            out.u64(erasure.asked.0);
        });
        [self.trimmed.day, self.trimmed.on_day, self.trimmed.ever].into_iter().for_each(|number| out.u64(number));
        let dropping: Vec<_> = self.layout.spans().iter().filter(|span| span.drops.0 > 0).collect();
        out.list(&dropping, |out, span| {
            put_merged_span(out, span);
            out.u64(span.drops.0);
            out.u64(span.heads_above.0);
        });
    }

    fn read_more(&mut self, f: &mut Fields<'_>) -> Result<(), Malformed> {
        self.erasures = match Erasures::of(f.list(24, read_erasure)?) {
            Some(erasures) => erasures,
            None => return f.fail("erasures that ascend"),
        };
        self.trimmed = Trimmed { day: f.u64()?, on_day: f.counter()?, ever: f.counter()? };
        let mut spans = f.list(41, read_dropping_span)?;
        let ascends = spans.windows(2).all(|pair| pair[0].first < pair[1].first);
        spans.extend_from_slice(self.layout.spans());
        spans.sort_unstable_by_key(|span| span.first);
        match Layout::of(spans).filter(|_| ascends) {
            Some(layout) => self.layout = layout,
            None => return f.fail("merged spans that ascend"),
        }
        Ok(())
    }
}

impl StateRow for ErasedRow {
    fn put(&self, out: &mut BytesMut) {
        out.u64(self.upto.0);
        out.u64(self.asked.0);
    }

    fn read(f: &mut Fields<'_>) -> Result<ErasedRow, Malformed> {
        Ok(ErasedRow { upto: LogIndex(f.u64()?), asked: TimeMs(f.u64()?) })
    }
}

fn read_erasure(f: &mut Fields<'_>) -> Result<Erasure, Malformed> {
    Ok(Erasure { user: UserId(f.u64()?), upto: LogIndex(f.u64()?), asked: TimeMs(f.u64()?) })
}

fn read_merged_span(f: &mut Fields<'_>) -> Result<MergedSpan, Malformed> {
    let (first, last) = (SegmentOrdinal(f.counter()?), SegmentOrdinal(f.counter()?));
    let (level, asked_at) = (Level(f.u8()?), LogIndex(f.u64()?));
    Ok(MergedSpan { first, last, level, asked_at, drops: SegmentOrdinal(0), heads_above: LogIndex(0) })
}

fn put_merged_span(out: &mut BytesMut, span: &MergedSpan) {
    out.u64(span.first.0);
    out.u64(span.last.0);
    out.u8(span.level.0);
    out.u64(span.asked_at.0);
}

fn read_dropping_span(f: &mut Fields<'_>) -> Result<MergedSpan, Malformed> {
    let span = read_merged_span(f)?;
    let (drops, heads_above) = (SegmentOrdinal(f.counter()?), LogIndex(f.u64()?));
    if drops.0 == 0 {
        return f.fail("a Seal up to which things are dropped");
    }
    Ok(MergedSpan { drops, heads_above, ..span })
}

/// Milliseconds and counter of an id that was given out.
fn read_last_id(f: &mut Fields<'_>, per_ms: u16) -> Result<(u64, u16), Malformed> {
    let (ms, counter) = (f.counter()?, f.u16()?);
    if counter < per_ms { Ok((ms, counter)) } else { f.fail("a counter of ids within one ms") }
}

fn value(version: u8, put: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(ROW_BYTES);
    out.u8(version);
    put(&mut out);
    out.freeze()
}
