//! Whether a disk has room for a new node: told before anything is laid out, in figures.

use super::StartError;
use crate::config::{Config, Size};

/// A new node needs its active journal file and the reserve; one that has data starts with less, to serve reads.
pub(super) fn require_room_for_a_new_node(config: &Config) -> Result<(), StartError> {
    let needed = config.journal.file_bytes.0.saturating_mul(1 + config.journal.reserve_files as u64);
    let Ok(disk) = rustix::fs::statvfs(&config.data_dir) else {
        // A file system that does not say has to be tried.
        return Ok(());
    };
    let available = disk.f_bavail.saturating_mul(disk.f_frsize);
    if available >= needed {
        return Ok(());
    }
    let (dir, needed, available) = (config.data_dir.display(), Size(needed), Size(available >> 20 << 20));
    let what = format!("the disk of {dir} has {available} free, and a new node begins with {needed} of journal files");
    Err(StartError::new(what, "free some space on that disk, or use another --data-dir"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_any_disk_has_is_refused_in_figures_and_little_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: dir.path().into(), ..Config::dev() };
        config.journal.file_bytes = Size(1 << 60);
        let refused = require_room_for_a_new_node(&config).unwrap_err().to_string();
        assert!(refused.contains("3221225472GiB") && refused.contains("free"), "{refused}");
        config.journal.file_bytes = Size(4096);
        require_room_for_a_new_node(&config).unwrap();
    }
}
