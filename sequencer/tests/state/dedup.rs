//! The dedup window. Tests named D2, D3, ... are the shortest traces by which a model broke looser rules.

use logstore::id::{SeqId, UserId};
use sequencer::{Command, Outcome, Refusal, Send};

use crate::log::{BEGIN, Log, change, id_at, refused, send, send_of};

const TWO_MINUTES: u64 = 120_000;

/// The window's floor is the log time of the last entry before it; this moves it to now.
fn leave_behind(log: &mut Log) {
    log.seal_after(0);
    log.now += TWO_MINUTES + 1;
    log.one(Command::Probe);
}

fn checked(mut send: Send, checked_upto: u64) -> Command {
    send.checked_upto = checked_upto;
    Command::Send(send)
}

#[test]
fn a_generation_leaves_two_minutes_after_its_end() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    let message = send(group, 10, id_at(BEGIN, 1), "x");
    let first = log.stored(message.clone());
    log.seal_after(10);
    log.now += TWO_MINUTES;
    assert_eq!(log.stored(message.clone()).seq, first.seq, "at two minutes it is still inside");
    log.now += 1;
    assert_eq!(log.stored(message.clone()).seq, first.seq, "it leaves after the entry that is past them");
    assert_eq!(log.one(message.clone()), refused(Refusal::Retry));
    let Command::Send(old) = &message else { unreachable!() };
    assert!(log.state.needs_look_up(old.client_msg_id));
    let (stored, hash) = log.state.look_up_old(group, old.sender, old.client_msg_id).unwrap();
    assert_eq!((stored.seq, stored.duplicate, hash), (first.seq, true, old.body_hash));
}

#[test]
fn the_current_generation_never_leaves() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    let first = log.stored(send(group, 10, id_at(BEGIN, 1), "x"));
    log.now += 100 * TWO_MINUTES;
    log.one(Command::Probe);
    assert_eq!(log.stored(send(group, 10, id_at(BEGIN, 1), "x")).seq, first.seq);
}

#[test]
fn d2_apply_decides_fast_or_slow_not_the_proposer() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    let message = send(group, 10, id_at(BEGIN, 1), "x");
    log.stored(message.clone());
    // The proposer found it in its window and appended it as fast; entries ahead of it dropped the original.
    leave_behind(&mut log);
    assert_eq!(log.one(message), refused(Refusal::Retry));
    assert_eq!(log.state.conversation(group).unwrap().last_seq, SeqId(2));
}

#[test]
fn d3_an_id_is_inside_only_with_its_clocks_margin() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    // Accepted with a clock 30 s ahead, then the generation ends: the id is later than the floor, and yet before it.
    let ahead = send(group, 10, id_at(BEGIN + 30_000, 1), "x");
    log.stored(ahead.clone());
    leave_behind(&mut log);
    assert_eq!(log.one(ahead), refused(Refusal::Retry));
    let fresh = send(group, 10, id_at(BEGIN + 30_001, 2), "x");
    assert_eq!(log.stored(fresh).seq, SeqId(3), "30 s above the floor is safe");
}

#[test]
fn d4_d5_a_replica_that_replays_has_the_same_window() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    log.stored(send(group, 10, id_at(BEGIN, 1), "x"));
    log.seal_after(1000);
    log.seal_after(1000);
    // A generation that ends in a refused command, and an empty one.
    log.one(send(group, 99, id_at(BEGIN, 2), "x"));
    log.seal_after(TWO_MINUTES);
    log.stored(send(group, 10, id_at(log.now, 3), "x"));
    let mut replayed = log.replayed();
    assert_eq!(replayed.digest(), log.state.digest());
    let old = log.apply(&[send(group, 10, id_at(BEGIN, 4), "x")]);
    let entry = log.entries.last().unwrap();
    assert_eq!(replayed.apply(old.index, entry), old);
}

