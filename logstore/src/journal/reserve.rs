//! Ready files: made, zero-written and synced (or recycled) before they are needed.
//!
//! What always holds: at most one job prepares files; files are used in the order of their numbers and give up
//! their names oldest first, whatever fails (one that stayed while a younger one went would be a gap in the chain);
//! a file has its final name only once header, content and names are synced. While a
//! reserve file is missing and could not be made, [`Files::has_room`] says no: space is certain before anything is accepted,
//! so the writer never meets a full disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use crate::io::{Context, DataFile, Disk, Part, Parts};
use crate::{Error, Result};

use super::file::{self, DIRECTORY, FILE_HEAD, FileHead};
use super::position::Position;
use super::recovery;
use super::state::Shared;

/// Zeros are written in steps of this size, so that a node that closes need not wait for a whole file.
const ZERO_STEP_BYTES: usize = 1 << 20;
/// Zeros are synced this often, so that the writer's syncs do not wait behind a long one.
const ZERO_SYNC_STEPS: u64 = 4;

/// After so many files begun without reaching the peak again it is one less.
const PEAK_LASTS_FILES: u32 = 32;

/// The journal's files.
#[derive(Default)]
pub(crate) struct Files {
    /// Files that hold blocks, by number.
    pub used: BTreeMap<u32, ReadyFile>,
    /// Ready to be written, in order.
    pub ready: VecDeque<ReadyFile>,
    /// Files nobody needs any more, oldest first.
    pub retired: VecDeque<Retired>,
    /// Files that hold nothing live but entries that cannot be read: kept under another name, for those who repair.
    pub aside: Vec<Retired>,
    /// The number of the next file to be made.
    pub next_number: u32,
    /// Why the last attempt to make a file failed, until one succeeds.
    pub failure: Option<String>,
    /// Whether names were changed and could not be synced: that comes first.
    pub unsynced_names: bool,
    /// Whether a job is at work.
    pub preparing: bool,
    /// Whether nothing of a file's former life may be left when it is used again.
    pub zeroes: bool,
    /// The oldest life of the file that the job has in hand; 0: none.
    pub in_hand: u32,
    /// How many files have been in use at once lately.
    pub peak: usize,
    /// Files begun since the peak was last reached or lowered.
    pub begun_below_peak: u32,
}

/// A file nobody needs any more, under its name still.
pub(crate) struct Retired {
    number: u32,
    /// The oldest life of it whose bytes it may hold; 0: none.
    oldest_life: u32,
    file: Arc<dyn DataFile>,
    way: Way,
}

/// Where a file goes that nobody needs any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It is used again, or removed.
    Away,
    /// Entries in it cannot be read: it is to have another name.
    Aside,
    /// It has that name.
    IsAside,
}

impl Retired {
    fn of(ready: ReadyFile, way: Way) -> Retired {
        Retired { number: ready.head.number, oldest_life: ready.head.oldest_life(), file: ready.file, way }
    }

    fn path(&self) -> String {
        if self.way == Way::IsAside { file::aside_path(self.number) } else { file::path(self.number) }
    }
}

/// A file that can be written at once.
#[derive(Clone)]
pub(crate) struct ReadyFile {
    pub head: FileHead,
    pub file: Arc<dyn DataFile>,
}

impl Files {
    /// Whether the space for further appends is certain.
    pub fn has_room(&self, reserve: usize) -> bool {
        self.failure.is_none() || self.ready.len() >= reserve
    }

    /// Takes a file into use.
    pub fn begin(&mut self, ready: ReadyFile) {
        self.used.insert(ready.head.number, ready);
        self.begun_below_peak += 1;
        if self.used.len() >= self.peak {
            (self.peak, self.begun_below_peak) = (self.used.len(), 0);
        } else if self.begun_below_peak == PEAK_LASTS_FILES {
            (self.peak, self.begun_below_peak) = (self.peak - 1, 0);
        }
    }

    /// Takes out of use all files before `needed`; of those that are `rotten` nothing is overwritten.
    pub fn retire_before(&mut self, needed: u32, rotten: &BTreeSet<u32>) {
        let needed = self.used.split_off(&needed);
        let gone = std::mem::replace(&mut self.used, needed);
        let way = |number| if rotten.contains(&number) { Way::Aside } else { Way::Away };
        self.retired.extend(gone.into_iter().map(|(number, ready)| Retired::of(ready, way(number))));
        self.retired.extend(self.aside.extract_if(.., |aside| !rotten.contains(&aside.number)));
    }

