//! A shard's segments without those that cannot be read.
//!
//! What always holds: what is read is what was written, and what may be missing from it is an error, never left away: a page
//! that would reach into a segment that is left out is refused. A set like this is for a node that changes nothing.

use std::sync::Arc;

use super::{Held, SegmentSet, open_listed, without_manifest};
use crate::id::{ConversationId, SegmentOrdinal, SeqId, ShardId};
use crate::io::Disk;
use crate::manifest::Manifest;
use crate::segment::{BlockCache, HeadRow, PageEnd, PageRequest, Span};
use crate::{Error, Result};

/// A segment that is listed and cannot be read.
#[derive(Clone, Debug)]
pub(super) struct LeftOut {
    pub(super) span: Span,
    why: String,
}

impl SegmentSet {
    /// Opens what can be read of what a shard's manifest lists, and states what is wrong with the rest. Without a manifest
    /// that can be read there is nothing: which files of the folder count is not known.
    pub fn open_around_damage(
        disk: &Arc<dyn Disk>,
        shard: ShardId,
        cache: &Arc<BlockCache>,
    ) -> (SegmentSet, Vec<Error>) {
        let (mut found, mut segments, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
        let manifest = Manifest::load(&**disk, shard).and_then(|manifest| match manifest {
            Some(manifest) => Ok(manifest),
            None => without_manifest(&**disk, shard),
        });
        let manifest = manifest.unwrap_or_else(|error| {
            found.push(error);
            Manifest::empty(shard)
        });
        for info in manifest.segments() {
            match open_listed(disk, info, cache) {
                Ok(segment) => segments.push(Arc::new(segment)),
                Err(error) => {
                    left_out.push(LeftOut { span: info.span, why: error.to_string() });
                    found.push(error);
                }
            }
        }
        (SegmentSet { disk: disk.clone(), cache: cache.clone(), manifest, segments, left_out }, found)
    }

    /// The last seal in a segment that is left out; 0 if none is.
    pub fn left_out_upto(&self) -> SegmentOrdinal {
        self.left_out.last().map_or(SegmentOrdinal(0), |left_out| left_out.span.last)
    }

    /// How many of the oldest segments there are up to the first that is left out.
    pub fn whole_prefix(&self) -> usize {
        let Some(first) = self.left_out.first() else { return self.segments.len() };
        self.segments.partition_point(|segment| segment.span().last < first.span.first)
    }

    /// Its oldest segments alone, all of which are there: the log as it was when the last of them was sealed.
    pub fn first(&self, segments: usize) -> SegmentSet {
        SegmentSet {
            disk: self.disk.clone(),
            cache: self.cache.clone(),
            manifest: self.manifest.first(segments),
            segments: self.segments[..segments].to_vec(),
            left_out: Vec::new(),
        }
    }

    /// Where a conversation goes on below a segment that is left out.
    pub(super) fn next_around(
        &self,
        conversation: ConversationId,
        ordinal: SegmentOrdinal,
    ) -> Result<Option<SegmentOrdinal>> {
        let left_out = self.left_out.iter().find(|left_out| left_out.span.contains(ordinal));
        let left_out = left_out.ok_or_else(|| self.broken(conversation, ordinal))?;
        // What lies below is named in the directory that cannot be read.
        for segment in self.segments.iter().rev().filter(|segment| segment.span().last < left_out.span.first) {
            if segment.find(conversation)?.is_some() {
                return Ok(Some(segment.span().last));
            }
        }
        Ok(None)
    }

    /// An error if the page would reach into what is left out. `holders` are newest first, as found around it.
    pub(super) fn check_left_out(
        &self,
        request: &PageRequest,
        head: Option<HeadRow>,
        (low, high): (SeqId, SeqId),
        holders: &[Held],
    ) -> Result<()> {
        if self.left_out.is_empty() {
            return Ok(());
        }
        let (known, newest) = head.map_or((SeqId(0), SegmentOrdinal(0)), |head| (head.seq, head.segment));
        let is_full =
            request.from == PageEnd::Oldest && high.0 - low.0 + 1 >= request.records_max && !holders.is_empty();
        if !is_full && high >= known && self.left_out_upto() > newest {
            self.check_gap(request.conversation, known.next().max(request.first), request.last)?;
        }
        for pair in holders.windows(2) {
            let (newer, older) = (&pair[0].1, &pair[1].1);
            self.check_gap(request.conversation, older.last.next().max(low), SeqId(newer.first.0 - 1).min(high))?;
        }
        match holders.last() {
            Some((_, row)) if row.previous_segment.0 > 0 => {
                self.check_gap(request.conversation, low, SeqId(row.first.0 - 1).min(high))
            }
            _ => Ok(()),
        }
    }

    /// These are lost, if there are any such.
    fn check_gap(&self, conversation: ConversationId, first: SeqId, last: SeqId) -> Result<()> {
        match self.left_out.last() {
            Some(left_out) if first <= last => {
                Err(Error::LeftOut { conversation, first, last, left_out: left_out.why.clone() })
            }
            _ => Ok(()),
        }
    }
}
