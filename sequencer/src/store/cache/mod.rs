//! The sealed state of one shard in a B-tree on disk: absorbs deltas, answers by key and prefix.
//!
//! What always holds: it is only a cache of the deltas in segments: nothing but deltas is written to it, and it can be
//! thrown away at any time and made anew. Its mark names the last delta it has absorbed and is written in the same transaction
//! as that delta's rows, so that after a crash it is as of one mark, whole. Bytes that are not what was written (file, page, value)
//! are an error that says so, never a panic and never a wrong value.
//!
//! One redb file a shard. `backend` is redb's storage over our files; it keeps bytes that are not redb's own from redb. What may still
//! be wrong with a page that verifies is that it is an old one, whose newer life a disk has lost. redb may panic on a tree that does not
//! fit together; such a panic is caught here, and the store counts as damaged from then on: nothing of it is read any more, so that no
//! state a panic left half changed is ever seen.

mod audit;
mod backend;
mod value;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use logstore::id::{LogIndex, ShardId};
use logstore::io::Disk;
use logstore::segment::SegmentInfo;
use parking_lot::Mutex;
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::{Error, Result};

use backend::{NotAStore, PageFile};

pub use audit::{Audit, audit};

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");
const MARKS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("marks");
const MARK: &[u8] = b"absorbed";

/// Which delta a store has absorbed last; the default: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The ordinal of the delta's segment.
    pub ordinal: u64,
    /// The last log index that segment covers.
    pub index: LogIndex,
    /// The segment's logical identity: tells a store of other segments from this shard's own.
    pub identity: [u8; 32],
}

impl Mark {
    /// The mark of a store that has absorbed this segment's delta last.
    pub fn of(segment: &SegmentInfo) -> Mark {
        Mark { ordinal: segment.span.last.0, index: segment.span.upto, identity: segment.identity.0 }
    }
}

/// A key and its value.
pub type KeyValue = (Bytes, Bytes);

/// A store that was opened.
pub struct Opened {
    /// The store.
    pub cache: StateCache,
    /// Why what was there had to be thrown away: the store is empty now.
    pub discarded: Option<String>,
}

/// The store of one shard. Reads go on while a delta is absorbed, and see it as a whole or not at all.
pub struct StateCache {
    place: Place,
    /// Gone while the store is closed or discarded.
    database: Option<Database>,
    mark: Mutex<Mark>,
    /// What was found to be wrong: from then on nothing is read or written.
    damage: OnceLock<String>,
}

/// Makes the hash of rows that come in the order of keys: see [`StateCache::hash`].
#[derive(Default)]
struct RowHasher(blake3::Hasher);

