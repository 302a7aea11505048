//! Brings a journal back: which files count, what every shard's frames say, where the tail is.
//!
//! What always holds: a torn tail is cut, rot never is. The writer builds a block only after everything before it is
//! synced, so whatever is before a readable header of the same life, or below what any block states as durable,
//! was durable once: if it does not verify now, that is rot. Only a bad block with nothing
//! after it can be one whose write was interrupted, and nobody was told of that.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::id::ShardId;
use crate::io::{Context, Disk, read_full};
use crate::{Error, Result};

use super::block::{BLOCK_HEAD, BlockHead, BlockKind};
use super::file::{self, DIRECTORY, FILE_HEAD, FileHead, Name};
use super::position::{ALIGN, Position};
use super::replay::{Neighbours, Replay};
use super::reserve::{Files, ReadyFile, remove_leftovers};
use super::scan::{Found, Scan};
use super::state::ShardState;

pub(crate) const REPAIR: &str = "restore this node's data directory from a copy or a backup";
/// A checkpoint block is smaller: that of 4,096 shards has 0.8 MB.
const CHECKPOINT_BYTES_MAX: u64 = 1 << 20;

/// What a journal's files held.
pub(crate) struct Recovered {
    pub shards: HashMap<ShardId, ShardState>,
    pub files: Files,
    /// `None` if there is no file with blocks.
    pub tail: Option<Tail>,
    /// What its files say they belong to, if there are any that do.
    pub journal: Option<u64>,
}

/// Where a journal goes on.
pub(crate) struct Tail {
    /// The newest file.
    pub file: ReadyFile,
    /// Where its last block begins: the only one that may not be synced.
    pub last_block: u32,
    /// Where its next block goes.
    pub offset: u32,
}

/// One file of the folder whose header verifies.
pub(super) struct Candidate {
    pub(super) ready: ReadyFile,
    /// Where the file before it ends, as its checkpoint block states; `None` if it holds no block.
    pub(super) before: Option<Position>,
}

/// Told of every block that is replayed.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&BlockHead, &[u8]) -> Result<()>;

/// Where the blocks of a file end.
struct FileEnd {
    last_block: u64,
    offset: u64,
    /// Bytes of the block there whose write was interrupted.
    torn: Option<u32>,
}

/// Reads everything under `journal/`. Changes nothing but leftovers of preparation.
pub(crate) fn recover(disk: &dyn Disk, file_bytes: u64) -> Result<Recovered> {
    let (candidates, aside) = candidates(disk)?;
    let journal = check_journal(&candidates)?;
    let next_number = candidates.last().map_or(1, |last| last.ready.head.number + 1);
    let (used, ready): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|file| file.before.is_some());
    check_chain(&used)?;
    let (replay, tail, torn) = replay_all(&used, &mut |_, _| Ok(()))?;
    if let (Some(tail), Some(bytes)) = (&tail, torn) {
        let (path, offset) = (file::path(tail.file.head.number), tail.offset);
        tracing::warn!(path, offset, bytes, "cut a block whose write was interrupted; nobody was told of it");
    }
    let mut files = Files { next_number, ..Files::default() };
    files.used = used.into_iter().map(|used| (used.ready.head.number, used.ready)).collect();
    files.peak = files.used.len();
    let newest = files.used.last_key_value().map_or(0, |(number, _)| *number);
    for candidate in ready {
        take_ready(disk, &mut files, candidate.ready, file_bytes, newest)?;
    }
    let shards = replay.finish(&aside)?;
    // Nothing is lost with them any more: what they alone held has been purged.
    remove_leftovers(disk, &aside.iter().map(SetAside::path).collect::<Vec<_>>())?;
    Ok(Recovered { shards, files, tail, journal })
}

/// The journal that the files belong to. One that says otherwise than most came from elsewhere.
fn check_journal(candidates: &[Candidate]) -> Result<Option<u64>> {
    let mut files = BTreeMap::<u64, Vec<u32>>::new();
    for head in candidates.iter().map(|candidate| candidate.ready.head).filter(|head| head.journal != 0) {
        files.entry(head.journal).or_default().push(head.number);
    }
    let ours = files.iter().max_by_key(|(_, numbers)| numbers.len()).map(|(journal, _)| *journal);
    match files.iter().find(|(journal, _)| Some(**journal) != ours) {
        Some((_, foreign)) => {
            Err(Error::NotOurs { path: file::path(foreign[0]), what: "it is of another journal".to_owned() })
        }
        None => Ok(ours),
    }
}

