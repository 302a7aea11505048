//! What the frames of the recovered blocks add up to, shard by shard.

use std::collections::BTreeSet;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::Result;
use crate::id::{LogId, LogIndex, ShardId, Term};

use super::Vote;
use super::block::BlockKind;
use super::checkpoint::ShardMarks;
use super::frame::{BadFrame, FrameHead, FrameKind, Frames};
use super::hole::Hole;
use super::index::{EntryIndex, Location};
use super::position::Position;
use super::recovery::{SetAside, rot};
use super::state::ShardState;

/// Where a log begins of which a checkpoint says nothing: those written before checkpoints did.
const FIRST_INDEX: u64 = 1;

/// All shards, as of the last block replayed.
#[derive(Default)]
pub(crate) struct Replay {
    pub(super) shards: HashMap<ShardId, Replayed>,
    blocks: u64,
}

/// One shard, as of the last frame replayed.
#[derive(Default)]
pub(super) struct Replayed {
    pub(super) marks: ShardMarks,
    pub(super) index: EntryIndex,
    /// Entries that lay before the oldest file; the index begins after them.
    pub(super) before_oldest: Hole,
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
        let known = self.shards.get(&shard);
        let next = known.and_then(|shard| shard.marks.last).map_or(0, |last| last.index.0 + 1);
        let newer = match neighbours.first_after.get(&shard) {
            None => Some(format!("shard {shard} possibly from entry {next} on")),
            Some(after) if after.0 > next => Some(format!("shard {shard} entries {next} to {}", after.0 - 1)),
            Some(_) => None,
        };
        let copies = known.and_then(|shard| shard.before_oldest.missing()).map(|missing| {
            format!("shard {shard} possibly copies of entries {} to {}", missing.start(), missing.end())
        });
        let gaps: Vec<_> = newer.into_iter().chain(copies).collect();
        (!gaps.is_empty()).then(|| gaps.join(", "))
    }

    /// The shards' states. Entries that are gone with an older file and not purged are an error.
    pub fn finish(self, aside: &[SetAside]) -> Result<HashMap<ShardId, ShardState>> {
        let mut states = HashMap::with_capacity(self.shards.len());
        for (id, shard) in self.shards {
            if let Some(gone) = shard.before_oldest.missing() {
                let affected = format!("shard {id} entries {} to {}", gone.start(), gone.end());
                return Err(match aside.first() {
                    Some(aside) => aside.rot(&affected),
                    None => rot(0, 0, "an older journal file is gone", &affected),
                });
            }
            states.insert(id, shard.into_state());
        }
        Ok(states)
    }
}

impl Replayed {
    pub(super) fn frame(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
        at: Position,
    ) -> std::result::Result<(), Inconsistent> {
        match head.kind {
            FrameKind::Entry if head.copy => self.copy(head, at)?,
            FrameKind::Entry => self.entry(head, at)?,
            FrameKind::Vote => self.marks.vote = Some(Vote(Bytes::copy_from_slice(payload))),
            FrameKind::Committed => self.marks.committed = head.marked(),
            FrameKind::Truncate => self.truncate_after(head.marked()),
            FrameKind::Purge => self.purge_upto(head.id),
            FrameKind::First => self.marks.first = head.marked().map(|first| first.index),
        }
        Ok(())
    }

    pub(super) fn entry(&mut self, head: &FrameHead, at: Position) -> std::result::Result<(), Inconsistent> {
        if let Some(last) = self.marks.last.filter(|last| last.index.next() != head.id.index) {
            return Err(Inconsistent {
                what: format!("entry {} follows entry {}", head.id.index, last.index),
                affected: format!("shard {}", head.shard),
            });
        }
        self.index.push(head.id.index, Location::at(at, head.id.term, head.len));
        self.marks.append(head.id.index, head.id);
        Ok(())
    }

    /// A copy is written of what is live, after all frames that could say otherwise. So it takes the place of an entry that
    /// is the same, or of one that lay before the oldest file, and of none that came later.
    pub(super) fn copy(&mut self, head: &FrameHead, at: Position) -> std::result::Result<(), Inconsistent> {
        let (index, copied) = (head.id.index, Location::at(at, head.id.term, head.len));
        match self.index.get(index) {
            Some(held) if (held.term, held.len) == (copied.term, copied.len) => self.index.replace(index, copied),
            None if self.before_oldest.contains(index) => self.before_oldest.fill(index, copied),
            _ => {
                let (what, affected) = (format!("a copy of entry {index}, which is not live"), head.shard);
                return Err(Inconsistent { what, affected: format!("shard {affected}") });
            }
        }
        Ok(())
    }

    fn truncate_after(&mut self, last: Option<LogId>) {
        let from = last.map_or(LogIndex(0), |last| last.index.next());
        self.marks.truncate_after(last);
        self.index.truncate_from(from);
        self.before_oldest.truncate_from(from);
    }

    fn purge_upto(&mut self, upto: LogId) {
        self.marks.purge_upto(upto);
        self.index.purge_upto(upto.index);
        self.before_oldest.purge_upto(upto.index);
    }

    /// The oldest file's checkpoint states the last entry before it.
    pub(super) fn begin_after(&mut self, last: Option<LogId>) {
        let purged = self.marks.purged.map(|purged| purged.index.0.saturating_add(1));
        let first = purged.or(self.marks.first.map(|first| first.0)).unwrap_or(FIRST_INDEX);
        let end = last.map_or(0, |last| last.index.0.saturating_add(1));
        self.before_oldest = Hole::new(first..end);
        self.marks.last = last.or(self.marks.purged);
    }

    /// The term of an entry that is held.
    pub(super) fn term_of(&self, index: LogIndex) -> Option<Term> {
        self.index.get(index).map(|location| location.term)
    }

    /// What a running journal knows of the shard.
    pub(super) fn into_state(self) -> ShardState {
        let ShardMarks { vote, committed, purged, last, .. } = self.marks;
        let index = self.before_oldest.into_index(self.index);
        ShardState { vote, committed, purged, last, index, ..Default::default() }
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
            if head.kind == FrameKind::Entry && !head.copy {
                self.first_after.entry(head.shard).or_insert(head.id.index);
            }
        }
    }
}

pub(super) fn bad_frame(bad: BadFrame) -> Inconsistent {
    Inconsistent { what: format!("a frame cannot be read ({bad:?})"), affected: "unknown".to_owned() }
}
