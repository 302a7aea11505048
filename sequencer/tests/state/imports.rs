//! Conversations that come with the ids, places and times that they had elsewhere.

use bytes::Bytes;
use logstore::id::{BodyHash, ClientMsgId, ConversationId, LogIndex, Ordinal, SeqId, ServerMsgId, TimeMs, UserId};
use logstore::{BodyPlace, RecordKind};
use proptest::prelude::*;
use sequencer::state::{
    Brought, ConversationRow, DirectRow, GroupRow, Interval, Look, MemberRow, NameRow, Role, UserRow,
};
use sequencer::{Command, CursorMove, Import, ImportId, ImportedRecord, Outcome, Refusal, Send};

use crate::log::{BEGIN, Log, change, create, id_at, refused, send};

pub const IMPORT: ImportId = ImportId(77);
/// When the records were sent where they come from: a day before.
pub const THEN: u64 = BEGIN - 24 * 3600 * 1000;

pub fn step(step: Import) -> Command {
    Command::Import(Box::new(step))
}

fn server_id(n: u64) -> ServerMsgId {
    ServerMsgId((THEN - ServerMsgId::EPOCH_MS) << 22 | n)
}

pub fn ids() -> Command {
    step(Import::Ids { last_record: server_id(1000), last_user: UserId(500) })
}

pub fn begin(conversation: ConversationId) -> Command {
    begin_as(conversation, IMPORT)
}

fn begin_as(conversation: ConversationId, import: ImportId) -> Command {
    let group = GroupRow {
        name: "elsewhere".into(),
        owner: UserId(10),
        creator: UserId(10),
        request: id_at(THEN, 1 << 40),
        asked: BodyHash(5),
        member_count: 99,
        created: TimeMs(THEN),
    };
    let direct = DirectRow { heard: 3, exists: 3, low: 3, high: 3 };
    let is_group = conversation == ConversationId::group(7);
    let row = ConversationRow {
        last_seq: SeqId(3),
        last_ordinal: Ordinal(2),
        last_index: LogIndex(2),
        last_time: TimeMs(THEN + 3),
        direct: (!is_group).then_some(direct),
        group: is_group.then(|| Box::new(group)),
        upkeep: None,
    };
    step(Import::Begin { conversation, import, row })
}

pub fn members(conversation: ConversationId, users: &[u64]) -> Command {
    let row = |user: &u64| {
        let row = MemberRow {
            intervals: [Interval { join: SeqId(1), end: None }].into_iter().collect(),
            visible_from: SeqId(1),
            role: Role::Member,
            delivered: SeqId(2),
            read: SeqId(1),
            read_ordinal: Ordinal(0),
            join_ordinal: Ordinal(0),
            left_at: (Ordinal(0), TimeMs(0)),
            changed_at: LogIndex(2),
        };
        (UserId(*user), row)
    };
    step(Import::Members { conversation, import: IMPORT, members: users.iter().map(row).collect() })
}

/// The first is of a group's creation, the others are messages of user 10.
fn record(conversation: ConversationId, seq: u64) -> ImportedRecord {
    let (kind, body) = match seq {
        1 if conversation == ConversationId::group(7) => (RecordKind::MEMBERSHIP, Bytes::from_static(b"who joined")),
        _ => (RecordKind::TEXT, Bytes::from(format!("number {seq}"))),
    };
    let before = u64::from(conversation == ConversationId::group(7));
    ImportedRecord {
        conversation,
        import: IMPORT,
        seq: SeqId(seq),
        ordinal: Ordinal(seq - before.min(seq)),
        kind,
        sender: UserId(10),
        server_msg_id: server_id(seq),
        client_msg_id: id_at(THEN, seq),
        body_hash: Send::hash_of(kind, &body),
        time: TimeMs(THEN + seq),
        body: Some(body),
    }
}

pub fn put(conversation: ConversationId, seq: u64) -> Command {
    step(Import::Record(record(conversation, seq)))
}

