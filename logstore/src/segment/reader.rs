//! A segment as it is read: verified at open, looked up where it lies, blocks through the cache.
//!
//! What always holds: header, footer and every section that is not blocks were read and verified before anything is looked up;
//! no length or place from the file is used before it was checked; lookups may read (see `paged.rs`), so they are made off the async
//! workers; the file stays until the last user is gone, and goes then if it was to be removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::block::{self, BLOCK_HEADER_BYTES, Block, BlockKind, RAW_BYTES_MAX};
use super::cache::{BlockCache, BlockId};
use super::delta::DeltaRows;
use super::directory::{DirectoryRow, HeadRow};
use super::filter;
use super::footer::{Footer, rot};
use super::format::{FOOTER_BYTES, HEADER_BYTES, Section, Span};
use super::index::{BlockIndex, BlockPlace, DeltaIndex};
use super::info::SegmentInfo;
use super::paged::{Origin, Paged};
use super::record::Item;
use super::records::{Malformed, RecordBlock, RunReader};
use super::table::Table;
use crate::id::{ConversationId, SeqId};
use crate::io::{Context, DataFile, Disk, read_full};
use crate::{Error, Result};

/// An open segment; share it behind an `Arc`.
pub struct Segment {
    disk: Arc<dyn Disk>,
    origin: Arc<Origin>,
    footer: Footer,
    info: SegmentInfo,
    seed: u64,
    blocks: BlockIndex,
    delta: DeltaIndex,
    directory: Table,
    heads: Table,
    is_doomed: AtomicBool,
}

impl Segment {
    /// Opens a file and verifies all of it but its data blocks, which are verified as they are read.
    pub fn open(disk: &Arc<dyn Disk>, path: &str, cache: &Arc<BlockCache>) -> Result<Segment> {
        let file = disk.open(path).context("open", path)?;
        let file_bytes = file.len().context("measure", path)?;
        let (span, footer) = read_ends(&*file, path, file_bytes)?;
        let seed = span.seed();
        let (cache, number) = (cache.clone(), cache.number_segment());
        let origin = Arc::new(Origin { path: path.to_owned(), file, span, cache, number });
        let paged = |section| Paged::open(&origin, footer.section(section), seed);
        let index = Paged::with_pages(&origin, footer.section(Section::BlockIndex), seed, BlockIndex::PAGE_BYTES)?;
        let mut records = Tiling::of(&footer, Section::Records);
        let segment = Segment {
            disk: disk.clone(),
            info: SegmentInfo::new(&footer, file_bytes),
            seed,
            blocks: BlockIndex::new(index, paged(Section::IdFilter)?, |entry| records.add(entry.place))?,
            delta: DeltaIndex::new(
                paged(Section::DeltaIndex)?,
                paged(Section::DeltaRestarts)?,
                paged(Section::DeltaFilter)?,
            ),
            directory: Table::new(paged(Section::Directory)?, paged(Section::DirectoryRestarts)?),
            heads: Table::new(paged(Section::Heads)?, paged(Section::HeadsRestarts)?),
            footer,
            origin,
            is_doomed: AtomicBool::new(false),
        };
        segment.check_indexes(&records)?;
        Ok(segment)
    }

    /// What it holds.
    pub fn info(&self) -> &SegmentInfo {
        &self.info
    }

    /// What it holds of which log.
    pub fn span(&self) -> Span {
        self.info.span
    }

    /// Its file, relative to the data directory.
    pub fn path(&self) -> &str {
        &self.origin.path
    }

    /// Bytes of its file as they lie there, from `offset` on: fewer than asked for only at its end. For whoever copies it.
    pub fn read_file(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        read_full(&*self.origin.file, buffer, offset).context("read", &self.origin.path)
    }

