//! Names, accounts, sessions.

use logstore::id::{ConversationId, TimeMs, UserId};
use sequencer::state::{NameRow, UserRow, name_home};
use sequencer::{Command, Outcome, Refusal};

use crate::log::{BEGIN, Cluster, Log, claim, refused};

#[test]
fn a_claimed_name_becomes_an_account_at_its_home() {
    let mut cluster = Cluster::new(4);
    let user = cluster.account("ada");
    let row = cluster.home(user).state.user(user).unwrap();
    assert_eq!((row.name.as_str(), row.password_phc.as_str()), ("ada", "phc of ada"));
    let again = cluster.at(name_home("ada")).one(claim("ada", 1));
    assert_eq!(again, Outcome::Claimed { user, confirmed: true });
    assert_eq!(cluster.at(name_home("ada")).one(claim("ada", 2)), refused(Refusal::NameTaken));
    let elsewhere = cluster.logs.iter_mut().find(|log| !log.state.owns(name_home("ada"))).unwrap();
    assert_eq!(elsewhere.one(claim("ada", 1)), refused(Refusal::WrongShard));
}

#[test]
fn accounts_never_share_an_id() {
    let mut log = Log::new();
    let mut ids: Vec<UserId> = (0..2000)
        .map(|n| match log.one(claim(&format!("name {n}"), n)) {
            Outcome::Claimed { user, .. } => user,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(ids.iter().all(|user| (1..ConversationId::ID_LIMIT).contains(&user.0)));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2000);
}

#[test]
fn a_claim_without_account_ends_after_ten_minutes() {
    let mut log = Log::new();
    let Outcome::Claimed { user: first, .. } = log.one(claim("ada", 1)) else { panic!("claimed") };
    log.now += NameRow::CLAIM_MS;
    assert_eq!(log.one(claim("ada", 2)), refused(Refusal::NameTaken));
    log.now += 1;
    let Outcome::Claimed { user: second, confirmed: false } = log.one(claim("ada", 2)) else { panic!("claimed") };
    assert_ne!(first, second);
    assert_eq!(log.one(claim("ada", 1)), refused(Refusal::NameTaken));
}

fn open(user: UserId, session: u64, secret: u8, expires: u64) -> Command {
    Command::OpenSession { user, session, refresh_hash: [secret; 32], expires: TimeMs(expires) }
}

fn rotate(user: UserId, session: u64, presented: u8, next: u8) -> Command {
    let expires = TimeMs(BEGIN + 1_000_000);
    Command::RotateSession { user, session, presented: [presented; 32], next: [next; 32], expires }
}

#[test]
fn a_secret_used_twice_ends_the_session_for_ever() {
    let mut cluster = Cluster::new(1);
    let user = cluster.account("ada");
    let log = &mut cluster.logs[0];
    let over = refused(Refusal::SessionOver);
    assert_eq!(log.one(open(user, 1, 10, BEGIN + 1000)), Outcome::Session);
    assert_eq!(log.one(rotate(user, 1, 99, 11)), over, "a wrong secret ends nothing");
    assert_eq!(log.one(rotate(user, 1, 10, 11)), Outcome::Session);
    assert_eq!(log.one(rotate(user, 1, 10, 11)), Outcome::Session, "the same exchange proposed again");
    assert_eq!(log.one(rotate(user, 1, 11, 12)), Outcome::Session);
    assert_eq!(log.one(rotate(user, 1, 11, 66)), over, "a thief, or the one stolen from");
    assert_eq!(log.one(rotate(user, 1, 12, 13)), over, "now over for both");
    assert_eq!(log.one(rotate(user, 2, 12, 13)), over);
    assert_eq!(log.one(rotate(UserId(5), 1, 12, 13)), refused(Refusal::NoSuchUser));
    assert_eq!(log.one(open(UserId(5), 1, 12, BEGIN)), refused(Refusal::NoSuchUser));
}

#[test]
fn a_session_ends_at_its_time() {
    let mut cluster = Cluster::new(1);
    let user = cluster.account("ada");
    let log = &mut cluster.logs[0];
    log.one(open(user, 1, 10, BEGIN + 1000));
    log.now += 1000;
    assert_eq!(log.one(rotate(user, 1, 10, 11)), refused(Refusal::SessionOver));
    assert!(log.state.user(user).unwrap().sessions.is_empty());
}

#[test]
fn the_oldest_session_gives_way_and_a_renewed_one_is_the_newest() {
    let mut cluster = Cluster::new(1);
    let user = cluster.account("ada");
    let log = &mut cluster.logs[0];
    for session in 0..UserRow::SESSIONS_MAX as u64 {
        log.one(open(user, session, 1, BEGIN + 1000));
    }
    log.one(open(user, 0, 2, BEGIN + 1000));
    log.one(open(user, 100, 1, BEGIN + 1000));
    let sessions: Vec<u64> = log.state.user(user).unwrap().sessions.iter().map(|row| row.session).collect();
    let mut expected: Vec<u64> = (2..UserRow::SESSIONS_MAX as u64).collect();
    expected.extend([0, 100]);
    assert_eq!(sessions, expected);
}
