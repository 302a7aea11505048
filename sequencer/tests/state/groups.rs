//! Groups: who is in, since when, and what the records say.

use logstore::RecordKind;
use logstore::id::{ConversationId, Ordinal, SeqId, UserId};
use sequencer::state::{Interval, MemberRow, MembershipBody, Role};
use sequencer::{Command, CursorMove, Outcome, Refusal};

use crate::log::{BEGIN, Log, change, create, id_at, refused, send, users};

fn changed(seq: u64, added: &[u64], removed: &[u64]) -> Outcome {
    Outcome::Group { seq: SeqId(seq), added: users(added), removed: users(removed) }
}

fn roles(log: &Log, group: ConversationId) -> Vec<(u64, Role)> {
    log.state.members(group).filter(|(_, row)| row.is_active()).map(|(user, row)| (user.0, row.role)).collect()
}

#[test]
fn a_group_begins_with_a_membership_record_of_all_its_members() {
    let mut log = Log::new();
    let applied = log.apply(&[create(1, 30, &[20, 10, 20], 5)]);
    assert_eq!(applied.outcomes, [changed(1, &[10, 20, 30], &[])]);
    let record = &applied.records[0];
    assert_eq!(
        (record.head.kind, record.head.seq, record.head.ordinal),
        (RecordKind::MEMBERSHIP, SeqId(1), Ordinal(0))
    );
    let body = MembershipBody::decode(record.made_body.as_ref().unwrap()).unwrap();
    assert_eq!(body, MembershipBody { actor: UserId(30), joined: users(&[10, 20, 30]), left: vec![] });
    let group = ConversationId::group(1);
    assert_eq!(roles(&log, group), [(10, Role::Member), (20, Role::Member), (30, Role::Owner)]);
    assert_eq!(log.state.conversation(group).unwrap().group.as_ref().unwrap().member_count, 3);
    assert_eq!(log.state.conversations_of(UserId(20)).map(|(id, _)| id).collect::<Vec<_>>(), [group]);
}

#[test]
fn creating_again_is_answered_the_same_and_another_request_is_refused() {
    let mut log = Log::new();
    let group = log.group(1, &[10, 11]);
    log.one(change(group, 10, &[12], &[11], id_at(BEGIN, 50)));
    assert_eq!(log.one(create(1, 10, &[11], 1)), changed(1, &[10, 11], &[]));
    assert_eq!(log.one(create(1, 10, &[11, 10, 11], 1)), changed(1, &[10, 11], &[]), "it asks for the same members");
    assert_eq!(log.one(create(1, 10, &[11, 12], 1)), refused(Refusal::IdempotencyConflict));
    let Command::GroupCreate { group: id, creator, request, members, .. } = create(1, 10, &[11], 1) else { panic!() };
    let renamed = Command::GroupCreate { group: id, creator, request, members, name: "another".into() };
    assert_eq!(log.one(renamed), refused(Refusal::IdempotencyConflict));
    assert_eq!(log.one(create(1, 10, &[11], 2)), refused(Refusal::NotAllowed));
    assert_eq!(log.one(create(1, 11, &[10], 1)), refused(Refusal::NotAllowed));
    assert_eq!(log.one(create(2, 10, &[0], 3)), refused(Refusal::NoSuchUser));
    assert_eq!(log.state.conversation(ConversationId::group(2)), None);
}

#[test]
fn intervals_say_what_a_member_may_see() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    log.stored(send(group, 10, id_at(BEGIN, 1), "before"));
    assert_eq!(log.one(change(group, 10, &[11], &[], id_at(BEGIN, 50))), changed(3, &[11], &[]));
    log.stored(send(group, 10, id_at(BEGIN, 2), "seen"));
    assert_eq!(log.one(change(group, 10, &[], &[11], id_at(BEGIN, 51))), changed(5, &[], &[11]));
    log.stored(send(group, 10, id_at(BEGIN, 3), "unseen"));
    assert_eq!(log.one(change(group, 10, &[11], &[], id_at(BEGIN, 52))), changed(7, &[11], &[]));
    let row = log.state.member(group, UserId(11)).unwrap();
    let intervals = [Interval { join: SeqId(3), end: Some(SeqId(6)) }, Interval { join: SeqId(7), end: None }];
    assert_eq!(&row.intervals[..], intervals);
    assert_eq!((row.visible_from, row.join_ordinal), (SeqId(3), Ordinal(3)));
    let seen: Vec<u64> = (1..=8).filter(|seq| row.sees(SeqId(*seq))).collect();
    assert_eq!(seen, [3, 4, 5, 7, 8], "the leave record is the last thing a leaver receives");
    assert_eq!(row.changed_at, log.state.applied());
}

