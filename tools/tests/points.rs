//! Restore to moments between saves: exactly what there was, on a node that goes on from there.
#![allow(clippy::unwrap_used)]

mod house;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use house::{Answer, House};
use serde_json::Value;

/// Merges soon, and lets the journal go of nothing that it has a place for.
const KEEPS: [&str; 4] = ["--set", "journal.keep_for_backups=true", "--set", "sequencer.merge_inputs=2"];
/// A UUIDv7 of a moment that has long passed, and one message that is retried under it.
const OLD_ID: &str = "01910000-0000-7000-8000-000000000001";

impl House {
    fn that(args: &[&str]) -> House {
        House::with(tempfile::tempdir().unwrap(), args.iter().map(|arg| arg.to_string()).collect())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn admin(&self, args: &[&str]) -> Vec<Value> {
        let data = self.data();
        self.run(&[args, &["-o", "json", "--data-dir", data.to_str().unwrap()]].concat()).done().json()
    }

    fn export(&self) -> String {
        let out = self.path("export.jsonl");
        self.admin(&["export", "--format", "jsonl", "--out", out.to_str().unwrap()]);
        std::fs::read_to_string(out).unwrap()
    }

    /// All that there is, and the moment of it: nothing happens before that moment has passed.
    fn moment(&self) -> (String, u64) {
        let lines = self.export();
        let now = now_ms();
        while now_ms() <= now {
            std::thread::yield_now();
        }
        (lines, now)
    }

    fn save(&self, backups: &Path) -> Value {
        self.admin(&["backup", "save", backups.to_str().unwrap()]).remove(0)
    }

    fn seal(&self) {
        self.admin(&["shard", "seal", "--all"]);
    }

    fn send(&self, text: &str) {
        self.run(&["send", "--to", "bob", text, "--profile", "alice"]).done();
    }

    fn texts(&self) -> Vec<String> {
        self.run(&["history", "--with", "bob", "--profile", "alice", "-o", "json"]).done().texts()
    }

    fn try_restore(&self, backups: &Path, name: &str, ms: u64) -> (Answer, PathBuf) {
        let data = self.path(name);
        let [from, to] = [backups, &data].map(|path| path.to_str().unwrap());
        (self.run(&["backup", "restore", from, "-o", "json", "--data-dir", to, "--at", &rfc3339(ms)]), data)
    }

    /// A node on what there was at a moment, after every file of it was looked at.
    fn restored(&self, backups: &Path, name: &str, ms: u64) -> House {
        let (answer, data) = self.try_restore(backups, name, ms);
        let restored = answer.done().json().remove(0);
        assert!(restored["log_time_ms"].as_u64().unwrap() <= ms && restored["shards_cut_lower"] == 0, "{restored}");
        self.run(&["log", "verify", "--deep", "--data-dir", data.to_str().unwrap()]).done();
        let mut house = House::closed(tempfile::tempdir().unwrap());
        house.data_at(&data);
        house.start();
        house
    }

    fn status(&self, backups: &Path, deep: &[&str]) -> Answer {
        self.run(&[&["backup", "status", backups.to_str().unwrap(), "-o", "json"], deep].concat())
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn rfc3339(ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

#[test]
fn a_restore_to_a_moment_between_saves_has_exactly_what_there_was_and_goes_on() {
    let house = House::that(&KEEPS);
    ["alice", "bob", "carol"].iter().for_each(|name| house.sign_in(name));
    let backups = house.path("backups");
    house.send("before");
    let first = house.save(&backups);
    assert_eq!(first["points_to_ms"], Value::Null, "a save alone is a point alone");

    // Generations come and go between the saves; so do 1:1s, a group, and who is in it.
    let mut moments = Vec::new();
    for round in 0..4 {
        house.send(&format!("round {round}"));
        by(&house, "bob", &["send", "--to", "carol", &format!("to carol {round}")]);
        moments.push(house.moment());
        house.seal();
    }
    // One id is older than the dedup window, the other inside.
    let ids = [OLD_ID.to_owned(), uuid::Uuid::now_v7().to_string()];
    let send_under = |house: &House, id: &str| {
        let args = ["send", "--to", "bob", "once", "--profile", "alice", "--id", id, "-o", "json"];
        let sent = house.run(&args).done().json().remove(0);
        (sent["seq_id"].clone(), sent["server_msg_id"].clone())
    };
    let sent = ids.each_ref().map(|id| send_under(&house, id));
    assert!(sent[0] != sent[1] && sent[0].0.as_u64().is_some(), "{sent:?}");
    by(&house, "alice", &["group", "create", "geese", "bob", "carol"]);
    by(&house, "carol", &["send", "--group", "geese", "honk"]);
    by(&house, "alice", &["group", "remove", "geese", "carol"]);
    moments.push(house.moment());
    let with_all = moments.last().unwrap().1;
    house.send("after");
    let second = house.save(&backups);
    house.send("late");

    let listed = house.status(&backups, &["--deep"]).done().json();
    let points = &listed[1];
    assert_eq!(points["state"], "verified");
    assert_eq!(points["points_from_ms"], first["log_time_ms"]);
    assert!(points["points_to_ms"].as_u64().unwrap() > with_all, "{points}");
    assert!(points["points_to_ms"].as_u64() < second["log_time_ms"].as_u64());
    for (place, (lines, at)) in moments.iter().enumerate() {
        let restored = house.restored(&backups, &format!("at-{place}"), *at);
        assert_eq!(restored.export(), *lines, "moment {place}");
    }

    let mut restored = house.restored(&backups, "goes-on", with_all);
    ["alice", "bob", "carol"].iter().for_each(|name| restored.sign_in(name));
    assert_eq!(ids.each_ref().map(|id| send_under(&restored, id)), sent, "a retry is the same message");
    let before = restored.texts();
    assert_eq!(before, ["before", "round 0", "round 1", "round 2", "round 3", "once", "once"]);
    restored.send("a new beginning");
    by(&restored, "bob", &["send", "--to", "carol", "and here"]);
    by(&restored, "alice", &["send", "--group", "geese", "hiss"]);
    restored.kill();
    restored.start();
    assert_eq!(restored.texts(), [&before[..], &["a new beginning".to_owned()]].concat());
    restored.seal();
    restored.stop();
    restored.run(&["log", "verify", "--deep", "--data-dir", restored.data().to_str().unwrap()]).done();
}

#[test]
fn merges_and_what_they_drop_between_two_saves_are_no_hindrance() {
    let mut house = House::of_the_first_format().serving_with(&KEEPS);
    house.start();
    ["alice", "bob", "carol"].iter().for_each(|name| house.sign_in(name));
    let backups = house.path("backups");
    let levels = |house: &House| {
        let names = ["segments/00000", "segments/00001"].map(|dir| std::fs::read_dir(house.data().join(dir)).unwrap());
        let names = names.into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(".L1.") || name.contains(".L2.")).collect::<BTreeSet<_>>()
    };
    house.save(&backups);
    let merged_before = levels(&house);
    let mut moments = vec![house.moment()];
    house.send("before the merge");
    moments.push(house.moment());
    let told = house.run(&["history", "--with", "bob", "--profile", "alice", "-o", "json"]).done().json();
    let direct = told[0]["conversation"].as_str().unwrap();
    house.admin(&["conversation", "trim", direct, "--before", "6"]);
    house.seal();
    house.seal();
    house.admin(&["log", "compact", "--timeout", "60s"]);
    assert!(levels(&house) != merged_before, "merges were made meanwhile: {merged_before:?}");
    moments.push(house.moment());
    house.send("after the merge");
    moments.push(house.moment());
    house.send("later");
    house.save(&backups);
    for (place, (lines, at)) in moments.iter().enumerate() {
        let restored = house.restored(&backups, &format!("at-{place}"), *at);
        assert_eq!(restored.export(), *lines, "moment {place}");
    }
}

fn by(house: &House, name: &str, args: &[&str]) {
    house.run(&[args, &["--profile", name]].concat()).done();
}

#[test]
fn what_cannot_be_reached_is_refused_with_what_can() {
    let house = House::that(&KEEPS);
    house.sign_in("alice");
    let backups = house.path("backups");
    let (_, too_early) = house.moment();
    house.send("one");
    let first = house.save(&backups);
    let alone = first["log_time_ms"].as_u64().unwrap();
    let (answer, made) = house.try_restore(&backups, "alone", alone + 1);
    assert!(answer.ended_with(1).complaint().contains("--save 1"));
    assert!(!made.exists(), "nothing is made");
    house.send("two");
    house.save(&backups);
    let listed = house.status(&backups, &[]).done().json();
    let [from, to] = ["points_from_ms", "points_to_ms"].map(|name| listed[1][name].as_u64().unwrap());
    let complaint = |at| house.try_restore(&backups, "no", at).0.ended_with(1).complaint();
    assert!(complaint(too_early).contains(&rfc3339(from)));
    let late = complaint(to + 60_000);
    assert!(late.contains("cannot be restored exactly") && late.contains("--save 2"), "{late}");
    for (name, at) in [("first", from), ("last", to)] {
        house.try_restore(&backups, name, at).0.done();
    }

    // With the first save gone there is nothing to begin with.
    std::fs::remove_file(backups.join("saves/0000000001.save")).unwrap();
    assert!(complaint(from).contains("--save 2"));
    house.status(&backups, &["--deep"]).done();
}

#[test]
fn a_node_that_keeps_nothing_says_so_at_the_save_and_the_save_is_a_point_all_the_same() {
    let house = House::that(&[]);
    house.sign_in("alice");
    let backups = house.path("backups");
    house.send("one");
    house.save(&backups);
    let (_, between) = house.moment();
    for text in ["two", "three", "four"] {
        house.send(text);
        house.seal();
    }
    let data = house.data();
    let args = ["backup", "save", backups.to_str().unwrap(), "-o", "json", "--data-dir", data.to_str().unwrap()];
    let saved = house.run(&args).done();
    assert!(saved.complaint().contains("no longer has entry"), "{}", saved.complaint());
    assert_eq!(saved.json()[0]["points_to_ms"], Value::Null);
    let (answer, _) = house.try_restore(&backups, "between", between);
    answer.ended_with(1);
    assert!(!backups.join("entries/0000000002").exists(), "half of it is of no use");
    // From here on the journal has what follows.
    house.send("five");
    let third = house.save(&backups);
    let at = third["points_from_ms"].as_u64().unwrap();
    let restored = house.restored(&backups, "third", at);
    restored.sign_in("alice");
    assert_eq!(restored.texts(), ["one", "two", "three", "four"]);
}

#[test]
fn damaged_entries_are_named_and_nothing_is_made_of_them() {
    let house = House::that(&KEEPS);
    house.sign_in("alice");
    let backups = house.path("backups");
    house.send("one");
    house.save(&backups);
    (0..20).for_each(|n| house.send(&format!("message {n}")));
    let (lines, at) = house.moment();
    house.save(&backups);
    let largest = |dir: &Path| {
        let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        files.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
    };
    let file = largest(&backups.join("entries/0000000002"));
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    let whole = std::fs::read(&file).unwrap();
    let cut = whole[..whole.len() - 1].to_vec();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let damage = [cut, Vec::new(), flipped(3), flipped(40), flipped(whole.len() / 2), flipped(whole.len() - 1)];
    for bytes in damage {
        std::fs::write(&file, bytes).unwrap();
        let listed = house.status(&backups, &["--deep"]).ended_with(5).json();
        assert!(listed[1]["state"].as_str().unwrap().contains(&name), "{listed:?}");
        let (answer, made) = house.try_restore(&backups, "no", at);
        assert!(answer.ended_with(1).complaint().contains(&name) && !made.exists());
    }
    std::fs::remove_file(&file).unwrap();
    assert!(house.status(&backups, &[]).ended_with(5).json()[1]["state"].as_str().unwrap().contains(&name));
    std::fs::write(&file, &whole).unwrap();
    house.status(&backups, &["--deep"]).done();
    assert_eq!(house.restored(&backups, "yes", at).export(), lines);
}

#[test]
fn what_was_erased_later_does_not_come_back_with_a_moment_before_it() {
    let house = House::that(&KEEPS);
    ["alice", "bob"].iter().for_each(|name| house.sign_in(name));
    let backups = house.path("backups");
    let secret = format!("{:032x}", rand::random::<u128>());
    house.save(&backups);
    house.send("kept");
    by(&house, "bob", &["send", "--to", "alice", &secret]);
    let (_, before) = house.moment();
    house.save(&backups);
    let mut early = house.restored(&backups, "early", before);
    early.sign_in("alice");
    assert_eq!(early.texts(), ["kept".to_owned(), secret.clone()], "as long as nobody has asked");
    early.stop();
    assert!(holds(&early, &secret), "the search can tell");

    // The journal keeps nothing for saves while it is to forget.
    house.admin(&["user", "erase", "bob"]);
    house.save(&backups);
    let mut late = house.restored(&backups, "late", before);
    late.sign_in("alice");
    assert_eq!(late.texts(), ["kept"]);
    late.stop();
    assert!(!holds(&late, &secret));
}

/// Whether any segment of a node, decoded, has a text.
fn holds(house: &House, text: &str) -> bool {
    let data = house.data();
    let shards = std::fs::read_dir(data.join("segments")).unwrap();
    let files = shards.flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap());
    let mut files =
        files.map(|file| file.unwrap().path()).filter(|path| path.extension().unwrap_or_default() == "segment");
    files.any(|path| {
        let args = ["log", "show", path.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "-o", "json"];
        house.run(&args).done().words().contains(text)
    })
}
