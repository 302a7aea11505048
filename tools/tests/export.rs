//! Export, import and back again: what comes out is what went in, byte by byte, and nothing half-done stays.
#![allow(clippy::unwrap_used)]

mod house;

use std::path::{Path, PathBuf};

use house::House;
use serde_json::{Value, json};

impl House {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn export(&self, name: &str) -> Vec<u8> {
        let (out, data) = (self.path(name), self.data());
        let args =
            ["export", "--format", "jsonl", "--out", out.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        self.run(&args).done();
        std::fs::read(out).unwrap()
    }

    /// A group of everybody, a 1:1, somebody who leaves, receipts, and messages that are not easy to write down.
    fn talk(&self) {
        for name in ["alice", "bob", "carol"] {
            self.sign_in(name);
        }
        let by = |name: &'static str| move |args: &[&str]| self.run(&[args, &["--profile", name]].concat()).done();
        let (alice, bob) = (by("alice"), by("bob"));
        alice(&["send", "--to", "bob", "hello"]);
        bob(&["send", "--to", "alice", "line\nbreak \"quoted\" \u{1}\u{7f} ünïcode 🦢"]);
        alice(&["send", "--to", "alice", "a note to myself"]);
        alice(&["group", "create", "geese", "bob", "carol"]);
        for n in 0..40 {
            alice(&["send", "--group", "geese", &format!("message {n}")]);
        }
        alice(&["group", "remove", "geese", "carol"]);
        bob(&["send", "--group", "geese", "she is gone"]);
    }

    /// Chat of real people, through the client protocol.
    fn replay(&self) {
        let (sample, data) = (concat!(env!("CARGO_MANIFEST_DIR"), "/sample/sample.jsonl"), self.data());
        self.run(&["replay", sample, "--data-dir", data.to_str().unwrap()]).done();
    }

    /// Imports into a new data directory, which the node of a second house is started on.
    fn imported(&self, input: &Path, shards: u16) -> House {
        let dir = tempfile::tempdir().unwrap();
        let (data, shards) = (dir.path().join("data"), shards.to_string());
        let args =
            ["import", input.to_str().unwrap(), "--dev", "--data-dir", data.to_str().unwrap(), "--shards", &shards];
        self.run(&args).done();
        House::with(dir, Vec::new())
    }
}

#[test]
fn what_was_exported_and_imported_is_exported_as_the_same_bytes_whatever_the_shards() {
    let first = House::new();
    first.talk();
    first.replay();
    let lines = first.export("first.jsonl");
    assert_eq!(first.export("again.jsonl"), lines, "nothing has changed, though every shard has another Seal");
    for shards in [1, 7, 64] {
        let other = first.imported(&first.path("first.jsonl"), shards);
        assert_eq!(other.export("second.jsonl"), lines, "{shards} shards");
        drop(other);
    }
}

#[test]
fn an_imported_conversation_goes_on_where_it_was_and_knows_its_ids() {
    let first = House::new();
    first.talk();
    let before = first.run(&["history", "--with", "bob", "--profile", "alice", "-o", "json"]).done();
    first.export("all.jsonl");
    let mut other = first.imported(&first.path("all.jsonl"), 3);
    other.sign_in("alice");
    let after = other.run(&["history", "--with", "bob", "--profile", "alice", "-o", "json"]).done();
    assert_eq!(after.json(), before.json());
    other.run(&["send", "--to", "bob", "and on", "--profile", "alice"]).done();
    other.kill();
    other.start();
    let texts = other.run(&["history", "--with", "bob", "--profile", "alice", "-o", "json"]).done().json();
    assert_eq!(texts.last().unwrap()["seq_id"], json!(before.json().len() + 1), "{texts:?}");
    let ids: Vec<u64> = texts.iter().map(|record| number(&record["server_msg_id"])).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "ids that are given out anew are higher: {ids:?}");
    let data = other.data();
    other.stop();
    other.run(&["log", "verify", "--deep", "--data-dir", data.to_str().unwrap()]).done();
}

fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok())).unwrap()
}

#[test]
fn one_conversation_is_exported_with_its_members_alone() {
    let house = House::new();
    house.talk();
    let all = house.export("all.jsonl");
    let direct = conversations(&all).into_iter().find(|of| of["direct"].is_object() && of["last_seq"] == 2).unwrap();
    let id = direct["conversation"].as_str().unwrap();
    let data = house.data();
    let args =
        ["export", "--format", "jsonl", "--out", "-", "--conversation", id, "--data-dir", data.to_str().unwrap()];
    let some = house.run(&args).done().0.stdout;
    let count = |kind: &str| json_lines(&some).iter().filter(|line| line.get(kind).is_some()).count();
    let counts = ["account", "conversation", "member", "record"].map(count);
    assert_eq!(counts, [2, 1, 2, 2]);
    let part = house.path("some.jsonl");
    std::fs::write(&part, &some).unwrap();
    let other = house.imported(&part, 4);
    assert!(json_lines(&other.export("some.jsonl")).len() >= json_lines(&some).len());
}

fn json_lines(bytes: &[u8]) -> Vec<Value> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn conversations(bytes: &[u8]) -> Vec<Value> {
    json_lines(bytes).into_iter().filter_map(|mut line| line.get_mut("conversation").map(Value::take)).collect()
}

/// Lines with the checksum that belongs to them, so that only what was done to them is wrong.
fn sealed(lines: &[String]) -> String {
    let body: String = lines[..lines.len() - 1].iter().map(|line| format!("{line}\n")).collect();
    let mut end: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    end["end"]["blake3"] = blake3::hash(body.as_bytes()).to_hex().to_string().into();
    // Fields in the order in which an export writes them.
    let of = |field: &str| end["end"][field].to_string();
    let counts =
        ["lines", "accounts", "conversations", "members", "records"].map(|field| format!("\"{field}\":{}", of(field)));
    format!("{body}{{\"end\":{{{},\"blake3\":{}}}}}\n", counts.join(","), of("blake3"))
}

#[test]
fn damaged_or_reordered_input_is_refused_with_the_first_bad_line_and_leaves_nothing() {
    let house = House::new();
    house.talk();
    let good = String::from_utf8(house.export("good.jsonl")).unwrap();
    let lines: Vec<String> = good.lines().map(str::to_owned).collect();
    assert_eq!(sealed(&lines), good, "the test writes what an export writes");
    let at = |kind: &str, nth: usize| {
        let of_kind = |line: &String| line.starts_with(&format!("{{\"{kind}\""));
        lines.iter().enumerate().filter(|(_, line)| of_kind(line)).nth(nth).unwrap().0
    };
    let data = house.path("new");
    let refused = |input: &str, line: usize, what: &str| {
        let path = house.path("bad.jsonl");
        std::fs::write(&path, input).unwrap();
        let args = ["import", path.to_str().unwrap(), "--dev", "--data-dir", data.to_str().unwrap()];
        let words = house.run(&args).ended_with(1).complaint();
        assert!(
            words.contains(&format!("line {}: ", line + 1)) && words.contains(what),
            "line {}, {what}: {words}",
            line + 1
        );
        assert!(!data.exists(), "nothing was made");
    };
    let with = |line: usize, from: &str, to: &str| {
        let mut changed = lines.clone();
        assert!(changed[line].contains(from), "{}", changed[line]);
        changed[line] = changed[line].replacen(from, to, 1);
        sealed(&changed)
    };
    let without = |line: usize| {
        sealed(&lines.iter().enumerate().filter(|(n, _)| *n != line).map(|(_, l)| l.clone()).collect::<Vec<_>>())
    };
    let swapped = |a: usize, b: usize| {
        let mut changed = lines.clone();
        changed.swap(a, b);
        sealed(&changed)
    };
    let last = lines.len() - 1;
    let (record, account, name) = (at("record", 10), at("account", 1), at("name", 1));

    refused(&good.replacen("message 7", "message 8", 1), last, "checksum");
    refused(&good[..good.len() - 2], last, "cut off");
    refused(&lines[..last].iter().map(|line| format!("{line}\n")).collect::<String>(), last, "the end is missing");
    refused(&format!("{good}{{}}\n"), last + 1, "");
    refused(&with(0, "\"format\":1", "\"format\":2"), 0, "format 2");
    refused(&without(0), 0, "header");
    refused(&with(record, "\"seq\"", "\"sqe\""), record, "unknown field");
    refused(&with(record, "\"seq\":", "\"seq\": "), record, "not written as an export writes it");
    refused(&with(record, "{", "\u{1}{"), record, "not a line of an export");
    refused(&without(record), record, "belongs");
    refused(&swapped(record, record + 1), record, "belongs");
    refused(&swapped(account, account + 1), account + 1, "comes after");
    refused(&swapped(name, name + 1), name + 1, "sorts behind");
    refused(&swapped(account, record), account, "is not in this export");
    refused(&with(at("member", 0), "\"role\":\"", "\"role\":\"x"), at("member", 0), "unknown variant");
    // That a conversation has fewer records than its line says is seen where they end.
    let group = lines.iter().position(|line| line.contains("\"name\":\"geese\"")).unwrap();
    let id = conversations(lines[group].as_bytes()).remove(0)["conversation"].as_str().unwrap().to_owned();
    let ends = lines.iter().rposition(|line| line.starts_with("{\"record\"") && line.contains(&id)).unwrap();
    refused(&with(group, "\"last_seq\":", "\"last_seq\":9"), ends + 1, &id);
    let lone = lines.iter().position(|line| line.contains("a note to myself")).unwrap();
    refused(&without(lone), last - 1, "missing");
}