impl RowHasher {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        for part in [key, value] {
            self.0.update(&(part.len() as u32).to_le_bytes()).update(part);
        }
    }

    fn finish(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

/// Where a store is, and whose.
struct Place {
    disk: Arc<dyn Disk>,
    path: String,
    shard: ShardId,
    memory_bytes: usize,
}

impl StateCache {
    /// The directory of all stores in the data directory.
    pub const DIRECTORY: &'static str = "store";

    /// The path of a shard's store.
    pub fn path(shard: ShardId) -> String {
        format!("{}/{:05}.redb", Self::DIRECTORY, shard.0)
    }

    /// Opens the store at `path`, an empty one if there is none. One that is damaged is discarded. `memory_bytes` bounds what
    /// redb keeps of it in memory.
    ///
    /// A file of a newer version is refused and left as it is.
    pub fn open(disk: Arc<dyn Disk>, path: &str, shard: ShardId, memory_bytes: usize) -> Result<Opened> {
        let place = Place { disk, path: path.to_owned(), shard, memory_bytes };
        let found = match place.open() {
            Ok(found) => found,
            Err(Error::StoreDamaged { what, .. }) => {
                let cache = StateCache::new(place.remove()?)?;
                return Ok(Opened { cache, discarded: Some(what) });
            }
            Err(error) => return Err(error),
        };
        let cache = match found {
            Some((database, mark)) => StateCache::with(place, database, mark),
            None => StateCache::new(place)?,
        };
        Ok(Opened { cache, discarded: None })
    }

    /// What has been absorbed.
    pub fn mark(&self) -> Mark {
        *self.mark.lock()
    }

    /// Throws everything away: the store is empty and has no mark. For one whose mark is ahead of the manifest's checkpoint or of
    /// other segments, and after [`Error::StoreDamaged`].
    pub fn discard(self) -> Result<StateCache> {
        StateCache::new(self.close()?.remove()?)
    }

    /// Closes the store and opens it again: after an error of the disk redb does nothing more until then.
    pub fn reopen(self) -> Result<Opened> {
        let Place { disk, path, shard, memory_bytes } = self.close()?;
        StateCache::open(disk, &path, shard, memory_bytes)
    }

    /// Takes in a delta, durably: rows by ascending key, `None` where a value is gone. All of it and the mark, or, after an error (also one that
    /// `rows` gives), nothing.
    pub fn absorb<K, V>(&self, rows: impl IntoIterator<Item = Result<(K, Option<V>)>>, mark: Mark) -> Result<()>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let last = self.mark();
        if mark.ordinal <= last.ordinal || mark.index <= last.index {
            let what = format!("delta {mark:?} is not after {last:?}");
            return Err(Error::NotNext { path: self.place.path.clone(), what });
        }
        self.guarded(|database| {
            let transaction = begin_write(database)?;
            self.put_all(&mut transaction.open_table(ROWS)?, rows)?;
            put_mark(&transaction, mark)?;
            Ok(transaction.commit()?)
        })?;
        *self.mark.lock() = mark;
        Ok(())
    }

    /// The segment whose delta was absorbed last has become the end of a larger one: the mark names that from now on.
    pub fn rename_absorbed(&self, identity: [u8; 32]) -> Result<()> {
        let mark = Mark { identity, ..self.mark() };
        self.guarded(|database| {
            let transaction = begin_write(database)?;
            put_mark(&transaction, mark)?;
            Ok(transaction.commit()?)
        })?;
        *self.mark.lock() = mark;
        Ok(())
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.get_all([key])?.pop().flatten())
    }

    /// The values of these keys, as of one moment.
    pub fn get_all<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) -> Result<Vec<Option<Bytes>>> {
        self.guarded(|database| {
            let table = database.begin_read()?.open_table(ROWS)?;
            keys.into_iter().map(|key| get_in(&table, key)).collect()
        })
    }

    /// The rows whose keys begin with `prefix` and are above `after`, in order of key, up to about `bytes_max` of them and at least one. None: there
    /// are no more.
    pub fn scan(&self, prefix: &[u8], after: Option<&[u8]>, bytes_max: usize) -> Result<Vec<KeyValue>> {
        self.guarded(|database| {
            let table = database.begin_read()?.open_table(ROWS)?;
            let (mut rows, mut bytes) = (Vec::new(), 0);
            for row in table.range(after.unwrap_or(prefix).max(prefix)..)? {
                let (key, value) = row?;
                let key = key.value();
                if Some(key) == after {
                    continue;
                }
                if !key.starts_with(prefix) || (bytes >= bytes_max && !rows.is_empty()) {
                    break;
                }
                let value = value::decode(key, value.value()).ok_or(Failed::Value)?;
                bytes += key.len() + value.len();
                rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            }
            Ok(rows)
        })
    }

    /// BLAKE3 of all rows in order: for each the length of its key (u32), the key, the length of its value (u32), the value. Two
    /// stores of the same deltas have the same, however they came to them.
    pub fn hash(&self) -> Result<[u8; 32]> {
        self.guarded(|database| {
            let table = database.begin_read()?.open_table(ROWS)?;
            let mut hasher = RowHasher::default();
            for row in table.iter()? {
                let (key, value) = row?;
                hasher.add(key.value(), value::decode(key.value(), value.value()).ok_or(Failed::Value)?);
            }
            Ok(hasher.finish())
        })
    }

    /// Reads every page and value and compares all checksums, redb's own included: the only look that finds a page whose
    /// newest life a disk has lost. Gives the hash of all rows.
    pub fn verify(&mut self) -> Result<[u8; 32]> {
        let hash = self.hash()?;
        let Some(mut database) = self.database.take() else { return Err(self.place.damaged("it is closed")) };
        let sound = caught(|| Ok(database.check_integrity()?));
        self.database = Some(database);
        match sound {
            Ok(true) => Ok(hash),
            Ok(false) => Err(self.fail(Failed::Damaged("its pages do not fit together".to_owned()))),
            Err(failed) => Err(self.fail(failed)),
        }
    }

    fn new(place: Place) -> Result<StateCache> {
        let database = place.create()?;
        Ok(StateCache::with(place, database, Mark::default()))
    }

    fn with(place: Place, database: Database, mark: Mark) -> StateCache {
        StateCache { place, database: Some(database), mark: Mutex::new(mark), damage: OnceLock::new() }
    }

    fn put_all<K, V>(
        &self,
        table: &mut Table<'_, &'static [u8], &'static [u8]>,
        rows: impl IntoIterator<Item = Result<(K, Option<V>)>>,
    ) -> std::result::Result<(), Failed>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let (mut last, mut bytes) = (None::<Vec<u8>>, Vec::new());
        for row in rows {
            let (key, new) = row?;
            let key = key.as_ref();
            if last.as_deref().is_some_and(|last| last >= key) {
                let what = "keys of a delta do not ascend".to_owned();
                return Err(Error::NotNext { path: self.place.path.clone(), what }.into());
            }
            match new {
                Some(new) => table.insert(key, value::encode(&mut bytes, key, new.as_ref()))?,
                None => table.remove(key)?,
            };
            let last = last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(key);
        }
        Ok(())
    }

    /// Does something with redb. What is damage is remembered.
    fn guarded<T>(&self, act: impl FnOnce(&Database) -> std::result::Result<T, Failed>) -> Result<T> {
        if let Some(what) = self.damage.get() {
            return Err(self.place.damaged(what));
        }
        let Some(database) = &self.database else { return Err(self.place.damaged("it is closed")) };
        caught(|| act(database)).map_err(|failed| self.fail(failed))
    }

    fn fail(&self, failed: Failed) -> Error {
        let error = self.place.error(failed);
        if let Error::StoreDamaged { what, .. } = &error {
            self.damage.get_or_init(|| what.clone());
        }
        error
    }

    /// Closes the file; redb notes in it that it was closed.
    fn close(mut self) -> Result<Place> {
        drop_database(self.database.take());
        let Place { disk, path, shard, memory_bytes } = &self.place;
        Ok(Place { disk: disk.clone(), path: path.clone(), shard: *shard, memory_bytes: *memory_bytes })
    }
}

