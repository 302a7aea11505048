//! openraft's own suite for storage, run on ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use logstore::id::ShardId;
use logstore::{Journal, JournalOptions};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use crate::raft::log_store::LogStore;
use crate::raft::state_machine::StateMachine;
use crate::raft::types::TypeConfig;
use crate::shard::core::ShardCore;
use crate::store::NothingSealed;

/// Gives every test of the suite a shard of its own in one journal.
struct Shards {
    journal: Journal,
    next: AtomicU16,
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, ()> for Shards {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError<TypeConfig>> {
        let shard = ShardId(self.next.fetch_add(1, Ordering::Relaxed));
        let core = Arc::new(ShardCore::new(shard, Arc::new(NothingSealed), 1 << 20, 1 << 20));
        Ok(((), LogStore::new(self.journal.clone(), core.clone()), StateMachine::new(core, None)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_own_suite_passes_on_our_log_store() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions { file_bytes: 4 << 20, ..JournalOptions::default() };
    let journal = Journal::open(logstore::io::real(dir.path()), options, Box::new(|error| panic!("{error}"))).unwrap();
    let shards = Shards { journal: journal.clone(), next: AtomicU16::new(0) };
    Suite::test_all(shards).await.unwrap();
    journal.close();
}