#[test]
fn a_change_makes_one_record_of_those_who_really_changed_or_none() {
    let mut log = Log::new();
    let group = log.group(1, &[10, 11, 12]);
    let both = change(group, 10, &[13, 11, 13], &[12, 99], id_at(BEGIN, 50));
    assert_eq!(log.one(both), changed(2, &[13], &[12]));
    let nobody = log.apply(&[change(group, 10, &[13], &[12], id_at(BEGIN, 51))]);
    assert_eq!(nobody.outcomes, [changed(0, &[], &[])]);
    assert!(nobody.records.is_empty());
    assert_eq!(log.state.conversation(group).unwrap().last_seq, SeqId(2));
    assert_eq!(log.state.conversation(group).unwrap().group.as_ref().unwrap().member_count, 3);
}

#[test]
fn a_retried_change_is_answered_the_same_and_changes_nothing() {
    let mut log = Log::new();
    let group = log.group(1, &[10, 12]);
    let request = change(group, 10, &[11], &[12], id_at(BEGIN, 50));
    assert_eq!(log.one(request.clone()), changed(2, &[11], &[12]));
    log.one(change(group, 10, &[], &[11], id_at(BEGIN, 51)));
    assert_eq!(log.one(request), changed(2, &[11], &[12]));
    assert!(!log.state.member(group, UserId(11)).unwrap().is_active());
    let other = change(group, 10, &[14], &[], id_at(BEGIN, 50));
    assert_eq!(log.one(other), refused(Refusal::IdempotencyConflict));
}

#[test]
fn owner_and_admins_change_members_and_anybody_leaves() {
    let mut log = Log::new();
    let group = log.group(1, &[10, 11, 12]);
    let mut n = 50;
    let mut ask = |actor, add: &[u64], remove: &[u64]| {
        n += 1;
        change(group, actor, add, remove, id_at(BEGIN, n))
    };
    let cases = [
        (ask(11, &[13], &[]), refused(Refusal::NotAllowed)),
        (ask(11, &[], &[12]), refused(Refusal::NotAllowed)),
        (ask(99, &[13], &[]), refused(Refusal::NotMember)),
        (ask(10, &[13], &[13]), refused(Refusal::NotAllowed)),
        (ask(10, &[0], &[]), refused(Refusal::NoSuchUser)),
        (ask(11, &[], &[11]), changed(2, &[], &[11])),
        (ask(11, &[], &[11]), refused(Refusal::NotMember)),
        (ask(10, &[13], &[12]), changed(3, &[13], &[12])),
    ];
    for (command, outcome) in cases {
        assert_eq!(log.one(command.clone()), outcome, "{command:?}");
    }
    let nowhere = change(ConversationId::group(9), 10, &[1], &[], id_at(BEGIN, 90));
    assert_eq!(log.one(nowhere), refused(Refusal::NoSuchConversation));
}

#[test]
fn an_owner_who_leaves_passes_the_group_to_the_longest_standing_member() {
    let mut log = Log::new();
    let group = log.group(1, &[10, 20]);
    log.one(change(group, 10, &[11, 12], &[], id_at(BEGIN, 50)));
    log.one(change(group, 20, &[], &[20], id_at(BEGIN, 51)));
    log.one(change(group, 10, &[20], &[], id_at(BEGIN, 52)));
    log.one(log.with_heir(change(group, 10, &[], &[10], id_at(BEGIN, 53))));
    assert_eq!(roles(&log, group), [(11, Role::Owner), (12, Role::Member), (20, Role::Member)]);
    let owner = |log: &Log| log.state.conversation(group).unwrap().group.as_ref().unwrap().owner;
    assert_eq!(owner(&log), UserId(11));
    for (user, n) in [(11, 54), (12, 55), (20, 56)] {
        log.one(log.with_heir(change(group, user, &[], &[user], id_at(BEGIN, n))));
    }
    assert_eq!(roles(&log, group), []);
    assert_eq!(log.one(send(group, 20, id_at(BEGIN, 60), "x")), refused(Refusal::NotMember));
}

