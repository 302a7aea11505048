//! One line: its kinds, their fields, and how they stand for rows of state and records.
//!
//! What always holds: ids are strings, because JSON's numbers end at 2^53; times are milliseconds since 1970; a line that is
//! parsed and written again is the same bytes, or it was not in the canonical form.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use logstore::RecordKind;
use logstore::id::{BodyHash, ClientMsgId, ConversationId, LogIndex, Ordinal, SeqId, ServerMsgId, TimeMs, UserId};
use logstore::segment::{Item, SealedBody, SealedRecord, TrimmedRange};
use sequencer::Send;
use sequencer::state::{
    ConversationRow, DirectRow, Floor, GroupRow, Interval, MemberRow, NameRow, Peer, Recalled, RelationRow, Role,
    Upkeep, UserRow,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version this code writes.
pub const FORMAT: u32 = 1;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first.
    Export(Header),
    /// An account.
    Account(Account),
    /// Whose a name is.
    Name(Name),
    /// What an account knows of another.
    Relation(Relation),
    /// A conversation; its members follow.
    Conversation(Conversation),
    /// A member of the conversation before it.
    Member(Member),
    /// A record.
    Record(Record),
    /// Where records were.
    Trimmed(Trimmed),
    /// The last.
    End(End),
}

/// What the first line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// Whether it holds every conversation.
    pub complete: bool,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Its id.
    pub user: Number,
    /// What it calls itself.
    pub name: String,
    /// argon2id PHC string; empty: no password.
    pub password_phc: String,
    /// When it was created.
    pub created_ms: u64,
}

/// Whose a name is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Name {
    /// The name.
    pub name: String,
    /// The account.
    pub user: Number,
    /// The request that claimed it.
    pub request: Hex,
    /// When it was claimed.
    pub claimed_ms: u64,
}

/// A user's side of a 1:1, at its home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relation {
    /// Whose.
    pub user: Number,
    /// The other.
    pub peer: Number,
    /// Whether there is such an account.
    pub exists: bool,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    /// Its id.
    pub conversation: Hex,
    /// Its newest record; 0: none.
    pub last_seq: u64,
    /// Countable messages in it.
    pub last_ordinal: u64,
    /// The time of its newest record.
    pub last_time_ms: u64,
    /// A 1:1's grants.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub direct: Option<Direct>,
    /// What only groups have.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<Group>,
    /// What was removed of it, and how long it keeps its records.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub upkeep: Option<Keep>,
}

/// What was removed of a conversation, and how long it keeps its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// The first record that was not trimmed; 0: none was.
    pub before: u64,
    /// Countable messages trimmed.
    pub ordinal: u64,
    /// The time of the last record trimmed.
    pub time_ms: u64,
    /// Messages recalled above that: seq, ordinal, sender.
    pub recalled: Vec<(u64, u64, Number)>,
    /// How long it keeps its records; left out: as the configuration says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retention: Option<Retention>,
}

/// How long records are kept; both 0: for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Older ones may go.
    pub age_ms: u64,
    /// So many stay.
    pub records: u64,
}

/// A 1:1's grants: bit 0 of each is what the lower user's home says, bit 1 what the higher's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Direct {
    /// Which homes let the lower user send.
    pub low: u8,
    /// Which homes let the higher user send.
    pub high: u8,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Who owns it.
    pub owner: Number,
    /// Who created it.
    pub creator: Number,
    /// The request that created it.
    pub request: Hex,
    /// Hash of what was asked for then.
    pub asked: Number,
    /// When.
    pub created_ms: u64,
}

