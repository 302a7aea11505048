//! Whose turn it is to write in bulk: one build at a time on a node, so that building is a quiet neighbour.
//!
//! What always holds: a seal never waits for the end of a merge. Merges take long and nobody waits for them; what is not
//! sealed is in memory, and too much of it stops a shard.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How often one who gave way looks whether it is its turn again: short beside a seal, long beside a look.
const LOOK: Duration = Duration::from_millis(5);

/// The turns of a node.
#[derive(Clone)]
pub(crate) struct Turns {
    /// One permit: the turn.
    turns: Arc<Semaphore>,
    /// One permit: of all merges only one waits for turns, or is in the middle of its own.
    merges: Arc<Semaphore>,
}

/// A turn of someone who takes it in one go.
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// A turn of someone who lets others go first.
pub(super) struct PatientTurn {
    turns: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    _merge: OwnedSemaphorePermit,
}

impl Turns {
    pub(crate) fn new() -> Turns {
        Turns { turns: Arc::new(Semaphore::new(1)), merges: Arc::new(Semaphore::new(1)) }
    }

    /// Waits for a turn; `None` never comes, for nobody closes the semaphore.
    pub(super) async fn take(&self) -> Option<Turn> {
        Some(Turn { _permit: self.turns.clone().acquire_owned().await.ok()? })
    }

    /// Waits for a turn that is to be shared with all who come later.
    pub(super) async fn take_patiently(&self) -> Option<PatientTurn> {
        let merge = self.merges.clone().acquire_owned().await.ok()?;
        let permit = self.turns.clone().acquire_owned().await.ok()?;
        Some(PatientTurn { turns: self.turns.clone(), permit: Some(permit), _merge: merge })
    }
}

impl PatientTurn {
    /// Lets everybody go first who waits. Blocks: not for async workers.
    pub(super) fn give_way(&mut self) {
        // A permit that is given back goes to whoever waits; only if nobody does can it be had at once.
        self.permit = None;
        while self.permit.is_none() {
            self.permit = self.turns.clone().try_acquire_owned().ok();
            if self.permit.is_none() {
                std::thread::sleep(LOOK);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_seal_gets_its_turn_in_the_middle_of_a_merge() {
        let turns = Turns::new();
        let mut merge = turns.take_patiently().await.unwrap();
        let (sealed, heard) = std::sync::mpsc::channel();
        let seal = tokio::spawn({
            let turns = turns.clone();
            async move {
                let _turn = turns.take().await;
                sealed.send(()).unwrap();
            }
        });
        let merging = tokio::task::spawn_blocking(move || {
            while heard.try_recv().is_err() {
                merge.give_way();
            }
            merge.permit.is_some()
        });
        assert!(merging.await.unwrap(), "and the merge has its own again");
        seal.await.unwrap();
    }

    #[tokio::test]
    async fn two_merges_do_not_take_turns() {
        let turns = Turns::new();
        let first = turns.take_patiently().await;
        let mut second = Box::pin(turns.take_patiently());
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(second.await.is_some());
    }
}
