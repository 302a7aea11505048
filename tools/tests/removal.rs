//! Recall, trims and erasure by hand, and what is left of it in the node's files.

#![allow(clippy::unwrap_used)]

mod house;

use std::path::Path;

use house::House;
use serde_json::Value;

fn seqs(records: &[Value]) -> Vec<u64> {
    records.iter().map(|record| record["seq_id"].as_u64().unwrap()).collect()
}

/// A text that occurs once in the world.
fn secret(name: &str) -> String {
    format!("{name}-{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>())
}

fn is_in_a_file(dir: &Path, text: &str) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_in_a_file(&path, text);
        }
        let bytes = std::fs::read(&path).unwrap();
        let begin = text.as_bytes();
        (0..bytes.len().saturating_sub(begin.len() - 1))
            .any(|at| bytes[at] == begin[0] && bytes[at..].starts_with(begin))
    })
}

#[test]
fn what_is_taken_back_by_hand_is_gone_for_everybody_and_out_of_every_file() {
    let house = House::new();
    ["alice", "bob"].iter().for_each(|name| house.sign_in(name));
    let data = house.data().to_str().unwrap().to_owned();
    let (recalled, erased, kept, trimmed) = (secret("recalled"), secret("erased"), secret("kept"), secret("trimmed"));
    let sent = house.run(&["send", "--to", "bob", &trimmed, "--profile", "alice", "-o", "json"]).done().json();
    let id = sent[0]["conversation"].as_str().unwrap().to_owned();
    house.run(&["send", "--to", "bob", &recalled, "--profile", "alice"]).done();
    house.run(&["send", "--to", "alice", &erased, "--profile", "bob"]).done();
    house.run(&["send", "--to", "bob", &kept, "--profile", "alice"]).done();
    assert!([&recalled, &erased, &kept, &trimmed].iter().all(|text| is_in_a_file(&house.data(), text)));

    house.run(&["message", "recall", &id, "2", "--profile", "bob"]).ended_with(3);
    let recall = house.run(&["message", "recall", &id, "2", "--profile", "alice", "-o", "json"]).done().json();
    assert_eq!(recall[0]["recall_seq_id"], 5);
    house.run(&["conversation", "retain", &id, "--days", "30", "--data-dir", &data]).done();
    house.run(&["conversation", "trim", &id, "--before", "9", "--data-dir", &data]).ended_with(3);
    let trim = house.run(&["conversation", "trim", &id, "--before", "2", "--data-dir", &data, "-o", "json"]).done();
    assert_eq!(trim.json()[0]["messages"], 1);

    let read = house.run(&["history", "--with", "alice", "--profile", "bob", "-o", "json"]).done();
    let records = read.json();
    assert_eq!(seqs(&records), [2, 3, 4, 5]);
    assert_eq!((&records[0]["removed"], &records[0]["text"]), (&true.into(), &Value::Null));
    assert_eq!((&records[3]["kind"], &records[3]["recalls"]), (&"recall".into(), &2.into()));
    let list = house.run(&["conversations", "--profile", "bob", "-o", "json"]).done().json();
    assert_eq!((&list[0]["unread"], &list[0]["visible_from"]), (&1.into(), &2.into()), "{list:?}");

    let done = house.run(&["user", "erase", "bob", "--data-dir", &data, "-o", "json"]).done().json();
    assert_eq!((&done[0]["done"], &done[0]["shards_pending"]), (&true.into(), &0.into()));
    assert_eq!(house.run(&["user", "erase", "--status", "--data-dir", &data, "-o", "json"]).done().json().len(), 0);
    house.run(&["log", "compact", "--data-dir", &data, "--timeout", "60s"]).done();
    let due = house.run(&["log", "compact", "--dry-run", "--data-dir", &data, "-o", "json"]).done().json();
    assert_eq!(due.len(), 0, "{due:?}");
    for (text, stays) in [(&recalled, false), (&erased, false), (&trimmed, false)] {
        assert_eq!(is_in_a_file(&house.data(), text), stays, "{text}");
    }
    let read = house.run(&["history", "--with", "bob", "--profile", "alice", "-o", "json"]).done();
    assert_eq!(read.texts(), [kept]);
    house.run(&["user", "erase", "nobody", "--data-dir", &data]).ended_with(3);
}
