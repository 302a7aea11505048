//! Why a node does not start, each with what to do about it.

use std::io::ErrorKind;
use std::path::Path;

use crate::auth::KeyError;
use crate::data_dir::DataDirError;
use crate::tls::TlsError;

/// Why a node does not start: one line, with the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct StartError {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl StartError {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> StartError {
        StartError { what: what.into(), remedy: remedy.into() }
    }
}

impl From<DataDirError> for StartError {
    fn from(error: DataDirError) -> StartError {
        let remedy = match &error {
            DataDirError::Io { source, path, .. } => io_remedy(source, path),
            DataDirError::InUse { .. } => "stop that node first, or give another --data-dir".into(),
            DataDirError::NewerFormat { .. } => "start it with the newer skein that wrote it".into(),
            DataDirError::BadIdentity { .. } => "put node.toml back from a copy, or use another data directory".into(),
            DataDirError::NotANodes { .. } => "give the --data-dir of a node".into(),
            DataDirError::NotEmpty { .. } => "give a --data-dir that is empty or not there".into(),
            DataDirError::Unfinished { .. } => "run it again, or remove the directory".into(),
            DataDirError::NoIdentity { path } => {
                format!("put node.toml back from a copy, or remove {} if its messages are not wanted", path.display())
            }
        };
        StartError::new(error.to_string(), remedy)
    }
}

impl From<KeyError> for StartError {
    fn from(error: KeyError) -> StartError {
        let remedy = match &error {
            KeyError::Missing { .. } => "make keys with: skein config init-keys --data-dir DIR".into(),
            KeyError::Io { source, path, .. } => io_remedy(source, path),
            KeyError::Exposed { path, .. } => format!("run: chmod 600 {}", path.display()),
            KeyError::NotAKey { .. } => {
                "put the key back from a copy, or remove the file and run: skein config init-keys --data-dir DIR".into()
            }
        };
        StartError::new(error.to_string(), remedy)
    }
}

impl From<TlsError> for StartError {
    fn from(error: TlsError) -> StartError {
        StartError::new(error.to_string(), "correct tls.cert and tls.key")
    }
}

pub(super) fn from_logstore(error: logstore::Error, data_dir: &Path) -> StartError {
    let remedy = match &error {
        logstore::Error::Io { source, .. } => io_remedy(source, data_dir),
        logstore::Error::Rot { .. } | logstore::Error::SegmentRot { .. } => around(data_dir),
        logstore::Error::NewerFormat { .. } => "start it with the newer skein that wrote it".into(),
        logstore::Error::MissingSegment { .. }
        | logstore::Error::MissingManifest { .. }
        | logstore::Error::Misplaced { .. }
        | logstore::Error::ManifestRot { .. }
        | logstore::Error::NotOurs { .. } => {
            format!("put that file back from a copy; {}", around(data_dir))
        }
        _ => format!("look at what is in {}", data_dir.join("journal").display()),
    };
    StartError::new(error.to_string(), remedy)
}

pub(super) fn from_sequencer(error: sequencer::Error, data_dir: &Path) -> StartError {
    match error {
        sequencer::Error::Log(error) => from_logstore(error, data_dir),
        sequencer::Error::Apart { .. } => StartError::new(
            error.to_string(),
            "nothing was changed: put journal/ and segments/ back from the same copy of the data directory",
        ),
        other => {
            StartError::new(other.to_string(), "start again; if it stays, the log above says what a shard waits for")
        }
    }
}

/// What rot leaves to be done.
fn around(data_dir: &Path) -> String {
    let dir = data_dir.display();
    format!(
        "skein log verify --data-dir {dir} lists all that is damaged; restore the directory from a copy or a \
         backup; until then skein server --read-around-damage serves the rest, for reading alone"
    )
}

pub(super) fn from_seed(fault: fanout::Fault) -> StartError {
    let remedy = match fault.code {
        fanout::Code::NoSpace => "free some space on that disk, then start again",
        _ => "start again; if it stays, use another --data-dir",
    };
    StartError::new(format!("the demo accounts cannot be made: {fault}"), remedy)
}

fn io_remedy(error: &std::io::Error, path: &Path) -> String {
    let path = path.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space on that disk, then start again".into(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            format!("give this user the right to write {path}, or use another --data-dir")
        }
        _ => "correct that, or use another --data-dir".into(),
    }
}
