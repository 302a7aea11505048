//! Ready files: made, zero-written and synced (or recycled) before they are needed.
//!
//! What always holds: at most one job prepares files; files are used in the order of their numbers and
//! recycled oldest first; a file has its final name only once header, content and names are synced. While a
//! reserve file is missing and could not be made, [`Files::has_room`] says no: space is certain before anything is accepted,
//! so the writer never meets a full disk.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::io::{Context, DataFile, Disk};
use crate::{Error, Result};

use super::file::{self, DIRECTORY, FILE_HEAD, FileHead};
use super::state::Shared;

/// Zeros are written in steps of this size, so that a node that closes need not wait for a whole file.
const ZERO_STEP_BYTES: usize = 1 << 20;
/// Zeros are synced this often, so that the writer's syncs do not wait behind a long one.
const ZERO_SYNC_STEPS: u64 = 4;

/// The journal's files.
#[derive(Default)]
pub(crate) struct Files {
    /// Files that hold blocks, by number.
    pub used: HashMap<u32, Arc<dyn DataFile>>,
    /// Ready to be written, in order.
    pub ready: VecDeque<ReadyFile>,
    /// Files nobody needs any more, oldest first.
    pub retired: VecDeque<(u32, Arc<dyn DataFile>)>,
    /// The number of the next file to be made.
    pub next_number: u32,
    /// Why the last attempt to make a file failed, until one succeeds.
    pub failure: Option<String>,
    /// Whether a job is at work.
    pub preparing: bool,
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

    /// Takes out of use all files before `needed`.
    pub fn retire_before(&mut self, needed: u32) {
        let mut gone: Vec<u32> = self.used.keys().copied().filter(|number| *number < needed).collect();
        gone.sort_unstable();
        for number in gone {
            self.retired.extend(self.used.remove(&number).map(|file| (number, file)));
        }
    }

    /// What is to be done to have `reserve` files ready. As many retired ones are kept: to recycle a file costs
    /// two syncs, to make one costs writing all of it.
    fn next_step(&mut self, reserve: usize) -> Option<Step> {
        if self.ready.len() < reserve {
            let retired = self.take_retired();
            let number = take_number(self);
            Some(match retired {
                Some((old, file)) => Step::Recycle { number, old, file },
                None => Step::Create { number },
            })
        } else if self.retired.len() > reserve {
            self.take_retired().map(|(old, _)| Step::Remove { old })
        } else {
            None
        }
    }

    /// The oldest retired file, once its last reader is gone.
    fn take_retired(&mut self) -> Option<(u32, Arc<dyn DataFile>)> {
        let (_, file) = self.retired.front()?;
        if Arc::strong_count(file) > 1 {
            return None;
        }
        self.retired.pop_front()
    }
}

/// Starts a job that fills the reserve, unless one is at work or nothing is to be done.
pub(crate) fn top_up(shared: &Arc<Shared>) {
    {
        let mut state = shared.state.lock();
        let reserve = shared.options.reserve_files;
        let idle = state.files.ready.len() >= reserve && state.files.retired.len() <= reserve;
        if state.files.preparing || idle || state.running().is_err() {
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
    Recycle { number: u32, old: u32, file: Arc<dyn DataFile> },
    Remove { old: u32 },
}

impl Job {
    fn run(mut self) {
        while let Some(step) = self.next() {
            let result = step.run(&self.shared);
            let mut state = self.shared.state.lock();
            match result {
                Ok(ready) => {
                    state.files.failure = None;
                    state.files.ready.extend(ready);
                }
                Err(error) => {
                    if state.files.failure.is_none() {
                        tracing::error!(%error, "no further journal file can be made");
                    }
                    state.files.failure = Some(error.to_string());
                    return;
                }
            }
            self.shared.files_changed.notify_all();
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
    fn run(self, shared: &Shared) -> Result<Option<ReadyFile>> {
        let disk = &*shared.disk;
        match self {
            Step::Create { number } => {
                let result = create(shared, number, || shared.state.lock().running());
                if result.is_err() {
                    // Best effort: what is left is removed at the next start.
                    let _ = disk.remove(&file::preparing_path(number));
                }
                result.map(Some)
            }
            Step::Recycle { number, old, file } => {
                let from = file::path(old);
                if file.len().context("measure", &from)? != shared.options.file_bytes {
                    return Step::Remove { old }.run(shared);
                }
                recycle(shared, number, &from, file).map(Some)
            }
            Step::Remove { old } => {
                let path = file::path(old);
                disk.remove(&path).context("remove", &path)?;
                disk.sync_dir(DIRECTORY).context("sync", DIRECTORY)?;
                Ok(None)
            }
        }
    }
}

/// Makes a file of zeros; ends early once `go_on` says so.
fn create(shared: &Shared, number: u32, go_on: impl Fn() -> io::Result<()>) -> Result<ReadyFile> {
    let path = file::preparing_path(number);
    let file = shared.disk.create(&path).context("create", &path)?;
    let file_bytes = shared.options.file_bytes;
    file.allocate(file_bytes).context("take space for", &path)?;
    let zeros = vec![0; ZERO_STEP_BYTES];
    let mut offset = FILE_HEAD;
    while offset < file_bytes {
        let step = (file_bytes - offset).min(ZERO_STEP_BYTES as u64);
        file.write_at(&zeros[..step as usize], offset).context("write", &path)?;
        offset += step;
        if (offset / ZERO_STEP_BYTES as u64).is_multiple_of(ZERO_SYNC_STEPS) {
            file.sync_data().context("sync", &path)?;
            go_on().context("finish", &path)?;
        }
    }
    finish(shared, number, file)
}

/// The names first, durably: a file that is found under its old name still has its old content.
fn recycle(shared: &Shared, number: u32, from: &str, file: Arc<dyn DataFile>) -> Result<ReadyFile> {
    shared.disk.rename(from, &file::preparing_path(number)).context("rename", from)?;
    shared.disk.sync_dir(DIRECTORY).context("sync", DIRECTORY)?;
    finish(shared, number, file)
}

/// Writes the header, syncs, gives the final name.
fn finish(shared: &Shared, number: u32, file: Arc<dyn DataFile>) -> Result<ReadyFile> {
    let (from, to) = (file::preparing_path(number), file::path(number));
    let salt = file::salt(shared.options.salt_seed, number);
    let head = FileHead { salt, number, file_bytes: shared.options.file_bytes };
    file.write_at(&head.encode(), 0).context("write", &from)?;
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
