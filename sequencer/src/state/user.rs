//! An account's rows: the user at its home shard, the name at the name's shard.

use logstore::id::{ClientMsgId, TimeMs, UserId};

/// A claimed name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NameRow {
    /// Whose it is.
    pub user: UserId,
    /// The request that claimed it.
    pub request: ClientMsgId,
    /// Whether the account exists.
    pub confirmed: bool,
    /// When it was claimed, log time: a claim that is not confirmed ends [`NameRow::CLAIM_MS`] later.
    pub claimed: TimeMs,
}

impl NameRow {
    /// Two effects settle a claim, within a second as a rule. Ten minutes outlast any failover between them.
    pub const CLAIM_MS: u64 = 10 * 60 * 1000;
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserRow {
    /// Its name.
    pub name: String,
    /// argon2id PHC string; empty: no password.
    pub password_phc: String,
    /// When it was created, log time.
    pub created: TimeMs,
    /// Open sessions, oldest first, at most [`UserRow::SESSIONS_MAX`] (the oldest gives way).
    pub sessions: Vec<SessionRow>,
}

impl UserRow {
    /// More devices than anybody carries; each costs 88 bytes of state.
    pub const SESSIONS_MAX: usize = 32;
}

/// A session that can be refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionRow {
    /// Its number.
    pub session: u64,
    /// Hash of the secret that refreshes it next.
    pub refresh_hash: [u8; 32],
    /// Hash of the one before: presented again, it ends the session.
    pub previous_hash: [u8; 32],
    /// When it ends.
    pub expires: TimeMs,
}
