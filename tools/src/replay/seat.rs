//! One member's view of one conversation, checked record by record.
//!
//! What always holds: `next` only grows; everything below it this member has received or has written itself.
//!
//! A connection is not told its own messages, only that they are durable; another connection of the same user is.
//! So between two messages of others any number of own ones may or may not show.

use super::chat::Chat;

/// A member's place in a conversation.
#[derive(Debug)]
pub struct Seat {
    /// Whose.
    pub user: u32,
    /// Where.
    pub conversation: u32,
    /// First index not yet received.
    pub next: u32,
    /// Messages known to be stored: where a fill has to reach.
    pub known: u32,
    /// A history request for what is missing is on its way.
    pub filling: bool,
    /// First index this connection has not pushed yet.
    pushed: u32,
    /// The server said at attach that this conversation has news: older ones may be left to history.
    announced: bool,
}

/// How a record came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// Pushed.
    Pushed,
    /// Read from history, to fill what was missed.
    Read,
}

/// What a record is to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The next one by somebody else.
    New,
    /// One of the member's own.
    Own,
    /// One it has already, rightly sent again (another connection, or history).
    Known,
    /// One beyond what comes next; those between are to be read.
    Ahead,
    /// Pushed twice on one connection, or backwards.
    Repeated,
    /// One beyond what comes next though nothing allowed leaving some out.
    Hole,
}

impl Seat {
    /// A member who has received nothing.
    pub fn new(user: u32, conversation: u32) -> Seat {
        Seat { user, conversation, next: 0, known: 0, filling: false, pushed: 0, announced: false }
    }

    /// A new connection: the server may repeat what it cannot know to have arrived.
    pub fn reconnected(&mut self) {
        self.pushed = 0;
        self.filling = false;
        self.announced = false;
    }

    /// The server says, at attach, how many messages there are.
    pub fn announced(&mut self, messages: u32) {
        self.announced = true;
        self.known = self.known.max(messages);
    }

    /// Whether others' messages are known to be stored that this member has not received.
    pub fn is_behind(&self, chat: &Chat) -> bool {
        self.known > self.skip_own(chat, self.next, self.known)
    }

    /// Takes message `index`.
    pub fn take(&mut self, chat: &Chat, index: u32, came: Came) -> Taken {
        let own = chat.sender(self.conversation, index) == self.user;
        if came == Came::Pushed {
            if index < self.pushed {
                return Taken::Repeated;
            }
            self.pushed = index + 1;
        }
        self.known = self.known.max(index + 1);
        let expected = self.skip_own(chat, self.next, index);
        if index < expected || index < self.next {
            return if own { Taken::Own } else { Taken::Known };
        }
        if index > expected {
            return if self.announced || self.filling { Taken::Ahead } else { Taken::Hole };
        }
        self.next = index + 1;
        if own { Taken::Own } else { Taken::New }
    }

    /// The first index from `from`, and at most `to`, that somebody else wrote.
    fn skip_own(&self, chat: &Chat, from: u32, to: u32) -> u32 {
        (from..to).find(|&index| chat.sender(self.conversation, index) != self.user).unwrap_or(to.max(from))
    }
}

#[cfg(test)]
mod tests {
    use super::super::chat::tests::chat;
    use super::*;

    fn talk() -> Chat {
        chat(&[("c", "ann", "0"), ("c", "bob", "1"), ("c", "bob", "2"), ("c", "ann", "3"), ("c", "bob", "4")])
    }

    #[test]
    fn own_messages_may_show_or_not() {
        let chat = talk();
        let mut silent = Seat::new(0, 0);
        assert_eq!([1, 2, 4].map(|i| silent.take(&chat, i, Came::Pushed)), [Taken::New; 3]);
        let mut echoed = Seat::new(0, 0);
        let all = [0, 1, 2, 3, 4].map(|i| echoed.take(&chat, i, Came::Pushed));
        assert_eq!(all, [Taken::Own, Taken::New, Taken::New, Taken::Own, Taken::New]);
    }

    #[test]
    fn a_push_twice_on_one_connection_is_repeated_and_on_the_next_connection_known() {
        let chat = talk();
        let mut seat = Seat::new(0, 0);
        assert_eq!(seat.take(&chat, 1, Came::Pushed), Taken::New);
        assert_eq!(seat.take(&chat, 1, Came::Pushed), Taken::Repeated);
        seat.reconnected();
        assert_eq!(seat.take(&chat, 1, Came::Pushed), Taken::Known);
        assert_eq!(seat.take(&chat, 2, Came::Pushed), Taken::New);
        assert_eq!(seat.take(&chat, 1, Came::Pushed), Taken::Repeated);
    }

    #[test]
    fn a_hole_is_a_fault_unless_the_server_announced_news_at_attach() {
        let chat = talk();
        let mut seat = Seat::new(1, 0);
        assert_eq!(seat.take(&chat, 3, Came::Pushed), Taken::Hole);
        seat.reconnected();
        seat.announced(4);
        assert_eq!(seat.take(&chat, 3, Came::Pushed), Taken::Ahead);
        assert!(seat.is_behind(&chat));
        assert_eq!(seat.take(&chat, 0, Came::Read), Taken::New);
        assert_eq!(seat.take(&chat, 1, Came::Read), Taken::Own);
        assert_eq!(seat.take(&chat, 2, Came::Read), Taken::Own);
        assert_eq!(seat.take(&chat, 3, Came::Read), Taken::New);
        assert!(!seat.is_behind(&chat));
    }

    #[test]
    fn a_member_who_lacks_only_its_own_is_not_behind() {
        let chat = talk();
        let mut seat = Seat::new(1, 0);
        seat.take(&chat, 0, Came::Pushed);
        seat.announced(3);
        assert!(!seat.is_behind(&chat));
        seat.announced(4);
        assert!(seat.is_behind(&chat));
    }
}
