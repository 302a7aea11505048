//! What a shard is on this node: its applied state, and everything that follows from an entry being applied.
//!
//! What always holds: one task applies, in log order; the write lock is held for one entry at a time; an
//! entry is in the tail before whoever proposed it is answered; every index has exactly one tail batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use logstore::id::{LogIndex, ShardId};
use logstore::{Records, SegmentSet};
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::Notify;

use crate::Applied;
use crate::raft::checkpoint::Checkpoint;
use crate::runtime;
use crate::shard::sealing::{Frozen, Sealing};
use crate::shard::staging::Staging;
use crate::shard::tail::{Tail, TailBatch};
use crate::state::ShardState;
use crate::store::SealedRows;
#[cfg(test)]
use crate::store::StateSource;

/// A shard's state and where its applied entries go.
pub(crate) struct ShardCore {
    shard: ShardId,
    state: RwLock<(ShardState, Records)>,
    staging: Staging,
    rows: Arc<SealedRows>,
    tail: Tail,
    applied: AtomicU64,
    sealing: Sealing,
    /// Bytes of entries applied since the last `Seal`: what a segment is made of.
    generation_bytes: AtomicU64,
    /// Of the generation that has just ended.
    ended_bytes: AtomicU64,
    seal_bytes: u64,
    /// Told when entries were applied.
    applied_signal: Notify,
    /// Told when there may be effects to carry.
    outbox_signal: Notify,
    /// Told when a generation is large enough to seal.
    seal_signal: Notify,
    stopped: AtomicBool,
    stored: metrics::Counter,
}

/// What a core is made with.
pub(crate) struct CoreOptions {
    /// Bytes of sealed rows kept in memory.
    pub(crate) row_cache_bytes: usize,
    /// Bytes of applied entries kept for tail readers.
    pub(crate) tail_bytes: usize,
    /// Bytes of entries after which a generation is sealed.
    pub(crate) seal_bytes: u64,
}

impl ShardCore {
    /// The core of an empty shard, before replay; `source` is what lies below memory.
    #[cfg(test)]
    pub(crate) fn new(shard: ShardId, source: Arc<dyn StateSource>, tail_bytes: usize, seal_bytes: u64) -> ShardCore {
        let cache = Arc::new(logstore::segment::BlockCache::new(4 << 20));
        let disk = logstore::io::faulty::FaultyDisk::new().handle();
        let sealed = Arc::new(SegmentSet::open(&disk, shard, &cache).unwrap());
        let rows = Arc::new(SealedRows::new(sealed.clone(), 1 << 20));
        let options = CoreOptions { row_cache_bytes: 1 << 20, tail_bytes, seal_bytes };
        let mut core = ShardCore::above(ShardState::above(shard, source.clone()), sealed, rows, None, options);
        core.staging = Staging::new(source);
        core
    }

    /// The core of a shard whose segments reach up to `checkpoint`, and whose state is as of there, before replay.
    pub(crate) fn above(
        mut state: ShardState,
        sealed: Arc<SegmentSet>,
        rows: Arc<SealedRows>,
        checkpoint: Option<Checkpoint>,
        options: CoreOptions,
    ) -> ShardCore {
        let (shard, applied, published) = (state.shard(), state.applied(), state.generation() - 1);
        let CoreOptions { row_cache_bytes, tail_bytes, seal_bytes } = options;
        state.keep_frozen();
        state.keep_at_most(row_cache_bytes);
        let stored = metrics::counter!("skein_messages_stored_total");
        stored.increment(state.stored());
        let tail = Tail::new(tail_bytes);
        tail.begin_after(applied);
        let unneeded = sealed.manifest().segments().last().map_or(LogIndex(0), |newest| newest.span.after);
        ShardCore {
            shard,
            state: RwLock::new((state, Records::above(sealed))),
            staging: Staging::new(rows.clone()),
            rows,
            tail,
            applied: AtomicU64::new(applied.0),
            sealing: Sealing::new(published, checkpoint, unneeded),
            generation_bytes: AtomicU64::new(0),
            ended_bytes: AtomicU64::new(0),
            seal_bytes,
            applied_signal: Notify::new(),
            outbox_signal: Notify::new(),
            seal_signal: Notify::new(),
            stopped: AtomicBool::new(false),
            stored,
        }
    }

    /// The shard.
    pub(crate) fn shard(&self) -> ShardId {
        self.shard
    }

