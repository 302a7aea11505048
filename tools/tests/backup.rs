//! Backup and restore: saves of a node that serves, what they share, and what comes back.
#![allow(clippy::unwrap_used)]

mod house;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use house::House;
use serde_json::Value;

impl House {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn admin(&self, args: &[&str]) -> Vec<Value> {
        let data = self.data();
        self.run(&[args, &["-o", "json", "--data-dir", data.to_str().unwrap()]].concat()).done().json()
    }

    fn export(&self, name: &str) -> Vec<u8> {
        let out = self.path(name);
        self.admin(&["export", "--format", "jsonl", "--out", out.to_str().unwrap()]);
        std::fs::read(out).unwrap()
    }

    fn save(&self, backups: &Path) -> Value {
        self.admin(&["backup", "save", backups.to_str().unwrap()]).remove(0)
    }

    fn restore(&self, backups: &Path, more: &[&str]) -> (House, Value) {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let args = ["backup", "restore", backups.to_str().unwrap(), "-o", "json", "--data-dir", data.to_str().unwrap()];
        let restored = self.run(&[&args, more].concat()).done().json().remove(0);
        (House::with(dir, Vec::new()), restored)
    }

    fn send(&self, text: &str) {
        self.run(&["send", "--to", "bob", text, "--profile", "alice"]).done();
    }

    fn texts(&self) -> Vec<String> {
        self.run(&["history", "--with", "bob", "--profile", "alice", "-o", "json"]).done().texts()
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn saves_share_segments_and_each_comes_back_as_it_was() {
    let house = House::new();
    house.sign_in("alice");
    let backups = house.path("backups");
    house.send("one");
    let first = house.save(&backups);
    let lines = house.export("first.jsonl");
    house.send("two");
    let second = house.save(&backups);
    assert_eq!((first["save"].as_u64(), second["save"].as_u64()), (Some(1), Some(2)));
    assert!(second["new_files"].as_u64() < second["files"].as_u64(), "what was saved stays: {second}");
    let listed = house.run(&["backup", "status", backups.to_str().unwrap(), "--deep", "-o", "json"]).done().json();
    assert!(listed.len() == 2 && listed.iter().all(|save| save["state"] == "verified"), "{listed:?}");

    let (newest, restored) = house.restore(&backups, &[]);
    assert_eq!(restored["save"], 2);
    newest.sign_in("alice");
    assert_eq!(newest.texts(), ["one", "two"]);
    newest.send("three");
    assert_eq!(newest.texts(), ["one", "two", "three"]);
    assert_eq!(house.texts(), ["one", "two"]);

    let made = humantime::format_rfc3339_millis(
        std::time::UNIX_EPOCH + std::time::Duration::from_millis(first["log_time_ms"].as_u64().unwrap()),
    );
    let (mut older, restored) = house.restore(&backups, &["--at", &made.to_string()]);
    assert_eq!((&restored["save"], &restored["log_time_ms"]), (&first["save"], &first["log_time_ms"]));
    assert_eq!(older.export("restored.jsonl"), lines, "record by record");
    // Its history is its own, also after another start, and can be saved and restored again.
    older.kill();
    older.start();
    assert_eq!(older.export("restored.jsonl"), lines);
    let again = older.path("again");
    older.save(&again);
    let (twice, second_life) = older.restore(&again, &[]);
    assert_eq!(second_life["restored_from"], restored["history"]);
    assert_eq!(twice.export("twice.jsonl"), lines);
}

#[test]
fn a_save_while_messages_come_in_is_one_moment_of_all_of_them() {
    let house = House::new();
    house.sign_in("alice");
    let (backups, stop) = (house.path("backups"), Arc::new(AtomicBool::new(false)));
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                house.send(&sent.to_string());
                sent += 1;
            }
            sent
        });
        for _ in 0..3 {
            house.save(&backups);
        }
        stop.store(true, Ordering::Relaxed);
        let sent: usize = sender.join().unwrap();
        let (restored, _) = house.restore(&backups, &[]);
        restored.sign_in("alice");
        let texts = restored.texts();
        assert!(texts.len() <= sent && texts.iter().enumerate().all(|(n, text)| *text == n.to_string()), "{texts:?}");
    });
}

