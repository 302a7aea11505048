//! The checker is checked: a history as it should be has no finding, and each way to spoil one is found, under the right name.

mod by_hand;
mod made;

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{Report, check};
use crate::torture::history::{Event, History, Op, Replica};
use made::{GROUPS, OWNER, make};

fn points(report: &Report) -> Vec<&'static str> {
    report.findings.by_point().map(|(point, _)| point).collect()
}

/// Checks what `spoil` makes of a good history; a history in which there is nothing to spoil is passed over.
fn spoilt(
    seed: u64,
    point: &'static str,
    spoil: impl Fn(&mut History, &mut SmallRng) -> Option<()>,
) -> Result<(), TestCaseError> {
    let mut history = make(seed);
    let spoilt = spoil(&mut history, &mut SmallRng::seed_from_u64(seed ^ 0x5eed));
    prop_assume!(spoilt.is_some());
    let report = check(&history);
    prop_assert!(points(&report).contains(&point), "{:?}", report.findings.kept());
    Ok(())
}

/// A random event that is as wanted.
fn pick(history: &History, chance: &mut SmallRng, wanted: impl Fn(&Event) -> bool) -> Option<usize> {
    let places: Vec<usize> = (0..history.events.len()).filter(|&at| wanted(&history.events[at])).collect();
    (!places.is_empty()).then(|| places[chance.random_range(0..places.len())])
}

fn is_deliver(event: &Event) -> bool {
    matches!(event.op, Op::Deliver(_))
}

fn is_plain(event: &Event) -> bool {
    matches!(event.op, Op::Deliver(None) | Op::Final(_, None))
}

fn is_final(event: &Event) -> bool {
    matches!(event.op, Op::Final(..))
}

/// Lets two messages change places, wherever they are told of.
fn exchange(history: &mut History, a: &Event, b: &Event) {
    for event in history.events.iter_mut().filter(|event| event.conversation == a.conversation) {
        if matches!(event.op, Op::Invoke { .. } | Op::Refuse | Op::Read { .. }) {
            continue;
        }
        match event.client_msg_id {
            id if id == a.client_msg_id => event.client_msg_id = b.client_msg_id,
            id if id == b.client_msg_id => event.client_msg_id = a.client_msg_id,
            _ => {}
        }
    }
}