    /// Rot at a place of a file, whatever its name is by now.
    pub fn rot_at(&self, at: Position, what: &str, affected: &str) -> Error {
        let is_aside = self.aside.iter().any(|aside| aside.number == at.file);
        let path = if is_aside { file::aside_path(at.file) } else { file::path(at.file) };
        recovery::rot_in_file(path, u64::from(at.offset), what, affected)
    }

    /// The oldest file of which any byte may be left, under whichever name.
    pub fn oldest_life(&self) -> u32 {
        let used = self.used.values().map(|used| used.head.oldest_life());
        let ready = self.ready.iter().map(|ready| ready.head.remains);
        let retired = self.retired.iter().chain(&self.aside);
        let lives = used.chain(ready).chain(retired.map(|retired| retired.oldest_life)).chain([self.in_hand]);
        lives.filter(|life| *life != 0).min().unwrap_or(self.next_number)
    }

    /// Whether something has to be tried again after a while: a step failed, or a file that is to be zeroed has a reader.
    pub fn wants_retry(&self, reserve: usize) -> bool {
        self.failure.is_some() || (self.zeroes && !self.preparing && !self.is_complete(reserve))
    }

    /// Whether nothing is to be done.
    fn is_complete(&self, reserve: usize) -> bool {
        let clean = !self.zeroes || self.ready.iter().all(|ready| ready.head.remains == 0);
        self.ready.len() >= reserve && self.retired.is_empty() && !self.unsynced_names && clean
    }

    /// Up to how many files retired ones are made ready again: shards are sealed about the same time, and the files that
    /// they give back together are needed again before they are sealed next. Only as many as are sure to be needed, if they are to
    /// be without a trace.
    fn ready_max(&self, reserve: usize) -> usize {
        if self.zeroes { reserve } else { reserve + reserve.max(self.peak.saturating_sub(self.used.len())) }
    }

    /// What is to be done to have `reserve` files ready, and none retired: to recycle a file costs two syncs, to make
    /// one costs writing all of it, and a start reads what is retired.
    fn next_step(&mut self, reserve: usize) -> Option<Step> {
        let step = self.choose_step(reserve);
        self.in_hand = match &step {
            Some(Step::Recycle { old, .. } | Step::Remove { old } | Step::SetAside { old }) => old.oldest_life,
            _ => 0,
        };
        step
    }

    fn choose_step(&mut self, reserve: usize) -> Option<Step> {
        if self.unsynced_names {
            Some(Step::SyncNames)
        } else if self.retired.front().is_some_and(|oldest| oldest.way == Way::Aside) {
            self.retired.pop_front().map(|old| Step::SetAside { old })
        } else if self.ready.len() < reserve {
            let retired = self.take_retired();
            let number = take_number(self);
            Some(match retired {
                Some(old) => Step::Recycle { number, old },
                None => Step::Create { number },
            })
        } else if !self.retired.is_empty() {
            let old = self.take_retired()?;
            let is_needed = self.ready.len() < self.ready_max(reserve);
            Some(if is_needed { Step::Recycle { number: take_number(self), old } } else { Step::Remove { old } })
        } else if self.zeroes {
            self.take_unclean().map(|old| Step::Recycle { number: take_number(self), old })
        } else {
            None
        }
    }

    /// A ready file that holds bytes of a former life.
    fn take_unclean(&mut self) -> Option<Retired> {
        let place = self.ready.iter().position(|ready| ready.head.remains != 0)?;
        let ReadyFile { head, file } = self.ready.remove(place)?;
        Some(Retired { number: head.number, oldest_life: head.remains, file, way: Way::Away })
    }

    /// The oldest retired file, once its last reader is gone.
    fn take_retired(&mut self) -> Option<Retired> {
        let oldest = self.retired.front()?;
        if Arc::strong_count(&oldest.file) > 1 {
            return None;
        }
        self.retired.pop_front()
    }

    fn note(&mut self, failed: Failed) {
        if self.failure.is_none() {
            tracing::error!(error = %failed.error, "no further journal file can be made");
        }
        self.failure = Some(failed.error.to_string());
        self.in_hand = 0;
        self.unsynced_names |= failed.unsynced_names;
        if let Some(kept) = failed.kept {
            self.retired.push_front(kept);
        }
    }
}

