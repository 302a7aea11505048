//! An export of one group and one 1:1 that takes long enough to import to be interrupted in the middle, line by line as
//! `docs/format.md` draws them.

#![allow(dead_code, clippy::unwrap_used)] // Each test file uses a part of it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use logstore::id::{ConversationId, ServerMsgId, UserId};

/// When all of it was said.
const THEN_MS: u64 = ServerMsgId::EPOCH_MS + 40_000_000_000;

/// What is written.
pub struct LongExport {
    /// Where.
    pub path: PathBuf,
    /// The conversations in the order of their records.
    pub conversations: [ConversationId; 2],
    /// Records of each.
    pub records: u64,
}

/// Its people.
pub const PEOPLE: [(&str, UserId); 2] = [("ann", user(1)), ("ben", user(2))];

const fn user(n: u64) -> UserId {
    UserId((THEN_MS - ServerMsgId::EPOCH_MS) << 21 | n)
}

impl LongExport {
    /// Two conversations of so many records of some 2 KB.
    pub fn write(path: &Path, records: u64) -> LongExport {
        let [(_, ann), (_, ben)] = PEOPLE;
        let mut conversations = [ConversationId::group(0x77), ConversationId::direct(ann, ben)];
        let mut lines = String::from("{\"export\":{\"format\":1,\"complete\":false}}\n");
        people(&mut lines);
        // Rows are in the order of ids, records in that of buckets.
        conversations.sort();
        conversations.iter().for_each(|id| head(&mut lines, *id, records));
        conversations.sort_by_key(|id| (id.bucket(), *id));
        for (place, id) in conversations.iter().enumerate() {
            (1..=records).for_each(|seq| record(&mut lines, *id, seq, place as u64 * records + seq));
        }
        let export = LongExport { path: path.to_owned(), conversations, records };
        export.end(lines);
        export
    }

    /// Another file that makes as much sense.
    pub fn rewritten(&self, path: &Path, line: impl Fn(&str) -> String) -> LongExport {
        let text = std::fs::read_to_string(&self.path).unwrap();
        let but_last = text.lines().filter(|line| !line.starts_with("{\"end\""));
        let export = LongExport { path: path.to_owned(), ..*self };
        export.end(but_last.map(|text| line(text) + "\n").collect());
        export
    }

    fn end(&self, mut lines: String) {
        let (count, hash, records) = (lines.lines().count(), blake3::hash(lines.as_bytes()), 2 * self.records);
        writeln!(
            lines,
            "{{\"end\":{{\"lines\":{count},\"accounts\":2,\"conversations\":2,\"members\":4,\"records\":{records},\"blake3\":\"{hash}\"}}}}"
        )
        .unwrap();
        std::fs::write(&self.path, lines).unwrap();
    }

    /// The id of the first record of the first conversation.
    pub fn first_id(&self) -> String {
        server_msg_id(1, 1).to_string()
    }

    /// For the command line.
    pub fn arg(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

fn people(lines: &mut String) {
    for (name, user) in PEOPLE {
        writeln!(
            lines,
            "{{\"account\":{{\"user\":\"{user}\",\"name\":\"{name}\",\"password_phc\":\"\",\"created_ms\":{THEN_MS}}}}}"
        )
        .unwrap();
    }
    for (name, user) in PEOPLE {
        let request = format!("{:032x}", user.0);
        writeln!(
            lines,
            "{{\"name\":{{\"name\":\"{name}\",\"user\":\"{user}\",\"request\":\"{request}\",\"claimed_ms\":{THEN_MS}}}}}"
        )
        .unwrap();
    }
    let [(_, ann), (_, ben)] = PEOPLE;
    for (user, peer) in [(ann, ben), (ben, ann)] {
        writeln!(lines, "{{\"relation\":{{\"user\":\"{user}\",\"peer\":\"{peer}\",\"exists\":true}}}}").unwrap();
    }
}

fn is_group(id: ConversationId) -> bool {
    id == ConversationId::group(0x77)
}

fn head(lines: &mut String, id: ConversationId, records: u64) {
    let last_ms = THEN_MS + records;
    let owner = PEOPLE[0].1;
    let what = match is_group(id) {
        true => format!(
            "\"group\":{{\"name\":\"elsewhere\",\"owner\":\"{owner}\",\"creator\":\"{owner}\",\"request\":\"{:032x}\",\"asked\":\"5\",\"created_ms\":{THEN_MS}}}",
            7
        ),
        false => "\"direct\":{\"low\":3,\"high\":3}".to_owned(),
    };
    writeln!(
        lines,
        "{{\"conversation\":{{\"conversation\":\"{:032x}\",\"last_seq\":{records},\"last_ordinal\":{records},\"last_time_ms\":{last_ms},{what}}}}}",
        id.0
    )
    .unwrap();
    for (at, (_, user)) in PEOPLE.into_iter().enumerate() {
        let role = if at == 0 && is_group(id) { "owner" } else { "member" };
        writeln!(
            lines,
            "{{\"member\":{{\"user\":\"{user}\",\"role\":\"{role}\",\"visible_from\":1,\"delivered\":1,\"read\":1,\"read_ordinal\":1,\"join_ordinal\":0,\"left_ordinal\":0,\"left_ms\":0,\"intervals\":[[1,0]]}}}}"
        )
        .unwrap();
    }
}

/// Made by shard 77 of a larger cluster.
fn server_msg_id(seq: u64, n: u64) -> u64 {
    (THEN_MS + seq - ServerMsgId::EPOCH_MS) << 22 | 77 << 10 | (n & 0x3ff)
}

/// `n` tells it apart in all of the export.
fn record(lines: &mut String, id: ConversationId, seq: u64, n: u64) {
    let (sender, time_ms) = (PEOPLE[(seq % 2) as usize].1, THEN_MS + seq);
    let (server, client) = (server_msg_id(seq, n), u128::from(time_ms) << 80 | 7 << 76 | 2 << 62 | u128::from(n));
    let text = format!("{seq} of long ago ").repeat(128);
    writeln!(
        lines,
        "{{\"record\":{{\"conversation\":\"{:032x}\",\"seq\":{seq},\"ordinal\":{seq},\"kind\":1,\"sender\":\"{sender}\",\"server_msg_id\":\"{server}\",\"client_msg_id\":\"{client:032x}\",\"time_ms\":{time_ms},\"text\":\"{text}\"}}}}",
        id.0
    )
    .unwrap();
}
