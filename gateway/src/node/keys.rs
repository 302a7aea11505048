//! The node's keys: made by `--dev`, asked for otherwise.

use std::path::{Path, PathBuf};

use super::StartError;
use crate::auth::{KeyError, KeyFile, KeyRing, NodeTokens};
use crate::config::{Config, admin_key_path, token_key_path};

/// The keys a configuration names, as what verifies and makes tokens.
pub(super) fn open(config: &Config) -> Result<NodeTokens, StartError> {
    let token_key = open_one(&config.token_key_file(), config.dev)?;
    let admin_key = open_one(&config.admin_key_file(), config.dev)?;
    let retired = match config.auth.retired_token_key_file.as_os_str().is_empty() {
        true => None,
        false => Some(open_one(&config.auth.retired_token_key_file, config.dev)?),
    };
    let ring = KeyRing::new(&token_key, retired.as_ref(), &admin_key)?;
    Ok(NodeTokens::new(ring, config.auth.access_token_lifetime.0, config.auth.refresh_token_lifetime.0))
}

fn open_one(path: &Path, dev: bool) -> Result<KeyFile, StartError> {
    if dev {
        return Ok(KeyFile::load_or_create(path, true)?);
    }
    let key = KeyFile::load(path)?;
    if key.is_dev() {
        return Err(StartError::new(
            format!("key file {} was made by --dev", path.display()),
            "remove it and make a key with: skein config init-keys --data-dir DIR",
        ));
    }
    Ok(key)
}

/// Makes the two keys of a node in a data directory; those that exist stay. Returns the files made.
pub fn create_keys(data_dir: &Path) -> Result<Vec<PathBuf>, StartError> {
    let mut made = Vec::new();
    for path in [token_key_path(data_dir), admin_key_path(data_dir)] {
        match KeyFile::load(&path) {
            Err(KeyError::Missing { .. }) => made.push(KeyFile::create(&path, false)?.path().to_path_buf()),
            Err(other) => return Err(other.into()),
            Ok(_) => {}
        }
    }
    Ok(made)
}
