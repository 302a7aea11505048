//! Rows sorted by (bucket, conversation), found by binary search over where groups of them begin.
//!
//! ```text
//! rows:      +-----+--------+--------------------+--------+-----+--------+--------- - -
//!            | len | shared | rest of the        | fields | len | shared | ...
//!            | u8  | u8     | conversation, BE   |        |     |        |
//!            +-----+--------+--------------------+--------+-----+--------+--------- - -
//!                  |<------------- len -------------------|
//!
//! restarts:  +--------+--------------+--------------+
//!            | bucket | conversation | offset of the|    one for every 16 rows, of the first of them
//!            | u16 BE | 16 B, BE     | row, 6 B     |
//!            +--------+--------------+--------------+
//! ```
//!
//! `shared` is how many bytes of the conversation are those of the row before; the first row after a restart shares none.
//!
//! What always holds: restarts rise strictly and are in memory; a reader takes any bytes and never leaves them.

use super::format::{KEY_BYTES, Key, key};
use super::output::Spool;
use super::paged::Paged;
use super::records::Malformed;
use super::varint::Cursor;
use crate::Result;
use crate::id::ConversationId;

const ROWS_PER_RESTART: u64 = 16;
const RESTART_BYTES: usize = KEY_BYTES + 6;
const CONVERSATION_BYTES: usize = 16;
/// A row's length is one byte.
const ROW_BYTES_MAX: usize = 256;
const GROUP_BYTES_MAX: u64 = ROWS_PER_RESTART * ROW_BYTES_MAX as u64;

/// Writes rows in their order.
pub(super) struct TableWriter {
    pub(super) rows: Spool,
    pub(super) restarts: Spool,
    last: [u8; CONVERSATION_BYTES],
    row: Vec<u8>,
}

impl TableWriter {
    pub(super) fn new(rows: Spool, restarts: Spool) -> TableWriter {
        TableWriter { rows, restarts, last: [0; CONVERSATION_BYTES], row: Vec::new() }
    }

    /// Adds the next row; `fields` appends what it holds, at most 200 bytes.
    pub(super) fn push(&mut self, conversation: ConversationId, fields: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let bytes = conversation.to_bytes();
        let shared = if self.rows.count.is_multiple_of(ROWS_PER_RESTART) {
            self.push_restart(conversation)?;
            0
        } else {
            bytes.iter().zip(&self.last).take_while(|(a, b)| a == b).count()
        };
        self.row.clear();
        self.row.extend_from_slice(&[0, shared as u8]);
        self.row.extend_from_slice(&bytes[shared..]);
        fields(&mut self.row);
        self.row[0] = (self.row.len() - 1) as u8;
        debug_assert!(self.row.len() <= 256);
        self.last = bytes;
        self.rows.count += 1;
        self.rows.push(&self.row)
    }

    fn push_restart(&mut self, conversation: ConversationId) -> Result<()> {
        let mut restart = [0; RESTART_BYTES];
        restart[..KEY_BYTES].copy_from_slice(&key(conversation));
        restart[KEY_BYTES..].copy_from_slice(&self.rows.len().to_le_bytes()[..6]);
        self.restarts.count += 1;
        self.restarts.push(&restart)
    }
}

/// Rows as they lie in a file, and where groups of them begin.
pub(super) struct Table {
    rows: Paged,
    restarts: Paged,
}

impl Table {
    pub(super) fn new(rows: Paged, restarts: Paged) -> Table {
        Table { rows, restarts }
    }

