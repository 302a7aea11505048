//! A record as it is printed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gateway::client::{Connection, Record};
use hashbrown::HashMap;
use logstore::RecordKind;
use logstore::id::{ClientMsgId, UserId};
use serde::Serialize;
use uuid::Uuid;

use super::log_time;
use crate::exit::Failure;
use crate::output::{Format, Printer, Row, visible};

/// Ids in one look-up.
const IDS_A_REQUEST: usize = 256;

/// A record for people and programs.
#[derive(Serialize)]
pub struct RecordRow {
    conversation: String,
    seq_id: u64,
    /// "text", "custom", "membership", "recall", or "kind-N" for what this program is too old to know.
    kind: String,
    server_msg_id: String,
    client_msg_id: String,
    sender: String,
    sent_at: String,
    #[serde(skip_serializing_if = "is_zero")]
    ordinal: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    joined: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    /// Its content is gone for ever.
    #[serde(skip_serializing_if = "is_false")]
    removed: bool,
    /// The message that this record recalls.
    #[serde(skip_serializing_if = "Option::is_none")]
    recalls: Option<u64>,
}

fn is_false(bit: &bool) -> bool {
    !*bit
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl RecordRow {
    /// With the names of whom it mentions; [`Names::learn`] them first.
    pub fn new(record: &Record, names: &Names) -> RecordRow {
        let change = record.membership.as_ref();
        let text = record.text().map(str::to_owned);
        let recalled = record.recalled.as_ref();
        let is_other = text.is_none() && change.is_none() && recalled.is_none() && !record.removed;
        RecordRow {
            conversation: record.conversation.to_string(),
            seq_id: record.seq_id.0,
            kind: kind_name(record.kind),
            server_msg_id: record.server_msg_id.to_string(),
            client_msg_id: uuid(record.client_msg_id),
            sender: names.of(sender(record)),
            sent_at: log_time(record.sent_at),
            ordinal: record.ordinal.0,
            text,
            content_base64: is_other.then(|| STANDARD.encode(&record.content)),
            joined: change.map(|change| names.of_all(&change.joined)),
            left: change.map(|change| names.of_all(&change.left)),
            actor: change.map(|change| names.of(change.actor)),
            removed: record.removed,
            recalls: recalled.map(|recalled| recalled.seq_id.0),
        }
    }

    /// What it says, for people.
    pub fn words(&self) -> String {
        if self.removed {
            return "(removed)".into();
        }
        if let Some(seq) = self.recalls {
            return format!("recalled message {seq}");
        }
        match (&self.text, &self.joined, &self.left) {
            (Some(text), _, _) => text.clone(),
            (None, Some(joined), Some(left)) => membership_words(joined, left),
            _ => format!("({} {})", self.kind, self.content_base64.as_deref().unwrap_or("")),
        }
    }

    /// A line of one conversation's history: place, day, time, who, what.
    pub fn history_line(&self) -> String {
        let day = self.sent_at.get(..10).unwrap_or("");
        format!("{:>6}  {day} {}", self.seq_id, self.chat_line())
    }

    /// A line of a conversation: time, who, what.
    pub fn chat_line(&self) -> String {
        let clock = self.sent_at.get(11..19).unwrap_or("");
        match self.kind.as_str() {
            "membership" | "recall" => format!("{clock}  * {}", visible(&self.words())),
            _ => format!("{clock}  {}: {}", visible(&self.sender), visible(&self.words())),
        }
    }
}

impl Row for RecordRow {
    const COLUMNS: &'static [&'static str] = &["conversation", "seq", "sent at", "kind", "sender", "content"];

    fn cells(&self) -> Vec<String> {
        let seq = self.seq_id.to_string();
        vec![self.conversation.clone(), seq, self.sent_at.clone(), self.kind.clone(), self.sender.clone(), self.words()]
    }
}

/// Prints a record that comes with others of any conversation.
pub fn print(printer: &mut Printer, record: &Record, names: &Names) -> Result<(), Failure> {
    let row = RecordRow::new(record, names);
    match printer.format() {
        Format::Table => {
            let line = format!("{} {:>6}  {}", row.conversation, row.seq_id, row.chat_line());
            printer.line(&line)
        }
        _ => printer.row(&row),
    }
}

/// Names of users, asked of the server once each.
#[derive(Default)]
pub struct Names {
    known: HashMap<UserId, String>,
}

impl Names {
    /// Asks for the names that records mention and are not known yet.
    pub async fn learn(&mut self, connection: &Connection, records: &[Record]) -> Result<(), Failure> {
        let mut ids = Vec::new();
        for record in records {
            ids.push(sender(record));
            if let Some(change) = &record.membership {
                ids.push(change.actor);
                ids.extend(change.joined.iter().chain(&change.left));
            }
        }
        self.learn_ids(connection, ids).await
    }

