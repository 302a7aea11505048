//! Sending a message: the path that has to be short.
//!
//! What always holds: dedup comes before authorisation, so that a kicked sender's retry is still told where its
//! message is; only a message that passes every check takes a seq_id.

use logstore::id::{ConversationId, ConversationName, UserId};

use super::apply::{Accept, SendHashes, append};
use super::{ConversationRow, MemberRow, MessageKey, ShardState};
use crate::codec::SendView;
use crate::store::Table;
use crate::{Applied, Outcome, Refusal};

/// What an unsealed record costs beside its body.
pub(super) const RECORD_HEAD_BYTES: u64 = 72;

impl ShardState {
    pub(super) fn send(&mut self, send: &SendView<'_>, hashes: SendHashes, offset: u32, out: &mut Applied) -> Outcome {
        self.try_send(send, hashes, offset, out).unwrap_or_else(Outcome::Refused)
    }

    fn try_send(
        &mut self,
        send: &SendView<'_>,
        hashes: SendHashes,
        offset: u32,
        out: &mut Applied,
    ) -> Result<Outcome, Refusal> {
        let key = message_key(send);
        let MessageKey { conversation, sender, .. } = key;
        self.check_owned(conversation)?;
        if !send.kind().is_countable() {
            return Err(Refusal::Malformed);
        }
        let known = self.dedup.find(hashes.id, &key);
        #[cfg(feature = "plants")]
        let known = known.filter(|_| !logstore::plants::is_planted(logstore::plants::Plant::SkipDedup));
        if let Some((stored, body_hash)) = known {
            self.check_shown(conversation)?;
            return if body_hash == send.body_hash() {
                Ok(Outcome::Sent(stored))
            } else {
                Err(Refusal::IdempotencyConflict)
            };
        }
        self.dedup.admit(key.id, self.own.time, send.checked_upto())?;
        let row =
            self.conversations.get_mut_hashed(hashes.conversation, &conversation).ok_or(Refusal::NoSuchConversation)?;
        if row.is_importing() {
            return Err(Refusal::Importing);
        }
        if row.upkeep.is_some() && !self.dedup.is_inside(key.id) && !self.dedup.is_after(key.id, row.floor().time) {
            return Err(Refusal::Expired);
        }
        authorise(conversation, sender, row, &self.members)?;
        let accept = Accept {
            conversation,
            kind: send.kind(),
            sender,
            client_msg_id: key.id,
            body_hash: send.body_hash(),
            body: send.body(),
            origin: send.origin(),
            command_offset: offset,
            made_body: None,
        };
        let stored = append(&mut self.own, row, accept, out);
        self.dedup.insert(hashes.id, &key, &stored, send.body_hash());
        self.unsealed_bytes += RECORD_HEAD_BYTES + send.body_len() as u64;
        Ok(Outcome::Sent(stored))
    }
}

/// What names the message once.
pub(super) fn message_key(send: &SendView<'_>) -> MessageKey {
    MessageKey { conversation: send.conversation(), sender: send.sender(), id: send.client_msg_id() }
}

/// Whether the sender may append here. A 1:1 says so in its own row; a group in the member's.
fn authorise(
    conversation: ConversationId,
    sender: UserId,
    row: &ConversationRow,
    members: &Table<(ConversationId, UserId), MemberRow>,
) -> Result<(), Refusal> {
    match (conversation.name(), &row.direct) {
        (Some(ConversationName::Direct(low, high)), Some(direct)) => {
            if !direct.is_open() {
                return Err(Refusal::NoSuchConversation);
            }
            let bits = match sender {
                _ if sender == low => direct.low,
                _ if sender == high => direct.high,
                _ => return Err(Refusal::NotMember),
            };
            if bits == 3 { Ok(()) } else { Err(Refusal::NotAllowed) }
        }
        (Some(ConversationName::Group(_)), _) => {
            let active = members.get(&(conversation, sender)).is_some_and(MemberRow::is_active);
            if active { Ok(()) } else { Err(Refusal::NotMember) }
        }
        _ => Err(Refusal::NotAllowed),
    }
}
