//! Imports that are given up before their end: nothing of them is seen ever, and no place is given out twice.

use logstore::id::{ConversationId, LogIndex, Ordinal, SeqId, ShardId, TimeMs, UserId};
use proptest::prelude::*;
use sequencer::state::{Brought, Look, MemberRow};
use sequencer::{Command, Effect, Import, ImportId, Outcome, Refusal};

use crate::imports::{IMPORT, THEN, all, begin, end, group, is_seen, members, put, step};
use crate::log::{BEGIN, Log, create, id_at, refused, send};

fn give_up(conversation: ConversationId) -> Command {
    step(Import::GiveUp { conversation, import: IMPORT })
}

fn blank(users: &[u64]) -> Command {
    let members = users.iter().map(|user| (UserId(*user), MemberRow::blank())).collect();
    step(Import::Members { conversation: group(), import: IMPORT, members })
}

fn direct() -> ConversationId {
    ConversationId::direct(UserId(10), UserId(11))
}

/// What both homes say of a 1:1 that one of its users opens.
fn opened(first: u64) -> Command {
    let grant = |home_of| Effect::GrantDirect {
        conversation: direct(),
        home_of: UserId(home_of),
        low_may_send: true,
        high_may_send: true,
        exists: true,
    };
    Command::Effects { from: ShardId(9), incarnation: 1, first, effects: vec![grant(10), grant(11)] }
}

fn conversations_of(log: &Log, user: u64) -> usize {
    Look::new(&log.state, &mut Brought::default()).conversations_of(UserId(user)).len()
}

#[test]
fn nothing_is_seen_of_a_group_whose_import_is_given_up_and_its_places_stay_used() {
    let mut log = Log::new();
    log.apply(&all(group())[..5]);
    assert_eq!(log.one(give_up(group())), refused(Refusal::ImportMisfit), "its members are still there");
    assert_eq!(log.one(blank(&[10, 11])), Outcome::Done);
    assert_eq!(log.one(give_up(group())), Outcome::Done);
    let row = log.state.conversation(group()).unwrap();
    assert_eq!((row.last_seq, row.floor().before), (SeqId(2), SeqId(3)));
    assert_eq!(row.floor().trimmed_at, LogIndex(log.entries.len() as u64), "files follow");
    assert!(row.group.is_none() && row.import().is_none());
    assert!(!is_seen(&log, group()));
    assert_eq!((log.state.members(group()).count(), conversations_of(&log, 10)), (0, 0));
    let again = [begin(group()), members(group(), &[10]), put(group(), 3), end(group(), 1)];
    let refusals = [Refusal::NotEmpty, Refusal::ImportMisfit, Refusal::ImportMisfit, Refusal::ImportMisfit];
    for (command, refusal) in again.into_iter().zip(refusals) {
        assert_eq!(log.one(command), refused(refusal));
    }
    assert_eq!(log.one(create(7, 10, &[], 1)), refused(Refusal::NoSuchConversation));
    assert_eq!(log.one(send(group(), 10, id_at(BEGIN, 9), "anybody?")), refused(Refusal::NotMember));
    let trim = Command::Trim { conversation: group(), before: SeqId(2), ordinal: Ordinal(1), time: TimeMs(THEN) };
    assert_eq!(log.one(trim), refused(Refusal::NoSuchConversation));
    assert_eq!(log.one(give_up(group())), Outcome::Done, "again");
    assert_eq!(log.replayed().digest(), log.state.digest());
}

