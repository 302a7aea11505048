//! How an entry becomes outcomes.
//!
//! What always holds: an entry that does not decode changes nothing but the applied index; every command of one that
//! does gets exactly one outcome; after the commands a generation may end, the window moves and one step of folding
//! is done.

use bytes::Bytes;
use logstore::RecordHead;
use logstore::id::{
    BodyHash, Bucket, ClientMsgId, ConnectionId, ConversationId, ConversationName, HistoryId, LogIndex, SegmentOrdinal,
    ShardId, UserId,
};
use logstore::{BodyPlace, RecordKind};

use super::key::keys_of_send;
use super::send::message_key;
use super::{ConversationRow, Floor, Key, MemberRow, MergedSpan, OwnRow, ShardState, keys};
use crate::codec::{self, SendView, View};
use crate::{Applied, Command, CommittedRecord, Outcome, Refusal, Stored};

/// With so many generations waiting one is folded every 16 entries: faster than any are sealed.
const FOLD_DOUBLINGS_MAX: usize = 6;

/// Hashes of what a send looks up.
pub(super) struct SendHashes {
    pub id: u64,
    pub conversation: u64,
    /// Of the sender's row, where it is asked for: a 1:1's own row says who may send.
    pub member: Option<u64>,
}

/// A record that has passed every check.
pub(super) struct Accept {
    pub conversation: ConversationId,
    pub kind: RecordKind,
    pub sender: UserId,
    pub client_msg_id: ClientMsgId,
    pub body_hash: BodyHash,
    pub body: BodyPlace,
    pub origin: ConnectionId,
    pub command_offset: u32,
    pub made_body: Option<Bytes>,
}

impl ShardState {
    /// Applies one entry of commands. The only way state changes.
    pub fn apply(&mut self, index: LogIndex, payload: &Bytes) -> Applied {
        self.skip(index);
        let mut out = Applied::new(self.own.shard, index, self.own.time);
        debug_assert!(self.has_near(payload), "entry {index}: a key was not brought to memory");
        match codec::check(payload) {
            Ok(batch) => self.apply_batch(batch, &mut out),
            Err(_) => out.outcomes.push(Outcome::Refused(Refusal::Malformed)),
        }
        out
    }

    /// Notes an entry that carries no commands (blank, membership).
    pub fn skip(&mut self, index: LogIndex) {
        assert!(index > self.applied, "entry {index} after {}: entries are applied once, in order", self.applied);
        self.applied = index;
    }

    fn apply_batch(&mut self, batch: codec::Checked<'_>, out: &mut Applied) {
        self.own.advance(batch.time);
        out.time = self.own.time;
        out.outcomes.reserve_exact(batch.count as usize);
        out.records.reserve_exact(batch.send_count);
        let mut hashes = self.warm(&batch).into_iter();
        for (offset, view) in batch {
            let outcome = match view {
                View::Send(send) => {
                    self.send(&send, hashes.next().expect("hashes has one for every send"), offset, out)
                }
                View::Other(command) => self.command(command, offset, out),
            };
            out.outcomes.push(outcome);
        }
        if out.sealed.is_some() {
            self.seal();
        }
        self.dedup.advance(self.own.time);
        self.fold_step();
    }

    /// Looks at the rows of all sends before the first one is applied. A row that is not in the processor's cache takes
    /// 100 ns and more to come; the shorter the way from one look to the next, the more of them wait together. Hence
    /// hashing, which needs no rows, goes first.
    fn warm(&self, batch: &codec::Checked<'_>) -> Vec<SendHashes> {
        let mut hashes = Vec::with_capacity(batch.send_count);
        hashes.extend(batch.sends().map(|send| self.hashes(&send)));
        let ids = hashes.iter().fold(0, |seen: u32, each| seen ^ self.dedup.touch(each.id));
        let near = |id: &ConversationId, row: &ConversationRow| id.0 as u64 ^ row.last_seq.0;
        let rows = self.conversations.touch(hashes.iter().map(|each| each.conversation), near);
        let near = |_: &(ConversationId, UserId), row: &MemberRow| row.visible_from.0;
        let members = self.members.touch(hashes.iter().filter_map(|each| each.member), near);
        std::hint::black_box((ids, rows, members));
        hashes
    }

