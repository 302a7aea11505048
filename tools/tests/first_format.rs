//! What the first format left on disk: `fixtures/v1` is kept for ever, and every later version must read it.
//!
//! `data` is a node's directory after kill -9: two shards, a merge of level 1 and seals after it, trimmed and recalled messages, a
//! journal that nothing was sealed of since, a store. `data.jsonl` is what it exports. `saved.jsonl`,
//! `native` and `backups` are one moment of it, a message earlier; `acks.jsonl` is what its users were told. Keys are not among it.

#![allow(clippy::unwrap_used)]

mod house;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use house::{Answer, House, fixture};
use serde_json::Value;

/// Every file of a directory with its bytes.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            files.extend(snapshot(&entry.path()));
        } else {
            files.insert(entry.path(), std::fs::read(entry.path()).unwrap());
        }
    }
    files
}

fn json_lines(name: &str) -> Vec<Value> {
    let lines = std::fs::read_to_string(fixture(name)).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs a command on the house's directory.
fn on_data(house: &House, args: &[&str]) -> Answer {
    let data = house.data();
    house.run(&[args, &["--data-dir", data.to_str().unwrap(), "-o", "json"]].concat())
}

fn having<'a>(rows: &'a [Value], key: &str, value: impl Into<Value>) -> Vec<&'a Value> {
    let value = value.into();
    rows.iter().filter(|row| row[key] == value).collect()
}

fn text_of(row: &Value) -> Option<&str> {
    row["text"].as_str()
}

fn exported(house: &House, name: &str) -> Vec<u8> {
    let out = house.dir.path().join(name);
    on_data(house, &["export", "--format", "jsonl", "--out", out.to_str().unwrap()]).done();
    std::fs::read(out).unwrap()
}

fn verified(house: &House) {
    for args in [&["log", "verify"][..], &["log", "verify", "--deep"]] {
        let findings = on_data(house, args).done().json();
        assert!(findings.iter().all(|row| row["verdict"] != "rot"), "{findings:?}");
    }
}

fn files_are_listed_and_shown(house: &House) {
    let files = on_data(house, &["log", "ls"]).done().json();
    let merged = having(&files, "level", 1);
    assert!(!merged.is_empty() && merged.iter().all(|row| row["state"] == "listed"), "{files:?}");
    assert!(merged.iter().all(|row| row["first_seal"].as_u64() < row["last_seal"].as_u64()), "{merged:?}");
    assert!(!having(&files, "level", 0).is_empty() && !having(&files, "role", "used").is_empty());

    let holder = merged.iter().max_by_key(|row| row["records"].as_u64()).unwrap();
    let inside = on_data(house, &["log", "show", holder["path"].as_str().unwrap()]).done().json();
    assert_eq!(having(&inside, "item", "record").len() as u64, holder["records"].as_u64().unwrap());
    assert!(inside.iter().all(|row| row["malformed_key"].is_null() && row["malformed_row"].is_null()));
    let manifest = Path::new(holder["path"].as_str().unwrap()).with_file_name("MANIFEST");
    assert!(on_data(house, &["log", "show", manifest.to_str().unwrap()]).done().json().len() >= 2);
    let journal = having(&files, "role", "used")[0]["path"].as_str().unwrap();
    let blocks = on_data(house, &["log", "show", journal]).done().json();
    assert!(having(&blocks, "command", "Send").iter().any(|row| text_of(row) == Some("after the last seal")));
}

fn a_conversation_is_shown_and_counted(house: &House, direct: &str) {
    let shown = on_data(house, &["log", "show", direct]).done().json();
    let stored = having(&shown, "item", "record");
    assert!(stored.windows(2).all(|pair| pair[0]["seq_id"].as_u64() < pair[1]["seq_id"].as_u64()));
    assert!(having(&shown, "item", "unsealed").iter().any(|row| text_of(row) == Some("after the last seal")));
    let part = on_data(house, &["log", "show", direct, "--from", "5", "--to", "6", "--hex"]).done().json();
    let hex: Vec<_> = having(&part, "item", "record").iter().map(|row| row["hex"].clone()).collect();
    assert_eq!(hex, ["616c69636520322e32", "626f622032"], "alice 2.2, bob 2");

    let stats = on_data(house, &["log", "stats", "--top", "1"]).done().json();
    assert_eq!(having(&stats, "of", "shard").len(), 2);
    assert_eq!(having(&stats, "of", "conversation")[0]["conversation"], direct);
}

