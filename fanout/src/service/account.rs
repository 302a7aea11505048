//! Accounts: names, passwords, sessions.

use logstore::id::{ClientMsgId, TimeMs, UserId};

use crate::Fault;

/// A session that can be refreshed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionGrant {
    /// Whose.
    pub user: UserId,
    /// The account's name.
    pub name: String,
    /// Its number.
    pub session: u64,
    /// Presented once to refresh.
    pub secret: [u8; 32],
    /// When it ends unless refreshed.
    pub expires: TimeMs,
}

/// The rules of accounts.
pub struct Accounts {}

impl Accounts {
    /// Creates an account and opens a session. `request` makes a retry the same registration.
    pub async fn register(&self, name: &str, password: &str, request: ClientMsgId) -> Result<SessionGrant, Fault> {
        let _ = (name, password, request);
        unimplemented!()
    }

    /// Verifies a password and opens a session.
    pub async fn login(&self, name: &str, password: &str) -> Result<SessionGrant, Fault> {
        let _ = (name, password);
        unimplemented!()
    }

    /// Exchanges a refresh secret for the next.
    pub async fn refresh(&self, user: UserId, session: u64, secret: [u8; 32]) -> Result<SessionGrant, Fault> {
        let _ = (user, session, secret);
        unimplemented!()
    }

    /// Creates accounts without opening sessions (administration): existing names are answered with their accounts.
    pub async fn import(&self, accounts: Vec<(String, String)>) -> Vec<Result<UserId, Fault>> {
        let _ = accounts;
        unimplemented!()
    }

    /// Accounts by exact name; unknown ones are absent. `TooMany` above `limits.find_users`.
    pub fn find_names(&self, names: &[String]) -> Result<Vec<(UserId, String)>, Fault> {
        let _ = names;
        unimplemented!()
    }

    /// Accounts by id; unknown ones are absent. `TooMany` above `limits.find_users`.
    pub fn find_ids(&self, ids: &[UserId]) -> Result<Vec<(UserId, String)>, Fault> {
        let _ = ids;
        unimplemented!()
    }
}
