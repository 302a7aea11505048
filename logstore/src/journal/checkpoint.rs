//! The checkpoint block: what the journal knows of every shard where a file begins.
//!
//! What always holds: it says what the frames *before* the file said, neither more (queued work) nor less. So the
//! files before it hold nothing but entries, and go as soon as those are purged. It is made of ordinary frames, up
//! to four a shard (vote, committed, purged or first entry, last entry as a truncation after it): reading it is reading
//! them. First and last say which entries the files before it held: those that are not purged or truncated later must
//! turn up as copies once such a file is gone.

use std::collections::BTreeMap;

use crate::id::{LogId, LogIndex, ShardId};

use super::Vote;
use super::batch::{What, Work};
use super::block::BlockBuilder;
use super::frame::{FrameHead, FrameKind};
use super::state::ShardState;

/// What the frames written so far say of each shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    shards: BTreeMap<ShardId, ShardMarks>,
}

/// What they say of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardMarks {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    /// The first entry of the log, if nothing was purged.
    pub first: Option<LogIndex>,
    pub last: Option<LogId>,
}

impl Checkpoint {
    /// A checkpoint of these shards.
    pub fn new(shards: impl Iterator<Item = (ShardId, ShardMarks)>) -> Checkpoint {
        Checkpoint { shards: shards.collect() }
    }

    /// Takes in a work that has been written.
    pub fn note(&mut self, work: &Work) {
        let marks = self.shards.entry(work.shard).or_default();
        match &work.what {
            What::Append { first, last, .. } => marks.append(*first, *last),
            What::Nothing => {}
            What::Vote(vote) => marks.vote = Some(vote.clone()),
            What::Truncate(last) => marks.truncate_after(*last),
            What::Purge(upto) => marks.purge_upto(*upto),
        }
    }

    /// Takes in a committed id that has been written.
    pub fn note_committed(&mut self, shard: ShardId, committed: Option<LogId>) {
        self.shards.entry(shard).or_default().committed = committed;
    }

    /// The checkpoint's frames.
    pub fn block(&self) -> BlockBuilder {
        let mut block = BlockBuilder::new(0);
        for (shard, marks) in &self.shards {
            if let Some(vote) = &marks.vote {
                block.add(&FrameHead::vote(*shard, vote.0.len()), &vote.0);
            }
            block.add(&FrameHead::mark(FrameKind::Committed, *shard, marks.committed), &[]);
            if marks.purged.is_some() {
                block.add(&FrameHead::mark(FrameKind::Purge, *shard, marks.purged), &[]);
            } else if marks.first.is_some() {
                let first = marks.first.map(|index| LogId { index, ..LogId::default() });
                block.add(&FrameHead::mark(FrameKind::First, *shard, first), &[]);
            }
            block.add(&FrameHead::mark(FrameKind::Truncate, *shard, marks.last), &[]);
        }
        block
    }
}

impl ShardMarks {
    /// What a shard that was just recovered has.
    pub fn of(shard: &ShardState) -> ShardMarks {
        let ShardState { vote, committed, purged, last, index, .. } = shard;
        let held = index.range();
        let first = (!held.is_empty()).then_some(held.start);
        ShardMarks { vote: vote.clone(), committed: *committed, purged: *purged, first, last: *last }
    }

    /// Entries follow.
    pub fn append(&mut self, first: LogIndex, last: LogId) {
        self.first = self.first.or(Some(first));
        self.last = Some(last);
    }

    /// The entries after `last` are forgotten.
    pub fn truncate_after(&mut self, last: Option<LogId>) {
        let held = self.last.map(|held| held.index);
        if held > last.map(|last| last.index) {
            self.last = last.or(self.purged);
            self.first = self.first.filter(|first| last.is_some_and(|last| *first <= last.index));
        }
    }

    /// The entries up to `upto` are forgotten.
    pub fn purge_upto(&mut self, upto: LogId) {
        if self.purged.is_none_or(|purged| purged.index < upto.index) {
            self.purged = Some(upto);
        }
        if self.last.is_none_or(|last| last.index < upto.index) {
            self.last = Some(upto);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::LogIndex;

    fn id(index: u64) -> LogId {
        LogId { index: LogIndex(index), ..LogId::default() }
    }

    #[test]
    fn the_first_entry_is_that_of_the_log_as_it_is_now() {
        let mut marks = ShardMarks::default();
        (5..9).for_each(|index| marks.append(LogIndex(index), id(index)));
        marks.truncate_after(Some(id(6)));
        assert_eq!((marks.first, marks.last), (Some(LogIndex(5)), Some(id(6))));
        marks.truncate_after(Some(id(3)));
        marks.append(LogIndex(4), id(4));
        assert_eq!((marks.first, marks.last), (Some(LogIndex(4)), Some(id(4))));
        marks.truncate_after(None);
        marks.append(LogIndex(1), id(1));
        assert_eq!((marks.first, marks.last), (Some(LogIndex(1)), Some(id(1))));
    }
}
