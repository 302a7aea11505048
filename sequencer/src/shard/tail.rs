//! The newest applied entries of a shard, kept for those who follow it.
//!
//! What always holds: indexes are contiguous; memory is bounded in bytes (the newest entry is always kept); a reader
//! gets each entry once, in order, or is told from where on.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::Arc;

use bytes::Bytes;
use logstore::BodyPlace;
use logstore::id::LogIndex;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::outcome::{Applied, CommittedRecord, Outcome};

/// Most entries a reader gets at once; what they weigh is bounded by the tail itself.
const BATCHES_PER_STEP: usize = 256;

/// One applied entry as tail readers see it.
#[derive(Clone, Debug)]
pub struct TailBatch {
    /// What it did.
    pub applied: Applied,
    /// The entry's payload; bodies are slices of it.
    pub payload: Bytes,
}

impl TailBatch {
    /// The body of one of `applied.records`, without copying. Panics if there is no such record.
    pub fn body(&self, record: usize) -> Bytes {
        let record = &self.applied.records[record];
        match record.head.body {
            BodyPlace::InEntry { offset, len } => self.payload.slice(offset as usize..(offset + len) as usize),
            BodyPlace::Made | BodyPlace::Sealed | BodyPlace::Removed => {
                record.made_body.clone().expect("a made body travels with its record")
            }
        }
    }

    /// What it holds in memory, about.
    fn bytes(&self) -> usize {
        let made = |record: &CommittedRecord| record.made_body.as_ref().map_or(0, Bytes::len);
        size_of::<TailBatch>()
            + self.payload.len()
            + self.applied.records.len() * size_of::<CommittedRecord>()
            + self.applied.records.iter().map(made).sum::<usize>()
            + self.applied.outcomes.len() * size_of::<Outcome>()
            + self.applied.outcomes.iter().map(Outcome::heap_bytes).sum::<usize>()
            + self.applied.cursors.len() * size_of::<crate::CursorMoved>()
    }
}

/// What a tail reader gets.
#[derive(Debug)]
pub enum TailStep {
    /// The next applied entries, in order.
    Batches(Vec<Arc<TailBatch>>),
    /// The reader fell behind what is kept: it continues above `floor`.
    Reset {
        /// Everything up to here has to be read from the log.
        floor: LogIndex,
    },
}

/// The newest applied entries of a shard.
pub(crate) struct Tail {
    kept: Arc<Kept>,
}

struct Kept {
    ring: Mutex<Ring>,
    grown: Notify,
}

struct Ring {
    /// Each with what it weighs, so that letting go of one does not read it again.
    batches: VecDeque<(Arc<TailBatch>, usize)>,
    bytes: usize,
    bytes_max: usize,
    /// The entry before the first one kept.
    floor: LogIndex,
    stopped: bool,
}

impl Tail {
    /// An empty tail that keeps at most `bytes_max`.
    pub(crate) fn new(bytes_max: usize) -> Tail {
        let ring = Ring { batches: VecDeque::new(), bytes: 0, bytes_max, floor: LogIndex(0), stopped: false };
        Tail { kept: Arc::new(Kept { ring: Mutex::new(ring), grown: Notify::new() }) }
    }

    /// Adds the next entry. Readers are told by [`Tail::wake`].
    pub(crate) fn push(&self, batch: Arc<TailBatch>) {
        self.kept.ring.lock().push(batch);
    }

    /// Forgets everything: the next entry is the one after `index`.
    pub(crate) fn begin_after(&self, index: LogIndex) {
        self.kept.ring.lock().clear(index);
    }

    /// Forgets entries up to `index`: readers that have not got so far are told from where on.
    pub(crate) fn forget_upto(&self, index: LogIndex) {
        self.kept.ring.lock().forget_upto(index);
    }

    /// Tells waiting readers that there is more.
    pub(crate) fn wake(&self) {
        self.kept.grown.notify_waiters();
    }

    /// Ends all readers once they have read what is there.
    pub(crate) fn stop(&self) {
        self.kept.ring.lock().stopped = true;
        self.wake();
    }

    /// A reader of everything above `after`.
    pub(crate) fn reader(&self, after: LogIndex) -> TailReader {
        TailReader { kept: self.kept.clone(), after }
    }
}

