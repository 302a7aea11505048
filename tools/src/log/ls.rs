//! `skein log ls`: the files, and what they hold.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args as ClapArgs;
use logstore::id::{LogIndex, ShardId};
use logstore::segment::{SegmentInfo, shard_dir};
use logstore::{JournalFile, JournalFileRole, JournalInspection, Manifest};
use serde::Serialize;

use super::offline::{DataArgs, Offline};
use super::progress::Progress;
use crate::exit::Failure;
use crate::output::{Format, Printer, Row};
use crate::user::log_time;

/// Arguments of `ls`.
#[derive(ClapArgs)]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Serialize)]
struct SegmentRow {
    file: &'static str,
    path: String,
    /// "listed", "missing" (listed, not there) or "leftover" (there, not listed: a start removes it).
    state: &'static str,
    shard: u16,
    #[serde(flatten)]
    holds: Option<Holds>,
    bytes: u64,
}

/// What the manifest says that a segment holds.
#[derive(Serialize)]
struct Holds {
    level: u8,
    first_seal: u64,
    last_seal: u64,
    after_index: u64,
    upto_index: u64,
    records: u64,
    removed: u64,
    trimmed: u64,
    conversations: u64,
    delta_rows: u64,
    raw_bytes: u64,
    /// Of the file's bytes to those of its blocks before compression.
    ratio: f64,
    log_time: String,
    age_s: u64,
    identity: String,
}

#[derive(Serialize)]
struct JournalRow {
    file: &'static str,
    path: String,
    role: &'static str,
    number: Option<u32>,
    bytes: u64,
    /// Up to where there are blocks that verify.
    used_bytes: u64,
    blocks: u64,
    /// With entries in it.
    shards: Vec<Entries>,
    /// The oldest former life whose bytes may still be in it; 0: none.
    remains: u32,
}

/// The entries of a shard in a file.
#[derive(Serialize)]
struct Entries {
    shard: u16,
    first_index: u64,
    last_index: u64,
    entries: u64,
}

/// Lists the files.
pub fn run(args: Args, printer: &mut Printer) -> Result<(), Failure> {
    let offline = Offline::open(&args.data)?;
    let mut segments = Vec::new();
    for shard in offline.shards()? {
        segments.extend(segments_of(&offline, shard)?);
    }
    let journal = offline.journal()?;
    let files = journal_rows(&journal)?;
    printer.list(&segments)?;
    if printer.format() == Format::Table {
        printer.line("")?;
    }
    printer.list(&files)
}

/// What the manifest lists, and what else lies there.
fn segments_of(offline: &Offline, shard: ShardId) -> Result<Vec<SegmentRow>, Failure> {
    let dir = shard_dir(shard);
    let listed = Manifest::load(&*offline.disk, shard)?;
    let listed = listed.as_ref().map_or(&[][..], Manifest::segments);
    let mut there: Vec<String> = offline.disk.list(&dir)?.iter().map(|name| format!("{dir}/{name}")).collect();
    there.retain(|path| *path != Manifest::path(shard));
    let mut rows = Vec::with_capacity(there.len());
    for info in listed {
        let path = info.path();
        let place = there.iter().position(|found| *found == path);
        let state = if place.map(|place| there.remove(place)).is_some() { "listed" } else { "missing" };
        let holds = Some(Holds::of(info));
        rows.push(SegmentRow { file: "segment", path, state, shard: shard.0, holds, bytes: info.file_bytes });
    }
    for path in there {
        let bytes = offline.disk.open(&path)?.len()?;
        rows.push(SegmentRow { file: "segment", path, state: "leftover", shard: shard.0, holds: None, bytes });
    }
    Ok(rows)
}

fn journal_rows(journal: &JournalInspection) -> Result<Vec<JournalRow>, Failure> {
    let used = |file: &&JournalFile| file.role == JournalFileRole::Used;
    let progress = Progress::begin("journal", journal.files().iter().filter(used).map(|file| file.bytes).sum());
    journal.files().iter().map(|file| journal_row(journal, file, &progress)).collect()
}