impl Drop for StateCache {
    fn drop(&mut self) {
        drop_database(self.database.take());
    }
}

impl Place {
    /// The store that is there, if there is a file.
    fn open(&self) -> Result<Option<(Database, Mark)>> {
        let file = match self.disk.open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io("open", error)),
        };
        let file = PageFile::open(file, self.shard).map_err(|why| match why {
            NotAStore::Damaged(what) => self.damaged(&what),
            NotAStore::Io(error) => self.io("read", error),
            NotAStore::Newer { found, known } => {
                logstore::Error::NewerFormat { path: self.path.clone(), found, known }.into()
            }
        })?;
        let opened = caught(|| {
            let database = self.builder().create_with_backend(file)?;
            let mark = read_mark(&database)?;
            Ok((database, mark))
        });
        opened.map(Some).map_err(|failed| self.error(failed))
    }

    /// An empty store. It has its name only once it is whole.
    fn create(&self) -> Result<Database> {
        let (directory, _) = self.path.rsplit_once('/').unwrap_or((StateCache::DIRECTORY, ""));
        let draft = format!("{}.tmp", self.path);
        self.disk.create_dir(directory).map_err(|error| self.io("create", error))?;
        match self.disk.remove(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.io("remove", error)),
            _ => {}
        }
        let file = self.disk.create(&draft).map_err(|error| self.io("create", error))?;
        let file = PageFile::create(file, self.shard);
        let made = caught(|| {
            let database = self.builder().create_with_backend(file)?;
            let transaction = begin_write(&database)?;
            transaction.open_table(ROWS)?;
            put_mark(&transaction, Mark::default())?;
            transaction.commit()?;
            Ok(database)
        });
        let database = made.map_err(|failed| self.error(failed))?;
        self.disk.rename(&draft, &self.path).map_err(|error| self.io("rename", error))?;
        self.disk.sync_dir(directory).map_err(|error| self.io("sync", error))?;
        Ok(database)
    }

    fn remove(self) -> Result<Place> {
        match self.disk.remove(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.io("remove", error)),
            _ => Ok(self),
        }
    }

    fn builder(&self) -> redb::Builder {
        let mut builder = Database::builder();
        builder.set_cache_size(self.memory_bytes);
        builder
    }

    fn error(&self, failed: Failed) -> Error {
        match failed {
            Failed::Ours(error) => error,
            Failed::Damaged(what) => self.damaged(&what),
            Failed::Value => self.damaged("a value does not verify"),
            Failed::Redb(redb::Error::Io(error)) if !is_damage(&error) => self.io("read or write", error),
            Failed::Redb(redb::Error::PreviousIo) => self.io("use", io::Error::other("an operation before has failed")),
            Failed::Redb(error) => self.damaged(&error.to_string()),
        }
    }

    fn damaged(&self, what: &str) -> Error {
        Error::StoreDamaged { path: self.path.clone(), shard: self.shard, what: what.to_owned() }
    }

    fn io(&self, operation: &'static str, source: io::Error) -> Error {
        logstore::Error::Io { operation, path: self.path.clone(), source }.into()
    }
}

