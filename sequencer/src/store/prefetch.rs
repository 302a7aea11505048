//! The stage between append and apply: brings the rows that an entry touches to memory, so that apply never reads.
//!
//! ```text
//!   append(i) ──▶ waiting ──next_load──▶ loading ──complete──▶ held ──applied(i) or truncate──▶ let go
//! ```
//!
//! It runs on leader and follower alike, and starts no thread: whoever drives it hands the jobs of
//! [`Prefetch::next_load`] to a thread that may block. What always holds:
//! - a key that memory did not have is pinned, its absence included, from `append` until every entry that names it was applied or
//!   truncated; one that memory had may go meanwhile, and is found missing by [`Prefetch::ready`];
//! - entries are loaded in the order of the log, and the first one always may, so none waits for ever;
//! - beyond `pinned_bytes_max` no further entry begins to load;
//! - where every row is in memory an entry costs one comparison.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use logstore::id::LogIndex;

use super::{Row, StateSource};
use crate::state::{Key, ShardState, keys_of_entry};

/// What a pinned key costs beside its row: its place in two tables.
const PIN_BYTES: usize = 2 * size_of::<Key>() + 64;

/// The entries of one shard that are appended and not yet applied.
pub struct Prefetch {
    source: Arc<dyn StateSource>,
    pinned_bytes_max: usize,
    pinned_bytes: usize,
    pins: HashMap<Key, Pin>,
    /// In the order of the log.
    entries: VecDeque<Entry>,
    /// How many entries from the front have begun to load.
    begun: usize,
    /// Counts changes of what is sealed: a row read before one is stale.
    sealed_changes: u64,
}

struct Entry {
    index: LogIndex,
    keys: Vec<Key>,
}

#[derive(Default)]
struct Pin {
    /// Entries that name the key.
    entries: u32,
    /// Bytes of its row, once that is in memory.
    held: Option<usize>,
    /// Whether a job has been handed out for it.
    asked: bool,
}

/// Keys to be loaded, on a thread that may block.
pub struct LoadJob {
    source: Arc<dyn StateSource>,
    keys: Vec<Key>,
    sealed_changes: u64,
}

/// What a job found.
pub struct Loaded {
    rows: Vec<(Key, Option<Row>)>,
    sealed_changes: u64,
}

impl LoadJob {
    /// Reads the rows.
    pub fn run(&self) -> io::Result<Loaded> {
        let row = |key: &Key| self.source.load(key).map(|row| (key.clone(), row));
        let rows = self.keys.iter().map(row).collect::<io::Result<Vec<_>>>()?;
        Ok(Loaded { rows, sealed_changes: self.sealed_changes })
    }
}

impl Prefetch {
    /// A stage above `source` that pins at most about `pinned_bytes_max` bytes, one entry's keys excepted.
    pub fn new(source: Arc<dyn StateSource>, pinned_bytes_max: usize) -> Prefetch {
        Prefetch {
            source,
            pinned_bytes_max,
            pinned_bytes: 0,
            pins: HashMap::new(),
            entries: VecDeque::new(),
            begun: 0,
            sealed_changes: 0,
        }
    }

    /// Takes in an entry of commands that was appended: what memory does not have of what it touches is loaded. One that does
    /// not decode touches nothing.
    pub fn append(&mut self, index: LogIndex, payload: &Bytes, state: &ShardState) {
        if state.is_whole() {
            return;
        }
        let mut missing = Vec::new();
        keys_of_entry(payload, &mut |key| {
            if self.pins.contains_key(&key) || !state.is_near(&key) {
                missing.push(key);
            }
        });
        if !missing.is_empty() {
            self.pin(index, missing);
        }
    }

    /// Whether the leader should append more: what is pinned is below its bound.
    pub fn has_room(&self) -> bool {
        self.pinned_bytes < self.pinned_bytes_max
    }

