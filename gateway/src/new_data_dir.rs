//! A data directory in the making: what an import or a restore lays out, and no node starts on before it is whole.
//!
//! What always holds: only a directory that is empty, or in which an earlier attempt was interrupted, is taken; it is locked as by
//! a node meanwhile. From the first moment on a file says that it is not complete, and a node refuses it; its identity
//! comes last, when everything else is synced.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use logstore::id::{HistoryId, NodeId};

use crate::data_dir::{DataDir, DataDirError, Identity, NODE_FILE, Owner, io, write_synced};

/// Says that what lies beside it is not complete.
pub(crate) const MARK: &str = "skein.unfinished";
const MARK_TEXT: &str =
    "An import or a restore into this directory was interrupted: run it again, or remove the directory.\n";
/// What an attempt makes.
const MADE: [&str; 3] = ["journal", "segments", "store"];

/// A data directory that is being laid out.
#[derive(Debug)]
pub struct NewDataDir {
    dir: DataDir,
}

impl NewDataDir {
    /// Takes a directory, made if need be; what an interrupted attempt has left is removed.
    pub fn begin(path: &Path, owner: &Owner) -> Result<NewDataDir, DataDirError> {
        let names = |path: &Path| -> io::Result<Vec<String>> {
            match std::fs::read_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                entries => entries?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
            }
        };
        // Looked at before it is touched: somebody's directory gets no lock file.
        let found = names(path).map_err(io("list", path))?;
        let is_ours = found.iter().any(|name| name == MARK) && !found.iter().any(|name| name == NODE_FILE);
        if !is_ours && found.iter().any(|name| name != crate::data_dir::LOCK_FILE) {
            return Err(DataDirError::NotEmpty {
                path: path.into(),
                found: found.into_iter().min().unwrap_or_default(),
            });
        }
        let dir = DataDir::lock(path, owner)?;
        let new = NewDataDir { dir };
        let mark = new.mark();
        write_synced(&mark, MARK_TEXT.as_bytes()).map_err(io("write", &mark))?;
        for name in MADE {
            let made = path.join(name);
            match std::fs::remove_dir_all(&made) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("remove", &made)(error)),
                _ => {}
            }
        }
        let journal = path.join("journal");
        std::fs::create_dir(&journal).map_err(io("create", &journal))?;
        File::open(path).and_then(|dir| dir.sync_all()).map_err(io("sync", path))?;
        Ok(new)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Everything else is there and synced: makes it a node's directory. Of what was restored the history is new, and it is
    /// said which one it comes from.
    pub fn finish(self, dev: bool, now: &str, restored_from: Option<HistoryId>) -> Result<Identity, DataDirError> {
        let history = new_history();
        let identity = Identity { node: NodeId(1), history, dev, created: now.into(), restored_from };
        self.finish_as(identity)
    }

    /// The same, of an identity that the content names already.
    pub fn finish_as(self, identity: Identity) -> Result<Identity, DataDirError> {
        self.dir.write_identity(&identity)?;
        // With an identity the mark says nothing any more.
        let mark = self.mark();
        std::fs::remove_file(&mark).map_err(io("remove", &mark))?;
        Ok(identity)
    }

    fn mark(&self) -> PathBuf {
        self.dir.path().join(MARK)
    }
}

/// A history nobody else has.
pub fn new_history() -> HistoryId {
    HistoryId(uuid::Uuid::now_v7().as_u128())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::owner_of_this_process;

    fn owner() -> Owner {
        owner_of_this_process(([127, 0, 0, 1], 7400).into(), "2026-11-23T12:00:00Z")
    }

    #[test]
    fn a_directory_in_the_making_is_no_nodes_until_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let new = NewDataDir::begin(&path, &owner()).unwrap();
        std::fs::create_dir(path.join("segments")).unwrap();
        assert!(matches!(DataDir::lock(&path, &owner()), Err(DataDirError::InUse { .. })));
        drop(new);
        let node = DataDir::lock(&path, &owner()).unwrap();
        assert!(matches!(node.identity(false, "now"), Err(DataDirError::Unfinished { .. })));
        drop(node);
        let again = NewDataDir::begin(&path, &owner()).unwrap();
        assert!(!path.join("segments").exists(), "an interrupted attempt leaves nothing to the next");
        let identity = again.finish(false, "now", Some(HistoryId(7))).unwrap();
        let node = DataDir::lock(&path, &owner()).unwrap();
        assert_eq!(node.known_identity().unwrap(), Some(identity));
        drop(node);
        assert!(matches!(NewDataDir::begin(&path, &owner()), Err(DataDirError::NotEmpty { .. })));
    }

    #[test]
    fn a_directory_with_anything_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("letter.txt"), "dear").unwrap();
        let refused = NewDataDir::begin(dir.path(), &owner()).unwrap_err();
        assert!(refused.to_string().contains("letter.txt"), "{refused}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
