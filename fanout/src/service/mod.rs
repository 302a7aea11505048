//! The rules: each request, checked against applied state, becomes commands.
//!
//! What a service checks here it checks to refuse early and to say why; what decides is apply, in log order.

use std::sync::Arc;
use std::time::Duration;

use logstore::id::{ClientMsgId, ConversationId, ConversationName, UserId};
use sequencer::state::Look;
use sequencer::{Clock, Command, Outcome, Sequencer, Shard, SystemClock};

use crate::tail::Tails;
use crate::{Code, Fault, Limits};

mod account;
mod conversation;
mod group;
mod import;
mod live_import;
mod message;
mod name;
mod open_direct;
mod password;
mod receipt;
mod refusal;
mod removal;
mod retention;
mod send;
#[cfg(feature = "plants")]
mod stale_read;

pub use account::{Accounts, SessionGrant};
pub use conversation::{ConversationSummary, Conversations, Page};
pub use group::{Groups, MembersPage};
pub use live_import::{Found, FoundConversation, Imports};
pub use message::{HistoryPage, HistoryQuery, Messages, Outgoing, SendOutcome};
pub use receipt::Receipts;
pub use removal::{ErasureStatus, Removals, TrimDone};
pub use retention::{RetentionPolicy, Swept};
pub use send::Done;

use open_direct::OpenDirects;

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
    /// Recall, trims, retention, erasure.
    pub removals: Removals,
    /// Importing into this cluster.
    pub imports: Imports,
    /// Delivered and read.
    pub receipts: Receipts,
}

impl Services {
    /// The services over a node's shards. Called inside a runtime: receipts are replicated by a task.
    pub fn new(sequencer: Arc<Sequencer>, limits: Arc<Limits>) -> Services {
        Services::with_clock(sequencer, limits, Arc::new(SystemClock))
    }

    /// The same by another clock; it only says when sessions end.
    pub fn with_clock(sequencer: Arc<Sequencer>, limits: Arc<Limits>, clock: Arc<dyn Clock>) -> Services {
        let core = Arc::new(Core { sequencer, limits, clock });
        let opens = Arc::new(OpenDirects::new());
        Services {
            accounts: Accounts::new(Arc::clone(&core)),
            conversations: Conversations::new(Arc::clone(&core), Arc::clone(&opens)),
            groups: Groups::new(Arc::clone(&core)),
            messages: Messages::new(Arc::clone(&core), opens),
            removals: Removals::new(Arc::clone(&core)),
            imports: Imports::new(Arc::clone(&core)),
            receipts: Receipts::start(core),
        }
    }

    /// Begins to trim what conversations need not keep, from time to time, once. Called inside a runtime.
    pub fn retain_by(&self, policy: RetentionPolicy) {
        self.removals.retain_by(policy);
    }

    /// Passes `delivered` receipts on live through these tails, once; without them receipts are told when replicated.
    pub fn pass_receipts_to(&self, tails: Arc<Tails>) {
        self.receipts.pass_on_to(tails);
    }
}

/// How long a request waits for what other shards have to do for it.
const EFFECTS_WAIT: Duration = Duration::from_secs(5);

/// Above this many members receipts are not pushed to the others: they are read on demand.
const SMALL_GROUP_MEMBERS: u32 = 100;

/// What every service stands on.
struct Core {
    sequencer: Arc<Sequencer>,
    limits: Arc<Limits>,
    clock: Arc<dyn Clock>,
}

impl Core {
    fn shard_of(&self, conversation: ConversationId) -> &Arc<Shard> {
        self.sequencer.shard_of(conversation)
    }

    /// The shard of a user's own records.
    fn home_of(&self, user: UserId) -> &Arc<Shard> {
        self.shard_of(ConversationId::system(user))
    }

    /// Whether an account exists.
    async fn exists(&self, user: UserId) -> Result<bool, Fault> {
        if !is_user_id(user) {
            return Ok(false);
        }
        Ok(self.home_of(user).look(|state, _| state.user(user).is_some()).await?)
    }

    /// Those of `users` that have no account, each home shard asked once.
    async fn missing(&self, users: &[UserId]) -> Result<Vec<UserId>, Fault> {
        let mut missing: Vec<UserId> = users.iter().copied().filter(|u| !is_user_id(*u)).collect();
        for shard in self.sequencer.shards() {
            let is_here = |user: &UserId| is_user_id(*user) && self.home_of(*user).id() == shard.id();
            let here: Vec<UserId> = users.iter().copied().filter(is_here).collect();
            if !here.is_empty() {
                let unknown = |state: &Look<'_>| -> Vec<UserId> {
                    here.iter().copied().filter(|user| state.user(*user).is_none()).collect()
                };
                missing.extend(shard.look(|state, _| unknown(state)).await?);
            }
        }
        Ok(missing)
    }

    /// Proposes one command; refusals become faults.
    async fn execute(&self, shard: &Shard, command: Command) -> Result<Outcome, Fault> {
        match shard.execute(command).await {
            Ok(Outcome::Refused(refusal)) => Err(refusal.into()),
            Ok(outcome) => Ok(outcome),
            Err(capacity) => Err(capacity.into()),
        }
    }
}

/// Whether a number can be a user's.
fn is_user_id(user: UserId) -> bool {
    user.0 != 0 && user.0 < ConversationId::ID_LIMIT
}

/// Version and variant of a UUIDv7; its time is the log's to judge.
fn is_uuid_v7(id: ClientMsgId) -> bool {
    (id.0 >> 76) & 0xf == 7 && (id.0 >> 62) & 0b11 == 0b10
}

/// A well-formed conversation id's name, or why there is no such conversation.
fn named(conversation: ConversationId) -> Result<ConversationName, Fault> {
    conversation.name().ok_or_else(no_such_conversation)
}

/// Said for what does not exist and for what is not the asker's to know of.
fn no_such_conversation() -> Fault {
    Fault::new(Code::NoSuchConversation, "no such conversation")
}

fn not_member() -> Fault {
    Fault::new(Code::NotMember, "not a member of this conversation")
}

fn no_such_user() -> Fault {
    Fault::new(Code::NoSuchUser, "no such user")
}

fn timeout(what: &str) -> Fault {
    Fault::later(Code::Timeout, format!("{what} took too long; try again"), Duration::from_millis(200))
}

/// Whether receipts of a conversation are told to its other members.
pub(crate) fn is_small(state: &Look<'_>, conversation: ConversationId) -> bool {
    match conversation.name() {
        Some(ConversationName::Group(_)) => {
            let group = state.conversation(conversation).and_then(|c| c.group.as_ref());
            group.is_some_and(|g| g.member_count <= SMALL_GROUP_MEMBERS)
        }
        name => name.is_some(),
    }
}
