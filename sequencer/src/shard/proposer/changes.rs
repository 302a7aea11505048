//! What a change of a group has to know of its members before it is proposed: the answer of an earlier attempt, or who gets the group.
//!
//! What always holds: what is in memory is looked at on the spot; a read of a file never holds up the proposer; what is under way
//! for one change is asked for once. Apply goes on meanwhile; what it changes it checks itself.

use std::sync::Arc;

use hashbrown::HashMap;
use logstore::id::{BodyHash, ConnectionId, UserId};

use crate::runtime;
use crate::shard::Capacity;
use crate::shard::core::ShardCore;
use crate::shard::proposer::old_ids::{NotNow, OldId};
use crate::shard::proposer::{News, Proposer};
use crate::state::{Brought, HeirSearch, Look};
use crate::{GroupChange, Outcome, Refusal, Result, Stored};

/// Members looked at under one lock when a group's owner leaves: apply waits for some 100 us.
const HEIR_ROWS_PER_STEP: usize = 1024;

/// What was found.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// The change was accepted before: its answer.
    Repeated(std::result::Result<Outcome, Refusal>),
    /// Who gets the group if its owner leaves by the change; 0: nobody.
    Heir(UserId),
}

/// The reads of one proposer.
#[derive(Default)]
pub(super) struct Changes {
    /// What is read now, and what was found and not fetched yet. Each holds back a command, whose number is bounded.
    reads: HashMap<OldId, Option<std::result::Result<Found, Capacity>>>,
}

impl Changes {
    /// What there is to know of a change; `accepted`: what an earlier attempt under its id has become.
    pub(super) fn find(
        &mut self,
        core: &Arc<ShardCore>,
        proposer: &Arc<Proposer>,
        (id, connection): (OldId, ConnectionId),
        change: &GroupChange,
        accepted: Option<(Stored, BodyHash)>,
    ) -> std::result::Result<Found, NotNow> {
        match self.reads.get(&id) {
            Some(None) => return Err(NotNow::Wait),
            Some(Some(_)) => {
                let done = self.reads.remove(&id).flatten().unwrap_or(Err(Capacity::QueueFull));
                return done.map_err(NotNow::Refused);
            }
            None => {}
        }
        if let Some(found) = in_memory(core, change, accepted) {
            return Ok(found);
        }
        self.reads.insert(id, None);
        read(core.clone(), proposer.clone(), (id, connection), change.clone(), accepted);
        Err(NotNow::Wait)
    }

    /// A read has ended; whoever waits for it asks again.
    pub(super) fn read(&mut self, id: OldId, answer: std::result::Result<Found, Capacity>) {
        if let Some(read) = self.reads.get_mut(&id) {
            *read = Some(answer);
        }
    }

    /// Nobody waits any more.
    pub(super) fn forget(&mut self) {
        self.reads.clear();
    }
}

fn in_memory(core: &ShardCore, change: &GroupChange, accepted: Option<(Stored, BodyHash)>) -> Option<Found> {
    if let Some((stored, asked)) = accepted {
        return try_look(core, |state| state.repeated_change(change, stored.seq, asked)).map(Found::Repeated);
    }
    let Some(mut search) = try_look(core, |state| HeirSearch::begin(state, change))? else {
        return Some(Found::Heir(UserId(0)));
    };
    while try_look(core, |state| search.step(state, HEIR_ROWS_PER_STEP))? {}
    Some(Found::Heir(search.heir()))
}

fn try_look<T>(core: &ShardCore, look: impl FnOnce(&Look<'_>) -> T) -> Option<T> {
    core.try_look(&mut Brought::default(), |state, _| look(state)).ok()
}

/// Looks below memory, too, and tells the proposer.
fn read(
    core: Arc<ShardCore>,
    proposer: Arc<Proposer>,
    (id, connection): (OldId, ConnectionId),
    change: GroupChange,
    accepted: Option<(Stored, BodyHash)>,
) {
    runtime::spawn(async move {
        let answer = below_memory(&core, &change, accepted).await.map_err(|error| {
            tracing::error!(group = %change.group, %error, "members of a group that changes cannot be read");
            Capacity::QueueFull
        });
        proposer.tell([News::FoundOfChange(id, connection, answer)]);
        proposer.wake.notify_one();
    });
}

async fn below_memory(
    core: &Arc<ShardCore>,
    change: &GroupChange,
    accepted: Option<(Stored, BodyHash)>,
) -> Result<Found> {
    if let Some((stored, asked)) = accepted {
        return core.look(|state, _| state.repeated_change(change, stored.seq, asked)).await.map(Found::Repeated);
    }
    let Some(mut search) = core.look(|state, _| HeirSearch::begin(state, change)).await? else {
        return Ok(Found::Heir(UserId(0)));
    };
    while core.look(|state, _| search.step(state, HEIR_ROWS_PER_STEP)).await? {}
    Ok(Found::Heir(search.heir()))
}
