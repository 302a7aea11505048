//! All segments of a shard at one moment, and what they hold together.
//!
//! What always holds: a set never changes; the next one shares the segments that stay. Each segment is the one that the
//! manifest lists, by shard, range and identity. A file goes only once a manifest without it is durable and its last reader gone.

mod around;

use std::sync::Arc;

use bytes::Bytes;

use crate::id::{ClientMsgId, ConversationId, LogIndex, SegmentOrdinal, SeqId, ShardId, TimeMs, UserId};
use crate::io::{Context, Disk};
use crate::manifest::Manifest;
use crate::segment::format::{FINISHED, UNFINISHED};
use crate::segment::{
    BlockCache, DirectoryRow, HeadRow, Page, PageEnd, PageFill, PageRequest, SealedRecord, Segment, SegmentInfo,
    shard_dir,
};
use crate::segment_set::around::LeftOut;
use crate::{Error, Result};

/// The open segments of one shard; share it behind an `Arc`, replace it when the manifest changes.
pub struct SegmentSet {
    disk: Arc<dyn Disk>,
    cache: Arc<BlockCache>,
    manifest: Manifest,
    segments: Vec<Arc<Segment>>,
    /// Segments that are listed and cannot be read: none, unless the set was opened around damage.
    left_out: Vec<LeftOut>,
}

/// What a segment holds of a conversation.
pub type Held = (Arc<Segment>, DirectoryRow);

impl SegmentSet {
    /// Opens what a shard's manifest lists. Nothing is changed; see [`SegmentSet::remove_leftovers`].
    pub fn open(disk: &Arc<dyn Disk>, shard: ShardId, cache: &Arc<BlockCache>) -> Result<SegmentSet> {
        let manifest = match Manifest::load(&**disk, shard)? {
            Some(manifest) => manifest,
            None => without_manifest(&**disk, shard)?,
        };
        SegmentSet::of(disk, manifest, cache)
    }

    /// Opens what a manifest lists that may be anybody's, say a backup's.
    pub fn of(disk: &Arc<dyn Disk>, manifest: Manifest, cache: &Arc<BlockCache>) -> Result<SegmentSet> {
        let open = |info: &SegmentInfo| open_listed(disk, info, cache).map(Arc::new);
        let segments = manifest.segments().iter().map(open).collect::<Result<_>>()?;
        Ok(SegmentSet { disk: disk.clone(), cache: cache.clone(), manifest, segments, left_out: Vec::new() })
    }

    /// Opens one segment of a manifest, verified to be the one that is listed.
    pub fn open_listed(disk: &Arc<dyn Disk>, info: &SegmentInfo, cache: &Arc<BlockCache>) -> Result<Segment> {
        open_listed(disk, info, cache)
    }

    /// What is listed.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// Makes another manifest the shard's: opens what it adds, makes it durable, then lets go of what it lacks. After an error
    /// this set stays the right one, unless the error was that of a sync.
    pub fn publish(&self, manifest: Manifest) -> Result<SegmentSet> {
        let segments = manifest.segments().iter().map(|info| self.reuse(info)).collect::<Result<Vec<_>>>()?;
        manifest.store(&*self.disk)?;
        let stays =
            |segment: &Arc<Segment>| segments.iter().any(|next| next.info().identity == segment.info().identity);
        self.segments.iter().filter(|segment| !stays(segment)).for_each(|segment| segment.remove_when_unused());
        let (disk, cache) = (self.disk.clone(), self.cache.clone());
        Ok(SegmentSet { disk, cache, manifest, segments, left_out: Vec::new() })
    }

    /// Removes what a crash has left: temporary files, and segments that the manifest does not list. To be called at start,
    /// before anything is sealed or merged. States what was removed.
    pub fn remove_leftovers(&self) -> Result<Vec<String>> {
        let dir = shard_dir(self.manifest.shard());
        let listed: Vec<_> = self.manifest.segments().iter().map(SegmentInfo::path).collect();
        let mut removed = Vec::new();
        for name in self.disk.list(&dir).context("list", &dir)? {
            let path = format!("{dir}/{name}");
            if name.ends_with(UNFINISHED) || (name.ends_with(FINISHED) && !listed.contains(&path)) {
                self.disk.remove(&path).context("remove", &path)?;
                removed.push(path);
            }
        }
        if !removed.is_empty() {
            self.disk.sync_dir(&dir).context("sync", &dir)?;
        }
        Ok(removed)
    }

