//! Reads around damage: brings back what of a journal is sound, for a node that will write nothing.
//!
//! What always holds: nothing is changed. Of each shard the entries are a prefix of what its log held, and each of them is what
//! was appended: after damage a shard's log goes on only if the next entry follows the last one in the same term (the
//! leader of a term never takes back what it appended), if a checkpoint states that nothing was lost, or if a purge says that
//! segments hold all before it. Otherwise it ends where the damage began.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex};

use crate::id::{LogId, LogIndex, ShardId};
use crate::io::{Context, Disk};
use crate::{Error, Result};

use super::bell::Bell;
use super::block::{BLOCK_HEAD, BlockHead, BlockKind};
use super::file::{self, DIRECTORY, FILE_HEAD, Name};
use super::frame::{FrameHead, FrameKind, Frames};
use super::index::EntryIndex;
use super::position::{ALIGN, Position};
use super::recovery::{Candidate, SetAside, candidate_around, rot, rot_in};
use super::replay::{Replay, Replayed, bad_frame};
use super::reserve::Files;
use super::scan::{Found, Scan};
use super::state::{ShardState, Shared, State};
use super::{Journal, JournalOptions, WriterEnd};

/// What a journal has lost.
#[derive(Debug, Default)]
pub struct JournalDamage {
    /// What is wrong, file by file.
    pub found: Vec<Error>,
    /// The last sound entry of each shard whose log went on, or may have gone on, where the damage is.
    pub ends: BTreeMap<ShardId, LogIndex>,
}

/// Opens a journal for reading alone, whatever of it is damaged.
pub(super) fn open(disk: Arc<dyn Disk>, mut options: JournalOptions) -> Result<(Journal, JournalDamage)> {
    options.check()?;
    let mut around = Around::default();
    let used = around.readable(&*disk)?;
    around.replay(&used);
    let Around { found, replay, trust, aside, .. } = around;
    let mut damage = JournalDamage { found, ends: BTreeMap::new() };
    let mut states = HashMap::with_capacity(replay.shards.len());
    let mut aside = aside.into_iter();
    for (id, replayed) in replay.shards {
        let (state, is_whole) = finish(replayed);
        if !is_whole {
            let what = format!("shard {id} after entry {}", state.last.map_or(LogIndex(0), |last| last.index));
            damage.found.extend(aside.by_ref().map(|aside| aside.rot(&what)));
        }
        if !is_whole || trust.get(&id).is_some_and(|trust| *trust != Trust::Whole) {
            damage.ends.insert(id, state.last.map_or(LogIndex(0), |last| last.index));
        }
        states.insert(id, state);
    }
    let files =
        Files { used: used.into_iter().map(|used| (used.ready.head.number, used.ready)).collect(), ..Files::default() };
    let mut state = State::new(states, files, options.block_bytes_max);
    state.stopped = Some("it is only read: parts of it are damaged".to_owned());
    let shared = Arc::new(Shared {
        disk,
        options,
        journal: 0,
        state: Mutex::new(state),
        work: Bell::default(),
        files_changed: Condvar::new(),
        on_fatal: Box::new(|_| {}),
    });
    let writer = Arc::new(WriterEnd::without_thread(shared.clone()));
    Ok((Journal { shared, writer }, damage))
}

/// A replay that goes on behind damage.
#[derive(Default)]
struct Around {
    found: Vec<Error>,
    replay: Replay,
    trust: HashMap<ShardId, Trust>,
    aside: Vec<SetAside>,
    /// Whether the oldest file's checkpoint was read: it says where logs began before.
    has_begun: bool,
}

/// Whether what follows in the log of a shard can be believed to follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trust {
    #[default]
    Whole,
    /// Something may be lost after its last entry.
    Doubted,
    /// Something is lost: its log ends.
    Cut,
}

/// A shard as far as it is replayed.
struct Believed<'a> {
    replayed: &'a mut Replayed,
    trust: &'a mut Trust,
}

