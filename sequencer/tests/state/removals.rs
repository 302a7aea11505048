//! Recall, trims, erasure and retention: what they change, what they refuse, and what becomes of retries.

use logstore::RecordKind;
use logstore::id::{ClientMsgId, ConversationId, LogIndex, Ordinal, SeqId, TimeMs, UserId};
use sequencer::state::{Erasure, RecallBody, Recalled, ShardState};
use sequencer::{Command, Outcome, Recall, Refusal, Retention, Send};

use crate::log::{BEGIN, Log, id_at, refused, send, send_of};

/// A group of 10 and 11; record 1 is its membership record.
fn log() -> (Log, ConversationId) {
    let mut log = Log::new();
    let group = log.group(1, &[10, 11]);
    (log, group)
}

fn recall(group: ConversationId, sender: u64, seq: u64, ordinal: u64, request: ClientMsgId) -> Recall {
    Recall {
        conversation: group,
        actor: UserId(sender),
        request,
        checked_upto: 0,
        seq: SeqId(seq),
        ordinal: Ordinal(ordinal),
        sender: UserId(sender),
        by_operator: false,
    }
}

fn trim(conversation: ConversationId, before: u64, ordinal: u64, time: u64) -> Command {
    Command::Trim { conversation, before: SeqId(before), ordinal: Ordinal(ordinal), time: TimeMs(time) }
}

/// The state that sealed rows of it give.
fn from_rows(log: &mut Log) -> ShardState {
    log.state.keep_frozen();
    let mut rows = std::collections::BTreeMap::new();
    log.seal_after(1);
    let generation = log.state.generation() - 1;
    rows.extend(log.state.frozen(generation).unwrap().delta().filter_map(|(key, value)| Some((key, value?))));
    ShardState::from_rows(log.state.shard(), rows).unwrap()
}

#[test]
fn a_recall_is_a_record_that_does_not_count_and_names_what_it_took() {
    let (mut log, group) = log();
    log.stored(send(group, 10, id_at(BEGIN, 1), "a"));
    let applied = log.apply(&[Command::Recall(recall(group, 10, 2, 1, id_at(BEGIN, 2)))]);
    let record = &applied.records[0];
    assert_eq!((record.head.seq, record.head.ordinal, record.head.kind), (SeqId(3), Ordinal(1), RecordKind::RECALL));
    let body = RecallBody::decode(record.made_body.as_ref().unwrap()).unwrap();
    assert_eq!(body, RecallBody { seq: SeqId(2), ordinal: Ordinal(1), sender: UserId(10), by_operator: false });
    let upkeep = log.state.conversation(group).unwrap().upkeep.clone().unwrap();
    let recalled_at = LogIndex(log.entries.len() as u64);
    assert_eq!(upkeep.recalled, [Recalled { seq: SeqId(2), ordinal: Ordinal(1), sender: UserId(10), recalled_at }]);
    assert!(upkeep.has_removed(SeqId(2)) && !upkeep.has_removed(SeqId(3)));
    assert_eq!(log.replayed().digest(), log.state.digest());
}

#[test]
fn a_recall_repeated_gets_its_record_and_another_of_the_same_message_makes_none() {
    let (mut log, group) = log();
    log.stored(send(group, 10, id_at(BEGIN, 1), "a"));
    log.stored(send(group, 10, id_at(BEGIN, 2), "b"));
    let first = recall(group, 10, 2, 1, id_at(BEGIN, 3));
    let stored = log.stored(Command::Recall(first.clone()));
    let again = log.stored(Command::Recall(first.clone()));
    assert_eq!((again.seq, again.duplicate), (stored.seq, true));
    let other = Recall { seq: SeqId(3), ordinal: Ordinal(2), ..first.clone() };
    assert_eq!(log.one(Command::Recall(other)), refused(Refusal::IdempotencyConflict));
    let anew = Recall { request: id_at(BEGIN, 4), ..first };
    assert_eq!(log.one(Command::Recall(anew)), Outcome::Done);
    assert_eq!(log.state.conversation(group).unwrap().last_seq, stored.seq);
}

#[test]
fn a_retry_of_a_recalled_message_gets_its_seq_id() {
    let (mut log, group) = log();
    let message = send(group, 10, id_at(BEGIN, 1), "a");
    let stored = log.stored(message.clone());
    log.stored(Command::Recall(recall(group, 10, 2, 1, id_at(BEGIN, 2))));
    log.one(Command::Erase { user: UserId(10) });
    let again = log.stored(message);
    assert_eq!((again.seq, again.duplicate), (stored.seq, true));
    assert_eq!(log.one(send(group, 10, id_at(BEGIN, 1), "b")), refused(Refusal::IdempotencyConflict));
}

