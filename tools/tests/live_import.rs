//! Import into a running node: what comes out again is what went in, and what contradicts changes nothing.
#![allow(clippy::unwrap_used)]

mod house;

use std::path::PathBuf;

use house::{Answer, House};
use serde_json::{Value, json};

impl House {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Chat of real people, through the client protocol.
    fn replay(&self) {
        let (sample, data) = (concat!(env!("CARGO_MANIFEST_DIR"), "/sample/sample.jsonl"), self.data());
        self.run(&["replay", sample, "--data-dir", data.to_str().unwrap()]).done();
    }

    /// These conversations, or all there are.
    fn export(&self, name: &str, conversations: &[String]) -> Vec<u8> {
        let (out, data) = (self.path(name), self.data());
        let mut args =
            vec!["export", "--format", "jsonl", "--out", out.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        conversations.iter().for_each(|id| args.extend(["--conversation", id]));
        self.run(&args).done();
        std::fs::read(out).unwrap()
    }

    fn import_args(&self, input: &str) -> Vec<String> {
        let data = self.data();
        ["import", input, "--live", "--data-dir", data.to_str().unwrap(), "-o", "json"].map(String::from).to_vec()
    }

    fn import(&self, input: &str, more: &[&str]) -> Answer {
        let args = self.import_args(input);
        let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        self.run(&args)
    }

    /// Its own people and what they say.
    fn talk(&self) {
        for name in ["alice", "bob"] {
            self.sign_in(name);
        }
        self.run(&["send", "--to", "bob", "hello", "--profile", "alice"]).done();
    }
}

fn json_lines(bytes: &[u8]) -> Vec<Value> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect()
}

fn conversations(bytes: &[u8]) -> Vec<String> {
    let id = |line: &Value| line["conversation"]["conversation"].as_str().map(str::to_owned);
    json_lines(bytes).iter().filter_map(id).collect()
}

/// Whether one of those is in it whom every node for trying things on has, under an id of its own.
fn is_of_demo(bytes: &[u8], conversation: &str) -> bool {
    let lines = json_lines(bytes);
    let names = ["alice", "bob", "carol"].map(|name| json!(name));
    let demo: Vec<&Value> = lines
        .iter()
        .filter(|line| names.contains(&line["account"]["name"]))
        .map(|line| &line["account"]["user"])
        .collect();
    let at = lines.iter().position(|line| line["conversation"]["conversation"] == conversation).unwrap();
    let members = lines[at + 1..].iter().take_while(|line| line["member"].is_object());
    members.into_iter().any(|line| demo.contains(&&line["member"]["user"]))
}

#[test]
fn what_is_imported_into_a_node_with_people_of_its_own_is_exported_as_the_same_bytes() {
    let first = House::new();
    first.replay();
    let all = first.export("all.jsonl", &[]);
    let ids: Vec<String> = conversations(&all).into_iter().filter(|id| !is_of_demo(&all, id)).collect();
    assert!(ids.len() > 3, "{ids:?}");
    let lines = first.export("some.jsonl", &ids);
    let input = first.path("some.jsonl");
    let input = input.to_str().unwrap();
    let mut other = House::new();
    other.talk();
    let before = other.export("before.jsonl", &[]);

    let planned = other.import(input, &["--dry-run"]).done().json();
    assert_eq!(planned[0]["records_sent"], planned[0]["records"], "{planned:?}");
    assert_eq!(other.export("untouched.jsonl", &[]), before, "only looked");

    other.import(input, &[]).done();
    assert_eq!(other.export("back.jsonl", &ids), lines);
    let again = other.import(input, &[]).done().json();
    assert_eq!((&again[0]["records_sent"], &again[0]["conversations_there"]), (&json!(0), &json!(ids.len())));
    other.run(&["history", "--with", "bob", "--profile", "alice"]).done();
    other.kill();
    other.start();
    assert_eq!(other.export("restarted.jsonl", &ids), lines);
    let data = other.data();
    other.stop();
    other.run(&["log", "verify", "--deep", "--data-dir", data.to_str().unwrap()]).done();
}

#[test]
fn an_account_of_the_same_name_that_is_another_is_named_and_nothing_changes() {
    let (first, other) = (House::new(), House::new());
    first.talk();
    other.talk();
    let before = other.export("before.jsonl", &[]);
    first.export("all.jsonl", &[]);
    let refused = other.import(first.path("all.jsonl").to_str().unwrap(), &[]).ended_with(1);
    assert!(refused.complaint().contains("alice"), "{refused}");
    assert_eq!(other.export("after.jsonl", &[]), before);
}

#[test]
fn a_conversation_that_is_not_empty_is_named_and_damaged_input_changes_nothing() {
    let house = House::new();
    house.talk();
    let lines = house.export("all.jsonl", &[]);
    let id = conversations(&lines).remove(0);
    let refused = house.import(house.path("all.jsonl").to_str().unwrap(), &[]).ended_with(1);
    assert!(refused.complaint().contains(&format!("{id} is not empty")), "{refused}");
    let damaged = String::from_utf8(lines.clone()).unwrap().replace("hello", "hallo");
    std::fs::write(house.path("damaged.jsonl"), damaged).unwrap();
    let refused = house.import(house.path("damaged.jsonl").to_str().unwrap(), &[]).ended_with(1);
    assert!(refused.complaint().contains("line "), "{refused}");
    assert_eq!(house.export("after.jsonl", &[]), lines);
}

#[test]
fn a_backup_goes_into_a_running_node_with_more_shards_and_comes_out_as_the_same_lines() {
    let (first, other) = (House::new(), House::in_earnest(7));
    first.replay();
    first.talk();
    let (saves, data) = (first.path("saves"), first.data());
    let saves = saves.to_str().unwrap();
    first.run(&["backup", "save", saves, "--data-dir", data.to_str().unwrap()]).done();
    let lines = first.export("all.jsonl", &[]);
    let done = other.import(saves, &[]).done().json();
    assert_eq!((&done[0]["records_sent"], &done[0]["dry_run"]), (&done[0]["records"], &json!(false)), "{done:?}");
    assert_eq!(other.export("back.jsonl", &[]), lines);
    other.run(&["shard", "seal", "--all", "--data-dir", other.data().to_str().unwrap()]).done();
    assert_eq!(other.export("sealed.jsonl", &[]), lines);
    // Passwords came with the accounts.
    other.sign_in("alice");
    let read = other.run(&["history", "--with", "bob", "--profile", "alice", "-o", "json"]).done();
    assert_eq!(read.texts(), ["hello"]);
}

#[test]
fn messages_that_were_erased_since_a_backup_are_not_brought_by_it_into_a_running_node() {
    let (first, other) = (House::new(), House::in_earnest(2));
    first.talk();
    first.run(&["send", "--to", "alice", "good-bye", "--profile", "bob"]).done();
    let (saves, data) = (first.path("saves"), first.data());
    let (saves, data) = (saves.to_str().unwrap(), data.to_str().unwrap());
    let lines = first.export("all.jsonl", &[]);
    first.run(&["user", "erase", "bob", "--data-dir", data]).done();
    first.run(&["backup", "save", saves, "--data-dir", data]).done();
    assert!(String::from_utf8(lines).unwrap().contains("good-bye"));
    other.import(first.path("all.jsonl").to_str().unwrap(), &["--erasures", saves]).done();
    let back = String::from_utf8(other.export("back.jsonl", &[])).unwrap();
    assert!(back.contains("hello") && !back.contains("good-bye"), "{back}");
}
