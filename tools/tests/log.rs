//! The log on disk, as operators see it: sealed from a running node, looked at when none runs.

#![allow(clippy::unwrap_used)]

mod house;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use house::{Answer, House};
use serde_json::Value;

#[test]
fn sealing_by_hand_returns_when_everything_is_in_segments() {
    let mut house = House::new();
    let data = house.data();
    let dir = data.to_str().unwrap();
    house.sign_in("alice");
    house.run_with_input(&["send", "--to", "bob"], b"one\ntwo\nthree\n").done();

    let sealed = house.run(&["shard", "seal", "--all", "--data-dir", dir, "-o", "json"]).done().json();
    assert_eq!(sealed.len(), 4, "a line a shard");
    let sum = |key: &str| sealed.iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>();
    assert!(sum("records") >= 3 && sealed.iter().all(|row| row["seals"] == 1 && row["segments"] == 1));
    let on_disk = |shard: usize| {
        let files = std::fs::read_dir(data.join(format!("segments/{shard:05}"))).unwrap().map(Result::unwrap);
        let segments = files.filter(|file| file.file_name().to_str().unwrap().ends_with(".segment"));
        segments.map(|file| file.metadata().unwrap().len()).sum::<u64>()
    };
    assert_eq!(sum("file_bytes"), (0..4).map(on_disk).sum::<u64>());
    let shards = house.run(&["shard", "list", "--data-dir", dir, "-o", "json"]).done().json();
    assert!(shards.iter().all(|row| row["unsealed_records"] == 0));

    let one = house.run(&["shard", "seal", "--shard", "2", "--data-dir", dir, "-o", "json"]).done().json();
    assert_eq!((one.len(), &one[0]["shard"], &one[0]["seals"]), (1, &2.into(), &2.into()));
    house.run(&["shard", "seal", "--shard", "77", "--data-dir", dir]).ended_with(3);
    house.run(&["shard", "seal", "--data-dir", dir]).ended_with(2);

    house.kill();
    house.start();
    let read = house.run(&["history", "--with", "bob", "-o", "json"]).done();
    assert_eq!(read.texts(), ["one", "two", "three"]);
}

/// Every file of a directory with its bytes and when it was written.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        if meta.is_dir() {
            files.extend(snapshot(&path));
        } else {
            files.insert(path.clone(), (std::fs::read(&path).unwrap(), meta.modified().unwrap()));
        }
    }
    files
}

fn flip(path: &Path, offset: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset as usize] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

/// A node that has sealed three messages of alice to bob and holds two more in its journal, stopped; and the acks of all five.
fn stopped_house() -> (House, Vec<Value>) {
    let mut house = House::new();
    house.sign_in("alice");
    let mut acks = house.run_with_input(&["send", "--to", "bob", "-o", "json"], b"one\ntwo\nthree\n").done().json();
    house.run(&["shard", "seal", "--all", "--data-dir", house.data().to_str().unwrap()]).done();
    acks.extend(house.run_with_input(&["send", "--to", "bob", "-o", "json"], b"four\nfive\n").done().json());
    house.stop();
    (house, acks)
}

/// Runs `skein log` on the house's directory.
fn log(house: &House, args: &[&str]) -> Answer {
    let data = house.data();
    let rest = ["--data-dir", data.to_str().unwrap(), "-o", "json"];
    house.run(&[&["log"], args, &rest].concat())
}

fn having<'a>(rows: &'a [Value], key: &str, value: &str) -> Vec<&'a Value> {
    rows.iter().filter(|row| row[key] == value).collect()
}

