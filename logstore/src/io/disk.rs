//! The real disk: positioned reads and writes, `fdatasync`, `fallocate`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{DataFile, Disk};

/// A directory of the file system.
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// The disk whose paths begin at `root`.
    pub fn new(root: &Path) -> RealDisk {
        RealDisk { root: root.to_owned() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

impl Disk for RealDisk {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let path = self.at(dir);
        fs::create_dir_all(&path)?;
        path.parent().map_or(Ok(()), sync_names)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        names(&self.at(dir), |kind| kind.is_file())
    }

    fn list_dirs(&self, dir: &str) -> io::Result<Vec<String>> {
        let dirs = names(&self.at(dir), |kind| kind.is_dir())?;
        let holds_anything =
            |name: &String| fs::read_dir(self.at(dir).join(name)).map(|mut held| held.next().is_some());
        dirs.into_iter()
            .filter_map(|name| holds_anything(&name).map(|holds| holds.then_some(name)).transpose())
            .collect()
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DataFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.at(path))?;
        Ok(Arc::new(RealFile { file }))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DataFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.at(path))?;
        Ok(Arc::new(RealFile { file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.at(path))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        sync_names(&self.at(dir))
    }
}

/// The names in a directory of what is of a kind, sorted.
fn names(dir: &Path, is_wanted: impl Fn(fs::FileType) -> bool) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        // A name that is not UTF-8 is none of ours.
        if let (true, Ok(name)) = (is_wanted(entry.file_type()?), entry.file_name().into_string()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn sync_names(dir: &Path) -> io::Result<()> {
    // A relative root of one part has the parent "".
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

pub(super) struct RealFile {
    pub(super) file: File,
}

impl DataFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<Duration> {
        let begun = Instant::now();
        self.file.sync_data()?;
        Ok(begun.elapsed())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, len) {
            // Not every file system can; zeros are written afterwards in any case.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            result => Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_what_was_written_under_its_new_name() {
        let root = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(root.path());
        assert_eq!(disk.list("journal").unwrap(), Vec::<String>::new());
        disk.create_dir("journal").unwrap();
        let file = disk.create("journal/a").unwrap();
        assert_eq!(disk.create("journal/a").err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        file.allocate(8192).unwrap();
        file.write_at(b"bytes", 4096).unwrap();
        file.sync_data().unwrap();
        disk.rename("journal/a", "journal/b").unwrap();
        disk.sync_dir("journal").unwrap();
        assert_eq!(disk.list("journal").unwrap(), ["b"]);
        let (again, mut buffer) = (disk.open("journal/b").unwrap(), [0; 5]);
        assert_eq!((again.len().unwrap(), again.read_at(&mut buffer, 4096).unwrap()), (8192, 5));
        assert_eq!(&buffer, b"bytes");
        assert_eq!(disk.list_dirs("").unwrap(), ["journal"]);
        disk.remove("journal/b").unwrap();
        assert_eq!(disk.list_dirs("").unwrap(), Vec::<String>::new());
        assert_eq!(again.read_at(&mut buffer, 4096).unwrap(), 5, "an open file outlives its name");
        assert_eq!(disk.open("journal/b").err().unwrap().kind(), io::ErrorKind::NotFound);
    }
}
