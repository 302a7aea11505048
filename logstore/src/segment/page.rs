//! Part of a conversation: a page of history, or the record with a message id.
//!
//! What always holds: records come in the order of seq; a page says for which seqs it is complete, so that a record that is
//! not in it is trimmed or does not exist; at least one record comes if any is wanted, however large.

use super::Segment;
use super::directory::DirectoryRow;
use super::filter;
use super::format::key;
use super::record::{Item, SealedRecord};
use super::records::Malformed;
use crate::Result;
use crate::id::{ClientMsgId, ConversationId, SeqId, TimeMs, UserId};

/// Room is made at once for a page; what is longer grows.
const ITEMS_RESERVED_MAX: u64 = 64;

/// At which end of the wanted range a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageEnd {
    /// At the first seq, upwards.
    Oldest,
    /// At the last seq, downwards.
    Newest,
}

/// What is wanted of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The conversation.
    pub conversation: ConversationId,
    /// The first seq wanted.
    pub first: SeqId,
    /// The last seq wanted.
    pub last: SeqId,
    /// Where to begin.
    pub from: PageEnd,
    /// No more records than this; trimmed ones count.
    pub records_max: u64,
    /// No more bytes of bodies than this, unless the first record alone has more.
    pub bytes_max: usize,
}

/// What was found, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The records.
    pub records: Vec<SealedRecord>,
    /// The seqs for which that is all there is, first and last; `None` if nothing of what was wanted is here.
    pub complete: Option<(SeqId, SeqId)>,
}

impl PageRequest {
    /// The first and the last seq that a page of this many records reaches; `None` if there is none.
    pub(crate) fn bounds(&self, held: (SeqId, SeqId)) -> Option<(SeqId, SeqId)> {
        let (first, last) = (self.first.max(held.0), self.last.min(held.1));
        let reach = self.records_max.checked_sub(1)?;
        if first > last {
            return None;
        }
        Some(match self.from {
            PageEnd::Oldest => (first, last.min(SeqId(first.0.saturating_add(reach)))),
            PageEnd::Newest => (first.max(SeqId(last.0.saturating_sub(reach))), last),
        })
    }
}

/// Fills a page from one segment after the other.
pub(crate) struct PageFill {
    records: Vec<SealedRecord>,
    bytes: usize,
    bytes_max: usize,
    complete: Option<(SeqId, SeqId)>,
    is_full: bool,
}

impl PageFill {
    pub(crate) fn new(bytes_max: usize) -> PageFill {
        PageFill { records: Vec::new(), bytes: 0, bytes_max, complete: None, is_full: false }
    }

    /// Makes room for so many records.
    fn reserve(&mut self, records: usize) {
        self.records.reserve(records);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// The page; records were added from the end that was asked for.
    pub(crate) fn finish(mut self, from: PageEnd) -> Page {
        if from == PageEnd::Newest {
            self.records.reverse();
        }
        Page { records: self.records, complete: self.complete }
    }

    /// Adds an item that lies next to the others, cut to `first..=last`, unless it is too much.
    fn add(&mut self, item: Item, first: SeqId, last: SeqId) {
        let range = (item.first().max(first), item.last().min(last));
        if let Item::Record(record) = item {
            let bytes = self.bytes + record.body.len();
            if bytes > self.bytes_max && !self.records.is_empty() {
                self.is_full = true;
                return;
            }
            self.bytes = bytes;
            self.records.push(record);
        }
        let (low, high) = self.complete.unwrap_or(range);
        self.complete = Some((low.min(range.0), high.max(range.1)));
    }
}

impl Segment {
    /// A page of what this segment holds of a conversation.
    pub fn page(&self, request: &PageRequest) -> Result<Page> {
        let mut fill = PageFill::new(request.bytes_max);
        if let Some(row) = self.find(request.conversation)?
            && let Some((first, last)) = request.bounds((row.first, row.last))
        {
            self.fill(&row, first, last, request.from, &mut fill)?;
        }
        Ok(fill.finish(request.from))
    }

