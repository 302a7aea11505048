//! A section that is not blocks: verified whole at open, and read again a page at a time (docs/decisions/0006).
//!
//! What always holds: nothing is mapped, so a file that somebody cuts and a medium that fails are errors of the read that meets them, with
//! file and offset; every page that is read has the CRC that it had when the section was verified, so that what
//! rots after that is found too. Of a section that is read in pages four bytes a page stay in memory, and pages in the block cache as
//! it has room; small sections, and those that say where in another one to look, stay whole.

use std::sync::Arc;

use bytes::Bytes;

use super::cache::{BlockCache, BlockId};
use super::footer::{Placed, rot};
use super::format::{Level, Section, Span};
use super::output::section_crc;
use crate::io::{Context, DataFile, read_full};
use crate::{Error, Result};

/// What is read at once where nothing says otherwise.
const PAGE_BYTES: usize = 4096;
/// Sections up to here stay in memory: to have all of a small segment's there costs as much as its blocks in the cache.
const WHOLE_BYTES_MAX: u64 = 16 << 10;
/// How much is read at once to verify a section, or to read it from end to end.
const PIECE_BYTES: usize = 256 << 10;

/// The file that sections are in.
pub(super) struct Origin {
    pub(super) path: String,
    pub(super) file: Arc<dyn DataFile>,
    pub(super) span: Span,
    pub(super) cache: Arc<BlockCache>,
    /// What the cache knows the file by.
    pub(super) number: u64,
}

/// One section of it.
pub(super) struct Paged {
    origin: Arc<Origin>,
    placed: Placed,
    page_bytes: usize,
    kept: Kept,
}

enum Kept {
    Whole(Box<[u8]>),
    /// Of each page.
    Crcs(Box<[u32]>),
}

impl Paged {
    /// Reads a section from end to end and compares its CRC.
    pub(super) fn open(origin: &Arc<Origin>, placed: Placed, seed: u64) -> Result<Paged> {
        Paged::with_pages(origin, placed, seed, PAGE_BYTES)
    }

    /// The same, in pages of so many bytes, at most 4 KiB.
    pub(super) fn with_pages(origin: &Arc<Origin>, placed: Placed, seed: u64, page_bytes: usize) -> Result<Paged> {
        debug_assert!(page_bytes <= PAGE_BYTES);
        let is_whole = placed.len <= WHOLE_BYTES_MAX || stays_whole(placed.section, origin.span.level);
        let kept = if is_whole { Kept::Whole(Box::default()) } else { Kept::Crcs(Box::default()) };
        let mut paged = Paged { origin: origin.clone(), placed, page_bytes, kept };
        let (mut whole, mut crcs) = (Vec::new(), Vec::new());
        let mut crc = section_crc(placed.section, seed);
        let piece_bytes = PIECE_BYTES / page_bytes * page_bytes;
        let mut piece = vec![0; placed.len.min(piece_bytes as u64) as usize];
        let mut at = 0;
        while at < placed.len {
            let piece = &mut piece[..(placed.len - at).min(piece_bytes as u64) as usize];
            paged.read(at, piece)?;
            crc.update(piece);
            match is_whole {
                true => whole.extend_from_slice(piece),
                false => crcs.extend(piece.chunks(page_bytes).map(crc32fast::hash)),
            }
            at += piece.len() as u64;
        }
        if crc.finalize() != placed.crc {
            return Err(paged.rot(0, "it does not verify"));
        }
        paged.kept = if is_whole { Kept::Whole(whole.into()) } else { Kept::Crcs(crcs.into()) };
        Ok(paged)
    }

    /// Bytes in it.
    pub(super) fn len(&self) -> u64 {
        self.placed.len
    }

