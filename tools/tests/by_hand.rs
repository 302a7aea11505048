//! What people type, against the real node: the way it is meant, wrongly, and across kills.

#![allow(clippy::unwrap_used)]

mod house;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use house::{Answer, House, PATIENCE, ended};
use serde_json::Value;

fn seqs(records: &[Value]) -> Vec<u64> {
    records.iter().map(|record| record["seq_id"].as_u64().unwrap()).collect()
}

#[test]
fn a_conversation_by_hand_from_registering_to_reading_it_back() {
    let house = House::new();
    let input = b"correct horse\n";
    house.run_with_input(&["register", "dora", "--password-stdin", "--profile", "d"], input).done();
    house.sign_in("alice");
    let profiles = house.run(&["profiles", "-o", "json"]).done().json();
    assert_eq!(profiles.iter().map(|p| p["profile"].as_str().unwrap()).collect::<Vec<_>>(), ["alice", "d"]);

    // Words, then lines: byte for byte, an empty one and one without an end too.
    house.run(&["send", "--to", "dora", "hello", "there"]).done();
    let lines = "tab\tand \u{1b}[31mred\n\nلا تقلق 🦆\r\nlast".as_bytes();
    let acks = house.run_with_input(&["send", "--to", "dora", "-o", "json"], lines).done().json();
    assert_eq!(seqs(&acks), [2, 3, 4, 5]);
    let expected = ["hello there", "tab\tand \u{1b}[31mred", "", "لا تقلق 🦆\r", "last"];

    let read = house.run(&["history", "--with", "alice", "--profile", "d", "-o", "json"]).done();
    assert_eq!(read.texts(), expected);
    let records = read.json();
    assert_eq!(seqs(&records), [1, 2, 3, 4, 5]);
    for (record, ack) in records[1..].iter().zip(&acks) {
        for key in ["conversation", "server_msg_id", "client_msg_id", "sent_at"] {
            assert_eq!(record[key], ack[key]);
        }
        assert_eq!((&record["sender"], &record["kind"]), (&"alice".into(), &"text".into()));
        assert!(record["server_msg_id"].is_string());
    }
    let page = house.run(&["history", "--with", "dora", "--from-seq", "2", "--limit", "2", "-o", "json"]).done();
    assert_eq!(seqs(&page.json()), [2, 3]);
    let page = house.run(&["history", "--with", "dora", "--newest", "--limit", "2", "-o", "json"]).done();
    assert_eq!(seqs(&page.json()), [5, 4]);
    let plain = house.run(&["history", "--with", "dora", "-o", "plain"]).done().words();
    assert_eq!(plain.lines().count(), 5, "one line a record, whatever its text");

    // A saved sign-in is shown each record once; both devices of a conversation see the same.
    let first = house.run(&["tail", "--once", "--profile", "d", "-o", "json"]).done();
    assert_eq!(first.texts(), expected);
    assert_eq!(house.run(&["tail", "--once", "--profile", "d"]).done().words(), "");
    house.run(&["send", "--to", "alice", "back", "--profile", "d"]).done();
    let next = house.run(&["tail", "--once", "--profile", "d", "-o", "json"]).done();
    assert_eq!(next.texts(), ["back"]);
    let limited = house.run(&["tail", "--with", "dora", "--from-beginning", "--limit", "3", "-o", "json"]).done();
    assert_eq!(seqs(&limited.json()), [1, 2, 3]);

    let list = house.run(&["conversations", "-o", "json"]).done().json();
    assert_eq!((&list[0]["name"], &list[0]["head_seq"], &list[0]["unread"]), (&"dora".into(), &6.into(), &1.into()));
    let health = house.run(&["health", "-o", "json"]).done().json();
    assert!(health[0]["durable_append_us"].as_u64().unwrap() > 0);
    assert_eq!(health[0]["shards"], 4);

    house.run(&["logout", "--profile", "d"]).done();
    house.run(&["whoami", "--profile", "d"]).ended_with(1);
}

