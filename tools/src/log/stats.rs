//! `skein log stats`: what each shard's segments hold, and the conversations with most records.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use clap::Args as ClapArgs;
use logstore::SegmentSet;
use logstore::id::ShardId;
use serde::Serialize;

use super::conversations::{self, Sealed};
use super::ls::ratio;
use super::offline::{DataArgs, Offline};
use super::progress::Progress;
use crate::exit::Failure;
use crate::output::{Format, Printer, Row};
use crate::user::log_time;

/// Arguments of `stats`.
#[derive(ClapArgs)]
pub struct Args {
    /// How many conversations to name
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    top: u64,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Serialize)]
struct ShardRow {
    of: &'static str,
    shard: u16,
    segments: u64,
    upto_index: u64,
    records: u64,
    removed: u64,
    trimmed: u64,
    /// Different ones.
    conversations: u64,
    body_bytes: u64,
    raw_bytes: u64,
    file_bytes: u64,
    ratio: f64,
    delta_rows: u64,
    tombstones: u64,
    first_time: String,
    last_time: String,
}

#[derive(Serialize)]
struct ConversationRow {
    of: &'static str,
    conversation: String,
    shard: u16,
    /// Records, trimmed ones included.
    records: u64,
    last_seq: u64,
    segments: u64,
}

/// The conversations with most records so far, the smallest of them on top.
struct Top {
    most: BinaryHeap<Reverse<(Sealed, ShardId)>>,
    wanted: usize,
}

/// Prints the figures.
pub fn run(args: Args, printer: &mut Printer) -> Result<(), Failure> {
    let offline = Offline::open(&args.data)?;
    let sets = offline.all_sealed()?;
    let rows = sets.iter().flat_map(|set| set.manifest().segments()).map(|info| info.counts.conversations).sum();
    let progress = Progress::begin("directories", rows);
    let mut top = Top { most: BinaryHeap::new(), wanted: args.top as usize };
    let shards = sets.iter().map(|set| shard_row(set, &mut top, &progress)).collect::<Result<Vec<_>, _>>()?;
    drop(progress);
    printer.list(&shards)?;
    if printer.format() == Format::Table {
        printer.line("")?;
    }
    printer.list(&top.rows())
}

fn shard_row(set: &SegmentSet, top: &mut Top, progress: &Progress) -> Result<ShardRow, Failure> {
    let (shard, mut conversations) = (set.manifest().shard(), 0);
    conversations::visit(set, |sealed| {
        conversations += 1;
        progress.add(sealed.segments);
        top.offer(sealed, shard);
    })?;
    let infos = set.manifest().segments();
    let sum =
        |figure: fn(&logstore::segment::Counts) -> u64| infos.iter().map(|info| figure(&info.counts)).sum::<u64>();
    let (raw_bytes, file_bytes) = (
        sum(|counts| counts.record_raw_bytes + counts.delta_raw_bytes),
        infos.iter().map(|info| info.file_bytes).sum(),
    );
    let first_time = infos.iter().map(|info| info.first_time).filter(|time| time.0 > 0).min();
    Ok(ShardRow {
        of: "shard",
        shard: shard.0,
        segments: infos.len() as u64,
        upto_index: infos.last().map_or(0, |info| info.span.upto.0),
        records: sum(|counts| counts.records),
        removed: sum(|counts| counts.removed),
        trimmed: sum(|counts| counts.trimmed),
        conversations,
        body_bytes: sum(|counts| counts.body_bytes),
        raw_bytes,
        file_bytes,
        ratio: ratio(file_bytes, raw_bytes),
        delta_rows: sum(|counts| counts.delta_rows),
        tombstones: sum(|counts| counts.tombstones),
        first_time: log_time(first_time.unwrap_or_default()),
        last_time: log_time(infos.iter().map(|info| info.last_time).max().unwrap_or_default()),
    })
}

impl Top {
    fn offer(&mut self, sealed: Sealed, shard: ShardId) {
        self.most.push(Reverse((sealed, shard)));
        if self.most.len() > self.wanted {
            self.most.pop();
        }
    }

    fn rows(self) -> Vec<ConversationRow> {
        let row = |Reverse((sealed, shard)): Reverse<(Sealed, ShardId)>| ConversationRow {
            of: "conversation",
            conversation: sealed.conversation.to_string(),
            shard: shard.0,
            records: sealed.seqs,
            last_seq: sealed.last.0,
            segments: sealed.segments,
        };
        // Sorted the reversed way, so that most come first.
        self.most.into_sorted_vec().into_iter().map(row).collect()
    }
}

impl Row for ShardRow {
    const COLUMNS: &'static [&'static str] =
        &["shard", "segments", "records", "conversations", "body bytes", "file bytes", "ratio", "rows", "from", "to"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.shard.to_string(),
            self.segments.to_string(),
            self.records.to_string(),
            self.conversations.to_string(),
            self.body_bytes.to_string(),
            self.file_bytes.to_string(),
            format!("{:.3}", self.ratio),
            self.delta_rows.to_string(),
            self.first_time.clone(),
            self.last_time.clone(),
        ]
    }
}

impl Row for ConversationRow {
    const COLUMNS: &'static [&'static str] = &["conversation", "shard", "records", "last seq", "segments"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.conversation.clone(),
            self.shard.to_string(),
            self.records.to_string(),
            self.last_seq.to_string(),
            self.segments.to_string(),
        ]
    }
}