    fn hashes(&self, send: &SendView<'_>) -> SendHashes {
        let key = message_key(send);
        let is_group = matches!(key.conversation.name(), Some(ConversationName::Group(_)));
        SendHashes {
            id: self.dedup.hash(&key),
            conversation: self.conversations.hash(&key.conversation),
            member: is_group.then(|| self.members.hash(&(key.conversation, key.sender))),
        }
    }

    /// Whether everything the entry touches is in memory.
    pub(crate) fn has_near(&self, payload: &Bytes) -> bool {
        let mut near = true;
        if !self.is_whole() {
            keys_of_entry(payload, &mut |key| near = near && self.is_near(&key));
        }
        near
    }

    fn command(&mut self, command: Command, offset: u32, out: &mut Applied) -> Outcome {
        if self.own.history.is_none() && !matches!(command, Command::Init { .. }) {
            return Outcome::Refused(Refusal::WrongShard);
        }
        let done = match command {
            Command::Send(_) => unreachable!("sends are applied in place"),
            Command::Init { history, incarnation, table_epoch, table } => {
                Ok(self.init(history, incarnation, table_epoch, table))
            }
            Command::BeginHistory { history, incarnation } => self.begin_history(history, incarnation),
            Command::ClaimName { name, seed, request } => self.claim_name(name, seed, request, out),
            Command::OpenSession { user, session, refresh_hash, expires } => {
                self.open_session(user, session, refresh_hash, expires)
            }
            Command::RotateSession { user, session, presented, next, expires } => {
                self.rotate_session(user, session, presented, next, expires)
            }
            Command::OpenDirect { initiator, peer } => self.open_direct(initiator, peer, out),
            Command::GroupCreate { group, creator, request, name, members } => {
                self.group_create(group, creator, request, name, members, offset, out)
            }
            Command::GroupChange(change) => self.group_change(&change, offset, out),
            Command::MoveCursors(moves) => Ok(self.move_cursors(&moves, out)),
            Command::Effects { from, incarnation, first, effects } => {
                self.effects(from, incarnation, first, effects, out)
            }
            Command::AckEffects { to, incarnation, upto } => Ok(self.ack_effects(to, incarnation, upto, out)),
            Command::Seal => Ok(self.will_seal(out)),
            Command::Merge { first, last, level, drops } => {
                let heads_above = if drops.0 > 0 { self.dedup.begins_after() } else { LogIndex(0) };
                self.merge(MergedSpan { first, last, level, asked_at: out.index, drops, heads_above })
            }
            Command::Probe => Ok(Outcome::Done),
            Command::Trim { conversation, before, ordinal, time } => {
                self.trim(conversation, Floor { before, ordinal, time, trimmed_at: out.index })
            }
            Command::Recall(recall) => self.recall(&recall, offset, out),
            Command::Erase { user } => self.erase(user, out.index),
            Command::Erased { user, upto } => Ok(self.erased(user, upto)),
            Command::Retain { conversation, retention } => self.retain(conversation, retention),
            Command::Import(step) => self.import(*step, offset, out),
        };
        done.unwrap_or_else(Outcome::Refused)
    }

    fn init(
        &mut self,
        history: HistoryId,
        incarnation: u64,
        table_epoch: u64,
        table: Vec<(Bucket, Bucket, ShardId)>,
    ) -> Outcome {
        if self.own.history.is_none() {
            self.own.history = Some(history);
            self.own.incarnation = incarnation;
            self.own.set_table(table_epoch, table);
        }
        Outcome::Done
    }

    /// A `Seal` covers everything up to its own entry, what follows it there included: what is replayed above a segment
    /// begins with a whole entry.
    fn will_seal(&self, out: &mut Applied) -> Outcome {
        out.sealed = Some(self.generation());
        Outcome::Done
    }

    /// Notes which segments are to be one. Only seals whose entry came before this one are there on every replica.
    fn merge(&mut self, span: MergedSpan) -> Result<Outcome, Refusal> {
        let sealed = SegmentOrdinal(self.generation() - 1);
        self.own.layout.merge(span, sealed).map(|()| Outcome::Done)
    }

    fn seal(&mut self) {
        self.dedup.seal(self.own.time, self.applied);
        self.unsealed_bytes = 0;
        self.note_seal();
        self.conversations.freeze();
        self.members.freeze();
        self.users.freeze();
        self.names.freeze();
        self.relations.freeze();
        self.outboxes.freeze();
        self.inboxes.freeze();
        self.index.freeze();
    }

