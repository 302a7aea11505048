//! `skein log verify`: the state stores.
//!
//! What always holds: a store is a cache, so whatever is wrong with one is mended by making it anew, and that is said with it.

use logstore::id::{LogIndex, ShardId};
use logstore::{Manifest, SegmentSet};
use sequencer::store::cache::{Audit, StateCache, audit};

use super::{Check, LEFTOVER, SOUND, UNUSED, place_of};
use crate::exit::Failure;
use crate::log::fact::hex;

/// What redb may keep of a store in memory.
const STORE_MEMORY_BYTES: usize = 64 << 20;

impl Check<'_> {
    /// Verifies a shard's store: every page and value, and, if all segments can be read, that it holds what they say.
    pub(super) fn store(&mut self, manifest: &Manifest, set: Option<&SegmentSet>) {
        let path = StateCache::path(manifest.shard());
        match audit(&self.offline.disk, manifest, set, STORE_MEMORY_BYTES) {
            Ok(Audit::Absent) if manifest.store_mark().0 == 0 => {}
            Ok(Audit::Absent) => {
                let words = "not there: rows are read from segments until a merge makes it anew";
                self.fine(UNUSED, path, format!("{words}, or {}", self.repair()));
            }
            Ok(Audit::NotBelieved) => {
                let words = "not as of a segment that is listed: nothing is read from it, a merge makes it anew";
                self.fine(UNUSED, path, format!("{words}, or {}", self.repair()));
            }
            Ok(Audit::Sound { mark, hash }) => {
                let compared = if set.is_some() { "as the segments say" } else { "not compared with the segments" };
                self.fine(SOUND, path, format!("up to entry {}, {compared}, hash {}", mark.index, hex(&hash)));
            }
            Err(sequencer::Error::Log(error)) => {
                let (known, offset) = place_of(&error);
                self.rot(if known.is_empty() { path } else { known }, offset, error.to_string());
            }
            Err(error) => {
                let words = format!("{error}; it is a cache: to make it anew, {}", self.repair());
                self.rot(path, None, words);
            }
        }
    }

    /// Names what lies beside the stores of the shards that have segments.
    pub(super) fn other_stores(&mut self, sealed: &[(ShardId, Option<LogIndex>)]) -> Result<(), Failure> {
        for name in self.offline.disk.list(StateCache::DIRECTORY)? {
            let path = format!("{}/{name}", StateCache::DIRECTORY);
            if sealed.iter().all(|(shard, _)| StateCache::path(*shard) != path) {
                self.fine(LEFTOVER, path, "of no shard that has segments: left by a crash, or not ours".into());
            }
        }
        Ok(())
    }

    fn repair(&self) -> String {
        format!("skein log rebuild --data-dir {}", self.offline.data_dir().display())
    }
}
