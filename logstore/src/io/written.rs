//! Counts the bytes that are written to data files, by what they are for.
//!
//! What always holds: every byte that reaches a file of a counted disk through [`DataFile::write_at`] or
//! [`DataFile::write_as`] is counted once, under one [`Part`]: the one its path names, unless the writer says better. What
//! a file system adds to it (its own journal, whole pages for parts of them) is not seen from here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{DataFile, Disk};

/// What written bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Blocks of the journal: what was appended, with heads and padding.
    JournalBlocks,
    /// Entries written once more, so that an old journal file can go.
    JournalCopies,
    /// Empty blocks that prove the one before them.
    JournalProofs,
    /// What a journal file begins with: header and checkpoint.
    JournalCheckpoints,
    /// Zeros in new journal files, and in recycled ones that must hold nothing of before.
    JournalZeros,
    /// Segments made of one generation each.
    Seals,
    /// Segments made of seals.
    MergesL1,
    /// Segments made of merges.
    MergesL2,
    /// State stores.
    Store,
    /// Manifests.
    Manifests,
    /// Anything else.
    Other,
}

impl Part {
    /// All of them, in the order in which reports list them.
    pub const ALL: [Part; 11] = [
        Part::JournalBlocks,
        Part::JournalCopies,
        Part::JournalProofs,
        Part::JournalCheckpoints,
        Part::JournalZeros,
        Part::Seals,
        Part::MergesL1,
        Part::MergesL2,
        Part::Store,
        Part::Manifests,
        Part::Other,
    ];

    /// As metrics and reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Part::JournalBlocks => "journal_blocks",
            Part::JournalCopies => "journal_copies",
            Part::JournalProofs => "journal_proofs",
            Part::JournalCheckpoints => "journal_checkpoints",
            Part::JournalZeros => "journal_zeros",
            Part::Seals => "seals",
            Part::MergesL1 => "merges_l1",
            Part::MergesL2 => "merges_l2",
            Part::Store => "store",
            Part::Manifests => "manifests",
            Part::Other => "other",
        }
    }

    /// What a path is for: the layout is drawn in `docs/format.md`.
    fn of(path: &str) -> Part {
        let (dir, name) = path.split_once('/').unwrap_or(("", path));
        let file = name.rsplit('/').next().unwrap_or(name);
        match dir {
            "journal" => Part::JournalBlocks,
            "store" => Part::Store,
            "segments" if file.starts_with("MANIFEST") => Part::Manifests,
            "segments" => match file.split('.').nth(1) {
                Some("L0") => Part::Seals,
                Some("L1") => Part::MergesL1,
                Some(level) if level.starts_with('L') => Part::MergesL2,
                _ => Part::Other,
            },
            _ => Part::Other,
        }
    }
}

/// Of what one write consists: all of it is for one part, but for so many bytes that are for another.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    most: Part,
    some: (Part, u64),
}

impl Parts {
    /// All bytes are for one part.
    pub fn all(part: Part) -> Parts {
        Parts { most: part, some: (part, 0) }
    }

    /// All bytes are for `most`, but for so many that are for another; `most` is what the write counts for.
    pub fn but(most: Part, bytes: u64, part: Part) -> Parts {
        Parts { most, some: (part, bytes) }
    }
}

/// Bytes written since it was made, by part; share it behind an `Arc`.
#[derive(Debug, Default)]
pub struct Written {
    bytes: [AtomicU64; Part::ALL.len()],
    writes: [AtomicU64; Part::ALL.len()],
}

impl Written {
    /// Bytes for one part.
    pub fn bytes(&self, part: Part) -> u64 {
        self.bytes[part as usize].load(Ordering::Relaxed)
    }

    /// Calls that wrote; one for several parts counts for that of most bytes.
    pub fn writes(&self, part: Part) -> u64 {
        self.writes[part as usize].load(Ordering::Relaxed)
    }

    /// Bytes for all parts.
    pub fn total(&self) -> u64 {
        Part::ALL.into_iter().map(|part| self.bytes(part)).sum()
    }

