//! What a shard's segments are about to become, for operators: plans that are due, and having them carried out now.

use logstore::id::{SegmentOrdinal, ShardId};
use logstore::segment::Level;

use crate::Result;
use crate::shard::{Shard, sealing};

/// A merge or rewrite that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactPlan {
    /// The shard.
    pub shard: ShardId,
    /// Seals from this one ...
    pub first: SegmentOrdinal,
    /// ... to this one.
    pub last: SegmentOrdinal,
    /// Segments that become one; 1: one is written once more.
    pub inputs: usize,
    /// Bytes of their files.
    pub bytes: u64,
    /// The level of what is made.
    pub level: Level,
    /// What was trimmed, recalled or erased by the Seal of this number is dropped; 0: nothing.
    pub drops: SegmentOrdinal,
    /// Whether the log has asked for it already.
    pub asked: bool,
}

impl Shard {
    /// The plans that are due, or would be if everything that waits to be dropped were dropped now. Reads files.
    pub async fn compact_plans(&self) -> Result<Vec<CompactPlan>> {
        sealing::compact_plans(self).await
    }

    /// Seals what there is, so that what was taken back a moment ago counts too, and then the same as [`Shard::compact`]. While that is
    /// under way another one changes nothing.
    pub async fn seal_and_compact(&self) -> Result<()> {
        if !self.core.sealing().is_compacting() {
            self.seal().await?;
            self.compact();
        }
        Ok(())
    }

    /// Has everything that waits to be dropped dropped now: merges and rewrites begin that would have come later. What is not sealed
    /// does not wait yet.
    pub fn compact(&self) {
        self.core.sealing().compact();
    }

    /// What erasures of this shard wait for, for people.
    pub fn erasing_waits_for(&self) -> &'static str {
        self.core.sealing().erasing()
    }
}