#[test]
fn only_the_sender_recalls_and_only_what_there_is() {
    let (mut log, group) = log();
    log.stored(send(group, 10, id_at(BEGIN, 1), "a"));
    let right = recall(group, 10, 2, 1, id_at(BEGIN, 2));
    let elsewhere = ConversationId::group(9);
    let refusals = [
        (Recall { actor: UserId(11), ..right.clone() }, Refusal::NotAllowed),
        (Recall { seq: SeqId(3), ..right.clone() }, Refusal::NoSuchRecord),
        (Recall { seq: SeqId(0), ..right.clone() }, Refusal::NoSuchRecord),
        (Recall { ordinal: Ordinal(2), ..right.clone() }, Refusal::NoSuchRecord),
        (Recall { ordinal: Ordinal(0), ..right.clone() }, Refusal::NoSuchRecord),
        (Recall { conversation: elsewhere, ..right.clone() }, Refusal::NoSuchConversation),
        (Recall { actor: UserId(12), sender: UserId(12), ..right.clone() }, Refusal::NotMember),
        (Recall { actor: UserId(0), sender: UserId(0), by_operator: true, ..right.clone() }, Refusal::NotAllowed),
    ];
    let before = log.state.conversation(group).cloned();
    for (wrong, refusal) in refusals {
        assert_eq!(log.one(Command::Recall(wrong.clone())), refused(refusal), "{wrong:?}");
    }
    assert_eq!(log.state.conversation(group).cloned(), before);
    let by_operator = Recall { actor: UserId(12), sender: UserId(12), by_operator: true, ..right };
    assert!(matches!(log.one(Command::Recall(by_operator)), Outcome::Sent(_)), "of one who has left");
}

#[test]
fn recalls_of_one_conversation_are_bounded_until_it_is_trimmed() {
    let (mut log, group) = log();
    let most = sequencer::state::Upkeep::RECALLED_MAX as u64;
    for n in 1..=most + 1 {
        log.stored(send(group, 10, id_at(BEGIN, n), "a"));
    }
    let recall = |n: u64| Command::Recall(recall(group, 10, n + 1, n, id_at(BEGIN, 1 << 20 | n)));
    for n in 1..=most {
        log.stored(recall(n));
    }
    assert_eq!(log.one(recall(most + 1)), refused(Refusal::LimitReached));
    assert_eq!(log.one(trim(group, 3, 1, BEGIN)), Outcome::Done);
    log.stored(recall(most + 1));
}

#[test]
fn a_trim_raises_the_floor_and_never_lowers_it() {
    let (mut log, group) = log();
    for n in 1..=5 {
        log.stored(send(group, 10, id_at(BEGIN, n), "a"));
    }
    log.stored(Command::Recall(recall(group, 10, 3, 2, id_at(BEGIN, 9))));
    assert_eq!(log.one(trim(group, 4, 2, BEGIN)), Outcome::Done);
    let floor = log.state.conversation(group).unwrap().floor();
    assert_eq!((floor.before, floor.ordinal, floor.time), (SeqId(4), Ordinal(2), TimeMs(BEGIN)));
    assert_eq!(log.state.conversation(group).unwrap().upkeep.as_ref().unwrap().recalled, []);
    assert_eq!(log.one(trim(group, 3, 1, BEGIN)), Outcome::Done);
    assert_eq!(log.state.conversation(group).unwrap().floor(), floor);
    assert_eq!(log.one(trim(group, 9, 2, BEGIN)), refused(Refusal::NoSuchRecord), "beyond the head");
    assert_eq!(log.one(trim(group, 5, 9, BEGIN)), refused(Refusal::NoSuchRecord), "an ordinal there is not");
    assert_eq!(log.one(trim(group, 8, 5, u64::MAX)), Outcome::Done, "all of it");
    assert_eq!(log.state.conversation(group).unwrap().floor().time, TimeMs(BEGIN), "not beyond the log's time");
    assert_eq!((log.state.trimmed().today(TimeMs(BEGIN)), log.state.trimmed().ever), (5, 5));
    assert_eq!(log.state.trimmed().today(TimeMs(BEGIN + 48 * 3600 * 1000)), 0);
    let next = log.stored(send(group, 10, id_at(BEGIN, 20), "goes on"));
    assert_eq!(next.seq, SeqId(8));
}

/// Lets what was accepted until now leave the dedup window.
fn pass_the_window(log: &mut Log) {
    for _ in 0..3 {
        log.seal_after(121_000);
    }
    log.now += 121_000;
    log.one(Command::Probe);
}