    fn add(&self, part: Part, bytes: u64) {
        if bytes > 0 {
            self.bytes[part as usize].fetch_add(bytes, Ordering::Relaxed);
            metrics::counter!("skein_written_bytes_total", "part" => part.name()).increment(bytes);
        }
    }

    fn count(&self, bytes: u64, Parts { most, some: (part, share) }: Parts) {
        let share = share.min(bytes);
        self.writes[most as usize].fetch_add(1, Ordering::Relaxed);
        self.add(part, share);
        self.add(most, bytes - share);
    }
}

/// A disk whose writes are counted.
pub fn counted(disk: Arc<dyn Disk>, written: Arc<Written>) -> Arc<dyn Disk> {
    Arc::new(CountedDisk { disk, written })
}

struct CountedDisk {
    disk: Arc<dyn Disk>,
    written: Arc<Written>,
}

impl CountedDisk {
    fn counted(&self, path: &str, file: Arc<dyn DataFile>) -> Arc<dyn DataFile> {
        Arc::new(CountedFile { file, part: Part::of(path), written: self.written.clone() })
    }
}

impl Disk for CountedDisk {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn list_dirs(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list_dirs(dir)
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DataFile>> {
        Ok(self.counted(path, self.disk.open(path)?))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DataFile>> {
        Ok(self.counted(path, self.disk.create(path)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
}

struct CountedFile {
    file: Arc<dyn DataFile>,
    part: Part,
    written: Arc<Written>,
}

impl DataFile for CountedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_as(bytes, offset, Parts::all(self.part))
    }

    fn write_as(&self, bytes: &[u8], offset: u64, parts: Parts) -> io::Result<()> {
        self.written.count(bytes.len() as u64, parts);
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<Duration> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::faulty::FaultyDisk;
    use super::*;

    #[test]
    fn a_path_says_what_a_file_is_for() {
        let dir = "segments/00003";
        let parts = [
            ("journal/0000000012.journal".to_owned(), Part::JournalBlocks),
            ("journal/0000000012.preparing".to_owned(), Part::JournalBlocks),
            (format!("{dir}/0000000001-0000000001.L0.0123456789abcdef.segment"), Part::Seals),
            (format!("{dir}/0000000001-0000000001.L0.tmp"), Part::Seals),
            (format!("{dir}/0000000001-0000000016.L1.directory.tmp"), Part::MergesL1),
            (format!("{dir}/0000000001-0000000256.L3.tmp"), Part::MergesL2),
            (format!("{dir}/MANIFEST"), Part::Manifests),
            (format!("{dir}/MANIFEST.tmp"), Part::Manifests),
            ("store/00003.redb".to_owned(), Part::Store),
            ("elsewhere".to_owned(), Part::Other),
        ];
        for (path, part) in parts {
            assert_eq!(Part::of(&path), part, "{path}");
        }
        assert!(Part::ALL.iter().enumerate().all(|(place, part)| *part as usize == place));
    }

    #[test]
    fn every_byte_is_counted_once_where_its_writer_or_its_path_says() {
        let written = Arc::new(Written::default());
        let disk = counted(FaultyDisk::new().handle(), written.clone());
        disk.create_dir("journal").unwrap();
        let file = disk.create("journal/0000000001.preparing").unwrap();
        file.write_as(&[0; 100], 0, Parts::all(Part::JournalZeros)).unwrap();
        file.write_as(&[1; 100], 0, Parts::but(Part::JournalBlocks, 30, Part::JournalCopies)).unwrap();
        file.write_at(&[2; 5], 0).unwrap();
        let bytes = [Part::JournalZeros, Part::JournalBlocks, Part::JournalCopies].map(|part| written.bytes(part));
        assert_eq!((bytes, written.total()), ([100, 75, 30], 205));
        let writes = [Part::JournalZeros, Part::JournalBlocks, Part::JournalCopies].map(|part| written.writes(part));
        assert_eq!(writes, [1, 2, 0]);
        let mut read = [0; 6];
        assert_eq!(file.read_at(&mut read, 0).unwrap(), 6);
        assert_eq!(read, [2, 2, 2, 2, 2, 1]);
    }
}
