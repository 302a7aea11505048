//! Saved sign-ins: who, where, with which tokens, and how far this device has been shown what.
//!
//! ```text
//! $XDG_CONFIG_HOME/skein/ (else ~/.config/skein/)
//!     current                 name of the profile used when none is named
//!     NAME.json               the sign-in; 0600, like every file here
//!     NAME.progress.json      the cursor of `skein tail`
//!     NAME.lock               held while tokens are exchanged: a refresh token is good once
//! ```
//!
//! What always holds: a file is replaced whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use gateway::client::{Progress, Tokens};
use serde::{Deserialize, Serialize};

/// A saved sign-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Address of the server's client port.
    pub server: String,
    /// The account.
    pub name: String,
    /// The account's number.
    pub user: u64,
    /// For `hello`.
    pub access_token: String,
    /// For the next pair.
    pub refresh_token: String,
    /// When the access token ends, Unix time.
    pub access_expires_ms: u64,
    /// What this installation calls itself.
    pub device: String,
    /// Speak TLS.
    #[serde(default)]
    pub tls: bool,
    /// Trust these certificates.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

impl Profile {
    /// Takes over new tokens.
    pub fn set_tokens(&mut self, tokens: &Tokens) {
        self.name = tokens.user.name.clone();
        self.user = tokens.user.id.0;
        self.access_token = tokens.access_token.clone();
        self.refresh_token = tokens.refresh_token.clone();
        self.access_expires_ms = tokens.access_expires.0;
    }
}

/// Where profiles are kept.
#[derive(Clone, Debug)]
pub struct Profiles {
    dir: PathBuf,
}

impl Profiles {
    /// Those of this user.
    pub fn of_this_user() -> anyhow::Result<Profiles> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
        let config = config.ok_or_else(|| anyhow!("neither XDG_CONFIG_HOME nor HOME says where to keep profiles"))?;
        Ok(Profiles::in_dir(&config.join("skein")))
    }

    /// Those in a directory.
    pub fn in_dir(dir: &Path) -> Profiles {
        Profiles { dir: dir.to_owned() }
    }

    /// The profile's content; `None`: there is none of that name.
    pub fn load(&self, profile: &str) -> anyhow::Result<Option<Profile>> {
        read_json(&self.file(profile, "json"))
    }

    /// Writes a profile.
    pub fn save(&self, profile: &str, content: &Profile) -> anyhow::Result<()> {
        self.write(&self.file(profile, "json"), &serde_json::to_vec_pretty(content)?)
    }

    /// Removes a profile; `false`: there was none.
    pub fn remove(&self, profile: &str) -> anyhow::Result<bool> {
        let existed = remove_file(&self.file(profile, "json"))?;
        remove_file(&self.file(profile, "progress.json"))?;
        remove_file(&self.file(profile, "lock"))?;
        if self.current()?.as_deref() == Some(profile) {
            remove_file(&self.dir.join("current"))?;
        }
        Ok(existed)
    }

    /// All of them, by name.
    pub fn list(&self) -> anyhow::Result<Vec<(String, Profile)>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.dir.display())),
        };
        let mut found = Vec::new();
        for entry in entries {
            let file = entry?.file_name().to_string_lossy().into_owned();
            let Some(name) = file.strip_suffix(".json").and_then(name_of_file) else { continue };
            if let Some(profile) = self.load(&name)? {
                found.push((name, profile));
            }
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }

    /// How far the profile's device has been shown what.
    pub fn progress(&self, profile: &str) -> anyhow::Result<Progress> {
        Ok(read_json(&self.file(profile, "progress.json"))?.unwrap_or_default())
    }

    /// Notes how far it has.
    pub fn save_progress(&self, profile: &str, progress: &Progress) -> anyhow::Result<()> {
        self.write(&self.file(profile, "progress.json"), &serde_json::to_vec(progress)?)
    }

    /// Forgets how far it had.
    pub fn forget_progress(&self, profile: &str) -> anyhow::Result<()> {
        remove_file(&self.file(profile, "progress.json")).map(|_| ())
    }

    /// The profile used when none is named.
    pub fn current(&self) -> anyhow::Result<Option<String>> {
        let file = self.dir.join("current");
        match fs::read_to_string(&file) {
            Ok(name) => Ok(Some(name.trim().to_owned()).filter(|name| !name.is_empty())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Makes a profile the one used when none is named.
    pub fn set_current(&self, profile: &str) -> anyhow::Result<()> {
        self.write(&self.dir.join("current"), profile.as_bytes())
    }

    /// Holds the profile's tokens against other processes until the file is dropped.
    pub fn lock(&self, profile: &str) -> anyhow::Result<File> {
        self.create_dir()?;
        let path = self.file(profile, "lock");
        let say = || format!("cannot lock {}", path.display());
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path).with_context(say)?;
        file.lock().with_context(say)?;
        Ok(file)
    }

    fn file(&self, profile: &str, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", file_name(profile)))
    }

    fn create_dir(&self) -> anyhow::Result<()> {
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.dir);
        made.with_context(|| format!("cannot create {}", self.dir.display()))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        self.create_dir()?;
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}.new", std::process::id()));
        let draft = PathBuf::from(draft);
        let say = || format!("cannot write {}", path.display());
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&draft).with_context(say)?;
        file.write_all(bytes).with_context(say)?;
        fs::rename(&draft, path).with_context(say)
    }
}