impl Ring {
    fn push(&mut self, batch: Arc<TailBatch>) {
        let index = batch.applied.index;
        if self.floor.0 + self.batches.len() as u64 + 1 != index.0 {
            self.clear(LogIndex(index.0 - 1));
        }
        let bytes = batch.bytes();
        self.bytes += bytes;
        self.batches.push_back((batch, bytes));
        while self.bytes > self.bytes_max && self.batches.len() > 1 {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((oldest, bytes)) = self.batches.pop_front() else { return };
        self.bytes -= bytes;
        self.floor = oldest.applied.index;
    }

    fn forget_upto(&mut self, index: LogIndex) {
        while self.batches.front().is_some_and(|(oldest, _)| oldest.applied.index <= index) {
            self.forget_oldest();
        }
    }

    fn clear(&mut self, floor: LogIndex) {
        self.batches.clear();
        self.bytes = 0;
        self.floor = floor;
    }

    /// What a reader at `after` gets next; `None` if nothing yet.
    fn step(&self, after: LogIndex) -> Option<TailStep> {
        if after < self.floor {
            return Some(TailStep::Reset { floor: self.floor });
        }
        let skip = usize::try_from(after.0 - self.floor.0).ok()?;
        if skip >= self.batches.len() {
            return None;
        }
        let end = self.batches.len().min(skip + BATCHES_PER_STEP);
        Some(TailStep::Batches(self.batches.range(skip..end).map(|(batch, _)| batch.clone()).collect()))
    }
}

/// Follows one shard's applied entries.
pub struct TailReader {
    kept: Arc<Kept>,
    after: LogIndex,
}

impl TailReader {
    /// The next step; waits for one. `None` when the shard has stopped. Safe to cancel: nothing is lost.
    pub async fn next(&mut self) -> Option<TailStep> {
        loop {
            let kept = self.kept.clone();
            let mut grown = std::pin::pin!(kept.grown.notified());
            grown.as_mut().enable();
            match self.look() {
                Look::Step(step) => return Some(step),
                Look::Stopped => return None,
                Look::Nothing => grown.await,
            }
        }
    }

    /// The next step if there is one now.
    pub fn try_next(&mut self) -> Option<TailStep> {
        match self.look() {
            Look::Step(step) => Some(step),
            Look::Stopped | Look::Nothing => None,
        }
    }

    fn look(&mut self) -> Look {
        let (step, stopped) = {
            let ring = self.kept.ring.lock();
            (ring.step(self.after), ring.stopped)
        };
        match step {
            Some(step) => {
                self.after = reached(&step);
                Look::Step(step)
            }
            None if stopped => Look::Stopped,
            None => Look::Nothing,
        }
    }
}

enum Look {
    Step(TailStep),
    Stopped,
    Nothing,
}

fn reached(step: &TailStep) -> LogIndex {
    match step {
        TailStep::Batches(batches) => batches.last().expect("a step is never empty").applied.index,
        TailStep::Reset { floor } => *floor,
    }
}

#[cfg(test)]
mod tests {
    use logstore::id::{
        BodyHash, ClientMsgId, ConnectionId, ConversationId, Ordinal, SeqId, ServerMsgId, ShardId, TimeMs, UserId,
    };
    use logstore::{RecordHead, RecordKind};

    use super::*;

    fn batch(index: u64, payload_bytes: usize) -> Arc<TailBatch> {
        let applied = Applied {
            shard: ShardId(1),
            index: LogIndex(index),
            time: TimeMs(0),
            outcomes: Vec::new(),
            records: Vec::new(),
            imported: Vec::new(),
            opened: false,
            cursors: Vec::new(),
            outbox_changed: false,
            sealed: None,
        };
        Arc::new(TailBatch { applied, payload: Bytes::from(vec![0; payload_bytes]) })
    }

    fn membership_record(body: Bytes) -> CommittedRecord {
        let head = RecordHead {
            conversation: ConversationId::group(1),
            seq: SeqId(1),
            ordinal: Ordinal(0),
            kind: RecordKind::MEMBERSHIP,
            sender: UserId(1),
            server_msg_id: ServerMsgId(1),
            client_msg_id: ClientMsgId(1),
            body_hash: BodyHash(1),
            time: TimeMs(1),
            index: LogIndex(3),
            body: BodyPlace::Made,
        };
        CommittedRecord { head, origin: ConnectionId(0), command_offset: 0, made_body: Some(body) }
    }