#[test]
fn what_had_no_record_yet_is_imported_anew_after_it_was_given_up() {
    for conversation in [group(), direct()] {
        let mut log = Log::new();
        log.apply(&all(conversation)[..3]);
        if conversation == group() {
            log.one(blank(&[10, 11]));
        }
        assert_eq!(log.one(give_up(conversation)), Outcome::Done);
        assert!(log.state.conversation(conversation).unwrap().upkeep.is_none());
        assert_eq!(conversations_of(&log, 10), 0);
        let applied = log.apply(&all(conversation));
        assert!(applied.outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{:?}", applied.outcomes);
        assert!(is_seen(&log, conversation));
        assert_eq!((log.state.members(conversation).count(), conversations_of(&log, 10)), (2, 1));
        assert_eq!(log.state.conversation_count(), 1);
        assert_eq!(log.replayed().digest(), log.state.digest());
    }
}

#[test]
fn a_direct_that_was_open_is_open_again_and_goes_on_behind_the_places_that_are_used() {
    let mut log = Log::new();
    log.one(opened(1));
    log.apply(&all(direct())[..5]);
    assert_eq!(log.one(send(direct(), 10, id_at(BEGIN, 1), "now")), refused(Refusal::Importing));
    let applied = log.apply(&[give_up(direct())]);
    assert!(applied.opened, "who is connected learns of it");
    assert!(is_seen(&log, direct()));
    let row = log.state.member(direct(), UserId(11)).unwrap();
    assert_eq!((row.visible_from, row.delivered, row.read), (SeqId(3), SeqId(0), SeqId(0)), "no cursor of the import");
    assert_eq!(log.stored(send(direct(), 10, id_at(BEGIN, 1), "now")).seq, SeqId(3));
    assert_eq!((log.state.members(direct()).count(), conversations_of(&log, 10)), (2, 1));
    assert_eq!(log.replayed().digest(), log.state.digest());
}

#[test]
fn a_direct_that_nobody_had_opened_is_open_to_nobody_until_both_homes_say_so() {
    let mut log = Log::new();
    log.apply(&all(direct())[..5]);
    log.one(give_up(direct()));
    assert_eq!(log.one(send(direct(), 10, id_at(BEGIN, 1), "now")), refused(Refusal::NoSuchConversation));
    assert_eq!((log.state.members(direct()).count(), conversations_of(&log, 10)), (0, 0));
    log.one(opened(1));
    assert_eq!(log.stored(send(direct(), 10, id_at(BEGIN, 1), "now")).seq, SeqId(3));
    assert_eq!((log.state.members(direct()).count(), conversations_of(&log, 10)), (2, 1));
    assert_eq!(log.replayed().digest(), log.state.digest());
}

#[test]
fn a_direct_that_is_opened_while_it_is_imported_is_open_whatever_becomes_of_the_import() {
    for is_given_up in [true, false] {
        let mut log = Log::new();
        let steps = all(direct());
        log.apply(&steps[..4]);
        log.one(opened(1));
        assert!(!is_seen(&log, direct()));
        let rest = if is_given_up { vec![give_up(direct())] } else { steps[4..].to_vec() };
        log.apply(&rest);
        let expected = if is_given_up { 2 } else { 4 };
        assert_eq!(log.stored(send(direct(), 11, id_at(BEGIN, 1), "now")).seq, SeqId(expected));
        assert_eq!(log.state.members(direct()).count(), 2);
    }
}

#[test]
fn only_what_is_under_way_is_given_up_and_only_by_its_own_import() {
    let mut log = Log::new();
    assert_eq!(log.one(give_up(group())), Outcome::Done, "there is nothing");
    log.apply(&all(group())[..5]);
    let other = step(Import::GiveUp { conversation: group(), import: ImportId(78) });
    assert_eq!(log.one(other), refused(Refusal::Importing));
    log.apply(&all(group()));
    assert!(is_seen(&log, group()));
    assert_eq!(log.one(give_up(group())), refused(Refusal::NotEmpty));
    assert!(is_seen(&log, group()));
    let own = log.group(3, &[10, 11]);
    assert_eq!(log.one(give_up(own)), Outcome::Done, "it is of no import");
    assert!(is_seen(&log, own));
}

proptest! {
    /// However far the import came, and however often it is cut off and gone on with: once it is given up nobody sees anything of it,
    /// its rows are made again by the same log, and what remains can be given up again.
    #[test]
    fn wherever_an_import_is_given_up_nothing_of_it_is_seen(
        reached in 0usize..6,
        repeated_from in 0usize..6,
        seals in prop::collection::vec(any::<bool>(), 6),
        is_direct in any::<bool>(),
    ) {
        let conversation = if is_direct { direct() } else { group() };
        let steps = all(conversation);
        let mut log = Log::new();
        for (step, seal) in steps[..reached].iter().zip(seals) {
            log.apply(std::slice::from_ref(step));
            if seal {
                log.seal_after(1000);
            }
        }
        log.apply(&steps[repeated_from.min(reached)..reached]);
        if !is_direct && reached > 1 {
            log.one(blank(&[10, 11]));
        }
        prop_assert_eq!(log.one(give_up(conversation)), Outcome::Done);
        prop_assert!(!is_seen(&log, conversation) || is_direct);
        prop_assert_eq!((log.state.members(conversation).count(), conversations_of(&log, 10)), (0, 0));
        let records = reached.saturating_sub(3) as u64;
        let last = log.state.conversation(conversation).map_or(SeqId(0), |row| row.last_seq);
        prop_assert_eq!(last, SeqId(records));
        prop_assert_eq!(log.one(give_up(conversation)), Outcome::Done);
        let anew = log.one(begin(conversation));
        prop_assert_eq!(anew, if records > 0 { refused(Refusal::NotEmpty) } else { Outcome::Done });
        prop_assert_eq!(log.replayed().digest(), log.state.digest());
    }
}
