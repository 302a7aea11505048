//! What tokens say.

use serde::{Deserialize, Serialize};

/// Who makes tokens.
pub const ISSUER: &str = "skein";
/// For whom.
pub const AUDIENCE: &str = "skein-client";

/// What a token is for. Its `typ` header says it, so that one can never stand in for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Acts for a user.
    Access,
    /// Is exchanged for the next pair of tokens.
    Refresh,
    /// Acts for an administrator; signed with the admin key.
    Admin,
}

impl Purpose {
    /// The `typ` header.
    pub fn typ(self) -> &'static str {
        match self {
            Purpose::Access => "skein-access+jwt",
            Purpose::Refresh => "skein-refresh+jwt",
            Purpose::Admin => "skein-admin+jwt",
        }
    }
}

/// The claims of every token. All but `nbf` and those of one purpose are required.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenClaims {
    /// [`ISSUER`].
    pub iss: String,
    /// [`AUDIENCE`].
    pub aud: String,
    /// The user's id in decimal; "admin" for administrators.
    pub sub: String,
    /// Unix seconds from which it is no longer good.
    pub exp: u64,
    /// Unix seconds at which it was made.
    pub iat: u64,
    /// Unix seconds before which it is not good yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Names the token once.
    pub jti: String,
    /// The account's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Refresh: the session, in decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Refresh: the secret, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}
