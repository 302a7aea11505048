//! A hash map in many small tables.
//!
//! One table of millions of rows stops apply for 70-350 ms when it doubles; here a resize touches one part, some
//! thousand rows. What always holds: a row is in the part its hash names. Iteration order means nothing.

use std::hash::{BuildHasher, Hash};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Rows by key; the caller hashes, so that one hash serves several maps.
#[derive(Debug)]
pub(crate) struct Sharded<K, V> {
    /// Empty until the first row comes: a map that is never used costs nothing.
    parts: Vec<HashTable<(K, V)>>,
    parts_max: usize,
}

/// Which of `parts` (a power of two) a hash belongs to. These bits are neither those that choose a slot inside a
/// hashbrown table (the lowest) nor those of its tags (the highest seven).
pub(crate) fn part_of(hash: u64, parts: usize) -> usize {
    (hash >> 40) as usize & (parts - 1)
}

impl<K: Eq, V> Sharded<K, V> {
    /// An empty map of `parts` parts, a power of two.
    pub fn new(parts: usize) -> Sharded<K, V> {
        assert!(parts.is_power_of_two());
        Sharded { parts: Vec::new(), parts_max: parts }
    }

    /// The row of a key.
    pub fn get(&self, hash: u64, is_key: impl Fn(&K) -> bool) -> Option<&V> {
        if self.parts.is_empty() {
            return None;
        }
        let part = &self.parts[part_of(hash, self.parts.len())];
        part.find(hash, |(key, _)| is_key(key)).map(|(_, value)| value)
    }

    /// Looks, by `look`, at the rows that most likely belong to these hashes: no keys are compared, first tags are looked
    /// at and then rows, so that nothing waits for one row before it asks memory for the next. What it returns is of no
    /// use but to make sure that the rows are looked at.
    pub fn touch(&self, hashes: impl Iterator<Item = u64> + Clone, look: impl Fn(&K, &V) -> u64) -> u64 {
        if self.parts.is_empty() {
            return 0;
        }
        let part = |hash| &self.parts[part_of(hash, self.parts.len())];
        let mut tags = 0;
        for hash in hashes.clone() {
            part(hash).find(hash, |_| {
                tags += 1;
                false
            });
        }
        let rows = hashes.filter_map(|hash| part(hash).find(hash, |_| true));
        rows.fold(tags, |seen, (key, value)| seen ^ look(key, value))
    }

    /// The place of a key, taken or free; a resize asks `hasher` for the hashes of one part.
    pub fn entry<'a>(&'a mut self, hash: u64, key: &K, hasher: impl Fn(&K) -> u64) -> Entry<'a, (K, V)> {
        self.part_mut(hash).entry(hash, |(k, _)| k == key, |(k, _)| hasher(k))
    }

    /// Sets the row of a key; returns the one that was there.
    pub fn insert(&mut self, hash: u64, key: K, value: V, hasher: impl Fn(&K) -> u64) -> Option<V> {
        match self.entry(hash, &key, hasher) {
            Entry::Occupied(mut taken) => Some(std::mem::replace(&mut taken.get_mut().1, value)),
            Entry::Vacant(free) => {
                free.insert((key, value));
                None
            }
        }
    }

    /// The row of a key, found with this map's own hasher.
    pub fn find(&self, hasher: &impl BuildHasher, key: &K) -> Option<&V>
    where
        K: Hash,
    {
        self.get(hasher.hash_one(key), |k| k == key)
    }

    /// The row of a key, made if there is none.
    pub fn or_default(&mut self, hasher: &impl BuildHasher, key: K) -> &mut V
    where
        K: Hash,
        V: Default,
    {
        match self.entry(hasher.hash_one(&key), &key, |k| hasher.hash_one(k)) {
            Entry::Occupied(taken) => &mut taken.into_mut().1,
            Entry::Vacant(free) => &mut free.insert((key, V::default())).into_mut().1,
        }
    }

    /// Removes the row of a key.
    pub fn remove(&mut self, hash: u64, key: &K) -> Option<V> {
        if self.parts.is_empty() {
            return None;
        }
        let found = self.part_mut(hash).find_entry(hash, |(k, _)| k == key);
        found.ok().map(|taken| taken.remove().0.1)
    }

    /// Every row, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// Takes one part out whole; nothing is left of it here.
    pub fn take_part(&mut self, part: usize) -> HashTable<(K, V)> {
        self.parts.get_mut(part).map(std::mem::take).unwrap_or_default()
    }

    /// Puts a part in the place of one that was taken out.
    pub fn put_part(&mut self, part: usize, rows: HashTable<(K, V)>) {
        self.create_parts();
        self.parts[part] = rows;
    }

    /// One part; `None` as long as no row has come.
    pub fn part(&self, part: usize) -> Option<&HashTable<(K, V)>> {
        self.parts.get(part)
    }

    /// One part, for writing.
    pub fn part_at(&mut self, part: usize) -> Option<&mut HashTable<(K, V)>> {
        self.parts.get_mut(part)
    }

    /// How many parts there are when there are any.
    pub fn parts(&self) -> usize {
        self.parts_max
    }

    fn part_mut(&mut self, hash: u64) -> &mut HashTable<(K, V)> {
        self.create_parts();
        let parts = self.parts.len();
        &mut self.parts[part_of(hash, parts)]
    }

    fn create_parts(&mut self) {
        if self.parts.is_empty() {
            self.parts.resize_with(self.parts_max, HashTable::new);
        }
    }
}
