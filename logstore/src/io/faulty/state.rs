//! What is on the faulty disk: as programs see it, and as a crash leaves it.

use std::collections::BTreeMap;
use std::io;

use super::{Operation, Survives};

#[derive(Default)]
pub(super) struct State {
    pub files: Vec<File>,
    pub names: BTreeMap<String, usize>,
    pub durable_names: BTreeMap<String, usize>,
    pub name_changes: Vec<NameChange>,
    pub failures: Vec<Failure>,
    pub capacity: Option<u64>,
    pub read_bytes_max: Option<usize>,
    pub power_steps: Option<u64>,
    pub steps: u64,
    pub syncs: u64,
    pub holds_syncs: bool,
    pub held_syncs: usize,
    pub released_syncs: u64,
}

#[derive(Clone, Default)]
pub(super) struct File {
    pub now: Vec<u8>,
    pub durable: Vec<u8>,
    pub unsynced: Vec<Change>,
}

#[derive(Clone)]
pub(super) enum Change {
    Bytes(usize, Vec<u8>),
    Len(usize),
}

#[derive(Clone)]
pub(super) enum NameChange {
    New(String, usize),
    Moved(String, String, usize),
    Gone(String),
}

pub(super) struct Failure {
    pub operation: Operation,
    /// Fails when this many more have been tried; stays at 1 if `always`.
    pub countdown: u64,
    pub always: bool,
    pub kind: io::ErrorKind,
    /// Only of files whose path begins like this.
    pub under: String,
}

const SECTOR_BYTES: usize = 512;

impl State {
    /// Counts an operation on a path; fails it if that is planned or the power is off.
    pub fn attempt(&mut self, operation: Operation, path: &str) -> io::Result<()> {
        let changes = !matches!(operation, Operation::Open | Operation::List | Operation::Read);
        if self.power_steps == Some(0) {
            return Err(io::Error::other("the power is off"));
        }
        let is_meant = |failure: &&mut Failure| failure.operation == operation && path.starts_with(&failure.under);
        for failure in self.failures.iter_mut().filter(is_meant) {
            match failure.countdown {
                0 => {}
                1 => {
                    failure.countdown = u64::from(failure.always);
                    return Err(io::Error::new(failure.kind, format!("planned failure of {operation:?}")));
                }
                _ => failure.countdown -= 1,
            }
        }
        if changes {
            self.steps += 1;
            self.power_steps = self.power_steps.map(|left| left - 1);
        }
        Ok(())
    }

    /// Counts an operation on a file.
    pub fn attempt_in(&mut self, operation: Operation, file: usize) -> io::Result<()> {
        // Names are looked for only when it matters: there are tests with a million reads.
        let matters = self.failures.iter().any(|failure| !failure.under.is_empty());
        let name = self.names.iter().find(|(_, of)| matters && **of == file).map(|(name, _)| name.clone());
        self.attempt(operation, &name.unwrap_or_default())
    }

    pub fn find(&self, path: &str) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))
    }

    pub fn grow(&mut self, file: usize, len: usize) -> io::Result<()> {
        let used: usize = self.names.values().map(|file| self.files[*file].now.len()).sum();
        let more = len.saturating_sub(self.files[file].now.len());
        if self.capacity.is_some_and(|capacity| (used + more) as u64 > capacity) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space is left"));
        }
        if more > 0 {
            self.files[file].change(Change::Len(len));
        }
        Ok(())
    }

    pub fn names_after(&self, survives: Survives, chance: &mut Chance) -> BTreeMap<String, usize> {
        let kept = match survives {
            Survives::Nothing => 0,
            Survives::Everything | Survives::Prefix(_) => self.name_changes.len(),
            Survives::Sectors(_) => chance.below(self.name_changes.len() + 1),
        };
        let mut names = self.durable_names.clone();
        for change in &self.name_changes[..kept] {
            change.apply(&mut names);
        }
        names
    }

    pub fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::New(name, file) => names.insert(name.clone(), *file),
            NameChange::Moved(from, to, file) => names.remove(from).and(names.insert(to.clone(), *file)),
            NameChange::Gone(name) => names.remove(name),
        };
    }
}

impl File {
    pub fn synced(bytes: Vec<u8>) -> File {
        File { durable: bytes.clone(), now: bytes, unsynced: Vec::new() }
    }

    pub fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.unsynced.push(change);
    }

    pub fn after(&self, survives: Survives, chance: &mut Chance) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let mut left = match survives {
            Survives::Nothing => return bytes,
            Survives::Everything => return self.now.clone(),
            Survives::Prefix(left) => left,
            Survives::Sectors(_) => usize::MAX,
        };
        for change in &self.unsynced {
            match change {
                Change::Len(_) => change.apply(&mut bytes),
                Change::Bytes(offset, written) if left < usize::MAX => {
                    let kept = written.len().min(left);
                    left -= kept;
                    put(&mut bytes, *offset, &written[..kept]);
                }
                Change::Bytes(offset, written) => {
                    for (n, sector) in written.chunks(SECTOR_BYTES).enumerate() {
                        if chance.below(2) == 0 {
                            put(&mut bytes, offset + n * SECTOR_BYTES, sector);
                        }
                    }
                }
            }
        }
        bytes
    }
}

impl Change {
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Bytes(offset, written) => put(bytes, *offset, written),
            Change::Len(len) => bytes.resize(*len, 0),
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(written);
}

/// SplitMix64: all the chance there is here.
pub(super) struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}
