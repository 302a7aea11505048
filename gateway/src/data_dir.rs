//! The directory a node owns: who holds it now, and which node it is.
//!
//! ```text
//! DATA/skein.lock       locked while a node runs; says who that is
//! DATA/node.toml        format version, node, history; written once
//! DATA/keys/*.pem       see auth/
//! DATA/journal/         see logstore
//! ```
//!
//! What always holds: nothing else in the directory is touched before the lock is held; a directory of a newer format is
//! never touched at all.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use logstore::id::{HistoryId, NodeId};
use serde::{Deserialize, Serialize};

/// The newest layout of a data directory this program knows.
pub const FORMAT: u32 = 1;

pub(crate) const LOCK_FILE: &str = "skein.lock";
pub(crate) const NODE_FILE: &str = "node.toml";
/// Both files are a few lines; more than this is not ours.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A locked data directory. Dropping it gives the directory free.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: File,
}

/// A data directory that is only looked at, by as many as want to. Dropping it gives the directory free.
#[derive(Debug)]
pub struct HeldDataDir {
    identity: Identity,
    _lock: Option<File>,
}

/// Which node a data directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// The cluster's history.
    pub history: HistoryId,
    /// Whether `--dev` made it: it holds accounts with published passwords.
    pub dev: bool,
    /// When it was made, for people.
    pub created: String,
    /// The history of which this one was restored, if it was.
    pub restored_from: Option<HistoryId>,
}

/// Who holds a data directory, as its lock file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Its client port.
    pub listen: String,
    /// When it started.
    pub started: String,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The system refused.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// "create", "write", ...
        operation: &'static str,
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another node holds it.
    #[error("data directory {path} is in use by {}", owner.as_ref().map_or_else(|| "another process".into(), Owner::words))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who, if the lock file could be read.
        owner: Option<Owner>,
    },
    /// A later program made it.
    #[error(
        "data directory {path} has format {found} (its {NODE_FILE} says so), and this program knows formats up to {FORMAT}"
    )]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// What `node.toml` says.
        found: u32,
    },
    /// `node.toml` is not what it should be.
    #[error("{path} is not a node's identity: {why}")]
    BadIdentity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There is no node's data.
    #[error("{path} is no node's data directory: it has no {NODE_FILE}")]
    NotANodes {
        /// The directory.
        path: PathBuf,
    },
    /// It was to be empty.
    #[error("{path} is not empty: it holds {found}")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// Something in it.
        found: String,
    },
    /// Somebody was making it a node's, and has not come to the end.
    #[error("{path} was being laid out by an import or a restore that was interrupted")]
    Unfinished {
        /// The directory.
        path: PathBuf,
    },
    /// There is data, but nothing that says whose.
    #[error("data directory {path} has a journal but no {NODE_FILE}")]
    NoIdentity {
        /// The directory.
        path: PathBuf,
    },
}

impl Owner {
    fn words(&self) -> String {
        format!("skein pid {} (listening on {}, since {})", self.pid, self.listen, self.started)
    }
}

/// `node.toml` as it is written.
#[derive(Serialize, Deserialize)]
struct NodeFile {
    format: u32,
    node: u64,
    history: String,
    dev: bool,
    created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restored_from: Option<String>,
}

impl HeldDataDir {
    /// Holds a node's directory, so that no node starts in it. Nothing in it is changed.
    pub fn hold(path: &Path) -> Result<HeldDataDir, DataDirError> {
        let lock = share_lock(path)?;
        let identity = known_identity(path)?.ok_or_else(|| DataDirError::NotANodes { path: path.into() })?;
        Ok(HeldDataDir { identity, _lock: lock })
    }

    /// The node whose directory it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl DataDir {
    /// Creates the directory if need be, and locks it.
    pub fn lock(path: &Path, owner: &Owner) -> Result<DataDir, DataDirError> {
        create_private_dir(path).map_err(io("create", path))?;
        let lock_path = path.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        let lock = options.read(true).write(true).create(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(io("write", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataDirError::InUse { path: path.into(), owner: read_toml(&lock).ok() });
            }
            Err(TryLockError::Error(error)) => return Err(io("lock", &lock_path)(error)),
        }
        let mut dir = DataDir { path: path.into(), lock };
        dir.set_owner(owner)?;
        Ok(dir)
    }

    /// Says in the lock file who holds it.
    pub fn set_owner(&mut self, owner: &Owner) -> Result<(), DataDirError> {
        let text = toml::to_string(owner).expect("an Owner is plain data");
        self.rewrite_lock(text.as_bytes()).map_err(io("write", &self.path.join(LOCK_FILE)))
    }