    /// All of it, if it stays in memory.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        match &self.kept {
            Kept::Whole(bytes) => Some(bytes),
            Kept::Crcs(_) => None,
        }
    }

    /// Shows `len` bytes from `at` on; `None` if the section does not have them.
    pub(super) fn look<T>(&self, at: u64, len: usize, look: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        let end = at.checked_add(len as u64).filter(|end| *end <= self.placed.len);
        let Some(end) = end else { return Ok(None) };
        let crcs = match &self.kept {
            Kept::Whole(bytes) => return Ok(Some(look(&bytes[at as usize..end as usize]))),
            Kept::Crcs(crcs) => crcs,
        };
        let page_bytes = self.page_bytes as u64;
        let (first, skip) = (at / page_bytes, (at % page_bytes) as usize);
        if skip + len <= self.page_bytes {
            let page = self.page(first, crcs)?;
            return Ok(Some(look(&page[skip..skip + len])));
        }
        let mut bytes = Vec::with_capacity(skip + len + self.page_bytes);
        for number in first..end.div_ceil(page_bytes) {
            bytes.extend_from_slice(&self.page(number, crcs)?);
        }
        Ok(Some(look(&bytes[skip..skip + len])))
    }

    /// A page through the cache; the section has it.
    fn page(&self, number: u64, crcs: &[u32]) -> Result<Bytes> {
        let Origin { cache, number: segment, .. } = &*self.origin;
        let id = BlockId { segment: *segment, section: self.placed.section, number: number as u32 };
        cache.get_page(id, || {
            let at = number * self.page_bytes as u64;
            let mut page = vec![0; (self.placed.len - at).min(self.page_bytes as u64) as usize];
            self.read_pages(number, &mut page, crcs)?;
            Ok(page.into())
        })
    }

    /// Adds the bytes from `at` on, which must be where a page begins, to `out`: as many pages as make a piece; none at the end.
    pub(super) fn read_piece(&self, at: u64, out: &mut Vec<u8>) -> Result<usize> {
        let piece_bytes = PIECE_BYTES / self.page_bytes * self.page_bytes;
        let len = self.placed.len.saturating_sub(at).min(piece_bytes as u64) as usize;
        match &self.kept {
            Kept::Whole(bytes) => out.extend_from_slice(&bytes[bytes.len().min(at as usize)..][..len]),
            Kept::Crcs(crcs) => {
                let start = out.len();
                out.resize(start + len, 0);
                self.read_pages(at / self.page_bytes as u64, &mut out[start..], crcs)?;
            }
        }
        Ok(len)
    }

    /// It verified, but makes no sense.
    pub(super) fn senseless(&self) -> Error {
        self.rot(0, "it verifies, but makes no sense")
    }

    fn read_pages(&self, first: u64, pages: &mut [u8], crcs: &[u32]) -> Result<()> {
        let at = first * self.page_bytes as u64;
        self.read(at, pages)?;
        let crcs = &crcs[first as usize..];
        let bad = pages.chunks(self.page_bytes).zip(crcs).position(|(page, crc)| crc32fast::hash(page) != *crc);
        match bad {
            Some(page) => Err(self.rot(at + (page * self.page_bytes) as u64, "it has changed since it was verified")),
            None => Ok(()),
        }
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        let Origin { path, file, .. } = &*self.origin;
        let read = read_full(&**file, buffer, self.placed.offset + at).context("read", path)?;
        if read < buffer.len() {
            return Err(self.rot(at + read as u64, "the file is cut"));
        }
        Ok(())
    }

    fn rot(&self, at: u64, what: &str) -> Error {
        rot(&self.origin.path, self.origin.span, self.placed.offset + at, self.placed.section, what)
    }
}

/// Restarts and the delta index say which page of another section, or which block, to read: with them in memory that is one read. They take
/// 1.5 bytes a conversation and about 0.1 % of what state rows take. Filters over the keys of a seal's rows, which the state store has
/// not absorbed, are asked by every look at a row that is not in memory, one seal after the other.
fn stays_whole(section: Section, level: Level) -> bool {
    match section {
        Section::DirectoryRestarts | Section::HeadsRestarts | Section::DeltaIndex | Section::DeltaRestarts => true,
        Section::DeltaFilter => level == Level(0),
        _ => false,
    }
}
