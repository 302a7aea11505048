//! A cut of a running node as a disk: its files, read through the connection.
//!
//! What always holds: nothing can be changed through it; a file is read in pieces, one of which is kept, so that reading it
//! from front to back asks for each piece once. It blocks: not for async workers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway::client::{Connection, Error, Exported};
use hashbrown::HashMap;
use logstore::Entry;
use logstore::id::{LogIndex, ShardId};
use logstore::io::{DataFile, Disk};
use parking_lot::Mutex;
use tokio::runtime::Handle;

/// Bytes asked for at a time when less would do: some blocks of records.
const PIECE_BYTES: usize = 128 << 10;

/// Bytes of entries asked for at a time.
const ENTRIES_BYTES: usize = 512 << 10;

/// An export of a running node; closed when it is dropped.
pub struct Remote {
    connection: Connection,
    runtime: Handle,
    exported: Exported,
    lengths: HashMap<String, u64>,
}

impl Remote {
    /// Cuts the node's shards and waits until that is in files.
    pub fn open(
        connection: Connection,
        runtime: &Handle,
        every_shard: bool,
        limit: Duration,
    ) -> Result<Arc<Remote>, Error> {
        let exported = runtime.block_on(connection.open_export(every_shard, limit))?;
        let lengths = exported.files.iter().map(|file| (file.path.clone(), file.bytes)).collect();
        Ok(Arc::new(Remote { connection, runtime: runtime.clone(), exported, lengths }))
    }

    /// The cut.
    pub fn exported(&self) -> &Exported {
        &self.exported
    }

    /// Bytes of a file from `offset` on, at least one unless it ends there.
    pub fn read(&self, path: &str, offset: u64, bytes: usize) -> Result<Bytes, Error> {
        self.runtime.block_on(self.connection.read_export(self.exported.export, path, offset, bytes))
    }

    /// Entries of a shard's log above `after` up to `upto`, from the first on; none if the node no longer has it.
    pub fn entries(&self, shard: ShardId, after: LogIndex, upto: LogIndex) -> Result<Vec<Entry>, Error> {
        self.runtime.block_on(self.connection.read_entries(shard, after, upto, ENTRIES_BYTES))
    }

    /// The files as a disk.
    pub fn disk(self: &Arc<Self>) -> Arc<dyn Disk> {
        Arc::new(RemoteDisk { remote: self.clone() })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // The node lets go by itself if it cannot be told.
        let _ = self.runtime.block_on(self.connection.close_export(self.exported.export));
    }
}

struct RemoteDisk {
    remote: Arc<Remote>,
}

struct RemoteFile {
    remote: Arc<Remote>,
    path: String,
    bytes: u64,
    /// The piece read last, and where it begins.
    piece: Mutex<(u64, Bytes)>,
}

impl Disk for RemoteDisk {
    fn create_dir(&self, _dir: &str) -> io::Result<()> {
        refused()
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let below = |path: &String| Some(path.strip_prefix(dir)?.strip_prefix('/')?.to_owned());
        let mut names: Vec<_> =
            self.remote.lengths.keys().filter_map(below).filter(|name| !name.contains('/')).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn list_dirs(&self, dir: &str) -> io::Result<Vec<String>> {
        let below = |path: &String| Some(path.strip_prefix(dir)?.strip_prefix('/')?.split_once('/')?.0.to_owned());
        let mut names: Vec<_> = self.remote.lengths.keys().filter_map(below).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DataFile>> {
        let bytes = *self.remote.lengths.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(RemoteFile { remote: self.remote.clone(), path: path.to_owned(), bytes, piece: Mutex::default() }))
    }

    fn create(&self, _path: &str) -> io::Result<Arc<dyn DataFile>> {
        refused()
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _path: &str) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self, _dir: &str) -> io::Result<()> {
        refused()
    }
}

impl DataFile for RemoteFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if buffer.is_empty() || offset >= self.bytes {
            return Ok(0);
        }
        let mut piece = self.piece.lock();
        let (begins, bytes) = &*piece;
        if !(*begins..*begins + bytes.len() as u64).contains(&offset) {
            let wanted = buffer.len().max(PIECE_BYTES);
            let read = self.remote.read(&self.path, offset, wanted).map_err(io::Error::other)?;
            *piece = (offset, read);
        }
        let (begins, bytes) = &*piece;
        let there = &bytes[(offset - begins).min(bytes.len() as u64) as usize..];
        let read = there.len().min(buffer.len());
        buffer[..read].copy_from_slice(&there[..read]);
        Ok(read)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        refused()
    }

    fn sync_data(&self) -> io::Result<Duration> {
        refused()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        refused()
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        refused()
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "a running node's files are only read"))
}
