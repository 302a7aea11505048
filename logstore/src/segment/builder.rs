//! Makes a segment file: records, then state rows, then what finds them, then its name.
//!
//! What always holds: a file has its final name only once all its bytes are synced; then the directory is synced. Until
//! then it ends in `.tmp`, and a start removes it. Memory is bounded by the options, whatever the size of the input.

use std::sync::Arc;

use super::delta::DeltaRow;
use super::delta_section::DeltaSection;
use super::directory::DirectoryRow;
use super::footer::{Counts, Footer, Placed};
use super::format::{HEADER_BYTES, Section, Span, shard_dir, unfinished_path};
use super::heads_section::{CarriedHeads, HeadsSection};
use super::identity::IdentityHasher;
use super::input::{InputError, ItemOrder};
use super::output::{Output, Pace, Spool, section_crc};
use super::record::{Item, SealedBody, TrimmedRange};
use super::record_section::RecordSection;
use super::table::TableWriter;
use super::{BuildOptions, SegmentInfo};
use crate::Result;
use crate::id::{ConversationId, SegmentOrdinal, TimeMs};
use crate::io::{Context, Disk};

/// Says which older segment is the newest that holds a conversation, by a seal in it.
pub type Previous<'a> = dyn Fn(ConversationId) -> Result<Option<SegmentOrdinal>> + 'a;

/// What a segment is made of beside its content.
pub struct NewSegment<'a> {
    /// Where it is written.
    pub disk: &'a Arc<dyn Disk>,
    /// What it holds of which log.
    pub span: Span,
    /// The log's time at its last Seal.
    pub log_time: TimeMs,
    /// The sizes of its parts; content and identity do not depend on them.
    pub options: &'a BuildOptions,
    /// Asked once for each conversation.
    pub previous: &'a Previous<'a>,
    /// The heads table before this segment, if it is to have one: that of the newest older segment with a table, overlaid with the
    /// directories of segments in between; empty for the first.
    pub heads: Option<CarriedHeads<'a>>,
    /// Told before each write how many bytes it is.
    pub pace: &'a mut Pace<'a>,
}

/// Takes the content of a segment in its order.
pub struct SegmentBuilder<'a> {
    disk: &'a Arc<dyn Disk>,
    span: Span,
    log_time: TimeMs,
    previous: &'a Previous<'a>,
    out: Output<'a>,
    order: ItemOrder,
    identity: IdentityHasher,
    counts: Counts,
    times: Option<(TimeMs, TimeMs)>,
    /// A trimmed range that the next item may continue.
    trimmed: Option<TrimmedRange>,
    records: RecordSection,
    /// Where the records end, once they do.
    records_end: Option<u64>,
    delta: DeltaSection,
    heads: Option<HeadsSection<'a>>,
}

