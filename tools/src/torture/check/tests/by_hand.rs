//! Each point with a history written by hand: as it should be, and with one thing wrong.

use logstore::id::{ClientMsgId, ConversationId, SeqId, UserId};

use super::points;
use crate::torture::check::check;
use crate::torture::fault::FaultKind;
use crate::torture::history::{Change, Event, Fault, History, Op, Replica};

const ANN: u64 = 1;
const BEN: u64 = 2;
const GROUP: ConversationId = ConversationId(2 << 126 | 9);
const SECOND: u64 = 1_000_000_000;

/// A line: when, whose, which message, which place, what.
type Line = (u64, u64, u128, u64, Op);

const SENT: Op = Op::Invoke { pipeline: 1 };
const CHANGED: Op = Op::Invoke { pipeline: 0 };

fn told(joined: &[u64], left: &[u64]) -> Option<Box<Change>> {
    let users = |numbers: &[u64]| numbers.iter().copied().map(UserId).collect();
    Some(Box::new(Change { joined: users(joined), left: users(left) }))
}

fn read(since_ns: u64) -> Op {
    Op::Read { since_ns, replica: Replica(1) }
}

/// Ann makes a group with Ben, she sends 11 and 12, Ben leaves, she sends 13; both hear what is theirs.
fn good() -> Vec<Line> {
    let (found, left) = (told(&[ANN, BEN], &[]), told(&[], &[BEN]));
    vec![
        (1, ANN, 10, 0, CHANGED),
        (2, ANN, 10, 1, Op::Ack),
        (3, ANN, 11, 0, SENT),
        (4, ANN, 12, 0, SENT),
        (5, ANN, 11, 2, Op::Ack),
        (6, BEN, 0, 2, read(5)),
        (7, ANN, 10, 1, Op::Deliver(found.clone())),
        (8, BEN, 10, 1, Op::Deliver(found.clone())),
        (9, ANN, 11, 2, Op::Deliver(None)),
        (10, BEN, 11, 2, Op::Deliver(None)),
        (11, BEN, 14, 0, CHANGED),
        (12, ANN, 12, 3, Op::Ack),
        (13, BEN, 14, 4, Op::Ack),
        (14, ANN, 13, 0, SENT),
        (15, ANN, 13, 5, Op::Ack),
        (16, ANN, 12, 3, Op::Deliver(None)),
        (17, BEN, 12, 3, Op::Deliver(None)),
        (18, ANN, 14, 4, Op::Deliver(left.clone())),
        (19, BEN, 14, 4, Op::Deliver(left.clone())),
        (20, ANN, 13, 5, Op::Deliver(None)),
        (21, ANN, 0, 5, read(20)),
        (22, BEN, 0, 4, read(20)),
        (30, ANN, 10, 1, Op::Final(Replica(1), found)),
        (31, ANN, 11, 2, Op::Final(Replica(1), None)),
        (32, ANN, 12, 3, Op::Final(Replica(1), None)),
        (33, ANN, 14, 4, Op::Final(Replica(1), left)),
        (34, ANN, 13, 5, Op::Final(Replica(1), None)),
    ]
}

fn history(lines: Vec<Line>) -> History {
    let event = |(t_ns, user, id, seq, op)| Event {
        t_ns,
        user: UserId(user),
        conversation: GROUP,
        client_msg_id: ClientMsgId(id),
        seq_id: SeqId(seq),
        op,
    };
    History { events: lines.into_iter().map(event).collect(), faults: Vec::new(), shards: 1, end_ns: 29 }
}

/// What is found in the good one with one line changed.
fn with(t_ns: u64, change: impl Fn(&mut Line)) -> Vec<&'static str> {
    let mut lines = good();
    change(lines.iter_mut().find(|line| line.0 == t_ns).unwrap());
    points(&check(&history(lines)))
}

fn without(wanted: impl Fn(&Line) -> bool) -> Vec<&'static str> {
    let lines = good().into_iter().filter(|line| !wanted(line)).collect();
    points(&check(&history(lines)))
}

#[test]
fn the_good_one_is_good_and_counted() {
    let report = check(&history(good()));
    assert_eq!(report.findings.kept(), &[]);
    assert_eq!((report.tally.sends, report.tally.acked, report.tally.unknown()), (5, 5, 0));
    assert_eq!(report.tally.share_in_time(), 1.0);
}