pub fn end(conversation: ConversationId, members: u32) -> Command {
    let ordinal = if conversation == ConversationId::group(7) { 2 } else { 3 };
    step(Import::End {
        conversation,
        import: IMPORT,
        last_seq: SeqId(3),
        last_ordinal: Ordinal(ordinal),
        last_time: TimeMs(THEN + 3),
        members,
    })
}

pub fn all(conversation: ConversationId) -> Vec<Command> {
    let count = if conversation == ConversationId::group(7) { 2 } else { 0 };
    let records = (1..=3).map(|seq| put(conversation, seq));
    let head = [ids(), begin(conversation), members(conversation, &[10, 11])];
    head.into_iter().chain(records).chain([end(conversation, count)]).collect()
}

pub fn is_seen(log: &Log, conversation: ConversationId) -> bool {
    Look::new(&log.state, &mut Brought::default()).conversation(conversation).is_some()
}

pub fn group() -> ConversationId {
    ConversationId::group(7)
}

#[test]
fn a_conversation_is_seen_by_nobody_before_its_end_and_goes_on_after_it() {
    let mut log = Log::new();
    let mut commands = all(group());
    let last = commands.pop().unwrap();
    let applied = log.apply(&commands);
    assert!(applied.outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{:?}", applied.outcomes);
    assert!(applied.records.is_empty() && !applied.opened, "nobody is told of them");
    let heads: Vec<_> = applied.imported.iter().map(|record| record.head).collect();
    assert_eq!(heads.iter().map(|head| head.seq.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(heads[2].time, TimeMs(THEN + 3));
    assert_eq!(heads[2].server_msg_id, server_id(3));
    let BodyPlace::InEntry { offset, len } = heads[2].body else { panic!("{:?}", heads[2].body) };
    let payload = log.entries.last().unwrap();
    assert_eq!(&payload[offset as usize..][..len as usize], b"number 3");
    assert!(!is_seen(&log, group()));
    assert_eq!(log.one(send(group(), 10, id_at(BEGIN, 9), "too early")), refused(Refusal::Importing));
    assert_eq!(log.one(send(group(), 10, id_at(THEN, 2), "number 2")), refused(Refusal::Importing), "a retry, too");
    assert_eq!(log.one(change(group(), 10, &[12], &[], id_at(BEGIN, 8))), refused(Refusal::Importing));
    assert_eq!(log.one(create(7, 10, &[], 1)), refused(Refusal::Importing));
    let applied = log.apply(&[last]);
    assert!(applied.opened && applied.records.is_empty());
    assert!(is_seen(&log, group()));
    let row = log.state.conversation(group()).unwrap();
    assert_eq!((row.last_seq, row.last_ordinal, row.last_index), (SeqId(3), Ordinal(2), applied.index));
    assert_eq!(row.group.as_ref().unwrap().member_count, 2);
    let stored = log.stored(send(group(), 11, id_at(BEGIN, 9), "after"));
    assert_eq!(stored.seq, SeqId(4));
    assert!(stored.server_msg_id > server_id(1000));
    assert_eq!(log.replayed().digest(), log.state.digest());
}

#[test]
fn a_retry_of_an_imported_message_finds_its_seq_id() {
    let mut log = Log::new();
    log.apply(&all(group()));
    let again = log.stored(send(group(), 10, id_at(THEN, 2), "number 2"));
    assert_eq!((again.seq, again.server_msg_id, again.duplicate), (SeqId(2), server_id(2), true));
    let other = send(group(), 10, id_at(THEN, 2), "another");
    assert_eq!(log.one(other), refused(Refusal::IdempotencyConflict));
    // Once it has left the window it is looked for where all are that were accepted at any time.
    for _ in 0..3 {
        log.seal_after(130_000);
    }
    assert!(log.state.needs_look_up(id_at(THEN, 2)));
    let found = log.state.look_up_old(group(), UserId(10), id_at(THEN, 2));
    assert_eq!(found.unwrap().0.seq, SeqId(2));
}

#[test]
fn an_import_into_what_has_records_is_refused() {
    let mut log = Log::new();
    log.group(7, &[10, 11]);
    let before = log.state.digest();
    assert_eq!(log.one(begin(group())), refused(Refusal::NotEmpty));
    assert_eq!(log.one(put(group(), 2)), refused(Refusal::ImportMisfit));
    assert_eq!(log.one(end(group(), 2)), refused(Refusal::ImportMisfit));
    assert_eq!(log.state.conversation(group()).unwrap().last_seq, SeqId(1));
    assert_ne!(before, log.state.digest(), "the digest knows the entries");
}

#[test]
fn an_empty_direct_is_imported_into_and_its_two_members_get_their_cursors() {
    let mut log = Log::new();
    let direct = ConversationId::direct(UserId(10), UserId(11));
    log.apply(&all(direct));
    assert!(is_seen(&log, direct));
    assert_eq!(log.state.conversation_count(), 1);
    assert_eq!(log.state.members(direct).count(), 2);
    assert_eq!(log.state.member(direct, UserId(11)).unwrap().delivered, SeqId(2));
    assert_eq!(log.stored(send(direct, 11, id_at(BEGIN, 1), "on")).seq, SeqId(4));
}

#[test]
fn what_does_not_follow_is_refused_and_changes_nothing() {
    let mut log = Log::new();
    log.apply(&[ids(), begin(group()), members(group(), &[10, 11]), put(group(), 1)]);
    let right = record(group(), 2);
    let body = right.body.clone();
    for (wrong, refusal) in [
        (record(group(), 3), Refusal::ImportMisfit),
        (ImportedRecord { ordinal: Ordinal(2), ..right.clone() }, Refusal::ImportMisfit),
        (ImportedRecord { time: TimeMs(THEN), ..right.clone() }, Refusal::ImportMisfit),
        (ImportedRecord { import: ImportId(78), ..right.clone() }, Refusal::ImportMisfit),
        (ImportedRecord { server_msg_id: ServerMsgId(u64::MAX), ..right.clone() }, Refusal::ImportMisfit),
        (ImportedRecord { time: TimeMs(BEGIN + 60_000), ..right.clone() }, Refusal::ClockSkew),
        (ImportedRecord { client_msg_id: id_at(BEGIN + 60_000, 1), ..right.clone() }, Refusal::ClockSkew),
        (ImportedRecord { sender: UserId(0), ..right.clone() }, Refusal::NotMember),
        (ImportedRecord { client_msg_id: id_at(THEN, 1), ..right.clone() }, Refusal::IdempotencyConflict),
        (ImportedRecord { conversation: ConversationId::group(8), ..right.clone() }, Refusal::NoSuchConversation),
    ] {
        assert_eq!(log.one(step(Import::Record(wrong.clone()))), refused(refusal), "{wrong:?}");
    }
    assert_eq!(log.one(end(group(), 2)), refused(Refusal::ImportMisfit), "records are missing");
    assert_eq!(log.one(begin_as(group(), ImportId(78))), refused(Refusal::Importing));
    assert_eq!(log.one(step(Import::Record(ImportedRecord { body: None, ..right }))), Outcome::Done);
    assert!(body.is_some());
    log.apply(&[put(group(), 3)]);
    assert_eq!(log.one(end(group(), 3)), refused(Refusal::ImportMisfit), "members are missing");
    assert_eq!(log.one(end(group(), 2)), Outcome::Done);
    assert!(!is_seen(&log, ConversationId::group(8)));
}

#[test]
fn nothing_but_the_import_changes_what_is_being_imported() {
    let mut log = Log::new();
    log.apply(&all(group())[..5]);
    let cursor = CursorMove {
        conversation: group(),
        user: UserId(10),
        delivered: SeqId(2),
        read: SeqId(2),
        read_ordinal: Ordinal(1),
    };
    assert!(log.apply(&[Command::MoveCursors(vec![cursor])]).cursors.is_empty());
    let trim = Command::Trim { conversation: group(), before: SeqId(2), ordinal: Ordinal(0), time: TimeMs(THEN) };
    assert_eq!(log.one(trim), refused(Refusal::Importing));
    let retain = Command::Retain { conversation: group(), retention: None };
    assert_eq!(log.one(retain), refused(Refusal::Importing));
}

#[test]
fn an_account_of_the_same_id_or_name_that_is_another_is_refused() {
    let mut log = Log::new();
    let account = |user: u64, name: &str| {
        let row = UserRow { name: name.into(), password_phc: "p".into(), created: TimeMs(THEN), sessions: vec![] };
        step(Import::Account { user: UserId(user), row })
    };
    let name = |name: &str, user: u64| {
        let row = NameRow { user: UserId(user), request: ClientMsgId(1), confirmed: true, claimed: TimeMs(THEN) };
        step(Import::Name { name: name.into(), row })
    };
    assert_eq!(log.one(name("ann", 10)), Outcome::Done);
    assert_eq!(log.one(account(10, "ann")), Outcome::Done);
    assert_eq!(log.one(account(10, "ann")), Outcome::Done, "again");
    assert_eq!(log.one(account(10, "ben")), refused(Refusal::NameTaken));
    assert_eq!(log.one(name("ann", 11)), refused(Refusal::NameTaken));
    assert_eq!(log.one(name("ann", 10)), Outcome::Done);
    assert_eq!(log.one(account(0, "nobody")), refused(Refusal::NoSuchUser));
}

#[test]
fn ids_that_were_given_out_elsewhere_are_given_out_by_no_shard() {
    let mut log = Log::new();
    let reach = BEGIN - ServerMsgId::EPOCH_MS + 20_000;
    let taken = ServerMsgId(reach << 22 | 5);
    let last_user = UserId(reach << 21);
    assert_eq!(log.one(step(Import::Ids { last_record: taken, last_user })), Outcome::Done);
    log.group(3, &[10, 11]);
    let stored = log.stored(send(ConversationId::group(3), 10, id_at(BEGIN, 1), "next"));
    assert!(stored.server_msg_id.0 >> 22 > reach);
    let far = ServerMsgId(BEGIN << 22);
    assert_eq!(log.one(step(Import::Ids { last_record: far, last_user })), refused(Refusal::ClockSkew));
}

proptest! {
    /// Whatever is sent again, cut off, or repeated from the beginning: the state is that of one quiet import.
    #[test]
    fn steps_that_are_repeated_change_nothing(
        cuts in prop::collection::vec((0usize..8, 0usize..8), 0..6),
        direct in any::<bool>(),
    ) {
        let conversation = if direct { ConversationId::direct(UserId(10), UserId(11)) } else { group() };
        let steps = all(conversation);
        let mut quiet = Log::new();
        quiet.apply(&steps);
        let mut log = Log::new();
        let mut reached = 0;
        for (from, count) in cuts.into_iter().chain([(0, 8)]) {
            let from = from.min(reached);
            let upto = (from + count).min(steps.len());
            let applied = log.apply(&steps[from..upto]);
            prop_assert!(applied.outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{:?}", applied.outcomes);
            prop_assert_eq!(applied.imported.len(), (from.max(reached)..upto.max(reached)).filter(|n| (3..6).contains(n)).count());
            reached = reached.max(upto);
        }
        let (one, other) = (log.state.conversation(conversation).unwrap(), quiet.state.conversation(conversation).unwrap());
        prop_assert_eq!((one.last_seq, one.last_ordinal, one.last_time), (other.last_seq, other.last_ordinal, other.last_time));
        prop_assert_eq!(log.state.stored(), quiet.state.stored());
        prop_assert_eq!(log.state.conversation_count(), 1);
        prop_assert_eq!(log.state.members(conversation).count(), 2);
        prop_assert!(is_seen(&log, conversation));
        prop_assert_eq!(log.replayed().digest(), log.state.digest());
    }
}
