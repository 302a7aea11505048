//! One shard without Raft: entries of its log are applied to what its segments hold, and become segments where the log says so.
//!
//! What always holds: the state is that of a replica which has applied the same entries; only the entries since the last Seal are in
//! memory. What cannot be read ends it, and leaves segments up to some Seal.

use std::sync::Arc;

use bytes::Bytes;
use logstore::id::{LogId, LogIndex, ShardId};
use logstore::io::Disk;
use logstore::segment::BlockCache;
use logstore::{Entry, EntryKind, SegmentSet};

use super::build::Entries;
use super::{Frozen, restore, task};
use crate::raft::checkpoint::{Checkpoint, Membership};
use crate::raft::membership::decode_membership;
use crate::raft::types::{log_id_of, raft_log_id_of};
use crate::shard::core::{CoreOptions, ShardCore};
use crate::state::ShardState;
use crate::{BatchBuilder, Command, Error, Result};

/// Nobody else reads meanwhile.
const CACHE_BYTES: u64 = 8 << 20;
/// Sealed rows in memory: an entry touches a few thousand.
const ROW_CACHE_BYTES: usize = 32 << 20;
/// Nobody follows.
const TAIL_BYTES: usize = 1 << 20;
/// Nobody waits.
const UNPACED: u64 = u64::MAX;

/// A shard that is brought to a later time.
pub(crate) struct Replica {
    disk: Arc<dyn Disk>,
    core: Arc<ShardCore>,
    /// Since the last Seal.
    entries: Entries,
    membership: Membership,
    last: LogId,
}

impl Replica {
    /// As its segments hold it.
    pub(crate) fn open(disk: &Arc<dyn Disk>, shard: ShardId) -> Result<Replica> {
        let set = SegmentSet::open(disk, shard, &Arc::new(BlockCache::new(CACHE_BYTES)))?;
        let restored = restore::read(disk, shard, set, 0)?;
        let nothing = || Error::Rows { shard, what: "nothing of it is sealed".into() };
        let checkpoint = restored.checkpoint.clone().ok_or_else(nothing)?;
        let options = CoreOptions { row_cache_bytes: ROW_CACHE_BYTES, tail_bytes: TAIL_BYTES, seal_bytes: u64::MAX };
        let core = ShardCore::above(restored.state, restored.sealed, restored.rows, restored.checkpoint, options);
        let last = log_id_of(&checkpoint.sealed);
        let entries = Entries::begin(shard, last.index);
        let (disk, core) = (disk.clone(), Arc::new(core));
        Ok(Replica { disk, core, entries, membership: checkpoint.membership, last })
    }

    /// Looks at what is always in memory of its state.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&ShardState) -> T) -> T {
        look(&self.core.read().0)
    }

    /// Applies the next entry.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<()> {
        let (shard, index) = (self.core.shard(), self.last.index.next());
        if entry.id.index != index {
            return Err(Error::Log(logstore::Error::NoSuchEntry { shard, index }));
        }
        self.last = entry.id;
        let commands = if entry.kind == EntryKind::Normal { entry.payload.clone() } else { Bytes::new() };
        self.entries.push(commands);
        match entry.kind {
            EntryKind::Normal => return self.commands(index, &entry.payload),
            EntryKind::Blank => {}
            EntryKind::Membership => {
                let members = decode_membership(&entry.payload);
                let wrong = || Error::Malformed { shard, index, offset: 0, what: "a membership" };
                self.membership = Membership::new(Some(raft_log_id_of(entry.id)), members.ok_or_else(wrong)?);
            }
        }
        self.core.skip(index);
        Ok(())
    }

    /// Ends what is not sealed with a Seal of its own, which changes no time; states the last entry there is then.
    pub(crate) fn seal(mut self) -> Result<LogId> {
        if self.entries.after() < self.last.index {
            let mut seal = BatchBuilder::new();
            seal.add(&Command::Seal);
            let payload = seal.finish(self.look(ShardState::time));
            let id = LogId { index: self.last.index.next(), ..self.last };
            self.apply(&Entry { id, kind: EntryKind::Normal, payload })?;
        }
        if self.entries.after() == self.last.index {
            Ok(self.last)
        } else {
            Err(Error::Rows { shard: self.core.shard(), what: "it takes no Seal".into() })
        }
    }

    fn commands(&mut self, index: LogIndex, payload: &Bytes) -> Result<()> {
        let shard = self.core.shard();
        while !self.core.is_ready(index, payload) {
            self.core.load_here().map_err(|source| Error::SealedState { shard, source })?;
        }
        match self.core.apply(index, payload).applied.sealed {
            Some(generation) => self.sealed(generation),
            None => Ok(()),
        }
    }

    fn sealed(&mut self, generation: u64) -> Result<()> {
        let checkpoint = Checkpoint { sealed: raft_log_id_of(self.last), membership: self.membership.clone() };
        let frozen = Frozen { generation, checkpoint, bytes: 0 };
        self.core.sealing().froze(frozen.clone());
        task::seal_entries(&self.core, &self.disk, &self.entries, &frozen, UNPACED)?;
        self.core.sealing().publish();
        self.entries = Entries::begin(self.core.shard(), self.last.index);
        Ok(())
    }
}
