//! A disk on which nothing is changed, though it takes all changes: they stay in memory and are forgotten with it.
//!
//! What always holds: nothing is written to the disk below, which is best opened so that it cannot be; memory is taken for
//! pages that are written, not for those that are read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{DataFile, Disk};

const PAGE_BYTES: usize = 4096;

/// A disk above another.
pub(super) struct ScratchDisk {
    below: Arc<dyn Disk>,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    /// Files that were opened or made, by their names.
    files: BTreeMap<String, Arc<Scratch>>,
    /// Names that were removed or moved away.
    gone: BTreeSet<String>,
}

/// A file as it would be.
struct Scratch {
    below: Option<Arc<dyn DataFile>>,
    state: Mutex<State>,
}

struct State {
    len: u64,
    /// Up to where the file below still says what the file holds.
    below_len: u64,
    pages: HashMap<u64, Box<[u8; PAGE_BYTES]>>,
}

impl ScratchDisk {
    pub(super) fn new(below: Arc<dyn Disk>) -> ScratchDisk {
        ScratchDisk { below, names: Mutex::default() }
    }

    fn merged(&self, dir: &str, below: Vec<String>, part: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let names = self.names.lock();
        let is_here = |name: &String| !names.gone.contains(&join(dir, name));
        let made = names.files.keys().filter_map(|path| part(path.strip_prefix(dir)?.strip_prefix('/')?));
        let all: BTreeSet<String> = below.into_iter().filter(is_here).chain(made).collect();
        all.into_iter().collect()
    }
}

fn join(dir: &str, name: &str) -> String {
    format!("{dir}/{name}")
}

impl Disk for ScratchDisk {
    fn create_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        Ok(self.merged(dir, self.below.list(dir)?, |rest| (!rest.contains('/')).then(|| rest.to_owned())))
    }

    fn list_dirs(&self, dir: &str) -> io::Result<Vec<String>> {
        Ok(self.merged(dir, self.below.list_dirs(dir)?, |rest| Some(rest.split_once('/')?.0.to_owned())))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DataFile>> {
        let mut names = self.names.lock();
        if let Some(file) = names.files.get(path) {
            return Ok(file.clone());
        }
        if names.gone.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let below = self.below.open(path)?;
        let len = below.len()?;
        let file = Arc::new(Scratch { below: Some(below), state: Mutex::new(State::of(len)) });
        names.files.insert(path.to_owned(), file.clone());
        Ok(file)
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DataFile>> {
        match self.open(path) {
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = Arc::new(Scratch { below: None, state: Mutex::new(State::of(0)) });
        let mut names = self.names.lock();
        names.gone.remove(path);
        names.files.insert(path.to_owned(), file.clone());
        Ok(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.open(from)?;
        let mut names = self.names.lock();
        let file = names.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.gone.insert(from.to_owned());
        names.gone.remove(to);
        names.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.open(path)?;
        let mut names = self.names.lock();
        names.files.remove(path);
        names.gone.insert(path.to_owned());
        Ok(())
    }

    fn sync_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }
}

impl State {
    fn of(len: u64) -> State {
        State { len, below_len: len, pages: HashMap::new() }
    }
}

impl Scratch {
    /// Reads what one page has of a range that lies in it.
    fn read_page(&self, state: &State, into: &mut [u8], offset: u64) -> io::Result<()> {
        let (page, begin) = (offset / PAGE_BYTES as u64, offset as usize % PAGE_BYTES);
        match state.pages.get(&page) {
            Some(bytes) => into.copy_from_slice(&bytes[begin..begin + into.len()]),
            None => self.read_below(state, into, offset)?,
        }
        Ok(())
    }

    fn read_below(&self, state: &State, into: &mut [u8], offset: u64) -> io::Result<()> {
        into.fill(0);
        let len = state.below_len.saturating_sub(offset).min(into.len() as u64) as usize;
        if let Some(below) = &self.below {
            super::read_full(&**below, &mut into[..len], offset)?;
        }
        Ok(())
    }
}

/// The parts of a range that lie in one page each: where in the range, and where in the file.
fn parts(len: usize, offset: u64) -> impl Iterator<Item = (std::ops::Range<usize>, u64)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let place = offset + at as u64;
        let part = (PAGE_BYTES - place as usize % PAGE_BYTES).min(len - at);
        let range = at..at + part;
        at += part;
        (part > 0).then_some((range, place))
    })
}

impl DataFile for Scratch {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.state.lock();
        let len = state.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        for (range, place) in parts(len, offset) {
            self.read_page(&state, &mut buffer[range], place)?;
        }
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        for (range, place) in parts(bytes.len(), offset) {
            let (page, begin) = (place / PAGE_BYTES as u64, place as usize % PAGE_BYTES);
            if !state.pages.contains_key(&page) {
                let mut made = Box::new([0; PAGE_BYTES]);
                self.read_below(&state, &mut made[..], page * PAGE_BYTES as u64)?;
                state.pages.insert(page, made);
            }
            if let Some(held) = state.pages.get_mut(&page) {
                held[begin..begin + range.len()].copy_from_slice(&bytes[range]);
            }
        }
        state.len = state.len.max(offset + bytes.len() as u64);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<Duration> {
        Ok(Duration::ZERO)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let (page, begin) = (len / PAGE_BYTES as u64, len as usize % PAGE_BYTES);
        state.pages.retain(|number, _| *number <= page);
        if let Some(cut) = state.pages.get_mut(&page) {
            cut[begin..].fill(0);
        }
        state.below_len = state.below_len.min(len);
        state.len = len;
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.len = state.len.max(len);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::faulty::FaultyDisk;

    #[test]
    fn what_is_changed_is_read_back_and_the_disk_below_is_as_it_was() {
        let below = FaultyDisk::new();
        let file = below.create("d/a").unwrap();
        let before: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
        file.write_at(&before, 0).unwrap();
        let disk = ScratchDisk::new(below.handle());
        let file = disk.open("d/a").unwrap();
        let mut expected = before.clone();
        for (bytes, offset) in [(&[7; 5000][..], 4000), (&[8; 3], 0), (&[9; 700], 9_800)] {
            file.write_at(bytes, offset as u64).unwrap();
            expected.resize(expected.len().max(offset + bytes.len()), 0);
            expected[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        for cut in [10_500, 6_000, 9_000] {
            let mut held = vec![1; expected.len()];
            assert_eq!(super::super::read_full(&*file, &mut held, 0).unwrap(), expected.len());
            assert_eq!(held, expected);
            file.set_len(cut).unwrap();
            expected.resize(cut as usize, 0);
        }
        disk.rename("d/a", "d/b").unwrap();
        disk.create("d/c").unwrap();
        assert_eq!(
            (disk.list("d").unwrap(), below.list("d").unwrap()),
            (vec!["b".into(), "c".into()], vec!["a".into()])
        );
        disk.remove("d/b").unwrap();
        assert!(disk.open("d/b").is_err() && disk.open("d/a").is_err() && disk.create("d/c").is_err());
        assert_eq!(below.bytes("d/a"), before);
    }
}
