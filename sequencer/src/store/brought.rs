//! Reads what a look at applied state is missing.

use std::io;

use logstore::id::{ConversationId, UserId};

use super::{Row, StateSource};
use crate::state::{Brought, Key, MembersRun, Missing, SealedMembers};

/// Rows read from below memory at once.
const ROWS_AT_ONCE: usize = 1024;

impl Brought {
    /// Reads what is missing. May block: not for async workers.
    pub fn bring(&mut self, missing: Missing, below: &dyn StateSource) -> io::Result<()> {
        // Asked first: what is read then speaks of this generation or of a newer one.
        let as_of = below.generation();
        let is_empty = self.rows.is_empty() && self.places.is_empty() && self.members.is_empty();
        self.as_of = if is_empty { as_of } else { self.as_of.min(as_of) };
        for user in missing.places {
            self.bring_places(user, below)?;
        }
        for run in missing.members {
            self.bring_members(run, below)?;
        }
        for key in missing.rows {
            if !self.rows.contains_key(&key) {
                let row = below.load(&key)?;
                self.rows.insert(key, row);
            }
        }
        Ok(())
    }

    fn bring_places(&mut self, user: UserId, below: &dyn StateSource) -> io::Result<()> {
        let prefix = Key::Place(user, ConversationId(0)).encode();
        let prefix = &prefix[..prefix.len() - size_of::<ConversationId>()];
        let (mut places, mut after) = (Vec::new(), None);
        loop {
            let run = below.scan(prefix, after.as_deref(), ROWS_AT_ONCE)?;
            places.extend(run.rows.iter().filter_map(|(key, _)| match key {
                Key::Place(_, conversation) => Some(*conversation),
                _ => None,
            }));
            after = match run.next_after {
                Some(after) => Some(after),
                None => break,
            };
        }
        self.places.insert(user, places);
        Ok(())
    }

    fn bring_members(&mut self, run: MembersRun, below: &dyn StateSource) -> io::Result<()> {
        let MembersRun { group, after, rows_max } = run;
        let from = Key::Member(group, after).encode();
        let prefix = &from[..from.len() - size_of::<UserId>()];
        let read = below.scan(prefix, Some(&from), rows_max)?;
        let upto = read.next_after.as_deref().map(|last| match Key::decode(last) {
            Ok(Key::Member(_, user)) => user,
            _ => after,
        });
        let mut users = Vec::with_capacity(read.rows.len());
        for (key, row) in read.rows {
            if let (&Key::Member(_, user), Row::Member(_)) = (&key, &row) {
                users.push(user);
                self.rows.insert(key, Some(row));
            }
        }
        self.members.insert(run, SealedMembers { users, upto });
        Ok(())
    }
}
