//! Outbox and inbox: the traces O1-O3 of the model, and what keeps an effect from being lost or done twice.

use logstore::id::{ShardId, UserId};
use sequencer::state::{InboxRow, OutboxRow};
use sequencer::{AccountSeed, Command, Effect, Outcome, Refusal};

use crate::log::{Log, claim, refused};

fn create(n: u64) -> Effect {
    Effect::CreateAccount { user: UserId(n), name: format!("u{n}"), seed: AccountSeed::default() }
}

fn effects(incarnation: u64, first: u64, ids: &[u64]) -> Command {
    let effects = ids.iter().map(|n| create(*n)).collect();
    Command::Effects { from: ShardId(9), incarnation, first, effects }
}

fn exists(log: &Log, ids: &[u64]) -> Vec<bool> {
    ids.iter().map(|n| log.state.user(UserId(*n)).is_some()).collect()
}

#[test]
fn effects_are_applied_once_in_order_and_gaps_are_refused() {
    let mut log = Log::new();
    assert_eq!(log.one(effects(1, 2, &[2])), refused(Refusal::EffectGap));
    assert_eq!(log.one(effects(1, 0, &[2])), refused(Refusal::EffectGap));
    assert_eq!(log.one(effects(1, 1, &[1, 2])), Outcome::Effects { last: 2 });
    assert_eq!(log.one(effects(1, 1, &[8, 9])), Outcome::Effects { last: 2 }, "numbers applied before are ignored");
    assert_eq!(log.one(effects(1, 2, &[9, 3])), Outcome::Effects { last: 3 }, "the new part of a batch is applied");
    assert_eq!(log.one(effects(1, 5, &[5])), refused(Refusal::EffectGap));
    assert_eq!(exists(&log, &[1, 2, 3, 5, 8, 9]), [true, true, true, false, false, false]);
    assert_eq!(log.one(effects(1, 2, &[])), Outcome::Effects { last: 3 });
}

#[test]
fn a_newer_incarnation_numbers_anew_and_an_older_one_is_dropped() {
    let mut log = Log::new();
    log.one(effects(5, 1, &[1, 2, 3]));
    assert_eq!(log.one(effects(6, 2, &[4])), refused(Refusal::EffectGap));
    assert_eq!(log.state.inbox(ShardId(9)), Some(InboxRow { incarnation: 5, last: 3 }));
    assert_eq!(log.one(effects(6, 1, &[4])), Outcome::Effects { last: 1 });
    assert_eq!(log.one(effects(5, 4, &[5])), Outcome::Effects { last: 0 });
    assert_eq!(exists(&log, &[4, 5]), [true, false]);
}

#[test]
fn the_outbox_loses_effects_only_to_an_acknowledgement_of_its_own_incarnation() {
    let mut log = Log::new();
    for n in 0..3 {
        log.one(claim(&format!("name {n}"), n));
    }
    let to = ShardId(1);
    assert_eq!(log.state.outbox_targets(), [to], "this shard is a target like any other");
    let first_and_len =
        |log: &Log| log.state.outbox(to, 99).map(|(incarnation, first, e)| (incarnation, first, e.len()));
    assert_eq!(first_and_len(&log), Some((1, 1, 3)));
    let ack = |incarnation, upto| Command::AckEffects { to, incarnation, upto };
    assert!(!log.apply(&[ack(0, 3), ack(2, 3), ack(1, 0)]).outbox_changed);
    assert_eq!(first_and_len(&log), Some((1, 1, 3)));
    assert!(log.apply(&[ack(1, 2)]).outbox_changed);
    assert_eq!(first_and_len(&log), Some((1, 3, 1)));
    log.one(ack(1, 1));
    assert_eq!(first_and_len(&log), Some((1, 3, 1)));
    log.one(ack(1, 99));
    assert_eq!(first_and_len(&log), None);
    log.one(claim("later", 9));
    assert_eq!(first_and_len(&log), Some((1, 4, 1)), "numbers go on");
}

#[test]
fn a_full_outbox_refuses_client_commands_but_never_effects() {
    let mut log = Log::new();
    let batch = |first: u64| {
        let ids: Vec<u64> = (first..first + 10_000).collect();
        Command::Effects { from: ShardId(9), incarnation: 1, first, effects: ids.iter().map(|n| create(*n)).collect() }
    };
    for n in 0..=OutboxRow::EFFECTS_MAX as u64 / 10_000 {
        assert_eq!(log.one(batch(n * 10_000 + 1)), Outcome::Effects { last: (n + 1) * 10_000 });
    }
    assert_eq!(log.one(claim("somebody", 1)), refused(Refusal::LimitReached));
    assert!(log.state.name("somebody").is_none());
    assert_eq!(log.one(effects(1, 110_001, &[200_000])), Outcome::Effects { last: 110_001 });
}