impl Around {
    /// The files whose header can be read, oldest first.
    fn readable(&mut self, disk: &dyn Disk) -> Result<Vec<Candidate>> {
        let mut used = Vec::new();
        for name in disk.list(DIRECTORY).context("list", DIRECTORY)? {
            let number = match file::parse_name(&name) {
                Name::File(number) => number,
                Name::Aside(number) => {
                    self.aside.push(SetAside::look(disk, number)?);
                    continue;
                }
                Name::Preparing | Name::Foreign => continue,
            };
            match candidate_around(disk, number) {
                Ok(candidate) => used.extend(candidate.before.is_some().then_some(candidate)),
                Err(error) => self.found.push(error),
            }
        }
        used.sort_by_key(|candidate| candidate.ready.head.number);
        Ok(self.of_one_journal(used))
    }

    /// A file of another journal has nothing to say in this one.
    fn of_one_journal(&mut self, used: Vec<Candidate>) -> Vec<Candidate> {
        let mut counts = BTreeMap::<u64, usize>::new();
        used.iter().for_each(|file| *counts.entry(file.ready.head.journal).or_default() += 1);
        let ours =
            counts.iter().filter(|(journal, _)| **journal != 0).max_by_key(|(_, files)| **files).map(|(id, _)| *id);
        let is_ours = |file: &Candidate| file.ready.head.journal == 0 || Some(file.ready.head.journal) == ours;
        let (kept, foreign): (Vec<_>, Vec<_>) = used.into_iter().partition(is_ours);
        let other = |file: Candidate| file::path(file.ready.head.number);
        let what = || "it is of another journal".to_owned();
        self.found.extend(foreign.into_iter().map(|file| Error::NotOurs { path: other(file), what: what() }));
        kept
    }

    fn replay(&mut self, used: &[Candidate]) {
        for (place, candidate) in used.iter().enumerate() {
            let before = place.checked_sub(1).map(|before| used[before].ready.head.number);
            let named = candidate.before.map(|before| before.file);
            if before.is_some() && named != before {
                let what = format!("file {} is gone: it lay before this one", named.unwrap_or(0));
                self.lost(rot(candidate.ready.head.number, 0, &what, "what it held alone"));
            }
            let next = used.get(place + 1).and_then(|next| next.before);
            let end = next.filter(|next| next.file == candidate.ready.head.number).map(|next| u64::from(next.offset));
            let is_newest = place + 1 == used.len();
            if let Err(error) = self.file(&mut Scan::new(candidate.ready.head, &*candidate.ready.file), end, is_newest)
            {
                self.lost(error);
            }
        }
    }

    /// Everything that follows has to prove that it does.
    fn lost(&mut self, error: Error) {
        self.found.push(error);
        self.trust.values_mut().filter(|trust| **trust == Trust::Whole).for_each(|trust| *trust = Trust::Doubted);
    }

