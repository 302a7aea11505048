//! Taking messages out of the log again: recall, trims, retention, erasure.
//!
//! What always holds: what a command states of a record was read in the log; everything here holds at once for every reader, and
//! files follow.

use std::sync::{Arc, OnceLock};

use logstore::id::{ClientMsgId, ConversationId, Ordinal, SeqId, ShardId, TimeMs, UserId};
use sequencer::state::{Erasure, Look};
use sequencer::{Command, Outcome, Recall, Record, Retention, Shard};

use super::account::unexpected;
use super::retention::{self, RetentionPolicy};
use super::{Core, is_user_id, is_uuid_v7, named, no_such_conversation, no_such_user};
use crate::{Code, Fault};

/// The rules of removing.
pub struct Removals {
    core: Arc<Core>,
    /// What conversations keep that say nothing themselves.
    default: OnceLock<Retention>,
}

/// What a trim has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrimDone {
    /// The conversation begins here now.
    pub before: SeqId,
    /// Countable messages this trim removed; 0: they were gone already.
    pub messages: u64,
}

/// An erasure that is not done in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErasureStatus {
    /// The shard.
    pub shard: ShardId,
    /// Whose messages, and up to where.
    pub erasure: Erasure,
    /// What it waits for, for people.
    pub waits_for: &'static str,
}

impl Removals {
    pub(super) fn new(core: Arc<Core>) -> Removals {
        Removals { core, default: OnceLock::new() }
    }

    /// Begins to see to retention, once.
    pub(super) fn retain_by(&self, policy: RetentionPolicy) {
        if self.default.set(policy.default).is_err() {
            return tracing::warn!("retention is seen to already");
        }
        tokio::spawn(retention::run(Arc::downgrade(&self.core), policy));
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(super) fn default_retention(&self) -> Retention {
        self.default.get().copied().unwrap_or_default()
    }

    /// Recalls a message of one's own. Gives the record that says so; 0 if its body was gone already.
    pub async fn recall(
        &self,
        user: UserId,
        conversation: ConversationId,
        seq: SeqId,
        request: ClientMsgId,
    ) -> Result<SeqId, Fault> {
        named(conversation)?;
        let sees = |state: &Look<'_>| state.member(conversation, user).is_some_and(|m| m.sees(seq));
        if !self.core.shard_of(conversation).look(|state, _| sees(state)).await? {
            return Err(no_such_conversation());
        }
        let record = self.countable(conversation, seq).await?;
        if record.head.sender != user {
            return Err(Fault::new(Code::NotAllowed, "only its sender recalls a message"));
        }
        self.recall_record(&record, request, false).await
    }

    /// Recalls any message, in its sender's name.
    pub async fn recall_as_operator(
        &self,
        conversation: ConversationId,
        seq: SeqId,
        request: ClientMsgId,
    ) -> Result<SeqId, Fault> {
        named(conversation)?;
        let record = self.countable(conversation, seq).await?;
        self.recall_record(&record, request, true).await
    }

    async fn recall_record(&self, record: &Record, request: ClientMsgId, by_operator: bool) -> Result<SeqId, Fault> {
        if !is_uuid_v7(request) {
            return Err(Fault::new(Code::BadField, "request_id: not a UUIDv7"));
        }
        let head = &record.head;
        let recall = Command::Recall(Recall {
            conversation: head.conversation,
            actor: head.sender,
            request,
            checked_upto: 0,
            seq: head.seq,
            ordinal: head.ordinal,
            sender: head.sender,
            by_operator,
        });
        match self.core.execute(self.core.shard_of(head.conversation), recall).await? {
            Outcome::Sent(stored) => Ok(stored.seq),
            Outcome::Done => Ok(SeqId(0)),
            other => Err(unexpected(&other)),
        }
    }

    /// Trims a conversation: nothing before `before` is left; one above its head: nothing at all.
    pub async fn trim(&self, conversation: ConversationId, before: SeqId) -> Result<TrimDone, Fault> {
        named(conversation)?;
        let shard = self.core.shard_of(conversation);
        let row = shard.look(|state, _| state.conversation(conversation).map(|row| (row.last_seq, row.floor())));
        let (last, floor) = row.await?.ok_or_else(no_such_conversation)?;
        if before > last.next() || before == SeqId(0) {
            return Err(Fault::new(Code::BadRange, format!("the newest record is {last}")));
        }
        if before <= floor.before.max(SeqId(1)) {
            return Ok(TrimDone { before: floor.before, messages: 0 });
        }
        let (ordinal, time) = last_removed(shard, conversation, before).await?;
        match self.core.execute(shard, Command::Trim { conversation, before, ordinal, time }).await? {
            Outcome::Done => Ok(TrimDone { before, messages: ordinal.0.saturating_sub(floor.ordinal.0) }),
            other => Err(unexpected(&other)),
        }
    }

    /// Says how long a conversation keeps its records; `None`: as the configuration says.
    pub async fn retain(&self, conversation: ConversationId, retention: Option<Retention>) -> Result<(), Fault> {
        named(conversation)?;
        let retain = Command::Retain { conversation, retention };
        self.core.execute(self.core.shard_of(conversation), retain).await.map(drop)
    }

    /// Begins to erase all messages of a user, in every shard. Readers see none of them when this returns; files follow, and
    /// [`Removals::erasures`] says when that is done.
    pub async fn erase(&self, user: UserId) -> Result<Vec<ErasureStatus>, Fault> {
        if !is_user_id(user) {
            return Err(no_such_user());
        }
        for shard in self.core.sequencer.shards() {
            self.core.execute(shard, Command::Erase { user }).await?;
        }
        Ok(self.erasures().into_iter().filter(|status| status.erasure.user == user).collect())
    }

    /// The erasures that are not done.
    pub fn erasures(&self) -> Vec<ErasureStatus> {
        let of = |shard: &Arc<Shard>| {
            let pending = shard.read(|state, _| state.erasures().list().to_vec());
            let (shard, waits_for) = (shard.id(), shard.erasing_waits_for());
            pending.into_iter().map(|erasure| ErasureStatus { shard, erasure, waits_for }).collect::<Vec<_>>()
        };
        self.core.sequencer.shards().iter().flat_map(of).collect()
    }

    /// A message that counts.
    async fn countable(&self, conversation: ConversationId, seq: SeqId) -> Result<Record, Fault> {
        let record = record(self.core.shard_of(conversation), conversation, seq).await?;
        if record.head.kind.is_countable() {
            return Ok(record);
        }
        Err(Fault::new(Code::NotAllowed, "that record is no message"))
    }
}

async fn record(shard: &Shard, conversation: ConversationId, seq: SeqId) -> Result<Record, Fault> {
    let found = shard.history(conversation, seq, seq, 1, usize::MAX).await?;
    found.into_iter().next().ok_or_else(|| Fault::new(Code::BadRange, format!("there is no record {seq}")))
}

/// The ordinal and the log time of the last record before one.
pub(super) async fn last_removed(
    shard: &Shard,
    conversation: ConversationId,
    before: SeqId,
) -> Result<(Ordinal, TimeMs), Fault> {
    let last = record(shard, conversation, SeqId(before.0 - 1)).await?;
    Ok((last.head.ordinal, last.head.time))
}
