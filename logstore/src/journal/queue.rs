//! What waits for the writer.
//!
//! What always holds: work of one shard leaves in the order it came. Votes, truncations and purges overtake the
//! appends of *other* shards; what their own shard queued before them comes along.

use std::collections::VecDeque;

use crate::id::{LogId, ShardId};

use super::frame::{FRAME_HEAD, frame_len};
use super::{Completion, Entry, Vote};

/// One thing to be written, and who waits for it.
pub(crate) struct Work {
    pub shard: ShardId,
    pub what: What,
    pub done: Option<Completion>,
}

/// What is to be written.
pub(crate) enum What {
    /// Entries, appended in the shard's `round`.
    Append {
        entries: Vec<Entry>,
        round: u32,
    },
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge(LogId),
}

impl Work {
    /// Bytes it will take in a block.
    pub fn bytes(&self) -> usize {
        match &self.what {
            What::Append { entries, .. } => entries.iter().map(|entry| frame_len(entry.payload.len())).sum(),
            What::Vote(vote) => frame_len(vote.0.len()),
            What::Truncate(_) | What::Purge(_) => FRAME_HEAD,
        }
    }
}

/// The writer's queue.
#[derive(Default)]
pub(crate) struct Queue {
    urgent: VecDeque<Work>,
    appends: VecDeque<Work>,
    /// Of all that is queued.
    waiting_bytes: usize,
    bytes: usize,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.appends.is_empty()
    }

    /// Bytes that are queued or being written.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an append behind everything else.
    pub fn push(&mut self, work: Work) {
        self.count(&work);
        self.appends.push_back(work);
    }

    /// Adds work that waits for no other shard.
    pub fn push_urgent(&mut self, work: Work) {
        self.count(&work);
        if self.appends.iter().any(|append| append.shard == work.shard) {
            self.bring_along(work.shard);
        }
        self.urgent.push_back(work);
    }

    /// Moves as much as fits into `bytes_max` (at least one) to `batch`.
    pub fn take(&mut self, bytes_max: usize, batch: &mut Vec<Work>) {
        if self.waiting_bytes <= bytes_max {
            self.waiting_bytes = 0;
            batch.extend(self.urgent.drain(..));
            batch.extend(self.appends.drain(..));
            return;
        }
        let mut taken = 0;
        while let Some(next) = self.urgent.front().or(self.appends.front()) {
            let bytes = next.bytes();
            taken += bytes;
            if taken > bytes_max && !batch.is_empty() {
                return;
            }
            self.waiting_bytes -= bytes;
            batch.extend(self.urgent.pop_front().or_else(|| self.appends.pop_front()));
        }
    }

    /// States that work of so many bytes is done.
    pub fn written(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// Whether entries are to be forgotten by work that is still queued.
    pub fn forgets(&self) -> bool {
        self.urgent.iter().any(|work| matches!(work.what, What::Truncate(_) | What::Purge(_)))
    }

    fn count(&mut self, work: &Work) {
        let bytes = work.bytes();
        self.waiting_bytes += bytes;
        self.bytes += bytes;
    }

    fn bring_along(&mut self, shard: ShardId) {
        for work in std::mem::take(&mut self.appends) {
            let to = if work.shard == shard { &mut self.urgent } else { &mut self.appends };
            to.push_back(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::EntryKind;
    use super::*;
    use crate::id::LogIndex;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn append(shard: u16, index: u64) -> Work {
        let id = LogId { index: LogIndex(index), ..LogId::default() };
        let entries = vec![Entry { id, kind: EntryKind::Normal, payload: Bytes::from_static(&[7; 100]) }];
        Work { shard: ShardId(shard), what: What::Append { entries, round: 0 }, done: None }
    }

    fn vote(shard: u16, n: u64) -> Work {
        let vote = Vote(Bytes::copy_from_slice(&n.to_le_bytes()));
        Work { shard: ShardId(shard), what: What::Vote(vote), done: None }
    }

    fn describe(work: &Work) -> String {
        match &work.what {
            What::Append { entries, .. } => format!("{}:{}", work.shard, entries[0].id.index),
            _ => format!("{}:vote", work.shard),
        }
    }

    fn drain(queue: &mut Queue, bytes_max: usize) -> Vec<String> {
        let mut order = Vec::new();
        while !queue.is_empty() {
            let mut batch = Vec::new();
            queue.take(bytes_max, &mut batch);
            queue.written(batch.iter().map(Work::bytes).sum());
            order.extend(batch.iter().map(describe));
        }
        order
    }

    #[test]
    fn a_vote_overtakes_appends_of_other_shards_only() {
        let mut queue = Queue::default();
        for work in [append(1, 1), append(2, 1), append(1, 2), append(3, 1)] {
            queue.push(work);
        }
        queue.push_urgent(vote(1, 0));
        queue.push(append(1, 3));
        queue.push_urgent(vote(4, 0));
        assert_eq!(drain(&mut queue, 1 << 20), ["1:1", "1:2", "1:vote", "4:vote", "2:1", "3:1", "1:3"]);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn a_batch_is_bounded_but_never_empty() {
        let mut queue = Queue::default();
        queue.push(append(1, 1));
        queue.push(append(1, 2));
        let mut batch = Vec::new();
        queue.take(1, &mut batch);
        assert_eq!(batch.len(), 1);
    }

    proptest! {
        #[test]
        fn work_of_one_shard_keeps_its_order(plan in proptest::collection::vec((0..4_u16, any::<bool>()), 0..60)) {
            let (mut queue, mut n) = (Queue::default(), 0);
            for (shard, urgent) in plan {
                n += 1;
                if urgent { queue.push_urgent(vote(shard, n)) } else { queue.push(append(shard, n)) }
            }
            let (mut batch, mut last) = (Vec::new(), [0; 4]);
            queue.take(usize::MAX, &mut batch);
            prop_assert_eq!(batch.len() as u64, n);
            for work in batch {
                let at = match work.what {
                    What::Append { entries, .. } => entries[0].id.index.0,
                    What::Vote(vote) => u64::from_le_bytes(vote.0[..].try_into().unwrap()),
                    _ => unreachable!(),
                };
                prop_assert!(at > std::mem::replace(&mut last[usize::from(work.shard.0)], at));
            }
        }
    }
}
