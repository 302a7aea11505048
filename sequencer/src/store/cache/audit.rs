//! Whether a store is what its shard's segments say, for whoever looks at a stopped node.
//!
//! What always holds: nothing is changed: whatever opening and checking would write stays in memory. What is not believed by a start
//! is not compared: nothing is ever read from it.

use std::sync::Arc;

use logstore::id::SegmentOrdinal;
use logstore::io::{self, Disk};
use logstore::{Manifest, SegmentSet};

use super::{Mark, Opened, RowHasher, StateCache};
use crate::{Error, Result};

/// What was found of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audit {
    /// There is none.
    Absent,
    /// It is not as of the end of a segment that the manifest lists: a start reads nothing from it, and makes it anew.
    NotBelieved,
    /// All of it verifies, and it holds what the deltas up to its mark add up to, if these could be read.
    Sound {
        /// Its mark.
        mark: Mark,
        /// Of its rows; see [`StateCache::hash`].
        hash: [u8; 32],
    },
}

/// Reads all of a shard's store, and compares it with the deltas of the segments, if these are given. `memory_bytes` bounds what of the
/// store is kept in memory. [`Error::StoreDamaged`] if it is not what was written, or is not what the segments say.
pub fn audit(
    disk: &Arc<dyn Disk>,
    manifest: &Manifest,
    set: Option<&SegmentSet>,
    memory_bytes: usize,
) -> Result<Audit> {
    let (shard, path) = (manifest.shard(), StateCache::path(manifest.shard()));
    if !is_there(disk, &path)? {
        return Ok(Audit::Absent);
    }
    let damaged = |what: String| Error::StoreDamaged { path: path.clone(), shard, what };
    let Opened { cache: mut store, discarded } =
        StateCache::open(io::scratch(disk.clone()), &path, shard, memory_bytes)?;
    if let Some(what) = discarded {
        return Err(damaged(what));
    }
    let (mark, hash) = (store.mark(), store.verify()?);
    if !manifest.segments().iter().any(|segment| Mark::of(segment) == mark) {
        return Ok(Audit::NotBelieved);
    }
    match set {
        Some(set) if hash_as_of(set, mark)? != hash => {
            let upto = mark.index;
            Err(damaged(format!(
                "it verifies, and is not what the deltas of the segments up to entry {upto} add up to"
            )))
        }
        _ => Ok(Audit::Sound { mark, hash }),
    }
}

fn is_there(disk: &Arc<dyn Disk>, path: &str) -> Result<bool> {
    let directory = StateCache::DIRECTORY;
    let names = disk
        .list(directory)
        .map_err(|source| Error::from(logstore::Error::Io { operation: "list", path: directory.to_owned(), source }))?;
    Ok(names.iter().any(|name| path.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/')) == Some(name)))
}

/// The hash of a store that is made of these segments up to a mark.
fn hash_as_of(set: &SegmentSet, mark: Mark) -> Result<[u8; 32]> {
    let mut hasher = RowHasher::default();
    for row in set.rows_as_of(SegmentOrdinal(mark.ordinal))? {
        let row = row?;
        if let Some(value) = &row.value {
            hasher.add(&row.key, value);
        }
    }
    Ok(hasher.finish())
}