    /// Asks for the names of these users that are not known yet.
    pub async fn learn_ids(&mut self, connection: &Connection, mut ids: Vec<UserId>) -> Result<(), Failure> {
        ids.retain(|id| id.0 != 0 && !self.known.contains_key(id));
        ids.sort_unstable();
        ids.dedup();
        for some in ids.chunks(IDS_A_REQUEST) {
            for user in connection.find_users(&[], some).await? {
                self.known.insert(user.id, user.name);
            }
            // Whom the server does not know now it is not asked for again.
            for id in some {
                self.known.entry(*id).or_insert_with(|| format!("user-{id}"));
            }
        }
        Ok(())
    }

    /// A user's name.
    pub fn of(&self, user: UserId) -> String {
        match self.known.get(&user) {
            Some(name) => name.clone(),
            None if user.0 == 0 => String::new(),
            None => format!("user-{user}"),
        }
    }

    /// Several users' names.
    pub fn of_all(&self, users: &[UserId]) -> Vec<String> {
        users.iter().map(|user| self.of(*user)).collect()
    }
}

/// A message id as UUID.
pub fn uuid(id: ClientMsgId) -> String {
    Uuid::from_u128(id.0).to_string()
}

/// Who is named as sender: of a change of members, whoever made it.
fn sender(record: &Record) -> UserId {
    match &record.membership {
        Some(change) if record.sender.0 == 0 => change.actor,
        _ => record.sender,
    }
}

pub fn kind_name(kind: RecordKind) -> String {
    match kind {
        RecordKind::TEXT => "text".into(),
        RecordKind::CUSTOM => "custom".into(),
        RecordKind::MEMBERSHIP => "membership".into(),
        RecordKind::RECALL => "recall".into(),
        RecordKind(other) => format!("kind-{other}"),
    }
}

fn membership_words(joined: &[String], left: &[String]) -> String {
    let joined = (!joined.is_empty()).then(|| format!("{} joined", joined.join(", ")));
    let left = (!left.is_empty()).then(|| format!("{} left", left.join(", ")));
    [joined, left].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gateway::client::Membership;
    use logstore::id::{ConversationId, Ordinal, SeqId, ServerMsgId, TimeMs};

    use super::*;

    fn record(kind: RecordKind, content: &[u8], membership: Option<Membership>) -> Record {
        Record {
            conversation: ConversationId::group(1),
            seq_id: SeqId(3),
            ordinal: Ordinal(2),
            kind,
            sender: UserId(7),
            server_msg_id: ServerMsgId(u64::MAX),
            client_msg_id: ClientMsgId(0x0191_0000_0000_7000_8000_0000_0000_0001),
            sent_at: TimeMs(1_800_000_000_123),
            content: Bytes::copy_from_slice(content),
            membership,
            removed: false,
            recalled: None,
        }
    }

    fn names() -> Names {
        Names { known: [(UserId(7), "alice".into()), (UserId(8), "bob".into())].into_iter().collect() }
    }

    #[test]
    fn a_text_is_printed_byte_for_byte_with_all_that_names_it() {
        let json =
            serde_json::to_value(RecordRow::new(&record(RecordKind::TEXT, "".as_bytes(), None), &names())).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "conversation": "80000000000000000000000000000001",
                "seq_id": 3,
                "kind": "text",
                "server_msg_id": "18446744073709551615",
                "client_msg_id": "01910000-0000-7000-8000-000000000001",
                "sender": "alice",
                "sent_at": "2027-01-15T08:00:00.123Z",
                "ordinal": 2,
                "text": "",
            })
        );
        let text = "a\tb\n\u{1b}[0m 🦆";
        let row = RecordRow::new(&record(RecordKind::TEXT, text.as_bytes(), None), &names());
        assert_eq!(row.text.as_deref(), Some(text));
        assert_eq!(row.chat_line(), "08:00:00  alice: a\\tb\\n\\u{1b}[0m 🦆");
    }

    #[test]
    fn a_change_of_members_names_them() {
        let change = Membership { actor: UserId(7), joined: vec![UserId(8)], left: vec![UserId(9)] };
        let row = RecordRow::new(&record(RecordKind::MEMBERSHIP, b"", Some(change)), &names());
        assert_eq!(row.words(), "bob joined; user-9 left");
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(
            (&json["kind"], &json["joined"][0], &json["actor"]),
            (&"membership".into(), &"bob".into(), &"alice".into())
        );
        assert!(json.get("text").is_none());
    }

    #[test]
    fn other_content_is_printed_as_base64() {
        let json =
            serde_json::to_value(RecordRow::new(&record(RecordKind::CUSTOM, b"\x00\xff", None), &names())).unwrap();
        assert_eq!((&json["kind"], &json["content_base64"]), (&"custom".into(), &"AP8=".into()));
    }
}