/// Somebody who is or was in the conversation before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Who.
    pub user: Number,
    /// owner, admin or member.
    pub role: RoleName,
    /// Nothing before it is shown.
    pub visible_from: u64,
    /// Received up to here.
    pub delivered: u64,
    /// Read up to here.
    pub read: u64,
    /// Countable messages up to there.
    pub read_ordinal: u64,
    /// Countable messages before the current interval.
    pub join_ordinal: u64,
    /// Countable messages at the last leave.
    pub left_ordinal: u64,
    /// The time of the last leave.
    pub left_ms: u64,
    /// From which record to before which; an end of 0: open.
    pub intervals: Vec<(u64, u64)>,
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// Everything.
    Owner,
    /// Adds and removes members.
    Admin,
    /// Sends.
    Member,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Where.
    pub conversation: Hex,
    /// Its place there.
    pub seq: u64,
    /// Countable messages up to and including it.
    pub ordinal: u64,
    /// What it is.
    pub kind: u8,
    /// Who sent it.
    pub sender: Number,
    /// The id the server gave it.
    pub server_msg_id: Number,
    /// The id its sender gave it.
    pub client_msg_id: Hex,
    /// When.
    pub time_ms: u64,
    /// What tells a retry from another message; left out where it follows from kind and body.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hash: Option<Number>,
    /// A body of text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
    /// Any other body, base64.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub body: Option<Base64>,
    /// The body was removed.
    #[serde(skip_serializing_if = "is_false", default)]
    pub removed: bool,
}

/// Where records were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trimmed {
    /// Where.
    pub conversation: Hex,
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// Countable messages before the first.
    pub ordinal_before: u64,
    /// Countable messages up to the last.
    pub ordinal: u64,
    /// The last one's time.
    pub time_ms: u64,
}

/// What the last line says of all before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Lines before this one.
    pub lines: u64,
    /// Accounts.
    pub accounts: u64,
    /// Conversations.
    pub conversations: u64,
    /// Members of them.
    pub members: u64,
    /// Records, trimmed ones left out.
    pub records: u64,
    /// BLAKE3 of the bytes of all lines before this one.
    pub blake3: String,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// An id of 64 bits, as decimal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(pub u64);

/// An id of 128 bits, as 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex(pub u128);

/// Bytes as base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base64(pub Bytes);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str(&text).map(Number).map_err(|_| D::Error::custom(format!("{text:?} is not a number of 64 bits")))
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hex, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hex = Some(&text).filter(|text| text.len() == 32).and_then(|text| u128::from_str_radix(text, 16).ok());
        hex.map(Hex).ok_or_else(|| D::Error::custom(format!("{text:?} is not 32 hex digits")))
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Base64, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text).map(|bytes| Base64(bytes.into())).map_err(D::Error::custom)
    }
}

impl Line {
    /// The line's bytes, its end included.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("a line is plain data");
        bytes.push(b'\n');
        bytes
    }
}

impl Account {
    /// Of a row; its open sessions are the cluster's own.
    pub fn of(user: UserId, row: &UserRow) -> Account {
        let UserRow { name, password_phc, created, sessions: _ } = row;
        Account { user: Number(user.0), name: name.clone(), password_phc: password_phc.clone(), created_ms: created.0 }
    }

    /// The row it stands for.
    pub fn row(self) -> UserRow {
        let Account { user: _, name, password_phc, created_ms } = self;
        UserRow { name, password_phc, created: TimeMs(created_ms), sessions: Vec::new() }
    }
}

impl Name {
    /// Of a row.
    pub fn of(name: String, row: &NameRow) -> Name {
        Name { name, user: Number(row.user.0), request: Hex(row.request.0), claimed_ms: row.claimed.0 }
    }

    /// The row it stands for.
    pub fn row(&self) -> NameRow {
        let (user, request) = (UserId(self.user.0), ClientMsgId(self.request.0));
        NameRow { user, request, confirmed: true, claimed: TimeMs(self.claimed_ms) }
    }
}

impl Relation {
    /// Of a row; nothing of one whose answer is under way, so that whoever is asked again asks again.
    pub fn of(user: UserId, peer: UserId, row: &RelationRow) -> Option<Relation> {
        let exists = match row.peer {
            Peer::Known => true,
            Peer::Unknown => false,
            Peer::Asked => return None,
        };
        Some(Relation { user: Number(user.0), peer: Number(peer.0), exists })
    }

    /// The row it stands for.
    pub fn row(&self) -> RelationRow {
        RelationRow { peer: if self.exists { Peer::Known } else { Peer::Unknown } }
    }
}

