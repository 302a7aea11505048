//! A segment as it is read: verified at open, looked up where it lies, blocks through the cache.
//!
//! What always holds: header, footer and every section that is not blocks were read by `pread` and verified before
//! anything is mapped; no length or place from the file is used before it was checked; the file stays until the last user is
//! gone, and goes then if it was to be removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::block::{self, BLOCK_HEADER_BYTES, Block, BlockKind, RAW_BYTES_MAX};
use super::cache::{BlockCache, BlockId};
use super::delta::DeltaRows;
use super::directory::{DirectoryRow, HeadRow};
use super::filter;
use super::footer::{Footer, Placed, rot};
use super::format::{FOOTER_BYTES, HEADER_BYTES, Section, Span};
use super::index::{BlockIndex, BlockPlace, DeltaIndex};
use super::info::SegmentInfo;
use super::output::section_crc;
use super::record::Item;
use super::records::{Malformed, RecordBlock, RunReader};
use super::table::Table;
use crate::id::{ConversationId, SeqId};
use crate::io::{Context, DataFile, Disk, Region, read_full};
use crate::{Error, Result};

/// How much is read at once to verify a section.
const PIECE_BYTES: u64 = 1 << 20;

/// An open segment; share it behind an `Arc`.
pub struct Segment {
    disk: Arc<dyn Disk>,
    path: String,
    file: Arc<dyn DataFile>,
    footer: Footer,
    info: SegmentInfo,
    seed: u64,
    /// All sections that are not blocks.
    region: Region,
    region_start: u64,
    cache: Arc<BlockCache>,
    number: u64,
    is_doomed: AtomicBool,
}

impl Segment {
    /// Opens a file and verifies all of it but its data blocks, which are verified as they are read.
    pub fn open(disk: &Arc<dyn Disk>, path: &str, cache: &Arc<BlockCache>) -> Result<Segment> {
        let file = disk.open(path).context("open", path)?;
        let file_bytes = file.len().context("measure", path)?;
        let (span, footer) = read_ends(&*file, path, file_bytes)?;
        let seed = span.seed();
        let mapped = || footer.sections.iter().filter(|placed| !placed.section.is_blocks());
        for placed in mapped() {
            verify(&*file, path, span, placed, seed)?;
        }
        let region_start = mapped().next().map_or(0, |placed| placed.offset);
        let region_bytes = file_bytes - FOOTER_BYTES as u64 - region_start;
        let region = file.map(region_start, region_bytes as usize).context("map", path)?;
        let segment = Segment {
            disk: disk.clone(),
            path: path.to_owned(),
            file,
            info: SegmentInfo::new(&footer, file_bytes),
            footer,
            seed,
            region,
            region_start,
            cache: cache.clone(),
            number: cache.number_segment(),
            is_doomed: AtomicBool::new(false),
        };
        segment.check_indexes()?;
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
        &self.path
    }

    /// Bytes of its file as they lie there, from `offset` on: fewer than asked for only at its end. For whoever copies it.
    pub fn read_file(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        read_full(&*self.file, buffer, offset).context("read", &self.path)
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
        let found = self.directory_table().find(conversation);
        let fields = found.map_err(|Malformed| self.rot_in(Section::Directory))?;
        fields.map(|fields| self.directory_row(conversation, fields)).transpose()
    }

