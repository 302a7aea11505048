//! From a `Seal` in the log to a segment on disk.
//!
//! ```text
//!   trigger           apply                    task                                   task
//!   proposes Seal --> freezes a generation --> segment, directory, manifest synced --> published: readers look there,
//!                                                                                     memory and journal let go
//! ```
//!
//! Segments become fewer the same way: `merge_trigger` proposes a `Merge`, apply notes it in the layout, and every replica
//! makes its segments follow (`merging`, `merge`) and its state store follow them (`absorb`).
//!
//! What always holds: generations are published in order, each once; what is in memory of one goes only after its segment
//! is in the manifest; the journal lets go one generation later still, so that whoever follows the tail can resume from
//! the last `Seal` but one.

mod absorb;
mod around;
mod build;
#[cfg(test)]
mod drop_tests;
mod drops;
mod erasing;
mod kept;
mod merge;
mod merge_trigger;
mod merging;
mod pace;
mod replay;
#[cfg(test)]
mod replica;
mod restore;
mod rewrites;
#[cfg(test)]
mod spilling;
mod task;
#[cfg(test)]
mod tests;
mod trigger;
mod trouble;
mod turn;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use logstore::SegmentSet;
use logstore::id::LogIndex;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::Error;
use crate::raft::checkpoint::Checkpoint;

pub(crate) use around::{Around, restore_around};
pub(crate) use erasing::run as see_erasures_through;
pub(crate) use merge_trigger::{MergeWhen, compact_plans, run as propose_merges};
pub(crate) use merging::run as run_merges;
pub(crate) use replay::Replica as ReplayedShard;
pub(crate) use restore::{Restored, restore};
pub(crate) use task::{SealingOptions, run};
pub(crate) use trigger::{SealWhen, run as propose_seals};
pub(crate) use turn::Turns;

use trouble::Trouble;

/// What waits to be dropped, for tests.
#[cfg(test)]
fn rewrites_of(core: &crate::shard::core::ShardCore) -> crate::Result<Vec<drops::Waiting>> {
    rewrites::waiting_of(core).map(|(waiting, _)| waiting)
}

/// Generations that a `Seal` has frozen, and how far they are published.
pub(crate) struct Sealing {
    progress: Mutex<Progress>,
    /// Held while a manifest takes the place of another: seals and merges are published by two tasks.
    publishing: Mutex<()>,
    /// A generation was frozen, or somebody asks for another try. One listener.
    frozen: Notify,
    /// Segments were published, a try has failed, or the shard stops.
    published: Notify,
    dropping: Mutex<Dropping>,
    /// Who wants the segments as of the end of a generation.
    wanted: Mutex<Vec<(u64, oneshot::Sender<Arc<SegmentSet>>)>>,
}

/// How far what is to be dropped has been.
#[derive(Default)]
struct Dropping {
    /// Whether an operator waits for all of it.
    compacting: bool,
    /// Segments up to this entry were found without an erased body.
    without_erased: LogIndex,
    /// What erasures wait for.
    erasing: &'static str,
}

struct Progress {
    /// Oldest first.
    frozen: VecDeque<Frozen>,
    /// The last generation published; 0 if none.
    published: u64,
    /// Where that one ended.
    checkpoint: Option<Checkpoint>,
    /// Where the one before it ended: what nobody needs of the journal.
    unneeded: LogIndex,
    /// Tries that have failed since.
    seals: Option<Trouble>,
    /// Tries that have failed since start.
    failures: u64,
    /// What keeps segments from being merged.
    merges: Option<String>,
}

/// A generation that waits to become a segment.
#[derive(Clone, Debug)]
pub(crate) struct Frozen {
    pub(crate) generation: u64,
    pub(crate) checkpoint: Checkpoint,
    /// Of its entries.
    pub(crate) bytes: u64,
}

impl Sealing {
    /// Everything up to generation `published`, which ended at `checkpoint`, is in segments; the newest begins after `unneeded`.
    pub(crate) fn new(published: u64, checkpoint: Option<Checkpoint>, unneeded: LogIndex) -> Sealing {
        let frozen = VecDeque::new();
        let progress = Progress { frozen, published, checkpoint, unneeded, seals: None, failures: 0, merges: None };
        let (frozen, published) = (Notify::new(), Notify::new());
        Sealing {
            progress: Mutex::new(progress),
            publishing: Mutex::new(()),
            frozen,
            published,
            dropping: Mutex::default(),
            wanted: Mutex::default(),
        }
    }

    /// An entry has ended a generation.
    pub(crate) fn froze(&self, frozen: Frozen) {
        self.progress.lock().frozen.push_back(frozen);
        self.frozen.notify_one();
    }

