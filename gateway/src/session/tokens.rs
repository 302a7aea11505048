//! What the gateway asks of tokens; `auth/` answers.

use fanout::Fault;
use fanout::service::SessionGrant;
use logstore::id::{TimeMs, UserId};

/// What a holder of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Acts as himself.
    User,
    /// Administers the node.
    Admin,
}

/// What a verified access token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Whose.
    pub user: UserId,
    /// The account's name.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// When it ends; a connection ends with it.
    pub expires: TimeMs,
}

/// Tokens handed to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Whose.
    pub user: UserId,
    /// The account's name.
    pub name: String,
    /// For `hello`.
    pub access_token: String,
    /// For the next pair; empty: none.
    pub refresh_token: String,
    /// When the access token ends.
    pub access_expires: TimeMs,
}

/// Makes and verifies tokens. Nothing here waits; verifying may take some 100 µs.
pub trait Tokens: Send + Sync + 'static {
    /// What an access token says, if it is ours and not over.
    fn verify(&self, token: &str, now: TimeMs) -> Result<Claims, Fault>;

    /// The tokens of a session just opened or renewed.
    fn issue(&self, grant: &SessionGrant, now: TimeMs) -> Issued;

    /// What a refresh token says: the session and the secret that renews it. The services decide whether it still does.
    fn verify_refresh(&self, token: &str, now: TimeMs) -> Result<(UserId, u64, [u8; 32]), Fault>;

    /// An access token without a session (administration).
    fn mint(&self, user: UserId, name: &str, lifetime_ms: u64, now: TimeMs) -> Issued;
}
