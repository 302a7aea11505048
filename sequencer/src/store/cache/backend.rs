//! What redb sees as its storage: a file of ours, page by page with checksums, and a head that changes as a whole.
//!
//! What always holds: redb reads only what redb wrote at that place. It trusts what it reads (on other bytes it panics, or asks for
//! any amount of memory, and an allocation that fails ends the process), so a page that does not verify is an error before redb
//! has seen a byte of it. After a crash head and length are those of one sync, the last that returned or one that was under way.
//!
//! ```text
//!  0             4096          8192         12296        16400
//!  +-------------+-------------+------------+------------+-----
//!  | head        | head        | page 1     | page 2     | ...      page: 4096 bytes of redb's, hash u64
//!  +-------------+-------------+------------+------------+-----
//!
//!  head   0            8         12      14    16           24       32           544      4088   4096
//!         +------------+---------+-------+-----+------------+--------+------------+--------+------+
//!         | "SKEINSTO" | version | shard | 0   | generation | length | redb's     | zeros  | hash |
//!         | 8 B        | u32 = 1 | u16   | u16 | u64        | u64    | first 512 B|        | u64  |
//!         +------------+---------+-------+-----+------------+--------+------------+--------+------+
//! ```
//!
//! A hash is XXH3-64 of all before it, seeded with the page's number (a head: with 0), so that a page in the wrong place does not
//! verify. The head with the higher generation counts; each sync that changes it writes the other one. `length` is what
//! redb takes for the length of its file.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use logstore::id::ShardId;
use logstore::io::DataFile;
use parking_lot::Mutex;
use redb::StorageBackend;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What redb reads and writes at once, or multiples of it.
const PAGE_BYTES: usize = 4096;
/// A page and its hash.
const SLOT_BYTES: usize = PAGE_BYTES + HASH_BYTES;
const HASH_BYTES: usize = 8;
const HEAD_BYTES: usize = 4096;
/// Where page 1 is; page 0 is in the heads.
const PAGES_AT: u64 = 2 * HEAD_BYTES as u64;
/// What redb uses of its page 0.
const FIRST_BYTES: usize = 512;
const FIRST_AT: usize = 32;
const MAGIC: [u8; 8] = *b"SKEINSTO";
const VERSION: u32 = 1;
/// Zeros are written in steps of so many slots.
const ZERO_SLOTS: usize = 256;

/// Why a file is not a store.
#[derive(Debug)]
pub(super) enum NotAStore {
    /// Neither head verifies, or they are another shard's, or pages are missing.
    Damaged(String),
    /// It was written by a newer version.
    Newer { found: u32, known: u32 },
    /// It could not be read.
    Io(io::Error),
}

impl From<io::Error> for NotAStore {
    fn from(error: io::Error) -> NotAStore {
        NotAStore::Io(error)
    }
}

/// A file of pages.
pub(super) struct PageFile {
    file: Arc<dyn DataFile>,
    shard: ShardId,
    head: Mutex<Head>,
}

/// What is the same in memory and, after a sync, on disk.
struct Head {
    generation: u64,
    /// What redb takes for the length of its file.
    length: u64,
    first: [u8; FIRST_BYTES],
    /// Whether it differs from the newest head on disk.
    changed: bool,
    /// Bytes the file has.
    file_bytes: u64,
    /// A sync has failed: what it was to make durable may be lost, whatever a later one says.
    failed: bool,
}

impl PageFile {
    /// A store without anything in an empty file.
    pub fn create(file: Arc<dyn DataFile>, shard: ShardId) -> PageFile {
        let first = [0; FIRST_BYTES];
        let head = Head { generation: 0, length: 0, first, changed: true, file_bytes: PAGES_AT, failed: false };
        PageFile { file, shard, head: Mutex::new(head) }
    }

    /// The store in a file that has one.
    pub fn open(file: Arc<dyn DataFile>, shard: ShardId) -> Result<PageFile, NotAStore> {
        let mut heads = Vec::new();
        for copy in 0..2 {
            let mut bytes = [0; HEAD_BYTES];
            if read_full(&*file, &mut bytes, copy * HEAD_BYTES as u64)? == HEAD_BYTES {
                heads.extend(decode_head(&bytes, shard)?);
            }
        }
        let newest = heads.into_iter().max_by_key(|head| head.generation);
        let mut head = newest.ok_or_else(|| NotAStore::Damaged("its head does not verify".to_owned()))?;
        head.file_bytes = file.len()?;
        let needed = place(head.length);
        if head.file_bytes < needed {
            return Err(NotAStore::Damaged(format!("it has {} of {needed} bytes", head.file_bytes)));
        }
        Ok(PageFile { file, shard, head: Mutex::new(head) })
    }

    fn read_pages(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (page, skip) = (offset / PAGE_BYTES as u64, (offset % PAGE_BYTES as u64) as usize);
        let pages = (skip + out.len()).div_ceil(PAGE_BYTES);
        let mut slots = vec![0; pages * SLOT_BYTES];
        if read_full(&*self.file, &mut slots, place(page * PAGE_BYTES as u64))? != slots.len() {
            return Err(damaged(page));
        }
        let mut skip = skip;
        let mut rest = out;
        for (slot, number) in slots.chunks_exact(SLOT_BYTES).zip(page..) {
            let bytes = &verified(slot, number).ok_or_else(|| damaged(number))?[skip..];
            let (now, later) = rest.split_at_mut(bytes.len().min(rest.len()));
            now.copy_from_slice(&bytes[..now.len()]);
            (rest, skip) = (later, 0);
        }
        Ok(())
    }

