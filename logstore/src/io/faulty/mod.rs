//! A disk in memory that fails as tests want it to: lost, torn, flipped, failed, full, short, delayed.
//!
//! What always holds: the same calls with the same faults give the same bytes; there is no global state, no
//! clock and no chance but the seeds given. A crash leaves exactly what was synced, and of what was not the part that
//! [`Survives`] names.

mod state;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{DataFile, Disk};

use state::{Chance, Change, Failure, File, NameChange, State};

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opening a file.
    Open,
    /// Creating a file.
    Create,
    /// Listing a directory.
    List,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Syncing a directory.
    SyncDir,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Syncing a file.
    Sync,
    /// Taking space.
    Allocate,
}

/// What of the unsynced bytes is on the disk after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survives {
    /// None; names as of the last directory sync.
    Nothing,
    /// All, as after the death of the process alone.
    Everything,
    /// The first so many of each file, in the order they were written: a write torn at a byte. All names.
    Prefix(usize),
    /// Some sectors of 512 bytes and the first few changes of names, chosen by this seed.
    Sectors(u64),
}

/// The disk; a cheap handle, clone it freely.
#[derive(Clone, Default)]
pub struct FaultyDisk {
    world: Arc<World>,
}

#[derive(Default)]
struct World {
    state: Mutex<State>,
    /// Something about held syncs has changed.
    turn: Condvar,
}

impl FaultyDisk {
    /// An empty disk without faults.
    pub fn new() -> FaultyDisk {
        FaultyDisk::default()
    }

    /// The disk as journal and others take it.
    pub fn handle(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// Fails the `nth` operation of this kind from now on (1: the next).
    pub fn fail(&self, operation: Operation, nth: u64, kind: io::ErrorKind) {
        self.state().failures.push(Failure { operation, countdown: nth, always: false, kind, under: String::new() });
    }

    /// Fails all operations of this kind on files whose path begins like this until [`FaultyDisk::heal`].
    pub fn fail_under(&self, under: &str, operation: Operation, kind: io::ErrorKind) {
        let under = under.to_owned();
        self.state().failures.push(Failure { operation, countdown: 1, always: true, kind, under });
    }

    /// Fails all operations of this kind until [`FaultyDisk::heal`].
    pub fn fail_always(&self, operation: Operation, kind: io::ErrorKind) {
        self.state().failures.push(Failure { operation, countdown: 1, always: true, kind, under: String::new() });
    }

    /// Takes back all planned failures, the limit on space and the shortness of reads.
    pub fn heal(&self) {
        let mut state = self.state();
        state.failures.clear();
        (state.capacity, state.read_bytes_max) = (None, None);
    }

    /// Bytes of all files together beyond which nothing grows.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = Some(bytes);
    }

    /// Every read gives at most so many bytes.
    pub fn shorten_reads(&self, bytes_max: usize) {
        self.state().read_bytes_max = Some(bytes_max);
    }

    /// After so many more changes (writes, syncs, names, ...) every operation fails, as if the power were off.
    pub fn power_off_after(&self, steps: u64) {
        self.state().power_steps = Some(steps);
    }

    /// Changes made so far.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// File syncs that were asked for so far, failed ones included.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// From now on file syncs wait.
    pub fn hold_syncs(&self) {
        let mut state = self.state();
        (state.holds_syncs, state.released_syncs) = (true, 0);
    }

    /// Lets the waiting syncs go, and those to come.
    pub fn release_syncs(&self) {
        self.state().holds_syncs = false;
        self.world.turn.notify_all();
    }

    /// Lets one sync go, the one that waits or the next to come.
    pub fn release_one_sync(&self) {
        self.state().released_syncs += 1;
        self.world.turn.notify_all();
    }

    /// Waits until a sync is held; gives up after `patience`.
    pub fn wait_for_held_sync(&self, patience: Duration) -> bool {
        let mut state = self.state();
        while state.held_syncs == 0 {
            if self.world.turn.wait_for(&mut state, patience).timed_out() {
                return false;
            }
        }
        true
    }