#[test]
fn what_was_trimmed_recalled_or_erased_is_so_in_the_lines_whatever_files_still_hold_and_comes_back_the_same() {
    let first = House::new();
    first.talk();
    let data = first.data().to_str().unwrap().to_owned();
    let with_bob = first.run(&["history", "--with", "bob", "--profile", "alice", "-o", "json"]).done().json();
    let direct = with_bob[0]["conversation"].as_str().unwrap().to_owned();
    let seqs: Vec<_> = ["a secret of alice", "another", "a third"]
        .iter()
        .map(|text| {
            let sent = first.run(&["send", "--to", "bob", text, "--profile", "alice", "-o", "json"]).done().json();
            sent[0]["seq_id"].to_string()
        })
        .collect();
    let before = String::from_utf8(first.export("before.jsonl")).unwrap();
    assert!(["a secret of alice", "hello", "she is gone"].iter().all(|text| before.contains(text)));

    first.run(&["message", "recall", &direct, &seqs[0], "--profile", "alice"]).done();
    first.run(&["conversation", "retain", &direct, "--days", "300", "--data-dir", &data]).done();
    first.run(&["conversation", "trim", &direct, "--before", "2", "--data-dir", &data]).done();
    first.run(&["user", "erase", "bob", "--data-dir", &data]).done();
    let lines = first.export("removed.jsonl");
    let text = String::from_utf8(lines.clone()).unwrap();
    for gone in ["a secret of alice", "hello", "she is gone", "quoted"] {
        assert!(!text.contains(gone), "{gone} is in the lines");
    }
    assert!(["another", "a third", "message 39"].iter().all(|kept| text.contains(kept)));
    let removed = json_lines(&lines).iter().filter(|line| line["record"]["removed"] == true).count();
    assert!(removed >= 3, "what was recalled, and bob's: {removed}");

    first.run(&["log", "compact", "--data-dir", &data, "--timeout", "60s"]).done();
    assert_eq!(first.export("compacted.jsonl"), lines, "files have followed, lines say the same");
    for shards in [1, 7] {
        let other = first.imported(&first.path("removed.jsonl"), shards);
        assert_eq!(other.export("second.jsonl"), lines, "{shards} shards");
        drop(other);
    }
}
