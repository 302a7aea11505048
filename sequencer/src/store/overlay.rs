//! A typed table of state rows, in overlay generations.
//!
//! ```text
//!   current   rows written since the last Seal               <- every write goes here
//!   frozen    one layer per Seal, newest on top              <- each becomes the delta of its sealed segment
//!   base      rows of generations that were folded down: sealed, and kept as long as there is room
//!   loaded    what prefetch brought from below memory, absences included, while it is pinned
//! ```
//!
//! A look goes from top to bottom and takes the first row it finds. What always holds: a layer below `current`
//! never changes what a look finds, so freezing and folding are invisible to apply; a row of a frozen layer is
//! never written again, and whoever holds the layer reads it while apply goes on; a row leaves `base` only when one as new is
//! sealed, and before it does its value is written over that of a pinned one.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hashbrown::DefaultHashBuilder;
use hashbrown::hash_table::Entry;

use super::sharded::part_of;
use super::{Sharded, Weigh};

/// What a place in a hash table costs beside its row: its tag, and what is free at seven eighths full after a doubling.
const PLACE_BYTES: usize = 16;
/// A part of fewer rows is not looked at, unless rows are to take less than so many would.
const SWEEP_ROWS_MIN: usize = 32;
/// A hash table this empty is not used again: it was made for a burst.
const SPARE_OVER_USED: usize = 8;

/// Rows of one kind by key.
#[derive(Debug)]
pub struct Table<K, V> {
    hasher: DefaultHashBuilder,
    current: Sharded<K, V>,
    /// Oldest first.
    frozen: VecDeque<Arc<Sharded<K, V>>>,
    /// The part of the oldest frozen layer that is folded next.
    fold_next: usize,
    base: Sharded<K, Cached<V>>,
    loaded: Sharded<K, Option<V>>,
    /// Parts of layers that were folded down, empty: the next generation begins in memory that is there.
    spare: Sharded<K, V>,
    /// What each part of `base` may take.
    part_bytes_max: usize,
    /// So many rows in a part of `base` are worth another look at what they take.
    sweep_at: Vec<usize>,
    /// A part of fewer rows than this is not worth it.
    rows_min: usize,
    has_evicted: bool,
}

/// A row that is sealed.
#[derive(Debug)]
struct Cached<V> {
    row: V,
    /// The higher the longer it stays; falls with every look for rows that may go.
    merit: AtomicU8,
}

/// What a row that is looked at is worth; one that was written is worth half.
const MERIT_MAX: u8 = 2;

impl<V> Cached<V> {
    fn new(row: V) -> Cached<V> {
        Cached { row, merit: AtomicU8::new(MERIT_MAX / 2) }
    }

    fn used(&self) -> &V {
        // Written only where it changes: readers on other cores have the line too.
        if self.merit.load(Ordering::Relaxed) != MERIT_MAX {
            self.merit.store(MERIT_MAX, Ordering::Relaxed);
        }
        &self.row
    }
}

impl<K: Hash + Eq + Clone, V: Clone + Weigh> Table<K, V> {
    /// An empty table whose layers have `parts` parts each, a power of two: about one for a thousand rows expected.
    /// It keeps every row.
    pub fn new(parts: usize) -> Table<K, V> {
        Table {
            hasher: DefaultHashBuilder::default(),
            current: Sharded::new(parts),
            frozen: VecDeque::new(),
            fold_next: 0,
            base: Sharded::new(parts),
            loaded: Sharded::new(parts),
            spare: Sharded::new(parts),
            part_bytes_max: usize::MAX,
            sweep_at: vec![SWEEP_ROWS_MIN; parts],
            rows_min: SWEEP_ROWS_MIN,
            has_evicted: false,
        }
    }

    /// From now on sealed rows are kept only as far as they take about this many bytes.
    pub fn keep_at_most(&mut self, bytes: usize) {
        self.part_bytes_max = bytes / self.base.parts();
        self.rows_min = (self.part_bytes_max / size_of::<(K, Cached<V>)>()).clamp(1, SWEEP_ROWS_MIN);
        self.sweep_at.fill(self.rows_min);
    }

