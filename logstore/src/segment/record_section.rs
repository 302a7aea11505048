//! Writing the records of a segment: blocks, their index and filters, the directory.
//!
//! What always holds: a conversation is split between blocks only if what a segment holds of it is longer than half a block, so that
//! a page shorter than that costs one read a segment, and two where it begins or ends inside a long run; a block holds more than
//! its limit only if one record alone does.

use std::sync::Arc;

use super::BuildOptions;
use super::block::{BlockKind, BlockWriter};
use super::directory::DirectoryRow;
use super::filter;
use super::footer::{Counts, Placed};
use super::format::{Section, Span, key};
use super::index::{BlockEntry, BlockPlace};
use super::input::InputError;
use super::output::{Output, Spool};
use super::record::Item;
use super::records::RecordBlockWriter;
use super::table::TableWriter;
use crate::Result;
use crate::id::{SegmentOrdinal, TimeMs};
use crate::io::{Context, Disk};

pub(super) struct RecordSection {
    span: Span,
    seed: u64,
    log_time: TimeMs,
    block_bytes: (usize, usize),
    block: RecordBlockWriter,
    envelope: BlockWriter,
    /// The first item of the block that is being filled.
    begins: Option<BlockEntry>,
    hashes: Vec<u64>,
    /// The conversation that is being written.
    row: Option<DirectoryRow>,
    index: Spool,
    filter: Spool,
    directory: TableWriter,
}

impl RecordSection {
    pub(super) fn new(
        disk: &Arc<dyn Disk>,
        path: &str,
        span: Span,
        log_time: TimeMs,
        options: &BuildOptions,
    ) -> Result<RecordSection> {
        let spool = |section| Spool::new(disk, path, section, span.seed(), options.spool_bytes);
        Ok(RecordSection {
            span,
            seed: span.seed(),
            log_time,
            block_bytes: (options.block_bytes / 2, options.block_bytes),
            block: RecordBlockWriter::new(span.shard),
            envelope: BlockWriter::new(options.zstd_level).context("compress for", path)?,
            begins: None,
            hashes: Vec::new(),
            row: None,
            index: spool(Section::BlockIndex),
            filter: spool(Section::IdFilter),
            directory: TableWriter::new(spool(Section::Directory), spool(Section::DirectoryRestarts)),
        })
    }

    /// Whether an item is the first of another conversation than the one being written.
    pub(super) fn begins_conversation(&self, item: &Item) -> bool {
        self.row.is_none_or(|row| row.conversation != item.conversation())
    }

    /// Ends the conversation that is being written; gives its row, which then wants [`RecordSection::push_row`].
    pub(super) fn end_conversation(&mut self) -> Option<DirectoryRow> {
        self.block.end_run();
        self.row.take()
    }

    /// Adds a row to the directory.
    pub(super) fn push_row(&mut self, row: &DirectoryRow) -> Result<()> {
        if row.previous_segment >= self.span.first {
            let (conversation, previous) = (row.conversation, row.previous_segment);
            return Err(InputError::NotBefore { conversation, previous }.into());
        }
        let (span, log_time) = (self.span, self.log_time);
        self.directory.push(row.conversation, |out| row.encode(&span, log_time, out))
    }

    /// Adds an item that follows the last one.
    pub(super) fn push(&mut self, item: &Item, out: &mut Output<'_>, counts: &mut Counts) -> Result<()> {
        self.make_room(item, out, counts)?;
        if self.row.is_none() {
            self.begin_conversation(item);
        } else if self.block.is_empty() {
            self.begin_run(item);
        }
        self.block.push(item);
        if let Item::Record(record) = item {
            self.hashes.push(filter::id_hash(record.conversation, record.sender, record.client_msg_id));
        }
        if let Some(row) = &mut self.row {
            (row.last, row.ordinal) = (item.last(), item.ordinal());
            (row.last_index, row.last_time) = (item.index(), item.time());
        }
        Ok(())
    }

    /// Writes the block that is being filled, if it has anything.
    pub(super) fn flush(&mut self, out: &mut Output<'_>, counts: &mut Counts) -> Result<()> {
        self.block.end_run();
        let Some(mut entry) = self.begins.take() else { return Ok(()) };
        let offset = out.offset();
        let place = (self.seed, offset);
        let bytes = self.envelope.seal(BlockKind::Records, place, &self.block.ids, &self.block.raw);
        let bytes = bytes.context("compress", "a block")?;
        out.write(bytes)?;
        entry.place = BlockPlace { offset, bytes: bytes.len() as u32 };
        entry.ids = self.hashes.len() as u32;
        counts.record_blocks += 1;
        counts.record_raw_bytes += self.block.len() as u64;
        self.index_block(&entry)?;
        self.block.clear();
        Ok(())
    }

    /// Block index and filter, then the directory with its restarts.
    pub(super) fn finish(self, out: &mut Output<'_>) -> Result<[Placed; 4]> {
        Ok([
            self.index.finish(out)?,
            self.filter.finish(out)?,
            self.directory.rows.finish(out)?,
            self.directory.restarts.finish(out)?,
        ])
    }

    fn make_room(&mut self, item: &Item, out: &mut Output<'_>, counts: &mut Counts) -> Result<()> {
        let (half, whole) = self.block_bytes;
        let is_full = self.block.len_with(item) > whole || (self.row.is_none() && self.block.len() >= half);
        if is_full { self.flush(out, counts) } else { Ok(()) }
    }

    fn begin_conversation(&mut self, item: &Item) {
        let offset = self.begin_run(item);
        self.row = Some(DirectoryRow {
            conversation: item.conversation(),
            first: item.first(),
            last: item.last(),
            ordinal_before: item.ordinal_before(),
            ordinal: item.ordinal(),
            last_index: item.index(),
            first_time: item.time(),
            last_time: item.time(),
            block: self.index.count as u32,
            offset: offset as u32,
            previous_segment: SegmentOrdinal(0),
        });
    }

    fn begin_run(&mut self, item: &Item) -> usize {
        let begins = || BlockEntry {
            key: key(item.conversation()),
            first: item.first(),
            time: item.time(),
            place: BlockPlace { offset: 0, bytes: 0 },
            ids: 0,
            filter_line: 0,
        };
        self.begins.get_or_insert_with(begins);
        self.block.begin_run(item)
    }

    fn index_block(&mut self, entry: &BlockEntry) -> Result<()> {
        const BLOCKS_MAX: u64 = u32::MAX as u64;
        if self.index.count >= BLOCKS_MAX {
            let bytes = self.index.count + 1;
            return Err(InputError::TooLarge { what: "a segment, in blocks,", bytes, limit: BLOCKS_MAX }.into());
        }
        let filter_line = self.filter.count as u32;
        self.index.push(&BlockEntry { filter_line, ..*entry }.encode())?;
        self.index.count += 1;
        let lines = filter::build(&self.hashes);
        self.filter.count += (lines.len() / filter::LINE_BYTES) as u64;
        self.hashes.clear();
        self.filter.push(&lines)
    }
}
