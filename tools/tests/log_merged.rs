//! `skein log` while a node runs on merged data: what it refuses, and what `compact` plans, leaves and drops. The data is that of the
//! first format, whose merge is older than the dedup window: no test needs to wait until one may begin.

#![allow(clippy::unwrap_used)]

mod house;

use std::collections::BTreeMap;
use std::path::PathBuf;

use house::{Answer, House, fixture};
use serde_json::{Value, json};

/// A message of alice to bob that the merged segment holds.
const RECALLED_SEQ: &str = "5";

/// A running node whose first segments are merged, and the 1:1 of alice and bob.
fn merged_house() -> (House, String) {
    let mut house = House::of_the_first_format();
    house.start();
    house.sign_in("alice");
    let acks = std::fs::read_to_string(fixture("acks.jsonl")).unwrap();
    let first: Value = serde_json::from_str(acks.lines().next().unwrap()).unwrap();
    (house, first["conversation"].as_str().unwrap().to_owned())
}

fn on_data(house: &House, args: &[&str]) -> Answer {
    let data = house.data();
    house.run(&[args, &["--data-dir", data.to_str().unwrap(), "-o", "json"]].concat())
}

/// The segments and manifests with their bytes.
fn sealed_files(house: &House) -> BTreeMap<PathBuf, Vec<u8>> {
    let shards = std::fs::read_dir(house.data().join("segments")).unwrap();
    let files = shards.flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn record(house: &House, conversation: &str) -> Value {
    let args = ["log", "show", conversation, "--from", RECALLED_SEQ, "--to", RECALLED_SEQ, "--hex"];
    let shown = on_data(house, &args).done().json();
    let mut records = shown.into_iter().filter(|row| row["item"] == "record");
    let record = records.next().unwrap();
    assert!(records.next().is_none(), "one seq was asked for");
    record
}

#[test]
fn a_merged_segment_is_planned_by_a_dry_run_that_drops_nothing_and_written_again_by_compact() {
    let (mut house, direct) = merged_house();
    house.run(&["message", "recall", &direct, RECALLED_SEQ, "--profile", "alice"]).done();
    on_data(&house, &["shard", "seal", "--all"]).done();
    let before = sealed_files(&house);
    let plans = on_data(&house, &["log", "compact", "--dry-run"]).done().json();
    assert_eq!(plans.len(), 1, "{plans:?}");
    let plan = &plans[0];
    let name = |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("0000000001-0000000004.L1.");
    let shard = house.data().join(format!("segments/{:05}", plan["shard"].as_u64().unwrap()));
    let written = before.keys().filter(|path| path.starts_with(&shard)).find(name).unwrap().clone();
    for (key, value) in [("first_seal", 1), ("last_seal", 4), ("inputs", 1), ("level", 1)] {
        assert_eq!(plan[key], value, "{key}");
    }
    assert_eq!((&plan["file_bytes"], &plan["asked"]), (&json!(before[&written].len()), &false.into()));
    assert!(plan["drops_upto_seal"].as_u64() > Some(4), "the recall was sealed after the merge: {plan}");
    assert!(sealed_files(&house) == before, "a dry run changes no file");

    house.stop();
    assert_eq!(record(&house, &direct)["hex"], "616c69636520322e32", "alice 2.2 waits to be dropped");
    house.start();
    assert_eq!(on_data(&house, &["log", "compact", "--timeout", "60s"]).done().json().len(), 1);
    assert_eq!(on_data(&house, &["log", "compact", "--dry-run"]).done().json(), [Value::Null; 0], "nothing is due");
    house.stop();
    assert!(!written.exists() && sealed_files(&house).keys().filter(|path| path.starts_with(&shard)).any(|p| name(&p)));
    let dropped = record(&house, &direct);
    assert_eq!((&dropped["removed"], &dropped["text"], &dropped["hex"]), (&true.into(), &Value::Null, &Value::Null));
    let findings = on_data(&house, &["log", "verify", "--deep"]).done().json();
    assert!(findings.iter().all(|row| row["verdict"] != "rot"), "{findings:?}");
    let rebuilt = on_data(&house, &["log", "rebuild"]).done().json();
    assert!(rebuilt.len() == 2 && rebuilt.iter().all(|row| row["before"] == "equal"), "{rebuilt:?}");
}

#[test]
fn what_looks_at_files_refuses_those_that_a_node_holds_and_compact_wants_a_node() {
    let (mut house, direct) = merged_house();
    let before = sealed_files(&house);
    let holder = format!("in use by skein pid {}", house.pid().unwrap());
    let looks: [&[&str]; 9] = [
        &["ls"],
        &["show", &direct, "--from", "4", "--to", "6", "--hex"],
        &["show", "segments/00000/MANIFEST"],
        &["stats"],
        &["find", "--client-msg-id", "01a20d23-5964-7c96-94f1-6ac42188f98a"],
        &["find", "--server-msg-id", "250933255308574721"],
        &["verify"],
        &["verify", "--deep"],
        &["rebuild"],
    ];
    for args in looks {
        let refused = on_data(&house, &[&["log"], args].concat()).ended_with(1);
        assert!(refused.complaint().contains(&holder) && refused.words().is_empty(), "{args:?}: {refused}");
    }
    house.stop();
    assert!(sealed_files(&house) == before, "nothing was changed");
    for args in [&["log", "compact"][..], &["log", "compact", "--dry-run"]] {
        let refused = on_data(&house, args).ended_with(4).complaint();
        assert!(refused.contains("skein server --data-dir"), "{refused}");
    }
    for (args, code, words) in [
        (&["log", "show", "segments/00000/no.segment"][..], 1, "neither a file of the data directory"),
        (&["log", "show", "80000000000000000000000000000007"], 1, "nothing of conversation"),
        (&["log", "find", "--server-msg-id", "7"], 1, "nothing is found"),
        (&["log", "find", "--sender", "nobody"], 1, "no account named \"nobody\""),
        (&["log", "find", "--client-msg-id", "no id"], 2, "no id"),
        (&["log", "find"], 2, "--sender"),
        (&["log", "show"], 2, "FILE|CONVERSATION"),
    ] {
        let refused = on_data(&house, args).ended_with(code);
        assert!(refused.complaint().contains(words) && refused.words().is_empty(), "{args:?}: {refused}");
    }
    assert!(sealed_files(&house) == before, "nothing was changed");
}
