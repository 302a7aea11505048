//! Writing the state delta of a segment: blocks, their index and filters.
//!
//! What always holds: a key is found with one block read; a block holds more than its limit only if one row alone does.

use std::sync::Arc;

use super::BuildOptions;
use super::block::{BlockKind, BlockWriter};
use super::delta::{DeltaBlockWriter, DeltaRow};
use super::filter;
use super::footer::{Counts, Placed};
use super::format::{Section, Span};
use super::index::{BlockPlace, DeltaEntry};
use super::input;
use super::output::{Output, Spool};
use crate::Result;
use crate::io::{Context, Disk};

pub(super) struct DeltaSection {
    seed: u64,
    block_bytes: usize,
    block: DeltaBlockWriter,
    envelope: BlockWriter,
    hashes: Vec<u64>,
    any: bool,
    index: Spool,
    restarts: Spool,
    filter: Spool,
}

impl DeltaSection {
    pub(super) fn new(disk: &Arc<dyn Disk>, path: &str, span: Span, options: &BuildOptions) -> Result<DeltaSection> {
        let spool = |section| Spool::new(disk, path, section, span.seed(), options.spool_bytes);
        Ok(DeltaSection {
            seed: span.seed(),
            block_bytes: options.delta_block_bytes,
            block: DeltaBlockWriter::default(),
            envelope: BlockWriter::new(options.zstd_level).context("compress for", path)?,
            hashes: Vec::new(),
            any: false,
            index: spool(Section::DeltaIndex),
            restarts: spool(Section::DeltaRestarts),
            filter: spool(Section::DeltaFilter),
        })
    }

    /// Adds a row whose key follows the last one.
    pub(super) fn push(&mut self, row: &DeltaRow, out: &mut Output<'_>, counts: &mut Counts) -> Result<()> {
        input::check_row(row, self.any.then(|| self.block.last_key()))?;
        let row_bytes = row.key.len() + row.value.as_ref().map_or(0, |value| value.len());
        if self.block.rows > 0 && self.block.raw.len() + row_bytes > self.block_bytes {
            self.flush(out, counts)?;
        }
        self.block.push(row);
        self.hashes.push(filter::key_hash(&row.key));
        self.any = true;
        counts.delta_rows += 1;
        counts.tombstones += u64::from(row.value.is_none());
        Ok(())
    }

    /// Writes the block that is being filled, if it has anything.
    pub(super) fn flush(&mut self, out: &mut Output<'_>, counts: &mut Counts) -> Result<()> {
        if self.block.rows == 0 {
            return Ok(());
        }
        let offset = out.offset();
        let bytes = self.envelope.seal(BlockKind::Delta, (self.seed, offset), &[], &self.block.raw);
        let bytes = bytes.context("compress", "a block")?;
        out.write(bytes)?;
        let place = BlockPlace { offset, bytes: bytes.len() as u32 };
        counts.delta_blocks += 1;
        counts.delta_raw_bytes += self.block.raw.len() as u64;
        self.index_block(place)?;
        self.block.clear();
        Ok(())
    }

    /// Index, its restarts, filter.
    pub(super) fn finish(self, out: &mut Output<'_>) -> Result<[Placed; 3]> {
        Ok([self.index.finish(out)?, self.restarts.finish(out)?, self.filter.finish(out)?])
    }

    fn index_block(&mut self, place: BlockPlace) -> Result<()> {
        let filter_line = self.filter.count as u32;
        let entry = DeltaEntry { place, rows: self.block.rows, filter_line, first_key: &self.block.first_key };
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        self.restarts.push(&self.index.len().to_le_bytes())?;
        self.index.push(&bytes)?;
        self.index.count += 1;
        self.restarts.count += 1;
        let lines = filter::build(&self.hashes);
        self.filter.count += (lines.len() / filter::LINE_BYTES) as u64;
        self.hashes.clear();
        self.filter.push(&lines)
    }
}
