//! All that can be checked of a segment by itself: content against identity, directory, filters, counts.
//!
//! What always holds: verifying never writes, and reads every byte of the content once.

use std::sync::Arc;

use super::directory::DirectoryRow;
use super::footer::Counts;
use super::format::Section;
use super::identity::IdentityHasher;
use super::input::{self, ItemOrder};
use super::record::{Item, SealedBody};
use super::{Segment, filter};
use crate::Result;
use crate::id::SeqId;

impl Segment {
    /// Reads the whole segment: every block verifies, the content is that of the identity, in order and without a hole, the directory
    /// has a right row for each conversation and no other, no filter denies what is there, and the counts are right.
    pub fn verify(self: &Arc<Self>) -> Result<()> {
        let mut check = Check::new(self)?;
        for item in self.items() {
            check.item(&item?)?;
        }
        check.end_conversation()?;
        if check.directory.next().is_some() {
            return Err(self.rot(Section::Directory, "it has conversations that are not in the segment"));
        }
        self.check_delta(&mut check)?;
        self.check_heads()?;
        check.finish()
    }

    fn check_delta(self: &Arc<Self>, check: &mut Check<'_>) -> Result<()> {
        let (index, mut rows) = (self.delta_index(), self.delta_rows());
        let mut last: Option<bytes::Bytes> = None;
        while let Some(row) = rows.next().transpose()? {
            let order = input::check_row(&row, last.as_deref());
            order.map_err(|why| self.rot(Section::Delta, &why.to_string()))?;
            check.identity.delta(&row);
            check.counts.delta_rows += 1;
            check.counts.tombstones += u64::from(row.value.is_none());
            let is_found = index.block_of(&row.key) == Some(Some(rows.block()));
            if !is_found || !index.may_hold(rows.block(), filter::key_hash(&row.key))? {
                return Err(self.rot(Section::DeltaIndex, "a key is not found by it"));
            }
            last = Some(row.key);
        }
        Ok(())
    }

    fn check_heads(&self) -> Result<()> {
        let (mut rows, mut last) = (0, None);
        for row in self.heads() {
            let row = row?;
            let key = super::format::key(row.conversation);
            if last.replace(key) >= Some(key) || self.head(row.conversation)? != Some(row) {
                return Err(self.rot(Section::Heads, "a conversation is out of order or not found"));
            }
            rows += 1;
        }
        if self.info().counts.heads.unwrap_or(0) != rows {
            return Err(self.rot(Section::Heads, "it has another number of rows than the footer says"));
        }
        Ok(())
    }
}

struct Check<'a> {
    segment: &'a Segment,
    identity: IdentityHasher,
    order: ItemOrder,
    counts: Counts,
    directory: Box<dyn Iterator<Item = Result<DirectoryRow>> + 'a>,
    row: Option<DirectoryRow>,
    reached: SeqId,
}

impl<'a> Check<'a> {
    fn new(segment: &'a Segment) -> Result<Check<'a>> {
        let span = segment.span();
        let order = ItemOrder::new(span).map_err(|why| segment.rot(Section::Header, &why.to_string()))?;
        let directory = Box::new(segment.directory());
        let (identity, counts) = (IdentityHasher::new(&span), Counts::default());
        Ok(Check { segment, identity, order, counts, directory, row: None, reached: SeqId(0) })
    }

    fn item(&mut self, item: &Item) -> Result<()> {
        let order = self.order.check(item);
        order.map_err(|why| self.segment.rot(Section::Records, &why.to_string()))?;
        self.identity.item(item);
        if self.row.is_none_or(|row| row.conversation != item.conversation()) {
            self.begin_conversation(item)?;
        }
        self.reached = item.last();
        match item {
            Item::Trimmed(range) => self.counts.trimmed += range.last.0 - range.first.0 + 1,
            Item::Record(record) => {
                self.counts.records += 1;
                self.counts.removed += u64::from(record.body == SealedBody::Removed);
                self.counts.body_bytes += record.body.len() as u64;
                let hash = filter::id_hash(record.conversation, record.sender, record.client_msg_id);
                if !self.segment.filter_admits(item, hash, self.row)? {
                    return Err(self.segment.rot(Section::IdFilter, "it denies a message id that is there"));
                }
            }
        }
        Ok(())
    }

    fn begin_conversation(&mut self, item: &Item) -> Result<()> {
        self.end_conversation()?;
        self.counts.conversations += 1;
        let row = self.directory.next().transpose()?;
        let row = row.filter(|row| row.conversation == item.conversation() && row.first == item.first());
        let row =
            row.ok_or_else(|| self.segment.rot(Section::Directory, "a conversation has no row, or a wrong one"))?;
        if self.segment.find(row.conversation)? != Some(row) {
            return Err(self.segment.rot(Section::DirectoryRestarts, "a conversation is not found by them"));
        }
        self.row = Some(row);
        Ok(())
    }

    fn end_conversation(&mut self) -> Result<()> {
        match self.row.take() {
            Some(row) if row.last != self.reached => {
                Err(self.segment.rot(Section::Directory, "a conversation ends elsewhere than its row says"))
            }
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<()> {
        let info = self.segment.info();
        if self.identity.finish() != info.identity {
            return Err(self.segment.rot(Section::Footer, "the content is not that of the identity"));
        }
        let Counts { record_blocks, record_raw_bytes, delta_blocks, delta_raw_bytes, heads, .. } = info.counts;
        let sizes = Counts { record_blocks, record_raw_bytes, delta_blocks, delta_raw_bytes, heads, ..self.counts };
        if sizes != info.counts {
            return Err(self.segment.rot(Section::Footer, "its counts are wrong"));
        }
        Ok(())
    }
}
