//! Writing a file from its first byte to its last, and the sections that are gathered beside it.
//!
//! What always holds: bytes reach the file in pieces of a bounded size, each announced to the pace before it is written;
//! a section that grows beyond its share of memory continues in a temporary file; temporary files end in `.tmp`.

use std::sync::Arc;

use super::footer::Placed;
use super::format::Section;
use crate::Result;
use crate::io::{Context, DataFile, Disk, read_full};

/// Large enough that a write is worth its call, small enough that a pace can spread it.
const PIECE_BYTES: usize = 256 << 10;

/// Told how many bytes are about to be written; may wait.
pub type Pace<'a> = dyn FnMut(u64) + 'a;

/// The name of a file that is not complete; it goes when this is dropped, unless the file was renamed.
pub(super) struct Unfinished {
    disk: Arc<dyn Disk>,
    pub(super) path: String,
    is_renamed: bool,
}

impl Unfinished {
    /// Creates the file, in place of a leftover of the same name.
    fn create(disk: &Arc<dyn Disk>, path: &str) -> Result<(Arc<dyn DataFile>, Unfinished)> {
        let create = || match disk.create(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                disk.remove(path)?;
                disk.create(path)
            }
            created => created,
        };
        let file = create().context("create", path)?;
        Ok((file, Unfinished { disk: disk.clone(), path: path.to_owned(), is_renamed: false }))
    }

    /// Gives the file its final name.
    pub(super) fn rename(mut self, to: &str) -> Result<()> {
        self.disk.rename(&self.path, to).context("rename", &self.path)?;
        self.is_renamed = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_renamed
            && let Err(error) = self.disk.remove(&self.path)
        {
            tracing::debug!(path = self.path, %error, "a temporary file stays until the next start");
        }
    }
}

/// A file that is being written from front to back.
pub(super) struct Output<'a> {
    file: Arc<dyn DataFile>,
    name: Unfinished,
    buffer: Vec<u8>,
    flushed: u64,
    synced: u64,
    sync_bytes: u64,
    pace: &'a mut Pace<'a>,
}

impl<'a> Output<'a> {
    /// Begins a file at `path`, in place of a leftover of the same name; a sync is asked for every `sync_bytes`.
    pub(super) fn create(
        disk: &Arc<dyn Disk>,
        path: &str,
        sync_bytes: u64,
        pace: &'a mut Pace<'a>,
    ) -> Result<Output<'a>> {
        let (file, name) = Unfinished::create(disk, path)?;
        let buffer = Vec::with_capacity(PIECE_BYTES);
        Ok(Output { file, name, buffer, flushed: 0, synced: 0, sync_bytes, pace })
    }

    /// Where the next byte goes.
    pub(super) fn offset(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == PIECE_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what is buffered and makes the file durable; gives its length, and its name to be changed.
    pub(super) fn finish(mut self) -> Result<(u64, Unfinished)> {
        self.flush()?;
        self.file.sync_data().context("sync", &self.name.path)?;
        Ok((self.flushed, self.name))
    }

    fn flush(&mut self) -> Result<()> {
        (self.pace)(self.buffer.len() as u64);
        self.file.write_at(&self.buffer, self.flushed).context("write", &self.name.path)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        // Little by little, so that the last sync is not one large burst beside the journal's.
        if self.flushed - self.synced >= self.sync_bytes {
            self.file.sync_data().context("sync", &self.name.path)?;
            self.synced = self.flushed;
        }
        Ok(())
    }
}

/// The part of a section that did not fit into memory.
struct Spilled {
    file: Arc<dyn DataFile>,
    name: Unfinished,
    bytes: u64,
}

/// A section that is gathered while others are written.
pub(super) struct Spool {
    disk: Arc<dyn Disk>,
    path: String,
    section: Section,
    memory: Vec<u8>,
    memory_max: usize,
    spilled: Option<Spilled>,
    crc: crc32fast::Hasher,
    /// How many rows, entries or lines; kept by who pushes them.
    pub(super) count: u64,
}

impl Spool {
    /// An empty section of the file at `path` whose CRCs are seeded with `seed`.
    pub(super) fn new(disk: &Arc<dyn Disk>, path: &str, section: Section, seed: u64, memory_max: usize) -> Spool {
        let path = path.strip_suffix(super::format::UNFINISHED).unwrap_or(path);
        let path = format!("{path}.{}{}", section.to_string().replace(' ', "-"), super::format::UNFINISHED);
        let memory = Vec::new();
        let crc = section_crc(section, seed);
        Spool { disk: disk.clone(), path, section, memory, memory_max, spilled: None, crc, count: 0 }
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.spilled.as_ref().map_or(0, |spilled| spilled.bytes) + self.memory.len() as u64
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.crc.update(bytes);
        self.memory.extend_from_slice(bytes);
        if self.memory.len() > self.memory_max { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        let spilled = match &mut self.spilled {
            Some(spilled) => spilled,
            none => {
                let (file, name) = Unfinished::create(&self.disk, &self.path)?;
                none.insert(Spilled { file, name, bytes: 0 })
            }
        };
        spilled.file.write_at(&self.memory, spilled.bytes).context("write", &self.path)?;
        spilled.bytes += self.memory.len() as u64;
        self.memory.clear();
        Ok(())
    }

    /// Appends the section to the file.
    pub(super) fn finish(self, out: &mut Output<'_>) -> Result<Placed> {
        let (offset, len) = (out.offset(), self.len());
        if let Some(spilled) = &self.spilled {
            spilled.copy_to(out)?;
        }
        out.write(&self.memory)?;
        Ok(Placed { section: self.section, offset, len, count: self.count, crc: self.crc.finalize() })
    }
}

impl Spilled {
    fn copy_to(&self, out: &mut Output<'_>) -> Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        let mut at = 0;
        while at < self.bytes {
            let want = (self.bytes - at).min(PIECE_BYTES as u64) as usize;
            let read = read_full(&*self.file, &mut piece[..want], at).context("read", &self.name.path)?;
            if read < want {
                return Err(std::io::ErrorKind::UnexpectedEof.into()).context("read", &self.name.path);
            }
            out.write(&piece[..want])?;
            at += want as u64;
        }
        Ok(())
    }
}

/// The beginning of a section's CRC: another section, or that of another segment, does not verify in its place.
pub(super) fn section_crc(section: Section, seed: u64) -> crc32fast::Hasher {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&seed.to_le_bytes());
    crc.update(&[section as u8]);
    crc
}
