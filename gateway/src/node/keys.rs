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

/// The same, from files that are there: none is made.
pub(super) fn open_existing(config: &Config) -> Result<NodeTokens, StartError> {
    for path in [config.token_key_file(), config.admin_key_file()] {
        drop(KeyFile::load(&path)?);
    }
    open(config)
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

/// Looks at the files a configuration names without making or changing any: certificate and keys. Keys that are not there
/// yet are given back; everything else that would keep a node from starting is an error.
pub fn check_files(config: &Config) -> Result<Vec<PathBuf>, StartError> {
    if config.has_tls() {
        crate::tls::server_config(&config.tls.cert, &config.tls.key)?;
    }
    if config.dev {
        return Ok(Vec::new());
    }
    let mut missing = Vec::new();
    let retired = Some(config.auth.retired_token_key_file.clone()).filter(|path| !path.as_os_str().is_empty());
    for path in [config.token_key_file(), config.admin_key_file()].into_iter().chain(retired) {
        match KeyFile::load(&path) {
            Err(KeyError::Missing { .. }) => missing.push(path),
            Err(other) => return Err(other.into()),
            Ok(_) => drop(open_one(&path, false)?),
        }
    }
    Ok(missing)
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