/// Starts a job that fills the reserve, unless one is at work or nothing is to be done.
pub(crate) fn top_up(shared: &Arc<Shared>) {
    {
        let mut state = shared.state.lock();
        let reserve = shared.options.reserve_files;
        if state.files.preparing || state.running().is_err() {
            return;
        }
        if state.files.is_complete(reserve) {
            state.files.failure = None;
            return;
        }
        state.files.preparing = true;
    }
    let job = Job { shared: shared.clone(), ended: false };
    shared.options.executor.run(Box::new(move || job.run()));
}

/// Makes one file on the caller's thread; for a first start, and when the reserve is used up.
pub(crate) fn prepare_now(shared: &Shared, number: u32) -> Result<ReadyFile> {
    create(shared, number, || Ok(()))
}

/// Ends, on whichever path, with `preparing` false: who waits for a file must not wait for a job that was
/// dropped unrun.
struct Job {
    shared: Arc<Shared>,
    ended: bool,
}

/// One thing the job does.
enum Step {
    Create { number: u32 },
    Recycle { number: u32, old: Retired },
    Remove { old: Retired },
    SetAside { old: Retired },
    SyncNames,
}

/// A step that failed, and what has to be done about it.
struct Failed {
    error: Box<Error>,
    /// The file that was to go and still has its name.
    kept: Option<Retired>,
    unsynced_names: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed { error: Box::new(error), kept: None, unsynced_names: false }
    }
}

impl Job {
    fn run(mut self) {
        while let Some(step) = self.next() {
            let result = step.run(&self.shared);
            let files = &mut self.shared.state.lock().files;
            match result {
                Ok(ready) => {
                    (files.failure, files.in_hand) = (None, 0);
                    files.ready.extend(ready);
                }
                Err(failed) => return files.note(failed),
            }
            self.shared.files_changed.notify_all();
            self.shared.work.ring();
        }
    }

    fn next(&mut self) -> Option<Step> {
        let mut state = self.shared.state.lock();
        let step =
            if state.running().is_ok() { state.files.next_step(self.shared.options.reserve_files) } else { None };
        if step.is_none() {
            // Under the same lock as the look: a request that comes after it starts another job.
            state.files.preparing = false;
            self.ended = true;
            self.shared.files_changed.notify_all();
        }
        step
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.state.lock().files.preparing = false;
            self.shared.files_changed.notify_all();
        }
    }
}

pub(crate) fn take_number(files: &mut Files) -> u32 {
    files.next_number += 1;
    files.next_number - 1
}

impl Step {
    fn run(self, shared: &Shared) -> std::result::Result<Option<ReadyFile>, Failed> {
        match self {
            Step::Create { number } => Ok(create(shared, number, || shared.state.lock().running()).map(Some)?),
            Step::Recycle { number, old } => match old.file.len().context("measure", &old.path()) {
                Ok(len) if len == shared.options.file_bytes => recycle(shared, number, old).map(Some),
                Ok(_) => remove(shared, old).map(|()| None),
                Err(error) => Err(Failed { kept: Some(old), ..error.into() }),
            },
            Step::Remove { old } => remove(shared, old).map(|()| None),
            Step::SetAside { old } => set_aside(shared, old).map(|()| None),
            Step::SyncNames => {
                sync_names(shared)?;
                shared.state.lock().files.unsynced_names = false;
                Ok(None)
            }
        }
    }
}

fn remove(shared: &Shared, old: Retired) -> std::result::Result<(), Failed> {
    give_up_name(old, "remove", |path| shared.disk.remove(path))?;
    sync_names(shared)
}

/// Gives the file the name of one that is kept. It is noted before the name is synced: whichever a crash leaves, it is found.
fn set_aside(shared: &Shared, old: Retired) -> std::result::Result<(), Failed> {
    let (number, oldest_life, to) = (old.number, old.oldest_life, file::aside_path(old.number));
    let file = give_up_name(old, "rename", |path| shared.disk.rename(path, &to))?;
    tracing::error!(path = to, "a journal file with entries that cannot be read is set aside");
    shared.state.lock().files.aside.push(Retired { number, oldest_life, file, way: Way::IsAside });
    sync_names(shared)
}

