//! Which segments are a shard's, and up to where its log is durable in them: one small file a shard.
//!
//! ```text
//!  0            8         12     16           20
//!  +------------+---------+------+------------+------------------------------------------------+
//!  | "SKEINMAN" | version | crc  | body bytes | body                                           |
//!  | 8 B        | u32 = 2 | u32  | u32        |                                                |
//!  +------------+---------+------+------------+------------------------------------------------+
//!     crc covers magic, version, body bytes and body
//!
//! body:     shard u16 | store mark u64 | carried u64 (not in version 1) | has checkpoint u8 | index u64 | term u64 | leader u64 | state bytes u32 | state
//!           | segments u32 | a segment ...
//! segment:  first u64 | last u64 | level u8 | after u64 | upto u64 | identity 32 B | file bytes u64 | log time u64
//!           | first time u64 | last time u64 | counts 13 x u64
//! ```
//!
//! What always holds: seals follow each other without a gap, and so do entries; the checkpoint is the last seal; the file is replaced as
//! a whole (draft, sync, rename, sync of the directory), so that a crash leaves the old one or the new one.

use bytes::Bytes;

use crate::id::{LogId, LogIndex, NodeId, SegmentOrdinal, ShardId, Term, TimeMs};
use crate::io::{Context, Disk, read_full};
use crate::segment::{Counts, Identity, Level, SegmentInfo, Span, shard_dir};
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"SKEINMAN";
const VERSION: u32 = 2;
/// The oldest version that is read: without what was carried out.
const VERSION_MIN: u32 = 1;
const HEAD_BYTES: usize = 20;
/// Some 80,000 segments: far beyond what merges leave.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// What a checkpoint may say that logstore does not understand.
pub const CHECKPOINT_STATE_BYTES_MAX: usize = 64 << 10;

/// Up to where a shard's log is in segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last Seal whose segment is durable.
    pub seal: LogId,
    /// What the sequencer needs to start from here (memberships, ids); opaque.
    pub state: Bytes,
}

/// The sealed part of a shard's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    shard: ShardId,
    segments: Vec<SegmentInfo>,
    checkpoint: Option<Checkpoint>,
    store_mark: SegmentOrdinal,
    carried: LogIndex,
}

impl Manifest {
    /// Of a shard of which nothing was sealed.
    pub fn empty(shard: ShardId) -> Manifest {
        Manifest { shard, segments: Vec::new(), checkpoint: None, store_mark: SegmentOrdinal(0), carried: LogIndex(0) }
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Its segments, oldest first.
    pub fn segments(&self) -> &[SegmentInfo] {
        &self.segments
    }

    /// Up to where its log is in them; `None` if nothing was sealed.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// The last seal that the state store is known to have absorbed; 0: none.
    pub fn store_mark(&self) -> SegmentOrdinal {
        self.store_mark
    }

    /// The entry that asked for the last merge or rewrite carried out; they are carried out in the order of the log.
    pub fn carried(&self) -> LogIndex {
        self.carried
    }

    /// The last seal; 0 if there is none.
    pub fn last(&self) -> SegmentOrdinal {
        self.segments.last().map_or(SegmentOrdinal(0), |info| info.span.last)
    }

    /// Where in [`Manifest::segments`] the segment is that holds a seal.
    pub fn position(&self, ordinal: SegmentOrdinal) -> Option<usize> {
        let place = self.segments.partition_point(|info| info.span.last < ordinal);
        self.segments.get(place).filter(|info| info.span.contains(ordinal)).map(|_| place)
    }

    /// With one more segment at its end, which makes the log durable up to `checkpoint`.
    pub fn sealed(&self, info: SegmentInfo, checkpoint: Checkpoint) -> Result<Manifest> {
        let mut next = self.clone();
        next.segments.push(info);
        next.checkpoint = Some(checkpoint);
        next.checked()
    }

    /// With one segment in place of those that hold the same seals: a merge or a rewrite.
    pub fn merged(&self, info: SegmentInfo) -> Result<Manifest> {
        let whole = |place: Option<usize>| place.ok_or_else(|| self.broken("what was merged is not in it"));
        let (from, to) = (whole(self.position(info.span.first))?, whole(self.position(info.span.last))?);
        let mut next = self.clone();
        next.segments.splice(from..=to, [info]);
        next.checked()
    }

    /// The same, of a plan that this entry asked for.
    pub fn merged_by(&self, info: SegmentInfo, asked_at: LogIndex) -> Result<Manifest> {
        let next = self.merged(info)?;
        Ok(Manifest { carried: self.carried.max(asked_at), ..next })
    }

    /// With another state for the sequencer at the same seal, say after a change of members.
    pub fn with_checkpoint_state(&self, state: Bytes) -> Result<Manifest> {
        let mut next = self.clone();
        match &mut next.checkpoint {
            Some(checkpoint) => checkpoint.state = state,
            None => return Err(self.broken("nothing was sealed yet")),
        }
        next.checked()
    }

    /// With nothing but its first segments: what those hold is a log that ends earlier. Never to be stored.
    pub(crate) fn first(&self, segments: usize) -> Manifest {
        let mut first = Manifest { segments: self.segments[..segments].to_vec(), ..self.clone() };
        first.checkpoint = first
            .segments
            .last()
            .map(|info| Checkpoint { seal: LogId { index: info.span.upto, ..LogId::default() }, state: Bytes::new() });
        first.store_mark = first.store_mark.min(first.last());
        first
    }

    /// Of a store that has absorbed the seals up to this one.
    pub fn absorbed(&self, store_mark: SegmentOrdinal) -> Result<Manifest> {
        Manifest { store_mark, ..self.clone() }.checked()
    }

    /// The file of a shard's manifest, relative to the data directory.
    pub fn path(shard: ShardId) -> String {
        format!("{}/MANIFEST", shard_dir(shard))
    }

    /// Reads a shard's manifest; `None` if there is no such file.
    pub fn load(disk: &dyn Disk, shard: ShardId) -> Result<Option<Manifest>> {
        let path = Manifest::path(shard);
        let file = match disk.open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.context("open", &path)?,
        };
        let file_bytes = file.len().context("measure", &path)?;
        if file_bytes > FILE_BYTES_MAX {
            return Err(not_ours(&path, "it is longer than a manifest can be"));
        }
        let mut bytes = vec![0; file_bytes as usize];
        let read = read_full(&*file, &mut bytes, 0).context("read", &path)?;
        Manifest::decode(&path, shard, &bytes[..read]).map(Some)
    }