    /// The node this directory is, made on first use.
    pub fn identity(&self, dev: bool, now: &str) -> Result<Identity, DataDirError> {
        match self.known_identity()? {
            Some(identity) => Ok(identity),
            None => self.create_identity(dev, now),
        }
    }

    /// The node this directory is, if it is one already.
    pub fn known_identity(&self) -> Result<Option<Identity>, DataDirError> {
        known_identity(&self.path)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn rewrite_lock(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.lock.set_len(0)?;
        self.lock.rewind()?;
        self.lock.write_all(bytes)?;
        self.lock.flush()
    }

    fn create_identity(&self, dev: bool, now: &str) -> Result<Identity, DataDirError> {
        if self.path.join(crate::new_data_dir::MARK).exists() {
            return Err(DataDirError::Unfinished { path: self.path.clone() });
        }
        if self.path.join("journal").exists() {
            return Err(DataDirError::NoIdentity { path: self.path.clone() });
        }
        // The first node of a cluster is 1; the history is new, so a random number nobody else has.
        let history = crate::new_data_dir::new_history();
        let identity = Identity { node: NodeId(1), history, dev, created: now.into(), restored_from: None };
        self.write_identity(&identity)?;
        Ok(identity)
    }

    /// Makes the directory this node's.
    pub(crate) fn write_identity(&self, identity: &Identity) -> Result<(), DataDirError> {
        let hex = |history: HistoryId| format!("{:032x}", history.0);
        let file = NodeFile {
            format: FORMAT,
            node: identity.node.0,
            history: hex(identity.history),
            dev: identity.dev,
            created: identity.created.clone(),
            restored_from: identity.restored_from.map(hex),
        };
        let body = toml::to_string(&file).expect("a NodeFile is plain data");
        let text = format!("# Which node this data directory is. Written once; not to be edited.\n{body}");
        let path = self.path.join(NODE_FILE);
        write_synced(&path, text.as_bytes()).map_err(io("write", &path))
    }
}

/// The node that a directory is, if it is one.
fn known_identity(dir: &Path) -> Result<Option<Identity>, DataDirError> {
    let path = dir.join(NODE_FILE);
    match File::open(&path) {
        Ok(file) => read_identity(dir, &path, &file).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("open", &path)(error)),
    }
}

fn read_identity(dir: &Path, path: &Path, file: &File) -> Result<Identity, DataDirError> {
    let bad = |why: String| DataDirError::BadIdentity { path: path.into(), why };
    let table: toml::Table = read_toml(file).map_err(|error| bad(error.to_string()))?;
    // The version comes first: the rest of a newer file may mean anything.
    let format = table.get("format").and_then(toml::Value::as_integer).ok_or_else(|| bad("no format".into()))?;
    let format = u32::try_from(format).map_err(|_| bad(format!("format {format}")))?;
    if format > FORMAT {
        return Err(DataDirError::NewerFormat { path: dir.into(), found: format });
    }
    let file: NodeFile = table.try_into().map_err(|error: toml::de::Error| bad(error.message().to_owned()))?;
    let number = |text: &str| u128::from_str_radix(text, 16).map_err(|_| bad("history is not a number".into()));
    let history = number(&file.history)?;
    if file.node == 0 || history == 0 {
        return Err(bad("node and history are never 0".into()));
    }
    let restored_from = file.restored_from.as_deref().map(number).transpose()?.map(HistoryId);
    let (node, history) = (NodeId(file.node), HistoryId(history));
    Ok(Identity { node, history, dev: file.dev, created: file.created, restored_from })
}

/// Locks a directory's lock file together with others who look; `None` if there is none, so that no node has ever run there.
fn share_lock(dir: &Path) -> Result<Option<File>, DataDirError> {
    let path = dir.join(LOCK_FILE);
    let lock = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        lock => lock.map_err(io("open", &path))?,
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: dir.into(), owner: read_toml(&lock).ok() }),
        Err(TryLockError::Error(error)) => Err(io("lock", &path)(error)),
    }
}

pub(crate) fn io<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> DataDirError + 'a {
    move |source| DataDirError::Io { operation, path: path.into(), source }
}