    /// The disk that a machine finds after a crash at this moment: a copy, without planned faults.
    pub fn crash(&self, survives: Survives) -> FaultyDisk {
        let state = self.state();
        let mut chance = Chance(if let Survives::Sectors(seed) = survives { seed } else { 0 });
        let names = state.names_after(survives, &mut chance);
        let files = state.files.iter().map(|file| File::synced(file.after(survives, &mut chance))).collect();
        let after = State { files, durable_names: names.clone(), names, ..State::default() };
        FaultyDisk { world: Arc::new(World { state: Mutex::new(after), turn: Condvar::new() }) }
    }

    /// The disk that another process finds when this one dies and the machine does not: everything is there, but what
    /// was not synced still is not.
    pub fn clone_unsynced(&self) -> FaultyDisk {
        let state = self.state();
        let after = State {
            files: state.files.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            name_changes: state.name_changes.clone(),
            ..State::default()
        };
        FaultyDisk { world: Arc::new(World { state: Mutex::new(after), turn: Condvar::new() }) }
    }

    /// All bytes of a file; empty if there is none.
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        let state = self.state();
        state.names.get(path).map(|file| state.files[*file].now.clone()).unwrap_or_default()
    }

    /// Changes bits of one byte that is on the disk. Does nothing beyond the end of the file.
    pub fn flip(&self, path: &str, offset: usize, mask: u8) {
        self.damage(path, |bytes| bytes.get_mut(offset).into_iter().for_each(|byte| *byte ^= mask));
    }

    /// Changes what is on the disk as it likes.
    pub fn damage(&self, path: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut state = self.state();
        if let Some(file) = state.names.get(path).copied() {
            change(&mut state.files[file].now);
            change(&mut state.files[file].durable);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.world.state.lock()
    }
}