#[test]
fn a_group_by_hand_and_what_each_member_may_see_of_it() {
    let house = House::new();
    ["alice", "bob", "carol"].iter().for_each(|name| house.sign_in(name));
    let created = house.run(&["group", "create", "trip", "bob", "--profile", "alice", "-o", "json"]).done().json();
    let id = created[0]["conversation"].as_str().unwrap();
    house.run(&["send", "--group", id, "one", "--profile", "alice"]).done();
    house.run(&["group", "add", "trip", "carol", "--profile", "alice"]).done();
    house.run(&["send", "--group", "trip", "two", "--profile", "carol"]).done();
    house.run(&["group", "leave", id, "--profile", "bob"]).done();
    house.run(&["send", "--group", id, "three", "--profile", "alice"]).done();
    house.run(&["group", "remove", id, "carol", "--profile", "alice"]).done();
    house.run(&["send", "--group", id, "four", "--profile", "alice"]).done();

    let all = house.run(&["history", "--group", id, "--profile", "alice", "-o", "json"]).done().json();
    assert_eq!(seqs(&all), (1..=8).collect::<Vec<_>>());
    assert_eq!((&all[0]["kind"], &all[0]["joined"]), (&"membership".into(), &serde_json::json!(["alice", "bob"])));
    assert_eq!(all[4]["left"], serde_json::json!(["bob"]));
    let bobs = house.run(&["history", "--group", id, "--profile", "bob", "-o", "json"]).done();
    assert_eq!(
        bobs.json().last().unwrap()["left"],
        serde_json::json!(["bob"]),
        "the last a leaver sees is the leaving"
    );
    let carols = house.run(&["tail", "--once", "--profile", "carol", "-o", "json"]).done();
    assert_eq!(carols.texts(), ["two", "three"]);
    let members = house.run(&["group", "members", id, "--profile", "alice", "-o", "plain"]).done().words();
    assert_eq!(members.lines().count(), 1);
    assert!(members.contains("owner"));

    house.run(&["send", "--group", id, "hello?", "--profile", "bob"]).ended_with(3);
    house.run(&["group", "add", id, "bob", "--profile", "carol"]).ended_with(3);
}

#[test]
fn what_is_typed_wrongly_is_answered_in_one_line_with_a_code() {
    let house = House::new();
    let refused = |answer: Answer, code: i32, words: &str| {
        let answer = answer.ended_with(code);
        assert!(answer.complaint().contains(words), "{answer}");
    };
    refused(house.run(&["send", "--to", "bob", "hi"]), 1, "skein login NAME");
    refused(house.run_with_input(&["login", "alice", "--password-stdin"], b"wrong horse\n"), 3, "bad_credentials");
    refused(house.run_with_input(&["login", "nobody", "--password-stdin"], b"wrong horse\n"), 3, "bad_credentials");
    refused(house.run_with_input(&["register", "alice", "--password-stdin"], b"long enough\n"), 3, "name_taken");
    refused(house.run_with_input(&["register", "", "--password-stdin"], b"long enough\n"), 3, "bad_name");
    refused(house.run_with_input(&["register", "eve", "--password-stdin"], b"short\n"), 3, "bad_password");
    house.sign_in("bob");
    refused(house.run(&["send", "--to", "nobody", "hi"]), 3, "no_such_user");
    refused(house.run(&["history", "--with", "nobody"]), 3, "no_such_user");
    refused(house.run(&["history", "--group", &"8".repeat(32)]), 3, "no_such_conversation");
    refused(house.run(&["history", "--group", "elsewhere"]), 3, "no_such_conversation");
    refused(house.run(&["history"]), 2, "--with");
    refused(house.run(&["send", "--to", "alice", "--group", "welcome", "hi"]), 2, "cannot be used with");
    refused(house.run(&["tail", "-o", "yaml"]), 2, "yaml");
    refused(house.run(&["token", "mint", "bob"]), 2, "--data-dir");
    refused(house.run(&["--server", "127.0.0.1:1", "health"]), 4, "skein server --dev");
    let mut forged = house.skein(&["conversations"]);
    forged.env("SKEIN_TOKEN", "forged");
    refused(ended(forged, b""), 3, "unauthenticated");

    // What is refused takes no place, and what follows it is sent.
    let sent = house.run_with_input(&["send", "--to", "alice", "-o", "json"], b"one\n\xff\xfe\ntwo\n").ended_with(3);
    assert_eq!(seqs(&sent.json()), [1, 0, 2]);
    assert_eq!(sent.json()[1]["error"]["name"], "not_utf8");
    let long = vec![b'x'; 20_000];
    refused(house.run_with_input(&["send", "--to", "alice"], &long), 3, "too_long");
    let read = house.run(&["history", "--with", "alice", "-o", "json"]).done();
    assert_eq!(read.texts(), ["one", "two"]);
}

