//! What rows take in memory beside their own size.

use crate::state::{ConversationRow, InboxRow, MemberRow, NameRow, OutboxRow, RelationRow, UserRow};

/// Something that may hold memory of its own.
pub trait Weigh {
    /// Bytes it holds beside its own size, about.
    fn heap_bytes(&self) -> usize;
}

impl Weigh for ConversationRow {
    fn heap_bytes(&self) -> usize {
        let group = self.group.as_ref().map_or(0, |group| size_of_val(&**group) + group.name.len());
        group + self.upkeep.as_ref().map_or(0, |upkeep| size_of_val(&**upkeep) + size_of_val(&upkeep.recalled[..]))
    }
}

impl Weigh for MemberRow {
    fn heap_bytes(&self) -> usize {
        if self.intervals.spilled() { size_of_val(&self.intervals[..]) } else { 0 }
    }
}

impl Weigh for UserRow {
    fn heap_bytes(&self) -> usize {
        self.name.len() + self.password_phc.len() + size_of_val(&self.sessions[..])
    }
}

/// A name's row is found under the name, which is held too.
impl Weigh for NameRow {
    fn heap_bytes(&self) -> usize {
        32
    }
}

impl Weigh for RelationRow {
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Weigh for OutboxRow {
    fn heap_bytes(&self) -> usize {
        self.effects.len() * size_of::<crate::Effect>()
    }
}

impl Weigh for InboxRow {
    fn heap_bytes(&self) -> usize {
        0
    }
}
