//! What a client does next: a choice by chance, without IO.

use logstore::id::{ConversationId, UserId};
use rand::RngExt;
use rand::rngs::SmallRng;

use super::stage::Place;

/// Messages of one burst, at most.
pub const BURST_MAX: usize = 8;
/// Messages that a choice sends in the mean: 8 of 10 choices send 4.5.
pub const MESSAGES_A_CHOICE: f64 = 3.6;

/// A choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// So many messages, one behind the other, without waiting for answers.
    Send(ConversationId, usize),
    /// Ask how far a conversation goes.
    Read(ConversationId),
    /// Take somebody into a group, or out of it.
    Change(ConversationId, Who),
    /// Close the connection, whatever is on its way.
    Cut,
    /// Forget everything but how far one has come, and begin anew.
    Die,
}

/// Whose membership changes, how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Is added by the owner.
    Add(UserId),
    /// Is removed by the owner.
    Remove(UserId),
    /// Goes by themselves.
    Leave,
}

/// Chooses for somebody who may be in these places; where they are not `inside` they seldom try.
pub fn choose(chance: &mut SmallRng, user: UserId, places: &[Place], inside: impl Fn(ConversationId) -> bool) -> Act {
    let mut place = &places[chance.random_range(0..places.len())];
    if place.owner.is_some() && !inside(place.conversation) && chance.random_range(0..10) > 0 {
        // Of 1:1s, which come last, everybody has one.
        place = &places[places.len() - 1];
    }
    let conversation = place.conversation;
    match chance.random_range(0..1000) {
        0..800 => Act::Send(conversation, chance.random_range(1..=BURST_MAX)),
        800..950 => Act::Read(conversation),
        950..975 => change(chance, user, place).map_or(Act::Read(conversation), |who| Act::Change(conversation, who)),
        975..990 => Act::Cut,
        _ => Act::Die,
    }
}

fn change(chance: &mut SmallRng, user: UserId, place: &Place) -> Option<Who> {
    let owner = place.owner?;
    if user != owner {
        return Some(Who::Leave);
    }
    let other = place.people[chance.random_range(0..place.people.len())];
    // As many as leave have to be added, and more: an owner is one of many.
    match chance.random_range(0..4) {
        _ if other == owner => None,
        0 => Some(Who::Remove(other)),
        _ => Some(Who::Add(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn an_owner_never_goes_and_a_direct_never_changes() {
        let place = |owner, number| Place {
            conversation: ConversationId::group(number),
            owner,
            people: [1, 2, 3].map(UserId).to_vec(),
        };
        let places = [place(Some(UserId(1)), 1), place(Some(UserId(2)), 2), place(None, 3)];
        let mut chance = SmallRng::seed_from_u64(5);
        let acts: Vec<Act> = (0..20_000).map(|_| choose(&mut chance, UserId(1), &places, |_| true)).collect();
        let [own, other, direct] = [1, 2, 3].map(ConversationId::group);
        assert!(!acts.contains(&Act::Change(own, Who::Leave)) && acts.contains(&Act::Change(other, Who::Leave)));
        assert!(!acts.iter().any(|act| matches!(act, Act::Change(at, _) if *at == direct)));
        let own_changes = [Who::Add(UserId(2)), Who::Remove(UserId(3))].map(|who| Act::Change(own, who));
        assert!(own_changes.iter().all(|act| acts.contains(act)));
        assert!(!acts.contains(&Act::Change(own, Who::Remove(UserId(1)))));
        let sent: usize = acts.iter().map(|act| if let Act::Send(_, count) = act { *count } else { 0 }).sum();
        assert!((sent as f64 / acts.len() as f64 - MESSAGES_A_CHOICE).abs() < 0.1);
    }
}