/// The profile's name as a file name: whatever is not plainly harmless is written as its bytes.
fn file_name(profile: &str) -> String {
    let mut name = String::with_capacity(profile.len());
    for byte in profile.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(byte as char),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name
}

/// The inverse of [`file_name`]; `None`: it is not the file of a profile.
fn name_of_file(file: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(file.len());
    let mut rest = file.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        match first {
            b'.' => return None,
            b'%' => {
                let digits = std::str::from_utf8(after.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let content = serde_json::from_slice(&bytes);
    content.map(Some).with_context(|| format!("{} is damaged; remove it and sign in again", path.display()))
}

fn remove_file(path: &Path) -> anyhow::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn sample() -> Profile {
        Profile {
            server: "127.0.0.1:7400".into(),
            name: "alice".into(),
            user: 7,
            access_token: "a".into(),
            refresh_token: "r".into(),
            access_expires_ms: 5,
            device: "d".into(),
            tls: false,
            ca: None,
        }
    }

    #[test]
    fn a_saved_sign_in_is_nobody_elses_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let profiles = Profiles::in_dir(&dir.path().join("skein"));
        profiles.save("alice", &sample()).unwrap();
        assert_eq!(profiles.load("alice").unwrap(), Some(sample()));
        let mode = fs::metadata(dir.path().join("skein/alice.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::metadata(dir.path().join("skein")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_name_never_leads_out_of_the_directory() {
        assert_eq!(file_name("../x y"), "%2e%2e%2fx%20y");
        assert_eq!(file_name("6f1e-ABC_9"), "6f1e-ABC_9");
        for name in ["../x y", "6f1e-ABC_9", "zoë.progress"] {
            assert_eq!(name_of_file(&file_name(name)).as_deref(), Some(name));
        }
        assert_eq!(name_of_file("alice.progress"), None);
    }

    #[test]
    fn a_removed_profile_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let profiles = Profiles::in_dir(dir.path());
        assert!(!profiles.remove("alice").unwrap());
        profiles.save("alice", &sample()).unwrap();
        profiles.set_current("alice").unwrap();
        profiles.save_progress("alice", &Progress::default()).unwrap();
        drop(profiles.lock("alice").unwrap());
        assert_eq!(profiles.current().unwrap().as_deref(), Some("alice"));
        assert!(profiles.remove("alice").unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_profile_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("alice.json"), "{").unwrap();
        let error = Profiles::in_dir(dir.path()).load("alice").unwrap_err();
        assert!(error.to_string().contains("alice.json is damaged"), "{error}");
    }
}
