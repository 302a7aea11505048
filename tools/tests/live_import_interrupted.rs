//! An import into a running node that ends in the middle: nobody sees a part of it, it is gone on with, or given up without a trace for
//! readers.
#![allow(clippy::unwrap_used)]

mod house;
mod long_export;

use std::process::Child;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use gateway::auth::AdminKey;
use gateway::client::{Connection, Error, Greeting, HistoryQuery, ImportPlace, Options};
use house::{Answer, House, PATIENCE};
use logstore::id::{ConversationId, SeqId, TimeMs};
use long_export::{LongExport, PEOPLE};
use serde_json::{Value, json};

/// Records of each of the two conversations: some forty requests.
const RECORDS: u64 = 1000;

impl House {
    fn long_export(&self) -> LongExport {
        LongExport::write(&self.dir.path().join("long.jsonl"), RECORDS)
    }

    fn export(&self, name: &str, conversations: &[ConversationId]) -> String {
        let (out, data) = (self.dir.path().join(name), self.data());
        let ids: Vec<String> = conversations.iter().map(|id| format!("{:032x}", id.0)).collect();
        let mut args =
            vec!["export", "--format", "jsonl", "--out", out.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        ids.iter().for_each(|id| args.extend(["--conversation", id]));
        self.run(&args).done();
        std::fs::read_to_string(out).unwrap()
    }

    fn import(&self, input: &str, more: &[&str]) -> Answer {
        let data = self.data();
        let args = [&["import", input, "--live", "--data-dir", data.to_str().unwrap(), "-o", "json"], more].concat();
        self.run(&args)
    }

    fn begin_import(&self, input: &LongExport) -> Child {
        let data = self.data();
        let args = ["import", input.arg(), "--live", "--data-dir", data.to_str().unwrap()];
        self.skein(&args).spawn().unwrap()
    }

    async fn admin(&self) -> Connection {
        let key = AdminKey::load(&self.data().join("keys/admin.pem")).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        self.connected(key.token(TimeMs(now.as_millis() as u64))).await
    }

    async fn connected(&self, token: String) -> Connection {
        let (connection, _) = Connection::connect(&self.listen, Options::default()).await.unwrap();
        connection.hello(Greeting { token, device: "test".into(), ..Greeting::default() }).await.unwrap();
        connection
    }

    /// The message of that id in the files of a node that does not run.
    fn found(&self, server_msg_id: &str) -> Value {
        let data = self.data();
        let args =
            ["log", "find", "--server-msg-id", server_msg_id, "-o", "json", "--data-dir", data.to_str().unwrap()];
        self.run(&args).done().json().remove(0)
    }

    /// Whether a text of ann's is in the segments of a node that does not run.
    fn is_decoded(&self, text: &str) -> bool {
        let (data, ann) = (self.data(), PEOPLE[0].1.to_string());
        let args =
            ["log", "find", "--sender", &ann, "--limit", "1000000", "-o", "json", "--data-dir", data.to_str().unwrap()];
        self.run(&args).done().words().contains(text)
    }

    /// Nobody sees anything of an import, whom it concerns least of all.
    async fn shows_nothing(&self, input: &LongExport) {
        let all = self.export("seen.jsonl", &[]);
        assert!(!all.contains("of long ago"), "{all}");
        input.conversations.iter().for_each(|id| assert!(!all.contains(&format!("{:032x}", id.0)), "{all}"));
        let ann = self.connected(self.mint("ann")).await;
        assert_eq!(ann.list_conversations(10, Bytes::new(), true).await.unwrap().0.len(), 0);
        for id in input.conversations {
            let all = HistoryQuery { conversation: id, from: SeqId(1), to: SeqId(0), limit: 10, newest_first: false };
            assert!(ann.history(all).await.is_err());
        }
    }
}

/// Waits until records of the first conversation are there.
async fn in_the_middle(admin: &Connection, input: &LongExport) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match places(admin, input).await.first() {
            Some(place) if place.last_seq > SeqId(0) => {
                assert!(place.import.is_some_and(|(_, is_over)| !is_over), "{place:?}");
                return;
            }
            _ => assert!(tokio::time::Instant::now() < deadline, "no record came"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn places(admin: &Connection, input: &LongExport) -> Vec<ImportPlace> {
    admin.look_import(&[], &[], &input.conversations).await.unwrap().conversations
}

#[tokio::test]
async fn an_import_whose_client_is_killed_in_the_middle_shows_nothing_and_is_gone_on_with() {
    let house = House::new();
    let input = house.long_export();
    let mut client = house.begin_import(&input);
    let admin = house.admin().await;
    in_the_middle(&admin, &input).await;
    client.kill().unwrap();
    client.wait().unwrap();
    house.shows_nothing(&input).await;
    let ann = house.connected(house.mint("ann")).await;
    let refused = ann.open_direct(PEOPLE[1].1).await.unwrap_err();
    assert!(matches!(&refused, Error::Refused(refusal) if refusal.name() == "importing"), "{refused:?}");
    let done = house.import(input.arg(), &[]).done().json();
    let sent = done[0]["records_sent"].as_u64().unwrap();
    assert!(0 < sent && sent < 2 * RECORDS, "only what was missing: {done:?}");
    assert_eq!(house.export("back.jsonl", &input.conversations), std::fs::read_to_string(&input.path).unwrap());
    assert_eq!(ann.list_conversations(10, Bytes::new(), true).await.unwrap().0.len(), 2);
    let whole = house.import(input.arg(), &["--abort"]).done().json();
    assert_eq!((&whole[0]["conversations_given_up"], &whole[0]["conversations_whole"]), (&json!(0), &json!(2)));
    assert_eq!(house.export("kept.jsonl", &input.conversations), std::fs::read_to_string(&input.path).unwrap());
}

#[tokio::test]
async fn an_import_whose_node_is_killed_in_the_middle_shows_nothing_after_the_restart_and_is_gone_on_with() {
    let mut house = House::new();
    let input = house.long_export();
    let mut client = house.begin_import(&input);
    in_the_middle(&house.admin().await, &input).await;
    house.kill();
    assert!(!client.wait().unwrap().success());
    let unsealed = house.found(&input.first_id());
    assert_eq!((&unsealed["item"], &unsealed["seq_id"]), (&json!("unsealed"), &json!(1)), "{unsealed}");
    house.start();
    house.shows_nothing(&input).await;
    house.import(input.arg(), &[]).done();
    assert_eq!(house.export("back.jsonl", &input.conversations), std::fs::read_to_string(&input.path).unwrap());
    house.stop();
    let data = house.data();
    house.run(&["log", "verify", "--deep", "--data-dir", data.to_str().unwrap()]).done();
    let sealed = house.found(&input.first_id());
    assert_eq!((&sealed["item"], &sealed["seq_id"]), (&json!("record"), &json!(1)), "whatever shard has made the id");
}

#[tokio::test]
async fn an_import_that_is_given_up_leaves_nothing_to_see_and_its_people_talk_as_if_it_had_not_been() {
    let mut house = House::new();
    let input = house.long_export();
    let mut client = house.begin_import(&input);
    in_the_middle(&house.admin().await, &input).await;
    client.kill().unwrap();
    client.wait().unwrap();
    let planned = house.import(input.arg(), &["--abort", "--dry-run"]).done().json();
    assert_eq!(planned[0]["conversations_given_up"], 2, "{planned:?}");
    let given_up = house.import(input.arg(), &["--abort"]).done().json();
    let removed = given_up[0]["records_removed"].as_u64().unwrap();
    assert!((1..2 * RECORDS).contains(&removed), "{given_up:?}");
    house.shows_nothing(&input).await;
    let again = house.import(input.arg(), &["--abort"]).done().json();
    assert_eq!((&again[0]["conversations_given_up"], &again[0]["records_removed"]), (&json!(0), &json!(0)));
    let places = places(&house.admin().await, &input).await;
    let had: u64 = places.iter().map(|place| place.last_seq.0).sum();
    assert!(had == removed && places.iter().all(|place| place.import.is_none()), "{places:?}");
    let refused = house.import(input.arg(), &[]).ended_with(1);
    assert!(refused.complaint().contains("is not empty there: it has had"), "{refused}");

    let ann = house.connected(house.mint("ann")).await;
    let opened = ann.open_direct(PEOPLE[1].1).await.unwrap();
    let direct = ConversationId::direct(PEOPLE[0].1, PEOPLE[1].1);
    let before = places.iter().find(|place| place.conversation == direct).unwrap().last_seq;
    assert_eq!((opened.conversation, opened.unread), (direct, 0));
    let token = house.mint("ann");
    let said =
        house::ended(with_token(house.skein(&["send", "--to", "ben", "at last", "-o", "json"]), &token), b"").done();
    assert_eq!(said.json()[0]["seq_id"], before.0 + 1, "{said}");
    let ben = house.connected(house.mint("ben")).await;
    let list = ben.list_conversations(10, Bytes::new(), true).await.unwrap().0;
    assert_eq!((list.len(), list[0].unread), (1, 1), "{list:?}");

    let data = house.data();
    house.run(&["shard", "seal", "--all", "--data-dir", data.to_str().unwrap()]).done();
    let all = house.export("sealed.jsonl", &[]);
    assert!(all.contains("at last") && !all.contains("of long ago"));
    house.stop();
    house.run(&["log", "verify", "--deep", "--data-dir", data.to_str().unwrap()]).done();
    assert!(house.is_decoded("of long ago"), "readers stop at once, files follow");
    house.start();
    assert_eq!(house.export("restarted.jsonl", &[]), all);
    house.run(&["log", "compact", "--data-dir", data.to_str().unwrap(), "--timeout", "60s"]).done();
    assert_eq!(house.export("compacted.jsonl", &[]), all);
    house.stop();
    assert!(!house.is_decoded("of long ago"));
    house.run(&["log", "verify", "--deep", "--data-dir", data.to_str().unwrap()]).done();
}

fn with_token(mut command: std::process::Command, token: &str) -> std::process::Command {
    command.env("SKEIN_TOKEN", token);
    command
}

#[tokio::test]
async fn damaged_cut_and_reordered_input_is_named_by_its_first_bad_line_and_changes_nothing() {
    let house = House::new();
    let input = house.long_export();
    let text = std::fs::read_to_string(&input.path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let middle = lines.len() / 2;
    let changed = |line: usize, with: &str| {
        let mut lines = lines.clone();
        lines[line] = with;
        lines.join("\n") + "\n"
    };
    let mut swapped = lines.clone();
    swapped.swap(middle, middle + 1);
    let half = &lines[middle][..lines[middle].len() / 2];
    for (what, bad, line) in [
        ("a line that is cut", changed(middle, half), middle + 1),
        ("lines in another order", swapped.join("\n") + "\n", middle + 1),
        ("a line that is there twice", changed(middle, lines[middle - 1]), middle + 1),
        ("no end", lines[..middle].join("\n") + "\n", middle + 1),
        ("another word", changed(middle, &lines[middle].replace("long ago", "late ago")), lines.len()),
    ] {
        let path = house.dir.path().join("bad.jsonl");
        std::fs::write(&path, bad).unwrap();
        let refused = house.import(path.to_str().unwrap(), &[]).ended_with(1);
        assert!(refused.complaint().contains(&format!("line {line}")), "{what}, line {line}: {refused}");
        assert_eq!(places(&house.admin().await, &input).await, [], "{what}");
    }
    let look = house.admin().await.look_import(&PEOPLE.map(|(_, user)| user), &[], &[]).await.unwrap();
    assert!(look.users.is_empty(), "not even accounts: {look:?}");
}

#[tokio::test]
async fn what_no_shard_would_take_is_named_before_anything_is_sent() {
    let house = House::new();
    let input = house.long_export();
    let last = format!("\"seq\":{RECORDS},");
    let ann = PEOPLE[0].1;
    let nobodys = |line: &str| match line.starts_with("{\"record\"") && line.contains(&last) {
        true => line.replace(&format!("\"sender\":\"{ann}\""), "\"sender\":\"0\""),
        false => line.to_owned(),
    };
    let bad = input.rewritten(&house.dir.path().join("bad.jsonl"), nobodys);
    let refused = house.import(bad.arg(), &[]).ended_with(1);
    let named = format!("record {RECORDS} of conversation {}: 0 cannot have sent it", input.conversations[0]);
    assert!(refused.complaint().contains(&named), "{refused}");
    assert_eq!(places(&house.admin().await, &input).await, []);
    let another = input.rewritten(&house.dir.path().join("other.jsonl"), |line| line.replace("long ago", "late ago"));
    let mut client = house.begin_import(&input);
    in_the_middle(&house.admin().await, &input).await;
    client.kill().unwrap();
    client.wait().unwrap();
    let refused = house.import(another.arg(), &[]).ended_with(1);
    assert!(refused.complaint().contains("is being imported from another input"), "{refused}");
    let other_abort = house.import(another.arg(), &["--abort"]).done().json();
    assert_eq!(other_abort[0]["conversations_given_up"], 0, "only its own");
    house.import(input.arg(), &[]).done();
}
