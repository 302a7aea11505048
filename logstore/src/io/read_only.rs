//! The real disk for those who only look: nothing can be changed through it.
//!
//! What always holds: files are opened for reading only, so that the system itself refuses a write; names and directories
//! are never touched. It works on a file system that is mounted read-only.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{RealDisk, RealFile};
use super::{DataFile, Disk};

/// A directory of the file system that is only looked at.
pub(super) struct ReadOnlyDisk {
    root: PathBuf,
    real: RealDisk,
}

impl ReadOnlyDisk {
    /// The disk whose paths begin at `root`.
    pub(super) fn new(root: &Path) -> ReadOnlyDisk {
        ReadOnlyDisk { root: root.to_owned(), real: RealDisk::new(root) }
    }
}

impl Disk for ReadOnlyDisk {
    fn create_dir(&self, _dir: &str) -> io::Result<()> {
        refused()
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.real.list(dir)
    }

    fn list_dirs(&self, dir: &str) -> io::Result<Vec<String>> {
        self.real.list_dirs(dir)
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DataFile>> {
        Ok(Arc::new(RealFile { file: File::open(self.root.join(path))? }))
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

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the directory is only looked at"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_looked_at_cannot_be_changed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("journal")).unwrap();
        std::fs::write(root.path().join("journal/a"), b"bytes").unwrap();
        let disk = ReadOnlyDisk::new(root.path());
        assert_eq!(
            (disk.list("journal").unwrap(), disk.list_dirs("").unwrap()),
            (vec!["a".into()], vec!["journal".into()])
        );
        let (file, mut buffer) = (disk.open("journal/a").unwrap(), [0; 5]);
        assert_eq!((file.read_at(&mut buffer, 0).unwrap(), &buffer), (5, b"bytes"));
        assert!(file.write_at(b"x", 0).is_err() && file.set_len(0).is_err() && file.allocate(9).is_err());
        assert!(disk.create("b").is_err() && disk.create_dir("d").is_err() && disk.sync_dir("journal").is_err());
        assert!(disk.remove("journal/a").is_err() && disk.rename("journal/a", "b").is_err());
        assert_eq!(std::fs::read(root.path().join("journal/a")).unwrap(), b"bytes");
    }
}
