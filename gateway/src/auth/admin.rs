//! The admin key in the hands of its holder: signs short-lived tokens.

use std::path::Path;

use logstore::id::TimeMs;

use super::claims::Purpose;
use super::key::{KeyError, KeyFile};
use super::ring::{Signer, TokenSubject};

/// Long enough for a command, short enough to be worthless when found in a log.
const TOKEN_LIFETIME_MS: u64 = 10 * 60 * 1000;

/// Makes admin tokens.
pub struct AdminKey {
    signer: Signer,
}

impl AdminKey {
    /// Reads the key from its PEM file (`keys/admin.pem` in a data directory).
    pub fn load(path: &Path) -> Result<AdminKey, KeyError> {
        Ok(AdminKey { signer: Signer::new(&KeyFile::load(path)?)? })
    }

    /// A token of role admin, good for ten minutes from `now`.
    pub fn token(&self, now: TimeMs) -> String {
        let subject = TokenSubject { sub: "admin".into(), name: "admin".into(), session: None, secret: None };
        self.signer.sign(Purpose::Admin, subject, now, TimeMs(now.0 + TOKEN_LIFETIME_MS))
    }
}
