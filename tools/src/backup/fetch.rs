//! Brings the segment files of a cut to a directory: what lies there under the same identity stays.
//!
//! What always holds: a file has its name only once all its bytes are there, verified to the last block, and synced; one that was there
//! is verified to be what its name says before it counts, and fetched again if it is not.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use logstore::SegmentSet;
use logstore::io::Disk;
use logstore::segment::{BlockCache, SegmentInfo};

use super::store::sync_dir;
use crate::export::Remote;
use crate::log::Progress;

/// Asked for at a time.
const PIECE_BYTES: usize = 512 << 10;

/// What was brought.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fetched {
    /// Files that were not there.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were.
    pub kept: u64,
}

/// Brings all files of some shards to `root`; those of a data directory on the same file system become links if `link` names it.
pub fn fetch(remote: &Remote, sets: &[Arc<SegmentSet>], root: &Path, link: Option<&Path>) -> anyhow::Result<Fetched> {
    let infos: Vec<&SegmentInfo> = sets.iter().flat_map(|set| set.manifest().segments()).collect();
    let progress = Progress::begin("saved", infos.iter().map(|info| info.file_bytes).sum());
    let (disk, cache) = (logstore::io::read_only(root), Arc::new(BlockCache::new(1 << 20)));
    let mut fetched = Fetched::default();
    for info in infos {
        if SegmentSet::open_listed(&disk, info, &cache).is_ok() {
            fetched.kept += 1;
            progress.add(info.file_bytes);
            continue;
        }
        fetch_one(remote, info, root, link, &progress)?;
        verify(&disk, info, &cache)?;
        fetched.files += 1;
        fetched.bytes += info.file_bytes;
    }
    Ok(fetched)
}

fn verify(disk: &Arc<dyn Disk>, info: &SegmentInfo, cache: &Arc<BlockCache>) -> anyhow::Result<()> {
    let segment = Arc::new(SegmentSet::open_listed(disk, info, cache)?);
    Ok(segment.verify()?)
}

fn fetch_one(
    remote: &Remote,
    info: &SegmentInfo,
    root: &Path,
    link: Option<&Path>,
    progress: &Progress,
) -> anyhow::Result<()> {
    let path = root.join(info.path());
    let dir = path.parent().context("a segment lies in a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let draft = path.with_extension("tmp");
    remove_if_there(&draft)?;
    let is_linked = link.is_some_and(|data| fs::hard_link(data.join(info.path()), &draft).is_ok());
    if is_linked {
        progress.add(info.file_bytes);
    } else {
        let written = download(remote, info, &draft, progress);
        written.with_context(|| format!("cannot write {}", draft.display()))?;
    }
    fs::rename(&draft, &path)?;
    sync_dir(dir)?;
    sync_dir(&root.join("segments"))
}

fn download(remote: &Remote, info: &SegmentInfo, draft: &Path, progress: &Progress) -> anyhow::Result<()> {
    let mut file = File::create(draft)?;
    let mut offset = 0;
    while offset < info.file_bytes {
        let piece = remote.read(&info.path(), offset, PIECE_BYTES)?;
        if piece.is_empty() {
            bail!("it ends after {offset} bytes of {}", info.file_bytes);
        }
        file.write_all(&piece)?;
        offset += piece.len() as u64;
        progress.add(piece.len() as u64);
    }
    Ok(file.sync_all()?)
}

fn remove_if_there(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