fn texts(rows: &[&Value]) -> Vec<String> {
    rows.iter().filter_map(|row| row["text"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_stopped_log_is_listed_shown_found_and_verified_and_nothing_of_it_changes() {
    let (house, acks) = stopped_house();
    let before = snapshot(&house.data());

    let files = log(&house, &["ls"]).done().json();
    let segments = having(&files, "file", "segment");
    assert!(segments.len() == 4 && segments.iter().all(|row| row["state"] == "listed" && row["level"] == 0));
    let journal = having(&files, "role", "used");
    let entries: u64 =
        journal[0]["shards"].as_array().unwrap().iter().map(|held| held["entries"].as_u64().unwrap()).sum();
    assert!(entries > 0 && journal[0]["blocks"].as_u64().unwrap() > 1);

    let shown = log(&house, &["show", "--with", "alice", "bob"]).done().json();
    assert_eq!(texts(&having(&shown, "item", "record")), ["one", "two", "three"]);
    assert_eq!(texts(&having(&shown, "item", "unsealed")), ["four", "five"]);
    assert_eq!(having(&shown, "item", "state").len(), 3, "the conversation's row and those of its members");
    let id = acks[0]["conversation"].as_str().unwrap();
    let part = log(&house, &["show", id, "--from", "2", "--to", "2", "--hex"]).done().json();
    assert_eq!(having(&part, "item", "record").iter().map(|row| &row["hex"]).collect::<Vec<_>>(), ["74776f"]);
    let holder = segments.iter().find(|row| row["records"].as_u64() >= Some(3)).unwrap()["path"].as_str().unwrap();
    let inside = log(&house, &["show", holder]).done().json();
    assert_eq!(having(&inside, "item", "section").len(), 11);
    assert!(texts(&having(&inside, "item", "record")).contains(&"three".to_owned()));
    assert!(inside.iter().all(|row| row["malformed_key"].is_null() && row["malformed_row"].is_null()));
    assert!(!inside.iter().any(|row| row.to_string().contains("argon2")), "hashes of passwords are nobody's business");
    let (dir, _) = holder.rsplit_once('/').unwrap();
    assert_eq!(log(&house, &["show", &format!("{dir}/MANIFEST")]).done().json().len(), 2);
    let typed = house.data().join("journal/0000000001.journal");
    let blocks = log(&house, &["show", typed.to_str().unwrap()]).done().json();
    assert!(texts(&having(&blocks, "command", "Send")).contains(&"five".to_owned()));
    log(&house, &["show", "no such thing"]).ended_with(1);

    let stats = log(&house, &["stats", "--top", "1"]).done().json();
    assert_eq!(having(&stats, "of", "shard").len(), 4);
    let top = having(&stats, "of", "conversation");
    assert!(top.len() == 1 && top[0]["conversation"] == *id && top[0]["records"] == 3);

    for (place, ack) in acks.iter().enumerate() {
        let found = log(&house, &["find", "--client-msg-id", ack["client_msg_id"].as_str().unwrap()]).done().json();
        assert_eq!((found.len(), found[0]["item"] == "record"), (1, place < 3), "{found:?}");
    }
    let found = log(&house, &["find", "--server-msg-id", acks[1]["server_msg_id"].as_str().unwrap()]).done().json();
    assert_eq!(texts(&found.iter().collect::<Vec<_>>()), ["two"]);
    let sent = log(&house, &["find", "--sender", "alice"]).done().json();
    assert_eq!(having(&sent, "conversation", id).len(), 5);
    assert_eq!(log(&house, &["find", "--sender", "alice", "--limit", "2"]).done().json().len(), 2);
    log(&house, &["find", "--server-msg-id", "7"]).ended_with(1);

    for args in [&["verify"][..], &["verify", "--deep"]] {
        let findings = log(&house, args).done().json();
        assert!(findings.len() >= 9 && findings.iter().all(|row| row["verdict"] == "sound"), "{findings:?}");
    }
    for args in [["ls"], ["stats"], ["verify"]] {
        let data = house.data();
        let table = house.run(&[&["log"], &args[..], &["--data-dir", data.to_str().unwrap()]].concat()).done();
        assert!(table.words().lines().count() > 4);
    }
    assert_eq!(snapshot(&house.data()), before, "nothing was changed");
}

#[test]
fn a_directory_that_a_node_holds_is_refused_and_its_owner_named() {
    let house = House::new();
    let pid = house.pid().unwrap();
    for args in [&["ls"][..], &["show", "journal/0000000001.journal"], &["stats"], &["find", "--sender", "1"]] {
        let refused = log(&house, args).ended_with(1).complaint();
        assert!(refused.contains(&format!("in use by skein pid {pid} (listening on {}", house.listen)), "{refused}");
    }
    log(&house, &["verify"]).ended_with(1);
    log(&house, &["rebuild"]).ended_with(1);
    let nothing = house.dir.path().join("nothing");
    house.run(&["log", "ls", "--data-dir", nothing.to_str().unwrap()]).ended_with(1);
    assert!(!nothing.exists());
}

#[test]
fn rot_is_named_with_file_and_offset_and_changes_the_exit_code() {
    let (house, _) = stopped_house();
    let files = log(&house, &["ls"]).done().json();
    let segments = having(&files, "file", "segment");
    let path = segments.iter().find(|row| row["records"].as_u64() >= Some(3)).unwrap()["path"].as_str().unwrap();

    // In the first block of records.
    let segment = house.data().join(path);
    flip(&segment, 90);
    let damaged = snapshot(&house.data());
    let answer = log(&house, &["verify"]).ended_with(5);
    let (findings, complaint) = (answer.json(), answer.complaint());
    let rot = having(&findings, "verdict", "rot");
    assert!(rot.len() == 1 && rot[0]["path"] == path && rot[0]["offset"] == 64, "{findings:?}");
    assert!(complaint.contains("not fine"), "{complaint}");
    assert_eq!(snapshot(&house.data()), damaged, "damage is named, never mended");
    flip(&segment, 90);
    log(&house, &["verify", "--deep"]).done();

    // In a block of the journal that others follow.
    let file = "journal/0000000001.journal";
    let shown = log(&house, &["show", file]).done().json();
    let offset = having(&shown, "kind", "commit")[0]["offset"].as_u64().unwrap();
    flip(&house.data().join(file), offset + 100);
    let findings = log(&house, &["verify"]).ended_with(5).json();
    let rot = having(&findings, "verdict", "rot");
    assert!(rot.len() == 1 && rot[0]["path"] == file && rot[0]["offset"] == offset, "{findings:?}");
    flip(&house.data().join(file), offset + 100);

    // A manifest, and a segment that is gone.
    let manifest = house.data().join(path).with_file_name("MANIFEST");
    flip(&manifest, 30);
    let findings = log(&house, &["verify"]).ended_with(5).json();
    assert!(having(&findings, "verdict", "rot")[0]["path"].as_str().unwrap().ends_with("MANIFEST"), "{findings:?}");
    flip(&manifest, 30);
    std::fs::rename(&segment, segment.with_extension("elsewhere")).unwrap();
    let findings = log(&house, &["verify"]).ended_with(5).json();
    assert_eq!(having(&findings, "verdict", "rot")[0]["path"], path, "{findings:?}");
    assert_eq!(having(&findings, "verdict", "leftover").len(), 1);
}

#[test]
fn state_stores_are_made_anew_and_are_what_they_were() {
    let (mut house, _) = stopped_house();
    let rebuild = |house: &House| log(house, &["rebuild"]).done().json();
    let first = rebuild(&house);
    assert_eq!(first.len(), 4);
    let again = rebuild(&house);
    assert!(again.iter().all(|row| row["before"] == "equal" && row["hash"] == row["hash_before"]), "{again:?}");
    let hashes = |rows: &[Value]| rows.iter().map(|row| row["hash"].clone()).collect::<Vec<_>>();
    assert_eq!(hashes(&first), hashes(&again));
    assert!(hashes(&first).iter().all(|hash| hash.as_str().unwrap().len() == 64));

    std::fs::remove_dir_all(house.data().join("store")).unwrap();
    assert_eq!(hashes(&rebuild(&house)), hashes(&first));
    let store = house.data().join("store/00001.redb");
    std::fs::write(&store, b"not a store").unwrap();
    let mended = rebuild(&house);
    assert_eq!((hashes(&mended), &mended[1]["before"]), (hashes(&first), &"damaged".into()));

    house.start();
    let read = house.run(&["history", "--with", "bob", "-o", "json"]).done();
    assert_eq!(read.texts(), ["one", "two", "three", "four", "five"]);
}

#[test]
fn a_store_that_rots_is_named_with_the_command_that_mends_it_and_that_command_mends_it() {
    let (house, _) = stopped_house();
    log(&house, &["rebuild"]).done();
    let of_stores = |rows: &[Value]| -> Vec<(String, String)> {
        let pair = |row: &Value| (row["path"].as_str().unwrap().into(), row["verdict"].as_str().unwrap().into());
        rows.iter().map(pair).filter(|(path, _): &(String, String)| path.starts_with("store/")).collect()
    };
    let sound: Vec<_> = (0..4).map(|n| (format!("store/0000{n}.redb"), "sound".to_owned())).collect();
    assert_eq!(of_stores(&log(&house, &["verify"]).done().json()), sound);

    // Every page of it: one at least is in the tree.
    let store = house.data().join("store/00001.redb");
    let whole = std::fs::read(&store).unwrap();
    (8192..whole.len() as u64).step_by(4104).for_each(|page| flip(&store, page + 100));
    let damaged = snapshot(&house.data());
    let answer = log(&house, &["verify", "--deep"]).ended_with(5).json();
    let rot = having(&answer, "verdict", "rot");
    assert!(rot.len() == 1 && rot[0]["path"] == "store/00001.redb", "{rot:?}");
    let words = rot[0]["words"].as_str().unwrap();
    let remedy = format!("skein log rebuild --data-dir {}", house.data().display());
    assert!(words.contains("does not verify") && words.contains(&remedy), "{words}");
    assert_eq!(snapshot(&house.data()), damaged, "a look changes nothing");
    let mended = log(&house, &["rebuild"]).done().json();
    assert_eq!(mended[1]["before"], "damaged");
    assert_eq!(of_stores(&log(&house, &["verify"]).done().json()), sound);

    std::fs::copy(&store, house.data().join("store/00077.redb")).unwrap();
    let findings = log(&house, &["verify"]).done().json();
    assert_eq!(having(&findings, "verdict", "leftover").len(), 1, "{findings:?}");
}