    /// A generation is folded in about a thousand steps, one an entry: as many entries as it has at least, at the usual sizes.
    /// Small generations would come faster than they are folded, and every look goes through all that wait: the more
    /// of them do, the more steps an entry takes.
    fn fold_step(&mut self) {
        let kept = self.frozen_kept();
        let waiting = self.conversations.layers().saturating_sub(kept + 1);
        for _ in 0..1 << waiting.min(FOLD_DOUBLINGS_MAX) {
            self.fold_once(kept);
        }
    }

    fn fold_once(&mut self, kept: usize) {
        self.conversations.fold_step(kept);
        self.members.fold_step(kept);
        self.users.fold_step(kept);
        self.names.fold_step(kept);
        self.relations.fold_step(kept);
        self.outboxes.fold_step(kept);
        self.inboxes.fold_step(kept);
        self.index.fold_step(kept);
        self.note_evictions();
    }

    /// Once a row is only in sealed ones, who is where is asked there too.
    fn note_evictions(&mut self) {
        let Some(index) = self.whole_index_to_drop() else { return };
        self.to_drop.push(index);
    }

    /// Refuses what belongs to another shard.
    pub(super) fn check_owned(&self, conversation: ConversationId) -> Result<(), Refusal> {
        if self.owns(conversation) { Ok(()) } else { Err(Refusal::WrongShard) }
    }
}

/// Calls `touch` with every key of state that an entry names, some more than once; [`Key::Shard`] apart. One that does not
/// decode names none.
pub(crate) fn keys_of_entry(payload: &Bytes, touch: &mut impl FnMut(Key)) {
    let Ok(batch) = codec::check(payload) else { return };
    for (_, view) in batch {
        match view {
            View::Send(send) => keys_of_send(send.conversation(), send.sender(), touch),
            View::Other(command) => keys(&command, &mut |key| {
                if key != Key::Shard {
                    touch(key);
                }
            }),
        }
    }
}

/// Appends a record to its conversation: the next seq_id, the next ordinal if it counts, the next server_msg_id.
pub(super) fn append(own: &mut OwnRow, row: &mut ConversationRow, accept: Accept, out: &mut Applied) -> Stored {
    row.last_seq = row.last_seq.next();
    row.last_ordinal.0 += u64::from(accept.kind.is_countable());
    row.last_index = out.index;
    row.last_time = own.time;
    let server_msg_id = own.next_server_msg_id();
    own.note_accepted(row.last_seq, server_msg_id, accept.body_hash, accept.kind.is_countable());
    let head = RecordHead {
        conversation: accept.conversation,
        seq: row.last_seq,
        ordinal: row.last_ordinal,
        kind: accept.kind,
        sender: accept.sender,
        server_msg_id,
        client_msg_id: accept.client_msg_id,
        body_hash: accept.body_hash,
        time: own.time,
        index: out.index,
        body: accept.body,
    };
    out.records.push(CommittedRecord {
        head,
        origin: accept.origin,
        command_offset: accept.command_offset,
        made_body: accept.made_body,
    });
    Stored { seq: head.seq, server_msg_id, time: head.time, duplicate: false }
}

#[cfg(test)]
mod tests {
    use logstore::id::TimeMs;

    use super::*;
    use crate::BatchBuilder;

    fn apply(state: &mut ShardState, command: &Command) {
        let mut builder = BatchBuilder::new();
        builder.add(command);
        let payload = builder.finish(TimeMs(1));
        state.apply(LogIndex(state.applied().0 + 1), &payload);
    }

    #[test]
    fn generations_of_a_few_entries_do_not_pile_up() {
        let mut state = ShardState::new(ShardId(1));
        let table = vec![(Bucket(0), Bucket(u16::MAX), ShardId(1))];
        apply(&mut state, &Command::Init { history: HistoryId(1), incarnation: 1, table_epoch: 1, table });
        for _ in 0..100 {
            (0..40).for_each(|_| apply(&mut state, &Command::Probe));
            apply(&mut state, &Command::Seal);
            assert!(state.conversations.layers() <= 8, "{} layers to look through", state.conversations.layers());
        }
    }
}