#[test]
fn what_administrators_do_needs_no_password() {
    let house = House::new();
    let data = house.data();
    let data = data.to_str().unwrap();
    let accounts = b"{\"name\":\"6f1e9a1e-0000-4000-8000-000000000001\"}\n{\"name\":\"zoe\"}\n";
    let imported = house.run_with_input(&["user", "import", "-", "--data-dir", data, "-o", "json"], accounts).done();
    assert_eq!(imported.json()[1]["name"], "zoe");
    let again = house.run_with_input(&["user", "import", "-", "--data-dir", data, "-o", "json"], accounts).done();
    assert_eq!(again.json(), imported.json(), "those that exist stay as they are");

    let token = house.mint("zoe");
    assert_eq!(token.split_whitespace().count(), 1);
    let mut sent = house.skein(&["send", "--to", "alice", "by token"]);
    sent.env("SKEIN_TOKEN", &token);
    ended(sent, b"").done();
    let key = house.data().join("keys/admin.pem");
    let shards = house.run(&["shard", "list", "--admin-key", key.to_str().unwrap(), "-o", "json"]).done().json();
    assert_eq!(shards.len(), 4);
    let unsealed: u64 = shards.iter().map(|shard| shard["unsealed_records"].as_u64().unwrap()).sum();
    assert_eq!(unsealed, 2, "the group's first record and one message");
    house.run(&["shard", "seal", "--all", "--data-dir", data]).done();
    house.run(&["health", "--data-dir", data]).done();
}

#[test]
fn many_tokens_are_minted_also_where_look_ups_are_small() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::with(dir, vec!["--set".into(), "limits.find_users=2".into()]);
    let data = house.data();
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/sample/sample.jsonl");
    let replayed = house.run(&["replay", sample, "--data-dir", data.to_str().unwrap(), "-o", "json"]).done().json();
    assert_eq!((&replayed[0]["verified"], &replayed[0]["mismatches"]), (&506.into(), &0.into()));
}

#[test]
fn a_minted_token_lasts_as_long_as_is_said() {
    let house = House::new();
    let data = house.data();
    let mint = |lifetime: &str| {
        let args =
            ["token", "mint", "alice", "--lifetime", lifetime, "--data-dir", data.to_str().unwrap(), "-o", "json"];
        house.run(&args)
    };
    let now_ms = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    for (asked, seconds) in [("1s", 1), ("2h", 7200), ("30d", 30 * 86_400)] {
        let minted = mint(asked).done();
        let lasts_ms = minted.json()[0]["expires_at_ms"].as_u64().unwrap().saturating_sub(now_ms());
        assert!(lasts_ms <= seconds * 1000 && lasts_ms + 60_000 > seconds * 1000, "{asked}: {lasts_ms} ms");
        assert_eq!(minted.complaint(), "");
    }
    assert!(mint("400d").done().complaint().contains("no token for that long"));
    assert!(mint("0s").ended_with(2).complaint().contains("at least 1s"));
}

#[test]
fn a_tail_of_a_group_that_is_not_ones_own_is_refused_and_not_waited_for() {
    let house = House::new();
    house.sign_in("alice");
    let group = house.run(&["group", "create", "hers", "-o", "json"]).done().json()[0]["conversation"].clone();
    house.sign_in("bob");
    for more in [&[][..], &["--new"], &["--from-beginning"]] {
        let answer = house.run(&[&["tail", "--group", group.as_str().unwrap()], more].concat()).ended_with(3);
        assert!(answer.complaint().contains("no_such_conversation"), "{answer}");
    }
}

