//! Shards that read around damage: what is sound of their logs, served for reading alone.
//!
//! What always holds: nothing is appended, sealed, merged or purged, no Raft runs, and every proposal is refused; what is served
//! is a state that every replica had once, and records as they were written.

use std::collections::BTreeSet;
use std::sync::Arc;

use logstore::id::{LogIndex, ShardId};
use logstore::io::Disk;
use logstore::segment::BlockCache;
use logstore::{EntryKind, Journal, JournalDamage};

use super::host::{Plan, Sequencer, table_of};
use super::proposer::Proposer;
use super::sealing::{self, Around, MergeWhen};
use super::{SequencerOptions, Shard};
use crate::runtime;
use crate::shard::core::{CoreOptions, ShardCore};
use crate::store::SealedRows;
use crate::{Error, Result, SystemClock};

/// The folder of sealed files.
const SEGMENTS: &str = "segments";
/// Bytes of entries that are applied in one go.
const READ_BYTES: usize = 4 << 20;

/// Opens what is sound of all shards.
pub(super) async fn open(options: SequencerOptions, journal: Journal, damage: JournalDamage) -> Result<Sequencer> {
    let cache = Arc::new(BlockCache::new(options.block_cache_bytes));
    let opening = Opening { options, disk: logstore::io::scratch(journal.disk().clone()), journal, damage, cache };
    let mut shards = Vec::new();
    for id in opening.shards()? {
        shards.push(opening.shard(id).await?);
    }
    let plan = shards.iter().find_map(|shard| Plan::of(&shard.core));
    let plan = plan.ok_or(Error::NothingSound)?;
    let known: BTreeSet<ShardId> = shards.iter().map(|shard| shard.id()).collect();
    for id in plan.shards().filter(|id| !known.contains(id)).collect::<BTreeSet<_>>() {
        shards.push(opening.shard(id).await?);
    }
    shards.sort_by_key(|shard| shard.id());
    let shards: Vec<_> = shards.into_iter().map(Arc::new).collect();
    let table = table_of(&plan, &shards)?;
    let found = opening.damage.found.iter().map(ToString::to_string).collect();
    Ok(Sequencer::around(shards, table, plan.history(), found))
}

struct Opening {
    options: SequencerOptions,
    journal: Journal,
    damage: JournalDamage,
    /// Takes what opening a store changes, and forgets it.
    disk: Arc<dyn Disk>,
    cache: Arc<BlockCache>,
}

impl Opening {
    /// All of which anything is there.
    fn shards(&self) -> Result<BTreeSet<ShardId>> {
        let unreadable = |source| logstore::Error::Io { operation: "list", path: SEGMENTS.to_owned(), source };
        let dirs = self.disk.list_dirs(SEGMENTS).map_err(unreadable)?;
        let sealed = dirs.iter().filter_map(|name| name.parse().ok()).map(ShardId);
        Ok(self.journal.shards().into_iter().chain(sealed).collect())
    }

    async fn shard(&self, id: ShardId) -> Result<Shard> {
        let (disk, cache) = (self.disk.clone(), self.cache.clone());
        let around = runtime::blocking(move || sealing::restore_around(&disk, id, &cache)).await;
        let around = around.map_err(|_| stopping(id))?;
        let Around { state, sealed, mut damage, is_newest, is_alone } = around;
        // Every row is in memory and stays there: nothing is ever looked for below.
        let options =
            CoreOptions { row_cache_bytes: usize::MAX, tail_bytes: self.options.tail_bytes, seal_bytes: u64::MAX };
        let rows = Arc::new(SealedRows::new(sealed.clone(), 0));
        let core = Arc::new(ShardCore::above(state, sealed, rows, None, options));
        if is_newest {
            let upto = self.committed(id, is_alone);
            if let Err(error) = self.apply(&core, upto).await {
                damage.push(format!("it ends at entry {}: {error}", core.applied()));
            }
            damage.extend(self.end_of_journal(&core));
        }
        if core.applied() == LogIndex(0) && damage.is_empty() {
            damage.push("nothing of it is there".to_owned());
        }
        core.wake();
        let proposer = Proposer::reads_only();
        let SequencerOptions { merge_inputs, drop_within, .. } = self.options;
        let merge_when = MergeWhen::new(merge_inputs, drop_within, Arc::new(SystemClock));
        let journal = self.journal.clone();
        Ok(Shard { core, proposer, group: None, journal, merge_when, keeps_sealed: false, damage })
    }

    /// What may be applied: alone, a node has committed whatever it holds.
    fn committed(&self, id: ShardId, is_alone: bool) -> LogIndex {
        let log = self.journal.shard_log(id);
        let last = if is_alone { log.last } else { log.committed };
        last.map_or(LogIndex(0), |last| last.index)
    }

    async fn apply(&self, core: &Arc<ShardCore>, upto: LogIndex) -> Result<()> {
        let mut next = core.applied().next();
        while next <= upto {
            let (journal, shard) = (self.journal.clone(), core.shard());
            let read = runtime::blocking(move || journal.read(shard, next..upto.next(), READ_BYTES)).await;
            for entry in read.map_err(|_| stopping(shard))?? {
                if entry.kind == EntryKind::Normal {
                    core.ready(entry.id.index, &entry.payload).await;
                    core.apply(entry.id.index, &entry.payload);
                } else {
                    core.skip(entry.id.index);
                }
                next = entry.id.index.next();
            }
        }
        Ok(())
    }

    fn end_of_journal(&self, core: &ShardCore) -> Option<String> {
        let end = self.damage.ends.get(&core.shard())?;
        let from = core.applied().max(*end).next();
        Some(format!("entries from {from} on may be lost: the journal is damaged there"))
    }
}

fn stopping(shard: ShardId) -> Error {
    Error::Raft { shard, what: "the node is stopping".to_string() }
}
