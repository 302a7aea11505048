//! Exports that are being read: each holds the segments of one cut, so that their files stay while they are copied.
//!
//! What always holds: there are at most [`EXPORTS_MAX`]; one that nobody has asked for anything for [`IDLE`] is gone, and so
//! is what it held; a path that was not listed is not read, whatever it says.

use std::sync::{Arc, Weak};
use std::time::Duration;

use fanout::{Code, Fault};
use hashbrown::HashMap;
use logstore::id::TimeMs;
use logstore::segment::Segment;
use logstore::{Manifest, SegmentSet};
use parking_lot::Mutex;
use sequencer::Cut;
use tokio::time::Instant;

/// Each may keep files on the disk that merges would have let go.
const EXPORTS_MAX: usize = 4;
/// Longer than any pause of a command that lives.
const IDLE: Duration = Duration::from_secs(300);

/// The exports of a node.
pub struct Exports {
    idle: Duration,
    held: Mutex<HashMap<u64, Export>>,
}

impl Default for Exports {
    fn default() -> Exports {
        Exports { idle: IDLE, held: Mutex::default() }
    }
}

struct Export {
    used: Instant,
    /// `None` while segments are being made.
    content: Option<Result<Arc<Content>, Fault>>,
}

/// The files of one cut.
pub struct Content {
    /// Of each shard.
    pub sets: Vec<Arc<SegmentSet>>,
    files: Vec<ExportedFile>,
    places: HashMap<String, usize>,
}

/// A file of an export.
pub struct ExportedFile {
    /// Where it lies in a data directory.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    source: Source,
}

enum Source {
    Manifest(Vec<u8>),
    Segment(Arc<Segment>),
}

impl Exports {
    /// Takes a place for a cut to come, before it costs anything.
    pub fn begin(self: &Arc<Self>) -> Result<u64, Fault> {
        let mut held = self.held.lock();
        if held.len() >= EXPORTS_MAX {
            let what =
                format!("{EXPORTS_MAX} exports are being read: close one, or wait until it is idle for 5 minutes");
            return Err(Fault::later(Code::Busy, what, Duration::from_secs(10)));
        }
        let id = rand::random_range(1..u64::MAX);
        held.insert(id, Export { used: Instant::now(), content: None });
        drop(held);
        tokio::spawn(expire(Arc::downgrade(self), id));
        Ok(id)
    }

    /// Waits for the segments of the cut and makes them readable.
    pub async fn fill(&self, id: u64, cut: Cut) {
        let sets = cut.sealed().await;
        let content = sets.map(|sets| Arc::new(Content::new(sets))).map_err(Fault::from);
        if let Some(export) = self.held.lock().get_mut(&id) {
            (export.used, export.content) = (Instant::now(), Some(content));
        }
    }

    /// What an export holds; `None` while its segments are being made.
    pub fn content(&self, id: u64) -> Result<Option<Arc<Content>>, Fault> {
        let mut held = self.held.lock();
        let export = held.get_mut(&id).ok_or_else(|| {
            Fault::new(Code::BadField, "no such export: it was closed, or idle for more than 5 minutes; begin anew")
        })?;
        export.used = Instant::now();
        export.content.clone().transpose()
    }

    /// Lets go of one.
    pub fn close(&self, id: u64) {
        let closed = self.held.lock().remove(&id);
        // Files may go with it: not under the lock.
        drop(closed);
    }
}

/// Ends an export that is idle.
async fn expire(exports: Weak<Exports>, id: u64) {
    loop {
        let Some(exports) = exports.upgrade() else { return };
        let Some(used) = exports.held.lock().get(&id).map(|export| export.used) else { return };
        let idle = exports.idle;
        if used.elapsed() >= idle {
            tracing::info!("an export was idle for 5 minutes and is closed");
            return exports.close(id);
        }
        drop(exports);
        tokio::time::sleep_until(used + idle).await;
    }
}

impl Content {
    fn new(sets: Vec<Arc<SegmentSet>>) -> Content {
        let mut files = Vec::new();
        for set in &sets {
            let segments = set.segments().iter().map(|segment| ExportedFile {
                path: segment.path().to_owned(),
                bytes: segment.info().file_bytes,
                source: Source::Segment(segment.clone()),
            });
            files.extend(segments);
            let (path, bytes) = (Manifest::path(set.manifest().shard()), set.manifest().to_bytes());
            files.push(ExportedFile { path, bytes: bytes.len() as u64, source: Source::Manifest(bytes) });
        }
        let places = files.iter().enumerate().map(|(place, file)| (file.path.clone(), place)).collect();
        Content { sets, files, places }
    }

    /// All files.
    pub fn files(&self) -> &[ExportedFile] {
        &self.files
    }

    /// Bytes of a file from `offset` on: fewer than asked for only at its end. Blocks.
    pub fn read(&self, path: &str, offset: u64, bytes: usize) -> Result<Vec<u8>, Fault> {
        let place = self.places.get(path);
        let place = place.ok_or_else(|| Fault::new(Code::BadField, format!("{path} is not in this export")))?;
        let file = &self.files[*place];
        let left = usize::try_from(file.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut buffer = vec![0; bytes.min(left)];
        match &file.source {
            Source::Manifest(whole) => {
                let wanted = whole[offset.min(file.bytes) as usize..].iter();
                buffer.iter_mut().zip(wanted).for_each(|(to, from)| *to = *from);
            }
            Source::Segment(segment) => {
                let read = segment.read_file(offset, &mut buffer);
                let read = read.map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
                buffer.truncate(read);
            }
        }
        Ok(buffer)
    }
}

/// The log time at the end of a set.
pub fn log_time(set: &SegmentSet) -> TimeMs {
    set.manifest().segments().last().map_or(TimeMs(0), |info| info.log_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_export_that_is_idle_is_gone_and_its_place_is_free() {
        let exports = Arc::new(Exports { idle: Duration::from_millis(20), held: Mutex::default() });
        for _ in 0..2 * EXPORTS_MAX {
            while let Err(fault) = exports.begin() {
                assert_eq!(fault.code, Code::Busy);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    #[tokio::test]
    async fn there_are_a_few_exports_at_most_and_one_that_is_closed_makes_room() {
        let exports = Arc::new(Exports::default());
        let ids: Vec<_> = (0..EXPORTS_MAX).map(|_| exports.begin().unwrap()).collect();
        assert_eq!(exports.begin().unwrap_err().code, Code::Busy);
        assert!(exports.content(ids[0]).unwrap().is_none(), "its segments are not made");
        exports.close(ids[0]);
        assert_eq!(exports.content(ids[0]).err().unwrap().code, Code::BadField);
        assert!(exports.begin().is_ok());
    }
}