    /// Adds the records of `first..=last`, which the row says are here, from the end asked for.
    pub(crate) fn fill(
        &self,
        row: &DirectoryRow,
        first: SeqId,
        last: SeqId,
        from: PageEnd,
        fill: &mut PageFill,
    ) -> Result<()> {
        let index = self.block_index();
        let lowest = index.block_of(row.conversation, row.block, first)?;
        match from {
            PageEnd::Oldest => self.fill_up(row, lowest, (first, last), fill),
            PageEnd::Newest => {
                let highest = index.block_of(row.conversation, row.block, last)?;
                self.fill_down(row, (lowest, highest), (first, last), fill)
            }
        }
    }

    fn fill_up(
        &self,
        row: &DirectoryRow,
        lowest: u32,
        (first, last): (SeqId, SeqId),
        fill: &mut PageFill,
    ) -> Result<()> {
        let mut next = first;
        for number in lowest.. {
            let block = self.record_block(number)?;
            let mut run = self.run(row, number, &block, first)?;
            while let Some(item) = run.next().map_err(|Malformed| self.rot_in_block(number))? {
                if item.last() < first {
                    continue;
                }
                if item.first() > last || fill.is_full {
                    return Ok(());
                }
                next = item.last().next();
                fill.add(item, first, last);
            }
            if fill.is_full || next > last {
                return Ok(());
            }
            if !self.continues(row, number + 1)? {
                return Err(self.rot_in_block(number));
            }
        }
        Ok(())
    }

    fn fill_down(
        &self,
        row: &DirectoryRow,
        (lowest, highest): (u32, u32),
        (first, last): (SeqId, SeqId),
        fill: &mut PageFill,
    ) -> Result<()> {
        for number in (lowest..=highest).rev() {
            let block = self.record_block(number)?;
            let mut run = self.run(row, number, &block, first)?;
            // A range of seqs is not always that long: trimmed ones, and those of other blocks.
            let wanted = last.0.saturating_sub(first.0).saturating_add(1).min(ITEMS_RESERVED_MAX) as usize;
            let mut items = Vec::with_capacity(wanted);
            while let Some(item) = run.next().map_err(|Malformed| self.rot_in_block(number))? {
                if item.first() > last {
                    break;
                }
                if item.last() >= first {
                    items.push(item);
                }
            }
            fill.reserve(items.len());
            for item in items.into_iter().rev() {
                if fill.is_full {
                    return Ok(());
                }
                fill.add(item, first, last);
            }
        }
        Ok(())
    }

    /// Whether a block begins with more of a conversation.
    fn continues(&self, row: &DirectoryRow, number: u32) -> Result<bool> {
        let entry = self.block_index().get(number)?;
        Ok(entry.is_some_and(|entry| entry.key == key(row.conversation)))
    }

    /// The record with a message id, among those of a time not before `not_before`.
    pub fn find_id(
        &self,
        conversation: ConversationId,
        sender: UserId,
        id: ClientMsgId,
        not_before: TimeMs,
    ) -> Result<Option<SealedRecord>> {
        match self.find(conversation)? {
            Some(row) => self.find_id_at(&row, sender, id, not_before),
            None => Ok(None),
        }
    }

    pub(crate) fn find_id_at(
        &self,
        row: &DirectoryRow,
        sender: UserId,
        id: ClientMsgId,
        not_before: TimeMs,
    ) -> Result<Option<SealedRecord>> {
        if row.last_time < not_before {
            return Ok(None);
        }
        let (index, hash) = (self.block_index(), filter::id_hash(row.conversation, sender, id));
        let mut number = index.block_since(row.conversation, row.block, not_before)?;
        loop {
            if index.may_hold(number, hash)?
                && let Some(record) = self.find_id_in(row, number, sender, id)?
            {
                return Ok(Some(record));
            }
            number += 1;
            if !self.continues(row, number)? {
                return Ok(None);
            }
        }
    }

    fn find_id_in(
        &self,
        row: &DirectoryRow,
        number: u32,
        sender: UserId,
        id: ClientMsgId,
    ) -> Result<Option<SealedRecord>> {
        let block = self.record_block(number)?;
        let mut run = self.run(row, number, &block, SeqId(0))?;
        while let Some(item) = run.next().map_err(|Malformed| self.rot_in_block(number))? {
            if let Item::Record(record) = item
                && record.sender == sender
                && record.client_msg_id == id
            {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}
