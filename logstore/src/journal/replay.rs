//! What the frames of the recovered blocks add up to, shard by shard.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::Result;
use crate::id::{LogId, LogIndex, ShardId};

use super::Vote;
use super::block::BlockKind;
use super::checkpoint::ShardMarks;
use super::frame::{BadFrame, FrameHead, FrameKind, Frames};
use super::index::{EntryIndex, Location};
use super::position::Position;
use super::recovery::rot;
use super::state::ShardState;

/// All shards, as of the last block replayed.
#[derive(Default)]
pub(crate) struct Replay {
    shards: HashMap<ShardId, Shard>,
    blocks: u64,
}

#[derive(Default)]
struct Shard {
    marks: ShardMarks,
    index: EntryIndex,
    /// Entries that lay before the oldest file. A purge or truncation further on must cover them.
    before_oldest: Option<RangeInclusive<u64>>,
}

/// A block that verifies but does not follow from what is before it.
pub(crate) struct Inconsistent {
    pub what: String,
    pub affected: String,
}

impl Replay {
    /// Takes in the frames of a block; `at` is where the first begins.
    pub fn block(&mut self, kind: BlockKind, at: Position, body: &[u8]) -> std::result::Result<(), Inconsistent> {
        let oldest = self.blocks == 0;
        self.blocks += 1;
        for frame in Frames::new(body) {
            let (offset, head, payload) = frame.map_err(bad_frame)?;
            let at = Position { offset: at.offset + offset as u32, ..at };
            let shard = self.shards.entry(head.shard).or_default();
            match (kind, head.kind) {
                (BlockKind::Checkpoint, FrameKind::Truncate) if oldest => shard.begin_after(head.marked()),
                (BlockKind::Checkpoint, FrameKind::Truncate) => shard.check_end(&head)?,
                _ => shard.frame(&head, payload, at)?,
            }
        }
        Ok(())
    }

    /// The shards and entries between what has been replayed and the first that blocks further on hold.
    pub fn affected(&self, neighbours: &Neighbours) -> String {
        let known = self.shards.keys().chain(neighbours.first_after.keys()).chain(&neighbours.inside);
        let shards: BTreeSet<ShardId> = known.copied().collect();
        let gaps: Vec<_> = shards.iter().filter_map(|shard| self.gap(*shard, neighbours)).collect();
        match (gaps.is_empty(), shards.is_empty()) {
            (false, _) => gaps.join(", "),
            (true, false) => "no entry; a vote or a mark may be lost".to_owned(),
            (true, true) => "unknown".to_owned(),
        }
    }

    fn gap(&self, shard: ShardId, neighbours: &Neighbours) -> Option<String> {
        let next = self.shards.get(&shard).and_then(|shard| shard.marks.last).map_or(0, |last| last.index.0 + 1);
        match neighbours.first_after.get(&shard) {
            None => Some(format!("shard {shard} possibly from entry {next} on")),
            Some(after) if after.0 > next => Some(format!("shard {shard} entries {next} to {}", after.0 - 1)),
            Some(_) => None,
        }
    }

    /// The shards' states. Entries that are gone with an older file and not purged are an error.
    pub fn finish(self) -> Result<HashMap<ShardId, ShardState>> {
        let mut states = HashMap::with_capacity(self.shards.len());
        for (id, shard) in self.shards {
            if let Some(gone) = shard.before_oldest {
                let affected = format!("shard {id} entries {} to {}", gone.start(), gone.end());
                return Err(rot(0, 0, "an older journal file is gone", &affected));
            }
            let ShardMarks { vote, committed, purged, last } = shard.marks;
            states.insert(id, ShardState { vote, committed, purged, last, index: shard.index, ..Default::default() });
        }
        Ok(states)
    }
}

