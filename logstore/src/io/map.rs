//! Parts of complete files as memory: the only module with unsafe code.
//!
//! What always holds: a region is part of a file that was complete, synced and verified before it was mapped, and that no
//! code of ours writes, cuts or truncates afterwards. Such a file goes by unlinking its name, which leaves the mapped
//! bytes in place until the last region is dropped.

use std::fs::File;
use std::io;
use std::ops::Deref;

use memmap2::{Mmap, MmapOptions};

/// Bytes of a file that never change: mapped, or a copy in memory.
pub struct Region(Kind);

enum Kind {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Region {
    /// A region that is a copy in memory.
    pub fn owned(bytes: Vec<u8>) -> Region {
        Region(Kind::Owned(bytes))
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kind::Mapped(map) => map,
            Kind::Owned(bytes) => bytes,
        }
    }
}

/// Maps part of a file for reading.
#[allow(unsafe_code, reason = "a map of a file is memory that others could change; see below why nobody does")]
pub(super) fn of_file(file: &File, offset: u64, len: usize) -> io::Result<Region> {
    if len == 0 {
        return Ok(Region::owned(Vec::new()));
    }
    // SAFETY: a map is unsound if the file changes under it, and kills the process if the file becomes shorter or its medium
    // fails. `DataFile::map` takes only files that are complete and never change: they are renamed to their final name
    // when synced, only read from then on, replaced by other files under other names, and unlinked rather than
    // truncated. The data directory is locked, so no second node writes there; whoever edits its files by hand while a node runs is
    // beyond what a program can guard against. All bytes were read by `pread` and verified just before, so that a medium
    // that fails then is an error; data blocks, the bulk of a file, are never mapped.
    let map = unsafe { MmapOptions::new().offset(offset).len(len).map(file)? };
    Ok(Region(Kind::Mapped(map)))
}