    /// The bytes of its file.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode()
    }

    /// The inverse of [`Manifest::to_bytes`]; `path` is for words only.
    pub fn from_bytes(path: &str, shard: ShardId, bytes: &[u8]) -> Result<Manifest> {
        Manifest::decode(path, shard, bytes)
    }

    /// Puts it in place of the one before, durably.
    pub fn store(&self, disk: &dyn Disk) -> Result<()> {
        let (dir, path) = (shard_dir(self.shard), Manifest::path(self.shard));
        let draft = format!("{path}.tmp");
        disk.create_dir(&dir).context("create", &dir)?;
        match disk.remove(&draft) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).context("remove", &draft),
            _ => {}
        }
        let file = disk.create(&draft).context("create", &draft)?;
        file.write_at(&self.encode(), 0).context("write", &draft)?;
        file.sync_data().context("sync", &draft)?;
        disk.rename(&draft, &path).context("rename", &draft)?;
        disk.sync_dir(&dir).context("sync", &dir)
    }

    fn broken(&self, what: &str) -> Error {
        Error::ManifestRot { path: Manifest::path(self.shard), shard: self.shard, what: what.to_owned() }
    }

    /// As it is, if it could be.
    fn checked(self) -> Result<Manifest> {
        for info in &self.segments {
            let span = info.span;
            if span.shard != self.shard {
                let (found, expected) = (span.shard.to_string(), self.shard.to_string());
                return Err(Error::Misplaced { path: info.path(), what: "shard", found, expected });
            }
            if span.first.0 == 0 || span.last < span.first || span.upto < span.after {
                return Err(self.broken(&format!("segment {} has no range", info.id())));
            }
        }
        for pair in self.segments.windows(2) {
            let (a, b) = (&pair[0].span, &pair[1].span);
            if a.last.0.checked_add(1) != Some(b.first.0) || a.upto != b.after || pair[0].log_time > pair[1].log_time {
                let (a, b) = (pair[0].id(), pair[1].id());
                return Err(self.broken(&format!("segments {a} and {b} do not follow each other")));
            }
        }
        let upto = self.segments.last().map(|info| info.span.upto);
        if upto != self.checkpoint.as_ref().map(|checkpoint| checkpoint.seal.index) {
            return Err(self.broken("its checkpoint is not its last seal"));
        }
        if self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.state.len() > CHECKPOINT_STATE_BYTES_MAX) {
            return Err(self.broken("its checkpoint is too large"));
        }
        if self.store_mark > self.last() {
            return Err(self.broken("its store is ahead of its last seal"));
        }
        Ok(self)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.shard.0.to_le_bytes());
        put(&mut out, [self.store_mark.0, self.carried.0]);
        self.encode_checkpoint(&mut out);
        out.extend_from_slice(&(self.segments.len() as u32).to_le_bytes());
        self.segments.iter().for_each(|info| encode_segment(info, &mut out));
        let body = (out.len() - HEAD_BYTES) as u32;
        out[16..20].copy_from_slice(&body.to_le_bytes());
        let crc = crc_of(&out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn encode_checkpoint(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.checkpoint.is_some()));
        let seal = self.checkpoint.as_ref().map(|checkpoint| checkpoint.seal).unwrap_or_default();
        put(out, [seal.index.0, seal.term.0, seal.leader.0]);
        let state = self.checkpoint.as_ref().map(|checkpoint| &checkpoint.state[..]).unwrap_or_default();
        out.extend_from_slice(&(state.len() as u32).to_le_bytes());
        out.extend_from_slice(state);
    }

    fn decode(path: &str, shard: ShardId, bytes: &[u8]) -> Result<Manifest> {
        let rot = |what: &str| Error::ManifestRot { path: path.to_owned(), shard, what: what.to_owned() };
        if bytes.is_empty() {
            return Err(not_ours(path, "it is empty"));
        }
        if !bytes.starts_with(MAGIC) {
            return Err(not_ours(path, "it does not begin as a manifest does"));
        }
        let head = bytes.get(..HEAD_BYTES).ok_or_else(|| rot("it is cut"))?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if number(8) > VERSION {
            return Err(Error::NewerFormat { path: path.to_owned(), found: number(8), known: VERSION });
        }
        if number(16) as usize != bytes.len() - HEAD_BYTES || crc_of(bytes) != number(12) {
            return Err(rot("it does not verify (damaged or cut)"));
        }
        let mut reader = Reader { rest: &bytes[HEAD_BYTES..], version: number(8) };
        let manifest = reader.manifest().filter(|_| reader.rest.is_empty() && number(8) >= VERSION_MIN);
        let manifest = manifest.ok_or_else(|| rot("it verifies, but makes no sense"))?;
        if manifest.shard != shard {
            let (found, expected) = (manifest.shard.to_string(), shard.to_string());
            return Err(Error::Misplaced { path: path.to_owned(), what: "shard", found, expected });
        }
        manifest.checked()
    }
}