/// A tail that runs beside, read line by line.
struct Tail {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(house: &House, args: &[&str]) -> Tail {
        let mut command = house.skein(&["tail", "-o", "json"]);
        let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Tail { child, lines }
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_tail_and_a_pipe_of_messages_outlive_the_server_that_is_killed_under_them() {
    const MESSAGES: usize = 3000;
    let mut house = House::new();
    house.sign_in("alice");
    house.sign_in("bob");
    let id = house.run(&["group", "create", "pipe", "alice", "-o", "json"]).done().json()[0]["conversation"].clone();
    let id = id.as_str().unwrap().to_owned();
    let mut tail = Tail::start(&house, &["--group", &id, "--profile", "alice"]);
    assert_eq!(tail.next()["kind"], "membership");

    let mut command = house.skein(&["send", "--group", &id, "--profile", "bob", "-o", "json"]);
    let mut sending = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = sending.stdin.take().unwrap();
    let writing = std::thread::spawn(move || {
        for n in 0..MESSAGES {
            writeln!(input, "message {n}").unwrap();
            if n % 100 == 99 {
                // Spread over the kills below; the order and number do not depend on it.
                std::thread::sleep(Duration::from_millis(40));
            }
        }
    });
    let reading = std::thread::spawn(move || sending.wait_with_output().unwrap());
    let mut received = Vec::new();
    for kill_at in [MESSAGES / 5, MESSAGES / 2, MESSAGES * 4 / 5] {
        while received.len() < kill_at {
            received.push(tail.next());
        }
        house.kill();
        house.start();
    }
    while received.len() < MESSAGES {
        received.push(tail.next());
    }
    writing.join().unwrap();
    let acks = Answer(reading.join().unwrap()).done().json();
    let expected: Vec<u64> = (2..MESSAGES as u64 + 2).collect();
    assert_eq!(seqs(&acks), expected);
    assert_eq!(seqs(&received), expected);
    let stored = house.run(&["history", "--group", &id, "--from-seq", "2", "-o", "json"]).done().json();
    assert_eq!(seqs(&stored), expected);
    for (n, record) in stored.iter().enumerate() {
        assert_eq!(record["text"], format!("message {n}"));
        assert_eq!((&record["client_msg_id"], record), (&acks[n]["client_msg_id"], &received[n]));
    }
}

#[test]
fn a_chat_shows_what_was_and_what_comes_and_ends_with_its_input() {
    let house = House::new();
    house.sign_in("alice");
    house.sign_in("bob");
    house.run(&["send", "--to", "bob", "before", "--profile", "alice"]).done();
    let mut command = house.skein(&["chat", "--with", "alice", "-o", "json"]);
    let mut chat = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(chat.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["text"], "before");
    house.run(&["send", "--to", "bob", "during", "--profile", "alice"]).done();
    assert_eq!(next()["text"], "during");
    let mut input = chat.stdin.take().unwrap();
    writeln!(input, "typed").unwrap();
    assert_eq!(next()["text"], "typed");
    writeln!(input, "//slash").unwrap();
    assert_eq!(next()["text"], "/slash");
    drop(input);
    assert_eq!(wait(&mut chat), Some(0));
}

fn wait(child: &mut Child) -> Option<i32> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it has not ended within {PATIENCE:?}");
}

#[test]
fn every_command_shows_examples() {
    let dir = tempfile::tempdir().unwrap();
    let help = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skein"));
        let output = command.args(args).arg("--help").env("XDG_CONFIG_HOME", dir.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let commands = "server,demo,replay,bench,bench send,config,config check,config print,config init-keys,\
        register,login,logout,whoami,profiles,send,tail,history,conversations,group,chat,health,\
        group create,group add,group remove,group leave,group members,user,user import,token,token mint,\
        shard,shard list,shard seal,\
        log,log ls,log show,log stats,log find,log verify,log rebuild";
    for command in commands.split(',') {
        let words = help(&command.split(' ').collect::<Vec<_>>());
        assert!(words.contains("Examples:\n  ") && words.contains(&format!("skein {command}")), "{command}: {words}");
    }
}

/// Nothing a command leaves behind is readable by others.
#[test]
fn saved_sign_ins_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let house = House::new();
    house.sign_in("alice");
    let dir = house.dir.path().join("config/skein");
    for entry in std::fs::read_dir(Path::new(&dir)).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
    }
}
