//! What defines the window, and filling it anew from the heads of sealed records.

use logstore::RecordHead;
use logstore::id::{ConversationName, LogIndex, TimeMs};

use super::{Dedup, Generation, MessageKey};
use crate::Stored;
use crate::state::EndedGeneration;

impl Dedup {
    /// What defines the window: its floor, and the generations of it that have ended.
    pub fn window(&self) -> (Option<TimeMs>, Vec<EndedGeneration>) {
        let ended = |g: &Generation| EndedGeneration { number: g.number, after: g.after, ended: g.ended };
        (self.floor, self.window.iter().map(ended).collect())
    }

    /// A window without ids, as it is when entry `sealed_at` has ended the last of `ended`.
    pub fn defined_by(floor: Option<TimeMs>, ended: &[EndedGeneration], sealed_at: LogIndex) -> Dedup {
        let generation =
            |e: &EndedGeneration| Generation { number: e.number, after: e.after, first: 0, ended: e.ended };
        let number = ended.last().map_or(0, |last| last.number) + 1;
        Dedup {
            floor,
            window: ended.iter().map(generation).collect(),
            current: Generation { number, after: sealed_at, first: 0, ended: TimeMs(0) },
            ..Dedup::new()
        }
    }

    /// The entries of the generations that have ended: after the first, up to the second.
    pub fn parts(&self) -> impl Iterator<Item = (u64, LogIndex, LogIndex)> {
        let ends = self.window.iter().skip(1).chain([&self.current]).map(|next| next.after);
        self.window.iter().zip(ends).map(|(generation, end)| (generation.number, generation.after, end))
    }

    /// Adds the id of a record that was accepted in a generation that has ended; one from before the window is passed
    /// over. Generations are filled one after the other.
    pub fn restore(&mut self, head: &RecordHead) -> Result<(), &'static str> {
        if head.index > self.current.after {
            return Err("it was accepted after the last Seal");
        }
        let Some(place) = self.window.iter().rposition(|generation| generation.after < head.index) else {
            return Ok(());
        };
        let following = self.window.get(place + 1).unwrap_or(&self.current);
        if following.first != self.next {
            return Err("ids of a later generation were restored before it");
        }
        let key = MessageKey { conversation: head.conversation, sender: head.sender, id: head.client_msg_id };
        if !key.is_possible() {
            return Err("nobody can have sent it");
        }
        let stored = Stored { seq: head.seq, server_msg_id: head.server_msg_id, time: head.time, duplicate: false };
        self.insert(self.hash(&key), &key, &stored, head.body_hash);
        let next = self.next;
        self.window.iter_mut().skip(place + 1).for_each(|generation| generation.first = next);
        self.current.first = next;
        Ok(())
    }
}

impl MessageKey {
    /// Whether apply can let anybody append under this key.
    pub fn is_possible(&self) -> bool {
        match self.conversation.name() {
            Some(ConversationName::Direct(low, high)) => self.sender == low || self.sender == high,
            Some(ConversationName::Group(_)) => super::super::direct::is_user(self.sender),
            _ => false,
        }
    }
}