#[test]
fn an_heir_who_is_not_a_member_after_the_change_is_sought_again() {
    let mut log = Log::new();
    let group = log.group(1, &[10, 11, 12]);
    let leave = log.with_heir(change(group, 10, &[], &[10], id_at(BEGIN, 50)));
    assert_eq!(log.one(change(group, 10, &[], &[10], id_at(BEGIN, 50))), refused(Refusal::Retry), "nobody was sought");
    log.one(change(group, 11, &[], &[11], id_at(BEGIN, 51)));
    assert_eq!(log.one(leave.clone()), refused(Refusal::Retry), "the heir has left meanwhile");
    assert_eq!(roles(&log, group), [(10, Role::Owner), (12, Role::Member)], "a refused command has changed nothing");
    let together = log.with_heir(change(group, 10, &[13], &[12, 10], id_at(BEGIN, 52)));
    assert_eq!(log.one(together), changed(3, &[13], &[10, 12]));
    assert_eq!(roles(&log, group), [(13, Role::Owner)], "who comes inherits if nobody stays");
    let removed_heir = change(group, 13, &[14], &[13], id_at(BEGIN, 53));
    let Command::GroupChange(mut removed_heir) = removed_heir else { panic!() };
    removed_heir.heir = UserId(13);
    assert_eq!(log.one(Command::GroupChange(removed_heir)), refused(Refusal::Retry), "the owner is no heir");
}

#[test]
fn a_member_who_comes_and_goes_too_often_is_refused() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    for n in 0..MemberRow::INTERVALS_MAX as u64 {
        assert!(matches!(log.one(change(group, 10, &[11], &[], id_at(BEGIN, 100 + n))), Outcome::Group { .. }));
        log.one(change(group, 10, &[], &[11], id_at(BEGIN, 300 + n)));
    }
    assert_eq!(log.one(change(group, 10, &[11], &[], id_at(BEGIN, 500))), refused(Refusal::LimitReached));
}

#[test]
fn cursors_move_forward_within_what_is_seen() {
    let mut log = Log::new();
    let group = log.group(1, &[10, 11]);
    for n in 1..=4 {
        log.stored(send(group, 10, id_at(BEGIN, n), "x"));
    }
    let step = |user, delivered, read, ordinal| CursorMove {
        conversation: group,
        user: UserId(user),
        delivered: SeqId(delivered),
        read: SeqId(read),
        read_ordinal: Ordinal(ordinal),
    };
    let applied = log.apply(&[Command::MoveCursors(vec![
        step(11, 4, 3, 2),
        step(11, 3, 0, 0),
        step(11, 6, 2, 1),
        step(99, 1, 1, 1),
        step(10, 0, 5, 0),
    ])]);
    let moved: Vec<_> = applied.cursors.iter().map(|c| (c.user.0, c.delivered.0, c.read.0, c.read_ordinal.0)).collect();
    assert_eq!(moved, [(11, 4, 3, 2), (10, 0, 5, 4)], "at the head the ordinal is known");
    log.one(change(group, 10, &[], &[11], id_at(BEGIN, 50)));
    log.stored(send(group, 10, id_at(BEGIN, 9), "x"));
    let left = log.apply(&[Command::MoveCursors(vec![step(11, 7, 7, 9), step(11, 6, 6, 9)])]);
    let moved: Vec<_> = left.cursors.iter().map(|c| (c.delivered.0, c.read.0, c.read_ordinal.0)).collect();
    assert_eq!(moved, [(6, 6, 5)], "one who left reads up to the leave record");
}