    /// Its parts between header and footer: which, from which byte on, how many bytes.
    pub fn sections(&self) -> impl Iterator<Item = (Section, u64, u64)> + '_ {
        self.footer.sections.iter().map(|placed| (placed.section, placed.offset, placed.len))
    }

    /// Removes the file when the last user is gone.
    pub fn remove_when_unused(&self) {
        self.is_doomed.store(true, Ordering::Relaxed);
    }

    /// What the segment holds of a conversation.
    pub fn find(&self, conversation: ConversationId) -> Result<Option<DirectoryRow>> {
        self.directory.find(conversation, |fields| self.directory_row(conversation, fields))
    }

    /// All conversations in it, in the order of (bucket, conversation).
    pub fn directory(&self) -> impl Iterator<Item = Result<DirectoryRow>> + '_ {
        let mut rows = self.directory.iter();
        std::iter::from_fn(move || rows.next(|conversation, fields| self.directory_row(conversation, fields)))
    }

    /// Whether it has a heads table.
    pub fn has_heads(&self) -> bool {
        self.info.counts.heads.is_some()
    }

    /// A conversation's newest record up to here, if the segment has a heads table and the conversation a record.
    pub fn head(&self, conversation: ConversationId) -> Result<Option<HeadRow>> {
        self.heads.find(conversation, |fields| HeadRow::decode(conversation, fields))
    }

    /// The heads table, in the order of (bucket, conversation); empty if the segment has none.
    pub fn heads(&self) -> impl Iterator<Item = Result<HeadRow>> + '_ {
        let mut rows = self.heads.iter();
        std::iter::from_fn(move || rows.next(HeadRow::decode))
    }

    /// What the state delta says of a key: `None` if nothing, `Some(None)` that its row is gone. At most one block is read.
    pub fn delta_get(&self, key: &[u8]) -> Result<Option<Option<Bytes>>> {
        let block = self.delta.block_of(key).ok_or_else(|| self.rot_in(Section::DeltaIndex))?;
        let Some(number) = block else { return Ok(None) };
        if !self.delta.may_hold(number, filter::key_hash(key))? {
            return Ok(None);
        }
        let entry = self.delta.get(number).ok_or_else(|| self.rot_in(Section::DeltaIndex))?;
        let block = self.cached_block(BlockKind::Delta, number, entry.place)?;
        let found = DeltaRows::new(block).find(key);
        found.map_err(|Malformed| self.rot_at(entry.place, Section::Delta))
    }

    /// Whether the state delta may say something of a key, as far as memory knows; `false` only if it certainly does not. Reads nothing.
    pub fn delta_may_hold(&self, key: &[u8]) -> bool {
        match self.delta.block_of(key) {
            Some(Some(block)) => self.delta.may_hold_as_known(block, filter::key_hash(key)),
            Some(None) => false,
            None => true,
        }
    }

    pub(super) fn block_index(&self) -> &BlockIndex {
        &self.blocks
    }

    pub(super) fn delta_index(&self) -> &DeltaIndex {
        &self.delta
    }

    /// A block of records through the cache.
    pub(super) fn record_block(&self, number: u32) -> Result<RecordBlock> {
        let place = self.record_place(number)?;
        let block = self.cached_block(BlockKind::Records, number, place)?;
        self.as_records(block, place)
    }

    /// A block of records past the cache.
    pub(super) fn scan_record_block(&self, number: u32) -> Result<RecordBlock> {
        let place = self.record_place(number)?;
        self.origin.cache.count_scan();
        self.as_records(self.read_block(BlockKind::Records, place)?, place)
    }

    /// A block of state rows past the cache.
    pub(super) fn scan_delta_block(&self, number: u32) -> Result<DeltaRows> {
        let entry = self.delta_index().get(number).ok_or_else(|| self.rot_in(Section::DeltaIndex))?;
        self.origin.cache.count_scan();
        self.read_block(BlockKind::Delta, entry.place).map(DeltaRows::new)
    }

    /// A block of state rows through the cache.
    pub(super) fn cached_delta_block(&self, number: u32) -> Result<DeltaRows> {
        let entry = self.delta_index().get(number).ok_or_else(|| self.rot_in(Section::DeltaIndex))?;
        self.cached_block(BlockKind::Delta, number, entry.place).map(DeltaRows::new)
    }

    /// The run of a conversation in a block: where its row says in the first, from the beginning in those after it.
    pub(super) fn run<'a>(
        &self,
        row: &DirectoryRow,
        number: u32,
        block: &'a RecordBlock,
        from: SeqId,
    ) -> Result<RunReader<'a>> {
        let at = if number == row.block { row.offset as usize } else { block.first_run() };
        let run = block.run(at, from).filter(|run| run.conversation() == row.conversation);
        run.ok_or_else(|| self.rot_in_block(number))
    }

    /// A block of records makes no sense, though it verified.
    pub(super) fn rot_in_block(&self, number: u32) -> Error {
        match self.record_place(number) {
            Ok(place) => self.rot_at(place, Section::Records),
            Err(error) => error,
        }
    }

    /// A block of state rows makes no sense, though it verified.
    pub(super) fn rot_in_delta_block(&self, number: u32) -> Error {
        match self.delta_index().get(number) {
            Some(entry) => self.rot_at(entry.place, Section::Delta),
            None => self.rot_in(Section::DeltaIndex),
        }
    }

    /// Whether the filter of the block that an item lies in admits a message id.
    pub(super) fn filter_admits(&self, item: &Item, hash: u64, row: Option<DirectoryRow>) -> Result<bool> {
        let Some(row) = row else { return Ok(false) };
        let block = self.blocks.block_of(row.conversation, row.block, item.first())?;
        self.blocks.may_hold(block, hash)
    }

    fn directory_row(&self, conversation: ConversationId, fields: &[u8]) -> Option<DirectoryRow> {
        DirectoryRow::decode(conversation, fields, &self.info.span, self.info.log_time)
    }

    fn record_place(&self, number: u32) -> Result<BlockPlace> {
        let entry = self.blocks.get(number)?;
        entry.map(|entry| entry.place).ok_or_else(|| self.rot_in(Section::BlockIndex))
    }

    fn as_records(&self, block: Block, place: BlockPlace) -> Result<RecordBlock> {
        let records = RecordBlock::new(block, self.info.span.shard);
        records.ok_or_else(|| self.rot_at(place, Section::Records))
    }

    fn cached_block(&self, kind: BlockKind, number: u32, place: BlockPlace) -> Result<Block> {
        let section = if kind == BlockKind::Records { Section::Records } else { Section::Delta };
        let id = BlockId { segment: self.origin.number, section, number };
        self.origin.cache.get(id, place.bytes, || self.read_block(kind, place))
    }

    fn read_block(&self, kind: BlockKind, place: BlockPlace) -> Result<Block> {
        let mut bytes = vec![0; place.bytes as usize];
        let Origin { path, file, .. } = &*self.origin;
        let read = read_full(&**file, &mut bytes, place.offset).context("read", path)?;
        let section = if kind == BlockKind::Records { Section::Records } else { Section::Delta };
        let block = block::open(kind, (self.seed, place.offset), &bytes[..read]);
        block.ok_or_else(|| self.rot_at(place, section))
    }

    /// Lengths fit counts, and blocks fill their sections: whatever an index says afterwards is a place in the file.
    fn check_indexes(&self, records: &Tiling) -> Result<()> {
        let mut rows = Tiling::of(&self.footer, Section::Delta);
        let delta = (0..self.delta.len()).map(|number| self.delta.get(number));
        let are_places = delta.into_iter().all(|entry| entry.is_some_and(|entry| rows.add(entry.place)));
        let restarts = self.footer.section(Section::DeltaRestarts).count;
        if !records.is_whole(self.footer.section(Section::BlockIndex).count) {
            Err(self.rot_in(Section::BlockIndex))
        } else if restarts != u64::from(self.delta.len()) {
            Err(self.rot_in(Section::DeltaRestarts))
        } else if !are_places || !rows.is_whole(restarts) {
            Err(self.rot_in(Section::DeltaIndex))
        } else {
            Ok(())
        }
    }

    /// Rot that was found by what a section says.
    pub(super) fn rot(&self, section: Section, what: &str) -> Error {
        rot(&self.origin.path, self.info.span, self.footer.section(section).offset, section, what)
    }

    pub(super) fn rot_in(&self, section: Section) -> Error {
        self.rot(section, "it verifies, but makes no sense")
    }

    fn rot_at(&self, place: BlockPlace, section: Section) -> Error {
        rot(&self.origin.path, self.info.span, place.offset, section, "a block does not verify")
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if !self.is_doomed.load(Ordering::Relaxed) {
            return;
        }
        // It may hold what was erased: neither file nor memory does when nothing reads it any more.
        self.origin.cache.forget(self.origin.number, Section::Records, self.blocks.len());
        if let Err(error) = self.disk.remove(&self.origin.path) {
            tracing::warn!(path = self.origin.path, %error, "a segment that nothing needs stays until the next start");
        }
    }
}

