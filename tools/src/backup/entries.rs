//! Entries between two saves: fetched from a node that still has them, and read back, verified.
//!
//! What always holds: entries of a save are whole, or there are none; what a save lists is verified by its BLAKE3 before the first of it
//! counts, and by the file's own checks while it is read.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use gateway::client::Error;
use logstore::Entry;
use logstore::entries::{EntriesHead, EntriesReader, EntriesWriter};
use logstore::id::{HistoryId, LogIndex, ShardId};
use sequencer::points::EntryRun;

use super::points::follows;
use super::store::{Save, SavedEntries, SavedShard, Store, sync_dir};
use crate::export::Remote;
use crate::log::Progress;

const BUFFER_BYTES: usize = 256 << 10;

/// What became of the entries between two saves.
pub enum Between {
    /// The save has them.
    Kept,
    /// Nothing is to be had, and why: in words for people.
    Missing(String),
}

/// Brings what followed `before` to where a save lists it, and lists it.
pub fn fetch(remote: &Remote, store: &Store, before: &Save, save: &mut Save) -> anyhow::Result<Between> {
    store.remove_entries(save.save)?;
    save.since = Some(before.save);
    let dir = store.entries_dir(save.save);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let missing = fetch_all(remote, store, before, save)?;
    if let Some(missing) = missing {
        store.remove_entries(save.save)?;
        save.since = None;
        save.shards.iter_mut().for_each(|shard| shard.entries = None);
        return Ok(Between::Missing(missing));
    }
    sync_dir(&dir)?;
    sync_dir(dir.parent().context("entries lie in a directory")?)?;
    sync_dir(store.root())?;
    Ok(Between::Kept)
}

/// All shards'; what is missing is told in words.
fn fetch_all(remote: &Remote, store: &Store, before: &Save, save: &mut Save) -> anyhow::Result<Option<String>> {
    if before.shards.len() != save.shards.len() {
        return Ok(Some(format!("save {} has other shards", before.save)));
    }
    let progress = Progress::begin("entries kept", count(before, save));
    for place in 0..save.shards.len() {
        if let Err(missing) = fetch_shard(remote, store, before, save, place, &progress)? {
            return Ok(Some(missing));
        }
    }
    debug_assert!(follows(before, save), "what was fetched is what a chain asks for");
    Ok(None)
}

/// How many entries there are between two saves, of all shards.
fn count(before: &Save, save: &Save) -> u64 {
    let of = |(before, save): (&SavedShard, &SavedShard)| save.upto_index.saturating_sub(before.upto_index);
    before.shards.iter().zip(&save.shards).map(of).sum()
}

/// One shard's; what is missing is told in words.
fn fetch_shard(
    remote: &Remote,
    store: &Store,
    before: &Save,
    save: &mut Save,
    place: usize,
    progress: &Progress,
) -> anyhow::Result<Result<(), String>> {
    let shard = &save.shards[place];
    let (id, upto) = (ShardId(shard.shard), LogIndex(shard.upto_index));
    let Some(from) = before.shards.get(place).filter(|before| before.shard == shard.shard) else {
        return Ok(Err(format!("save {} has other shards", before.save)));
    };
    let after = LogIndex(from.upto_index);
    if after > upto {
        return Ok(Err(format!("shard {id} ended at entry {after} in save {}, and ends at {upto}", before.save)));
    }
    if after == upto {
        return Ok(Ok(()));
    }
    let head = EntriesHead { shard: id, history: save.history_id()?, after, upto };
    let path = store.entries_path(save.save, id);
    let written = write(remote, head, &path, progress).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(written.map(|entries| save.shards[place].entries = Some(entries)))
}

