//! Who gets a group when its owner leaves.
//!
//! That takes a look at all of its members, which apply must not make: the proposer looks, a bounded number of rows at
//! a time, and puts the heir into the command. What always holds: apply makes an owner of nobody who is not a member
//! after the change, so an heir who went between the look and apply is sought again.

use std::collections::BTreeSet;

use logstore::id::{SeqId, UserId};

use super::{Look, Role};
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
    pub fn begin(state: &Look<'_>, change: &'a GroupChange) -> Option<HeirSearch<'a>> {
        let owner = state.conversation(change.group)?.group.as_ref()?.owner;
        let leaves = change.actor == owner && change.remove.contains(&owner);
        let removed = || change.remove.iter().copied().collect();
        leaves.then(|| HeirSearch { change, removed: removed(), after: UserId(0), best: None })
    }

    /// Looks at `rows_max` more members; whether there may be more. Of a look that is not complete nothing is taken over, and the same
    /// members are looked at again.
    pub fn step(&mut self, state: &Look<'_>, rows_max: usize) -> bool {
        let next = state.members_after(self.change.group, self.after, rows_max);
        let best = next.users.iter().filter_map(|&user| self.rank(state, user)).chain(self.best).min();
        if !state.is_complete() {
            return true;
        }
        self.best = best;
        self.after = next.next_after.unwrap_or(self.after);
        next.next_after.is_some()
    }

    /// The heir among those looked at; if none of them stays, one of those who come. 0: nobody.
    pub fn heir(&self) -> UserId {
        let coming = || self.change.add.iter().copied().min();
        self.best.map(|(.., user)| user).or_else(coming).unwrap_or_default()
    }

    fn rank(&self, state: &Look<'_>, user: UserId) -> Option<Rank> {
        let row = state.member(self.change.group, user)?;
        let since = row.intervals.last()?.join;
        let stays = row.is_active() && !self.removed.contains(&user);
        stays.then_some((row.role != Role::Admin, since, user))
    }
}