fn messages_are_found(house: &House, acks: &[Value], direct: &str) {
    let is_kept = |ack: &&Value| ack["seq_id"].as_u64() >= Some(4) || ack["conversation"] != direct;
    let find = |flag: &str, id: &Value| on_data(house, &["log", "find", flag, id.as_str().unwrap()]).done().json();
    for ack in acks.iter().filter(is_kept) {
        let found = find("--client-msg-id", &ack["client_msg_id"]);
        assert_eq!((found.len(), &found[0]["client_msg_id"]), (1, &ack["client_msg_id"]), "{ack}: {found:?}");
        // What is not sealed has its server_msg_id when it is applied, which nobody does here.
        if found[0]["item"] == "record" {
            assert_eq!(found[0]["seq_id"], ack["seq_id"], "{found:?}");
            assert_eq!(find("--server-msg-id", &ack["server_msg_id"]), found);
        }
    }
    let unsealed = find("--client-msg-id", &acks[acks.len() - 1]["client_msg_id"]);
    assert_eq!((&unsealed[0]["item"], text_of(&unsealed[0])), (&"unsealed".into(), Some("after the last seal")));
    let of_alice = on_data(house, &["log", "find", "--sender", "alice", "--limit", "1000"]).done().json();
    assert!(of_alice.len() >= 10, "{of_alice:?}");
    for words in ["ls", "stats", "verify"] {
        let data = house.data();
        let table = house.run(&["log", words, "--data-dir", data.to_str().unwrap()]).done();
        assert!(table.words().lines().count() > 4);
    }
    verified(house);
}

fn what_is_not_there_is_refused(house: &House) {
    on_data(house, &["log", "show", "segments/00000/no.segment"]).ended_with(1);
    on_data(house, &["log", "show", "80000000000000000000000000000007"]).ended_with(1);
    on_data(house, &["log", "find", "--server-msg-id", "7"]).ended_with(1);
    on_data(house, &["log", "find", "--client-msg-id", "not an id"]).ended_with(2);
    on_data(house, &["log", "compact", "--dry-run"]).ended_with(1);
}

#[test]
fn every_command_that_looks_at_a_log_reads_the_first_format_merged_and_all_and_changes_nothing() {
    let house = House::of_the_first_format();
    let before = snapshot(&house.data());
    let acks = json_lines("acks.jsonl");
    let direct = acks[0]["conversation"].as_str().unwrap();
    files_are_listed_and_shown(&house);
    a_conversation_is_shown_and_counted(&house, direct);
    messages_are_found(&house, &acks, direct);
    what_is_not_there_is_refused(&house);
    assert_eq!(snapshot(&house.data()), before, "nothing was changed");

    let hashes = || -> Vec<Value> {
        let rebuilt = on_data(&house, &["log", "rebuild"]).done().json();
        assert!(rebuilt.iter().all(|row| row["before"] != "differs" && row["before"] != "damaged"), "{rebuilt:?}");
        rebuilt.iter().map(|row| row["hash"].clone()).collect()
    };
    assert_eq!(hashes(), hashes(), "a store is a function of its segments");
}

#[test]
fn a_node_goes_on_from_the_first_format_and_merges_it_and_tells_the_same() {
    let mut house = House::of_the_first_format();
    house.start();
    let told = std::fs::read(fixture("data.jsonl")).unwrap();
    assert!(exported(&house, "as it was.jsonl") == told, "an export says what it said when the node was killed");
    let acks = json_lines("acks.jsonl");
    house.sign_in("bob");
    let history = house.run(&["history", "--with", "alice", "--profile", "bob", "-o", "json"]).done();
    assert!(history.texts().contains(&"after the last seal".to_owned()));
    let retried = &acks[acks.len() - 1];
    house.sign_in("alice");
    let id = retried["client_msg_id"].as_str().unwrap();
    let again = ["send", "--to", "bob", "after the last seal", "--id", id, "--profile", "alice", "-o", "json"];
    let again = house.run(&again).done().json();
    assert_eq!((&again[0]["seq_id"], &again[0]["duplicate"]), (&retried["seq_id"], &true.into()));

    on_data(&house, &["shard", "seal", "--all"]).done();
    on_data(&house, &["log", "compact", "--dry-run"]).done();
    on_data(&house, &["log", "compact", "--timeout", "60s"]).done();
    assert_eq!(on_data(&house, &["log", "compact", "--dry-run"]).done().json().len(), 0, "nothing is due any more");
    assert!(exported(&house, "merged.jsonl") == told, "files have followed, lines say the same");
    house.stop();
    verified(&house);
}

#[test]
fn exports_and_saves_of_the_first_format_become_nodes_that_tell_the_same() {
    let told = std::fs::read(fixture("saved.jsonl")).unwrap();
    let restore = fixture("backups");
    for (verb, from) in [("import", fixture("saved.jsonl")), ("import", fixture("native")), ("restore", restore)] {
        let mut house = House::closed(tempfile::tempdir().unwrap());
        let from = from.to_str().unwrap();
        let args = if verb == "restore" { vec!["backup", "restore", from] } else { vec!["import", from, "--dev"] };
        on_data(&house, &args).done();
        house.start();
        assert!(exported(&house, "again.jsonl") == told, "{verb} {from}");
    }
}