    /// Looks at applied state; apply waits meanwhile.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, (ShardState, Records)> {
        self.state.read()
    }

    /// [`ShardCore::read`], unless apply is at work just now.
    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, (ShardState, Records)>> {
        self.state.try_read()
    }

    /// The last entry applied.
    pub(crate) fn applied(&self) -> LogIndex {
        LogIndex(self.applied.load(Ordering::Acquire))
    }

    /// Applied entries, for those who follow.
    pub(crate) fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Entries after `last` are gone: what was pinned for them is free.
    pub(crate) fn truncated(&self, last: LogIndex) {
        self.with_state(|state| self.staging.truncated(last, state));
    }

    /// The stage between append and apply.
    pub(crate) fn staging(&self) -> &Staging {
        &self.staging
    }

    /// Changes what is in memory of the state, never what the state is.
    pub(crate) fn with_state(&self, change: impl FnOnce(&mut ShardState)) {
        change(&mut self.state.write().0);
    }

    /// Applies an entry of commands.
    pub(crate) fn apply(&self, index: LogIndex, payload: &Bytes) -> Arc<TailBatch> {
        let (applied, let_go) = {
            let (state, records) = &mut *self.state.write();
            let mut applied = state.apply(index, payload);
            std::hint::black_box(records.touch(applied.records.iter().map(|record| record.head.conversation)));
            for record in &applied.records {
                records.push(&record.head, record.command_offset, record.made_body.clone());
            }
            // Nobody is told of these: where they are is all that is kept.
            for record in std::mem::take(&mut applied.imported) {
                records.push(&record.head, record.command_offset, record.made_body);
            }
            if let Some(generation) = applied.sealed {
                records.freeze(generation);
            }
            self.staging.applied(index, state);
            (applied, state.take_to_drop())
        };
        if applied.outbox_changed {
            self.outbox_signal.notify_one();
        }
        runtime::drop_elsewhere(let_go);
        if self.count_generation(payload.len() as u64, applied.sealed.is_some()) >= self.seal_bytes {
            self.seal_signal.notify_one();
        }
        self.stored.increment(applied.records.iter().filter(|r| r.head.kind.is_countable()).count() as u64);
        self.publish(applied, payload.clone())
    }

    /// One task applies: nobody else changes the count.
    fn count_generation(&self, entry_bytes: u64, ended: bool) -> u64 {
        let bytes = self.generation_bytes() + entry_bytes;
        if ended {
            self.ended_bytes.store(bytes, Ordering::Relaxed);
        }
        let bytes = if ended { 0 } else { bytes };
        self.generation_bytes.store(bytes, Ordering::Relaxed);
        bytes
    }

    /// The entry applied last has ended a generation, at this place in Raft's log.
    pub(crate) fn froze(&self, generation: u64, checkpoint: Checkpoint) {
        let bytes = self.ended_bytes.load(Ordering::Relaxed);
        self.sealing.froze(Frozen { generation, checkpoint, bytes });
    }

    /// Bytes of entries that are in no segment.
    pub(crate) fn unsealed_bytes(&self) -> u64 {
        self.generation_bytes() + self.sealing.waiting_bytes()
    }

    /// Bytes of entries since the last `Seal`.
    pub(crate) fn generation_bytes(&self) -> u64 {
        self.generation_bytes.load(Ordering::Relaxed)
    }

    /// Generations on their way into segments.
    pub(crate) fn sealing(&self) -> &Sealing {
        &self.sealing
    }

    /// Everything up to `generation` is in these segments: what memory held of it goes.
    pub(crate) fn published(&self, sealed: Arc<SegmentSet>, generation: u64) {
        // Rows are looked for there before any of them leaves memory.
        self.rows.publish(sealed.clone());
        let gone = {
            let (state, records) = &mut *self.state.write();
            self.staging.sealed_changed();
            state.release_published(generation);
            records.publish(sealed.clone(), generation)
        };
        // Rows by the million: not under the lock that apply waits for.
        drop(gone);
        self.sealing.hand_out(generation, &sealed);
    }

    /// The shard's sealed rows.
    pub(crate) fn rows(&self) -> &Arc<SealedRows> {
        &self.rows
    }

    /// Other segments hold the same from now on.
    pub(crate) fn replaced(&self, sealed: Arc<SegmentSet>) {
        self.rows.publish(sealed.clone());
        let before = self.state.write().1.replace(sealed);
        // Files may go with it: not under the lock that apply waits for.
        drop(before);
    }

    /// Notes an entry without commands.
    pub(crate) fn skip(&self, index: LogIndex) -> Option<Arc<TailBatch>> {
        let time = {
            let state = &mut self.state.write().0;
            state.skip(index);
            state.time()
        };
        let applied = Applied::new(self.shard, index, time);
        Some(self.publish(applied, Bytes::new()))
    }

    /// Notes that there was nothing up to `index`.
    pub(crate) fn skip_to(&self, index: LogIndex) {
        self.state.write().0.skip(index);
        self.tail.begin_after(index);
        self.applied.store(index.0, Ordering::Release);
    }

    fn publish(&self, applied: Applied, payload: Bytes) -> Arc<TailBatch> {
        let index = applied.index;
        let batch = Arc::new(TailBatch { applied, payload });
        self.tail.push(batch.clone());
        self.applied.store(index.0, Ordering::Release);
        batch
    }

    /// Tells everybody who waits for applied entries.
    pub(crate) fn wake(&self) {
        self.tail.wake();
        self.applied_signal.notify_waiters();
    }

    /// Nothing will be applied any more: those who wait are told so.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.tail.stop();
        self.applied_signal.notify_waiters();
        self.outbox_signal.notify_one();
        self.seal_signal.notify_one();
        self.sealing.wake();
    }

    /// Whether it has stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Told when entries were applied: register before looking.
    pub(crate) fn applied_signal(&self) -> &Notify {
        &self.applied_signal
    }

    /// Told when there may be effects to carry. One listener.
    pub(crate) fn outbox_signal(&self) -> &Notify {
        &self.outbox_signal
    }

    /// Told when a generation is large enough to seal. One listener.
    pub(crate) fn seal_signal(&self) -> &Notify {
        &self.seal_signal
    }
}
