//! What a segment knows of each conversation in it, and what a heads table knows of all so far.
//!
//! Fields of a directory row, after the conversation (see `table.rs`), all varints (d: distance):
//!
//! ```text
//! first seq | seqs - 1 | countable before, d from first seq | countable | last index - after | first time, d from log time |
//! last time, d from first time | block | offset in it | seals back to the previous segment (0: none)
//! ```
//!
//! Of a heads row: `last seq | last ordinal, d from it | last index | last time | segment`.

use super::format::Span;
use super::varint::{self, Cursor};
use crate::id::{ConversationId, LogIndex, Ordinal, SegmentOrdinal, SeqId, TimeMs};

/// A conversation in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryRow {
    /// The conversation.
    pub conversation: ConversationId,
    /// Its first seq in the segment, a trimmed one included.
    pub first: SeqId,
    /// Its last seq in the segment.
    pub last: SeqId,
    /// Countable messages before the first.
    pub ordinal_before: Ordinal,
    /// Countable messages up to and including the last.
    pub ordinal: Ordinal,
    /// The last one's entry.
    pub last_index: LogIndex,
    /// The first item's time.
    pub first_time: TimeMs,
    /// The last item's time.
    pub last_time: TimeMs,
    /// The block that its first item lies in.
    pub block: u32,
    /// Where in that block, uncompressed, its run begins.
    pub offset: u32,
    /// A seal whose segment is the next older one that holds the conversation; 0: none does.
    pub previous_segment: SegmentOrdinal,
}

/// A conversation's newest record, as of the segment that a heads table lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadRow {
    /// The conversation.
    pub conversation: ConversationId,
    /// Its last seq.
    pub seq: SeqId,
    /// Countable messages up to it.
    pub ordinal: Ordinal,
    /// Its entry.
    pub index: LogIndex,
    /// Its time.
    pub time: TimeMs,
    /// A seal whose segment holds it.
    pub segment: SegmentOrdinal,
}

impl DirectoryRow {
    pub(super) fn encode(&self, span: &Span, log_time: TimeMs, out: &mut Vec<u8>) {
        varint::put(out, self.first.0);
        varint::put(out, self.last.0 - self.first.0);
        varint::put_distance(out, self.first.0, self.ordinal_before.0);
        varint::put(out, self.ordinal.0 - self.ordinal_before.0);
        varint::put(out, self.last_index.0 - span.after.0);
        varint::put_distance(out, log_time.0, self.first_time.0);
        varint::put_distance(out, self.first_time.0, self.last_time.0);
        varint::put(out, u64::from(self.block));
        varint::put(out, u64::from(self.offset));
        let back = if self.previous_segment.0 == 0 { 0 } else { span.first.0 - self.previous_segment.0 };
        varint::put(out, back);
    }

    pub(super) fn decode(
        conversation: ConversationId,
        fields: &[u8],
        span: &Span,
        log_time: TimeMs,
    ) -> Option<DirectoryRow> {
        let mut cursor = Cursor::new(fields, 0);
        let first = cursor.varint()?;
        let last = first.checked_add(cursor.varint()?)?;
        let ordinal_before = cursor.distance(first)?;
        let ordinal = ordinal_before.checked_add(cursor.varint()?)?;
        let last_index = span.after.0.checked_add(cursor.varint()?)?;
        let first_time = cursor.distance(log_time.0)?;
        let last_time = cursor.distance(first_time)?;
        let block = u32::try_from(cursor.varint()?).ok()?;
        let offset = u32::try_from(cursor.varint()?).ok()?;
        let back = cursor.varint()?;
        let previous = if back == 0 { 0 } else { span.first.0.checked_sub(back)? };
        cursor.is_at_end().then_some(DirectoryRow {
            conversation,
            first: SeqId(first),
            last: SeqId(last),
            ordinal_before: Ordinal(ordinal_before),
            ordinal: Ordinal(ordinal),
            last_index: LogIndex(last_index),
            first_time: TimeMs(first_time),
            last_time: TimeMs(last_time),
            block,
            offset,
            previous_segment: SegmentOrdinal(previous),
        })
    }

    /// The head that this row makes.
    pub(crate) fn head(&self, segment: SegmentOrdinal) -> HeadRow {
        HeadRow {
            conversation: self.conversation,
            seq: self.last,
            ordinal: self.ordinal,
            index: self.last_index,
            time: self.last_time,
            segment,
        }
    }
}

impl HeadRow {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        varint::put(out, self.seq.0);
        varint::put_distance(out, self.seq.0, self.ordinal.0);
        varint::put(out, self.index.0);
        varint::put(out, self.time.0);
        varint::put(out, self.segment.0);
    }

    pub(super) fn decode(conversation: ConversationId, fields: &[u8]) -> Option<HeadRow> {
        let mut cursor = Cursor::new(fields, 0);
        let seq = cursor.varint()?;
        let row = HeadRow {
            conversation,
            seq: SeqId(seq),
            ordinal: Ordinal(cursor.distance(seq)?),
            index: LogIndex(cursor.varint()?),
            time: TimeMs(cursor.varint()?),
            segment: SegmentOrdinal(cursor.varint()?),
        };
        cursor.is_at_end().then_some(row)
    }
}
