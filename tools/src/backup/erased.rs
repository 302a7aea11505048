//! Whose messages were erased, as all saves of a directory know it together: the list that outlives what it erased.
//!
//! What always holds: an erasure that any save knows counts for every save, the older ones above all; it takes what was sent until it was
//! asked for. Of the same history that is told by the entry, of another one by the log's time there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use hashbrown::HashSet;
use logstore::SegmentSet;
use logstore::id::{HistoryId, LogIndex, ShardId, TimeMs, UserId};
use logstore::segment::BlockCache;
use sequencer::erased_again::{self, Erased};
use sequencer::state::ErasedRow;

use super::store::{Save, Store};

/// Notes are few and read once.
const CACHE_BYTES: u64 = 1 << 20;

/// All erasures that saves know of.
#[derive(Debug, Default)]
pub struct KnownErasures {
    /// Of each history and shard.
    noted: BTreeMap<(HistoryId, ShardId), Erased>,
}

impl KnownErasures {
    /// Reads the notes of all saves. One that cannot be read is an error: what was erased would come back.
    pub fn of(store: &Store) -> anyhow::Result<KnownErasures> {
        let mut known = KnownErasures::default();
        let mut seen = HashSet::new();
        for save in store.saves()? {
            known.read(store.root(), &save, &mut seen).with_context(|| {
                format!(
                    "which erasures save {} of {} knows cannot be read; without its file in saves/ it does not count",
                    save.save,
                    store.root().display()
                )
            })?;
        }
        Ok(known)
    }

    fn read(&mut self, root: &Path, save: &Save, seen: &mut HashSet<(HistoryId, String)>) -> anyhow::Result<()> {
        let (disk, cache) = (logstore::io::read_only(root), Arc::new(BlockCache::new(CACHE_BYTES)));
        let history = save.history_id()?;
        for shard in &save.shards {
            let noted = self.noted.entry((history, ShardId(shard.shard))).or_default();
            for info in shard.manifest()?.segments().iter().filter(|info| seen.insert((history, info.path()))) {
                let segment = Arc::new(SegmentSet::open_listed(&disk, info, &cache)?);
                erased_again::noted(&segment)?.into_iter().for_each(|(user, one)| take(noted, user, one));
            }
        }
        Ok(())
    }

    /// What is to be erased of a shard of a history.
    pub fn of_shard(&self, history: HistoryId, set: &SegmentSet) -> anyhow::Result<Erased> {
        let manifest = set.manifest();
        let last = manifest.checkpoint().map_or(LogIndex(0), |checkpoint| checkpoint.seal.index);
        let mut erased = Erased::new();
        for (user, one) in self.noted.get(&(history, manifest.shard())).into_iter().flatten() {
            take(&mut erased, *user, ErasedRow { upto: one.upto.min(last), ..*one });
        }
        for (user, asked) in self.asked(|of| of != history) {
            let upto = erased_again::last_entry_at(set, asked)?;
            take(&mut erased, user, ErasedRow { upto, asked });
        }
        Ok(erased)
    }

    /// Of each user until when messages are erased.
    pub fn by_user(&self) -> BTreeMap<UserId, TimeMs> {
        self.asked(|_| true)
    }

    fn asked(&self, of: impl Fn(HistoryId) -> bool) -> BTreeMap<UserId, TimeMs> {
        let mut asked = BTreeMap::<UserId, TimeMs>::new();
        for (_, erased) in self.noted.iter().filter(|((history, _), _)| of(*history)) {
            for (user, one) in erased {
                let last = asked.entry(*user).or_default();
                *last = one.asked.max(*last);
            }
        }
        asked
    }
}

/// Of two erasures of one user both count.
fn take(erased: &mut Erased, user: UserId, one: ErasedRow) {
    let kept = erased.entry(user).or_insert(one);
    *kept = ErasedRow { upto: one.upto.max(kept.upto), asked: one.asked.max(kept.asked) };
}
