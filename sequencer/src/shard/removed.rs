//! Bodies that readers are not shown: recalled, erased or trimmed, and not yet out of every file.
//!
//! What always holds: it is as of one look at the state; a record keeps its place, its ordinal and all of its head.

use std::sync::Arc;

use bytes::Bytes;
use logstore::BodyPlace;
use logstore::id::ConversationId;

use crate::shard::Record;
use crate::state::{Erasures, Look, Upkeep};

/// What was removed of one conversation.
pub(super) struct Removed {
    upkeep: Option<Arc<Upkeep>>,
    erasures: Erasures,
}

impl Removed {
    /// What a state says.
    pub(super) fn of(state: &Look<'_>, conversation: ConversationId) -> Removed {
        let upkeep = state.conversation(conversation).and_then(|row| row.upkeep.clone());
        Removed { upkeep, erasures: state.erasures().clone() }
    }

    /// A record as a reader may see it.
    pub(super) fn hide(&self, record: Record) -> Record {
        let Record { mut head, body } = record;
        let erased = !head.kind.is_made() && self.erasures.has_removed(head.sender, head.index);
        if erased || self.upkeep.as_ref().is_some_and(|upkeep| upkeep.has_removed(head.seq)) {
            head.body = BodyPlace::Removed;
            return Record { head, body: Bytes::new() };
        }
        Record { head, body }
    }
}