impl Shard {
    fn frame(&mut self, head: &FrameHead, payload: &[u8], at: Position) -> std::result::Result<(), Inconsistent> {
        match head.kind {
            FrameKind::Entry => self.entry(head, at)?,
            FrameKind::Vote => self.marks.vote = Some(Vote(Bytes::copy_from_slice(payload))),
            FrameKind::Committed => self.marks.committed = head.marked(),
            FrameKind::Truncate => self.truncate_after(head.marked()),
            FrameKind::Purge => self.purge_upto(head.id),
        }
        Ok(())
    }

    fn entry(&mut self, head: &FrameHead, at: Position) -> std::result::Result<(), Inconsistent> {
        if let Some(last) = self.marks.last.filter(|last| last.index.next() != head.id.index) {
            return Err(Inconsistent {
                what: format!("entry {} follows entry {}", head.id.index, last.index),
                affected: format!("shard {}", head.shard),
            });
        }
        self.index.push(head.id.index, Location::at(at, head.id.term, head.len));
        self.marks.last = Some(head.id);
        Ok(())
    }

    fn truncate_after(&mut self, last: Option<LogId>) {
        let from = last.map_or(LogIndex(0), |last| last.index.next());
        self.marks.truncate_after(last);
        self.index.truncate_from(from);
        self.before_oldest =
            self.before_oldest.take().map(|gone| *gone.start()..=(*gone.end()).min(from.0.wrapping_sub(1)));
        self.before_oldest = self.before_oldest.take().filter(|gone| from.0 > 0 && !gone.is_empty());
    }

    fn purge_upto(&mut self, upto: LogId) {
        self.marks.purge_upto(upto);
        self.index.purge_upto(upto.index);
        let left = self.before_oldest.take().map(|gone| (*gone.start()).max(upto.index.0 + 1)..=*gone.end());
        self.before_oldest = left.filter(|gone| !gone.is_empty());
    }

    /// The oldest file's checkpoint states the last entry before it.
    fn begin_after(&mut self, last: Option<LogId>) {
        let first = self.marks.purged.map_or(0, |purged| purged.index.0 + 1);
        self.before_oldest = last.map(|last| first..=last.index.0).filter(|gone| !gone.is_empty());
        self.marks.last = last.or(self.marks.purged);
    }

    /// A later checkpoint states where the shard ended: it must be where replay has come to.
    fn check_end(&self, stated: &FrameHead) -> std::result::Result<(), Inconsistent> {
        if stated.marked() == self.marks.last {
            return Ok(());
        }
        let index = |id: Option<LogId>| id.map_or("none".to_owned(), |id| id.index.to_string());
        Err(Inconsistent {
            what: format!(
                "the checkpoint states {} as last entry, the files before it {}",
                index(stated.marked()),
                index(self.marks.last)
            ),
            affected: format!("shard {}", stated.shard),
        })
    }
}

/// What the surroundings of a bad block tell of it.
#[derive(Default)]
pub(crate) struct Neighbours {
    /// The first entry of each shard in the blocks after it.
    first_after: HashMap<ShardId, LogIndex>,
    /// Shards that intact frames in it belong to.
    inside: Vec<ShardId>,
}

impl Neighbours {
    /// Takes in the bad block's own bytes.
    pub fn inside(&mut self, body: &[u8]) {
        let frames = Frames::new(body).filter_map(|frame| FrameHead::decode_verified(&body[frame.ok()?.0..]).ok());
        self.inside.extend(frames.map(|(head, _)| head.shard));
    }

    /// Takes in a good block further on.
    pub fn after(&mut self, body: &[u8]) {
        for (_, head, _) in Frames::new(body).filter_map(|frame| frame.ok()) {
            if head.kind == FrameKind::Entry {
                self.first_after.entry(head.shard).or_insert(head.id.index);
            }
        }
    }
}

fn bad_frame(bad: BadFrame) -> Inconsistent {
    Inconsistent { what: format!("a frame cannot be read ({bad:?})"), affected: "unknown".to_owned() }
}
