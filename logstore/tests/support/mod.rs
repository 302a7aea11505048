//! What the journal's tests share.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its own part")]

use std::io;
use std::ops::Range;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use logstore::id::{LogId, LogIndex, NodeId, ShardId, Term};
use logstore::io::Disk;
use logstore::{Entry, EntryKind, Journal, JournalOptions, Vote};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Files of 64 KiB, so that a few entries reach the next one.
pub fn small() -> JournalOptions {
    JournalOptions {
        file_bytes: 64 << 10,
        block_bytes_max: 16 << 10,
        reserve_files: 2,
        tail_cache_bytes: 1 << 20,
        queue_bytes_max: 32 << 10,
        proof_after: Duration::from_millis(5),
        salt_seed: 7,
        ..JournalOptions::default()
    }
}

pub fn open(disk: &Arc<dyn Disk>, options: JournalOptions) -> logstore::Result<Journal> {
    Journal::open(disk.clone(), options, Box::new(|_| {}))
}

/// A journal that notes what it was stopped by.
pub fn open_watched(disk: &Arc<dyn Disk>, options: JournalOptions) -> (Journal, Arc<Mutex<Vec<String>>>) {
    let deaths = Arc::new(Mutex::new(Vec::new()));
    let noted = deaths.clone();
    let on_fatal = Box::new(move |error: &logstore::Error| noted.lock().unwrap().push(error.to_string()));
    (Journal::open(disk.clone(), options, on_fatal).unwrap(), deaths)
}

pub fn id(index: u64, term: u64) -> LogId {
    LogId { term: Term(term), leader: NodeId(9), index: LogIndex(index) }
}

/// An entry whose payload tells shard, index and term, so that a mix-up shows.
pub fn entry(shard: u16, index: u64, term: u64, payload_bytes: usize) -> Entry {
    let mut payload = format!("{shard}/{index}/{term}/").into_bytes();
    payload.resize(payload_bytes.max(payload.len()), b'.');
    Entry { id: id(index, term), kind: EntryKind::Normal, payload: Bytes::from(payload) }
}

pub fn entries(shard: u16, range: Range<u64>, term: u64, payload_bytes: usize) -> Vec<Entry> {
    range.map(|index| entry(shard, index, term, payload_bytes)).collect()
}

pub fn range(range: Range<u64>) -> Range<LogIndex> {
    LogIndex(range.start)..LogIndex(range.end)
}

/// Calls with a completion and waits for it.
pub fn wait(call: impl FnOnce(logstore::Completion)) -> io::Result<()> {
    let (told, result) = mpsc::channel();
    call(Box::new(move |result| told.send(result).unwrap()));
    result.recv_timeout(PATIENCE).expect("a completion is called")
}

pub fn append(journal: &Journal, shard: u16, entries: Vec<Entry>) -> io::Result<()> {
    wait(|done| journal.append(ShardId(shard), entries, done))
}

pub fn vote(journal: &Journal, shard: u16, vote: &[u8]) -> io::Result<()> {
    wait(|done| journal.save_vote(ShardId(shard), Vote(Bytes::copy_from_slice(vote)), done))
}

pub fn truncate_after(journal: &Journal, shard: u16, last: Option<LogId>) -> io::Result<()> {
    wait(|done| journal.truncate_after(ShardId(shard), last, done))
}

pub fn purge(journal: &Journal, shard: u16, upto: LogId) -> io::Result<()> {
    wait(|done| journal.purge(ShardId(shard), upto, done))
}

/// Every entry of a shard in the range, by as many reads as it takes.
pub fn read_all(journal: &Journal, shard: u16, wanted: Range<u64>) -> logstore::Result<Vec<Entry>> {
    let (mut found, mut next) = (Vec::new(), wanted.start);
    while next < wanted.end {
        found.extend(journal.read(ShardId(shard), range(next..wanted.end), 10_000)?);
        next = wanted.start + found.len() as u64;
    }
    Ok(found)
}
