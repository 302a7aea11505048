//! Who of the announced users hears a record.
//!
//! It is kept at the *dispatcher's* position in the tail, not at what is applied: a leaver is in the audience until the
//! tail has passed the leave record. What always holds, from the index on at which a user was first announced: the seats
//! of a group are exactly the announced users whose current interval began at or before the record being dispatched.
//! Below that index a seat may be there that should not (the gateway drops what is at or below the announcement's
//! answer), and none is missing that would be needed above it.
//!
//! 1:1s have no seats: both users are in the conversation's name. So a 1:1 that opens without a membership record
//! needs no upkeep here, and most records cost two probes and nothing else.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use logstore::id::{ConnectionId, ConversationId, ConversationName, SeqId, UserId};
use smallvec::SmallVec;

use super::GatewayId;

/// A connection of an announced user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The gateway that holds it.
    pub gateway: GatewayId,
    /// The connection.
    pub connection: ConnectionId,
}

type Listeners = SmallVec<[Listener; 1]>;

/// The announced users of one shard, and the groups they are in.
#[derive(Default)]
pub(super) struct Audience {
    users: HashMap<UserId, Announced>,
    groups: HashMap<ConversationId, Vec<Seat>>,
}

#[derive(Default)]
struct Announced {
    listeners: Listeners,
    /// Groups in which the user has a seat.
    groups: Vec<ConversationId>,
}

/// An announced user in a group. Holds the listeners too, so that a record is one probe and one walk.
struct Seat {
    user: UserId,
    join: SeqId,
    listeners: Listeners,
}

impl Audience {
    /// Whether nobody is announced.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Adds a connection. `groups` are the groups in which the user is a member as of the announcement, with the record
    /// that began each membership; they count only if the user was not announced before: the seats of one who was are
    /// kept by the tail, and what is applied already may be ahead of what his other connections have been sent.
    pub fn announce(
        &mut self,
        listener: Listener,
        user: UserId,
        groups: impl Iterator<Item = (ConversationId, SeqId)>,
    ) {
        match self.users.entry(user) {
            Entry::Occupied(mut known) => {
                add_to(&mut known.get_mut().listeners, listener);
                for group in &known.get().groups {
                    if let Some(seat) = self.groups.get_mut(group).and_then(|seats| seat_of(seats, user)) {
                        add_to(&mut seat.listeners, listener);
                    }
                }
            }
            Entry::Vacant(new) => {
                let announced = new.insert(Announced { listeners: SmallVec::from([listener]), groups: Vec::new() });
                for (group, join) in groups {
                    announced.groups.push(group);
                    let seat = Seat { user, join, listeners: announced.listeners.clone() };
                    self.groups.entry(group).or_default().push(seat);
                }
            }
        }
    }

    /// Removes a connection, and the user with the last one. An unknown connection changes nothing.
    pub fn detach(&mut self, connection: ConnectionId, user: UserId) {
        let Some(announced) = self.users.get_mut(&user) else { return };
        announced.listeners.retain(|l| l.connection != connection);
        if announced.listeners.is_empty() {
            let groups = self.users.remove(&user).map_or_else(Vec::new, |a| a.groups);
            groups.into_iter().for_each(|group| self.remove_seat(group, user));
            return;
        }
        for group in &announced.groups {
            if let Some(seat) = self.groups.get_mut(group).and_then(|seats| seat_of(seats, user)) {
                seat.listeners.retain(|l| l.connection != connection);
            }
        }
    }

    /// Seats a user whom the record at `seq` made a member; called before that record is dispatched.
    pub fn join(&mut self, group: ConversationId, user: UserId, seq: SeqId) {
        let Some(announced) = self.users.get_mut(&user) else { return };
        let seats = self.groups.entry(group).or_default();
        // A seat that is there already began here or later: this record was applied before the announcement.
        if seat_of(seats, user).is_none() {
            seats.push(Seat { user, join: seq, listeners: announced.listeners.clone() });
            announced.groups.push(group);
        }
    }

    /// Unseats a user whom a record made leave; called after that record is dispatched. If the user came back
    /// before the announcement, the record of that is still to come and seats him again.
    pub fn leave(&mut self, group: ConversationId, user: UserId) {
        #[cfg(feature = "plants")]
        if logstore::plants::is_planted(logstore::plants::Plant::IgnoreLeave) {
            return;
        }
        let Some(announced) = self.users.get_mut(&user) else { return };
        announced.groups.retain(|g| *g != group);
        self.remove_seat(group, user);
    }

