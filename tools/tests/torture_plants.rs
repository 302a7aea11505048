//! The checker is tested on the real thing: each planted bug is found, under a name that says what it broke; and where nothing is wrong
//! but the power, nothing is found.
//!
//! Only with `--features tools/plants`.

#![cfg(feature = "plants")]
#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;

/// Runs of a plant, each with a seed of its own, before it counts as not found.
const RUNS_MAX: u64 = 10;

/// What a run finds by point, and its exit code.
fn torture(plant: &str, faults: &str, seed: u64) -> (Option<i32>, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skein"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SKEIN_")) {
        command.env_remove(name);
    }
    command.args(["torture", "--duration=12s", "--rate=800", "-o", "json", "--faults", faults]);
    let run = command.args(["--plant", plant, "--seed", &seed.to_string()]).output().unwrap();
    eprintln!("{plant}, seed {seed}: {}\n{}", run.status, String::from_utf8_lossy(&run.stderr));
    let figures = serde_json::from_slice(&run.stdout).unwrap_or(Value::Null);
    (run.status.code(), figures)
}

fn is_found(plant: &str, faults: &str, point: &str) {
    let found = (1..=RUNS_MAX).any(|seed| {
        let (code, figures) = torture(plant, faults, seed);
        eprintln!("{}", figures["findings_by_point"]);
        code == Some(5) && figures["findings_by_point"][point].as_u64() > Some(0)
    });
    assert!(found, "{plant} was not found as {point} in {RUNS_MAX} runs");
}

#[test]
fn a_retry_that_is_a_new_message_is_found() {
    is_found("skip-dedup", "kill", "uniqueness");
}

#[test]
fn a_leaver_who_goes_on_seeing_is_found() {
    is_found("ignore-leave", "none", "authorization");
}

#[test]
fn history_of_a_moment_ago_is_found() {
    is_found("stale-read", "none", "fresh-reads");
}

#[test]
fn a_pipeline_in_another_order_is_found() {
    is_found("reorder-pipeline", "none", "sender-order");
}

#[test]
fn syncs_that_do_nothing_are_found() {
    is_found("drop-sync", "kill", "durability");
}

#[test]
fn acks_before_the_sync_are_found() {
    is_found("ack-before-quorum", "kill", "durability");
}

#[test]
fn a_power_cut_alone_breaks_no_promise() {
    let (code, figures) = torture("power-cut", "kill", 1);
    assert_eq!((code, &figures["findings"]), (Some(0), &0.into()), "{figures}");
    assert!(figures["faults"]["kill"].as_u64() > Some(0), "{figures}");
}
