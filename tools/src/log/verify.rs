//! `skein log verify`: whether everything in the directory is what was written.
//!
//! What always holds: nothing is changed; what a crash leaves (a torn block at the journal's end, files that are not listed) is
//! fine and said so; all else that is not right is named with file and offset, and what does not depend on it is verified all the same.

use std::sync::Arc;

use clap::Args as ClapArgs;
use logstore::id::{LogIndex, ShardId};
use logstore::segment::{Segment, SegmentInfo, shard_dir};
use logstore::{Error, JournalFileRole, Manifest, SegmentSet, ShardLog};
use sequencer::state::Rebuild;
use serde::Serialize;

mod store;

use super::conversations;
use super::offline::{DataArgs, Offline};
use super::progress::Progress;
use crate::exit::Failure;
use crate::output::{Printer, Row};

/// Arguments of `verify`.
#[derive(ClapArgs)]
pub struct Args {
    /// Also make each shard's state of its deltas, as a start does, and compare it with the directories; takes the memory of a
    /// node
    #[arg(long)]
    deep: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// What was found of a file.
#[derive(Serialize)]
struct Finding {
    /// "sound", "torn", "leftover" or "unused" (all fine), "rot" (not fine).
    verdict: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    words: String,
}

impl Row for Finding {
    const COLUMNS: &'static [&'static str] = &["verdict", "file", "offset", "what"];

    fn cells(&self) -> Vec<String> {
        let offset = self.offset.map(|offset| offset.to_string()).unwrap_or_default();
        vec![self.verdict.to_owned(), self.path.clone(), offset, self.words.clone()]
    }
}

/// Verifies everything, prints what was found, and fails if anything is not fine.
pub fn run(args: Args, printer: &mut Printer) -> Result<(), Failure> {
    let offline = Offline::open(&args.data)?;
    let mut check = Check { offline: &offline, findings: Vec::new(), deep: args.deep };
    let mut sealed = Vec::new();
    for shard in offline.shards()? {
        sealed.push((shard, check.shard(shard)?));
    }
    check.other_stores(&sealed)?;
    check.journal(&sealed)?;
    printer.list(&check.findings)?;
    match check.findings.iter().filter(|finding| finding.verdict == ROT).count() {
        0 => Ok(()),
        bad => Err(Failure::Mismatch(format!(
            "{bad} of {} findings are not fine; nothing was changed",
            check.findings.len()
        ))),
    }
}

const SOUND: &str = "sound";
const TORN: &str = "torn";
const LEFTOVER: &str = "leftover";
const UNUSED: &str = "unused";
const ROT: &str = "rot";

struct Check<'a> {
    offline: &'a Offline,
    findings: Vec<Finding>,
    deep: bool,
}