    /// The next keys to load, if the bound allows. Every job must come back through [`Prefetch::complete`] or
    /// [`Prefetch::failed`].
    pub fn next_load(&mut self) -> Option<LoadJob> {
        while self.begun < self.entries.len() && (self.begun == 0 || self.has_room()) {
            let entry = &self.entries[self.begun];
            self.begun += 1;
            let mut missing = Vec::new();
            for key in &entry.keys {
                let pin = self.pins.get_mut(key).expect("keys of entries are pinned");
                if !pin.asked {
                    pin.asked = true;
                    missing.push(key.clone());
                }
            }
            if !missing.is_empty() {
                let source = self.source.clone();
                return Some(LoadJob { source, keys: missing, sealed_changes: self.sealed_changes });
            }
        }
        None
    }

    /// Puts what a job found into memory. If what is sealed has changed meanwhile, its rows are asked for again.
    pub fn complete(&mut self, loaded: Loaded, state: &mut ShardState) {
        if loaded.sealed_changes != self.sealed_changes {
            return self.ask_again(loaded.rows.into_iter().map(|(key, _)| key));
        }
        for (key, row) in loaded.rows {
            let Some(pin) = self.pins.get_mut(&key) else { continue };
            let bytes = row.as_ref().map_or(0, Row::bytes);
            self.pinned_bytes += bytes;
            self.pinned_bytes -= pin.held.replace(bytes).unwrap_or(0);
            state.load(key, row);
        }
    }

    /// Asks anew for the keys of a job that failed; its entries wait until one succeeds.
    pub fn failed(&mut self, job: LoadJob) {
        self.ask_again(job.keys);
    }

    /// What is sealed is about to change (a generation goes down from memory, whose values were written over the
    /// rows loaded): jobs under way read the old.
    pub fn sealed_changed(&mut self) {
        self.sealed_changes += 1;
    }

    /// Whether all that an entry touches is in memory. It is asked just before the entry is applied: what was there when the entry
    /// was appended may have gone since, and is loaded again then.
    pub fn ready(&mut self, index: LogIndex, payload: &Bytes, state: &ShardState) -> bool {
        let ready = state.has_near(payload);
        if !ready {
            self.append(index, payload, state);
        }
        ready
    }

    /// Lets go of what entries up to `index` pinned: they are applied.
    pub fn applied(&mut self, index: LogIndex, state: &mut ShardState) {
        while self.entries.front().is_some_and(|first| first.index <= index) {
            let entry = self.entries.pop_front().expect("looked at just now");
            self.begun = self.begun.saturating_sub(1);
            self.unpin(entry, state);
        }
    }

    /// Lets go of what entries from `index` on pinned: they are truncated.
    pub fn truncate(&mut self, index: LogIndex, state: &mut ShardState) {
        while self.entries.back().is_some_and(|last| last.index >= index) {
            let entry = self.entries.pop_back().expect("looked at just now");
            self.begun = self.begun.min(self.entries.len());
            self.unpin(entry, state);
        }
    }

    /// Bytes pinned now.
    pub fn pinned_bytes(&self) -> usize {
        self.pinned_bytes
    }

    /// Pins keys for an entry, beside those it has pinned.
    fn pin(&mut self, index: LogIndex, mut keys: Vec<Key>) {
        let place = match self.entries.binary_search_by_key(&index, |entry| entry.index) {
            Ok(place) => place,
            Err(place) => {
                self.entries.insert(place, Entry { index, keys: Vec::new() });
                place
            }
        };
        let entry = &mut self.entries[place];
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| entry.keys.binary_search(key).is_err());
        for key in &keys {
            let pin = self.pins.entry(key.clone()).or_default();
            pin.entries += 1;
            self.pinned_bytes += if pin.entries == 1 { PIN_BYTES } else { 0 };
        }
        entry.keys.extend(keys);
        entry.keys.sort_unstable();
        self.begun = self.begun.min(place);
    }

    fn ask_again(&mut self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            if let Some(pin) = self.pins.get_mut(&key) {
                pin.asked = false;
                self.begun = 0;
            }
        }
    }

    fn unpin(&mut self, entry: Entry, state: &mut ShardState) {
        for key in entry.keys {
            let pin = self.pins.get_mut(&key).expect("keys of entries are pinned");
            pin.entries -= 1;
            if pin.entries == 0 {
                self.pinned_bytes -= PIN_BYTES + pin.held.unwrap_or(0);
                self.pins.remove(&key);
                state.unload(&key);
            }
        }
    }
}