    /// Whether a row was ever let go of.
    pub fn has_evicted(&self) -> bool {
        self.has_evicted
    }

    /// How many frozen generations there are: each is one more place to look.
    pub(crate) fn layers(&self) -> usize {
        self.frozen.len()
    }

    /// A key's hash, for the looks that take one.
    pub fn hash(&self, key: &K) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Brings near the rows that most likely belong to these hashes, in every layer; see `Sharded::touch`.
    pub fn touch(&self, hashes: impl Iterator<Item = u64> + Clone, look: impl Fn(&K, &V) -> u64) -> u64 {
        let frozen = self.frozen.iter().rev().map(Arc::as_ref);
        let layers = std::iter::once(&self.current).chain(frozen);
        let seen = layers.fold(0, |seen, layer| seen ^ layer.touch(hashes.clone(), &look));
        seen ^ self.base.touch(hashes, |key, cached| look(key, &cached.row))
    }

    /// The row of a key.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.near(key).flatten()
    }

    /// What memory says of a key: `None` if nothing, `Some(None)` that there is no row.
    pub fn near<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<Option<&V>>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let is_key = |k: &K| k.borrow() == key;
        match self.current.get(hash, is_key) {
            Some(row) => Some(Some(row)),
            None => self.below(hash, is_key),
        }
    }

    /// The row of a key, for writing; copied up into the current generation if that has not written it yet.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.get_mut_hashed(self.hasher.hash_one(key), key)
    }

    /// [`Table::get_mut`] with the hash at hand.
    pub fn get_mut_hashed(&mut self, hash: u64, key: &K) -> Option<&mut V> {
        match self.current.entry(hash, key, |k| self.hasher.hash_one(k)) {
            Entry::Occupied(taken) => Some(&mut taken.into_mut().1),
            Entry::Vacant(free) => {
                let row = below(&self.frozen, &self.base, &self.loaded, hash, |k| k == key).flatten()?.clone();
                Some(&mut free.insert((key.clone(), row)).into_mut().1)
            }
        }
    }

    /// Sets the row of a key.
    pub fn insert(&mut self, key: K, row: V) {
        let hash = self.hasher.hash_one(&key);
        self.current.insert(hash, key, row, |k| self.hasher.hash_one(k));
    }

    /// Every key that memory has for its own sake, with its newest row, in no order; not those that are only loaded.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let is_hidden = |key: &K| self.is_unsealed(key);
        let base = self.base.iter().filter(move |(key, _)| !is_hidden(key));
        self.unsealed().chain(base.map(|(key, cached)| (key, &cached.row)))
    }

    /// Every key written since the generations that were folded down, with its newest row, in no order.
    pub fn unsealed(&self) -> impl Iterator<Item = (&K, &V)> {
        let layers = move || std::iter::once(&self.current).chain(self.frozen.iter().rev().map(Arc::as_ref));
        let newest = move |depth: usize, key: &K| {
            let hash = if depth == 0 { 0 } else { self.hasher.hash_one(key) };
            layers().take(depth).all(|above| above.get(hash, |k| k == key).is_none())
        };
        let rows = layers().enumerate().flat_map(|(depth, layer)| layer.iter().map(move |row| (depth, row)));
        rows.filter(move |(depth, (key, _))| newest(*depth, key)).map(|(_, (key, row))| (key, row))
    }

    /// Whether [`Table::unsealed`] has the key.
    pub fn is_unsealed(&self, key: &K) -> bool {
        let hash = self.hasher.hash_one(key);
        let mut layers = std::iter::once(&self.current).chain(self.frozen.iter().map(Arc::as_ref));
        layers.any(|layer| layer.get(hash, |k| k == key).is_some())
    }

    /// Ends the current generation: it is frozen, and the next one begins empty.
    pub fn freeze(&mut self) {
        let parts = self.current.parts();
        let next = std::mem::replace(&mut self.spare, Sharded::new(parts));
        self.frozen.push_back(Arc::new(std::mem::replace(&mut self.current, next)));
    }

    /// The rows written in the current generation, each with the one it took the place of, in no order.
    pub(crate) fn written(&self) -> impl Iterator<Item = (&K, &V, Option<&V>)> {
        let before = |key: &K| self.below(self.hasher.hash_one(key), |k| k == key).flatten();
        self.current.iter().map(move |(key, row)| (key, row, before(key)))
    }

    /// A frozen generation, 0 being the newest, as long as it is whole.
    pub(crate) fn frozen(&self, age: usize) -> Option<Arc<Sharded<K, V>>> {
        let place = self.frozen.len().checked_sub(age + 1)?;
        let is_whole = place > 0 || self.fold_next == 0;
        is_whole.then(|| self.frozen[place].clone())
    }

    /// Puts a row below all generations, as of before the first of them; whether there was none of its key.
    pub(crate) fn lay_below(&mut self, key: K, row: V) -> bool {
        let hash = self.hasher.hash_one(&key);
        self.base.insert(hash, key, Cached::new(row), |k| self.hasher.hash_one(k)).is_none()
    }

    /// Folds one part of the oldest frozen generation down, once there are more than `kept`: its values are written over
    /// those below. Called after every entry, so that no entry pays for a whole generation. Waits for whoever reads it.
    pub fn fold_step(&mut self, kept: usize) {
        if self.frozen.len() <= kept {
            return;
        }
        let Some(oldest) = self.frozen.front_mut().and_then(Arc::get_mut) else { return };
        let part = self.fold_next;
        let mut rows = oldest.take_part(part);
        let spare = rows.capacity() <= SPARE_OVER_USED * rows.len();
        for (key, row) in rows.drain() {
            let hash = self.hasher.hash_one(&key);
            self.base.insert(hash, key, Cached::new(row), |k| self.hasher.hash_one(k));
        }
        if spare {
            self.spare.put_part(part, rows);
        }
        self.sweep_if_grown(part);
        self.fold_next += 1;
        if self.fold_next == self.base.parts() {
            self.frozen.pop_front();
            self.fold_next = 0;
        }
    }

    /// Takes in what is below memory for a key (`None`: nothing is). Rows above hide it.
    pub fn load(&mut self, key: K, row: Option<V>) {
        let hash = self.hasher.hash_one(&key);
        self.loaded.insert(hash, key, row, |k| self.hasher.hash_one(k));
    }

    /// What was loaded for a key is not pinned any more: kept like any other sealed row, an absence is forgotten.
    pub fn unload(&mut self, key: &K) {
        let hash = self.hasher.hash_one(key);
        let Some(Some(row)) = self.loaded.remove(hash, key) else { return };
        if self.base.get(hash, |k| k == key).is_none() {
            self.base.insert(hash, key.clone(), Cached::new(row), |k| self.hasher.hash_one(k));
            self.sweep_if_grown(part_of(hash, self.base.parts()));
        }
    }

    /// A look below the current generation.
    fn below(&self, hash: u64, is_key: impl Fn(&K) -> bool + Copy) -> Option<Option<&V>> {
        below(&self.frozen, &self.base, &self.loaded, hash, is_key)
    }

    /// Lets go of rows of a part that takes too much.
    fn sweep_if_grown(&mut self, part: usize) {
        let rows = self.base.part(part).map_or(0, |rows| rows.len());
        if self.part_bytes_max == usize::MAX || rows < self.sweep_at[part] {
            return;
        }
        self.pinned_are_as_new(part);
        if let Some(rows) = self.base.part_at(part) {
            self.has_evicted |= sweep(rows, self.part_bytes_max);
            self.sweep_at[part] = self.rows_min.max(rows.len() + rows.len() / 8);
        }
    }

    /// What is pinned takes over the values above it, which may go now.
    fn pinned_are_as_new(&mut self, part: usize) {
        let Some(pinned) = self.loaded.part_at(part) else { return };
        for (key, row) in pinned.iter_mut() {
            if let Some(newer) = self.base.get(self.hasher.hash_one(&*key), |k| k == key) {
                *row = Some(newer.row.clone());
            }
        }
    }
}

