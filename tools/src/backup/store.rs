//! A directory of backups: segment files by identity, which saves share, and one small file a save.
//!
//! ```text
//! PATH/segments/00003/0000000001-0000000016.L1.3f2a9c0b11d4e587.segment     as in a data directory
//! PATH/saves/0000000002.save                                               which of them a save is, and up to where
//! PATH/entries/0000000002/00003.entries                                    what shard 3 logged between the save before and that one
//!
//! save:  a line of JSON, and "blake3 " with the 64 hex digits of that line's BLAKE3, its end included
//! ```
//!
//! What always holds: a save has its name only once every file it lists is there, verified and synced; a file that has its name is
//! never written again. So what an interrupted save leaves harms no other; entries of a save that is not there are nobody's.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use logstore::id::{HistoryId, ShardId};
use logstore::segment::BlockCache;
use logstore::{Manifest, SegmentSet};
use serde::{Deserialize, Serialize};

/// The version this code writes.
const FORMAT: u32 = 2;
/// Far more than shards and merges make of it.
const SAVE_BYTES_MAX: u64 = 256 << 20;
/// Scans go past it.
const CACHE_BYTES: u64 = 8 << 20;
/// Saves lie there.
const SAVES: &str = "saves";
/// Entries lie there.
const ENTRIES: &str = "entries";
/// What a save's name ends in.
const ENDING: &str = ".save";

/// A directory of backups.
pub struct Store {
    root: PathBuf,
}

/// A save, as its file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Save {
    /// [`FORMAT`].
    backup: u32,
    /// Its number among those here, from 1.
    pub save: u64,
    /// When it was made, for people.
    pub made: String,
    /// The history it is of, 32 hex digits.
    pub history: String,
    /// Whether `--dev` made the node.
    pub dev: bool,
    /// The save of the same history whose entries it has what followed of; `None`: it is a point of its own.
    #[serde(default)]
    pub since: Option<u64>,
    /// Up to where each shard is in it.
    pub shards: Vec<SavedShard>,
}

/// A shard of a save.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedShard {
    /// The shard.
    pub shard: u16,
    /// Its last entry.
    pub upto_index: u64,
    /// The log time there.
    pub log_time_ms: u64,
    /// Its manifest, base64.
    manifest: String,
    /// What it logged since the save that this one says it goes on from, if anything.
    #[serde(default)]
    pub entries: Option<SavedEntries>,
}

/// A file of entries of a save.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedEntries {
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of it, 64 hex digits.
    pub blake3: String,
}