/// Blocks that follow each other without a gap.
struct Tiling {
    end: u64,
    section_end: u64,
    blocks: u64,
}

impl Tiling {
    fn of(footer: &Footer, blocks: Section) -> Tiling {
        let placed = footer.section(blocks);
        Tiling { end: placed.offset, section_end: placed.offset + placed.len, blocks: 0 }
    }

    /// Whether a block that lies there can be the next one.
    fn add(&mut self, place: BlockPlace) -> bool {
        let fits = place.offset == self.end && is_block_length(place.bytes);
        self.end += u64::from(place.bytes);
        self.blocks += 1;
        fits
    }

    /// Whether so many blocks fill their section.
    fn is_whole(&self, blocks: u64) -> bool {
        self.end == self.section_end && self.blocks == blocks
    }
}

/// A block has a header, and not more than the largest content uncompressed with as many message ids.
fn is_block_length(bytes: u32) -> bool {
    (BLOCK_HEADER_BYTES..=2 * RAW_BYTES_MAX).contains(&(bytes as usize))
}

fn read_ends(file: &dyn DataFile, path: &str, file_bytes: u64) -> Result<(Span, Footer)> {
    let mut header = [0; HEADER_BYTES];
    if read_full(file, &mut header, 0).context("read", path)? < HEADER_BYTES {
        let what = if file_bytes == 0 { "it is empty" } else { "it is shorter than a segment's header" };
        return Err(Error::NotOurs { path: path.to_owned(), what: what.to_owned() });
    }
    let span = Span::from_header(path, &header)?;
    let cut = || rot(path, span, file_bytes, Section::Footer, "the file is cut");
    let footer_at = file_bytes.checked_sub((HEADER_BYTES + FOOTER_BYTES) as u64).ok_or_else(cut)? + HEADER_BYTES as u64;
    let mut footer = [0; FOOTER_BYTES];
    if read_full(file, &mut footer, footer_at).context("read", path)? < FOOTER_BYTES {
        return Err(cut());
    }
    Ok((span, Footer::decode(path, span, file_bytes, &footer)?))
}
