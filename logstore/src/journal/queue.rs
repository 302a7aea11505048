//! What waits for the writer.
//!
//! What always holds: work of one shard leaves in the order it came. Votes, truncations and purges overtake the
//! appends of *other* shards; what their own shard queued before them comes along. Work is put where it will be
//! written: whoever takes a batch takes its buffer, and gives the last one back.

use std::collections::VecDeque;

use crate::id::ShardId;

use super::batch::{Batch, What, Work};
use super::block::BLOCK_HEAD;

/// Buffers kept for later: as many as are filled and written at one time.
const SPARES_MAX: usize = 2;

/// The writer's queue.
pub(crate) struct Queue {
    urgent: VecDeque<Batch>,
    appends: VecDeque<Batch>,
    spares: Vec<Batch>,
    /// Of the frames of one batch, unless one work has more.
    batch_bytes_max: usize,
    bytes: usize,
}

impl Queue {
    /// An empty queue whose batches hold so many bytes of frames at most, unless one work has more.
    pub fn new(batch_bytes_max: usize) -> Queue {
        Queue { urgent: VecDeque::new(), appends: VecDeque::new(), spares: Vec::new(), batch_bytes_max, bytes: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.appends.is_empty()
    }

    /// Bytes that are queued or being written.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an append, which has so many frames, behind everything else.
    pub fn push(&mut self, work: Work, frames: &[u8], count: u32) {
        self.bytes += frames.len();
        let Queue { appends, spares, batch_bytes_max, .. } = self;
        put(appends, spares, *batch_bytes_max, work, frames, count);
    }

    /// Adds work that waits for no other shard.
    pub fn push_urgent(&mut self, work: Work, frames: &[u8], count: u32) {
        self.bytes += frames.len();
        if self.appends.iter().any(|batch| batch.works.iter().any(|append| append.shard == work.shard)) {
            self.bring_along(work.shard);
        }
        let Queue { urgent, spares, batch_bytes_max, .. } = self;
        put(urgent, spares, *batch_bytes_max, work, frames, count);
    }

    /// Gives the next batch for one that is written; an empty one if nothing waits.
    pub fn take(&mut self, batch: &mut Batch) {
        let next = self.urgent.pop_front().or_else(|| self.appends.pop_front());
        let Some(mut next) = next else { return batch.clear() };
        if self.urgent.is_empty()
            && let Some(appends) = self.appends.front_mut()
            && next.fits(appends.block.len() - BLOCK_HEAD, self.batch_bytes_max)
        {
            next.append(appends);
            self.appends.pop_front().into_iter().for_each(|spent| self.spare(spent));
        }
        let spent = std::mem::replace(batch, next);
        self.spare(spent);
    }

    /// Everything that waits.
    pub fn drain(&mut self) -> impl Iterator<Item = Work> {
        let batches = self.urgent.drain(..).chain(self.appends.drain(..));
        batches.flat_map(|batch| batch.works)
    }

    /// States that work of so many bytes is done.
    pub fn written(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// Whether entries are to be forgotten by work that is still queued.
    pub fn forgets(&self) -> bool {
        let mut works = self.urgent.iter().flat_map(|batch| &batch.works);
        works.any(|work| matches!(work.what, What::Truncate(_) | What::Purge(_)))
    }

    /// Moves the appends of a shard to the urgent work.
    fn bring_along(&mut self, shard: ShardId) {
        for batch in std::mem::take(&mut self.appends) {
            for work in batch.works {
                let frames = batch.block.at(&work.frames);
                let to = if work.shard == shard { &mut self.urgent } else { &mut self.appends };
                let count = super::frame::lens(frames).count() as u32;
                put(to, &mut self.spares, self.batch_bytes_max, work, frames, count);
            }
        }
    }

    /// Keeps buffers for later, unless there are enough, or they are of an append that was larger than a block should be.
    fn spare(&mut self, mut spent: Batch) {
        if self.spares.len() < SPARES_MAX && spent.block.capacity() <= 2 * (self.batch_bytes_max + BLOCK_HEAD) {
            spent.clear();
            self.spares.push(spent);
        }
    }
}

/// Adds work to the last batch that has room.
fn put(
    to: &mut VecDeque<Batch>,
    spares: &mut Vec<Batch>,
    batch_bytes_max: usize,
    work: Work,
    frames: &[u8],
    count: u32,
) {
    match to.back_mut().filter(|last| last.fits(frames.len(), batch_bytes_max)) {
        Some(last) => last.add(work, frames, count),
        None => {
            let mut batch = spares.pop().unwrap_or_else(Batch::new);
            batch.add(work, frames, count);
            to.push_back(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::Framed;
    use super::super::frame::FrameHead;
    use super::super::{Entry, EntryKind, Vote};
    use super::*;
    use crate::id::{LogId, LogIndex};
    use bytes::Bytes;
    use proptest::prelude::*;

    const MAX: usize = 1 << 20;

    fn push(queue: &mut Queue, shard: u16, index: u64) {
        let id = LogId { index: LogIndex(index), ..LogId::default() };
        let entries = [Entry { id, kind: EntryKind::Normal, payload: Bytes::from_static(&[7; 100]) }];
        let framed = Framed::entries(ShardId(shard), &entries);
        queue.push(work(shard, What::append(&entries, 0)), &framed.bytes, framed.count);
    }

    fn push_vote(queue: &mut Queue, shard: u16, n: u64) {
        let what = What::Vote(Vote(Bytes::copy_from_slice(&n.to_le_bytes())));
        let framed = what.framed(ShardId(shard));
        queue.push_urgent(work(shard, what), &framed.bytes, framed.count);
    }

    fn work(shard: u16, what: What) -> Work {
        Work { shard: ShardId(shard), what, frames: 0..0, done: None }
    }

    fn describe(work: &Work) -> String {
        match &work.what {
            What::Append { first, .. } => format!("{}:{first}", work.shard),
            _ => format!("{}:vote", work.shard),
        }
    }

    /// The works as they leave, each with the frame it says it has.
    fn drain(queue: &mut Queue) -> Vec<String> {
        let (mut order, mut batch) = (Vec::new(), Batch::new());
        while !queue.is_empty() {
            queue.take(&mut batch);
            assert_eq!(batch.block.count() as usize, batch.works.len());
            for work in &batch.works {
                let (head, _) = FrameHead::decode_verified(batch.block.at(&work.frames)).unwrap();
                assert_eq!(head.shard, work.shard);
                assert!(!matches!(&work.what, What::Append { first, .. } if *first != head.id.index));
            }
            queue.written(batch.works.iter().map(Work::bytes).sum());
            order.extend(batch.works.iter().map(describe));
        }
        order
    }

    #[test]
    fn a_vote_overtakes_appends_of_other_shards_only() {
        for max in [MAX, 200, 1] {
            let mut queue = Queue::new(max);
            for (shard, index) in [(1, 1), (2, 1), (1, 2), (3, 1)] {
                push(&mut queue, shard, index);
            }
            push_vote(&mut queue, 1, 0);
            push(&mut queue, 1, 3);
            push_vote(&mut queue, 4, 0);
            assert_eq!(drain(&mut queue), ["1:1", "1:2", "1:vote", "4:vote", "2:1", "3:1", "1:3"]);
            assert_eq!(queue.bytes(), 0);
        }
    }

    #[test]
    fn a_batch_is_bounded_but_never_empty() {
        let mut queue = Queue::new(1);
        push(&mut queue, 1, 1);
        push(&mut queue, 1, 2);
        let mut batch = Batch::new();
        queue.take(&mut batch);
        assert_eq!(batch.works.len(), 1);
    }

    #[test]
    fn urgent_work_and_what_it_overtakes_are_one_batch_if_they_fit() {
        let mut queue = Queue::new(MAX);
        push(&mut queue, 2, 1);
        push_vote(&mut queue, 1, 0);
        let mut batch = Batch::new();
        queue.take(&mut batch);
        assert_eq!(batch.works.iter().map(describe).collect::<Vec<_>>(), ["1:vote", "2:1"]);
    }

    proptest! {
        #[test]
        fn work_of_one_shard_keeps_its_order(
            plan in proptest::collection::vec((0..4_u16, any::<bool>(), any::<bool>()), 0..60),
            max in 1..1000_usize,
        ) {
            let (mut queue, mut n, mut order, mut batch) = (Queue::new(max), 0, Vec::new(), Batch::new());
            for (shard, urgent, take) in plan {
                n += 1;
                if urgent { push_vote(&mut queue, shard, n) } else { push(&mut queue, shard, n) }
                if take {
                    queue.take(&mut batch);
                    order.append(&mut batch.works);
                }
            }
            while !queue.is_empty() {
                queue.take(&mut batch);
                prop_assert!(batch.works.len() == 1 || batch.block.len() - BLOCK_HEAD <= max);
                order.append(&mut batch.works);
            }
            prop_assert_eq!(order.len() as u64, n);
            let mut last = [0; 4];
            for work in order {
                let at = match work.what {
                    What::Append { first, .. } => first.0,
                    What::Vote(vote) => u64::from_le_bytes(vote.0[..].try_into().unwrap()),
                    _ => unreachable!(),
                };
                prop_assert!(at > std::mem::replace(&mut last[usize::from(work.shard.0)], at));
            }
        }
    }
}