/// The file of a shard's entries, or why they are not to be had.
fn write(
    remote: &Remote,
    head: EntriesHead,
    path: &Path,
    progress: &Progress,
) -> anyhow::Result<Result<SavedEntries, String>> {
    let out = Hashed {
        out: BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?),
        hasher: blake3::Hasher::new(),
        bytes: 0,
    };
    let mut writer = EntriesWriter::begin(out, head)?;
    let mut last = head.after;
    while last < head.upto {
        let entries = match remote.entries(head.shard, last, head.upto) {
            Err(Error::Refused(refusal)) => return Ok(Err(refusal.to_string())),
            entries => entries?,
        };
        let Some(newest) = entries.last().map(|entry| entry.id.index) else {
            return Ok(Err(format!("the node no longer has entry {} of shard {}", last.next(), head.shard)));
        };
        entries.iter().try_for_each(|entry| writer.push(entry))?;
        progress.add(newest.0 - last.0);
        last = newest;
    }
    let Hashed { out, hasher, bytes } = writer.finish()?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(Ok(SavedEntries { bytes, blake3: hasher.finalize().to_hex().to_string() }))
}

/// How many entries lead from a save through others to the last.
pub fn count_along(saves: &[Save]) -> u64 {
    saves.windows(2).map(|pair| count(&pair[0], &pair[1])).sum()
}

/// The entries of one shard that lead from a save through others, the first of `saves`, to the last.
pub struct Trail {
    history: HistoryId,
    /// Files, with the entries each has: after, up to.
    files: Vec<(PathBuf, LogIndex, LogIndex)>,
    shard: ShardId,
}

impl Trail {
    /// Of a shard, by its place in every save. Whether files are what is listed is [`verify`]'s to say.
    pub fn of(store: &Store, saves: &[Save], place: usize) -> anyhow::Result<Trail> {
        let shard = ShardId(saves[0].shards[place].shard);
        let mut files = Vec::new();
        for pair in saves.windows(2) {
            let [before, save] = [&pair[0], &pair[1]];
            if save.shards[place].entries.is_some() {
                let [after, upto] = [before, save].map(|save| LogIndex(save.shards[place].upto_index));
                files.push((store.entries_path(save.save, shard), after, upto));
            }
        }
        Ok(Trail { history: saves[0].history_id()?, files, shard })
    }

    /// The entries, file after file.
    pub fn entries<'a>(&'a self) -> EntryRun<'a, anyhow::Error> {
        let file = |(path, after, upto): &'a (PathBuf, LogIndex, LogIndex)| -> Box<dyn Iterator<Item = anyhow::Result<Entry>>> {
            let head = EntriesHead { shard: self.shard, history: self.history, after: *after, upto: *upto };
            let name = move || path.display().to_string();
            match open(path, head) {
                Ok(reader) => Box::new(reader.map(move |entry| entry.with_context(name))),
                Err(error) => Box::new(std::iter::once(Err(error.context(name())))),
            }
        };
        Box::new(self.files.iter().flat_map(file))
    }
}

/// Whether all entries that a save lists are there and as listed; `deep`: to the last entry.
pub fn verify(store: &Store, before: Option<&Save>, save: &Save, deep: bool) -> anyhow::Result<()> {
    for (place, shard) in save.shards.iter().enumerate() {
        let Some(entries) = &shard.entries else { continue };
        let path = store.entries_path(save.save, ShardId(shard.shard));
        verify_file(&path, entries, deep).with_context(|| path.display().to_string())?;
        if let Some(before) = before.filter(|before| deep && follows(before, save)) {
            let trail = Trail::of(store, &[before.clone(), save.clone()], place)?;
            trail.entries().try_for_each(|entry| entry.map(drop))?;
        }
    }
    Ok(())
}

fn verify_file(path: &Path, entries: &SavedEntries, deep: bool) -> anyhow::Result<()> {
    let bytes = fs::metadata(path)?.len();
    if bytes != entries.bytes {
        bail!("it has {bytes} bytes, not {}", entries.bytes);
    }
    if deep {
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut File::open(path)?, &mut hasher)?;
        if hasher.finalize().to_hex().as_str() != entries.blake3 {
            bail!("it does not verify (damaged)");
        }
    }
    Ok(())
}

fn open(path: &Path, head: EntriesHead) -> anyhow::Result<EntriesReader<impl Read + use<>>> {
    let reader = EntriesReader::open(BufReader::with_capacity(BUFFER_BYTES, File::open(path)?))?;
    if reader.head() != head {
        bail!("it has {:?}, and should have {head:?}", reader.head());
    }
    Ok(reader)
}

/// Hashes and counts what is written.
struct Hashed<W> {
    out: W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.out.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
