//! Opening 1:1s over several shards.

use logstore::id::{ConversationId, SeqId, UserId};
use sequencer::state::{DirectRow, Interval, Peer};
use sequencer::{Command, Effect, Outcome, Refusal};

use crate::log::{BEGIN, Cluster, id_at, refused, send};

fn open(initiator: UserId, peer: UserId) -> Command {
    Command::OpenDirect { initiator, peer }
}

#[test]
fn a_direct_conversation_opens_when_both_homes_have_spoken() {
    let mut cluster = Cluster::new(4);
    let (a, b) = (cluster.account("ada"), cluster.account("bob"));
    let conversation = ConversationId::direct(a, b);
    assert_eq!(cluster.home(a).one(open(a, b)), Outcome::Done);
    let message = send(conversation, a.0, id_at(BEGIN, 1), "x");
    assert_eq!(cluster.at(conversation).one(message.clone()), refused(Refusal::NoSuchConversation));
    while cluster.at(conversation).state.direct_state(conversation).is_none_or(|row| !row.is_open()) {
        assert!(cluster.at(conversation).state.member(conversation, a).is_none());
        assert!(cluster.pump_one());
    }
    cluster.settle();
    let log = cluster.at(conversation);
    assert_eq!(log.state.direct_state(conversation), Some(DirectRow { heard: 3, exists: 3, low: 3, high: 3 }));
    let mut both = [a, b];
    both.sort();
    assert_eq!(log.state.members(conversation).map(|(user, _)| user).collect::<Vec<_>>(), both);
    for user in both {
        let row = log.state.member(conversation, user).unwrap();
        assert_eq!(&row.intervals[..], [Interval { join: SeqId(1), end: None }]);
        assert!(log.state.conversations_of(user).any(|(id, _)| id == conversation));
    }
    assert_eq!(log.stored(message).seq, SeqId(1));
    let intruder = send(conversation, 5, id_at(BEGIN, 2), "x");
    assert_eq!(log.one(intruder), refused(Refusal::NotMember));
}

#[test]
fn opening_again_from_either_side_emits_nothing() {
    let mut cluster = Cluster::new(4);
    let (a, b) = (cluster.account("ada"), cluster.account("bob"));
    cluster.home(a).one(open(a, b));
    cluster.settle();
    for (from, to) in [(a, b), (b, a)] {
        let applied = cluster.home(from).apply(&[open(from, to)]);
        assert_eq!((applied.outcomes, applied.outbox_changed), (vec![Outcome::Done], false));
    }
    assert_eq!(cluster.home(a).state.relation(a, b).unwrap().peer, Peer::Known);
    assert_eq!(cluster.home(b).state.relation(b, a).unwrap().peer, Peer::Known);
}

#[test]
fn both_may_open_at_once() {
    let mut cluster = Cluster::new(4);
    let (a, b) = (cluster.account("ada"), cluster.account("bob"));
    cluster.home(a).one(open(a, b));
    cluster.home(b).one(open(b, a));
    cluster.settle();
    let conversation = ConversationId::direct(a, b);
    assert!(cluster.at(conversation).state.direct_state(conversation).unwrap().is_open());
    assert_eq!(cluster.at(conversation).state.members(conversation).count(), 2);
}

#[test]
fn a_conversation_with_nobody_says_so_and_may_be_asked_for_again() {
    let mut cluster = Cluster::new(4);
    let a = cluster.account("ada");
    let nobody = UserId(4711);
    let conversation = ConversationId::direct(a, nobody);
    cluster.home(a).one(open(a, nobody));
    cluster.settle();
    let row = cluster.at(conversation).state.direct_state(conversation).unwrap();
    assert_eq!((row.heard, row.is_open()), (3, false));
    assert_eq!(row.exists.count_ones(), 1);
    assert_eq!(cluster.home(a).state.relation(a, nobody).unwrap().peer, Peer::Unknown);

    let seed = sequencer::AccountSeed::default();
    let effects = vec![Effect::CreateAccount { user: nobody, name: "late".into(), seed }];
    let from = logstore::id::ShardId(77);
    cluster.home(nobody).one(Command::Effects { from, incarnation: 1, first: 1, effects });
    cluster.settle();
    cluster.home(a).one(open(a, nobody));
    cluster.settle();
    assert!(cluster.at(conversation).state.direct_state(conversation).unwrap().is_open());
    assert_eq!(cluster.home(a).state.relation(a, nobody).unwrap().peer, Peer::Known);
}

#[test]
fn notes_to_self_have_one_member_and_one_home() {
    let mut cluster = Cluster::new(4);
    let a = cluster.account("ada");
    cluster.home(a).one(open(a, a));
    cluster.settle();
    let conversation = ConversationId::direct(a, a);
    let log = cluster.at(conversation);
    assert_eq!(log.state.members(conversation).count(), 1);
    assert_eq!(log.stored(send(conversation, a.0, id_at(BEGIN, 1), "x")).seq, SeqId(1));
}

#[test]
fn only_an_account_opens_conversations_and_only_at_its_home() {
    let mut cluster = Cluster::new(4);
    let a = cluster.account("ada");
    let stranger = UserId(99);
    assert_eq!(cluster.home(stranger).one(open(stranger, a)), refused(Refusal::NoSuchUser));
    for peer in [UserId(0), UserId(ConversationId::ID_LIMIT)] {
        assert_eq!(cluster.home(a).one(open(a, peer)), refused(Refusal::NoSuchUser));
    }
    let elsewhere = cluster.logs.iter_mut().find(|log| !log.state.owns(ConversationId::system(a))).unwrap();
    assert_eq!(elsewhere.one(open(a, stranger)), refused(Refusal::WrongShard));
}

#[test]
fn one_home_may_take_away_what_both_have_granted() {
    let mut cluster = Cluster::new(1);
    let (a, b) = (cluster.account("ada"), cluster.account("bob"));
    cluster.home(a).one(open(a, b));
    cluster.settle();
    let conversation = ConversationId::direct(a, b);
    let (low, high) = (a.min(b), a.max(b));
    let block =
        Effect::GrantDirect { conversation, home_of: low, low_may_send: true, high_may_send: false, exists: true };
    let from = logstore::id::ShardId(77);
    let log = &mut cluster.logs[0];
    log.one(Command::Effects { from, incarnation: 1, first: 1, effects: vec![block] });
    assert_eq!(log.one(send(conversation, high.0, id_at(BEGIN, 1), "x")), refused(Refusal::NotAllowed));
    assert_eq!(log.stored(send(conversation, low.0, id_at(BEGIN, 2), "x")).seq, SeqId(1));
    assert_eq!(log.state.members(conversation).count(), 2);
}