    /// Bytes of entries of generations that wait.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.progress.lock().frozen.iter().map(|frozen| frozen.bytes).sum()
    }

    /// The last generation published; 0 if none.
    pub(crate) fn published(&self) -> u64 {
        self.progress.lock().published
    }

    /// Up to where published segments reach.
    pub(crate) fn checkpoint(&self) -> Option<Checkpoint> {
        self.progress.lock().checkpoint.clone()
    }

    /// The oldest generation that waits.
    fn next(&self) -> Option<Frozen> {
        self.progress.lock().frozen.front().cloned()
    }

    /// The segment of the oldest generation that waits is published.
    fn publish(&self) {
        let mut progress = self.progress.lock();
        let Some(Frozen { generation, checkpoint, .. }) = progress.frozen.pop_front() else { return };
        progress.published = generation;
        progress.seals = None;
        let before = progress.checkpoint.replace(checkpoint);
        progress.unneeded = before.map_or(LogIndex(0), |checkpoint| checkpoint.index());
        drop(progress);
        self.published.notify_waiters();
    }

    /// Up to which entry nobody needs the journal.
    fn unneeded(&self) -> LogIndex {
        self.progress.lock().unneeded
    }

    /// The segment of the oldest generation that waits could not be made; states how long to leave it alone.
    fn failed(&self, error: &Error) -> (Trouble, Duration) {
        let mut progress = self.progress.lock();
        let trouble = Trouble::after(progress.seals.take(), error);
        progress.failures += 1;
        progress.seals = Some(trouble.clone());
        drop(progress);
        self.published.notify_waiters();
        let rest = trouble.rest();
        (trouble, rest)
    }

    /// Segments can be merged again, or why not.
    fn merges(&self, trouble: Option<String>) {
        self.progress.lock().merges = trouble;
    }

    /// How many tries to make a segment have failed since start.
    pub(crate) fn failures(&self) -> u64 {
        self.progress.lock().failures
    }

    /// What no further try can be expected to get over, if one has failed after the first `before`.
    pub(crate) fn failed_after(&self, before: u64) -> Option<String> {
        let progress = self.progress.lock();
        let trouble = progress.seals.as_ref().filter(|trouble| trouble.is_lasting && progress.failures > before)?;
        Some(trouble.what.clone())
    }

    /// Whether the last try to make a segment has failed.
    pub(crate) fn is_stuck(&self) -> bool {
        self.progress.lock().seals.is_some()
    }

    /// What is wrong, in words for people.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let progress = self.progress.lock();
        let seals = progress.seals.as_ref().map(|trouble| format!("cannot be sealed: {}", trouble.what));
        let merges = progress.merges.as_ref().map(|what| format!("its segments cannot be merged: {what}"));
        seals.into_iter().chain(merges).collect()
    }

    /// Told when segments are published, when they cannot be made, or when the shard stops: register before looking.
    pub(crate) fn published_signal(&self) -> &Notify {
        &self.published
    }

    /// An operator wants everything dropped that waits for it.
    pub(crate) fn compact(&self) {
        self.dropping.lock().compacting = true;
        self.published.notify_waiters();
    }

    /// Nothing waits any more.
    fn compacted(&self) {
        self.dropping.lock().compacting = false;
    }

    /// Whether what waits is being dropped.
    pub(crate) fn is_compacting(&self) -> bool {
        self.dropping.lock().compacting
    }

    /// Segments up to this entry were looked at, and none holds an erased body.
    fn without_erased(&self, upto: LogIndex) {
        let mut dropping = self.dropping.lock();
        dropping.without_erased = dropping.without_erased.max(upto);
    }

    /// Up to which entry that was found.
    fn is_without_erased(&self) -> LogIndex {
        self.dropping.lock().without_erased
    }

    fn tell_erasing(&self, stage: &'static str) {
        self.dropping.lock().erasing = stage;
    }

    /// What erasures wait for: "seal", "segments" or "journal".
    pub(crate) fn erasing(&self) -> &'static str {
        self.dropping.lock().erasing
    }

    /// The segments up to a generation that is not published yet, as soon as it is. Nothing if the shard stops before.
    pub(crate) fn hand_out_at(&self, generation: u64) -> oneshot::Receiver<Arc<SegmentSet>> {
        let (give, take) = oneshot::channel();
        let mut wanted = self.wanted.lock();
        // Who has given up needs no place: there are as many as cuts under way.
        wanted.retain(|(_, give)| !give.is_closed());
        wanted.push((generation, give));
        take
    }

    /// A generation is published, in these segments.
    pub(crate) fn hand_out(&self, generation: u64, sealed: &Arc<SegmentSet>) {
        let mut wanted = self.wanted.lock();
        for (_, give) in wanted.extract_if(.., |(at, _)| *at <= generation) {
            // Whoever wanted them may be gone.
            drop(give.send(sealed.clone()));
        }
    }

    /// Wakes everybody who waits.
    pub(crate) fn wake(&self) {
        self.wanted.lock().clear();
        self.frozen.notify_one();
        self.published.notify_waiters();
    }
}
