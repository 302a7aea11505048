//! A page cache that dies with its process, for builds with the feature `plants`: what was written reaches the disk below when it is
//! synced, so that kill -9 loses what a power cut would.
//!
//! What always holds: readers see every write at once; all handles of a path share its writes; names, lengths and allocations are not cached. With
//! [`Plant::DropSync`] most syncs of the journal do nothing.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::{DataFile, Disk};
use crate::plants::{Plant, is_planted};

/// Of so many syncs of a journal file all but one are dropped.
const SYNCS_A_DROP: u64 = 8;
/// Those that make a file's header and checkpoint durable are not: a file without them is refused, and nobody would be told anything false.
const DROPPED_FROM: u64 = 8 << 10;

/// A disk whose unsynced writes are in this process.
pub struct PageCacheDisk {
    below: Arc<dyn Disk>,
    files: Arc<Files>,
}

/// Every file that was ever opened, by path: what is unsynced outlives its handles.
type Files = Mutex<HashMap<String, Arc<CachedFile>>>;

struct CachedFile {
    file: Arc<dyn DataFile>,
    is_journal: bool,
    files: Weak<Files>,
    /// In the order in which they were written.
    unsynced: Mutex<Vec<(u64, Vec<u8>)>>,
    syncs: AtomicU64,
}

impl PageCacheDisk {
    /// Before `below`.
    pub fn new(below: Arc<dyn Disk>) -> PageCacheDisk {
        PageCacheDisk { below, files: Arc::default() }
    }

    fn keep(&self, path: &str, file: Arc<dyn DataFile>) -> Arc<dyn DataFile> {
        let is_journal = path.starts_with("journal/");
        let files = Arc::downgrade(&self.files);
        let (unsynced, syncs) = (Mutex::default(), AtomicU64::new(0));
        let cached = Arc::new(CachedFile { file, is_journal, files, unsynced, syncs });
        self.files.lock().insert(path.to_owned(), cached.clone());
        cached
    }
}

impl Disk for PageCacheDisk {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.below.create_dir(dir)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.below.list(dir)
    }

    fn list_dirs(&self, dir: &str) -> io::Result<Vec<String>> {
        self.below.list_dirs(dir)
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DataFile>> {
        if let Some(known) = self.files.lock().get(path) {
            return Ok(known.clone());
        }
        Ok(self.keep(path, self.below.open(path)?))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DataFile>> {
        Ok(self.keep(path, self.below.create(path)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.below.rename(from, to)?;
        let mut files = self.files.lock();
        files.remove(to);
        if let Some(file) = files.remove(from) {
            files.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.below.remove(path)?;
        self.files.lock().remove(path);
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.below.sync_dir(dir)
    }
}

impl CachedFile {
    fn flush(&self, unsynced: &mut Vec<(u64, Vec<u8>)>) -> io::Result<()> {
        unsynced.drain(..).try_for_each(|(offset, bytes)| self.file.write_at(&bytes, offset))
    }

    /// What the system does by itself: no file of the journal keeps what is older than another's last sync.
    fn write_back_journal(&self) -> io::Result<()> {
        let files = self.files.upgrade().map_or_else(Vec::new, |files| files.lock().values().cloned().collect());
        files.iter().filter(|file| file.is_journal).try_for_each(|file| file.flush(&mut file.unsynced.lock()))
    }

    /// Whether this sync does nothing.
    fn is_dropped(&self) -> bool {
        let number = self.syncs.fetch_add(1, Ordering::Relaxed);
        let is_of_blocks = || self.unsynced.lock().iter().all(|&(offset, _)| offset >= DROPPED_FROM);
        self.is_journal && is_of_blocks() && is_planted(Plant::DropSync) && !number.is_multiple_of(SYNCS_A_DROP)
    }
}

impl DataFile for CachedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let unsynced = self.unsynced.lock();
        let len = self.file.len()?.max(end_of(&unsynced));
        let wanted = buffer.len().min(len.saturating_sub(offset) as usize);
        let buffer = &mut buffer[..wanted];
        let below = super::read_full(&*self.file, buffer, offset)?;
        buffer[below..].fill(0);
        unsynced.iter().for_each(|(at, bytes)| lay_over(buffer, offset, bytes, *at));
        Ok(wanted)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.unsynced.lock().push((offset, bytes.to_vec()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<Duration> {
        if self.is_dropped() {
            return Ok(Duration::ZERO);
        }
        if self.is_journal && is_planted(Plant::DropSync) {
            self.write_back_journal()?;
        }
        self.flush(&mut self.unsynced.lock())?;
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.len()?.max(end_of(&self.unsynced.lock())))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.flush(&mut self.unsynced.lock())?;
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
}

fn end_of(unsynced: &[(u64, Vec<u8>)]) -> u64 {
    unsynced.iter().map(|(offset, bytes)| offset + bytes.len() as u64).max().unwrap_or(0)
}

/// Lays the part of `bytes`, which begin at `at`, over the part of `buffer`, which begins at `offset`, that they share.
fn lay_over(buffer: &mut [u8], offset: u64, bytes: &[u8], at: u64) {
    let (first, end) = (at.max(offset), (at + bytes.len() as u64).min(offset + buffer.len() as u64));
    if first < end {
        let (to, from) = ((first - offset) as usize, (first - at) as usize);
        let len = (end - first) as usize;
        buffer[to..to + len].copy_from_slice(&bytes[from..from + len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_synced_is_seen_here_and_lost_with_the_process() {
        let root = tempfile::tempdir().unwrap();
        let below: Arc<dyn Disk> = Arc::new(super::super::disk::RealDisk::new(root.path()));
        let disk = PageCacheDisk::new(below.clone());
        disk.create_dir("journal").unwrap();
        let file = disk.create("journal/a").unwrap();
        file.write_at(b"synced", 0).unwrap();
        file.sync_data().unwrap();
        file.write_at(b"lost", 4).unwrap();
        disk.rename("journal/a", "journal/b").unwrap();
        let again = disk.open("journal/b").unwrap();
        let mut buffer = [0; 16];
        let read = again.read_at(&mut buffer, 0).unwrap();
        assert_eq!((&buffer[..read], again.len().unwrap()), (&b"synclost"[..], 8));
        let read = again.read_at(&mut buffer, 5).unwrap();
        assert_eq!(&buffer[..read], b"ost");
        // Another process.
        let kept = below.open("journal/b").unwrap();
        let read = kept.read_at(&mut buffer, 0).unwrap();
        assert_eq!(&buffer[..read], b"synced");
    }
}