/// A look below the current generation.
fn below<'a, K: Eq, V>(
    frozen: &'a VecDeque<Arc<Sharded<K, V>>>,
    base: &'a Sharded<K, Cached<V>>,
    loaded: &'a Sharded<K, Option<V>>,
    hash: u64,
    is_key: impl Fn(&K) -> bool + Copy,
) -> Option<Option<&'a V>> {
    let in_frozen = frozen.iter().rev().find_map(|layer| layer.get(hash, is_key));
    match in_frozen.or_else(|| base.get(hash, is_key).map(Cached::used)) {
        Some(row) => Some(Some(row)),
        None => loaded.get(hash, is_key).map(Option::as_ref),
    }
}

/// Lets go of rows until a part takes at most `bytes_max`, those that are worth least first. Whether any went.
fn sweep<K: Eq, V: Weigh>(rows: &mut hashbrown::HashTable<(K, Cached<V>)>, bytes_max: usize) -> bool {
    let bytes_of = |row: &(K, Cached<V>)| size_of::<(K, Cached<V>)>() + PLACE_BYTES + row.1.row.heap_bytes();
    let mut bytes: usize = rows.iter().map(bytes_of).sum();
    let before = rows.len();
    for merit in 0..=MERIT_MAX {
        if bytes <= bytes_max {
            break;
        }
        rows.retain(|row| {
            let goes = bytes > bytes_max && row.1.merit.load(Ordering::Relaxed) <= merit;
            bytes -= if goes { bytes_of(row) } else { 0 };
            !goes
        });
    }
    for (_, cached) in rows.iter() {
        let merit = cached.merit.load(Ordering::Relaxed);
        cached.merit.store(merit.saturating_sub(1), Ordering::Relaxed);
    }
    rows.len() < before
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Weigh for u32 {
        fn heap_bytes(&self) -> usize {
            0
        }
    }

    impl Weigh for &str {
        fn heap_bytes(&self) -> usize {
            self.len()
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u8, u32),
        Add(u8),
        Freeze,
        Fold,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (any::<u8>(), any::<u32>()).prop_map(|(key, value)| Step::Set(key, value)),
            4 => any::<u8>().prop_map(Step::Add),
            1 => Just(Step::Freeze),
            3 => Just(Step::Fold),
        ]
    }

    proptest! {
        #[test]
        fn freezing_and_folding_are_invisible(steps in prop::collection::vec(step(), 0..200)) {
            let (mut table, mut model) = (Table::new(4), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Set(key, value) => {
                        table.insert(key, value);
                        model.insert(key, value);
                    }
                    Step::Add(key) => {
                        let (row, expected) = (table.get_mut(&key), model.get_mut(&key));
                        prop_assert_eq!(row.as_deref(), expected.as_deref());
                        row.into_iter().chain(expected).for_each(|row| *row = row.wrapping_add(1));
                    }
                    Step::Freeze => table.freeze(),
                    Step::Fold => table.fold_step(1),
                }
            }
            for key in 0..=u8::MAX {
                prop_assert_eq!(table.get(&key), model.get(&key));
            }
            let mut rows: Vec<_> = table.iter().map(|(key, row)| (*key, *row)).collect();
            rows.sort_unstable();
            prop_assert_eq!(rows, model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_frozen_generation_keeps_its_values() {
        let mut table = Table::new(4);
        table.insert(1, "old");
        table.freeze();
        *table.get_mut(&1).unwrap() = "new";
        let hash = table.hash(&1);
        assert_eq!(table.frozen[0].get(hash, |k| *k == 1), Some(&"old"));
        assert_eq!(table.get(&1), Some(&"new"));
    }

    #[test]
    fn only_the_newest_frozen_generation_stays_when_folded() {
        let mut table = Table::new(4);
        for n in 0..5 {
            table.insert(n, n);
            table.freeze();
        }
        while table.frozen.len() > 1 {
            table.fold_step(1);
        }
        assert_eq!((table.frozen.len(), table.iter().count()), (1, 5));
        assert_eq!(table.frozen[0].iter().count(), 1);
        assert_eq!(table.base.iter().count(), 4);
    }

    #[test]
    fn a_frozen_generation_is_given_whole_or_not_at_all_and_waits_for_its_readers() {
        let mut table = Table::new(4);
        for n in 0..3 {
            (0..100).for_each(|key| table.insert(key, n));
            table.freeze();
            table.fold_step(3);
        }
        let oldest = table.frozen(2).unwrap();
        (0..10).for_each(|_| table.fold_step(1));
        assert_eq!(oldest.iter().filter(|(_, row)| *row == 0).count(), 100, "nothing is taken from under a reader");
        drop(oldest);
        table.fold_step(1);
        assert!(table.frozen(2).is_none() && table.frozen(1).is_some());
        (0..10).for_each(|_| table.fold_step(1));
        assert!(table.frozen(1).is_none() && table.frozen(0).is_some());
    }

    #[test]
    fn what_is_written_comes_with_what_was_there_before() {
        let mut table = Table::new(4);
        assert!(table.lay_below(1, "below") && table.lay_below(2, "below") && !table.lay_below(2, "below"));
        table.insert(1, "frozen");
        table.freeze();
        for key in [1, 2, 3] {
            table.insert(key, "new");
        }
        let mut written: Vec<_> = table.written().collect();
        written.sort_unstable();
        assert_eq!(written, [(&1, &"new", Some(&"frozen")), (&2, &"new", Some(&"below")), (&3, &"new", None)]);
    }

    #[test]
    fn what_is_loaded_is_seen_until_something_is_written_over_it_and_kept_if_there_is_room() {
        let mut table = Table::new(4);
        table.load(1, Some("below"));
        table.load(2, None);
        table.load(4, Some("read only"));
        assert_eq!((table.get(&1), table.get(&2)), (Some(&"below"), None));
        assert!(table.near(&2).is_some() && table.near(&3).is_none());
        *table.get_mut(&1).unwrap() = "written";
        table.load(1, Some("stale"));
        [1, 2, 4].iter().for_each(|key| table.unload(key));
        assert_eq!((table.get(&1), table.get(&4)), (Some(&"written"), Some(&"read only")));
        assert!(table.near(&2).is_none());
    }

    /// Folds everything but what was written since the last Seal.
    fn settle<K: Hash + Eq + Clone, V: Clone + Weigh>(table: &mut Table<K, V>) {
        table.freeze();
        (0..64).for_each(|_| table.fold_step(0));
    }

    #[test]
    fn a_row_leaves_memory_only_when_it_is_sealed_and_a_pinned_one_is_as_new_then() {
        let mut table = Table::new(4);
        table.keep_at_most(0);
        table.load(1, Some(10));
        table.insert(1, 11);
        (2..100).for_each(|key| table.insert(key, key));
        assert_eq!(table.iter().count(), 99);
        table.freeze();
        assert!(!table.has_evicted() && table.get(&50) == Some(&50));
        (0..64).for_each(|_| table.fold_step(0));
        assert!(table.has_evicted() && table.near(&50).is_none());
        assert_eq!(table.get(&1), Some(&11), "as sealed now, not as it was loaded");
        table.unload(&1);
        assert!(table.near(&1).is_none());
    }

    #[test]
    fn rows_that_are_looked_at_stay_longer() {
        let mut table = Table::new(1);
        let row_bytes = size_of::<(u32, Cached<u32>)>() + PLACE_BYTES;
        table.keep_at_most(1000 * row_bytes);
        (0..800).for_each(|key| table.insert(key, key));
        settle(&mut table);
        let hot: Vec<u32> = (0..100).collect();
        for round in 1..40 {
            assert!(hot.iter().all(|key| table.get(key).is_some()), "round {round}");
            (0..200).for_each(|n| table.insert(round * 1000 + n, n));
            settle(&mut table);
        }
        let held = table.iter().count();
        assert!((800..1250).contains(&held), "{held} rows");
    }

    #[test]
    fn the_next_generation_begins_in_the_memory_of_one_that_was_folded() {
        let mut table = Table::new(4);
        (0..1000).for_each(|key| table.insert(key, key));
        settle(&mut table);
        assert!(table.current.part(0).is_none(), "there was none to take over");
        table.freeze();
        assert!(table.current.part(0).is_some_and(|part| part.is_empty() && part.capacity() >= 200));
        assert_eq!(table.get(&7), Some(&7));
    }
}
