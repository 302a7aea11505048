//! Looks at a journal that no node has open: which files there are, what their blocks hold, whether all of it verifies.
//!
//! What always holds: nothing is written, renamed or removed; what is torn and what is rot is decided by recovery's own
//! code, so that a look says what a start would; one window of a file is in memory at a time, and for a replay the
//! places of the entries, as in a running node.

use std::collections::BTreeMap;

use crate::id::{LogId, ShardId};
use crate::io::{Context, Disk};
use crate::{Error, Result};

use super::block::{BLOCK_HEAD, BlockHead, BlockKind};
use super::file::{self, DIRECTORY, FILE_HEAD, Name};
use super::frame::{FrameHead, FrameKind, Frames};
use super::recovery::{Candidate, SetAside, candidate, check_chain, replay_all, rot};
use super::scan::{Found, Scan};
use super::{EntryKind, ShardLog};

/// A journal that is looked at.
pub struct JournalInspection {
    files: Vec<JournalFile>,
    /// Files with blocks, oldest first.
    used: Vec<Candidate>,
    aside: Vec<SetAside>,
    damaged: Vec<Error>,
}

/// A file in the journal's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalFile {
    /// Its path, relative to the data directory.
    pub path: String,
    /// Its number; `None` if its name states none that counts.
    pub number: Option<u32>,
    /// Its length.
    pub bytes: u64,
    /// What it is for.
    pub role: JournalFileRole,
    /// The oldest of its former lives whose bytes may still be in it; 0: none.
    pub remains: u32,
}

/// What a file in the journal's folder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalFileRole {
    /// It has blocks.
    Used,
    /// It waits to be used.
    Ready,
    /// It was being made; a start removes it.
    Preparing,
    /// Entries in it could not be read any more when all else was copied; kept for who repairs it, until they are purged.
    SetAside,
    /// Its header does not verify.
    Damaged,
    /// It is none of the journal's.
    Foreign,
}

/// A block that verifies.
pub struct JournalBlock<'a> {
    head: BlockHead,
    body: &'a [u8],
}

/// A frame of a block.
#[derive(Clone, Copy, Debug)]
pub struct JournalFrame<'a> {
    /// Where it begins in the file.
    pub offset: u64,
    /// "entry", "copy", "vote", "committed", "truncate", "purge" or "first".
    pub kind: &'static str,
    /// What the payload is, if it is an entry or a copy of one.
    pub entry: Option<EntryKind>,
    /// Whose.
    pub shard: ShardId,
    /// The entry's id or the mark; `None` for a vote, and for a mark that says "none".
    pub id: Option<LogId>,
    /// Opaque here.
    pub payload: &'a [u8],
}

/// What a replay of all files came to.
#[derive(Clone, Debug)]
pub struct JournalReplay {
    /// What the files add up to.
    pub shards: BTreeMap<ShardId, ShardLog>,
    /// The block at the end whose write was interrupted, if there is one.
    pub torn: Option<TornBlock>,
}

/// A block at the end whose write was interrupted; nobody was told that it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornBlock {
    /// The file, relative to the data directory.
    pub path: String,
    /// Where in it the block begins.
    pub offset: u64,
    /// How long it would have been.
    pub bytes: u32,
}

impl JournalInspection {
    /// Looks at the headers of all files. An error only if the folder cannot be read: see [`JournalInspection::damaged`].
    pub fn open(disk: &dyn Disk) -> Result<JournalInspection> {
        let mut inspection =
            JournalInspection { files: Vec::new(), used: Vec::new(), aside: Vec::new(), damaged: Vec::new() };
        for name in disk.list(DIRECTORY).context("list", DIRECTORY)? {
            inspection.look_at(disk, &name)?;
        }
        inspection
            .files
            .sort_by(|a, b| (a.number.is_none(), a.number, &a.path).cmp(&(b.number.is_none(), b.number, &b.path)));
        inspection.used.sort_by_key(|candidate| candidate.ready.head.number);
        Ok(inspection)
    }

    /// All files of the folder, those with a number first.
    pub fn files(&self) -> &[JournalFile] {
        &self.files
    }

    /// What is wrong with headers.
    pub fn damaged(&self) -> &[Error] {
        &self.damaged
    }

    /// The same, to keep.
    pub fn into_damaged(self) -> Vec<Error> {
        self.damaged
    }

