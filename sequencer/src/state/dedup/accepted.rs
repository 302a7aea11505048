//! An accepted id and what a retry of it is told, in one cache line.
//!
//! What always holds: two keys are packed alike only if they are equal. Nothing is hashed away; what makes room is
//! that a 1:1 names both its users, and a group leaves half of its id empty:
//!
//! ```text
//!            127 126 125                        64 63  62 61                         0
//!            +------+-----------------------------+------+----------------------------+
//!   1:1      | 1    | lower user                  | sent | higher user                |   sent by: 0 lower, 1 higher
//!   group    | 2    | sender                      | 0    | group                      |
//!            +------+-----------------------------+------+----------------------------+
//! ```

use logstore::id::{BodyHash, ClientMsgId, ConversationId, ConversationName, SeqId, ServerMsgId, TimeMs, UserId};

use crate::Stored;

/// Names a message once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MessageKey {
    pub conversation: ConversationId,
    pub sender: UserId,
    pub id: ClientMsgId,
}

/// One accepted id. Words instead of `u128`, which would be read as two anyway.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Accepted {
    place: [u64; 2],
    id: [u64; 2],
    seq: SeqId,
    server_msg_id: ServerMsgId,
    time: TimeMs,
    body_hash: BodyHash,
}

const _: () = assert!(size_of::<Accepted>() == 64, "a million ids are 64 MB");

impl Accepted {
    /// `None` for a key under which nothing can be accepted.
    pub fn new(key: &MessageKey, stored: &Stored, body_hash: BodyHash) -> Option<Accepted> {
        Some(Accepted {
            place: place_of(key)?,
            id: words(key.id.0),
            seq: stored.seq,
            server_msg_id: stored.server_msg_id,
            time: stored.time,
            body_hash,
        })
    }

    /// Whether this is the id of that message.
    pub fn is(&self, key: &MessageKey) -> bool {
        self.id == words(key.id.0) && place_of(key) == Some(self.place)
    }

    /// What a retry is told.
    pub fn stored(&self) -> (Stored, BodyHash) {
        let stored = Stored { seq: self.seq, server_msg_id: self.server_msg_id, time: self.time, duplicate: true };
        (stored, self.body_hash)
    }
}

/// Conversation and sender as drawn above; `None` if that sender can have no message there.
fn place_of(key: &MessageKey) -> Option<[u64; 2]> {
    let [low, high] = words(key.conversation.0);
    match key.conversation.name()? {
        ConversationName::Direct(lower, _) if key.sender == lower => Some([low, high]),
        ConversationName::Direct(_, higher) if key.sender == higher => Some([low | ConversationId::ID_LIMIT, high]),
        ConversationName::Group(_) if key.sender.0 < ConversationId::ID_LIMIT => Some([low, high | key.sender.0]),
        _ => None,
    }
}

fn words(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn keys_that_differ_are_packed_differently() {
        let users = [0, 1, 2, 3, 1 << 61, ConversationId::ID_LIMIT - 1].map(UserId);
        let pairs = users.iter().flat_map(|a| users.iter().map(|b| ConversationId::direct(*a, *b)));
        let groups = users.iter().map(|number| ConversationId::group(number.0));
        let conversations: Vec<ConversationId> = pairs.chain(groups).collect();
        let mut packed = HashMap::new();
        for conversation in conversations {
            for sender in users {
                let key = MessageKey { conversation, sender, id: ClientMsgId(7) };
                let Some(place) = place_of(&key) else { continue };
                let other = packed.insert(place, (conversation, sender));
                assert!(other.is_none_or(|other| other == (conversation, sender)), "{key:?} and {other:?}");
            }
        }
        assert_eq!(packed.len(), 6 + 15 * 2 + 6 * 6, "notes to self have one sender, 1:1s two, groups any");
    }

    #[test]
    fn nothing_is_packed_for_who_cannot_send() {
        let key = |conversation, sender| MessageKey { conversation, sender, id: ClientMsgId(7) };
        assert_eq!(place_of(&key(ConversationId::direct(UserId(1), UserId(2)), UserId(3))), None);
        assert_eq!(place_of(&key(ConversationId::group(1), UserId(ConversationId::ID_LIMIT))), None);
        assert_eq!(place_of(&key(ConversationId::system(UserId(1)), UserId(1))), None);
        assert_eq!(place_of(&key(ConversationId(5), UserId(1))), None);
    }
}