impl Conversation {
    /// Of a row; nothing of a 1:1 that is not open, nor of what is being imported or was given up: nobody sees it.
    pub fn of(id: ConversationId, row: &ConversationRow) -> Option<Conversation> {
        if row.direct.is_some_and(|direct| !direct.is_open()) || row.is_hidden() {
            return None;
        }
        Some(Conversation {
            conversation: Hex(id.0),
            last_seq: row.last_seq.0,
            last_ordinal: row.last_ordinal.0,
            last_time_ms: row.last_time.0,
            direct: row.direct.map(|DirectRow { heard: _, exists: _, low, high }| Direct { low, high }),
            group: row.group.as_deref().map(Group::of),
            upkeep: row.upkeep.as_deref().and_then(Keep::of),
        })
    }

    /// The row it stands for, changed last by an entry; a group has so many members.
    pub fn row(self, changed_at: LogIndex, member_count: u32) -> ConversationRow {
        ConversationRow {
            last_seq: SeqId(self.last_seq),
            last_ordinal: Ordinal(self.last_ordinal),
            last_index: changed_at,
            last_time: TimeMs(self.last_time_ms),
            direct: self.direct.map(|Direct { low, high }| DirectRow { heard: 3, exists: 3, low, high }),
            group: self.group.map(|group| Box::new(group.row(member_count))),
            upkeep: self.upkeep.map(|keep| Arc::new(keep.row(changed_at))),
        }
    }
}

impl Keep {
    /// Of a row; nothing if it says nothing but that it was imported.
    fn of(row: &Upkeep) -> Option<Keep> {
        let own = Upkeep { import: None, ..row.clone() };
        if own.is_empty() && row.import.is_some() {
            return None;
        }
        let Upkeep { floor: Floor { before, ordinal, time, trimmed_at: _ }, recalled, retention, import: _ } = row;
        Some(Keep {
            before: before.0,
            ordinal: ordinal.0,
            time_ms: time.0,
            recalled: recalled.iter().map(|each| (each.seq.0, each.ordinal.0, Number(each.sender.0))).collect(),
            retention: retention.map(|kept| Retention { age_ms: kept.age_ms, records: kept.records }),
        })
    }

    fn row(self, changed_at: LogIndex) -> Upkeep {
        let recalled = |(seq, ordinal, sender): (u64, u64, Number)| Recalled {
            seq: SeqId(seq),
            ordinal: Ordinal(ordinal),
            sender: UserId(sender.0),
            recalled_at: changed_at,
        };
        let before = SeqId(self.before);
        Upkeep {
            floor: Floor { before, ordinal: Ordinal(self.ordinal), time: TimeMs(self.time_ms), trimmed_at: changed_at },
            recalled: self.recalled.into_iter().map(recalled).collect(),
            retention: self.retention.map(|Retention { age_ms, records }| sequencer::Retention { age_ms, records }),
            import: None,
        }
    }
}

impl Group {
    fn of(row: &GroupRow) -> Group {
        let GroupRow { name, owner, creator, request, asked, member_count: _, created } = row;
        Group {
            name: name.clone(),
            owner: Number(owner.0),
            creator: Number(creator.0),
            request: Hex(request.0),
            asked: Number(asked.0),
            created_ms: created.0,
        }
    }

    fn row(self, member_count: u32) -> GroupRow {
        let Group { name, owner, creator, request, asked, created_ms } = self;
        GroupRow {
            name,
            owner: UserId(owner.0),
            creator: UserId(creator.0),
            request: ClientMsgId(request.0),
            asked: BodyHash(asked.0),
            member_count,
            created: TimeMs(created_ms),
        }
    }
}

