//! The only door to data files.
//!
//! What always holds: paths are relative to the data directory and use `/`; bytes written are durable only
//! after [`DataFile::sync_data`], names (created, renamed, removed) only after [`Disk::sync_dir`]. A failed
//! sync is never retried: what it was to make durable may be lost while the next sync says it is well.

pub mod disk;
pub mod faulty;
#[cfg(feature = "plants")]
mod page_cache;
mod read_only;
mod scratch;
mod written;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::{Error, Result};

pub use written::{Part, Parts, Written, counted};

/// A directory of data files. `disk::RealDisk` is the real one, `faulty::FaultyDisk` the one tests use.
pub trait Disk: Send + Sync + 'static {
    /// Creates a directory and makes its name durable; one that exists is left as it is.
    fn create_dir(&self, dir: &str) -> io::Result<()>;
    /// The names of the files in a directory, sorted; empty if there is no such directory.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// The names of the directories in a directory that hold anything, sorted; empty if there is no such directory.
    fn list_dirs(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Opens a file that exists, for reading and writing.
    fn open(&self, path: &str) -> io::Result<Arc<dyn DataFile>>;
    /// Creates a file that must not exist, empty. Its name is durable after [`Disk::sync_dir`].
    fn create(&self, path: &str) -> io::Result<Arc<dyn DataFile>>;
    /// Gives a file another name, in place of a file that may have it. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name. Durable after [`Disk::sync_dir`].
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
}

/// One open data file. It has no position of its own: any thread may read while one writes elsewhere in it.
pub trait DataFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes; fewer may come at any time, 0 only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes. After an error any part of them may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// [`DataFile::write_at`], which also says what the bytes are for: only a disk that counts wants to know.
    fn write_as(&self, bytes: &[u8], offset: u64, _parts: Parts) -> io::Result<()> {
        self.write_at(bytes, offset)
    }
    /// Makes all bytes written before the call durable; states how long the device took.
    fn sync_data(&self) -> io::Result<Duration>;
    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Takes the space for the first `len` bytes now, so that writing them cannot fail for lack of it.
    fn allocate(&self, len: u64) -> io::Result<()>;
}

/// The real file system, rooted at a directory.
pub fn real(root: &Path) -> Arc<dyn Disk> {
    let disk = Arc::new(disk::RealDisk::new(root));
    #[cfg(feature = "plants")]
    {
        use crate::plants::{Plant, is_planted};
        if [Plant::PowerCut, Plant::DropSync, Plant::AckBeforeQuorum].into_iter().any(is_planted) {
            return Arc::new(page_cache::PageCacheDisk::new(disk));
        }
    }
    disk
}

/// The real file system, rooted at a directory in which nothing can be changed.
pub fn read_only(root: &Path) -> Arc<dyn Disk> {
    Arc::new(read_only::ReadOnlyDisk::new(root))
}

/// A disk whose changes stay in memory: `below` is only read.
pub fn scratch(below: Arc<dyn Disk>) -> Arc<dyn Disk> {
    Arc::new(scratch::ScratchDisk::new(below))
}

/// Fills as much of `buffer` as the file has from `offset` on; states how much that was.
pub(crate) fn read_full<F: DataFile + ?Sized>(file: &F, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Adds what was attempted to an error of the system.
pub(crate) trait Context<T> {
    /// `operation` on `path` failed.
    fn context(self, operation: &'static str, path: &str) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, operation: &'static str, path: &str) -> Result<T> {
        self.map_err(|source| Error::Io { operation, path: path.to_owned(), source })
    }
}