/// Messages and keys are in it: only its owner looks inside.
fn create_private_dir(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn read_toml<T: serde::de::DeserializeOwned>(file: &File) -> std::io::Result<T> {
    let text = std::io::read_to_string(file.take(FILE_BYTES_MAX))?;
    toml::from_str(&text).map_err(|error| std::io::Error::other(error.message().to_owned()))
}

/// Writes a file that has its name only once it is whole, and keeps it after a loss of power.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

/// An owner's first words, before its port is known.
pub fn owner_of_this_process(listen: SocketAddr, now: &str) -> Owner {
    Owner { pid: std::process::id(), listen: listen.to_string(), started: now.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        owner_of_this_process(([127, 0, 0, 1], 7400).into(), "2026-11-23T12:00:00Z")
    }

    #[test]
    fn a_second_node_is_refused_and_told_who_holds_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::lock(dir.path(), &owner()).unwrap();
        let refused = DataDir::lock(dir.path(), &owner()).unwrap_err();
        assert!(matches!(&refused, DataDirError::InUse { owner: Some(found), .. } if *found == owner()));
        let words = format!("is in use by skein pid {} (listening on 127.0.0.1:7400", std::process::id());
        assert!(refused.to_string().contains(&words), "{refused}");
        drop(held);
        DataDir::lock(dir.path(), &owner()).unwrap();
    }

    #[test]
    fn those_who_only_look_share_a_directory_and_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("nothing");
        assert!(matches!(HeldDataDir::hold(&missing), Err(DataDirError::NotANodes { .. })) && !missing.exists());
        let node = DataDir::lock(dir.path(), &owner()).unwrap();
        let identity = node.identity(true, "now").unwrap();
        let refused = HeldDataDir::hold(dir.path()).unwrap_err();
        assert!(matches!(&refused, DataDirError::InUse { owner: Some(found), .. } if *found == owner()), "{refused}");
        drop(node);
        let before = std::fs::read(dir.path().join(LOCK_FILE)).unwrap();
        let (one, other) = (HeldDataDir::hold(dir.path()).unwrap(), HeldDataDir::hold(dir.path()).unwrap());
        assert_eq!((one.identity(), other.identity()), (&identity, &identity));
        assert!(matches!(DataDir::lock(dir.path(), &owner()), Err(DataDirError::InUse { .. })));
        assert_eq!(std::fs::read(dir.path().join(LOCK_FILE)).unwrap(), before);
        drop((one, other));
        DataDir::lock(dir.path(), &owner()).unwrap();
    }

    #[test]
    fn a_new_directory_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let _held = DataDir::lock(&path, &owner()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn the_words_of_a_dead_owner_do_not_hold_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LOCK_FILE), "pid = 1\nlisten = \"x\"\nstarted = \"then\"\n".repeat(50)).unwrap();
        let held = DataDir::lock(dir.path(), &owner()).unwrap();
        assert_eq!(read_toml::<Owner>(&File::open(dir.path().join(LOCK_FILE)).unwrap()).unwrap(), owner());
        drop(held);
    }

    #[test]
    fn the_identity_is_made_once_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::lock(dir.path(), &owner()).unwrap();
        let first = data.identity(true, "now").unwrap();
        assert_eq!(data.identity(false, "later").unwrap(), first);
        assert!(first.dev && first.node == NodeId(1) && first.history != HistoryId(0));
        let other = tempfile::tempdir().unwrap();
        let other = DataDir::lock(other.path(), &owner()).unwrap().identity(true, "now").unwrap();
        assert_ne!(other.history, first.history);
    }

    #[test]
    fn a_newer_format_is_refused_with_its_number_whatever_else_it_says() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NODE_FILE), "format = 2\nnodes = [\"all new\"]\n").unwrap();
        let data = DataDir::lock(dir.path(), &owner()).unwrap();
        assert!(matches!(data.identity(false, "now"), Err(DataDirError::NewerFormat { found: 2, .. })));
    }

    #[test]
    fn a_damaged_identity_is_refused_and_left_alone() {
        for text in [
            "",
            "format = 1\n",
            "format = -1\n",
            "format = 1\nnode = 0\nhistory = \"1\"\ndev = true\ncreated = \"\"\n",
            "\u{0}",
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(NODE_FILE);
            std::fs::write(&path, text).unwrap();
            let data = DataDir::lock(dir.path(), &owner()).unwrap();
            assert!(matches!(data.identity(false, "now"), Err(DataDirError::BadIdentity { .. })), "{text:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_journal_without_an_identity_is_not_given_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("journal")).unwrap();
        let data = DataDir::lock(dir.path(), &owner()).unwrap();
        assert!(matches!(data.identity(false, "now"), Err(DataDirError::NoIdentity { .. })));
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_said_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = DataDir::lock(&file.path().join("data"), &owner()).unwrap_err();
        assert!(matches!(refused, DataDirError::Io { operation: "create", .. }), "{refused}");
    }
}