    /// All conversations in it, in the order of (bucket, conversation).
    pub fn directory(&self) -> impl Iterator<Item = Result<DirectoryRow>> + '_ {
        self.directory_table().iter().map(|row| {
            let (conversation, fields) = row.map_err(|Malformed| self.rot_in(Section::Directory))?;
            self.directory_row(conversation, fields)
        })
    }

    /// Whether it has a heads table.
    pub fn has_heads(&self) -> bool {
        self.info.counts.heads.is_some()
    }

    /// A conversation's newest record up to here, if the segment has a heads table and the conversation a record.
    pub fn head(&self, conversation: ConversationId) -> Result<Option<HeadRow>> {
        let found = self.heads_table().find(conversation);
        let fields = found.map_err(|Malformed| self.rot_in(Section::Heads))?;
        fields.map(|fields| self.head_row(conversation, fields)).transpose()
    }

    /// The heads table, in the order of (bucket, conversation); empty if the segment has none.
    pub fn heads(&self) -> impl Iterator<Item = Result<HeadRow>> + '_ {
        self.heads_table().iter().map(|row| {
            let (conversation, fields) = row.map_err(|Malformed| self.rot_in(Section::Heads))?;
            self.head_row(conversation, fields)
        })
    }

    /// What the state delta says of a key: `None` if nothing, `Some(None)` that its row is gone. At most one block is read.
    pub fn delta_get(&self, key: &[u8]) -> Result<Option<Option<Bytes>>> {
        let index = self.delta_index();
        let block = index.block_of(key).ok_or_else(|| self.rot_in(Section::DeltaIndex))?;
        let Some(number) = block.filter(|block| index.may_hold(*block, filter::key_hash(key))) else { return Ok(None) };
        let entry = index.get(number).ok_or_else(|| self.rot_in(Section::DeltaIndex))?;
        let block = self.cached_block(BlockKind::Delta, number, entry.place)?;
        let found = DeltaRows::new(block).find(key);
        found.map_err(|Malformed| self.rot_at(entry.place, Section::Delta))
    }

    /// Whether the state delta may say something of a key; `false` only if it certainly does not. Reads no block.
    pub fn delta_may_hold(&self, key: &[u8]) -> bool {
        let index = self.delta_index();
        match index.block_of(key) {
            Some(Some(block)) => index.may_hold(block, filter::key_hash(key)),
            Some(None) => false,
            None => true,
        }
    }

    pub(super) fn block_index(&self) -> BlockIndex<'_> {
        BlockIndex::new(self.section(Section::BlockIndex), self.section(Section::IdFilter))
    }

    pub(super) fn delta_index(&self) -> DeltaIndex<'_> {
        let section = |section| self.section(section);
        DeltaIndex::new(section(Section::DeltaIndex), section(Section::DeltaRestarts), section(Section::DeltaFilter))
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
        self.cache.count_scan();
        self.as_records(self.read_block(BlockKind::Records, place)?, place)
    }

    /// A block of state rows past the cache.
    pub(super) fn scan_delta_block(&self, number: u32) -> Result<DeltaRows> {
        let entry = self.delta_index().get(number).ok_or_else(|| self.rot_in(Section::DeltaIndex))?;
        self.cache.count_scan();
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
    pub(super) fn filter_admits(&self, item: &Item, hash: u64, row: Option<DirectoryRow>) -> bool {
        let index = self.block_index();
        row.is_some_and(|row| index.may_hold(index.block_of(row.conversation, row.block, item.first()), hash))
    }

    fn directory_table(&self) -> Table<'_> {
        Table::new(self.section(Section::Directory), self.section(Section::DirectoryRestarts))
    }

    fn heads_table(&self) -> Table<'_> {
        Table::new(self.section(Section::Heads), self.section(Section::HeadsRestarts))
    }

    fn directory_row(&self, conversation: ConversationId, fields: &[u8]) -> Result<DirectoryRow> {
        let row = DirectoryRow::decode(conversation, fields, &self.info.span, self.info.log_time);
        row.ok_or_else(|| self.rot_in(Section::Directory))
    }

    fn head_row(&self, conversation: ConversationId, fields: &[u8]) -> Result<HeadRow> {
        HeadRow::decode(conversation, fields).ok_or_else(|| self.rot_in(Section::Heads))
    }

    fn record_place(&self, number: u32) -> Result<BlockPlace> {
        let entry = self.block_index().get(number);
        entry.map(|entry| entry.place).ok_or_else(|| self.rot_in(Section::BlockIndex))
    }

    fn as_records(&self, block: Block, place: BlockPlace) -> Result<RecordBlock> {
        let records = RecordBlock::new(block, self.info.span.shard);
        records.ok_or_else(|| self.rot_at(place, Section::Records))
    }

    fn cached_block(&self, kind: BlockKind, number: u32, place: BlockPlace) -> Result<Block> {
        let id = BlockId { segment: self.number, kind, block: number };
        self.cache.get(id, place.bytes, || self.read_block(kind, place))
    }

    fn read_block(&self, kind: BlockKind, place: BlockPlace) -> Result<Block> {
        let mut bytes = vec![0; place.bytes as usize];
        let read = read_full(&*self.file, &mut bytes, place.offset).context("read", &self.path)?;
        let section = if kind == BlockKind::Records { Section::Records } else { Section::Delta };
        let block = block::open(kind, (self.seed, place.offset), &bytes[..read]);
        block.ok_or_else(|| self.rot_at(place, section))
    }

    /// The bytes of a section that is mapped. The footer was found to fill the file, so they are within the region.
    fn section(&self, section: Section) -> &[u8] {
        let placed = self.footer.section(section);
        let start = (placed.offset - self.region_start) as usize;
        &self.region[start..][..placed.len as usize]
    }

    /// Lengths fit counts, and blocks fill their sections: whatever an index says afterwards is a place in the file.
    fn check_indexes(&self) -> Result<()> {
        self.check_length(Section::BlockIndex, self.block_index().len() as u64)?;
        self.check_length(Section::DeltaRestarts, self.delta_index().len() as u64)?;
        let records = self.block_index();
        let places = (0..records.len()).map(|number| records.get(number).map(|entry| entry.place));
        self.check_tiling(Section::Records, Section::BlockIndex, places)?;
        let delta = self.delta_index();
        let places = (0..delta.len()).map(|number| delta.get(number).map(|entry| entry.place));
        self.check_tiling(Section::Delta, Section::DeltaIndex, places)
    }

    fn check_length(&self, section: Section, entries: u64) -> Result<()> {
        let is_right = self.footer.section(section).count == entries;
        if is_right { Ok(()) } else { Err(self.rot_in(section)) }
    }

    fn check_tiling(
        &self,
        blocks: Section,
        index: Section,
        places: impl Iterator<Item = Option<BlockPlace>>,
    ) -> Result<()> {
        let placed = self.footer.section(blocks);
        let mut end = placed.offset;
        for place in places {
            match place {
                Some(place) if place.offset == end && is_block_length(place.bytes) => end += u64::from(place.bytes),
                _ => return Err(self.rot_in(index)),
            }
        }
        if end == placed.offset + placed.len { Ok(()) } else { Err(self.rot_in(index)) }
    }

    /// Rot that was found by what a section says.
    pub(super) fn rot(&self, section: Section, what: &str) -> Error {
        rot(&self.path, self.info.span, self.footer.section(section).offset, section, what)
    }

    pub(super) fn rot_in(&self, section: Section) -> Error {
        self.rot(section, "it verifies, but makes no sense")
    }

    fn rot_at(&self, place: BlockPlace, section: Section) -> Error {
        rot(&self.path, self.info.span, place.offset, section, "a block does not verify")
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.is_doomed.load(Ordering::Relaxed)
            && let Err(error) = self.disk.remove(&self.path)
        {
            tracing::warn!(path = self.path, %error, "a segment that nothing needs stays until the next start");
        }
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

/// Reads a section from end to end and compares its CRC.
fn verify(file: &dyn DataFile, path: &str, span: Span, placed: &Placed, seed: u64) -> Result<()> {
    let mut crc = section_crc(placed.section, seed);
    let mut piece = vec![0; placed.len.min(PIECE_BYTES) as usize];
    let mut at = 0;
    while at < placed.len {
        let want = (placed.len - at).min(PIECE_BYTES) as usize;
        let read = read_full(file, &mut piece[..want], placed.offset + at).context("read", path)?;
        if read < want {
            return Err(rot(path, span, placed.offset + at, placed.section, "the file is cut"));
        }
        crc.update(&piece[..want]);
        at += want as u64;
    }
    if crc.finalize() != placed.crc {
        return Err(rot(path, span, placed.offset, placed.section, "it does not verify"));
    }
    Ok(())
}