/// The names first, durably: a file that is found under its old name still has its old content.
fn recycle(shared: &Shared, number: u32, old: Retired) -> std::result::Result<ReadyFile, Failed> {
    let to = file::preparing_path(number);
    let (oldest_life, zeroes) = (old.oldest_life, shared.state.lock().files.zeroes);
    let file = give_up_name(old, "rename", |path| shared.disk.rename(path, &to))?;
    let made = sync_names(shared).and_then(|()| {
        if zeroes {
            write_zeros(shared, &*file, &to, || shared.state.lock().running())?;
        }
        Ok(finish(shared, number, file, if zeroes { 0 } else { oldest_life })?)
    });
    made.inspect_err(|_| remove_draft(shared, number))
}

/// After an error the file is kept, to be tried again before a younger one goes; unless it has no name any more.
fn give_up_name(
    old: Retired,
    operation: &'static str,
    change: impl FnOnce(&str) -> io::Result<()>,
) -> std::result::Result<Arc<dyn DataFile>, Failed> {
    let path = old.path();
    match change(&path) {
        Ok(()) => Ok(old.file),
        Err(source) => {
            let kept = (source.kind() != io::ErrorKind::NotFound).then_some(old);
            Err(Failed { kept, ..Error::Io { operation, path, source }.into() })
        }
    }
}

fn sync_names(shared: &Shared) -> std::result::Result<(), Failed> {
    let synced = shared.disk.sync_dir(DIRECTORY).context("sync", DIRECTORY);
    synced.map_err(|error| Failed { unsynced_names: true, ..error.into() })
}

/// Best effort: what is left of a file that could not be finished is removed at the next start.
fn remove_draft(shared: &Shared, number: u32) {
    let _ = shared.disk.remove(&file::preparing_path(number));
}

/// Makes a file of zeros; ends early once `go_on` says so.
fn create(shared: &Shared, number: u32, go_on: impl Fn() -> io::Result<()>) -> Result<ReadyFile> {
    let path = file::preparing_path(number);
    let file = shared.disk.create(&path).context("create", &path)?;
    let made = write_zeros(shared, &*file, &path, go_on).and_then(|()| finish(shared, number, file, 0));
    made.inspect_err(|_| remove_draft(shared, number))
}

fn write_zeros(shared: &Shared, file: &dyn DataFile, path: &str, go_on: impl Fn() -> io::Result<()>) -> Result<()> {
    let file_bytes = shared.options.file_bytes;
    file.allocate(file_bytes).context("take space for", path)?;
    let zeros = vec![0; ZERO_STEP_BYTES];
    let mut offset = FILE_HEAD;
    while offset < file_bytes {
        let step = (file_bytes - offset).min(ZERO_STEP_BYTES as u64);
        file.write_as(&zeros[..step as usize], offset, Parts::all(Part::JournalZeros)).context("write", path)?;
        offset += step;
        if (offset / ZERO_STEP_BYTES as u64).is_multiple_of(ZERO_SYNC_STEPS) {
            file.sync_data().context("sync", path)?;
            go_on().context("finish", path)?;
        }
    }
    Ok(())
}

/// Writes the header, syncs, gives the final name.
fn finish(shared: &Shared, number: u32, file: Arc<dyn DataFile>, remains: u32) -> Result<ReadyFile> {
    let (from, to) = (file::preparing_path(number), file::path(number));
    let salt = file::salt(shared.options.salt_seed, number);
    let head = FileHead { salt, number, remains, file_bytes: shared.options.file_bytes, journal: shared.journal };
    file.write_as(&head.encode(), 0, Parts::all(Part::JournalCheckpoints)).context("write", &from)?;
    file.sync_data().context("sync", &from)?;
    shared.disk.rename(&from, &to).context("rename", &from)?;
    shared.disk.sync_dir(DIRECTORY).context("sync", DIRECTORY)?;
    Ok(ReadyFile { head, file })
}

/// Removes what an interrupted preparation left.
pub(crate) fn remove_leftovers(disk: &dyn Disk, paths: &[String]) -> Result<()> {
    for path in paths {
        disk.remove(path).context("remove", path)?;
    }
    match paths {
        [] => Ok(()),
        _ => disk.sync_dir(DIRECTORY).context("sync", DIRECTORY),
    }
}

impl From<&Error> for io::Error {
    fn from(error: &Error) -> io::Error {
        let kind = match error {
            Error::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error.to_string())
    }
}
