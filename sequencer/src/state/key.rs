//! The keys of state: what a command touches, named before it is applied.
//!
//! The shard's own row, outboxes, inboxes and the dedup window are always in memory; they are named all the same, so
//! that the list is complete.

use logstore::id::{Bucket, ConversationId, ConversationName, SeqId, ShardId, UserId};

use super::index::direct_users;
use crate::{Command, Effect, Import};

/// Names one row of state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A conversation.
    Conversation(ConversationId),
    /// A member's row.
    Member(ConversationId, UserId),
    /// An account.
    User(UserId),
    /// A claimed name.
    Name(String),
    /// What a home knows of a user's relation to a peer.
    Relation(UserId, UserId),
    /// The outbox to a shard: which effects wait.
    Outbox(ShardId),
    /// The effects waiting for a shard whose numbers, divided by [`OutboxRow::PAGE_LEN`](super::OutboxRow::PAGE_LEN),
    /// give this. Only in sealed rows; in memory an outbox is one row.
    OutboxPage(ShardId, u64),
    /// What was applied of a shard's outbox.
    Inbox(ShardId),
    /// The shard's own row: buckets, epoch, history, log time, window floor, last server_msg_id.
    Shard,
    /// A note that a conversation was trimmed. Notes are only in sealed rows, for merges: in memory the conversation's row says it.
    Trimmed(Bucket, ConversationId),
    /// A note that a message was recalled.
    Recalled(Bucket, ConversationId, SeqId),
    /// A note that a user's messages were erased, for ever; as long as it is not done the shard's row says it, too.
    Erased(UserId),
    /// That a user has a row in a conversation: written once, when the member row is made. Only in sealed rows; in memory it is
    /// an index.
    Place(UserId, ConversationId),
    /// What is counted over all rows; a state without it was sealed before there were places.
    Figures,
}

impl Key {
    /// The note that a conversation was trimmed.
    pub fn trimmed(conversation: ConversationId) -> Key {
        Key::Trimmed(conversation.bucket(), conversation)
    }

    /// The note that a message was recalled.
    pub fn recalled(conversation: ConversationId, seq: SeqId) -> Key {
        Key::Recalled(conversation.bucket(), conversation, seq)
    }

    /// Whether it is that of a note for merges, which no state is made of.
    pub fn is_note(&self) -> bool {
        matches!(self, Key::Trimmed(..) | Key::Recalled(..) | Key::Erased(_))
    }
}

/// Calls `touch` with every key that applying a command may look at or change.
pub fn keys(command: &Command, touch: &mut impl FnMut(Key)) {
    touch(Key::Shard);
    match command {
        Command::Send(send) => {
            keys_of_send(send.conversation, send.sender, touch);
        }
        Command::ClaimName { name, .. } => touch(Key::Name(name.clone())),
        Command::OpenSession { user, .. } | Command::RotateSession { user, .. } => touch(Key::User(*user)),
        Command::OpenDirect { initiator, peer } => {
            touch(Key::User(*initiator));
            touch(Key::Relation(*initiator, *peer));
        }
        Command::GroupCreate { group, creator, members, .. } => {
            touch(Key::Conversation(*group));
            members_of(*group, members.iter().chain([creator]), touch);
        }
        Command::GroupChange(change) => {
            touch(Key::Conversation(change.group));
            let heir = (change.heir != UserId(0)).then_some(&change.heir);
            let users = change.add.iter().chain(&change.remove).chain([&change.actor]).chain(heir);
            members_of(change.group, users, touch);
        }
        Command::MoveCursors(moves) => {
            for step in moves {
                touch(Key::Conversation(step.conversation));
                touch(Key::Member(step.conversation, step.user));
            }
        }
        Command::Effects { from, effects, .. } => {
            touch(Key::Inbox(*from));
            effects.iter().for_each(|effect| keys_of_effect(effect, touch));
        }
        Command::AckEffects { to, .. } => touch(Key::Outbox(*to)),
        Command::Trim { conversation, .. } | Command::Retain { conversation, .. } => {
            touch(Key::Conversation(*conversation));
        }
        Command::Recall(recall) => {
            touch(Key::Conversation(recall.conversation));
            touch(Key::Member(recall.conversation, recall.actor));
        }
        Command::Import(step) => keys_of_import(step, touch),
        Command::Init { .. }
        | Command::BeginHistory { .. }
        | Command::Seal
        | Command::Merge { .. }
        | Command::Probe
        | Command::Erase { .. }
        | Command::Erased { .. } => {}
    }
}

/// The keys of a send, [`Key::Shard`] apart. A 1:1 says in its own row who may write.
pub(super) fn keys_of_send(conversation: ConversationId, sender: UserId, touch: &mut impl FnMut(Key)) {
    touch(Key::Conversation(conversation));
    if let Some(ConversationName::Group(_)) = conversation.name() {
        touch(Key::Member(conversation, sender));
    }
}

fn keys_of_import(step: &Import, touch: &mut impl FnMut(Key)) {
    match step {
        Import::Ids { .. } => {}
        Import::Account { user, .. } => touch(Key::User(*user)),
        Import::Name { name, .. } => touch(Key::Name(name.clone())),
        Import::Relation { user, peer, .. } => {
            touch(Key::User(*user));
            touch(Key::Relation(*user, *peer));
        }
        Import::Begin { conversation, .. } | Import::End { conversation, .. } => {
            touch(Key::Conversation(*conversation));
        }
        Import::GiveUp { conversation, .. } => {
            touch(Key::Conversation(*conversation));
            direct_users(*conversation).into_iter().flatten().for_each(|user| touch(Key::Member(*conversation, user)));
        }
        Import::Members { conversation, members, .. } => {
            touch(Key::Conversation(*conversation));
            members_of(*conversation, members.iter().map(|(user, _)| user), touch);
        }
        Import::Record(record) => touch(Key::Conversation(record.conversation)),
    }
}

fn members_of<'a>(group: ConversationId, users: impl Iterator<Item = &'a UserId>, touch: &mut impl FnMut(Key)) {
    for user in users {
        touch(Key::Member(group, *user));
    }
}

fn keys_of_effect(effect: &Effect, touch: &mut impl FnMut(Key)) {
    match effect {
        Effect::CreateAccount { user, .. } => touch(Key::User(*user)),
        Effect::ConfirmName { name, .. } => touch(Key::Name(name.clone())),
        Effect::OpenPeer { initiator, peer } => {
            touch(Key::User(*peer));
            touch(Key::Relation(*peer, *initiator));
        }
        Effect::PeerAnswered { initiator, peer, .. } => touch(Key::Relation(*initiator, *peer)),
        Effect::GrantDirect { conversation, .. } => {
            touch(Key::Conversation(*conversation));
            // Both get a row when it opens.
            for user in direct_users(*conversation).into_iter().flatten() {
                touch(Key::Member(*conversation, user));
            }
        }
    }
}