    /// What `decode` makes of the fields of a conversation's row; where it makes nothing of them the row is rotten. One page is read, two if
    /// the row's group lies across.
    pub(super) fn find<T>(
        &self,
        conversation: ConversationId,
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>> {
        let restarts = self.restarts.whole().unwrap_or_default();
        let Some(group) = restarts_upto(restarts, &key(conversation)).checked_sub(1) else { return Ok(None) };
        let begin = row_offset(restarts, group).unwrap_or(u64::MAX);
        let end = row_offset(restarts, group + 1).unwrap_or(self.rows.len());
        let bytes = end.checked_sub(begin).filter(|bytes| *bytes <= GROUP_BYTES_MAX);
        let bytes = bytes.ok_or_else(|| self.rows.senseless())? as usize;
        let found = self.rows.look(begin, bytes, |group| find_in(group, conversation, decode))?;
        found.and_then(|found| found.ok()).ok_or_else(|| self.rows.senseless())
    }

    /// All rows in order.
    pub(super) fn iter(&self) -> Rows<'_> {
        Rows { rows: &self.rows, piece: Vec::new(), at: 0, next_piece: 0, last: [0; CONVERSATION_BYTES] }
    }
}

/// How many restarts have a key not above this one.
fn restarts_upto(restarts: &[u8], key: &Key) -> usize {
    restarts.as_chunks::<RESTART_BYTES>().0.partition_point(|restart| restart[..KEY_BYTES] <= key[..])
}

/// Where the first row after a restart begins.
fn row_offset(restarts: &[u8], group: usize) -> Option<u64> {
    let restart = restarts.as_chunks::<RESTART_BYTES>().0.get(group)?;
    let mut offset = [0; 8];
    offset[..6].copy_from_slice(&restart[KEY_BYTES..]);
    Some(u64::from_le_bytes(offset))
}

fn find_in<T>(
    group: &[u8],
    conversation: ConversationId,
    decode: impl FnOnce(&[u8]) -> Option<T>,
) -> std::result::Result<Option<T>, Malformed> {
    let (mut cursor, mut last) = (Cursor::new(group, 0), [0; CONVERSATION_BYTES]);
    while !cursor.is_at_end() {
        let (found, fields) = row(&mut cursor, &mut last).ok_or(Malformed)?;
        if found == conversation {
            return decode(fields).map(Some).ok_or(Malformed);
        }
    }
    Ok(None)
}

/// Reads a row; `last` is the conversation of the one before.
fn row<'a>(cursor: &mut Cursor<'a>, last: &mut [u8; CONVERSATION_BYTES]) -> Option<(ConversationId, &'a [u8])> {
    let len = usize::from(cursor.byte()?);
    let mut row = Cursor::new(cursor.take(len)?, 0);
    let shared = usize::from(row.byte()?);
    last.get_mut(shared..)?.copy_from_slice(row.take(CONVERSATION_BYTES.checked_sub(shared)?)?);
    let fields = row.take(len.checked_sub(row.at())?)?;
    Some((ConversationId::from_bytes(*last), fields))
}

/// Reads rows one after the other.
pub(super) struct Rows<'a> {
    rows: &'a Paged,
    piece: Vec<u8>,
    /// Where the next row begins in the piece.
    at: usize,
    next_piece: u64,
    last: [u8; CONVERSATION_BYTES],
}

impl Rows<'_> {
    /// What `decode` makes of the next row; `None` at the end, and after an error.
    pub(super) fn next<T>(&mut self, decode: impl FnOnce(ConversationId, &[u8]) -> Option<T>) -> Option<Result<T>> {
        let next = self.step(decode).transpose()?;
        if next.is_err() {
            // What follows a bad row cannot be found: this is the end.
            (self.piece, self.at, self.next_piece) = (Vec::new(), 0, self.rows.len());
        }
        Some(next)
    }

    fn step<T>(&mut self, decode: impl FnOnce(ConversationId, &[u8]) -> Option<T>) -> Result<Option<T>> {
        if self.piece.len() - self.at < ROW_BYTES_MAX && self.next_piece < self.rows.len() {
            self.piece.drain(..self.at);
            self.at = 0;
            self.next_piece += self.rows.read_piece(self.next_piece, &mut self.piece)? as u64;
        }
        if self.at == self.piece.len() {
            return Ok(None);
        }
        let mut cursor = Cursor::new(&self.piece, self.at);
        let decoded = row(&mut cursor, &mut self.last).and_then(|(conversation, fields)| decode(conversation, fields));
        self.at = cursor.at();
        decoded.map(Some).ok_or_else(|| self.rows.senseless())
    }
}
