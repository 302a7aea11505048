//! Whose messages are being erased in this shard.
//!
//! What always holds: users ascend; one is listed until nothing on any replica decodes to a message of theirs, and until then every
//! reader leaves its body out.

use std::sync::Arc;

use logstore::id::{LogIndex, TimeMs, UserId};

use crate::Refusal;

/// The messages of one user, up to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Erasure {
    /// Who sent them.
    pub user: UserId,
    /// The entry that asked for it: later messages stay.
    pub upto: LogIndex,
    /// The log time of that entry.
    pub asked: TimeMs,
}

/// A note that a user's messages were erased. It stays when the erasure is done: what is restored or imported is erased again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErasedRow {
    /// The entry that asked for it.
    pub upto: LogIndex,
    /// The log time of that entry.
    pub asked: TimeMs,
}

/// The erasures of a shard that are not done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Erasures(Arc<Vec<Erasure>>);

impl Erasures {
    /// Most at once: 24 KiB of the shard's row. Each takes as long as it takes to write its segments anew.
    pub const MAX: usize = 1024;

    /// The erasures of this list, if it could be one.
    pub fn of(list: Vec<Erasure>) -> Option<Erasures> {
        let ascends = list.windows(2).all(|pair| pair[0].user < pair[1].user);
        (ascends && list.len() <= Erasures::MAX).then(|| Erasures(Arc::new(list)))
    }

    /// Those that are not done, ascending by user.
    pub fn list(&self) -> &[Erasure] {
        &self.0
    }

    /// Whether a record of this sender and entry is to be erased.
    pub fn has_removed(&self, sender: UserId, index: LogIndex) -> bool {
        !self.0.is_empty() && self.find(sender).is_ok_and(|place| index <= self.0[place].upto)
    }

    /// Begins an erasure, or extends one.
    pub(super) fn begin(&mut self, new: Erasure) -> Result<(), Refusal> {
        let place = self.find(new.user);
        if place.is_err() && self.0.len() >= Erasures::MAX {
            return Err(Refusal::LimitReached);
        }
        let list = Arc::make_mut(&mut self.0);
        match place {
            Ok(place) => list[place] = new,
            Err(place) => list.insert(place, new),
        }
        Ok(())
    }

    /// Ends an erasure, unless it was extended meanwhile.
    pub(super) fn end(&mut self, user: UserId, upto: LogIndex) {
        if let Ok(place) = self.find(user)
            && self.0[place].upto <= upto
        {
            Arc::make_mut(&mut self.0).remove(place);
        }
    }

    fn find(&self, user: UserId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&user, |erasure| erasure.user)
    }
}
