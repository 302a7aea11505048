//! Accounts: names, passwords, sessions.

use std::sync::Arc;
use std::time::Duration;

use logstore::id::{ClientMsgId, TimeMs, UserId};
use sequencer::state::{Look, name_home};
use sequencer::{AccountSeed, Command, Outcome, Shard};

use super::import;
use super::password::{Passwords, check_length};
use super::{Core, EFFECTS_WAIT, is_user_id, name, timeout};
use crate::{Code, Fault};

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

/// How long a session lasts that is not refreshed: a month's holiday does not sign anybody out.
const SESSION_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// The rules of accounts.
pub struct Accounts {
    core: Arc<Core>,
    passwords: Passwords,
}

impl Accounts {
    pub(super) fn new(core: Arc<Core>) -> Accounts {
        let passwords = Passwords::new(&core.limits);
        Accounts { core, passwords }
    }

    /// Creates an account and opens a session. `request` makes a retry the same registration.
    pub async fn register(&self, name: &str, password: &str, request: ClientMsgId) -> Result<SessionGrant, Fault> {
        name::check_account(name, &self.core.limits)?;
        check_length(password, &self.core.limits)?;
        self.check_free(name, request).await?;
        let phc = self.passwords.hash(password).await?;
        let seed = AccountSeed { password_phc: phc.clone() };
        let claim = Command::ClaimName { name: name.to_owned(), seed, request };
        let user = match self.core.execute(self.name_shard(name), claim).await? {
            Outcome::Claimed { user, .. } => user,
            other => return Err(unexpected(&other)),
        };
        self.wait_until_confirmed(name, user).await?;
        self.check_own(user, password, &phc).await?;
        self.open_session(user, name).await
    }

    /// Verifies a password and opens a session.
    pub async fn login(&self, name: &str, password: &str) -> Result<SessionGrant, Fault> {
        if password.len() as u64 > self.core.limits.password_bytes {
            return Err(bad_credentials());
        }
        let user = self.confirmed(name).await?;
        let phc = match user {
            Some(user) => self.password_of(user).await?,
            None => None,
        };
        match (user, self.passwords.verify(password, phc).await?) {
            (Some(user), true) => self.open_session(user, name).await,
            _ => Err(bad_credentials()),
        }
    }

    /// Exchanges a refresh secret for the next.
    pub async fn refresh(&self, user: UserId, session: u64, secret: [u8; 32]) -> Result<SessionGrant, Fault> {
        let name = self.name_of(user).await?.ok_or_else(|| Fault::from(sequencer::Refusal::SessionOver))?;
        let next: [u8; 32] = rand::random();
        let expires = self.session_end();
        let rotate = Command::RotateSession {
            user,
            session,
            presented: secret_hash(&secret),
            next: secret_hash(&next),
            expires,
        };
        self.core.execute(self.core.home_of(user), rotate).await?;
        Ok(SessionGrant { user, name, session, secret: next, expires })
    }

    /// Creates accounts without opening sessions (administration): existing names are answered with their accounts.
    pub async fn import(&self, accounts: Vec<(String, String)>) -> Vec<Result<UserId, Fault>> {
        import::run(&self.core, accounts).await
    }