impl Member {
    /// Of a row.
    pub fn of(user: UserId, row: &MemberRow) -> Member {
        Member {
            user: Number(user.0),
            role: match row.role {
                Role::Owner => RoleName::Owner,
                Role::Admin => RoleName::Admin,
                Role::Member => RoleName::Member,
            },
            visible_from: row.visible_from.0,
            delivered: row.delivered.0,
            read: row.read.0,
            read_ordinal: row.read_ordinal.0,
            join_ordinal: row.join_ordinal.0,
            left_ordinal: row.left_at.0.0,
            left_ms: row.left_at.1.0,
            intervals: row.intervals.iter().map(|i| (i.join.0, i.end.map_or(0, |end| end.0))).collect(),
        }
    }

    /// The row it stands for, changed last by an entry.
    pub fn row(&self, changed_at: LogIndex) -> MemberRow {
        let interval = |&(join, end): &(u64, u64)| Interval { join: SeqId(join), end: (end > 0).then_some(SeqId(end)) };
        MemberRow {
            intervals: self.intervals.iter().map(interval).collect(),
            visible_from: SeqId(self.visible_from),
            role: match self.role {
                RoleName::Owner => Role::Owner,
                RoleName::Admin => Role::Admin,
                RoleName::Member => Role::Member,
            },
            delivered: SeqId(self.delivered),
            read: SeqId(self.read),
            read_ordinal: Ordinal(self.read_ordinal),
            join_ordinal: Ordinal(self.join_ordinal),
            left_at: (Ordinal(self.left_ordinal), TimeMs(self.left_ms)),
            changed_at,
        }
    }

    /// Whether it is a member now.
    pub fn is_active(&self) -> bool {
        self.intervals.last().is_some_and(|(_, end)| *end == 0)
    }
}

impl Record {
    /// Of a sealed record.
    pub fn of(record: &SealedRecord) -> Record {
        let (mut text, mut body, mut derived) = (None, None, None);
        if let SealedBody::Kept(bytes) = &record.body {
            derived = Some(Send::hash_of(record.kind, bytes));
            match std::str::from_utf8(bytes) {
                Ok(words) if record.kind == RecordKind::TEXT => text = Some(words.to_owned()),
                _ => body = Some(Base64(bytes.clone())),
            }
        }
        Record {
            conversation: Hex(record.conversation.0),
            seq: record.seq.0,
            ordinal: record.ordinal.0,
            kind: record.kind.0,
            sender: Number(record.sender.0),
            server_msg_id: Number(record.server_msg_id.0),
            client_msg_id: Hex(record.client_msg_id.0),
            time_ms: record.time.0,
            hash: (derived != Some(record.body_hash)).then_some(Number(record.body_hash.0)),
            text,
            body,
            removed: derived.is_none(),
        }
    }

    /// The record it stands for, accepted by an entry; or what does not fit together.
    pub fn sealed(self, index: LogIndex) -> Result<SealedRecord, &'static str> {
        let kind = RecordKind(self.kind);
        let body = match (self.text, self.body, self.removed) {
            (Some(text), None, false) if kind == RecordKind::TEXT => SealedBody::Kept(text.into()),
            (Some(_), None, false) => return Err("only records of kind 1 have a text"),
            (None, Some(Base64(bytes)), false) => SealedBody::Kept(bytes),
            (None, None, true) => SealedBody::Removed,
            _ => return Err("a record has one of text, body, removed"),
        };
        let derived = body.kept().map(|bytes| Send::hash_of(kind, bytes));
        let hash = self.hash.map(|hash| BodyHash(hash.0)).or(derived);
        Ok(SealedRecord {
            conversation: ConversationId(self.conversation.0),
            seq: SeqId(self.seq),
            ordinal: Ordinal(self.ordinal),
            kind,
            sender: UserId(self.sender.0),
            server_msg_id: ServerMsgId(self.server_msg_id.0),
            client_msg_id: ClientMsgId(self.client_msg_id.0),
            body_hash: hash.ok_or("a record whose body was removed states its hash")?,
            time: TimeMs(self.time_ms),
            index,
            body,
        })
    }
}

impl Trimmed {
    /// Of a range.
    pub fn of(range: &TrimmedRange) -> Trimmed {
        Trimmed {
            conversation: Hex(range.conversation.0),
            first: range.first.0,
            last: range.last.0,
            ordinal_before: range.ordinal_before.0,
            ordinal: range.ordinal.0,
            time_ms: range.time.0,
        }
    }

