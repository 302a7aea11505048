//! Opening 1:1s, and remembering which are open.
//!
//! A 1:1 is opened at its initiator's home; the peer's home and the conversation's own shard follow through the outbox.
//! What always holds: a 1:1 that is remembered as open is open for ever, so forgetting one costs a look-up and nothing
//! else.

use logstore::id::{ConversationId, UserId};
use parking_lot::RwLock;
use sequencer::state::{ConversationRow, Look};
use sequencer::{Command, Refusal};

use super::{Core, EFFECTS_WAIT, no_such_user, timeout};
use crate::Fault;

/// Open 1:1s remembered: 1 M of 16 bytes each, touched only as they fill. More than one node has active at once.
const REMEMBERED: usize = 1 << 20;

/// Which 1:1s are known to be open: a table of fixed size, two places for each.
pub(super) struct OpenDirects {
    places: RwLock<Vec<u128>>,
}

impl OpenDirects {
    pub fn new() -> OpenDirects {
        OpenDirects { places: RwLock::new(vec![0; REMEMBERED]) }
    }

    /// Whether all of these are known to be open without a read of a file.
    pub fn all_open(&self, core: &Core, directs: impl Iterator<Item = ConversationId>) -> bool {
        let unknown = self.unknown(directs);
        let is_open = |id: &ConversationId| {
            let row = core.shard_of(*id).look_in_memory(|state, _| state.direct_state(*id)).flatten();
            row.is_some_and(|row| row.is_open())
        };
        let (open, other): (Vec<_>, Vec<_>) = unknown.into_iter().partition(is_open);
        self.remember(&open);
        other.is_empty()
    }

    /// Those of `directs` that are not open.
    pub async fn not_open(
        &self,
        core: &Core,
        directs: impl Iterator<Item = ConversationId>,
    ) -> Result<Vec<ConversationId>, Fault> {
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        for id in self.unknown(directs) {
            let row = core.shard_of(id).look(|state, _| state.direct_state(id)).await?;
            if row.is_some_and(|row| row.is_open()) { open.push(id) } else { closed.push(id) }
        }
        self.remember(&open);
        Ok(closed)
    }

    /// Opens a 1:1, or finds it open.
    pub async fn open(&self, core: &Core, user: UserId, peer: UserId) -> Result<(), Fault> {
        if !core.exists(peer).await? {
            return Err(no_such_user());
        }
        let id = ConversationId::direct(user, peer);
        if self.not_open(core, std::iter::once(id)).await?.is_empty() {
            return Ok(());
        }
        core.execute(core.home_of(user), Command::OpenDirect { initiator: user, peer }).await?;
        // Both users exist, so it will open; that a home once said otherwise of a peer who came later means nothing.
        let known = |state: &Look<'_>| state.any_conversation(id).and_then(opened);
        core.shard_of(id).wait_for(EFFECTS_WAIT, known).await.ok_or_else(|| timeout("opening the conversation"))??;
        self.remember(&[id]);
        Ok(())
    }

    fn unknown(&self, directs: impl Iterator<Item = ConversationId>) -> Vec<ConversationId> {
        let mut directs = directs.peekable();
        if directs.peek().is_none() {
            return Vec::new();
        }
        let places = self.places.read();
        directs.filter(|id| !places_of(*id).iter().any(|&at| places[at] == id.0)).collect()
    }

    fn remember(&self, open: &[ConversationId]) {
        if open.is_empty() {
            return;
        }
        let mut places = self.places.write();
        for id in open {
            let [first, second] = places_of(*id);
            // The newer one takes the first place; what was there moves over.
            places[second] = std::mem::replace(&mut places[first], id.0);
        }
    }
}

/// Whether it is open, or why that is not to be waited for; `None`: not yet.
fn opened(row: &ConversationRow) -> Option<Result<(), Fault>> {
    match row.direct {
        _ if row.is_importing() => Some(Err(Refusal::Importing.into())),
        Some(direct) if direct.is_open() => Some(Ok(())),
        _ => None,
    }
}

/// The two neighbouring places of a conversation: one cache line.
fn places_of(id: ConversationId) -> [usize; 2] {
    let mixed = (id.0 as u64 ^ (id.0 >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let first = (mixed >> 44) as usize;
    [first, first ^ 1]
}

const _: () = assert!(REMEMBERED == 1 << (64 - 44), "a place is the top 20 bits of the mix");