#[test]
fn damage_is_named_and_nothing_is_restored_over_anything() {
    let house = House::new();
    house.sign_in("alice");
    let backups = house.path("backups");
    house.send("one");
    house.save(&backups);
    let status = |deep: &[&str]| house.run(&[&["backup", "status", backups.to_str().unwrap()], deep].concat());
    status(&["--deep"]).done();

    let taken = house.path("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("letter"), "dear").unwrap();
    let restore =
        |to: &Path| house.run(&["backup", "restore", backups.to_str().unwrap(), "--data-dir", to.to_str().unwrap()]);
    assert!(restore(&taken).ended_with(1).complaint().contains("letter"));

    let segment =
        files(&backups.join("segments")).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let whole = std::fs::read(&segment).unwrap();
    for at in [70, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&segment, &bytes).unwrap();
        status(&["--deep"]).ended_with(5);
        let to = house.path("to");
        restore(&to).ended_with(1);
        assert!(!to.join("node.toml").exists(), "no node starts on it");
    }
    std::fs::remove_file(&segment).unwrap();
    status(&[]).ended_with(5);
    std::fs::write(&segment, &whole).unwrap();
    let to = house.path("to");
    restore(&to).done();
    assert!(to.join("node.toml").exists(), "what was interrupted before is cleared");

    let save = files(&backups.join("saves")).remove(0);
    let text = std::fs::read_to_string(&save).unwrap();
    for damaged in [String::new(), text[..text.len() - 9].into(), text.replacen("\"dev\":true", "\"dev\":false", 1)] {
        std::fs::write(&save, damaged).unwrap();
        assert!(status(&[]).ended_with(5).complaint().contains("0000000001.save"));
    }
    std::fs::write(&save, text.replacen("\"backup\":2", "\"backup\":3", 1)).unwrap();
    assert!(status(&[]).ended_with(5).complaint().contains("format 3"));
}

#[test]
fn a_native_export_is_the_newest_alone_and_keeps_what_it_has() {
    let house = House::new();
    house.sign_in("alice");
    let out = house.path("native");
    let export = |more: &[&str]| {
        house.admin(&[&["export", "--format", "native", "--out", out.to_str().unwrap()], more].concat()).remove(0)
    };
    house.send("one");
    export(&[]);
    house.send("two");
    let second = export(&["--link"]);
    assert!(second["new_files"].as_u64() < second["files"].as_u64(), "{second}");
    assert_eq!(files(&out.join("saves")).len(), 1);
    assert_eq!(files(&out.join("segments")).len() as u64, second["files"].as_u64().unwrap());
    let (restored, _) = house.restore(&out, &[]);
    restored.sign_in("alice");
    assert_eq!(restored.texts(), ["one", "two"]);
    let lines = house.export("all.jsonl");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    house
        .run(&["import", out.to_str().unwrap(), "--dev", "--shards", "9", "--data-dir", data.to_str().unwrap()])
        .done();
    assert_eq!(House::with(dir, Vec::new()).export("imported.jsonl"), lines);
}

/// Starts a command and kills it as soon as it has begun to make a directory.
fn kill_in_the_middle(house: &House, args: &[&str], data: &Path) {
    let mut child = house.skein(args).spawn().unwrap();
    while !data.join("skein.unfinished").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended before it was killed");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!data.join("node.toml").exists(), "killed before it was whole");
    let server =
        ["server", "--dev", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    let words = house.run(&server).ended_with(1).complaint();
    assert!(words.contains("interrupted"), "{words}");
}

#[test]
fn an_import_and_a_restore_that_are_killed_leave_nothing_that_a_node_starts_on_and_can_be_run_again() {
    let house = House::new();
    house.sign_in("alice");
    house.send("one");
    let (backups, lines) = (house.path("backups"), house.export("all.jsonl"));
    house.save(&backups);
    let (input, backups) = (house.path("all.jsonl"), backups.to_str().unwrap().to_owned());
    let import = ["import", input.to_str().unwrap(), "--dev", "--shards", "64"];
    let restore = ["backup", "restore", &backups];
    for command in [&import[..], &restore[..]] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let args = [command, &["--data-dir", data.to_str().unwrap()]].concat();
        for _ in 0..3 {
            kill_in_the_middle(&house, &args, &data);
        }
        house.run(&args).done();
        assert_eq!(House::with(dir, Vec::new()).export("again.jsonl"), lines);
    }
}

/// A text that occurs once in the world.
fn secret() -> String {
    format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>())
}