    /// Accounts by exact name; unknown ones are absent. `TooMany` above `limits.find_users`.
    pub async fn find_names(&self, names: &[String]) -> Result<Vec<(UserId, String)>, Fault> {
        self.check_find(names.len())?;
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            found.extend(self.confirmed(name).await?.map(|user| (user, name.clone())));
        }
        Ok(found)
    }

    /// Accounts by id; unknown ones are absent. `TooMany` above `limits.find_users`.
    pub async fn find_ids(&self, ids: &[UserId]) -> Result<Vec<(UserId, String)>, Fault> {
        self.check_find(ids.len())?;
        let mut found = Vec::with_capacity(ids.len());
        for &id in ids {
            found.extend(self.name_of(id).await?.map(|name| (id, name)));
        }
        Ok(found)
    }

    fn check_find(&self, asked: usize) -> Result<(), Fault> {
        let most = self.core.limits.find_users;
        let fits = asked as u64 <= most;
        fits.then_some(()).ok_or_else(|| Fault::new(Code::TooMany, format!("at most {most} users a look-up")))
    }

    /// Refuses early, before a hash is paid for, a name that another account has.
    async fn check_free(&self, name: &str, request: ClientMsgId) -> Result<(), Fault> {
        let taken = |state: &Look<'_>| state.name(name).is_some_and(|row| row.confirmed && row.request != request);
        if self.name_shard(name).look(|state, _| taken(state)).await? {
            return Err(sequencer::Refusal::NameTaken.into());
        }
        Ok(())
    }

    async fn wait_until_confirmed(&self, name: &str, user: UserId) -> Result<(), Fault> {
        let confirmed = |state: &Look<'_>| state.name(name).filter(|row| row.user == user && row.confirmed).map(|_| ());
        let there = |state: &Look<'_>| state.user(user).map(|_| ());
        let claimed = self.name_shard(name).wait_for(EFFECTS_WAIT, confirmed).await;
        let created = self.core.home_of(user).wait_for(EFFECTS_WAIT, there).await;
        claimed.and(created).ok_or_else(|| timeout("creating the account"))
    }

    /// A retried registration finds the account of its first attempt: it is the caller's only with the same password.
    async fn check_own(&self, user: UserId, password: &str, phc: &str) -> Result<(), Fault> {
        let kept = self.password_of(user).await?;
        if kept.as_deref() == Some(phc) || self.passwords.verify(password, kept).await? {
            return Ok(());
        }
        Err(bad_credentials())
    }

    async fn open_session(&self, user: UserId, name: &str) -> Result<SessionGrant, Fault> {
        let (session, secret): (u64, [u8; 32]) = rand::random();
        let expires = self.session_end();
        let open = Command::OpenSession { user, session, refresh_hash: secret_hash(&secret), expires };
        self.core.execute(self.core.home_of(user), open).await?;
        Ok(SessionGrant { user, name: name.to_owned(), session, secret, expires })
    }

    fn session_end(&self) -> TimeMs {
        TimeMs(self.core.clock.now().0 + SESSION_LIFETIME.as_millis() as u64)
    }

    fn name_shard(&self, name: &str) -> &Arc<Shard> {
        self.core.shard_of(name_home(name))
    }

    /// The account of a name, once it exists.
    async fn confirmed(&self, name: &str) -> Result<Option<UserId>, Fault> {
        let shard = self.name_shard(name);
        Ok(shard.look(|state, _| state.name(name).filter(|row| row.confirmed).map(|row| row.user)).await?)
    }

    async fn name_of(&self, user: UserId) -> Result<Option<String>, Fault> {
        if !is_user_id(user) {
            return Ok(None);
        }
        Ok(self.core.home_of(user).look(|state, _| state.user(user).map(|row| row.name.clone())).await?)
    }

    async fn password_of(&self, user: UserId) -> Result<Option<String>, Fault> {
        Ok(self.core.home_of(user).look(|state, _| state.user(user).map(|row| row.password_phc.clone())).await?)
    }
}

/// What is kept of a refresh secret. The secret is 32 random bytes: a plain hash of it cannot be guessed back.
fn secret_hash(secret: &[u8; 32]) -> [u8; 32] {
    *blake3::hash(secret).as_bytes()
}

/// Said for a wrong password and for a name nobody has.
fn bad_credentials() -> Fault {
    Fault::new(Code::BadCredentials, "wrong name or password")
}

/// An outcome no such command has.
pub(super) fn unexpected(outcome: &Outcome) -> Fault {
    tracing::error!(?outcome, "an outcome that does not belong to its command");
    Fault::new(Code::Internal, "the log answered something else")
}