    /// Verifies each segment, and that they make one log: every conversation goes on in each segment where it ended in the one before,
    /// which its directory row names; heads tables name what directories hold. Reads everything, changes nothing.
    pub fn verify(&self) -> Result<()> {
        for segment in &self.segments {
            segment.verify()?;
            self.verify_links(segment)?;
        }
        Ok(())
    }

    /// Verifies what one of its segments says of those before it; no block is read.
    pub fn verify_links(&self, segment: &Segment) -> Result<()> {
        for row in segment.directory() {
            self.verify_row(segment, &row?)?;
        }
        for head in segment.heads() {
            self.verify_head(&head?)?;
        }
        Ok(())
    }

    fn verify_row(&self, segment: &Segment, row: &DirectoryRow) -> Result<()> {
        let before = self.head_before(row.conversation, segment.span().first)?;
        let (named, found) = (self.position(row.previous_segment), before.and_then(|head| self.position(head.segment)));
        let goes_on = before.is_none_or(|head| row.first == head.seq.next() && row.ordinal_before == head.ordinal);
        if named == found && goes_on {
            return Ok(());
        }
        let what =
            format!("conversation {} does not go on in {} where it ended before", row.conversation, segment.path());
        Err(Error::ManifestRot { path: Manifest::path(self.manifest.shard()), shard: self.manifest.shard(), what })
    }

    fn verify_head(&self, head: &HeadRow) -> Result<()> {
        let row = self.segment(head.segment).map(|segment| segment.find(head.conversation)).transpose()?.flatten();
        let is_right = row.is_some_and(|row| row.head(head.segment) == *head);
        if is_right { Ok(()) } else { Err(self.broken(head.conversation, head.segment)) }
    }

    fn position(&self, ordinal: SegmentOrdinal) -> Option<usize> {
        self.manifest.position(ordinal)
    }

    /// The segment that holds a seal.
    pub fn segment(&self, ordinal: SegmentOrdinal) -> Option<&Arc<Segment>> {
        let place = self.segments.partition_point(|segment| segment.span().last < ordinal);
        self.segments.get(place).filter(|segment| segment.span().contains(ordinal))
    }

    /// The newest record of a conversation, as of the last seal. No block is read.
    pub fn head(&self, conversation: ConversationId) -> Result<Option<HeadRow>> {
        self.head_before(conversation, SegmentOrdinal(u64::MAX))
    }

    /// The newest record of a conversation in segments that end before a seal.
    pub fn head_before(&self, conversation: ConversationId, seal: SegmentOrdinal) -> Result<Option<HeadRow>> {
        for segment in self.segments.iter().rev().filter(|segment| segment.span().last < seal) {
            if let Some(row) = segment.find(conversation)? {
                return Ok(Some(row.head(segment.span().last)));
            }
            if segment.has_heads() {
                return segment.head(conversation);
            }
        }
        Ok(None)
    }

    /// What a new segment's directory names as the previous segment of a conversation.
    pub fn previous(&self, conversation: ConversationId, seal: SegmentOrdinal) -> Result<Option<SegmentOrdinal>> {
        Ok(self.head_before(conversation, seal)?.map(|head| head.segment))
    }

    /// The segments that hold a conversation from `lowest` on, newest first. No block is read, and no segment is probed in vain
    /// but those newer than the newest heads table.
    pub fn holders(&self, conversation: ConversationId, lowest: SeqId) -> Result<Vec<Held>> {
        self.walk(self.head(conversation)?, |row| row.first > lowest)
    }

    /// Part of a conversation.
    pub fn page(&self, request: &PageRequest) -> Result<Page> {
        let mut fill = PageFill::new(request.bytes_max);
        let head = self.head(request.conversation)?;
        let bounds = head.and_then(|head| request.bounds((SeqId(1), head.seq)));
        let holders = match bounds {
            Some((lowest, _)) => self.walk(head, |row| row.first > lowest)?,
            None => Vec::new(),
        };
        self.check_left_out(request, head, bounds.unwrap_or((request.first, request.last)), &holders)?;
        self.fill(request, holders, &mut fill)?;
        Ok(fill.finish(request.from))
    }

    fn fill(&self, request: &PageRequest, mut holders: Vec<Held>, fill: &mut PageFill) -> Result<()> {
        let (Some((_, newest)), Some((_, oldest))) = (holders.first(), holders.last()) else { return Ok(()) };
        let Some((first, last)) = request.bounds((oldest.first, newest.last)) else { return Ok(()) };
        holders.retain(|(_, row)| row.first <= last && row.last >= first);
        metrics::histogram!("skein_segments_per_page").record(holders.len() as f64);
        if request.from == PageEnd::Oldest {
            holders.reverse();
        }
        for (segment, row) in &holders {
            if !fill.is_full() {
                segment.fill(row, first.max(row.first), last.min(row.last), request.from, fill)?;
            }
        }
        Ok(())
    }