impl Disk for FaultyDisk {
    fn create_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.attempt(Operation::List, dir)?;
        let in_dir = |path: &String| Some(below(path, dir)?.to_owned()).filter(|name| !name.contains('/'));
        Ok(state.names.keys().filter_map(in_dir).collect())
    }

    fn list_dirs(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.attempt(Operation::List, dir)?;
        let in_dir = |path: &String| Some(below(path, dir)?.split_once('/')?.0.to_owned());
        let mut names: Vec<_> = state.names.keys().filter_map(in_dir).collect();
        names.dedup();
        Ok(names)
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DataFile>> {
        let mut state = self.state();
        state.attempt(Operation::Open, path)?;
        Ok(Arc::new(FaultyFile { file: state.find(path)?, world: self.world.clone() }))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DataFile>> {
        let mut state = self.state();
        state.attempt(Operation::Create, path)?;
        if state.names.contains_key(path) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists"));
        }
        let file = state.files.len();
        state.files.push(File::default());
        state.change_name(NameChange::New(path.to_owned(), file));
        Ok(Arc::new(FaultyFile { file, world: self.world.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.attempt(Operation::Rename, from)?;
        let file = state.find(from)?;
        state.change_name(NameChange::Moved(from.to_owned(), to.to_owned(), file));
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        state.attempt(Operation::Remove, path)?;
        state.find(path)?;
        state.change_name(NameChange::Gone(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.state();
        state.attempt(Operation::SyncDir, dir)?;
        state.durable_names = state.names.clone();
        state.name_changes.clear();
        Ok(())
    }
}

/// The rest of a path that lies in a directory ("" is the root).
fn below<'a>(path: &'a str, dir: &str) -> Option<&'a str> {
    if dir.is_empty() { Some(path) } else { path.strip_prefix(dir)?.strip_prefix('/') }
}

struct FaultyFile {
    world: Arc<World>,
    file: usize,
}

impl DataFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.world.state.lock();
        state.attempt_in(Operation::Read, self.file)?;
        let bytes = &state.files[self.file].now;
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len()).min(state.read_bytes_max.unwrap_or(usize::MAX));
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.world.state.lock();
        if let Err(error) = state.attempt_in(Operation::Write, self.file) {
            // As the contract says: any part may have been written.
            state.files[self.file].change(Change::Bytes(offset as usize, bytes[..bytes.len() / 2].to_vec()));
            return Err(error);
        }
        state.grow(self.file, offset as usize + bytes.len())?;
        state.files[self.file].change(Change::Bytes(offset as usize, bytes.to_vec()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<Duration> {
        let mut state = self.world.state.lock();
        state.syncs += 1;
        if state.holds_syncs {
            state.held_syncs += 1;
            self.world.turn.notify_all();
            while state.holds_syncs && state.released_syncs == 0 {
                self.world.turn.wait(&mut state);
            }
            state.released_syncs = state.released_syncs.saturating_sub(1);
            state.held_syncs -= 1;
        }
        let attempt = state.attempt_in(Operation::Sync, self.file);
        let file = &mut state.files[self.file];
        match attempt {
            Ok(()) => {
                // Only what is dirty: bytes of a sync that failed are not, and are not written by this one either.
                for change in std::mem::take(&mut file.unsynced) {
                    change.apply(&mut file.durable);
                }
                Ok(Duration::ZERO)
            }
            Err(error) => {
                // As Linux does: what failed to be written is clean now, and the next sync will say all is well.
                file.unsynced.clear();
                Err(error)
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.world.state.lock().files[self.file].now.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.world.state.lock();
        state.attempt_in(Operation::Allocate, self.file)?;
        state.grow(self.file, len as usize)?;
        state.files[self.file].change(Change::Len(len as usize));
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.world.state.lock();
        state.attempt_in(Operation::Allocate, self.file)?;
        state.grow(self.file, len as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(disk: &FaultyDisk, unsynced: &[u8]) {
        let file = disk.create("d/a").unwrap();
        file.write_at(&[1; 1024], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir("d").unwrap();
        file.write_at(unsynced, 0).unwrap();
        disk.rename("d/a", "d/b").unwrap();
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_what_it_is_told_to() {
        let disk = FaultyDisk::new();
        written(&disk, &[2; 1024]);
        assert_eq!(disk.crash(Survives::Nothing).bytes("d/a"), [1; 1024]);
        assert_eq!(disk.crash(Survives::Everything).bytes("d/b"), [2; 1024]);
        let torn = disk.crash(Survives::Prefix(700)).bytes("d/b");
        assert_eq!((&torn[..700], &torn[700..]), (&[2; 700][..], &[1; 324][..]));
        let outcomes: std::collections::BTreeSet<_> = (0..32)
            .map(|seed| {
                let after = disk.crash(Survives::Sectors(seed));
                let bytes = [after.bytes("d/a"), after.bytes("d/b")].concat();
                assert_eq!((bytes.len(), bytes[0], bytes[600]), (1024, bytes[511], bytes[1023]));
                (bytes[0], bytes[1023])
            })
            .collect();
        assert_eq!(outcomes.len(), 4, "each sector by itself: {outcomes:?}");
    }

    #[test]
    fn operations_fail_when_planned() {
        let disk = FaultyDisk::new();
        disk.fail(Operation::Write, 2, io::ErrorKind::Other);
        let file = disk.create("d/a").unwrap();
        file.write_at(b"one", 0).unwrap();
        assert!(file.write_at(b"two", 0).is_err());
        file.write_at(b"three", 0).unwrap();
        disk.set_capacity(6);
        assert_eq!(file.write_at(b"seven b", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.heal();
        disk.power_off_after(1);
        file.write_at(b"last", 0).unwrap();
        assert!(file.sync_data().is_err());
        assert!(disk.list("d").is_err());
    }

    #[test]
    fn a_failed_sync_loses_its_bytes_though_the_next_one_succeeds() {
        let disk = FaultyDisk::new();
        let file = disk.create("d/a").unwrap();
        disk.sync_dir("d").unwrap();
        file.write_at(b"lost", 0).unwrap();
        disk.fail(Operation::Sync, 1, io::ErrorKind::Other);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(disk.crash(Survives::Everything).bytes("d/a"), b"lost");
        assert_eq!(disk.crash(Survives::Nothing).bytes("d/a"), b"");
    }
}