#[test]
fn an_old_id_that_a_trim_may_have_taken_is_expired_for_ever() {
    let (mut log, group) = log();
    let message = send_of(group, 10, id_at(BEGIN, 1), "a");
    log.stored(Command::Send(message.clone()));
    log.now += 1_000;
    log.stored(send(group, 10, id_at(log.now, 2), "b"));
    assert_eq!(log.one(trim(group, 3, 1, BEGIN)), Outcome::Done);
    let again = log.stored(Command::Send(message.clone()));
    assert!(again.duplicate, "within the window it is known");
    pass_the_window(&mut log);
    let looked_up = Send { checked_upto: log.state.checked_upto(), ..message };
    assert_eq!(log.one(Command::Send(looked_up.clone())), refused(Refusal::Expired));
    let at = |ms: u64| Command::Send(Send { client_msg_id: id_at(ms, 77), ..looked_up.clone() });
    assert_eq!(log.one(at(BEGIN + 30_000)), refused(Refusal::Expired), "a clock that was 30 s ahead");
    assert!(matches!(log.one(at(BEGIN + 30_001)), Outcome::Sent(_)), "cannot have been accepted by then");
    let old = recall(group, 10, 3, 2, id_at(BEGIN, 5));
    let old = Recall { checked_upto: log.state.checked_upto(), ..old };
    assert_eq!(log.one(Command::Recall(old)), refused(Refusal::Expired));
}

#[test]
fn what_is_new_is_accepted_right_after_everything_was_trimmed() {
    let (mut log, group) = log();
    log.stored(send(group, 10, id_at(BEGIN, 1), "a"));
    assert_eq!(log.one(trim(group, 3, 1, BEGIN)), Outcome::Done);
    log.stored(send(group, 10, id_at(BEGIN, 2), "b"));
}

#[test]
fn an_erasure_is_listed_until_it_is_done() {
    let (mut log, group) = log();
    log.stored(send(group, 10, id_at(BEGIN, 1), "a"));
    assert_eq!(log.one(Command::Erase { user: UserId(10) }), Outcome::Done);
    let upto = LogIndex(log.entries.len() as u64);
    assert_eq!(log.state.erasures().list(), [Erasure { user: UserId(10), upto, asked: TimeMs(BEGIN) }]);
    let has_removed = |log: &Log, user, index| log.state.erasures().has_removed(UserId(user), LogIndex(index));
    assert!(has_removed(&log, 10, upto.0) && !has_removed(&log, 10, upto.0 + 1) && !has_removed(&log, 11, 1));
    assert_eq!(log.one(Command::Erase { user: UserId(10) }), Outcome::Done, "extended");
    assert_eq!(log.one(Command::Erased { user: UserId(10), upto }), Outcome::Done, "the first one is not all of it");
    assert_eq!(log.state.erasures().list().len(), 1);
    assert_eq!(log.one(Command::Erased { user: UserId(10), upto: upto.next() }), Outcome::Done);
    assert_eq!(log.state.erasures().list(), []);
    assert_eq!(log.one(Command::Erase { user: UserId(0) }), refused(Refusal::NoSuchUser));
}

#[test]
fn erasures_at_once_are_bounded() {
    let (mut log, _) = log();
    let most = sequencer::state::Erasures::MAX as u64;
    (1..=most).for_each(|user| assert_eq!(log.one(Command::Erase { user: UserId(user) }), Outcome::Done));
    assert_eq!(log.one(Command::Erase { user: UserId(most + 1) }), refused(Refusal::LimitReached));
    assert_eq!(log.one(Command::Erase { user: UserId(1) }), Outcome::Done, "one that is listed is extended");
}

#[test]
fn a_retention_is_kept_and_taken_back() {
    let (mut log, group) = log();
    let retention = Some(Retention { age_ms: 5, records: 0 });
    assert_eq!(log.one(Command::Retain { conversation: group, retention }), Outcome::Done);
    assert_eq!(log.state.conversation(group).unwrap().upkeep.as_ref().unwrap().retention, retention);
    assert_eq!(log.one(Command::Retain { conversation: group, retention: None }), Outcome::Done);
    assert_eq!(log.state.conversation(group).unwrap().upkeep, None);
    let nowhere = ConversationId::group(5);
    assert_eq!(log.one(Command::Retain { conversation: nowhere, retention }), refused(Refusal::NoSuchConversation));
}

#[test]
fn what_was_removed_is_in_sealed_rows() {
    let (mut log, group) = log();
    for n in 1..=5 {
        log.stored(send(group, 10, id_at(BEGIN, n), "a"));
    }
    log.stored(Command::Recall(recall(group, 10, 6, 5, id_at(BEGIN, 9))));
    log.one(trim(group, 3, 1, BEGIN));
    log.one(Command::Retain { conversation: group, retention: Some(Retention { age_ms: 1, records: 2 }) });
    log.one(Command::Erase { user: UserId(11) });
    let mut state = from_rows(&mut log);
    assert_eq!(state.conversation(group), log.state.conversation(group));
    assert_eq!(state.erasures(), log.state.erasures());
    assert_eq!(state.trimmed(), log.state.trimmed());
    let parts = state.window_parts();
    assert!(!parts.is_empty());
    state.skip(LogIndex(log.entries.len() as u64 + 1));
}
