//! `skein torture` end to end: a short run of kills and pauses finds nothing, and what it is asked wrongly it refuses.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::{Command, Output};

use serde_json::Value;

fn torture(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skein"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SKEIN_")) {
        command.env_remove(name);
    }
    command.arg("torture").args(args).output().unwrap()
}

fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_node_that_is_killed_and_paused_keeps_every_promise() {
    let dir = tempfile::tempdir().unwrap();
    let history = dir.path().join("history.jsonl");
    let run = torture(&[
        "--nodes=1",
        "--faults=kill,pause",
        "--pause-max=3s",
        "--duration=18s",
        "--seed=20261124",
        "--history",
        history.to_str().unwrap(),
        "-o",
        "json",
    ]);
    assert_eq!(run.status.code(), Some(0), "{}", complaint(&run));
    let figures: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&figures["verdict"], &figures["findings"]), (&"pass".into(), &0.into()), "{figures}");
    assert!(
        figures["faults"]["kill"].as_u64() >= Some(1) && figures["faults"]["pause"].as_u64() >= Some(1),
        "{figures}"
    );
    // Nothing is proven by a run in which nothing happened.
    assert!(figures["acked"].as_u64() > Some(500) && figures["recovery_ms"]["count"].as_u64() > Some(4), "{figures}");

    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for line in std::fs::read_to_string(&history).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        *lines.entry(line["op"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(
        (lines["invoke"], lines["ack"]),
        (figures["sends"].as_u64().unwrap(), figures["acked"].as_u64().unwrap())
    );
    assert_eq!(lines["deliver"], figures["deliveries"].as_u64().unwrap());
    assert!(lines["refuse"] > 0 && lines["read"] > 0 && lines["fault"] > 0, "{lines:?}");
    assert_eq!(lines["final"], lines["deliver"], "everybody was given what they may read, each record once");
}

#[test]
fn what_cannot_be_tried_is_refused_before_anything_starts() {
    let refused = |args: &[&str], why: &str| {
        let run = torture(args);
        assert_eq!(run.status.code(), Some(2), "{}", complaint(&run));
        assert!(complaint(&run).contains(why), "{}", complaint(&run));
    };
    refused(&["--faults=partition"], "partition needs 3 nodes, and there are 1");
    refused(&["--duration=3s"], "no fault fits into 3 s");
    refused(&["--pause-min=6s"], "faults last from 6 to 5 s");
    refused(&["--nodes=3"], "--nodes 1");
    refused(&["--faults=flood"], "invalid value 'flood'");
    // Bugs are planted only in a build that is made for it.
    #[cfg(not(feature = "plants"))]
    refused(&["--plant=skip-dedup"], "unexpected argument '--plant'");
}
