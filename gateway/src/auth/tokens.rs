//! What the gateway's connections ask of tokens, answered by the node's keys.

use std::time::Duration;

use fanout::service::SessionGrant;
use fanout::{Code, Fault};
use logstore::id::{TimeMs, UserId};

use super::ring::{KeyRing, RefreshBearer, TokenError};
use crate::session::{Claims, Issued, Tokens};

/// The node's keys with the lifetimes of its configuration.
pub struct NodeTokens {
    ring: KeyRing,
    access_lifetime: Duration,
    /// No token is good for longer than this.
    lifetime_max: Duration,
}

impl NodeTokens {
    /// Tokens of `ring`, access tokens good for `access_lifetime` and none for longer than `lifetime_max`.
    pub fn new(ring: KeyRing, access_lifetime: Duration, lifetime_max: Duration) -> NodeTokens {
        NodeTokens { ring, access_lifetime, lifetime_max }
    }

    fn access(&self, user: UserId, name: &str, lifetime: Duration, now: TimeMs) -> Issued {
        // Tokens count in seconds: what the client is told must be what the token says.
        let expires = TimeMs((now.0 / 1000 + lifetime.as_secs()) * 1000);
        Issued {
            user,
            name: name.into(),
            access_token: self.ring.issue_access(user, name, now, expires),
            refresh_token: String::new(),
            access_expires: expires,
        }
    }
}

impl Tokens for NodeTokens {
    fn verify(&self, token: &str, now: TimeMs) -> Result<Claims, Fault> {
        self.ring.verify_access(token, now).map_err(fault)
    }

    fn issue(&self, grant: &SessionGrant, now: TimeMs) -> Issued {
        let bearer = RefreshBearer { user: grant.user, session: grant.session, secret: grant.secret };
        let expires = grant.expires.min(TimeMs(now.0 + self.lifetime_max.as_millis() as u64));
        let refresh_token = self.ring.issue_refresh(&bearer, now, expires);
        Issued { refresh_token, ..self.access(grant.user, &grant.name, self.access_lifetime, now) }
    }

    fn verify_refresh(&self, token: &str, now: TimeMs) -> Result<(UserId, u64, [u8; 32]), Fault> {
        let bearer = self.ring.verify_refresh(token, now).map_err(fault)?;
        Ok((bearer.user, bearer.session, bearer.secret))
    }

    fn mint(&self, user: UserId, name: &str, lifetime_ms: u64, now: TimeMs) -> Issued {
        let asked = if lifetime_ms == 0 { self.access_lifetime } else { Duration::from_millis(lifetime_ms) };
        self.access(user, name, asked.clamp(Duration::from_secs(1), self.lifetime_max), now)
    }
}

fn fault(error: TokenError) -> Fault {
    Fault::new(Code::Unauthenticated, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::KeyFile;
    use crate::session::Role;

    const NOW: TimeMs = TimeMs(1_760_000_000_123);

    fn tokens() -> NodeTokens {
        let dir = tempfile::tempdir().unwrap();
        let key = |name: &str| KeyFile::create(&dir.path().join(name), false).unwrap();
        let ring = KeyRing::new(&key("token.pem"), None, &key("admin.pem")).unwrap();
        NodeTokens::new(ring, Duration::from_secs(900), Duration::from_secs(86_400))
    }

    #[test]
    fn a_session_gets_a_pair_and_each_says_what_it_should() {
        let tokens = tokens();
        let expires = TimeMs(NOW.0 + 1_000_000);
        let grant = SessionGrant { user: UserId(7), name: "alice".into(), session: 3, secret: [4; 32], expires };
        let issued = tokens.issue(&grant, NOW);
        let claims = tokens.verify(&issued.access_token, NOW).unwrap();
        assert_eq!((claims.user, claims.role, claims.expires), (UserId(7), Role::User, issued.access_expires));
        assert_eq!(tokens.verify_refresh(&issued.refresh_token, NOW), Ok((UserId(7), 3, [4; 32])));
    }

    #[test]
    fn a_refresh_token_ends_when_the_configuration_says_even_if_the_session_lasts() {
        let tokens = tokens();
        let grant =
            SessionGrant { user: UserId(7), name: "a".into(), session: 3, secret: [4; 32], expires: TimeMs(u64::MAX) };
        let token = tokens.issue(&grant, NOW).refresh_token;
        assert!(tokens.verify_refresh(&token, TimeMs(NOW.0 + 86_399_000)).is_ok());
        assert!(tokens.verify_refresh(&token, TimeMs(NOW.0 + 86_406_000)).is_err());
    }

    #[test]
    fn a_minted_token_lasts_as_asked_within_bounds() {
        let tokens = tokens();
        for (asked_ms, seconds) in [(0, 900), (60_000, 60), (1, 1), (u64::MAX, 86_400)] {
            let issued = tokens.mint(UserId(7), "alice", asked_ms, NOW);
            assert_eq!(issued.access_expires.0, (NOW.0 / 1000 + seconds) * 1000, "{asked_ms}");
            assert!(issued.refresh_token.is_empty());
        }
    }

    #[test]
    fn every_refusal_reads_the_same() {
        let tokens = tokens();
        let over = tokens.mint(UserId(7), "alice", 1000, TimeMs(NOW.0 - 60_000)).access_token;
        let faults = ["", "x.y.z", &over].map(|token| tokens.verify(token, NOW).unwrap_err());
        assert!(faults.iter().all(|fault| *fault == faults[0] && fault.code == Code::Unauthenticated));
    }
}
