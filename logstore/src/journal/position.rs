//! Places in the journal: a file and a byte in it, ordered as they were written.

use std::fmt;

/// Everything in the journal that is aligned is aligned to this: the page of the file system's cache, and
/// what devices write as one.
pub(crate) const ALIGN: u64 = 4096;

/// A byte of the journal. Files are numbered in the order they are used, so positions only grow.
///
/// On disk: `file << 32 | offset`. At 500 MB/s in files of 256 MiB the numbers last for 68 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The file's number, from 1; 0 is before the first file.
    pub file: u32,
    /// Byte offset in it.
    pub offset: u32,
}

impl Position {
    pub fn pack(self) -> u64 {
        u64::from(self.file) << 32 | u64::from(self.offset)
    }

    pub fn unpack(packed: u64) -> Position {
        Position { file: (packed >> 32) as u32, offset: packed as u32 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {} offset {}", self.file, self.offset)
    }
}

/// The smallest multiple of [`ALIGN`] that is not below `len`.
pub(crate) fn align_up(len: u64) -> u64 {
    len.next_multiple_of(ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_sort_by_file_then_offset() {
        let (early, late) = (Position { file: 1, offset: u32::MAX }, Position { file: 2, offset: 0 });
        assert!(early < late && early.pack() < late.pack());
        assert_eq!(Position::unpack(early.pack()), early);
    }
}