    fn write_pages(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let whole = offset.is_multiple_of(PAGE_BYTES as u64) && data.len().is_multiple_of(PAGE_BYTES);
        if !whole {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a part of a page is written"));
        }
        let mut slots = Vec::with_capacity(data.len() / PAGE_BYTES * SLOT_BYTES);
        for (page, number) in data.chunks_exact(PAGE_BYTES).zip(offset / PAGE_BYTES as u64..) {
            slots.extend_from_slice(page);
            slots.extend_from_slice(&xxh3_64_with_seed(page, number).to_le_bytes());
        }
        self.file.write_at(&slots, place(offset))
    }

    /// Makes the file as long as redb takes it for, new pages without content.
    fn grow(&self, head: &mut Head, length: u64) -> io::Result<()> {
        let zeros = vec![0; ZERO_SLOTS * SLOT_BYTES];
        let (mut next, end) = (place(head.length), place(length));
        // Pages that were given up a moment ago and not yet cut off.
        while next < end.min(head.file_bytes) {
            let step = (end.min(head.file_bytes) - next).min(zeros.len() as u64);
            self.file.write_at(&zeros[..step as usize], next)?;
            next += step;
        }
        if head.file_bytes < end {
            self.file.set_len(end)?;
            head.file_bytes = end;
        }
        Ok(())
    }

    fn sync(&self, head: &mut Head) -> io::Result<()> {
        if head.changed {
            let generation = head.generation + 1;
            let at = generation % 2 * HEAD_BYTES as u64;
            self.file.write_at(&encode_head(head, generation, self.shard), at)?;
            head.generation = generation;
        }
        self.file.sync_data()?;
        head.changed = false;
        let needed = place(head.length);
        if head.file_bytes > needed {
            // Only now: the head before this one may have counted on these pages.
            self.file.set_len(needed)?;
            head.file_bytes = needed;
        }
        Ok(())
    }
}

impl StorageBackend for PageFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.head.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        {
            let head = self.head.lock();
            let end = offset.checked_add(out.len() as u64).filter(|end| *end <= head.length);
            let end = end.ok_or_else(|| io::Error::new(ErrorKind::UnexpectedEof, "a read beyond the end"))?;
            if end <= FIRST_BYTES as u64 {
                out.copy_from_slice(&head.first[offset as usize..end as usize]);
                return Ok(());
            }
        }
        if offset < PAGE_BYTES as u64 {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a read across the head"));
        }
        self.read_pages(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let head = &mut *self.head.lock();
        head.running()?;
        if !length.is_multiple_of(PAGE_BYTES as u64) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a length that is not of whole pages"));
        }
        if length > head.length {
            self.grow(head, length)?;
        }
        (head.length, head.changed) = (length, true);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let head = &mut *self.head.lock();
        head.running()?;
        let result = self.sync(head);
        head.failed = result.is_err();
        result
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let head = &mut *self.head.lock();
        head.running()?;
        match offset.checked_add(data.len() as u64) {
            Some(end) if end <= FIRST_BYTES as u64 => {
                head.first[offset as usize..end as usize].copy_from_slice(data);
                head.changed = true;
                Ok(())
            }
            Some(end) if offset >= PAGE_BYTES as u64 && end <= head.length => self.write_pages(offset, data),
            _ => Err(io::Error::new(ErrorKind::InvalidInput, "a write across the head or beyond the end")),
        }
    }
}

impl Head {
    fn running(&self) -> io::Result<()> {
        if self.failed { Err(io::Error::other("a sync of this file has failed")) } else { Ok(()) }
    }
}

impl fmt::Debug for PageFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageFile of shard {}", self.shard)
    }
}

/// Where a page of redb's is in the file; for a length: where the last one ends.
fn place(offset: u64) -> u64 {
    (offset / PAGE_BYTES as u64).saturating_sub(1) * SLOT_BYTES as u64 + PAGES_AT
}

fn damaged(page: u64) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("page {page} does not verify"))
}

fn verified(slot: &[u8], page: u64) -> Option<&[u8]> {
    let (bytes, hash) = slot.split_last_chunk::<HASH_BYTES>()?;
    (xxh3_64_with_seed(bytes, page) == u64::from_le_bytes(*hash)).then_some(bytes)
}

fn encode_head(head: &Head, generation: u64, shard: ShardId) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..14].copy_from_slice(&shard.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&generation.to_le_bytes());
    bytes[24..32].copy_from_slice(&head.length.to_le_bytes());
    bytes[FIRST_AT..FIRST_AT + FIRST_BYTES].copy_from_slice(&head.first);
    let hash = xxh3_64_with_seed(&bytes[..HEAD_BYTES - HASH_BYTES], 0);
    bytes[HEAD_BYTES - HASH_BYTES..].copy_from_slice(&hash.to_le_bytes());
    bytes
}

/// `Ok(None)`: it does not verify.
fn decode_head(bytes: &[u8; HEAD_BYTES], shard: ShardId) -> Result<Option<Head>, NotAStore> {
    let Some(head) = verified(bytes, 0).filter(|head| head[..8] == MAGIC) else { return Ok(None) };
    let u64_at = |at: usize| u64::from_le_bytes(*head[at..].first_chunk().expect("inside the head"));
    let version = u32::from_le_bytes(*head[8..].first_chunk().expect("inside the head"));
    if version != VERSION {
        return Err(NotAStore::Newer { found: version, known: VERSION });
    }
    let found = u16::from_le_bytes([head[12], head[13]]);
    if found != shard.0 {
        return Err(NotAStore::Damaged(format!("it is that of shard {found}")));
    }
    let first = *head[FIRST_AT..].first_chunk().expect("inside the head");
    let (generation, length) = (u64_at(16), u64_at(24));
    Ok(Some(Head { generation, length, first, changed: false, file_bytes: 0, failed: false }))
}

/// Fills as much of `buffer` as the file has; states how much that was.
fn read_full(file: &dyn DataFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
