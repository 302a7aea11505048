//! Reads entries: those in memory as they are, the others by `pread`, verified, many with one call.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::id::{LogIndex, ShardId};
use crate::io::{Context, DataFile, read_full};
use crate::{Error, Result};

use super::Entry;
use super::file;
use super::frame::{FRAME_HEAD, FrameHead, FrameKind, frame_len};
use super::index::Location;
use super::position::Position;
use super::recovery::rot;
use super::state::{Shared, State};

/// Read with one call at most, frames of other shards in between included.
const RUN_BYTES_MAX: u32 = 1 << 20;
/// Read over rather than begin another call.
const GAP_BYTES_MAX: u32 = 64 << 10;

/// Entries of a shard from the first of `range` on, up to about `bytes_max`, at least one.
pub(crate) fn read(shared: &Shared, shard: ShardId, range: Range<LogIndex>, bytes_max: usize) -> Result<Vec<Entry>> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let plan = Plan::make(&shared.state.lock(), shard, range, bytes_max)?;
    let mut entries = Vec::with_capacity(plan.places.len() + plan.cached.len());
    for places in plan.places.chunk_by(|before, after| before.1.file == after.1.file) {
        let number = places[0].1.file;
        let (_, file) = plan.files.iter().find(|(held, _)| *held == number).expect("the plan holds its files");
        read_places(&**file, shard, places, &mut entries)?;
    }
    entries.extend(plan.cached);
    Ok(entries)
}

/// Adds the entries at these places of one file.
pub(crate) fn read_places(
    file: &dyn DataFile,
    shard: ShardId,
    places: &[Place],
    entries: &mut Vec<Entry>,
) -> Result<()> {
    runs(places).try_for_each(|run| read_run(file, shard, run, entries))
}

/// What is to be read where; made under the lock, carried out without it. While the plan holds a file, the
/// file is not recycled.
struct Plan {
    places: Vec<(LogIndex, Position, Location)>,
    files: Vec<(u32, Arc<dyn DataFile>)>,
    cached: Vec<Entry>,
}

impl Plan {
    fn make(state: &State, shard: ShardId, range: Range<LogIndex>, bytes_max: usize) -> Result<Plan> {
        let first = range.start;
        let missing = || Error::NoSuchEntry { shard, index: first };
        let index = &state.shards.get(&shard).ok_or_else(missing)?.index;
        let end = range.end.min(index.range().end);
        let cached_from = state.cache.first(shard).map_or(end, |cached| cached.min(end));
        let mut plan = Plan { places: Vec::new(), files: Vec::new(), cached: Vec::new() };
        let (mut next, mut bytes) = (first, 0);
        while next < cached_from {
            let location = *index.get(next).ok_or_else(missing)?;
            if let Some(error) = state.lost(shard, next) {
                return if plan.places.is_empty() { Err(error) } else { Ok(plan) };
            }
            bytes += location.len as usize;
            if bytes > bytes_max && !plan.places.is_empty() {
                return Ok(plan);
            }
            plan.add(state, next, location);
            next = next.next();
        }
        if next < end && (bytes < bytes_max || plan.places.is_empty()) {
            plan.cached = state.cache.get(shard, next..end, bytes_max - bytes.min(bytes_max)).ok_or_else(missing)?;
        }
        if plan.places.is_empty() && plan.cached.is_empty() { Err(missing()) } else { Ok(plan) }
    }

    fn add(&mut self, state: &State, index: LogIndex, location: Location) {
        let position = location.position().expect("an entry that is not synced is cached");
        if self.files.iter().all(|(number, _)| *number != position.file) {
            let file = state.files.used.get(&position.file).expect("a file with live entries is in use");
            self.files.push((position.file, file.file.clone()));
        }
        self.places.push((index, position, location));
    }
}

/// An entry, and where it is.
pub(crate) type Place = (LogIndex, Position, Location);

/// Cuts places of one file into runs that one call reads. Copies may lie behind the entries that follow them.
fn runs(places: &[Place]) -> impl Iterator<Item = &[Place]> {
    let mut rest = places;
    std::iter::from_fn(move || {
        let first = rest.first()?.1;
        let near = |pair: &[Place]| {
            let (before, after) = (&pair[0], &pair[1]);
            let end = before.1.offset + frame_len(before.2.len as usize) as u32;
            after.1.offset >= end
                && after.1.offset - end <= GAP_BYTES_MAX
                && after.1.offset + frame_len(after.2.len as usize) as u32 - first.offset <= RUN_BYTES_MAX
        };
        let len = 1 + rest.windows(2).take_while(|pair| near(pair)).count();
        let (run, left) = rest.split_at(len);
        rest = left;
        Some(run)
    })
}

fn read_run(file: &dyn DataFile, shard: ShardId, run: &[Place], entries: &mut Vec<Entry>) -> Result<()> {
    let (start, last) = (run[0].1, run[run.len() - 1]);
    let len = (last.1.offset - start.offset) as usize + FRAME_HEAD + last.2.len as usize;
    let mut bytes = BytesMut::zeroed(len);
    let filled = read_full(file, &mut bytes, u64::from(start.offset)).context("read", &file::path(start.file))?;
    bytes.truncate(filled);
    let bytes = bytes.freeze();
    let payload_bytes: usize = run.iter().map(|(_, _, location)| location.len as usize).sum();
    for (index, position, location) in run {
        let begin = ((position.offset - start.offset) as usize).min(bytes.len());
        let mut entry = decode(&bytes.slice(begin..), shard, *index, location)
            .ok_or_else(|| rotten_entry(shard, *index, *position))?;
        if payload_bytes < len / 2 {
            // Mostly other shards' frames: a slice would keep them all in memory.
            entry.payload = Bytes::copy_from_slice(&entry.payload);
        }
        entries.push(entry);
    }
    Ok(())
}

/// `None` if the frame does not verify, or is not the entry it should be.
fn decode(bytes: &Bytes, shard: ShardId, index: LogIndex, location: &Location) -> Option<Entry> {
    let (head, payload) = FrameHead::decode_verified(bytes).ok()?;
    let expected = head.kind == FrameKind::Entry
        && head.shard == shard
        && head.id.index == index
        && head.id.term == location.term
        && head.len == location.len;
    let kind = head.entry_kind().filter(|_| expected)?;
    Some(Entry { id: head.id, kind, payload: bytes.slice_ref(payload) })
}

fn rotten_entry(shard: ShardId, index: LogIndex, at: Position) -> Error {
    let what = "an entry that was durable does not verify";
    rot(at.file, u64::from(at.offset), what, &format!("shard {shard} entry {index}"))
}
