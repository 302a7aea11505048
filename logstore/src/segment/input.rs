//! What may be sealed: the order and the bounds that a builder insists on.
//!
//! What always holds: an item that passed follows the one before without a gap, within its conversation or as the first of a
//! later one; nothing that a reader would have to doubt gets into a file.

use super::delta::{DeltaRow, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use super::format::{Span, key};
use super::record::{BODY_BYTES_MAX, Item};
use crate::id::{ConversationId, LogIndex, Ordinal, SegmentOrdinal, SeqId};

/// Why something cannot be sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// A range of seals or of entries that ends before it begins, or a level 0 of several seals.
    #[error("seals {first} to {last}, entries after {after} up to {upto}: not a span")]
    BadSpan {
        /// The first seal.
        first: SegmentOrdinal,
        /// The last seal.
        last: SegmentOrdinal,
        /// Entries above this one.
        after: LogIndex,
        /// The last entry.
        upto: LogIndex,
    },
    /// A conversation that belongs before the one that came last.
    #[error("conversation {conversation} comes after {last}, which sorts behind it")]
    Unsorted {
        /// The one that came too late.
        conversation: ConversationId,
        /// The one before it.
        last: ConversationId,
    },
    /// A seq_id that does not follow the one before.
    #[error("conversation {conversation}: seq {found} where {expected} belongs")]
    Hole {
        /// The conversation.
        conversation: ConversationId,
        /// What follows the last one.
        expected: SeqId,
        /// What came.
        found: SeqId,
    },
    /// A count of messages that does not follow the one before.
    #[error("conversation {conversation}, seq {seq}: {found} countable messages before it where {expected} were")]
    WrongOrdinal {
        /// The conversation.
        conversation: ConversationId,
        /// The record.
        seq: SeqId,
        /// As of the record before.
        expected: Ordinal,
        /// As of this record.
        found: Ordinal,
    },
    /// A time or log index below that of the record before.
    #[error("conversation {conversation}, seq {seq}: its {what} is below that of the record before")]
    Falls {
        /// The conversation.
        conversation: ConversationId,
        /// The record.
        seq: SeqId,
        /// "time" or "log index".
        what: &'static str,
    },
    /// A record of another range of entries.
    #[error("conversation {conversation}, seq {seq}: entry {index} is outside the segment's range")]
    OutsideRange {
        /// The conversation.
        conversation: ConversationId,
        /// The record.
        seq: SeqId,
        /// Its entry.
        index: LogIndex,
    },
    /// More bytes than a file may hold in one piece.
    #[error("{what} of {bytes} bytes: the limit is {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A key that does not sort after the one before, or is the same.
    #[error("state row {key}: does not sort after the row before")]
    UnsortedKey {
        /// The key, as hex.
        key: String,
    },
    /// A record or head after what is written behind records.
    #[error("{0} after what belongs behind them")]
    Late(&'static str),
    /// A previous segment that is not before this one.
    #[error("conversation {conversation}: seal {previous} is not before this segment")]
    NotBefore {
        /// The conversation.
        conversation: ConversationId,
        /// What was said to be its previous segment.
        previous: SegmentOrdinal,
    },
}

/// Looks at items as they come.
pub(super) struct ItemOrder {
    span: Span,
    last: Option<Last>,
}

struct Last {
    conversation: ConversationId,
    next: SeqId,
    ordinal: Ordinal,
    time: u64,
    index: u64,
}

impl ItemOrder {
    pub(super) fn new(span: Span) -> Result<ItemOrder, InputError> {
        let is_one = span.first == span.last;
        if span.first.0 == 0 || span.last < span.first || span.upto < span.after || (span.level.0 == 0 && !is_one) {
            let Span { first, last, after, upto, .. } = span;
            return Err(InputError::BadSpan { first, last, after, upto });
        }
        Ok(ItemOrder { span, last: None })
    }

    /// Accepts the next item or says what is wrong with it.
    pub(super) fn check(&mut self, item: &Item) -> Result<(), InputError> {
        let conversation = item.conversation();
        match &self.last {
            Some(last) if last.conversation == conversation => follows(last, item)?,
            Some(last) if key(conversation) < key(last.conversation) => {
                return Err(InputError::Unsorted { conversation, last: last.conversation });
            }
            _ => {}
        }
        self.check_bounds(item)?;
        self.last = Some(Last {
            conversation,
            next: item.last().next(),
            ordinal: item.ordinal(),
            time: item.time().0,
            index: item.index().0,
        });
        Ok(())
    }

    fn check_bounds(&self, item: &Item) -> Result<(), InputError> {
        let (conversation, seq, index) = (item.conversation(), item.first(), item.index());
        if seq.0 == 0 || item.last() < seq || item.last().0 == u64::MAX {
            return Err(InputError::Hole { conversation, expected: seq.max(SeqId(1)), found: item.last() });
        }
        if item.ordinal() < item.ordinal_before() {
            let (expected, found) = (item.ordinal(), item.ordinal_before());
            return Err(InputError::WrongOrdinal { conversation, seq, expected, found });
        }
        if index <= self.span.after || index > self.span.upto {
            return Err(InputError::OutsideRange { conversation, seq, index });
        }
        match item {
            Item::Record(record) => check_size("a body", record.body.len(), BODY_BYTES_MAX),
            Item::Trimmed(_) => Ok(()),
        }
    }
}

fn follows(last: &Last, item: &Item) -> Result<(), InputError> {
    let (conversation, seq) = (item.conversation(), item.first());
    if seq != last.next {
        return Err(InputError::Hole { conversation, expected: last.next, found: seq });
    }
    if item.ordinal_before() != last.ordinal {
        let (expected, found) = (last.ordinal, item.ordinal_before());
        return Err(InputError::WrongOrdinal { conversation, seq, expected, found });
    }
    if item.time().0 < last.time {
        return Err(InputError::Falls { conversation, seq, what: "time" });
    }
    if item.index().0 < last.index {
        return Err(InputError::Falls { conversation, seq, what: "log index" });
    }
    Ok(())
}

/// Accepts a state row that follows `last`, or says what is wrong with it.
pub(super) fn check_row(row: &DeltaRow, last: Option<&[u8]>) -> Result<(), InputError> {
    if last.is_some_and(|last| row.key[..] <= *last) {
        let key = row.key.iter().map(|byte| format!("{byte:02x}")).collect();
        return Err(InputError::UnsortedKey { key });
    }
    check_size("a state key", row.key.len(), KEY_BYTES_MAX)?;
    check_size("a state value", row.value.as_ref().map_or(0, |value| value.len()), VALUE_BYTES_MAX)
}

fn check_size(what: &'static str, bytes: usize, limit: usize) -> Result<(), InputError> {
    if bytes <= limit {
        return Ok(());
    }
    Err(InputError::TooLarge { what, bytes: bytes as u64, limit: limit as u64 })
}