impl Store {
    /// The directory, which need not be there yet.
    pub fn at(root: &Path) -> Store {
        Store { root: root.to_owned() }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes it, if it is not there; one that holds something else is refused.
    pub fn create(&self) -> anyhow::Result<()> {
        let saves = self.root.join(SAVES);
        if !saves.is_dir() && self.root.read_dir().is_ok_and(|mut names| names.next().is_some()) {
            bail!("{} is neither empty nor a directory of backups", self.root.display());
        }
        fs::create_dir_all(&saves).with_context(|| format!("cannot create {}", saves.display()))?;
        sync_dir(&self.root)
    }

    /// All saves, oldest first; each is whole, or an error that names it.
    pub fn saves(&self) -> anyhow::Result<Vec<Save>> {
        let dir = self.root.join(SAVES);
        let entries = fs::read_dir(&dir).with_context(|| format!("{} holds no backups", self.root.display()))?;
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            numbers.extend(name.strip_suffix(ENDING).and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        numbers.into_iter().map(|number| self.load(number)).collect()
    }

    /// Puts a save beside the others, durably. Every file it lists is there and synced.
    pub fn put(&self, save: &Save) -> anyhow::Result<()> {
        let path = self.path_of(save.save);
        let draft = path.with_extension("tmp");
        let mut line = serde_json::to_vec(save)?;
        line.push(b'\n');
        let mut file = File::create(&draft).with_context(|| format!("cannot write {}", draft.display()))?;
        file.write_all(&line)?;
        writeln!(file, "blake3 {}", blake3::hash(&line).to_hex())?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        sync_dir(&self.root.join(SAVES))
    }

    /// Removes all saves but one, and the files that only they list. States how many files went.
    pub fn keep_only(&self, kept: &Save) -> anyhow::Result<usize> {
        for save in self.saves()?.into_iter().filter(|save| save.save != kept.save) {
            fs::remove_file(self.path_of(save.save))?;
        }
        sync_dir(&self.root.join(SAVES))?;
        remove_dir(&self.root.join(ENTRIES))?;
        let listed: Vec<PathBuf> = kept.files()?.into_iter().map(|path| self.root.join(path)).collect();
        let mut removed = 0;
        for shard in fs::read_dir(self.root.join("segments")).into_iter().flatten() {
            for file in fs::read_dir(shard?.path())? {
                let path = file?.path();
                if !listed.contains(&path) {
                    fs::remove_file(path)?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// The segments of all shards of a save, each verified to be the one that is listed.
    pub fn sets(&self, save: &Save) -> anyhow::Result<Vec<Arc<SegmentSet>>> {
        let (disk, cache) = (logstore::io::read_only(&self.root), Arc::new(BlockCache::new(CACHE_BYTES)));
        let open = |shard: &SavedShard| Ok(Arc::new(SegmentSet::of(&disk, shard.manifest()?, &cache)?));
        save.shards.iter().map(open).collect()
    }

    /// Where the entries of a save lie.
    pub fn entries_dir(&self, save: u64) -> PathBuf {
        self.root.join(ENTRIES).join(format!("{save:010}"))
    }

    /// Where the entries of one of its shards lie.
    pub fn entries_path(&self, save: u64, shard: ShardId) -> PathBuf {
        self.entries_dir(save).join(format!("{:05}.entries", shard.0))
    }

    /// Removes entries of a save that is not there.
    pub fn remove_entries(&self, save: u64) -> anyhow::Result<()> {
        remove_dir(&self.entries_dir(save))
    }

    fn load(&self, number: u64) -> anyhow::Result<Save> {
        let path = self.path_of(number);
        let bytes = read_bounded(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let wrong = |what: &str| anyhow!("{}: {what}", path.display());
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| wrong("it is cut"))? + 1;
        let format: Format = serde_json::from_slice(&bytes[..end]).map_err(|_| wrong("it is not a save"))?;
        if format.backup > FORMAT {
            return Err(wrong(&format!("format {}: this program knows {FORMAT}", format.backup)));
        }
        if bytes[end..] != *format!("blake3 {}\n", blake3::hash(&bytes[..end]).to_hex()).as_bytes() {
            return Err(wrong("it does not verify (damaged or cut)"));
        }
        let save: Save = serde_json::from_slice(&bytes[..end]).map_err(|error| wrong(&error.to_string()))?;
        if save.save != number {
            return Err(wrong(&format!("it is save {}", save.save)));
        }
        if save.since.is_some_and(|since| since >= number) {
            return Err(wrong("it goes on from a later save"));
        }
        Ok(save)
    }

    fn path_of(&self, number: u64) -> PathBuf {
        self.root.join(SAVES).join(format!("{number:010}{ENDING}"))
    }
}

/// What is read of a save before anything else.
#[derive(Deserialize)]
struct Format {
    backup: u32,
}

impl Save {
    /// Of the manifests of a cut.
    pub fn new(number: u64, made: String, history: HistoryId, dev: bool, sets: &[Arc<SegmentSet>]) -> Save {
        let shard = |set: &Arc<SegmentSet>| {
            let manifest = set.manifest();
            SavedShard {
                shard: manifest.shard().0,
                upto_index: manifest.checkpoint().map_or(0, |checkpoint| checkpoint.seal.index.0),
                log_time_ms: manifest.segments().last().map_or(0, |info| info.log_time.0),
                manifest: BASE64.encode(manifest.to_bytes()),
                entries: None,
            }
        };
        let history = format!("{:032x}", history.0);
        let shards = sets.iter().map(shard).collect();
        Save { backup: FORMAT, save: number, made, history, dev, since: None, shards }
    }

    /// The log time of its newest entry.
    pub fn log_time_ms(&self) -> u64 {
        self.shards.iter().map(|shard| shard.log_time_ms).max().unwrap_or(0)
    }

    /// The log time that every shard has reached.
    pub fn common_log_time_ms(&self) -> u64 {
        self.shards.iter().map(|shard| shard.log_time_ms).min().unwrap_or(0)
    }

    /// The history it is of.
    pub fn history_id(&self) -> anyhow::Result<HistoryId> {
        let history = u128::from_str_radix(&self.history, 16);
        history.map(HistoryId).with_context(|| format!("{:?} is not a history", self.history))
    }

    /// The files it lists, relative to the directory.
    pub fn files(&self) -> anyhow::Result<Vec<String>> {
        let mut files = Vec::new();
        for shard in &self.shards {
            files.extend(shard.manifest()?.segments().iter().map(|info| info.path()));
        }
        Ok(files)
    }
}

impl SavedShard {
    /// Which segments are its.
    pub fn manifest(&self) -> anyhow::Result<Manifest> {
        let bytes = BASE64.decode(&self.manifest).with_context(|| format!("manifest of shard {}", self.shard))?;
        let shard = ShardId(self.shard);
        Ok(Manifest::from_bytes(&Manifest::path(shard), shard, &bytes)?)
    }
}

fn remove_dir(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > SAVE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than a save can be"));
    }
    fs::read(path)
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> anyhow::Result<()> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("cannot sync {}", dir.display()))
}