impl Check<'_> {
    /// Verifies a shard's sealed files; states up to which entry they reach, if that is known.
    fn shard(&mut self, shard: ShardId) -> Result<Option<LogIndex>, Failure> {
        let manifest = match Manifest::load(&*self.offline.disk, shard) {
            Ok(manifest) => manifest,
            Err(error) => {
                self.bad(&error);
                return Ok(None);
            }
        };
        let listed = manifest.as_ref().map_or(&[][..], Manifest::segments);
        let progress = Progress::begin("segments", listed.iter().map(|info| info.file_bytes).sum());
        let mut is_whole = true;
        for info in listed {
            is_whole &= self.segment(info);
            progress.add(info.file_bytes);
        }
        self.leftovers(shard, listed)?;
        let set = if is_whole { self.together(shard) } else { None };
        if let Some(manifest) = &manifest {
            self.store(manifest, set.as_ref());
        }
        let seal = manifest.as_ref().map(|manifest| manifest.checkpoint().map(|checkpoint| checkpoint.seal.index));
        Ok(Some(seal.flatten().unwrap_or_default()))
    }

    /// Verifies a segment by itself: every byte of it.
    fn segment(&mut self, info: &SegmentInfo) -> bool {
        let Offline { disk, cache, .. } = self.offline;
        let verified = SegmentSet::open_listed(disk, info, cache).map(Arc::new).and_then(|segment| segment.verify());
        match &verified {
            Ok(()) => {
                let words = format!("{} records, {} rows", info.counts.records, info.counts.delta_rows);
                self.fine(SOUND, info.path(), words);
            }
            Err(error) => self.bad(error),
        }
        verified.is_ok()
    }

    /// Verifies what a shard's segments say of each other; gives them if they are one log.
    fn together(&mut self, shard: ShardId) -> Option<SegmentSet> {
        let verified = SegmentSet::open(&self.offline.disk, shard, &self.offline.cache).and_then(|set| {
            set.segments().iter().try_for_each(|segment: &Arc<Segment>| set.verify_links(segment))?;
            Ok(set)
        });
        match &verified {
            Err(error) => self.bad(error),
            Ok(set) if self.deep && !set.segments().is_empty() => self.state(set),
            Ok(set) => {
                let words = format!("{} segments, one log", set.segments().len());
                self.fine(SOUND, Manifest::path(shard), words);
            }
        }
        verified.ok()
    }

    /// Verifies that the deltas are a state, and that the state and the directories know the same conversations.
    fn state(&mut self, set: &SegmentSet) {
        let path = Manifest::path(set.manifest().shard());
        match compare_state(set) {
            Ok(conversations) => {
                let words =
                    format!("{} segments, one log, one state of {conversations} conversations", set.segments().len());
                self.fine(SOUND, path, words);
            }
            Err(Failure::Failed(error)) => match error.downcast_ref::<Error>() {
                Some(error) => self.bad(error),
                None => self.rot(path, None, format!("{error:#}")),
            },
            Err(other) => self.rot(path, None, format!("{other:?}")),
        }
    }

    fn leftovers(&mut self, shard: ShardId, listed: &[SegmentInfo]) -> Result<(), Failure> {
        let dir = shard_dir(shard);
        let listed: Vec<_> = listed.iter().map(SegmentInfo::path).chain([Manifest::path(shard)]).collect();
        for name in self.offline.disk.list(&dir)? {
            let path = format!("{dir}/{name}");
            if !listed.contains(&path) {
                self.fine(
                    LEFTOVER,
                    path,
                    "not listed: left by a crash, or not ours; a start removes what is ours".into(),
                );
            }
        }
        Ok(())
    }

    /// Verifies the journal, and that it meets the segments.
    fn journal(&mut self, sealed: &[(ShardId, Option<LogIndex>)]) -> Result<(), Failure> {
        let journal = self.offline.journal()?;
        journal.damaged().iter().for_each(|error| self.bad(error));
        let leftover =
            |role| matches!(role, JournalFileRole::Preparing | JournalFileRole::SetAside | JournalFileRole::Foreign);
        for file in journal.files().iter().filter(|file| leftover(file.role)) {
            self.fine(LEFTOVER, file.path.clone(), format!("{:?}", file.role).to_lowercase());
        }
        if !journal.damaged().is_empty() {
            // Without a file nobody knows what the others should follow.
            return Ok(());
        }
        let used = || journal.files().iter().filter(|file| file.role == JournalFileRole::Used);
        let progress = Progress::begin("journal", used().map(|file| file.bytes).sum());
        let replayed = journal.replay(&mut |block| progress.add(u64::from(block.bytes())));
        drop(progress);
        match replayed {
            Err(error) => self.bad(&error),
            Ok(replay) => {
                let torn = replay.torn.as_ref().map(|torn| &torn.path);
                used()
                    .filter(|file| Some(&file.path) != torn)
                    .for_each(|file| self.fine(SOUND, file.path.clone(), String::new()));
                if let Some(torn) = &replay.torn {
                    let words =
                        format!("a block of {} bytes whose write was interrupted; nobody was told of it", torn.bytes);
                    let verdict = TORN;
                    self.findings.push(Finding { verdict, path: torn.path.clone(), offset: Some(torn.offset), words });
                }
                for (shard, upto) in sealed {
                    self.meets(*shard, *upto, replay.shards.get(shard));
                }
                let unsealed = replay.shards.keys().filter(|shard| sealed.iter().all(|(known, _)| known != *shard));
                unsealed.for_each(|shard| self.meets(*shard, Some(LogIndex(0)), replay.shards.get(shard)));
            }
        }
        Ok(())
    }

    /// A Seal is synced before its segment is made, and the journal lets go only of what segments hold.
    fn meets(&mut self, shard: ShardId, sealed: Option<LogIndex>, log: Option<&ShardLog>) {
        let Some(sealed) = sealed else { return };
        let purged = log.and_then(|log| log.purged).map_or(LogIndex(0), |id| id.index);
        let last = log.and_then(|log| log.last).map_or(purged, |id| id.index);
        if !(purged <= sealed && sealed <= last) {
            let words =
                format!("segments reach up to entry {sealed}, the journal holds those after {purged} up to {last}");
            self.rot(Manifest::path(shard), None, words);
        }
    }

    fn fine(&mut self, verdict: &'static str, path: String, words: String) {
        self.findings.push(Finding { verdict, path, offset: None, words });
    }

    fn bad(&mut self, error: &Error) {
        let (path, offset) = place_of(error);
        self.rot(path, offset, error.to_string());
    }

    fn rot(&mut self, path: String, offset: Option<u64>, words: String) {
        self.findings.push(Finding { verdict: ROT, path, offset, words });
    }
}

/// Makes the state of the deltas and compares heads; states how many conversations have any.
fn compare_state(set: &SegmentSet) -> Result<u64, Failure> {
    let mut rebuild = Rebuild::new(set.manifest().shard());
    for segment in set.segments().iter().rev() {
        for row in segment.delta_rows() {
            let row = row?;
            rebuild.add(&row.key, row.value.as_deref())?;
        }
    }
    let state = rebuild.finish()?;
    let (mut conversations, mut countable, mut differing) = (0_u64, 0_u64, None);
    conversations::visit(set, |sealed| {
        conversations += 1;
        countable = countable.saturating_add(sealed.ordinal.0);
        let known = state.conversation(sealed.conversation).map(|row| row.last_seq);
        if known != Some(sealed.last) {
            differing.get_or_insert((sealed, known));
        }
    })?;
    match differing {
        // A conversation that only the state knows would have its messages missing here.
        None if countable != state.stored() => {
            let stored = state.stored();
            Err(anyhow::anyhow!("the state has counted {stored} messages, the segments hold {countable}").into())
        }
        None => Ok(conversations),
        Some((sealed, known)) => {
            let (id, last) = (sealed.conversation, sealed.last);
            Err(anyhow::anyhow!(
                "conversation {id} ends at {last} in segments and at {known:?} in the state of their deltas"
            )
            .into())
        }
    }
}

fn place_of(error: &Error) -> (String, Option<u64>) {
    match error {
        Error::Rot { path, offset, .. } | Error::SegmentRot { path, offset, .. } => (path.clone(), Some(*offset)),
        Error::Io { path, .. }
        | Error::NewerFormat { path, .. }
        | Error::NotOurs { path, .. }
        | Error::MissingSegment { path, .. }
        | Error::MissingManifest { path, .. }
        | Error::ManifestRot { path, .. }
        | Error::Misplaced { path, .. } => (path.clone(), None),
        _ => (String::new(), None),
    }
}