/// The time at which a message was sent for the first time, and of which pipeline it was.
fn invoked(history: &History, event: &Event) -> Option<(u64, u32)> {
    history.events.iter().find_map(|other| match other.op {
        Op::Invoke { pipeline } if other.client_msg_id == event.client_msg_id => Some((other.t_ns, pipeline)),
        _ => None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn a_history_as_it_should_be_has_no_finding(seed: u64) {
        let history = make(seed);
        let report = check(&history);
        prop_assert_eq!(report.findings.kept(), &[]);
        let invokes = history.events.iter().filter(|event| matches!(event.op, Op::Invoke { .. })).count();
        prop_assert_eq!(report.tally.sends, invokes as u64);
        prop_assert_eq!(report.tally.acked + report.tally.refused + report.tally.unknown(), report.tally.sends);
    }

    #[test]
    fn an_acknowledged_record_that_one_reader_of_one_replica_lacks_is_found(seed: u64) {
        spoilt(seed, "durability", |history, chance| {
            let acked: Vec<_> = history.events.iter().filter(|e| e.op == Op::Ack).map(|e| e.client_msg_id).collect();
            let at = pick(history, chance, |event| is_final(event) && acked.contains(&event.client_msg_id))?;
            history.events.remove(at);
            Some(())
        })?;
    }

    #[test]
    fn two_deliveries_the_wrong_way_round_are_found(seed: u64) {
        spoilt(seed, "no-gap", |history, chance| {
            let at = pick(history, chance, is_deliver)?;
            let first = history.events[at].clone();
            let next = |e: &Event| is_deliver(e) && (e.user, e.conversation) == (first.user, first.conversation);
            let other = at + 1 + history.events[at + 1..].iter().position(next)?;
            let t_ns = history.events[other].t_ns;
            let second = std::mem::replace(&mut history.events[other], Event { t_ns, ..first.clone() });
            history.events[at] = Event { t_ns: first.t_ns, ..second };
            Some(())
        })?;
    }

    #[test]
    fn a_delivery_that_comes_twice_is_found(seed: u64) {
        spoilt(seed, "no-gap", |history, chance| {
            let at = pick(history, chance, is_deliver)?;
            history.events.insert(at, history.events[at].clone());
            Some(())
        })?;
    }

    #[test]
    fn a_delivery_that_never_comes_is_found(seed: u64) {
        spoilt(seed, "no-gap", |history, chance| {
            let at = pick(history, chance, is_deliver)?;
            history.events.remove(at);
            Some(())
        })?;
    }

    #[test]
    fn a_place_that_nobody_tells_of_is_found(seed: u64) {
        spoilt(seed, "no-gap", |history, chance| {
            let at = pick(history, chance, |event| is_final(event) && is_plain(event))?;
            let (conversation, seq) = (history.events[at].conversation, history.events[at].seq_id);
            let is_last = |e: &Event| !(is_final(e) && e.conversation == conversation && e.seq_id > seq);
            if history.events.iter().all(is_last) {
                return None;
            }
            let tells = |e: &Event| !matches!(e.op, Op::Invoke { .. } | Op::Read { .. });
            history.events.retain(|e| !(tells(e) && (e.conversation, e.seq_id) == (conversation, seq)));
            Some(())
        })?;
    }

    #[test]
    fn a_read_that_does_not_know_of_what_was_acknowledged_is_found(seed: u64) {
        spoilt(seed, "fresh-reads", |history, chance| {
            let acked = |since: u64, e: &Event| {
                history.events.iter().any(|a| {
                    a.op == Op::Ack && a.conversation == e.conversation && a.t_ns < since && a.seq_id == e.seq_id
                })
            };
            let fresh = |e: &Event| matches!(e.op, Op::Read { since_ns, .. } if acked(since_ns, e));
            let at = pick(history, chance, fresh)?;
            history.events[at].seq_id.0 -= 1;
            Some(())
        })?;
    }

    #[test]
    fn a_reader_who_is_told_less_than_before_is_found(seed: u64) {
        spoilt(seed, "monotonic", |history, chance| {
            let at = pick(history, chance, |event| matches!(event.op, Op::Read { .. }) && event.seq_id.0 > 1)?;
            let mut later = history.events[at].clone();
            later.t_ns += 2;
            later.op = Op::Read { since_ns: later.t_ns - 1, replica: Replica(1) };
            later.seq_id.0 -= 1;
            history.events.insert(at + 1, later);
            Some(())
        })?;
    }

    #[test]
    fn a_delivery_to_somebody_who_has_left_is_found(seed: u64) {
        spoilt(seed, "authorization", |history, chance| {
            let group = GROUPS[chance.random_range(0..GROUPS.len())];
            let left = |e: &Event| matches!(&e.op, Op::Deliver(Some(c)) if e.conversation == group && c.left.contains(&e.user));
            let at = pick(history, chance, left)?;
            let leaver = history.events[at].user;
            let told = |e: &Event, seq| e.user == leaver && e.conversation == group && e.seq_id.0 == seq;
            let next = history.events[at].seq_id.0 + 1;
            let of_owner = |e: &Event| is_deliver(e) && e.user == OWNER && e.conversation == group && e.seq_id.0 == next;
            let leak = history.events.iter().find(|e| of_owner(e))?.clone();
            if history.events.iter().any(|e| told(e, next)) {
                return None;
            }
            history.events.push(Event { user: leaver, ..leak });
            Some(())
        })?;
    }

    #[test]
    fn a_pipeline_stored_in_another_order_is_found(seed: u64) {
        spoilt(seed, "sender-order", |history, chance| {
            let at = pick(history, chance, |e| is_final(e) && is_plain(e))?;
            let one = history.events[at].clone();
            let (_, pipeline) = invoked(history, &one)?;
            let sender = |e: &Event| history.events.iter().find(|o| o.client_msg_id == e.client_msg_id).map(|o| o.user);
            let of_it = |e: &Event| {
                is_final(e) && is_plain(e) && e.conversation == one.conversation && e.seq_id > one.seq_id
                    && sender(e) == sender(&one) && invoked(history, e).is_some_and(|(_, p)| p == pipeline)
            };
            let other = history.events.iter().find(|e| of_it(e))?.clone();
            exchange(history, &one, &other);
            Some(())
        })?;
    }

    #[test]
    fn what_was_sent_later_and_is_stored_before_is_found(seed: u64) {
        spoilt(seed, "real-time", |history, chance| {
            let at = pick(history, chance, |e| e.op == Op::Ack && invoked(history, e).is_some_and(|(_, p)| p != 0))?;
            let one = history.events[at].clone();
            let after = |e: &Event| {
                e.op == Op::Ack && e.conversation == one.conversation
                    && invoked(history, e).is_some_and(|(t, p)| p != 0 && t > one.t_ns)
            };
            let other = history.events.iter().find(|e| after(e))?.clone();
            // Their acks keep their times and their messages: only the places are exchanged.
            for event in history.events.iter_mut().filter(|e| e.conversation == one.conversation) {
                match (&event.op, event.client_msg_id) {
                    (Op::Ack, id) if id == one.client_msg_id => event.seq_id = other.seq_id,
                    (Op::Ack, id) if id == other.client_msg_id => event.seq_id = one.seq_id,
                    (Op::Deliver(_) | Op::Final(..), id) if id == one.client_msg_id => event.client_msg_id = other.client_msg_id,
                    (Op::Deliver(_) | Op::Final(..), id) if id == other.client_msg_id => event.client_msg_id = one.client_msg_id,
                    _ => {}
                }
            }
            Some(())
        })?;
    }

    #[test]
    fn a_message_at_two_places_is_found(seed: u64) {
        spoilt(seed, "uniqueness", |history, chance| {
            let at = pick(history, chance, |event| event.op == Op::Ack)?;
            let mut again = history.events[at].clone();
            again.seq_id.0 += 1;
            history.events.insert(at + 1, again);
            Some(())
        })?;
    }

    #[test]
    fn a_place_with_two_messages_is_found(seed: u64) {
        spoilt(seed, "agreement", |history, chance| {
            let at = pick(history, chance, is_plain)?;
            history.events[at].client_msg_id.0 ^= 1 << 90;
            Some(())
        })?;
    }

    #[test]
    fn a_record_that_nobody_sent_is_found(seed: u64) {
        spoilt(seed, "phantom", |history, chance| {
            let at = pick(history, chance, is_plain)?;
            let id = history.events[at].client_msg_id;
            history.events.retain(|e| !(e.client_msg_id == id && matches!(e.op, Op::Invoke { .. })));
            Some(())
        })?;
    }

    #[test]
    fn a_record_that_was_refused_is_found(seed: u64) {
        spoilt(seed, "phantom", |history, chance| {
            let at = pick(history, chance, is_plain)?;
            let refusal = Event { op: Op::Refuse, ..history.events[at].clone() };
            history.events.push(refusal);
            Some(())
        })?;
    }

    #[test]
    fn a_record_that_was_told_of_before_it_was_sent_is_found(seed: u64) {
        spoilt(seed, "phantom", |history, chance| {
            let at = pick(history, chance, is_plain)?;
            let id = history.events[at].client_msg_id;
            let invoke = history.events.iter().position(|e| e.client_msg_id == id)?;
            history.events[invoke].t_ns = history.events[at].t_ns + 1;
            Some(())
        })?;
    }

    #[test]
    fn two_replicas_that_differ_are_found(seed: u64) {
        spoilt(seed, "replicas", |history, chance| {
            let at = pick(history, chance, is_final)?;
            let (user, conversation, seq) =
                (history.events[at].user, history.events[at].conversation, history.events[at].seq_id);
            // The end of one replica's log is missing.
            let beyond = |e: &Event| (e.user, e.conversation) == (user, conversation) && e.seq_id >= seq;
            history.events.retain(|e| !(matches!(e.op, Op::Final(Replica(2), _)) && beyond(e)));
            Some(())
        })?;
    }

    #[test]
    fn a_shard_that_never_comes_back_is_found(seed: u64) {
        spoilt(seed, "liveness", |history, _| {
            let from_ns = history.faults.first()?.from_ns;
            let later: Vec<_> = history.events.iter().filter(|e| e.t_ns > from_ns && matches!(e.op, Op::Invoke { .. })).map(|e| e.client_msg_id).collect();
            if later.is_empty() {
                return None;
            }
            history.events.retain(|e| !(matches!(e.op, Op::Ack | Op::Refuse) && later.contains(&e.client_msg_id)));
            history.end_ns += 60_000_000_000;
            Some(())
        })?;
    }
}
