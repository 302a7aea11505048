//! Which segments become one, and how: a value that can be printed, replicated and compared.
//!
//! What always holds: choosing looks at the manifest and the policy alone; the oldest run of segments that is long enough is
//! taken, so that merges proceed from old to new and no segment waits for ever.

use std::fmt;
use std::ops::{Range, RangeInclusive};

use super::DropRules;
use crate::id::{LogIndex, SegmentOrdinal, ShardId};
use crate::manifest::Manifest;
use crate::segment::{Level, SegmentId, SegmentInfo, Span};

/// When a merge is worth its writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergePolicy {
    /// So many consecutive seals make a level 1.
    pub seals_min: usize,
    /// No more seals than this in one merge.
    pub seals_max: usize,
    /// So many consecutive merges of one level make one of the next.
    pub merges_min: usize,
    /// The highest level that large segments reach: every level writes all bytes once more.
    pub level_max: Level,
    /// Beyond the highest level, merges go on as long as the result is at most this: many small files cost more than writing them.
    pub small_bytes: u64,
    /// No merge of more bytes than this, whatever its level.
    pub bytes_max: u64,
}

impl Default for MergePolicy {
    fn default() -> Self {
        MergePolicy {
            seals_min: 16,
            seals_max: 64,
            merges_min: 8,
            level_max: Level(2),
            small_bytes: 256 << 20,
            bytes_max: 64 << 30,
        }
    }
}

/// A merge that every replica of a shard performs alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergePlan {
    /// The shard.
    pub shard: ShardId,
    /// What becomes one, oldest first: consecutive.
    pub inputs: Vec<SegmentId>,
    /// The level of what comes out.
    pub level: Level,
    /// What is dropped.
    pub rules: DropRules,
    /// The entry up to which commands are reflected in the rules.
    pub as_of: LogIndex,
    /// Whether what comes out has a heads table: if no later segment has one.
    pub has_heads: bool,
    /// Whether tombstones can go: if nothing older is left that they hide.
    pub drops_tombstones: bool,
}

impl MergePolicy {
    /// The merge that is due, if one is.
    pub fn plan(&self, manifest: &Manifest, rules: DropRules, as_of: LogIndex) -> Option<MergePlan> {
        let (places, level) = self.choose(manifest.segments())?;
        Some(MergePlan::of(manifest, places, level, rules, as_of))
    }

    /// Which of these segments are to become one, if any are, and of which level that is.
    pub fn choose(&self, segments: &[SegmentInfo]) -> Option<(Range<usize>, Level)> {
        let mut at = 0;
        for run in segments.chunk_by(|a, b| a.span.level == b.span.level) {
            if let Some((start, count)) = self.due(run) {
                let first = at + start;
                return Some((first..first + count, Level(run[0].span.level.0 + 1)));
            }
            at += run.len();
        }
        None
    }

    /// Where in a run of one level the oldest segments are that are to be merged, and how many.
    fn due(&self, run: &[SegmentInfo]) -> Option<(usize, usize)> {
        let level = run[0].span.level;
        let (min, max) =
            if level.0 == 0 { (self.seals_min, self.seals_max) } else { (self.merges_min, self.merges_min) };
        let bytes_max = if level < self.level_max { self.bytes_max } else { self.small_bytes.min(self.bytes_max) };
        if level.0 == u8::MAX {
            return None;
        }
        (0..run.len()).find_map(|start| {
            let mut bytes = 0;
            let fits = run[start..].iter().take(max).take_while(|info| {
                bytes += info.file_bytes;
                bytes <= bytes_max
            });
            Some((start, fits.count())).filter(|(_, count)| *count >= min.max(2))
        })
    }
}

impl MergePlan {
    /// The same segment once more, less what the rules drop: what erasure asks for where no merge is due.
    pub fn rewrite(
        manifest: &Manifest,
        segment: SegmentOrdinal,
        rules: DropRules,
        as_of: LogIndex,
    ) -> Option<MergePlan> {
        let place = manifest.position(segment)?;
        let level = manifest.segments()[place].span.level;
        Some(MergePlan::of(manifest, place..place + 1, level, rules, as_of))
    }

    /// One segment of those that hold these seals; `None` if they hold others, too.
    pub fn of_seals(
        manifest: &Manifest,
        seals: RangeInclusive<SegmentOrdinal>,
        level: Level,
        rules: DropRules,
        as_of: LogIndex,
    ) -> Option<MergePlan> {
        let (first, last) = (manifest.position(*seals.start())?, manifest.position(*seals.end())?);
        let segments = manifest.segments().get(first..=last)?;
        let held = (segments.first()?.span.first, segments.last()?.span.last);
        (held == seals.into_inner()).then(|| MergePlan::of(manifest, first..last + 1, level, rules, as_of))
    }

    fn of(manifest: &Manifest, places: Range<usize>, level: Level, rules: DropRules, as_of: LogIndex) -> MergePlan {
        let (inputs, later) = (&manifest.segments()[places.clone()], &manifest.segments()[places.end..]);
        let was_merged = level.0 > 0;
        MergePlan {
            shard: manifest.shard(),
            inputs: inputs.iter().map(SegmentInfo::id).collect(),
            level,
            rules,
            as_of,
            has_heads: was_merged && later.iter().all(|info| info.counts.heads.is_none()),
            drops_tombstones: was_merged && places.start == 0,
        }
    }

    /// What comes out holds of which log, given the inputs.
    pub(super) fn span(&self, first: &Span, last: &Span) -> Span {
        Span { last: last.last, level: self.level, upto: last.upto, ..*first }
    }
}

impl fmt::Display for MergePlan {
    /// `shard 3: seals 1-16 (16 segments) -> L1, heads, no tombstones, drops nothing as of entry 900`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seals = (self.inputs.first().map(|id| id.first.0), self.inputs.last().map(|id| id.last.0));
        let (first, last) = (seals.0.unwrap_or(0), seals.1.unwrap_or(0));
        let (shard, count, level) = (self.shard, self.inputs.len(), self.level);
        write!(f, "shard {shard}: seals {first}-{last} ({count} segments) -> {level}")?;
        if self.has_heads {
            f.write_str(", heads")?;
        }
        if self.drops_tombstones {
            f.write_str(", no tombstones")?;
        }
        write!(f, ", drops {} as of entry {}", self.rules, self.as_of)
    }
}
