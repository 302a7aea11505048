//! Who gets a group when its owner leaves.
//!
//! That takes a look at all of its members, which apply must not make: the proposer looks, a bounded number of rows at
//! a time, and puts the heir into the command. What always holds: apply makes an owner of nobody who is not a member
//! after the change, so an heir who went between the look and apply is sought again.

use std::collections::BTreeSet;

use logstore::id::{SeqId, UserId};

use super::{Role, ShardState};
use crate::GroupChange;

/// A search for the longest-standing admin, else member; lowest user id among equals.
#[derive(Debug)]
pub struct HeirSearch<'a> {
    change: &'a GroupChange,
    removed: BTreeSet<UserId>,
    /// Looked at up to here.
    after: UserId,
    best: Option<Rank>,
}

/// Lower is better: whether no admin, since when a member, who.
type Rank = (bool, SeqId, UserId);

impl<'a> HeirSearch<'a> {
    /// The search that a change makes necessary, if it does: its actor owns the group and leaves it.
    pub fn begin(state: &ShardState, change: &'a GroupChange) -> Option<HeirSearch<'a>> {
        let owner = state.conversation(change.group)?.group.as_ref()?.owner;
        let leaves = change.actor == owner && change.remove.contains(&owner);
        let removed = || change.remove.iter().copied().collect();
        leaves.then(|| HeirSearch { change, removed: removed(), after: UserId(0), best: None })
    }

    /// Looks at `rows_max` more members; whether there may be more.
    pub fn step(&mut self, state: &ShardState, rows_max: usize) -> bool {
        let users = state.index.users_of(self.change.group);
        let rest = &users[users.partition_point(|user| *user <= self.after)..];
        for &user in rest.iter().take(rows_max) {
            self.after = user;
            let rank = self.rank(state, user);
            self.best = self.best.into_iter().chain(rank).min();
        }
        rest.len() > rows_max
    }

    /// The heir among those looked at; if none of them stays, one of those who come. 0: nobody.
    pub fn heir(&self) -> UserId {
        let coming = || self.change.add.iter().copied().min();
        self.best.map(|(.., user)| user).or_else(coming).unwrap_or_default()
    }

    fn rank(&self, state: &ShardState, user: UserId) -> Option<Rank> {
        let row = state.member(self.change.group, user)?;
        let since = row.intervals.last()?.join;
        let stays = row.is_active() && !self.removed.contains(&user);
        stays.then_some((row.role != Role::Admin, since, user))
    }
}
