//! A typed table of state rows, in overlay generations.
//!
//! ```text
//!   current   rows written since the last Seal               <- every write goes here
//!   frozen    one layer per Seal, newest on top              <- each becomes the delta of its sealed segment
//!   base      rows of generations that were folded down
//!   loaded    what prefetch brought from below memory, absences included, while it is pinned
//! ```
//!
//! A look goes from top to bottom and takes the first row it finds. What always holds: a layer below `current`
//! never changes what a look finds, so freezing and folding are invisible to apply; a row of a frozen layer is
//! never written again, and whoever holds the layer reads it while apply goes on.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;
use hashbrown::hash_table::Entry;

use super::Sharded;

/// Rows of one kind by key.
#[derive(Debug)]
pub struct Table<K, V> {
    hasher: DefaultHashBuilder,
    current: Sharded<K, V>,
    /// Oldest first.
    frozen: VecDeque<Arc<Sharded<K, V>>>,
    /// The part of the oldest frozen layer that is folded next.
    fold_next: usize,
    base: Sharded<K, V>,
    loaded: Sharded<K, Option<V>>,
    len: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Table<K, V> {
    /// An empty table whose layers have `parts` parts each, a power of two: about one for a thousand rows expected.
    pub fn new(parts: usize) -> Table<K, V> {
        Table {
            hasher: DefaultHashBuilder::default(),
            current: Sharded::new(parts),
            frozen: VecDeque::new(),
            fold_next: 0,
            base: Sharded::new(parts),
            loaded: Sharded::new(parts),
            len: 0,
        }
    }

    /// How many keys have a row in memory, not counting what is only loaded.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no key has a row in memory.
    pub fn is_empty(&self) -> bool {
        self.len == 0
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
        let layers = std::iter::once(&self.current).chain(frozen).chain([&self.base]);
        layers.fold(0, |seen, layer| seen ^ layer.touch(hashes.clone(), &look))
    }

    /// The row of a key.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let is_key = |k: &K| k.borrow() == key;
        match self.current.get(hash, is_key) {
            Some(row) => Some(row),
            None => below(&self.frozen, &self.base, &self.loaded, hash, is_key),
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
                let row = below(&self.frozen, &self.base, &self.loaded, hash, |k| k == key)?;
                let row = row.clone();
                // A row that was only loaded is in memory for its own sake from now on.
                let was_loaded = self.loaded.get(hash, |k| k == key).is_some();
                self.len += u64::from(was_loaded && is_new(&self.frozen, &self.base, hash, key));
                Some(&mut free.insert((key.clone(), row)).into_mut().1)
            }
        }
    }

    /// Sets the row of a key.
    pub fn insert(&mut self, key: K, row: V) {
        let hash = self.hasher.hash_one(&key);
        let is_new = self.current.get(hash, |k| *k == key).is_none() && is_new(&self.frozen, &self.base, hash, &key);
        self.len += u64::from(is_new);
        self.current.insert(hash, key, row, |k| self.hasher.hash_one(k));
    }

    /// Every key with its newest row, in no order; not those that are only loaded.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let frozen = || self.frozen.iter().rev().map(Arc::as_ref);
        let layers = move || std::iter::once(&self.current).chain(frozen()).chain([&self.base]);
        let newest = move |depth: usize, key: &K| {
            let hash = if depth == 0 { 0 } else { self.hasher.hash_one(key) };
            layers().take(depth).all(|above| above.get(hash, |k| k == key).is_none())
        };
        let rows = layers().enumerate().flat_map(|(depth, layer)| layer.iter().map(move |row| (depth, row)));
        rows.filter(move |(depth, (key, _))| newest(*depth, key)).map(|(_, (key, row))| (key, row))
    }

    /// Ends the current generation: it is frozen, and the next one begins empty.
    pub fn freeze(&mut self) {
        let next = Sharded::new(self.current.parts());
        self.frozen.push_back(Arc::new(std::mem::replace(&mut self.current, next)));
    }

    /// The rows written in the current generation, each with the one it took the place of, in no order.
    pub(crate) fn written(&self) -> impl Iterator<Item = (&K, &V, Option<&V>)> {
        let before = |key: &K| below(&self.frozen, &self.base, &self.loaded, self.hasher.hash_one(key), |k| k == key);
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
        let is_new = self.base.insert(hash, key, row, |k| self.hasher.hash_one(k)).is_none();
        self.len += u64::from(is_new);
        is_new
    }

    /// Folds one part of the oldest frozen generation down, once there are more than `kept`: its values are written over
    /// those below. Called after every entry, so that no entry pays for a whole generation. Waits for whoever reads it.
    pub fn fold_step(&mut self, kept: usize) {
        if self.frozen.len() <= kept {
            return;
        }
        let Some(oldest) = self.frozen.front_mut().and_then(Arc::get_mut) else { return };
        let part = oldest.take_part(self.fold_next);
        self.base.lay_part(self.fold_next, part, |k| self.hasher.hash_one(k));
        self.fold_next += 1;
        if self.fold_next == self.base.parts() {
            self.frozen.pop_front();
            self.fold_next = 0;
        }
    }

    /// Whether a look at this key is answered from memory, be it that there is no row.
    pub fn holds(&self, key: &K) -> bool {
        let hash = self.hasher.hash_one(key);
        self.get(key).is_some() || self.loaded.get(hash, |k| k == key).is_some()
    }

    /// Takes in what is below memory for a key (`None`: nothing is). Rows above hide it.
    pub fn load(&mut self, key: K, row: Option<V>) {
        let hash = self.hasher.hash_one(&key);
        self.loaded.insert(hash, key, row, |k| self.hasher.hash_one(k));
    }

    /// Forgets what was loaded for a key; what was written since stays.
    pub fn unload(&mut self, key: &K) {
        let hash = self.hasher.hash_one(key);
        self.loaded.remove(hash, key);
    }
}

/// A look below the current generation.
fn below<'a, K: Eq, V>(
    frozen: &'a VecDeque<Arc<Sharded<K, V>>>,
    base: &'a Sharded<K, V>,
    loaded: &'a Sharded<K, Option<V>>,
    hash: u64,
    is_key: impl Fn(&K) -> bool + Copy,
) -> Option<&'a V> {
    let in_frozen = frozen.iter().rev().find_map(|layer| layer.get(hash, is_key));
    in_frozen.or_else(|| base.get(hash, is_key)).or_else(|| loaded.get(hash, is_key)?.as_ref())
}

/// Whether no layer below the current one has a row of the key for its own sake.
fn is_new<K: Eq, V>(frozen: &VecDeque<Arc<Sharded<K, V>>>, base: &Sharded<K, V>, hash: u64, key: &K) -> bool {
    base.get(hash, |k| k == key).is_none() && frozen.iter().all(|layer| layer.get(hash, |k| k == key).is_none())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

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
                prop_assert_eq!(table.len(), model.len() as u64);
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
        assert_eq!((table.frozen.len(), table.len()), (1, 5));
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
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn what_is_loaded_is_seen_until_something_is_written_over_it() {
        let mut table = Table::new(4);
        table.load(1, Some("below"));
        table.load(2, None);
        assert_eq!((table.get(&1), table.get(&2), table.len()), (Some(&"below"), None, 0));
        assert!(table.holds(&2) && !table.holds(&3));
        *table.get_mut(&1).unwrap() = "written";
        table.load(1, Some("stale"));
        table.unload(&1);
        table.unload(&2);
        assert_eq!((table.get(&1), table.len()), (Some(&"written"), 1));
        assert!(!table.holds(&2));
    }
}
