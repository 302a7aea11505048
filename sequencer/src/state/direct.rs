//! Opening the 1:1 of two users.
//!
//! ```text
//!  initiator's home          peer's home           the conversation's shard
//!  OpenDirect ──OpenPeer──────▶ │
//!      │      ◀──PeerAnswered── │
//!      └────────GrantDirect─────┼──GrantDirect────▶ open when both homes have spoken and both users exist
//! ```
//!
//! What always holds: each bit of a [`DirectRow`] is written by one home alone, and a home speaks once for its user.
//! A repeated `OpenDirect` emits nothing, unless the peer did not exist before.

use logstore::id::{ConversationId, ConversationName, LogIndex, Ordinal, SeqId, UserId};

use super::{ConversationRow, DirectRow, MemberRow, Peer, RelationRow, Role, ShardState, direct_users};
use crate::{Applied, Effect, Outcome, Refusal};

impl ShardState {
    pub(super) fn open_direct(
        &mut self,
        initiator: UserId,
        peer: UserId,
        out: &mut Applied,
    ) -> Result<Outcome, Refusal> {
        if !is_user(initiator) || !is_user(peer) {
            return Err(Refusal::NoSuchUser);
        }
        self.check_owned(ConversationId::system(initiator))?;
        if self.user(initiator).is_none() {
            return Err(Refusal::NoSuchUser);
        }
        let known = self.relation(initiator, peer).map(|row| row.peer);
        if matches!(known, Some(Peer::Asked | Peer::Known)) {
            return Ok(Outcome::Done);
        }
        self.check_room(self.target(ConversationId::direct(initiator, peer))?)?;
        self.check_room(self.target(ConversationId::system(peer))?)?;
        if known.is_none() {
            self.grant(initiator, peer, true, out);
        }
        if initiator == peer {
            self.relate(initiator, peer, Peer::Known);
        } else {
            self.relate(initiator, peer, Peer::Asked);
            self.emit(ConversationId::system(peer), Effect::OpenPeer { initiator, peer }, out);
        }
        Ok(Outcome::Done)
    }

    /// At the peer's home: says whether there is such a user, and lets both write if so.
    pub(super) fn open_peer(&mut self, initiator: UserId, peer: UserId, out: &mut Applied) {
        if !is_user(initiator) || !is_user(peer) {
            return;
        }
        let exists = self.user(peer).is_some();
        if exists {
            if self.relation(peer, initiator).is_none() {
                self.grant(peer, initiator, true, out);
            }
            self.relate(peer, initiator, Peer::Known);
        } else {
            self.grant(peer, initiator, false, out);
        }
        self.emit(ConversationId::system(initiator), Effect::PeerAnswered { initiator, peer, exists }, out);
    }

    /// At the initiator's home: what the peer's home found.
    pub(super) fn peer_answered(&mut self, initiator: UserId, peer: UserId, exists: bool) {
        if self.relation(initiator, peer).is_some_and(|row| row.peer == Peer::Asked) {
            self.relate(initiator, peer, if exists { Peer::Known } else { Peer::Unknown });
        }
    }

    /// At the conversation's shard: what one home says.
    pub(super) fn grant_direct(
        &mut self,
        conversation: ConversationId,
        home_of: UserId,
        may_send: [bool; 2],
        exists: bool,
        out: &mut Applied,
    ) {
        let Some(ConversationName::Direct(low, high)) = conversation.name() else { return };
        if (home_of != low && home_of != high) || !self.owns(conversation) {
            return;
        }
        // Notes to self have one home, which speaks for both sides.
        let home = u8::from(home_of == low) | u8::from(home_of == high) << 1;
        if self.conversation(conversation).is_none() {
            self.conversations.insert(conversation, empty_direct(out));
            self.figures.conversations += 1;
        }
        let row = self.conversations.get_mut(&conversation).expect("inserted if it was absent");
        if let Some(before) = row.before_import_mut() {
            before.get_or_insert_default().hear(home, may_send, exists);
        }
        let direct = row.direct.get_or_insert_default();
        let was_open = direct.is_open();
        direct.hear(home, may_send, exists);
        if direct.is_open() && !was_open {
            self.seat_both(conversation, out.index);
        }
    }

    /// Makes both users of a 1:1 members of it that are not; they see what comes from now on.
    pub(super) fn seat_both(&mut self, conversation: ConversationId, index: LogIndex) {
        let Some(row) = self.conversation(conversation) else { return };
        let joined = MemberRow::joined(row.last_seq.next(), row.last_ordinal, Role::Member, index);
        for user in direct_users(conversation).into_iter().flatten() {
            if self.member(conversation, user).is_none() {
                self.put_member(conversation, user, joined.clone());
            }
        }
    }

    /// At a home: tells the conversation's shard what this home lets both sides do.
    fn grant(&mut self, home_of: UserId, other: UserId, exists: bool, out: &mut Applied) {
        let conversation = ConversationId::direct(home_of, other);
        let effect = Effect::GrantDirect { conversation, home_of, low_may_send: exists, high_may_send: exists, exists };
        self.emit(conversation, effect, out);
    }

    fn relate(&mut self, user: UserId, to: UserId, peer: Peer) {
        self.relations.insert((user, to), RelationRow { peer });
    }
}

impl DirectRow {
    /// Takes over what a home (bit 0, bit 1 or both) says.
    fn hear(&mut self, home: u8, [low, high]: [bool; 2], exists: bool) {
        let set = |bits: &mut u8, on: bool| *bits = if on { *bits | home } else { *bits & !home };
        set(&mut self.heard, true);
        set(&mut self.exists, exists);
        set(&mut self.low, low);
        set(&mut self.high, high);
    }
}

/// Whether an id can be a user's: nobody is 0, and two of them must fit into a conversation's id.
pub(super) fn is_user(user: UserId) -> bool {
    (1..ConversationId::ID_LIMIT).contains(&user.0)
}

fn empty_direct(out: &Applied) -> ConversationRow {
    ConversationRow {
        last_seq: SeqId(0),
        last_ordinal: Ordinal(0),
        last_index: out.index,
        last_time: out.time,
        direct: Some(DirectRow::default()),
        group: None,
        upkeep: None,
    }
}