    /// Walks the blocks of one file up to the first that does not verify, and states where that is. Says nothing on
    /// whether that is an end, a torn block or rot: that is [`JournalInspection::replay`]'s. `None` if the file has no blocks.
    pub fn walk(&self, number: u32, visit: &mut dyn FnMut(JournalBlock<'_>)) -> Result<Option<u64>> {
        let Some(used) = self.used.iter().find(|used| used.ready.head.number == number) else { return Ok(None) };
        let (mut scan, mut offset) = (Scan::new(used.ready.head, &*used.ready.file), FILE_HEAD);
        while let Found::Block(head, body) = scan.at(offset)? {
            visit(JournalBlock { head, body });
            if head.kind == BlockKind::Proof {
                break;
            }
            offset += head.stride();
        }
        Ok(Some(offset))
    }

    /// Follows all files as a start does, and verifies each frame besides: rot is an error that names file and offset.
    pub fn replay(&self, visit: &mut dyn FnMut(&JournalBlock<'_>)) -> Result<JournalReplay> {
        check_chain(&self.used)?;
        let (replay, tail, torn) = replay_all(&self.used, &mut |head, body| {
            let block = JournalBlock { head: *head, body };
            block.verify_frames()?;
            visit(&block);
            Ok(())
        })?;
        let torn = tail.zip(torn).map(|(tail, bytes)| TornBlock {
            path: file::path(tail.file.head.number),
            offset: u64::from(tail.offset),
            bytes,
        });
        let shards = replay.finish(&self.aside)?.into_iter().map(|(shard, state)| (shard, state.log())).collect();
        Ok(JournalReplay { shards, torn })
    }

    fn look_at(&mut self, disk: &dyn Disk, name: &str) -> Result<()> {
        let path = format!("{DIRECTORY}/{name}");
        let bytes = disk.open(&path).and_then(|file| file.len()).context("open", &path)?;
        let mut found = JournalFile { path, number: None, bytes, role: JournalFileRole::Foreign, remains: 0 };
        match file::parse_name(name) {
            Name::Foreign => {}
            Name::Preparing => found.role = JournalFileRole::Preparing,
            Name::Aside(number) => {
                (found.number, found.role) = (Some(number), JournalFileRole::SetAside);
                self.aside.push(SetAside::look(disk, number)?);
            }
            Name::File(number) => {
                found.number = Some(number);
                self.look_inside(disk, number, &mut found);
            }
        }
        self.files.push(found);
        Ok(())
    }

    fn look_inside(&mut self, disk: &dyn Disk, number: u32, found: &mut JournalFile) {
        match candidate(disk, number) {
            Ok(candidate) => {
                found.remains = candidate.ready.head.remains;
                found.role = if candidate.before.is_some() { JournalFileRole::Used } else { JournalFileRole::Ready };
                self.used.extend(candidate.before.is_some().then_some(candidate));
            }
            Err(error) => {
                found.role = JournalFileRole::Damaged;
                self.damaged.push(error);
            }
        }
    }
}

impl<'a> JournalBlock<'a> {
    /// The number of the file it lies in.
    pub fn file(&self) -> u32 {
        self.head.position.file
    }

    /// Where it begins in its file.
    pub fn offset(&self) -> u64 {
        u64::from(self.head.position.offset)
    }

    /// Bytes of header and frames.
    pub fn bytes(&self) -> u32 {
        self.head.len
    }

    /// "commit", "checkpoint" or "proof".
    pub fn kind(&self) -> &'static str {
        match self.head.kind {
            BlockKind::Commit => "commit",
            BlockKind::Checkpoint => "checkpoint",
            BlockKind::Proof => "proof",
        }
    }

    /// How many frames it says it has.
    pub fn frame_count(&self) -> u32 {
        self.head.frames
    }

    /// What was durable when it was built: everything below this file and offset.
    pub fn durable_upto(&self) -> (u32, u32) {
        (self.head.durable_upto.file, self.head.durable_upto.offset)
    }

    /// Its frames, as far as they can be read.
    pub fn frames(&self) -> impl Iterator<Item = JournalFrame<'a>> + use<'a> {
        let begin = self.offset() + BLOCK_HEAD as u64;
        Frames::new(self.body)
            .map_while(|frame| frame.ok())
            .map(move |(offset, head, payload)| frame_of(begin + offset as u64, &head, payload))
    }

    /// A block's CRC covers its frames; theirs go with them when they are copied, and have to be right too.
    fn verify_frames(&self) -> Result<()> {
        for (offset, head, _) in Frames::new(self.body).map_while(|frame| frame.ok()) {
            if FrameHead::decode_verified(&self.body[offset..]).is_err() {
                let at = self.offset() + (BLOCK_HEAD + offset) as u64;
                let affected = format!("shard {} entry {}", head.shard, head.id.index);
                return Err(rot(self.file(), at, "a frame does not verify", &affected));
            }
        }
        Ok(())
    }
}

fn frame_of<'a>(offset: u64, head: &FrameHead, payload: &'a [u8]) -> JournalFrame<'a> {
    let is_entry = head.kind == FrameKind::Entry;
    let kind = match head.kind {
        FrameKind::Entry if head.copy => "copy",
        FrameKind::Entry => "entry",
        FrameKind::Vote => "vote",
        FrameKind::Committed => "committed",
        FrameKind::Truncate => "truncate",
        FrameKind::Purge => "purge",
        FrameKind::First => "first",
    };
    let id = if is_entry { Some(head.id) } else { head.marked() };
    let entry = head.entry_kind().filter(|_| is_entry);
    JournalFrame { offset, kind, entry, shard: head.shard, id, payload }
}
