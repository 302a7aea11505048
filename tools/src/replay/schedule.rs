//! Which messages may go out, given what each sender has received.
//!
//! A conversation is one sequence: message i + 1 follows message i once its sender has received i, or has
//! written i itself. What always holds: a message is released once, and after all those before it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::time::Duration;

use super::chat::Chat;

/// What of each conversation has been released.
pub struct Schedule {
    /// Per conversation: the first index not yet released.
    next: Vec<u32>,
}

impl Schedule {
    /// Nothing released yet.
    pub fn new(chat: &Chat) -> Schedule {
        Schedule { next: vec![0; chat.conversations.len()] }
    }

    /// The first run of a conversation, which waits for nobody.
    pub fn begin(&mut self, chat: &Chat, conversation: u32) -> Range<u32> {
        if self.next[conversation as usize] == 0 { self.release_run(chat, conversation) } else { 0..0 }
    }

    /// `user` has received message `index`: the indexes that releases, all by `user`.
    pub fn received(&mut self, chat: &Chat, conversation: u32, user: u32, index: u32) -> Range<u32> {
        let next = self.next[conversation as usize];
        let waited_for =
            index + 1 == next && next < chat.count(conversation) && chat.sender(conversation, next) == user;
        if waited_for { self.release_run(chat, conversation) } else { 0..0 }
    }

    /// The next message and those its sender wrote directly after it.
    fn release_run(&mut self, chat: &Chat, conversation: u32) -> Range<u32> {
        let start = self.next[conversation as usize];
        let sender = chat.sender(conversation, start);
        let count = chat.count(conversation);
        let same = (start..count).take_while(|&index| chat.sender(conversation, index) == sender).count() as u32;
        self.next[conversation as usize] = start + same;
        start..start + same
    }
}

/// Holds released messages until their time: message k of the file is due k / rate after the start.
pub struct Pace {
    interval: Duration,
    waiting: BinaryHeap<Reverse<u32>>,
}

impl Pace {
    /// So many messages a second, all conversations together.
    pub fn new(messages_per_s: f64) -> Pace {
        Pace { interval: Duration::from_secs_f64(1.0 / messages_per_s), waiting: BinaryHeap::new() }
    }

    /// When message `message` of the file is due, after the start.
    pub fn due(&self, message: u32) -> Duration {
        // f64 is exact enough: a day at 10,000/s is off by nanoseconds.
        Duration::from_secs_f64(self.interval.as_secs_f64() * f64::from(message))
    }

    /// Holds a message.
    pub fn hold(&mut self, message: u32) {
        self.waiting.push(Reverse(message));
    }

    /// The next message that is due at `elapsed` after the start.
    pub fn take_due(&mut self, elapsed: Duration) -> Option<u32> {
        let due = self.next_due()? <= elapsed;
        if due { self.waiting.pop().map(|Reverse(message)| message) } else { None }
    }

    /// When the next held message is due, after the start.
    pub fn next_due(&self) -> Option<Duration> {
        self.waiting.peek().map(|&Reverse(message)| self.due(message))
    }
}

#[cfg(test)]
mod tests {
    use super::super::chat::tests::chat;
    use super::*;

    #[test]
    fn a_run_of_one_sender_goes_out_at_once_and_the_next_waits_for_its_sender() {
        let chat =
            chat(&[("c", "ann", "0"), ("c", "ann", "1"), ("c", "bob", "2"), ("c", "cid", "3"), ("c", "cid", "4")]);
        let (ann, bob, cid) = (0, 1, 2);
        let mut schedule = Schedule::new(&chat);
        assert_eq!(schedule.begin(&chat, 0), 0..2);
        assert!(schedule.begin(&chat, 0).is_empty());
        assert!(schedule.received(&chat, 0, bob, 0).is_empty());
        assert!(schedule.received(&chat, 0, cid, 1).is_empty(), "not cid's turn");
        assert_eq!(schedule.received(&chat, 0, bob, 1), 2..3);
        assert!(schedule.received(&chat, 0, bob, 1).is_empty(), "released once");
        assert!(schedule.received(&chat, 0, ann, 2).is_empty());
        assert_eq!(schedule.received(&chat, 0, cid, 2), 3..5);
        assert!(schedule.received(&chat, 0, ann, 4).is_empty(), "the end");
    }

    #[test]
    fn every_message_is_released_once_and_in_order_whoever_hears_first() {
        let turns: Vec<(&str, &str, &str)> = (0..200u32)
            .map(|i| (["x", "y", "z"][(i % 3) as usize], ["a", "b", "c", "d"][(i * i / 7 % 4) as usize], ""))
            .collect();
        let chat = chat(&turns);
        let mut schedule = Schedule::new(&chat);
        let mut next = [0u32; 3];
        let mut heard: Vec<(u32, u32)> = Vec::new();
        let mut take = |conversation: u32, run: Range<u32>, heard: &mut Vec<(u32, u32)>| {
            for index in run {
                assert_eq!(index, next[conversation as usize]);
                next[conversation as usize] += 1;
                heard.push((conversation, index));
            }
        };
        for conversation in 0..3 {
            take(conversation, schedule.begin(&chat, conversation), &mut heard);
        }
        while let Some((conversation, index)) = heard.pop() {
            for user in 0..4 {
                take(conversation, schedule.received(&chat, conversation, user, index), &mut heard);
            }
        }
        assert_eq!(next, [0, 1, 2].map(|c| chat.count(c)));
    }

    #[test]
    fn pacing_releases_in_file_order_when_due_and_not_before() {
        let mut pace = Pace::new(1000.0);
        pace.hold(7);
        pace.hold(3);
        assert_eq!(pace.next_due(), Some(Duration::from_millis(3)));
        assert_eq!(pace.take_due(Duration::from_micros(2999)), None);
        assert_eq!(pace.take_due(Duration::from_millis(9)), Some(3));
        assert_eq!(pace.take_due(Duration::from_millis(6)), None);
        assert_eq!(pace.take_due(Duration::from_millis(7)), Some(7));
        assert_eq!(pace.next_due(), None);
    }
}
