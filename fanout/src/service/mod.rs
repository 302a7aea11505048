//! The rules: each request, checked against applied state, becomes commands.

use std::sync::Arc;

use sequencer::Sequencer;

use crate::Limits;
use crate::tail::Tails;

mod account;
mod conversation;
mod group;
mod message;
mod receipt;

pub use account::{Accounts, SessionGrant};
pub use conversation::{ConversationSummary, Conversations, Page};
pub use group::{Groups, MembersPage};
pub use message::{HistoryPage, HistoryQuery, Messages, Outgoing, SendOutcome};
pub use receipt::Receipts;

/// Everything a signed-in user or an administrator can ask for.
pub struct Services {
    /// Names, passwords, sessions.
    pub accounts: Accounts,
    /// The list, and opening 1:1s.
    pub conversations: Conversations,
    /// Groups and their members.
    pub groups: Groups,
    /// Sending and reading.
    pub messages: Messages,
    /// Delivered and read.
    pub receipts: Receipts,
}

impl Services {
    /// Passes `delivered` receipts on live through these tails, once; without them receipts are told when replicated.
    pub fn pass_receipts_to(&self, tails: Arc<Tails>) {
        let _ = tails;
        unimplemented!()
    }

    /// The services over a node's shards.
    pub fn new(sequencer: Arc<Sequencer>, limits: Arc<Limits>) -> Services {
        let _ = (sequencer, limits);
        unimplemented!()
    }
}