    /// Calls `hear` for every listener of a record.
    pub fn each(&self, conversation: ConversationId, seq: SeqId, mut hear: impl FnMut(Listener)) {
        match conversation.name() {
            Some(ConversationName::Direct(low, high)) => {
                self.each_of(low, &mut hear);
                if low != high {
                    self.each_of(high, &mut hear);
                }
            }
            Some(ConversationName::Group(_)) => {
                let seats = self.groups.get(&conversation).map_or(&[][..], Vec::as_slice);
                let heard = seats.iter().filter(|seat| seat.join <= seq);
                heard.flat_map(|seat| &seat.listeners).copied().for_each(hear);
            }
            Some(ConversationName::System(user)) => self.each_of(user, &mut hear),
            None => {}
        }
    }

    /// Calls `hear` for every connection of a user.
    pub fn each_of(&self, user: UserId, hear: &mut impl FnMut(Listener)) {
        if let Some(announced) = self.users.get(&user) {
            announced.listeners.iter().copied().for_each(hear);
        }
    }

    fn remove_seat(&mut self, group: ConversationId, user: UserId) {
        let Entry::Occupied(mut seats) = self.groups.entry(group) else { return };
        if let Some(at) = seats.get().iter().position(|seat| seat.user == user) {
            seats.get_mut().swap_remove(at);
        }
        if seats.get().is_empty() {
            seats.remove();
        }
    }
}

fn add_to(listeners: &mut Listeners, listener: Listener) {
    if !listeners.contains(&listener) {
        listeners.push(listener);
    }
}

fn seat_of(seats: &mut [Seat], user: UserId) -> Option<&mut Seat> {
    seats.iter_mut().find(|seat| seat.user == user)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: ConversationId = ConversationId(2 << 126 | 5);
    const ANN: UserId = UserId(1);
    const BEN: UserId = UserId(2);

    fn listener(connection: u64) -> Listener {
        Listener { gateway: GatewayId(1), connection: ConnectionId(connection) }
    }

    fn heard(audience: &Audience, conversation: ConversationId, seq: u64) -> Vec<u64> {
        let mut heard = Vec::new();
        audience.each(conversation, SeqId(seq), |l| heard.push(l.connection.0));
        heard.sort_unstable();
        heard
    }

    #[test]
    fn a_direct_reaches_every_connection_of_both_without_having_been_named() {
        let mut audience = Audience::default();
        audience.announce(listener(1), ANN, std::iter::empty());
        audience.announce(listener(2), BEN, std::iter::empty());
        audience.announce(listener(3), BEN, std::iter::empty());
        assert_eq!(heard(&audience, ConversationId::direct(ANN, BEN), 1), vec![1, 2, 3]);
        assert_eq!(heard(&audience, ConversationId::direct(ANN, ANN), 1), vec![1]);
        assert_eq!(heard(&audience, ConversationId::direct(BEN, UserId(9)), 1), vec![2, 3]);
    }

    #[test]
    fn the_leave_record_is_the_last_thing_a_leaver_hears() {
        let mut audience = Audience::default();
        audience.announce(listener(1), ANN, [(GROUP, SeqId(1))].into_iter());
        assert_eq!(heard(&audience, GROUP, 4), vec![1]);
        audience.leave(GROUP, ANN);
        assert_eq!(heard(&audience, GROUP, 5), Vec::<u64>::new());
        assert!(audience.groups.is_empty() && audience.users[&ANN].groups.is_empty());
    }

    #[test]
    fn an_announcement_ahead_of_the_tail_does_not_unseat_a_connection_that_is_behind() {
        let mut audience = Audience::default();
        audience.announce(listener(1), ANN, [(GROUP, SeqId(1))].into_iter());
        // The leave record is applied but not dispatched when a second device comes.
        audience.announce(listener(2), ANN, std::iter::empty());
        assert_eq!(heard(&audience, GROUP, 4), vec![1, 2]);
    }

    #[test]
    fn records_from_before_an_announcement_change_nothing_that_it_knew() {
        let mut audience = Audience::default();
        // As of the announcement: joined at 1, left at 4, back since 8.
        audience.announce(listener(1), ANN, [(GROUP, SeqId(8))].into_iter());
        audience.join(GROUP, ANN, SeqId(1));
        audience.leave(GROUP, ANN);
        audience.join(GROUP, ANN, SeqId(8));
        assert_eq!(heard(&audience, GROUP, 8), vec![1]);
        assert_eq!(heard(&audience, GROUP, 7), Vec::<u64>::new());
    }

    #[test]
    fn a_late_detach_takes_its_own_connection_only() {
        let mut audience = Audience::default();
        audience.announce(listener(1), ANN, [(GROUP, SeqId(1))].into_iter());
        audience.announce(listener(2), ANN, [(GROUP, SeqId(1))].into_iter());
        audience.detach(ConnectionId(1), ANN);
        audience.detach(ConnectionId(1), ANN);
        assert_eq!(heard(&audience, GROUP, 2), vec![2]);
        audience.detach(ConnectionId(2), ANN);
        assert!(audience.is_empty() && audience.groups.is_empty());
    }
}