    /// The range it stands for.
    pub fn sealed(&self, index: LogIndex) -> TrimmedRange {
        TrimmedRange {
            conversation: ConversationId(self.conversation.0),
            first: SeqId(self.first),
            last: SeqId(self.last),
            ordinal_before: Ordinal(self.ordinal_before),
            ordinal: Ordinal(self.ordinal),
            time: TimeMs(self.time_ms),
            index,
        }
    }
}

impl Line {
    /// Of a record or where some were.
    pub fn of_item(item: &Item) -> Line {
        match item {
            Item::Record(record) => Line::Record(Record::of(record)),
            Item::Trimmed(range) => Line::Trimmed(Trimmed::of(range)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn record()(
            numbers in any::<[u64; 5]>(),
            ids in any::<(u128, u128)>(),
            kind in any::<u8>(),
            bytes in prop_oneof![
                any::<String>().prop_map(|text| Some(text.into_bytes())),
                proptest::collection::vec(any::<u8>(), 0..80).prop_map(Some),
                Just(None)
            ],
            hash in proptest::option::of(any::<u64>()),
        ) -> SealedRecord {
            let kind = RecordKind(kind);
            let body = bytes.map_or(SealedBody::Removed, |bytes| SealedBody::Kept(bytes.into()));
            let derived = Send::hash_of(kind, body.kept().map_or(&[], |bytes| &bytes[..]));
            SealedRecord {
                conversation: ConversationId(ids.0),
                seq: SeqId(numbers[0]),
                ordinal: Ordinal(numbers[1]),
                kind,
                sender: UserId(numbers[2]),
                server_msg_id: ServerMsgId(numbers[3]),
                client_msg_id: ClientMsgId(ids.1),
                body_hash: hash.map_or(derived, BodyHash),
                time: TimeMs(numbers[4]),
                index: LogIndex(2),
                body,
            }
        }
    }

    fn parsed(bytes: &[u8]) -> Line {
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1, "a line is one line");
        serde_json::from_slice(bytes).unwrap()
    }

    proptest! {
        #[test]
        fn a_record_survives_its_line_and_its_line_survives_the_record(record in record()) {
            let bytes = Line::of_item(&Item::Record(record.clone())).to_bytes();
            let line = parsed(&bytes);
            prop_assert_eq!(&line.to_bytes(), &bytes);
            let Line::Record(of) = line else { panic!("a record") };
            prop_assert_eq!(of.sealed(LogIndex(2)).unwrap(), record);
        }

        #[test]
        fn a_member_survives_its_line(
            numbers in any::<[u64; 8]>(),
            intervals in proptest::collection::vec(any::<(u64, u64)>(), 0..5),
            role in 0..3u8,
        ) {
            let role = [RoleName::Owner, RoleName::Admin, RoleName::Member][usize::from(role)];
            let [user, visible_from, delivered, read, read_ordinal, join_ordinal, left_ordinal, left_ms] = numbers;
            let member = Member {
                user: Number(user), role, visible_from, delivered, read, read_ordinal, join_ordinal, left_ordinal, left_ms, intervals,
            };
            prop_assert_eq!(&Member::of(UserId(user), &member.row(LogIndex(9))), &member);
            let line = Line::Member(member);
            prop_assert_eq!(parsed(&line.to_bytes()), line);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = serde_json::from_slice::<Line>(&bytes);
        }
    }

    #[test]
    fn fields_that_nobody_knows_are_refused() {
        for line in [
            r#"{"export":{"format":1,"complete":true,"more":1}}"#,
            r#"{"account":{"user":"1","name":"a","password_phc":"","created_ms":1,"admin":true}}"#,
            r#"{"account":{"user":1,"name":"a","password_phc":"","created_ms":1}}"#,
            r#"{"unheard_of":{}}"#,
        ] {
            assert!(serde_json::from_str::<Line>(line).is_err(), "{line}");
        }
    }
}
