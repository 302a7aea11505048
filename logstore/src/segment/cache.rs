//! Uncompressed blocks, and pages of other sections, that were read before: bounded in bytes, shared by all segments of a node.
//!
//! What always holds: what is in it was verified; two who want the same at once read it once; scanning a whole
//! segment does not go through it.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::block::Block;
use super::format::Section;
use crate::Result;

/// What a typical block takes: how many rows the cache's table has from the start.
const BLOCK_BYTES: u64 = 48 << 10;
/// A block must be able to fit into one part of the cache.
const PART_BYTES: u64 = 4 << 20;
const PARTS_MAX: u64 = 32;
/// What a block costs beside its bytes.
const ENTRY_BYTES: u64 = 128;

/// Names a block of a section, or a page of one that is not blocks. Segments are numbered as they are opened, so that numbers never come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BlockId {
    pub(super) segment: u64,
    pub(super) section: Section,
    pub(super) number: u32,
}

/// The cache; share it behind an `Arc`.
pub struct BlockCache {
    blocks: Cache<BlockId, Block, InBytes>,
    next_segment: AtomicU64,
    hits: AtomicU64,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    scanned: AtomicU64,
    page_hits: AtomicU64,
    page_reads: AtomicU64,
}

/// What a cache has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheFigures {
    /// Blocks that were there.
    pub hits: u64,
    /// Blocks that were read from files because somebody looked something up.
    pub reads: u64,
    /// Compressed bytes of these.
    pub read_bytes: u64,
    /// Blocks that were read from files by those who read a segment from end to end.
    pub scanned: u64,
    /// Pages of directories, indexes and filters that were there.
    pub page_hits: u64,
    /// Such pages, of 4 KiB at most, that were read from files because somebody looked something up.
    pub page_reads: u64,
    /// Bytes in use.
    pub bytes: u64,
}

#[derive(Clone)]
struct InBytes;

impl Weighter<BlockId, Block> for InBytes {
    fn weight(&self, _: &BlockId, block: &Block) -> u64 {
        block.bytes.len() as u64 + ENTRY_BYTES
    }
}

impl BlockCache {
    /// A cache of so many bytes; of 0 bytes it keeps nothing.
    pub fn new(bytes: u64) -> BlockCache {
        let parts = (bytes / PART_BYTES).clamp(1, PARTS_MAX);
        let options = OptionsBuilder::new()
            .estimated_items_capacity((bytes / BLOCK_BYTES).max(1) as usize)
            .weight_capacity(bytes)
            .shards(parts as usize)
            .build()
            .unwrap_or_else(|_| unreachable!("both capacities are stated"));
        let blocks = Cache::with_options(options, InBytes, DefaultHashBuilder::default(), DefaultLifecycle::default());
        let zero = || AtomicU64::new(0);
        BlockCache {
            blocks,
            next_segment: zero(),
            hits: zero(),
            reads: zero(),
            read_bytes: zero(),
            scanned: zero(),
            page_hits: zero(),
            page_reads: zero(),
        }
    }

    /// What it has done so far.
    pub fn figures(&self) -> CacheFigures {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheFigures {
            hits: of(&self.hits),
            reads: of(&self.reads),
            read_bytes: of(&self.read_bytes),
            scanned: of(&self.scanned),
            page_hits: of(&self.page_hits),
            page_reads: of(&self.page_reads),
            bytes: self.blocks.weight(),
        }
    }

    pub(super) fn number_segment(&self) -> u64 {
        self.next_segment.fetch_add(1, Ordering::Relaxed)
    }

    /// The block, read by `read` if it is not there; `bytes` are its compressed ones.
    pub(super) fn get(&self, id: BlockId, bytes: u32, read: impl FnOnce() -> Result<Block>) -> Result<Block> {
        let mut is_hit = true;
        let block = self.blocks.get_or_insert_with(&id, || {
            is_hit = false;
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.read_bytes.fetch_add(u64::from(bytes), Ordering::Relaxed);
            read()
        });
        if is_hit {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        block
    }

    /// The page, read by `read` if it is not there.
    pub(super) fn get_page(&self, id: BlockId, read: impl FnOnce() -> Result<Bytes>) -> Result<Bytes> {
        let mut counter = &self.page_hits;
        let page = self.blocks.get_or_insert_with(&id, || {
            counter = &self.page_reads;
            read().map(|bytes| Block { plain: bytes.len(), bytes })
        });
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(page?.bytes)
    }

    /// Lets go of the first so many blocks of a segment's section.
    pub(super) fn forget(&self, segment: u64, section: Section, blocks: u32) {
        for number in 0..blocks {
            self.blocks.remove(&BlockId { segment, section, number });
        }
    }

    pub(super) fn count_scan(&self) {
        self.scanned.fetch_add(1, Ordering::Relaxed);
    }
}