/// Files with blocks, files ready for them, and those set aside; what an interrupted preparation left is removed.
fn candidates(disk: &dyn Disk) -> Result<(Vec<Candidate>, Vec<SetAside>)> {
    let (mut found, mut aside, mut leftovers) = (Vec::new(), Vec::new(), Vec::new());
    for name in disk.list(DIRECTORY).context("list", DIRECTORY)? {
        match file::parse_name(&name) {
            Name::File(number) => found.push(candidate(disk, number)?),
            Name::Preparing => leftovers.push(format!("{DIRECTORY}/{name}")),
            Name::Aside(number) => aside.push(SetAside::look(disk, number)?),
            Name::Foreign => tracing::warn!(name, "a file in the journal's folder is not the journal's: left alone"),
        }
    }
    remove_leftovers(disk, &leftovers)?;
    found.sort_by_key(|candidate| candidate.ready.head.number);
    Ok((found, aside))
}

/// A file has this name only once its header is synced: one that does not verify was lost, and what else with it nobody knows.
pub(super) fn candidate(disk: &dyn Disk, number: u32) -> Result<Candidate> {
    let ready = headed(disk, number)?;
    let before = checkpoint_before(&mut Scan::new(ready.head, &*ready.file))?;
    Ok(Candidate { ready, before })
}

/// The same for who reads around damage: a file whose checkpoint is bad follows no file that is known.
pub(super) fn candidate_around(disk: &dyn Disk, number: u32) -> Result<Candidate> {
    let ready = headed(disk, number)?;
    let before = match checkpoint_before(&mut Scan::new(ready.head, &*ready.file)) {
        Err(Error::Rot { .. }) => Some(Position::default()),
        before => before?,
    };
    Ok(Candidate { ready, before })
}

fn headed(disk: &dyn Disk, number: u32) -> Result<ReadyFile> {
    headed_at(disk, number, file::path(number))
}

fn headed_at(disk: &dyn Disk, number: u32, path: String) -> Result<ReadyFile> {
    let file = disk.open(&path).context("open", &path)?;
    let mut bytes = vec![0; FILE_HEAD as usize];
    let filled = read_full(&*file, &mut bytes, 0).context("read", &path)?;
    let head = match FileHead::decode(&bytes[..filled], &path)? {
        Some(head) if head.number == number && head.file_bytes <= u64::from(u32::MAX) => head,
        Some(head) => return Err(Error::NotOurs { path, what: format!("its header names file {}", head.number) }),
        None => return Err(rot(number, 0, "the file's header does not verify", "all in it")),
    };
    Ok(ReadyFile { head, file })
}

/// What the checkpoint block at the file's begin states as the end of the file before. A bad one with blocks
/// after it is rot; with none, the file was not used yet.
fn checkpoint_before(scan: &mut Scan<'_>) -> Result<Option<Position>> {
    if let Found::Block(head, _) = scan.at(FILE_HEAD)?
        && head.kind == BlockKind::Checkpoint
    {
        return Ok(Some(head.durable_upto));
    }
    let upto = FILE_HEAD + CHECKPOINT_BYTES_MAX + ALIGN;
    match scan.next_head(FILE_HEAD + ALIGN, upto)? {
        None => Ok(None),
        Some(_) => Err(rot(scan.head.number, FILE_HEAD, "the checkpoint block", "unknown")),
    }
}

/// Every file names the one before it; only the oldest may name one that has been recycled.
pub(super) fn check_chain(used: &[Candidate]) -> Result<()> {
    for pair in used.windows(2) {
        let (expected, found) = (pair[1].before.map(|before| before.file), pair[0].ready.head.number);
        if expected != Some(found) {
            let what = format!("file {} is gone: it lay before this one", expected.unwrap_or(0));
            return Err(rot(pair[1].ready.head.number, 0, &what, "unknown"));
        }
    }
    Ok(())
}

/// Replays all files; also states how long the torn block at the tail is, if there is one.
pub(super) fn replay_all(used: &[Candidate], visit: Visit<'_>) -> Result<(Replay, Option<Tail>, Option<u32>)> {
    let (mut replay, mut tail, mut torn) = (Replay::default(), None, None);
    for (place, candidate) in used.iter().enumerate() {
        let end = used.get(place + 1).and_then(|next| next.before).map(|before| u64::from(before.offset));
        let mut scan = Scan::new(candidate.ready.head, &*candidate.ready.file);
        let found = replay_file(&mut scan, &mut replay, end, visit)?;
        let (last_block, offset) = (found.last_block as u32, found.offset as u32);
        tail = Some(Tail { file: candidate.ready.clone(), last_block, offset });
        torn = found.torn;
    }
    Ok((replay, tail, torn))
}