/// Why something with redb did not come to its end.
enum Failed {
    Redb(redb::Error),
    /// A value's own checksum does not match.
    Value,
    Damaged(String),
    /// Not redb's fault.
    Ours(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Ours(error)
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for Failed {
            fn from(error: $error) -> Failed {
                Failed::Redb(error.into())
            }
        }
    )*};
}

from_redb!(redb::DatabaseError, redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

/// Nothing of what a panic leaves is used again: the store counts as damaged.
fn caught<T>(act: impl FnOnce() -> std::result::Result<T, Failed>) -> std::result::Result<T, Failed> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Err(Failed::Damaged("redb panicked over it".to_owned())))
}

/// redb writes when it is dropped, and may find damage then.
fn drop_database(database: Option<Database>) {
    // What it would have told is found again at the next opening.
    let _ = caught(|| {
        drop(database);
        Ok(())
    });
}

/// Both phases of a commit are synced, so that what a crash leaves of an unfinished one is never looked at; and the free pages are
/// written with it, so that opening after a crash need not walk all of the tree.
fn begin_write(database: &Database) -> std::result::Result<WriteTransaction, Failed> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

fn put_mark(transaction: &WriteTransaction, mark: Mark) -> std::result::Result<(), Failed> {
    let plain = [&mark.ordinal.to_le_bytes()[..], &mark.index.0.to_le_bytes(), &mark.identity].concat();
    transaction.open_table(MARKS)?.insert(MARK, value::encode(&mut Vec::new(), MARK, &plain))?;
    Ok(())
}

fn read_mark(database: &Database) -> std::result::Result<Mark, Failed> {
    let transaction = database.begin_read()?;
    transaction.open_table(ROWS)?;
    let plain = get_in(&transaction.open_table(MARKS)?, MARK)?;
    let plain = plain.as_deref().and_then(|plain| <&[u8; 48]>::try_from(plain).ok()).ok_or(Failed::Value)?;
    let (ordinal, rest) = plain.split_first_chunk().ok_or(Failed::Value)?;
    let (index, identity) = rest.split_first_chunk().ok_or(Failed::Value)?;
    let identity = identity.try_into().map_err(|_| Failed::Value)?;
    Ok(Mark { ordinal: u64::from_le_bytes(*ordinal), index: LogIndex(u64::from_le_bytes(*index)), identity })
}

fn get_in(
    table: &ReadOnlyTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> std::result::Result<Option<Bytes>, Failed> {
    let Some(found) = table.get(key)? else { return Ok(None) };
    let value = value::decode(key, found.value()).ok_or(Failed::Value)?;
    Ok(Some(Bytes::copy_from_slice(value)))
}

/// What the backend says of bytes that are not what was written.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}
