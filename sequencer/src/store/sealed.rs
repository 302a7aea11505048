//! The sealed state of a shard: deltas of segments above what its store has absorbed, and the store.
//!
//! ```text
//!   delta of the newest segment      <- the first that says something of a key counts
//!   ...
//!   delta of the oldest segment that the store has not absorbed
//!   store                            <- or, without one, the deltas of all segments
//! ```
//!
//! What always holds: a look takes the set of segments and the store once, and the store's mark before anything is read; whatever is
//! published, merged or absorbed meanwhile, it sees every row as of the generation that was newest then or later. A store that
//! cannot be read is let go of at once and looked into no more: it is a cache, and the segments have everything.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use logstore::SegmentSet;
use logstore::id::{SegmentOrdinal, ShardId};
use logstore::segment::Segment;
use parking_lot::RwLock;

use super::cache::StateCache;
use super::{Row, Scanned, StateSource};
use crate::state::Key;
use crate::{Error, Result};

/// What a row of a scan takes on the average, for how many bytes a store is asked.
const ROW_BYTES: usize = 128;

/// What lies below a shard's memory.
pub struct SealedRows {
    shard: ShardId,
    /// What redb keeps in memory of the store.
    store_memory_bytes: usize,
    view: RwLock<View>,
}

#[derive(Clone)]
struct View {
    set: Arc<SegmentSet>,
    store: Option<Arc<StateCache>>,
    /// Whether there was a store that is not believed any more, until another takes its place.
    lost: bool,
}

/// Keys and their values, ascending; and where more begin.
#[derive(Debug, Default)]
pub struct RawScanned {
    /// Ascending by key.
    pub rows: Vec<(Bytes, Bytes)>,
    /// Where the next run begins; `None`: there are no more.
    pub next_after: Option<Bytes>,
}

impl SealedRows {
    /// The rows of these segments, without a store; what is read of one later may keep so much in memory.
    pub fn new(set: Arc<SegmentSet>, store_memory_bytes: usize) -> SealedRows {
        let shard = set.manifest().shard();
        SealedRows { shard, store_memory_bytes, view: RwLock::new(View { set, store: None, lost: false }) }
    }

    /// These are the segments from now on. Called before anything leaves memory because they have it.
    pub fn publish(&self, set: Arc<SegmentSet>) {
        // The last user of a file removes it: not under the lock.
        let before = std::mem::replace(&mut self.view.write().set, set);
        drop(before);
    }

    /// What a store may keep in memory.
    pub fn store_memory_bytes(&self) -> usize {
        self.store_memory_bytes
    }

    /// The store that is believed, if there is one.
    pub fn store(&self) -> Option<Arc<StateCache>> {
        self.view.read().store.clone()
    }

    /// A store that is as of the end of one of the segments.
    pub fn set_store(&self, store: Arc<StateCache>) {
        let mut view = self.view.write();
        let before = view.store.replace(store);
        view.lost = false;
        drop(view);
        drop(before);
    }

    /// The store is not believed any more.
    pub fn lose_store(&self) {
        let mut view = self.view.write();
        let before = view.store.take();
        view.lost |= before.is_some();
        drop(view);
        drop(before);
    }

    /// Whether a store was lost and none has taken its place.
    pub fn has_lost_store(&self) -> bool {
        self.view.read().lost
    }

    /// Keys and values that begin with `prefix` and are above `after`, about `rows_max` of them at most.
    pub fn scan_raw(&self, prefix: &[u8], after: Option<&[u8]>, rows_max: usize) -> Result<RawScanned> {
        self.over_view(|view| view.scan(prefix, after, rows_max.max(1)))
    }

    /// The value of a key.
    pub fn get_raw(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.over_view(|view| view.get(key))
    }

    /// Asks, and asks again without the store if that fails.
    fn over_view<T>(&self, ask: impl Fn(&View) -> std::result::Result<T, Failed>) -> Result<T> {
        let view = self.view.read().clone();
        let error = match ask(&view) {
            Ok(answer) => return Ok(answer),
            Err(Failed::Segments(error)) => return Err(error),
            Err(Failed::Store(error)) => error,
        };
        self.tell_lost(&view, &error);
        match ask(&View { store: None, ..view }) {
            Ok(answer) => Ok(answer),
            Err(Failed::Segments(error) | Failed::Store(error)) => Err(error),
        }
    }

    fn tell_lost(&self, seen: &View, error: &Error) {
        let mut view = self.view.write();
        let is_same = |store: &Arc<StateCache>| seen.store.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, store));
        if view.store.as_ref().is_some_and(is_same) {
            view.store = None;
            view.lost = true;
            drop(view);
            tracing::warn!(shard = self.shard.0, %error, "the state store cannot be read: rows are read from segments until it is made anew");
            metrics::counter!("skein_state_stores_lost_total").increment(1);
        }
    }

    fn decoded(&self, key: &[u8], value: &[u8]) -> Result<(Key, Row)> {
        let bad = |key: String, bad: crate::Malformed| Error::Row {
            shard: self.shard,
            key,
            offset: bad.offset,
            what: bad.what,
        };
        let decoded = Key::decode(key).map_err(|malformed| bad(format!("{key:02x?}"), malformed))?;
        let row = Row::decode(&decoded, value).map_err(|malformed| bad(format!("{decoded:?}"), malformed))?;
        Ok((decoded, row))
    }
}

