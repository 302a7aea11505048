//! Erasures that are known from elsewhere, done again to segments of an earlier time before a node starts on them.
//!
//! ```text
//!   notes of erasures in deltas of later saves ---> segments of this one, less those bodies; the newest notes them, too
//! ```
//!
//! What always holds: what is read stays as it is; no segment that comes out holds a body of what is listed; heads stay, so that a
//! retry finds its seq_id; and who copies the segments that come out learns of the erasures from them.

use std::collections::BTreeMap;
use std::sync::Arc;

use logstore::SegmentSet;
use logstore::id::{LogIndex, TimeMs, UserId};
use logstore::io::Disk;
use logstore::merge::{DropRules, MergePlan, MergeRun, run_with_rows};
use logstore::segment::{BuildOptions, DeltaRow, Item, Segment, SegmentInfo};

use crate::state::{ErasedRow, Key};
use crate::store::Row;
use crate::{Error, Result};

/// Of each user the erasure that was asked for last.
pub type Erased = BTreeMap<UserId, ErasedRow>;

/// The erasures that a segment notes. Reads files.
pub fn noted(segment: &Arc<Segment>) -> Result<Erased> {
    let shard = segment.span().shard;
    let mut erased = Erased::new();
    for row in segment.delta_rows_from(&Key::Erased(UserId(0)).encode()) {
        let row = row?;
        let bad = |bad: crate::Malformed| {
            let key = format!("{:02x?}", row.key);
            Error::Row { shard, key, offset: bad.offset, what: bad.what }
        };
        let key = Key::decode(&row.key).map_err(bad)?;
        match key {
            Key::Erased(user) => {
                let value = row.value.as_deref().unwrap_or_default();
                if let Row::Erased(one) = Row::decode(&key, value).map_err(bad)? {
                    erased.insert(user, one);
                }
            }
            // A block begins with rows before the one that was asked for.
            key if key < Key::Erased(UserId(0)) => {}
            _ => break,
        }
    }
    Ok(erased)
}

/// The last entry whose log time is not after `time`, among those that left something in segments. Reads files.
pub fn last_entry_at(set: &SegmentSet, time: TimeMs) -> Result<LogIndex> {
    let mut last = LogIndex(0);
    for segment in set.segments() {
        if segment.info().log_time <= time {
            last = segment.span().upto;
            continue;
        }
        for item in segment.items() {
            match item? {
                Item::Record(record) if record.time <= time => last = last.max(record.index),
                Item::Record(_) | Item::Trimmed(_) => {}
            }
        }
        break;
    }
    Ok(last)
}

/// Writes what holds bodies of erased messages once more, without them, to another disk; the newest segment in any case, unless it
/// notes all of them. States what was written: each takes the place of the segment with the same seals. Reads every record.
pub fn rewrite(disk: &Arc<dyn Disk>, set: &SegmentSet, erased: &Erased) -> Result<Vec<SegmentInfo>> {
    let rows = missing_notes(set, erased)?;
    let erasures: BTreeMap<_, _> = erased.iter().map(|(user, one)| (*user, one.upto)).collect();
    let rules = DropRules { erasures, ..DropRules::default() };
    let mut rewritten = Vec::new();
    for (place, segment) in set.segments().iter().enumerate() {
        let is_newest = place + 1 == set.segments().len();
        let rows = if is_newest { &rows[..] } else { &[] };
        if !rows.is_empty() || holds_any(segment, &rules)? {
            rewritten.push(rewrite_one(disk, set, segment, rules.clone(), rows)?);
        }
    }
    Ok(rewritten)
}

/// Notes of what no segment here says.
fn missing_notes(set: &SegmentSet, erased: &Erased) -> Result<Vec<DeltaRow>> {
    let mut known = Erased::new();
    for segment in set.segments() {
        known.extend(noted(segment)?);
    }
    let is_missing = |(user, one): &(&UserId, &ErasedRow)| known.get(*user).is_none_or(|known| known.asked < one.asked);
    let note = |(user, one): (&UserId, &ErasedRow)| DeltaRow {
        key: Key::Erased(*user).encode(),
        value: Some(Row::Erased(*one).encode()),
    };
    Ok(erased.iter().filter(is_missing).map(note).collect())
}

fn holds_any(segment: &Arc<Segment>, rules: &DropRules) -> Result<bool> {
    for item in segment.items() {
        let item = item?;
        if rules.apply(item.clone()) != item {
            return Ok(true);
        }
    }
    Ok(false)
}

fn rewrite_one(
    disk: &Arc<dyn Disk>,
    set: &SegmentSet,
    segment: &Segment,
    rules: DropRules,
    rows: &[DeltaRow],
) -> Result<SegmentInfo> {
    let (manifest, first) = (set.manifest(), segment.span().first);
    let plan = MergePlan::rewrite(manifest, first, rules, segment.span().upto);
    let plan = plan.ok_or_else(|| Error::Raft { shard: manifest.shard(), what: format!("seal {first} is nowhere") })?;
    let options = BuildOptions::default();
    Ok(run_with_rows(&plan, MergeRun { disk, set, options: &options, pace: &mut |_| {} }, rows)?)
}