/// Replays one file up to `end`, or up to its torn or clean tail if it is the newest.
fn replay_file(scan: &mut Scan<'_>, replay: &mut Replay, end: Option<u64>, visit: Visit<'_>) -> Result<FileEnd> {
    let (number, mut last_block, mut offset, mut proven) = (scan.head.number, FILE_HEAD, FILE_HEAD, 0);
    while end.is_none_or(|end| offset < end) {
        let Found::Block(head, body) = scan.at(offset)? else { break };
        visit(&head, body)?;
        proven = proven.max(durable_in(head.durable_upto, number));
        if head.kind == BlockKind::Proof {
            break;
        }
        let at = Position { file: number, offset: (offset + BLOCK_HEAD as u64) as u32 };
        replay.block(head.kind, at, body).map_err(|bad| rot(number, offset, &bad.what, &bad.affected))?;
        (last_block, offset) = (offset, offset + head.stride());
    }
    let torn = match end {
        Some(end) if offset == end => None,
        Some(end) => return Err(rot_in(scan, replay, offset, end)?),
        None => check_tail(scan, replay, offset, proven)?,
    };
    Ok(FileEnd { last_block, offset, torn })
}

/// The end of the newest file: all that follows must be bytes that were never durable. States how long a torn block is.
fn check_tail(scan: &mut Scan<'_>, replay: &Replay, offset: u64, proven: u64) -> Result<Option<u32>> {
    let file_bytes = scan.head.file_bytes;
    let later = scan.next_head(offset + ALIGN, file_bytes)?;
    let proven = proven.max(later.map_or(0, |head| u64::from(head.position.offset)));
    if offset < proven {
        return Err(rot_in(scan, replay, offset, file_bytes)?);
    }
    Ok(match scan.at(offset)? {
        Found::BadBody(head, _) => Some(head.len),
        Found::Block(..) | Found::Nothing => None,
    })
}

/// Names what lies in the bad block at `offset`, as far as its own intact frames and the blocks after it tell.
pub(super) fn rot_in(scan: &mut Scan<'_>, replay: &Replay, offset: u64, upto: u64) -> Result<Error> {
    let mut neighbours = Neighbours::default();
    if let Found::BadBody(_, body) = scan.at(offset)? {
        neighbours.inside(body);
    }
    let mut next = scan.next_head(offset + ALIGN, upto)?;
    while let Some(head) = next {
        let at = u64::from(head.position.offset);
        if let Found::Block(_, body) = scan.at(at)? {
            neighbours.after(body);
        }
        next = scan.next_head(at + head.stride(), upto)?;
    }
    let affected = replay.affected(&neighbours);
    Ok(rot(scan.head.number, offset, "a block that was durable does not verify", &affected))
}

fn durable_in(upto: Position, number: u32) -> u64 {
    if upto.file == number { u64::from(upto.offset) } else { 0 }
}

/// Keeps a file without blocks for later; one of another size, or older than the newest used, goes.
fn take_ready(disk: &dyn Disk, files: &mut Files, ready: ReadyFile, file_bytes: u64, newest: u32) -> Result<()> {
    let path = file::path(ready.head.number);
    let len = ready.file.len().context("measure", &path)?;
    if ready.head.file_bytes != file_bytes || len != file_bytes || ready.head.number < newest {
        return remove_leftovers(disk, &[path]);
    }
    files.ready.push_back(ready);
    Ok(())
}

/// A file that was set aside because entries in it could not be read any more.
pub(super) struct SetAside {
    number: u32,
    /// The first block that does not verify.
    offset: u64,
}

impl SetAside {
    /// Looks where the file is bad; unlike one that counts it need not have a header.
    pub(super) fn look(disk: &dyn Disk, number: u32) -> Result<SetAside> {
        let Ok(ready) = headed_at(disk, number, file::aside_path(number)) else {
            return Ok(SetAside { number, offset: 0 });
        };
        let (mut scan, mut offset) = (Scan::new(ready.head, &*ready.file), FILE_HEAD);
        while let Found::Block(head, _) = scan.at(offset)? {
            offset += head.stride();
        }
        Ok(SetAside { number, offset })
    }

    pub(super) fn path(&self) -> String {
        file::aside_path(self.number)
    }

    /// Says that entries are lost with it.
    pub(super) fn rot(&self, affected: &str) -> Error {
        let what = "entries that were durable could not be read when they were to be copied; the file was set aside";
        rot_in_file(self.path(), self.offset, what, affected)
    }
}

pub(crate) fn rot(number: u32, offset: u64, what: &str, affected: &str) -> Error {
    rot_in_file(file::path(number), offset, what, affected)
}

pub(crate) fn rot_in_file(path: String, offset: u64, what: &str, affected: &str) -> Error {
    Error::Rot { path, offset, what: what.to_owned(), affected: affected.to_owned(), repair: REPAIR.to_owned() }
}