#[test]
fn each_line_that_is_wrong_breaks_the_promises_it_should() {
    let is_telling = |line: &Line| !matches!(line.4, Op::Invoke { .. } | Op::Ack);
    let found = [
        ("a client is told of another message", with(17, |line| line.2 = 13)),
        ("an ack tells another place", with(12, |line| line.3 = 6)),
        ("a client is told of another place", with(10, |line| line.3 = 3)),
        ("a message is sent only in the end", with(14, |line| line.0 = 40)),
        ("a message was never sent", with(14, |line| line.2 = 99)),
        ("a read does not know of an ack", with(22, |line| line.3 = 3)),
        ("a read knows less than one before", with(22, |line| line.3 = 1)),
        ("a read tells of what came after leaving", with(22, |line| line.3 = 5)),
        ("a leaver is given more", with(20, |line| line.1 = BEN)),
        ("the last delivery never comes", without(|line| line.0 == 20)),
        ("the final read lacks a record", without(|line| line.0 == 32)),
        ("nobody is told of what was acknowledged", without(|line| line.2 == 13 && is_telling(line))),
    ];
    let expected: [&[&str]; 12] = [
        &["agreement", "uniqueness"],
        &["uniqueness", "durability", "real-time", "sender-order", "fresh-reads"],
        &["agreement", "uniqueness", "durability", "no-gap"],
        &["phantom"],
        &["phantom"],
        &["fresh-reads"],
        &["fresh-reads", "monotonic"],
        &["authorization"],
        &["no-gap", "authorization"],
        &["no-gap"],
        &["durability", "no-gap"],
        &["durability"],
    ];
    for ((what, found), expected) in found.iter().zip(expected) {
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn an_unknown_message_may_be_there_or_not() {
    assert_eq!(without(|line| line.0 == 15), Vec::<&str>::new());
    assert_eq!(without(|line| line.2 == 13 && line.0 != 14 || line.0 == 21), Vec::<&str>::new());
}

#[test]
fn what_nobody_waits_for_is_unknown_and_does_not_count_as_late() {
    let mut lines = good();
    lines.iter_mut().find(|line| line.0 == 15).unwrap().4 = Op::Gone;
    let report = check(&history(lines));
    assert_eq!((report.findings.total(), report.tally.unknown(), report.tally.gone), (0, 1, 1));
    assert_eq!(report.tally.share_in_time(), 1.0);
}

#[test]
fn what_was_sent_after_an_ack_comes_after_it() {
    // 13 is sent at 14, after 12 was acknowledged, and would be before it.
    let mut lines = good();
    for line in &mut lines {
        line.3 = match (line.2, line.3) {
            (12, 3) if line.4 == Op::Ack => 5,
            (13, 5) if line.4 == Op::Ack => 3,
            (_, seq) => seq,
        };
        line.2 = match line.2 {
            12 if !matches!(line.4, Op::Ack | Op::Invoke { .. }) => 13,
            13 if !matches!(line.4, Op::Ack | Op::Invoke { .. }) => 12,
            id => id,
        };
    }
    lines.iter_mut().find(|line| line.0 == 17).unwrap().0 = 19;
    let found = points(&check(&history(lines)));
    assert!(found.contains(&"real-time") && found.contains(&"sender-order"), "{found:?}");
}

#[test]
fn two_replicas_that_tell_different_things_are_told_apart() {
    let mut lines = good();
    let second = lines.iter().filter(|line| matches!(line.4, Op::Final(..))).take(4).cloned();
    let second: Vec<Line> = second
        .map(|mut line| {
            if let Op::Final(replica, _) = &mut line.4 {
                *replica = Replica(2);
            }
            line
        })
        .collect();
    lines.extend(second);
    assert_eq!(points(&check(&history(lines))), ["durability", "no-gap", "replicas"]);
}

#[test]
fn recovery_is_from_the_fault_to_the_first_ack_of_what_was_sent_after_it() {
    let of = |end_ns, healed_ns| {
        let fault =
            |from_ns| Fault { kind: FaultKind::Kill, replica: Replica(1), from_ns, healed_ns, shards: vec![0, 1] };
        History { faults: vec![fault(3), fault(14)], end_ns, ..history(good()) }
    };
    let report = check(&of(29, Some(20)));
    assert_eq!(report.findings.total(), 0);
    let took: Vec<_> = report.recoveries.iter().map(|r| (r.fault, r.shard, r.took_ns, r.came)).collect();
    // 12 was sent at 4 and acknowledged at 12; nothing was sent after 14.
    assert_eq!(took, [(0, 0, 9, true)]);
    let late = History { faults: vec![Fault { from_ns: 13, ..of(29, Some(14)).faults[0].clone() }], ..of(29, None) };
    let unacked = |history: &mut History| history.events.retain(|event| !(event.op == Op::Ack && event.t_ns == 15));
    let mut silent = History { end_ns: 20 * SECOND, ..late.clone() };
    unacked(&mut silent);
    let report = check(&silent);
    assert_eq!(points(&report), ["liveness"]);
    assert_eq!((report.recoveries[0].took_ns, report.recoveries[0].came), (20 * SECOND - 13, false));
    // Soon after the fault nothing can be said yet.
    let mut short = late;
    unacked(&mut short);
    assert_eq!(check(&short).findings.total(), 0);
}