fn not_ours(path: &str, what: &str) -> Error {
    Error::NotOurs { path: path.to_owned(), what: what.to_owned() }
}

/// Over all but the CRC itself.
fn crc_of(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    hasher.finalize()
}

fn put<const N: usize>(out: &mut Vec<u8>, numbers: [u64; N]) {
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

fn encode_segment(info: &SegmentInfo, out: &mut Vec<u8>) {
    put(out, [info.span.first.0, info.span.last.0]);
    out.push(info.span.level.0);
    put(out, [info.span.after.0, info.span.upto.0]);
    out.extend_from_slice(&info.identity.0);
    put(out, [info.file_bytes, info.log_time.0, info.first_time.0, info.last_time.0]);
    put(out, info.counts.to_numbers());
}

/// Reads a verified body; `None` if it ends too early or says what cannot be.
struct Reader<'a> {
    rest: &'a [u8],
    version: u32,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn manifest(&mut self) -> Option<Manifest> {
        let shard = ShardId(u16::from_le_bytes(self.array()?));
        let store_mark = SegmentOrdinal(self.u64()?);
        let carried = LogIndex(if self.version > VERSION_MIN { self.u64()? } else { 0 });
        let checkpoint = self.checkpoint()?;
        let count = self.u32()?;
        // Grown as they come: a count alone takes no memory.
        let mut segments = Vec::new();
        for _ in 0..count {
            segments.push(self.segment(shard)?);
        }
        Some(Manifest { shard, segments, checkpoint, store_mark, carried })
    }

    fn checkpoint(&mut self) -> Option<Option<Checkpoint>> {
        let has_one = self.array::<1>()? == [1];
        let (index, term, leader) = (LogIndex(self.u64()?), Term(self.u64()?), NodeId(self.u64()?));
        let len = self.u32()? as usize;
        let state = Bytes::copy_from_slice(self.take(len)?);
        Some(has_one.then_some(Checkpoint { seal: LogId { term, leader, index }, state }))
    }

    fn segment(&mut self, shard: ShardId) -> Option<SegmentInfo> {
        let (first, last) = (SegmentOrdinal(self.u64()?), SegmentOrdinal(self.u64()?));
        let level = Level(self.array::<1>()?[0]);
        let (after, upto) = (LogIndex(self.u64()?), LogIndex(self.u64()?));
        let identity = Identity(self.array()?);
        let file_bytes = self.u64()?;
        let (log_time, first_time, last_time) = (TimeMs(self.u64()?), TimeMs(self.u64()?), TimeMs(self.u64()?));
        let mut numbers = [0; Counts::NUMBERS];
        for number in &mut numbers {
            *number = self.u64()?;
        }
        Some(SegmentInfo {
            span: Span { shard, first, last, level, after, upto },
            identity,
            file_bytes,
            counts: Counts::from_numbers(numbers),
            log_time,
            first_time,
            last_time,
        })
    }
}