#[test]
fn d6_ids_that_left_the_window_are_found_until_released() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    for n in 0..9000 {
        log.stored(send(group, 10, id_at(BEGIN, n), "x"));
    }
    leave_behind(&mut log);
    for n in 0..9000 {
        log.stored(send(group, 10, id_at(log.now, n), "x"));
    }
    let found = |log: &Log, at, n| log.state.look_up_old(group, logstore::id::UserId(10), id_at(at, n));
    assert_eq!(found(&log, BEGIN, 17).unwrap().0.seq, SeqId(19));
    let digest = log.state.digest();
    log.state.release_published(1);
    assert_eq!(log.state.digest(), digest, "apply cannot see it");
    assert!((0..9000).all(|n| found(&log, BEGIN, n).is_none()));
    assert!((0..9000).all(|n| found(&log, log.now, n).is_some()));
    for n in 9000..30_000 {
        log.stored(send(group, 10, id_at(log.now, n), "x"));
    }
    assert!((0..30_000).all(|n| found(&log, log.now, n).is_some_and(|(s, _)| s.seq.0 == 9002 + n)));
}

#[test]
fn d8_a_slow_send_is_accepted_if_it_was_looked_up_as_far_as_the_window_reaches() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    leave_behind(&mut log);
    let old = send_of(group, 10, id_at(BEGIN, 1), "x");
    assert_eq!(log.state.look_up_old(group, old.sender, old.client_msg_id), None);
    assert_eq!(log.state.checked_upto(), 1);
    // A seal between look-up and apply does not matter while the window still reaches back to the look-up...
    log.seal_after(0);
    assert_eq!(log.stored(checked(old.clone(), 1)).seq, SeqId(2));
    // ...and one generation further does.
    let other = send_of(group, 10, id_at(BEGIN, 2), "y");
    log.now += TWO_MINUTES + 1;
    log.one(Command::Probe);
    assert_eq!(log.one(checked(other.clone(), 1)), refused(Refusal::Retry));
    assert_eq!(log.one(checked(other.clone(), 99)), refused(Refusal::Retry), "nobody has looked into the future");
    assert_eq!(log.stored(checked(other.clone(), log.state.checked_upto())).seq, SeqId(3));
}

#[test]
fn d10_refused_ids_are_not_remembered() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    let message = send(group, 11, id_at(BEGIN, 1), "x");
    assert_eq!(log.one(message.clone()), refused(Refusal::NotMember));
    let early = send(group, 10, id_at(BEGIN + 40_000, 1), "y");
    assert_eq!(log.one(early.clone()), refused(Refusal::ClockSkew));
    log.one(change(group, 10, &[11], &[], id_at(BEGIN, 50)));
    log.now += 10_000;
    assert_eq!(log.stored(message).seq, SeqId(3));
    assert_eq!(log.stored(early).seq, SeqId(4));
}

#[test]
fn many_generations_in_the_window_are_searched_alike() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    let mut seqs = Vec::new();
    for n in 0..40 {
        seqs.push(log.stored(send(group, 10, id_at(BEGIN, n), "x")).seq);
        log.seal_after(1000);
    }
    for (n, seq) in seqs.into_iter().enumerate() {
        assert_eq!(log.stored(send(group, 10, id_at(BEGIN, n as u64), "x")).seq, seq);
    }
}

#[test]
fn a_change_older_than_the_window_is_accepted_if_it_was_looked_up() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    let request = change(group, 10, &[11], &[], id_at(BEGIN, 50));
    log.one(request.clone());
    log.one(change(group, 10, &[], &[11], id_at(BEGIN, 51)));
    leave_behind(&mut log);
    assert_eq!(log.one(request), refused(Refusal::Retry), "nobody has looked for it");
    assert!(log.state.needs_look_up(id_at(BEGIN, 50)));
    let Command::GroupChange(mut unseen) = change(group, 10, &[12], &[], id_at(BEGIN, 52)) else { panic!() };
    unseen.checked_upto = log.state.checked_upto();
    let accepted = log.one(Command::GroupChange(unseen));
    assert_eq!(accepted, Outcome::Group { seq: SeqId(4), added: vec![UserId(12)], removed: vec![] });
    let future = change(group, 10, &[12], &[], id_at(log.now + 30_001, 52));
    assert_eq!(log.one(future), refused(Refusal::ClockSkew));
}