/// Whether any file, as bytes or as `skein log show` decodes it, holds a text.
fn holds(house: &House, data: &Path, text: &str) -> bool {
    let shown = |path: &PathBuf| {
        let args = ["log", "show", path.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "-o", "json"];
        house.run(&args).words()
    };
    let is_shown = |path: &PathBuf| {
        let is_log = path.extension().is_some_and(|ending| ending == "segment" || ending == "journal");
        is_log && shown(path).contains(text)
    };
    let is_raw = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        let begin = text.as_bytes();
        (0..bytes.len().saturating_sub(begin.len() - 1))
            .any(|at| bytes[at] == begin[0] && bytes[at..].starts_with(begin))
    };
    files(data).iter().any(|path| is_raw(path) || is_shown(path))
}

#[test]
fn what_was_erased_after_a_save_does_not_come_back_with_it() {
    let house = House::new();
    ["alice", "bob"].iter().for_each(|name| house.sign_in(name));
    let (erased, kept, later) = (secret(), secret(), secret());
    let say = |text: &str| house.run(&["send", "--to", "alice", text, "--profile", "bob"]).done();
    house.send(&kept);
    say(&erased);
    let (backups, early) = (house.path("backups"), house.path("early.jsonl"));
    house.save(&backups);
    house.export("early.jsonl");
    house.admin(&["user", "erase", "bob"]);
    say(&later);
    house.save(&backups);

    let restore = |name: &str, args: &[&str]| {
        let to = house.path(name);
        let whole = [args, &["-o", "json", "--data-dir", to.to_str().unwrap()]].concat();
        (house.run(&whole).done().json().remove(0), to)
    };
    let from = backups.to_str().unwrap();
    let (restored, old) = restore("old", &["backup", "restore", from, "--save", "1"]);
    assert_eq!((&restored["save"], &restored["users_erased"]), (&1.into(), &1.into()));
    assert!(!holds(&house, &old, &erased) && holds(&house, &old, &kept));
    house.run(&["log", "verify", "--deep", "--data-dir", old.to_str().unwrap()]).done();
    let (_, new) = restore("new", &["backup", "restore", from]);
    assert!(!holds(&house, &new, &erased) && holds(&house, &new, &later), "what was sent later stays");
    let export = early.to_str().unwrap();
    let (_, without) = restore("without", &["import", export, "--dev", "--erasures", from]);
    assert!(!holds(&house, &without, &erased) && holds(&house, &without, &kept));
    let (_, with) = restore("with", &["import", export, "--dev"]);
    assert!(holds(&house, &with, &erased), "the search can tell");

    // The node that is restored knows of it, and so does what is saved of it: also for saves of another history.
    let mut second = House::closed(tempfile::tempdir().unwrap());
    second.data_at(&old);
    second.start();
    ["alice", "bob"].iter().for_each(|name| second.sign_in(name));
    assert_eq!(second.texts(), std::slice::from_ref(&kept));
    second.run(&["send", "--to", "alice", &later, "--profile", "bob"]).done();
    assert_eq!(second.texts(), [kept, later]);
    std::fs::remove_file(files(&backups.join("saves")).pop().unwrap()).unwrap();
    second.save(&backups);
    let (_, again) = restore("again", &["backup", "restore", from, "--save", "1"]);
    assert!(!holds(&house, &again, &erased), "of a save that only another history knows more than");
}

#[test]
fn a_save_of_the_first_format_is_read_and_later_ones_go_on_from_it() {
    let house = House::new();
    house.sign_in("alice");
    let backups = house.path("backups");
    house.send("one");
    house.save(&backups);
    let file = files(&backups.join("saves")).remove(0);
    let text = std::fs::read_to_string(&file).unwrap();
    let mut line = text.lines().next().unwrap().replacen("\"backup\":2", "\"backup\":1", 1) + "\n";
    line = line.replace(",\"since\":null", "").replace(",\"entries\":null", "");
    assert!(!line.contains("since") && !line.contains("entries"));
    std::fs::write(&file, format!("{line}blake3 {}\n", blake3::hash(line.as_bytes()).to_hex())).unwrap();
    let lines = house.export("one.jsonl");
    house.send("two");
    assert!(house.save(&backups)["points_to_ms"].is_u64());
    let (restored, _) = house.restore(&backups, &["--save", "1"]);
    assert_eq!(restored.export("restored.jsonl"), lines);
    assert_eq!(house.restore(&backups, &[]).1["save"], 2);
}