    fn file(&mut self, scan: &mut Scan<'_>, end: Option<u64>, is_newest: bool) -> Result<()> {
        let (number, file_bytes) = (scan.head.number, scan.head.file_bytes);
        let (mut offset, mut proven) = (FILE_HEAD, 0);
        while end.is_none_or(|end| offset < end) {
            if let Found::Block(head, body) = scan.at(offset)? {
                if head.durable_upto.file == number {
                    proven = proven.max(u64::from(head.durable_upto.offset));
                }
                if head.kind == BlockKind::Proof {
                    break;
                }
                self.block(&head, number, offset, body);
                offset += head.stride();
                continue;
            }
            let next =
                scan.next_head(offset + ALIGN, end.unwrap_or(file_bytes))?.map(|head| u64::from(head.position.offset));
            if next.is_none() && end.is_none() && (offset >= proven || !is_newest) {
                return Ok(());
            }
            let error = rot_in(scan, &self.replay, offset, end.unwrap_or(file_bytes))?;
            self.lost(error);
            match next {
                Some(next) => offset = next,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn block(&mut self, head: &BlockHead, number: u32, offset: u64, body: &[u8]) {
        let begins = head.kind == BlockKind::Checkpoint && !self.has_begun;
        self.has_begun = true;
        let is_behind_damage = !self.found.is_empty() && !begins;
        for frame in Frames::new(body) {
            let (at, frame, payload) = match frame {
                Ok(frame) => frame,
                Err(bad) => return self.lost(rot(number, offset, &bad_frame(bad).what, "unknown")),
            };
            let at = Position { file: number, offset: (offset as usize + BLOCK_HEAD + at) as u32 };
            let trust = self.trust.entry(frame.shard).or_insert_with(|| first_trust(is_behind_damage, &frame));
            let mut shard = Believed { replayed: self.replay.shards.entry(frame.shard).or_default(), trust };
            match (head.kind, frame.kind) {
                (BlockKind::Checkpoint, FrameKind::Truncate) if begins => shard.replayed.begin_after(frame.marked()),
                (BlockKind::Checkpoint, FrameKind::Truncate) => shard.ends_at(frame.marked()),
                _ => shard.frame(&frame, payload, at),
            }
        }
    }
}

/// A shard that is first heard of behind damage has lost what came before, unless this is its first entry.
fn first_trust(is_behind_damage: bool, frame: &FrameHead) -> Trust {
    let is_first = frame.kind == FrameKind::Entry && frame.id.index == LogIndex(1);
    if is_behind_damage && !is_first { Trust::Cut } else { Trust::Whole }
}

impl Believed<'_> {
    /// A checkpoint states where the log ended.
    fn ends_at(&mut self, stated: Option<LogId>) {
        *self.trust = match *self.trust {
            Trust::Cut => Trust::Cut,
            _ if stated == self.replayed.marks.last => Trust::Whole,
            _ => Trust::Cut,
        };
    }

    fn frame(&mut self, head: &FrameHead, payload: &[u8], at: Position) {
        let last = self.replayed.marks.last;
        match head.kind {
            FrameKind::Entry if head.copy => {
                // One that fits nothing is of an entry that is lost.
                let _ = self.replayed.copy(head, at);
            }
            FrameKind::Entry => self.entry(head, last, at),
            FrameKind::Purge => {
                let reaches_over = last.is_none_or(|last| last.index <= head.id.index);
                let _ = self.replayed.frame(head, payload, at);
                if reaches_over {
                    *self.trust = Trust::Whole;
                }
            }
            FrameKind::Truncate => {
                let is_ours = head.marked().is_some_and(|to| self.replayed.term_of(to.index) == Some(to.term));
                let _ = self.replayed.frame(head, payload, at);
                if *self.trust == Trust::Doubted && is_ours {
                    *self.trust = Trust::Whole;
                }
            }
            FrameKind::Vote | FrameKind::Committed | FrameKind::First => {
                let _ = self.replayed.frame(head, payload, at);
            }
        }
    }

    fn entry(&mut self, head: &FrameHead, last: Option<LogId>, at: Position) {
        let follows = last.is_some_and(|last| last.index.next() == head.id.index && last.term == head.id.term);
        match *self.trust {
            Trust::Cut => return,
            Trust::Doubted if !follows => {
                *self.trust = Trust::Cut;
                return;
            }
            Trust::Doubted | Trust::Whole => *self.trust = Trust::Whole,
        }
        if self.replayed.entry(head, at).is_err() {
            *self.trust = Trust::Cut;
        }
    }
}

/// What is sound of a shard, and whether all is there that lay before the oldest file.
fn finish(mut replayed: Replayed) -> (ShardState, bool) {
    let gone = replayed.before_oldest.missing();
    if let Some(gone) = &gone {
        let last = gone.start().checked_sub(1).map(|last| LogId { index: LogIndex(last), ..LogId::default() });
        replayed.before_oldest.truncate_from(LogIndex(*gone.start()));
        replayed.index = EntryIndex::default();
        replayed.marks.last = last;
    }
    (replayed.into_state(), gone.is_none())
}
