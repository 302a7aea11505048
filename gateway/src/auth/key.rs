//! Keys on disk: Ed25519, PKCS#8 PEM, one a file, readable by their owner only.
//!
//! ```text
//! # skein dev key: made by --dev, refused without it        (only on keys that --dev made)
//! -----BEGIN PRIVATE KEY-----
//! ...
//! -----END PRIVATE KEY-----
//! ```
//!
//! What always holds: no key is shipped with the program; a key is written whole and synced before
//! its name exists; an existing file is never overwritten.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};

/// The first line of a key that `--dev` made.
const DEV_MARK: &str = "# skein dev key: made by --dev, refused without it";
/// A PEM file of one Ed25519 key has about 120 bytes; this leaves room for comments.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// A signing key with where it came from.
#[derive(Clone)]
pub struct KeyFile {
    pub(super) key: SigningKey,
    path: PathBuf,
    dev: bool,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no such file.
    #[error("there is no key file {path}")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {operation} key file {path}: {source}")]
    Io {
        /// "read", "write", ...
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than the owner can read it.
    #[error("key file {path} can be read by others than its owner (mode {mode:o})")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds something else.
    #[error("key file {path} is not an Ed25519 private key in PKCS#8 PEM")]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
}

impl KeyFile {
    /// Makes a new key; the file must not exist. `dev` marks it as good for `--dev` only.
    pub fn create(path: &Path, dev: bool) -> Result<KeyFile, KeyError> {
        use rand::TryRng;
        let mut secret = [0; 32];
        let chance = rand::rngs::SysRng.try_fill_bytes(&mut secret);
        chance.map_err(|error| io("draw chance for", path)(std::io::Error::other(error)))?;
        let key = SigningKey::from_bytes(&secret);
        let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|_| KeyError::NotAKey { path: path.into() })?;
        let mark = if dev { format!("{DEV_MARK}\n") } else { String::new() };
        write_new(path, format!("{mark}{}", pem.as_str()).as_bytes()).map_err(io("write", path))?;
        Ok(KeyFile { key, path: path.into(), dev })
    }

    /// Reads a key.
    pub fn load(path: &Path) -> Result<KeyFile, KeyError> {
        let file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => KeyError::Missing { path: path.into() },
            _ => io("open", path)(error),
        })?;
        let about = file.metadata().map_err(io("look at", path))?;
        let mode = about.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.into(), mode });
        }
        let text = std::io::read_to_string(std::io::Read::take(file, FILE_BYTES_MAX)).map_err(io("read", path))?;
        let (comments, pem): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('#'));
        let key = SigningKey::from_pkcs8_pem(&pem.join("\n")).map_err(|_| KeyError::NotAKey { path: path.into() })?;
        Ok(KeyFile { key, path: path.into(), dev: comments.contains(&DEV_MARK) })
    }

    /// Reads the key, or makes it if there is none.
    pub fn load_or_create(path: &Path, dev: bool) -> Result<KeyFile, KeyError> {
        match KeyFile::load(path) {
            Err(KeyError::Missing { .. }) => KeyFile::create(path, dev),
            other => other,
        }
    }

    /// Whether `--dev` made it.
    pub fn is_dev(&self) -> bool {
        self.dev
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names the key in tokens: the first 8 bytes of its public half, in hex.
    pub fn id(&self) -> String {
        key_id(self.key.verifying_key().as_bytes())
    }
}

pub(super) fn key_id(public: &[u8; 32]) -> String {
    public[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn io<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> KeyError + 'a {
    move |source| KeyError::Io { operation, path: path.into(), source }
}

/// Writes a file that has its name only once it is whole and synced.
fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let draft = path.with_extension("pem.new");
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // A link, not a rename: it fails when the name exists, so no key is ever overwritten.
    std::fs::hard_link(&draft, path)?;
    std::fs::remove_file(&draft)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_as_it_was_made() {
        let dir = tempfile::tempdir().unwrap();
        for dev in [true, false] {
            let path = dir.path().join(format!("keys/{dev}.pem"));
            let made = KeyFile::create(&path, dev).unwrap();
            let read = KeyFile::load(&path).unwrap();
            assert_eq!((made.id(), made.is_dev()), (read.id(), read.is_dev()));
            assert_eq!(read.is_dev(), dev);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn an_existing_key_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.pem");
        let first = KeyFile::create(&path, false).unwrap();
        assert!(KeyFile::create(&path, false).is_err());
        assert_eq!(KeyFile::load_or_create(&path, true).unwrap().id(), first.id());
    }

    #[test]
    fn keys_are_all_different() {
        let dir = tempfile::tempdir().unwrap();
        let ids: std::collections::HashSet<_> =
            (0..8).map(|n| KeyFile::create(&dir.path().join(n.to_string()), false).unwrap().id()).collect();
        assert_eq!(ids.len(), 8);
    }

    #[test]
    fn a_missing_an_exposed_and_a_broken_file_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.pem");
        assert!(matches!(KeyFile::load(&path), Err(KeyError::Missing { .. })));
        KeyFile::create(&path, false).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(KeyFile::load(&path), Err(KeyError::Exposed { mode: 0o644, .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        assert!(matches!(KeyFile::load(&path), Err(KeyError::NotAKey { .. })));
    }
}