    /// The first record of a conversation above a log index, or one shortly before it: that of the oldest segment with one
    /// above. `None` if none is sealed. No block is read.
    pub fn first_above(&self, conversation: ConversationId, index: LogIndex) -> Result<Option<SeqId>> {
        let held = self.walk(self.head(conversation)?, |row| row.last_index > index)?;
        Ok(held.iter().rev().map(|(_, row)| row).find(|row| row.last_index > index).map(|row| row.first))
    }

    /// The record with a message id, among those of a time not before `not_before`: a record is never older than its id by more than
    /// clocks may differ.
    pub fn find_id(
        &self,
        conversation: ConversationId,
        sender: UserId,
        id: ClientMsgId,
        not_before: TimeMs,
    ) -> Result<Option<SealedRecord>> {
        for (segment, row) in self.walk(self.head(conversation)?, |row| row.first_time >= not_before)? {
            if let Some(record) = segment.find_id_at(&row, sender, id, not_before)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// What the state deltas after a seal say of a key, the newest first: `None` if nothing, `Some(None)` that its row is gone.
    pub fn delta_get(&self, key: &[u8], after: SegmentOrdinal) -> Result<Option<Option<Bytes>>> {
        for segment in self.segments.iter().rev().take_while(|segment| segment.span().last > after) {
            if let Some(value) = segment.delta_get(key)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Follows a conversation from its head back as long as `goes_on` says so of what was found last.
    fn walk(&self, head: Option<HeadRow>, goes_on: impl Fn(&DirectoryRow) -> bool) -> Result<Vec<Held>> {
        let Some(HeadRow { conversation, segment, .. }) = head else { return Ok(Vec::new()) };
        let (mut held, mut next) = (Vec::new(), Some(segment));
        while let Some(ordinal) = next {
            let Some(segment) = self.segment(ordinal) else {
                next = self.next_around(conversation, ordinal)?;
                continue;
            };
            let row = segment.find(conversation)?.ok_or_else(|| self.broken(conversation, ordinal))?;
            held.push((segment.clone(), row));
            let previous = row.previous_segment;
            next = (previous.0 > 0 && goes_on(&row)).then_some(previous);
        }
        Ok(held)
    }

    fn reuse(&self, info: &SegmentInfo) -> Result<Arc<Segment>> {
        match self.segments.iter().find(|segment| segment.info() == info) {
            Some(segment) => Ok(segment.clone()),
            None => open_listed(&self.disk, info, &self.cache).map(Arc::new),
        }
    }

    fn broken(&self, conversation: ConversationId, ordinal: SegmentOrdinal) -> Error {
        let shard = self.manifest.shard();
        let what = format!("conversation {conversation} is said to be in seal {ordinal}, and is not");
        Error::ManifestRot { path: Manifest::path(shard), shard, what }
    }
}

/// Opens a file and compares it with what the manifest says of it.
fn open_listed(disk: &Arc<dyn Disk>, info: &SegmentInfo, cache: &Arc<BlockCache>) -> Result<Segment> {
    let path = info.path();
    let segment = match Segment::open(disk, &path, cache) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            let (shard, manifest) = (info.span.shard, Manifest::path(info.span.shard));
            return Err(Error::MissingSegment { path, manifest, shard, segment: info.id() });
        }
        opened => opened?,
    };
    let misplaced = |what, found: String, expected: String| Err(Error::Misplaced { path, what, found, expected });
    let found = segment.info();
    if found.span.shard != info.span.shard {
        return misplaced("shard", found.span.shard.to_string(), info.span.shard.to_string());
    }
    if found.id() != info.id() {
        return misplaced("identity", found.id().to_string(), info.id().to_string());
    }
    if found != info {
        return misplaced("content", format!("{found:?}"), format!("{info:?}"));
    }
    Ok(segment)
}

/// A shard without a manifest has sealed nothing, or crashed before its first manifest was durable.
fn without_manifest(disk: &dyn Disk, shard: ShardId) -> Result<Manifest> {
    let dir = shard_dir(shard);
    let names = disk.list(&dir).context("list", &dir)?;
    let segments = names.iter().filter(|name| name.ends_with(FINISHED)).count();
    if segments > 1 {
        return Err(Error::MissingManifest { path: Manifest::path(shard), shard, segments });
    }
    Ok(Manifest::empty(shard))
}
