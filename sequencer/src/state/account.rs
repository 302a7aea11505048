//! Names, accounts and sessions.
//!
//! ```text
//!  the name's shard                    the account's home
//!  ClaimName ──────CreateAccount────────▶ UserRow
//!      │     ◀─────ConfirmName──────────────┘
//!   confirmed
//! ```
//!
//! What always holds: a name has one account at a time; a session whose secret was presented twice is over for ever.

use logstore::id::{ClientMsgId, ConversationId, TimeMs, UserId};

use super::direct::is_user;
use super::{NameRow, SessionRow, ShardState, UserRow, name_home};
use crate::{AccountSeed, Applied, Effect, Outcome, Refusal};

impl ShardState {
    pub(super) fn claim_name(
        &mut self,
        name: String,
        seed: AccountSeed,
        request: ClientMsgId,
        out: &mut Applied,
    ) -> Result<Outcome, Refusal> {
        self.check_owned(name_home(&name))?;
        match self.names.get(name.as_str()) {
            Some(row) if row.request == request => {
                return Ok(Outcome::Claimed { user: row.user, confirmed: row.confirmed });
            }
            Some(row) if !row.is_over(self.own.time) => return Err(Refusal::NameTaken),
            _ => {}
        }
        let user = self.own.next_user_id();
        let home = ConversationId::system(user);
        self.check_room(self.target(home)?)?;
        self.names.insert(name.clone(), NameRow { user, request, confirmed: false, claimed: self.own.time });
        self.emit(home, Effect::CreateAccount { user, name, seed }, out);
        Ok(Outcome::Claimed { user, confirmed: false })
    }

    pub(super) fn create_account(&mut self, user: UserId, name: String, seed: AccountSeed, out: &mut Applied) {
        if !is_user(user) || self.user(user).is_some() {
            return;
        }
        let row = UserRow {
            name: name.clone(),
            password_phc: seed.password_phc,
            created: self.own.time,
            sessions: Vec::new(),
        };
        self.users.insert(user, row);
        self.emit(name_home(&name), Effect::ConfirmName { name, user }, out);
    }

    /// The account exists. A claim that ended meanwhile and was taken over stays with its new account.
    pub(super) fn confirm_name(&mut self, name: &str, user: UserId) {
        if let Some(row) = self.names.get_mut(&name.to_owned()).filter(|row| row.user == user) {
            row.confirmed = true;
        }
    }

    pub(super) fn open_session(
        &mut self,
        user: UserId,
        session: u64,
        refresh_hash: [u8; 32],
        expires: TimeMs,
    ) -> Result<Outcome, Refusal> {
        self.check_owned(ConversationId::system(user))?;
        let now = self.own.time;
        let row = self.users.get_mut(&user).ok_or(Refusal::NoSuchUser)?;
        row.sessions.retain(|old| old.session != session && old.expires > now);
        if row.sessions.len() >= UserRow::SESSIONS_MAX {
            row.sessions.remove(0);
        }
        row.sessions.push(SessionRow { session, refresh_hash, previous_hash: [0; 32], expires });
        Ok(Outcome::Session)
    }

    pub(super) fn rotate_session(
        &mut self,
        user: UserId,
        session: u64,
        presented: [u8; 32],
        next: [u8; 32],
        expires: TimeMs,
    ) -> Result<Outcome, Refusal> {
        self.check_owned(ConversationId::system(user))?;
        let now = self.own.time;
        let row = self.users.get_mut(&user).ok_or(Refusal::NoSuchUser)?;
        let found = row.sessions.iter().position(|row| row.session == session).ok_or(Refusal::SessionOver)?;
        let open = &mut row.sessions[found];
        match () {
            () if open.expires <= now => {}
            () if open.refresh_hash == presented => {
                *open = SessionRow { session, refresh_hash: next, previous_hash: presented, expires };
                return Ok(Outcome::Session);
            }
            // The very same exchange, proposed again: nobody else can know the next secret.
            () if open.previous_hash == presented && open.refresh_hash == next => return Ok(Outcome::Session),
            // A secret used before: whoever holds the session now, one of the two has stolen it.
            () if open.previous_hash == presented => {}
            () => return Err(Refusal::SessionOver),
        }
        row.sessions.remove(found);
        Err(Refusal::SessionOver)
    }
}

impl NameRow {
    /// Whether the claim has ended without an account.
    pub(super) fn is_over(&self, now: TimeMs) -> bool {
        !self.confirmed && now.0 > self.claimed.0.saturating_add(NameRow::CLAIM_MS)
    }
}
