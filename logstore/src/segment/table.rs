//! Rows sorted by (bucket, conversation), found by binary search where they lie.
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
//! What always holds: restarts rise strictly; a reader takes any bytes and never leaves them.

use super::format::{KEY_BYTES, Key, key};
use super::output::Spool;
use super::records::Malformed;
use super::varint::Cursor;
use crate::Result;
use crate::id::ConversationId;

const ROWS_PER_RESTART: u64 = 16;
const RESTART_BYTES: usize = KEY_BYTES + 6;
const CONVERSATION_BYTES: usize = 16;

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

/// Rows as they lie in a verified file.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    rows: &'a [u8],
    restarts: &'a [u8],
}

impl<'a> Table<'a> {
    pub(super) fn new(rows: &'a [u8], restarts: &'a [u8]) -> Table<'a> {
        Table { rows, restarts }
    }

    /// The fields of a conversation's row.
    pub(super) fn find(&self, conversation: ConversationId) -> std::result::Result<Option<&'a [u8]>, Malformed> {
        let after = self.restarts_upto(&key(conversation));
        let Some(group) = after.checked_sub(1) else { return Ok(None) };
        let mut rows = self.rows_from(group).ok_or(Malformed)?;
        for _ in 0..ROWS_PER_RESTART {
            match rows.next() {
                None => return Ok(None),
                Some(row) => {
                    let (found, fields) = row?;
                    if found == conversation {
                        return Ok(Some(fields));
                    }
                }
            }
        }
        Ok(None)
    }

    /// All rows in order.
    pub(super) fn iter(&self) -> Rows<'a> {
        Rows { cursor: Cursor::new(self.rows, 0), last: [0; CONVERSATION_BYTES] }
    }

    /// How many restarts have a key not above this one.
    fn restarts_upto(&self, key: &Key) -> usize {
        let (mut low, mut high) = (0, self.restarts.len() / RESTART_BYTES);
        while low < high {
            let middle = low + (high - low) / 2;
            let found = &self.restarts[middle * RESTART_BYTES..][..KEY_BYTES];
            if found <= &key[..] { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn rows_from(&self, group: usize) -> Option<Rows<'a>> {
        let mut offset = [0; 8];
        offset[..6].copy_from_slice(self.restarts.get(group * RESTART_BYTES..)?.get(KEY_BYTES..RESTART_BYTES)?);
        let offset = usize::try_from(u64::from_le_bytes(offset)).ok()?;
        Some(Rows { cursor: Cursor::new(self.rows, offset), last: [0; CONVERSATION_BYTES] })
    }
}

/// Reads rows one after the other.
pub(super) struct Rows<'a> {
    cursor: Cursor<'a>,
    last: [u8; CONVERSATION_BYTES],
}

impl<'a> Rows<'a> {
    fn row(&mut self) -> Option<(ConversationId, &'a [u8])> {
        let len = usize::from(self.cursor.byte()?);
        let mut row = Cursor::new(self.cursor.take(len)?, 0);
        let shared = usize::from(row.byte()?);
        self.last.get_mut(shared..)?.copy_from_slice(row.take(CONVERSATION_BYTES.checked_sub(shared)?)?);
        let fields = row.take(len.checked_sub(row.at())?)?;
        Some((ConversationId::from_bytes(self.last), fields))
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = std::result::Result<(ConversationId, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.cursor.is_at_end() {
            return None;
        }
        let row = self.row().ok_or(Malformed);
        if row.is_err() {
            // What follows a bad row cannot be found: this is the end.
            self.cursor = Cursor::new(&[], 0);
        }
        Some(row)
    }
}