fn journal_row(journal: &JournalInspection, file: &JournalFile, progress: &Progress) -> Result<JournalRow, Failure> {
    let mut shards = std::collections::BTreeMap::<ShardId, Entries>::new();
    let mut blocks = 0;
    let end = journal.walk(file.number.unwrap_or(0), &mut |block| {
        blocks += 1;
        progress.add(u64::from(block.bytes()));
        for frame in block.frames().filter(|frame| frame.entry.is_some()) {
            let index = frame.id.map_or(LogIndex(0), |id| id.index).0;
            let new = Entries { shard: frame.shard.0, first_index: index, last_index: index, entries: 0 };
            let held = shards.entry(frame.shard).or_insert(new);
            (held.first_index, held.last_index) = (held.first_index.min(index), held.last_index.max(index));
            held.entries += 1;
        }
    })?;
    Ok(JournalRow {
        file: "journal",
        path: file.path.clone(),
        role: role(file.role),
        number: file.number,
        bytes: file.bytes,
        used_bytes: end.unwrap_or(0),
        blocks,
        shards: shards.into_values().collect(),
        remains: file.remains,
    })
}

fn role(role: JournalFileRole) -> &'static str {
    match role {
        JournalFileRole::Used => "used",
        JournalFileRole::Ready => "ready",
        JournalFileRole::Preparing => "preparing",
        JournalFileRole::SetAside => "set aside",
        JournalFileRole::Damaged => "damaged",
        JournalFileRole::Foreign => "foreign",
    }
}

impl Holds {
    fn of(info: &SegmentInfo) -> Holds {
        let raw_bytes = info.counts.record_raw_bytes + info.counts.delta_raw_bytes;
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        Holds {
            level: info.span.level.0,
            first_seal: info.span.first.0,
            last_seal: info.span.last.0,
            after_index: info.span.after.0,
            upto_index: info.span.upto.0,
            records: info.counts.records,
            removed: info.counts.removed,
            trimmed: info.counts.trimmed,
            conversations: info.counts.conversations,
            delta_rows: info.counts.delta_rows,
            raw_bytes,
            ratio: ratio(info.file_bytes, raw_bytes),
            log_time: log_time(info.log_time),
            age_s: now_ms.saturating_sub(info.log_time.0) / 1000,
            identity: info.identity.to_string(),
        }
    }
}

/// To three digits; 0 if there is nothing to compare with.
pub fn ratio(file_bytes: u64, raw_bytes: u64) -> f64 {
    if raw_bytes == 0 { 0.0 } else { (file_bytes as f64 / raw_bytes as f64 * 1000.0).round() / 1000.0 }
}

impl Row for SegmentRow {
    const COLUMNS: &'static [&'static str] =
        &["segment", "state", "level", "seals", "entries", "records", "conversations", "bytes", "ratio", "age"];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.path.clone(), self.state.to_owned()];
        match &self.holds {
            None => cells.extend(["", "", "", "", "", &self.bytes.to_string(), "", ""].map(str::to_owned)),
            Some(holds) => cells.extend([
                format!("L{}", holds.level),
                format!("{}-{}", holds.first_seal, holds.last_seal),
                format!("{}-{}", holds.after_index + 1, holds.upto_index),
                holds.records.to_string(),
                holds.conversations.to_string(),
                self.bytes.to_string(),
                format!("{:.3}", holds.ratio),
                humantime::format_duration(Duration::from_secs(holds.age_s)).to_string(),
            ]),
        }
        cells
    }
}

impl Row for JournalRow {
    const COLUMNS: &'static [&'static str] = &["journal", "role", "bytes", "used bytes", "blocks", "entries by shard"];

    fn cells(&self) -> Vec<String> {
        let entries = |held: &Entries| format!("{}:{}-{}", held.shard, held.first_index, held.last_index);
        vec![
            self.path.clone(),
            self.role.to_owned(),
            self.bytes.to_string(),
            self.used_bytes.to_string(),
            self.blocks.to_string(),
            self.shards.iter().map(entries).collect::<Vec<_>>().join(" "),
        ]
    }
}