impl StateSource for SealedRows {
    fn is_empty(&self) -> bool {
        false
    }

    fn generation(&self) -> u64 {
        self.view.read().set.manifest().last().0
    }

    /// The store is asked itself; filters of segments are in memory.
    fn may_contain(&self, key: &Key) -> bool {
        let view = self.view.read().clone();
        view.store.is_some() || {
            let key = key.encode();
            view.set.segments().iter().any(|segment| segment.delta_may_hold(&key))
        }
    }

    fn load(&self, key: &Key) -> io::Result<Option<Row>> {
        let bytes = key.encode();
        let value = self.get_raw(&bytes).map_err(io::Error::other)?;
        let row = value.map(|value| self.decoded(&bytes, &value).map(|(_, row)| row)).transpose();
        row.map_err(io::Error::other)
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, rows_max: usize) -> io::Result<Scanned> {
        let RawScanned { rows, next_after } = self.scan_raw(prefix, after, rows_max).map_err(io::Error::other)?;
        let rows = rows.iter().map(|(key, value)| self.decoded(key, value)).collect::<Result<_>>();
        Ok(Scanned { rows: rows.map_err(io::Error::other)?, next_after })
    }
}

/// Where a look has failed.
enum Failed {
    Store(Error),
    Segments(Error),
}

impl From<logstore::Error> for Failed {
    fn from(error: logstore::Error) -> Failed {
        Failed::Segments(error.into())
    }
}

impl View {
    /// The deltas that are above what the store has absorbed at this moment, the newest first.
    fn newer(&self) -> impl Iterator<Item = &Arc<Segment>> {
        let mark = SegmentOrdinal(self.store.as_ref().map_or(0, |store| store.mark().ordinal));
        self.set.segments().iter().rev().take_while(move |segment| segment.span().last > mark)
    }

    fn get(&self, key: &[u8]) -> std::result::Result<Option<Bytes>, Failed> {
        for segment in self.newer() {
            if let Some(value) = segment.delta_get(key)? {
                return Ok(value);
            }
        }
        match &self.store {
            Some(store) => store.get(key).map_err(Failed::Store),
            None => Ok(None),
        }
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, rows_max: usize) -> std::result::Result<RawScanned, Failed> {
        let mut merged = Merged { rows: BTreeMap::new(), upto: None };
        let from = after.unwrap_or(prefix).max(prefix);
        for segment in self.newer() {
            let rows = segment.delta_rows_at(from)?.map(|row| {
                let row = row?;
                Ok::<_, Failed>((row.key, row.value))
            });
            merged.take(
                rows.filter(|row| !matches!(row, Ok((key, _)) if Some(&key[..]) == after)),
                prefix,
                rows_max,
            )?;
        }
        if let Some(store) = &self.store {
            let read = store.scan(prefix, after, rows_max * ROW_BYTES).map_err(Failed::Store)?;
            let full = read.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() >= rows_max * ROW_BYTES;
            let last = read.last().map(|(key, _)| key.clone());
            merged.take(read.into_iter().map(|(key, value)| Ok((key, Some(value)))), prefix, usize::MAX)?;
            merged.ends_at(last.filter(|_| full));
        }
        Ok(merged.finish())
    }
}

/// Runs of several sources, the newest first.
struct Merged {
    rows: BTreeMap<Bytes, Option<Bytes>>,
    /// Every source has told all it has up to here; `None`: all it has.
    upto: Option<Bytes>,
}

impl Merged {
    fn take(
        &mut self,
        rows: impl Iterator<Item = std::result::Result<(Bytes, Option<Bytes>), Failed>>,
        prefix: &[u8],
        rows_max: usize,
    ) -> std::result::Result<(), Failed> {
        for (taken, row) in rows.enumerate() {
            let (key, value) = row?;
            let is_over = self.upto.as_ref().is_some_and(|upto| key > *upto);
            if !key.starts_with(prefix) || is_over {
                return Ok(());
            }
            if taken + 1 == rows_max {
                self.ends_at(Some(key.clone()));
            }
            if let Entry::Vacant(unseen) = self.rows.entry(key) {
                unseen.insert(value);
            }
            if taken + 1 == rows_max {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A source has more after this.
    fn ends_at(&mut self, last: Option<Bytes>) {
        if let Some(last) = last {
            self.upto = Some(self.upto.take().map_or(last.clone(), |upto| upto.min(last)));
        }
    }

    fn finish(self) -> RawScanned {
        let Merged { rows, upto } = self;
        let is_told = |key: &Bytes| upto.as_ref().is_none_or(|upto| key <= upto);
        let rows = rows.into_iter().filter(|(key, _)| is_told(key));
        let rows = rows.filter_map(|(key, value)| Some((key, value?))).collect();
        RawScanned { rows, next_after: upto }
    }
}