impl<'a> SegmentBuilder<'a> {
    /// Begins a file, in place of a leftover of an earlier attempt at the same span.
    pub fn create(new: NewSegment<'a>) -> Result<SegmentBuilder<'a>> {
        let NewSegment { disk, span, log_time, options, previous, heads, pace } = new;
        let order = ItemOrder::new(span)?;
        let dir = shard_dir(span.shard);
        disk.create_dir(&dir).context("create", &dir)?;
        let path = unfinished_path(&span);
        let spool = |section| Spool::new(disk, &path, section, span.seed(), options.spool_bytes);
        let table = || TableWriter::new(spool(Section::Heads), spool(Section::HeadsRestarts));
        let mut out = Output::create(disk, &path, options.sync_bytes, pace)?;
        out.write(&span.header())?;
        Ok(SegmentBuilder {
            disk,
            span,
            log_time,
            previous,
            out,
            order,
            identity: IdentityHasher::new(&span),
            counts: Counts::default(),
            times: None,
            trimmed: None,
            records: RecordSection::new(disk, &path, span, log_time, options)?,
            records_end: None,
            delta: DeltaSection::new(disk, &path, span, options)?,
            heads: heads.map(|carried| HeadsSection::new(carried, table())),
        })
    }

    /// Adds the next item, in the order of (bucket, conversation, seq).
    pub fn push(&mut self, item: Item) -> Result<()> {
        if self.records_end.is_some() {
            return Err(InputError::Late("a record").into());
        }
        self.order.check(&item)?;
        match item {
            Item::Trimmed(range) => self.push_trimmed(range),
            Item::Record(_) => {
                self.flush_trimmed()?;
                self.write(&item)
            }
        }
    }

    /// Adds the next state row, in the order of keys. No records can follow.
    pub fn push_delta(&mut self, row: &DeltaRow) -> Result<()> {
        self.end_records()?;
        self.delta.push(row, &mut self.out, &mut self.counts)?;
        self.identity.delta(row);
        Ok(())
    }

    /// Completes the file, makes it durable and gives it its name.
    pub fn finish(mut self) -> Result<SegmentInfo> {
        let records_end = self.end_records()?;
        self.delta.flush(&mut self.out, &mut self.counts)?;
        let delta_end = self.out.offset();
        let blocks = [
            blocks(Section::Records, HEADER_BYTES as u64, records_end, self.counts.record_blocks),
            blocks(Section::Delta, records_end, delta_end, self.counts.delta_blocks),
        ];
        let [index, filter, rows, restarts] = self.records.finish(&mut self.out)?;
        let [delta_index, delta_restarts, delta_filter] = self.delta.finish(&mut self.out)?;
        let (heads, heads_rows) = match self.heads.take() {
            Some(heads) => heads.finish(&mut self.out).map(|(placed, rows)| (placed, Some(rows)))?,
            None => (no_heads(self.span.seed(), self.out.offset()), None),
        };
        self.counts.heads = heads_rows;
        let [heads, heads_restarts] = heads;
        let [records, delta] = blocks;
        let (first_time, last_time) = self.times.unwrap_or_default();
        let footer = Footer {
            span: self.span,
            identity: self.identity.finish(),
            log_time: self.log_time,
            first_time,
            last_time,
            counts: self.counts,
            sections: [
                records,
                delta,
                index,
                filter,
                rows,
                restarts,
                delta_index,
                delta_restarts,
                delta_filter,
                heads,
                heads_restarts,
            ],
        };
        self.out.write(&footer.encode())?;
        let (file_bytes, name) = self.out.finish()?;
        let info = SegmentInfo::new(&footer, file_bytes);
        name.rename(&info.path())?;
        let dir = shard_dir(self.span.shard);
        self.disk.sync_dir(&dir).context("sync", &dir)?;
        Ok(info)
    }

    fn push_trimmed(&mut self, range: TrimmedRange) -> Result<()> {
        match &mut self.trimmed {
            // One after the other: the order was checked.
            Some(before) if before.conversation == range.conversation => {
                (before.last, before.ordinal) = (range.last, range.ordinal);
                (before.time, before.index) = (range.time, range.index);
            }
            _ => {
                self.flush_trimmed()?;
                self.trimmed = Some(range);
            }
        }
        Ok(())
    }

    fn flush_trimmed(&mut self) -> Result<()> {
        match self.trimmed.take() {
            Some(range) => self.write(&Item::Trimmed(range)),
            None => Ok(()),
        }
    }

    fn write(&mut self, item: &Item) -> Result<()> {
        if self.records.begins_conversation(item) {
            self.end_conversation()?;
            self.counts.conversations += 1;
        }
        self.identity.item(item);
        self.count(item);
        self.records.push(item, &mut self.out, &mut self.counts)
    }

    fn count(&mut self, item: &Item) {
        let time = item.time();
        let (first, last) = self.times.unwrap_or((time, time));
        self.times = Some((first.min(time), last.max(time)));
        match item {
            Item::Record(record) => {
                self.counts.records += 1;
                self.counts.removed += u64::from(record.body == SealedBody::Removed);
                self.counts.body_bytes += record.body.len() as u64;
            }
            Item::Trimmed(range) => self.counts.trimmed += range.last.0 - range.first.0 + 1,
        }
    }

    fn end_conversation(&mut self) -> Result<()> {
        let Some(row) = self.records.end_conversation() else { return Ok(()) };
        let previous = (self.previous)(row.conversation)?;
        let row = DirectoryRow { previous_segment: previous.unwrap_or_default(), ..row };
        self.records.push_row(&row)?;
        match &mut self.heads {
            Some(heads) => heads.push(&row.head(self.span.last)),
            None => Ok(()),
        }
    }

    fn end_records(&mut self) -> Result<u64> {
        if let Some(end) = self.records_end {
            return Ok(end);
        }
        self.flush_trimmed()?;
        self.end_conversation()?;
        self.records.flush(&mut self.out, &mut self.counts)?;
        self.records_end = Some(self.out.offset());
        Ok(self.out.offset())
    }
}

fn blocks(section: Section, offset: u64, end: u64, count: u64) -> Placed {
    Placed { section, offset, len: end - offset, count, crc: 0 }
}

/// The sections of a heads table that is not there.
fn no_heads(seed: u64, offset: u64) -> [Placed; 2] {
    [Section::Heads, Section::HeadsRestarts].map(|section| Placed {
        section,
        offset,
        len: 0,
        count: 0,
        crc: section_crc(section, seed).finalize(),
    })
}

/// Makes a segment of all items and rows.
pub fn build(
    new: NewSegment<'_>,
    items: impl IntoIterator<Item = Result<Item>>,
    delta: impl IntoIterator<Item = Result<DeltaRow>>,
) -> Result<SegmentInfo> {
    let mut builder = SegmentBuilder::create(new)?;
    for item in items {
        builder.push(item?)?;
    }
    for row in delta {
        builder.push_delta(&row?)?;
    }
    builder.finish()
}