    fn indexes(step: Option<TailStep>) -> Vec<u64> {
        match step {
            Some(TailStep::Batches(batches)) => batches.iter().map(|b| b.applied.index.0).collect(),
            other => panic!("not batches: {other:?}"),
        }
    }

    #[test]
    fn what_is_forgotten_is_read_from_the_log_and_what_follows_from_here() {
        let tail = Tail::new(1 << 20);
        (1..=5).for_each(|index| tail.push(batch(index, 10)));
        tail.forget_upto(LogIndex(3));
        let step = |after| tail.kept.ring.lock().step(LogIndex(after));
        assert!(matches!(step(2), Some(TailStep::Reset { floor: LogIndex(3) })));
        assert_eq!(indexes(step(3)), [4, 5]);
        tail.forget_upto(LogIndex(9));
        assert!(matches!(step(4), Some(TailStep::Reset { floor: LogIndex(5) })));
        tail.push(batch(6, 10));
        assert_eq!(indexes(step(5)), [6]);
    }

    #[test]
    fn a_reader_gets_each_entry_once_in_order() {
        let tail = Tail::new(1 << 20);
        let mut reader = tail.reader(LogIndex(0));
        (1..=3).for_each(|i| tail.push(batch(i, 10)));
        assert_eq!(indexes(reader.try_next()), [1, 2, 3]);
        assert!(reader.try_next().is_none());
        tail.push(batch(4, 10));
        assert_eq!(indexes(reader.try_next()), [4]);
        assert_eq!(indexes(tail.reader(LogIndex(2)).try_next()), [3, 4]);
    }

    #[test]
    fn a_reader_that_fell_behind_is_told_from_where_on() {
        let tail = Tail::new(3_000);
        let mut reader = tail.reader(LogIndex(0));
        (1..=10).for_each(|i| tail.push(batch(i, 800)));
        let Some(TailStep::Reset { floor }) = reader.try_next() else { panic!("expected a reset") };
        assert!(floor.0 >= 6, "{floor}");
        assert_eq!(indexes(reader.try_next()), (floor.0 + 1..=10).collect::<Vec<_>>());
    }

    #[test]
    fn an_entry_larger_than_the_tail_is_still_kept() {
        let tail = Tail::new(100);
        tail.push(batch(1, 10));
        tail.push(batch(2, 5_000));
        assert_eq!(indexes(tail.reader(LogIndex(1)).try_next()), [2]);
    }

    #[test]
    fn what_answers_and_made_bodies_hold_counts() {
        let tail = Tail::new(100_000);
        let mut reader = tail.reader(LogIndex(0));
        let users: Vec<UserId> = (0..10_000).map(UserId).collect();
        let mut created = Arc::unwrap_or_clone(batch(1, 10));
        created.applied.outcomes = vec![Outcome::Group { seq: SeqId(1), added: users.clone(), removed: users }];
        tail.push(Arc::new(created));
        tail.push(batch(2, 10));
        let Some(TailStep::Reset { floor }) = reader.try_next() else { panic!("the answer is 160 kB") };
        assert_eq!(floor, LogIndex(1));
        let mut made = Arc::unwrap_or_clone(batch(3, 10));
        made.applied.records = vec![membership_record(vec![0; 150_000].into())];
        tail.push(Arc::new(made));
        tail.push(batch(4, 10));
        assert_eq!(indexes(tail.reader(LogIndex(3)).try_next()), [4]);
        assert!(matches!(tail.reader(LogIndex(2)).try_next(), Some(TailStep::Reset { floor: LogIndex(3) })));
    }

    #[test]
    fn a_reader_ahead_of_the_tail_waits() {
        let tail = Tail::new(10_000);
        let mut reader = tail.reader(LogIndex(2));
        tail.push(batch(1, 1));
        tail.push(batch(2, 1));
        assert!(reader.try_next().is_none());
        tail.push(batch(3, 1));
        assert_eq!(indexes(reader.try_next()), [3]);
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken_and_ends_when_the_shard_stops() {
        let tail = Tail::new(10_000);
        let mut reader = tail.reader(LogIndex(0));
        let waiting = tokio::spawn(async move {
            let first = indexes(reader.next().await);
            (first, reader.next().await.is_none())
        });
        tokio::task::yield_now().await;
        tail.push(batch(1, 1));
        tail.wake();
        tokio::task::yield_now().await;
        tail.stop();
        assert_eq!(waiting.await.unwrap(), (vec![1], true));
    }
}
