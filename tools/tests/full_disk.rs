//! A disk that is full: told before anything is laid out; later sends are refused and reads go on; then it recovers.
//!
//! The disk is a small tmpfs, which takes the right to mount one. Without it the test says so and passes.

#![allow(clippy::unwrap_used)]

mod house;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use house::{Answer, House};

/// Of the disk.
const DISK_MIB: usize = 40;
/// Of what fills it until it is taken away.
const FILLER_MIB: usize = 16;

/// A mounted tmpfs.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// `None`: nobody may mount one here.
    fn mount(path: &Path) -> Option<SmallDisk> {
        std::fs::create_dir(path).unwrap();
        let size = format!("size={DISK_MIB}m");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).stderr(Stdio::null()).status();
        mount.is_ok_and(|status| status.success()).then(|| SmallDisk { path: path.to_owned() })
    }

    fn fill(&self, mib: usize) {
        std::fs::write(self.path.join("filler"), vec![1; mib << 20]).unwrap();
    }

    fn free(&self) {
        std::fs::remove_file(self.path.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// Every file below a directory with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            files.extend(self::files(&entry.path()));
        } else {
            files.insert(entry.path(), std::fs::read(entry.path()).unwrap());
        }
    }
    files
}

fn one_line(answer: &Answer, words: &[&str]) {
    let complaint = answer.complaint();
    assert!(words.iter().all(|words| complaint.contains(words)), "{answer}");
    assert_eq!(complaint.lines().count(), 1, "{answer}");
}

#[test]
fn a_full_disk_refuses_what_is_new_serves_what_is_there_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk")) else {
        eprintln!("skipped: this user may not mount a tmpfs");
        return;
    };
    let mut house = House::closed(dir);
    let data = disk.path.join("data");
    house.data_at(&data);

    // No room for a new node: nothing is laid out.
    disk.fill(DISK_MIB - 8);
    let start =
        ["server", "--dev", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--set", "journal.file_bytes=4MiB"];
    let refused = house.run(&[&start[..], &["--data-dir", data.to_str().unwrap()]].concat()).ended_with(1);
    one_line(&refused, &["free", "12MiB", "--data-dir"]);
    assert!(!data.join("journal").exists());

    disk.fill(FILLER_MIB);
    house.start();
    house.sign_in("alice");
    let more_than_fits: String = (0..DISK_MIB * 90).map(|n| format!("{n} {}\n", "x".repeat(12_000))).collect();
    let sent =
        house.run_with_input(&["send", "--to", "bob", "--retry-for", "2s", "-o", "json"], more_than_fits.as_bytes());
    let sent = sent.ended_with(3);
    assert!(sent.complaint().contains("no_space") && sent.complaint().contains("free space"), "{}", sent.complaint());
    // Every message that has its place is told, and no place is taken by one that was refused.
    let stored = house.run(&["history", "--with", "bob", "--limit", "100000", "-o", "json"]).done().json();
    let acks = sent.json();
    assert!(stored.len() > 500 && stored.len() < DISK_MIB * 90, "{}", stored.len());
    assert_eq!(acks.len(), stored.len());
    for (n, (ack, record)) in acks.iter().zip(&stored).enumerate() {
        assert_eq!((&ack["seq_id"], &record["seq_id"]), (&(n + 1).into(), &(n + 1).into()));
        assert!(record["text"].as_str().unwrap().starts_with(&format!("{n} ")));
    }
    let health = house.run(&["health"]).ended_with(3);
    one_line(&health, &["no_space", "recovers by itself"]);
    house.run(&["group", "create", "more", "bob"]).ended_with(3);

    // It starts on a full disk, too, and reads; then there is room again.
    house.kill();
    house.start();
    let read = house.run(&["history", "--with", "bob", "--newest", "--limit", "1", "-o", "json"]).done().json();
    assert_eq!(read[0]["seq_id"], stored.len());
    disk.free();
    let again = house.run(&["send", "--to", "bob", "-o", "json", "room again"]).done().json();
    assert_eq!(again[0]["seq_id"], stored.len() + 1);
    house.kill();
}

#[test]
fn a_save_that_has_no_room_leaves_the_earlier_ones_as_they_were_and_a_restore_without_room_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk")) else {
        eprintln!("skipped: this user may not mount a tmpfs");
        return;
    };
    let house = House::with(dir, Vec::new());
    let (data, backups) = (house.data(), disk.path.join("backups"));
    let [data, saves] = [&data, &backups].map(|path| path.to_str().unwrap());
    let save = || house.run(&["backup", "save", saves, "--data-dir", data, "-o", "json"]);
    let send = |messages: usize| {
        // Texts that no compression makes small.
        let noise = |n: usize| format!("{n} {:x?}\n", (0..100).map(|_| rand::random::<u64>()).collect::<Vec<_>>());
        let lines: String = (0..messages).map(noise).collect();
        house.run_with_input(&["send", "--to", "bob", "-o", "json"], lines.as_bytes()).done();
    };
    house.sign_in("alice");
    send(100);
    save().done();
    let first = files(&backups);

    send(6_000);
    disk.fill(DISK_MIB - 2);
    let refused = save().ended_with(1);
    one_line(&refused, &["backups", "No space left"]);
    let listed = house.run(&["backup", "status", saves, "--deep", "-o", "json"]).done().json();
    assert!(listed.len() == 1 && listed[0]["state"] == "verified", "{listed:?}");
    assert!(first.iter().all(|(path, bytes)| std::fs::read(path).unwrap() == *bytes), "what was saved stays");
    assert_eq!(house.run(&["health"]).done().complaint(), "", "a full disk of saves is not the node's");

    // Nor has the disk room for a node.
    let restored = disk.path.join("restored");
    let restore = ["backup", "restore", saves, "--data-dir", restored.to_str().unwrap()];
    let refused = house.run(&restore).ended_with(1);
    one_line(&refused, &["No space left"]);
    disk.free();
    assert_eq!(files(&restored).into_keys().collect::<Vec<_>>(), [restored.join("skein.lock")]);
    save().done();
    let listed = house.run(&["backup", "status", saves, "--deep", "-o", "json"]).done().json();
    assert!(listed.len() == 2 && listed.iter().all(|save| save["state"] == "verified"), "{listed:?}");
    let elsewhere = house.dir.path().join("elsewhere");
    house.run(&["backup", "restore", saves, "--data-dir", elsewhere.to_str().unwrap()]).done();
    house.run(&["log", "verify", "--deep", "--data-dir", elsewhere.to_str().unwrap()]).done();
}
