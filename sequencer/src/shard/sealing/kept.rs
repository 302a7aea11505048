//! What the journal keeps of a shard although nobody here needs it: sealed entries, for saves to come.
//!
//! What always holds: the journal lets go no sooner than one Seal after the one that an entry was sealed by, so that whoever follows the tail
//! can resume from the last `Seal` but one. A shard that is asked to keep more does so only while files have a place for it: what lies in older ones
//! goes within a second, before it would be copied or hold another shard back. While something is being erased, on any shard, nothing is kept.

use logstore::id::LogIndex;

use crate::shard::Shard;

/// Lets the journal go of what nobody needs, but for what is to be kept.
pub(super) async fn let_go(shard: &Shard) {
    let unneeded = shard.core.sealing().unneeded();
    let upto = if is_keeping(shard) { without_place(shard).min(unneeded) } else { unneeded };
    let purged = shard.journal.shard_log(shard.id()).purged.map_or(LogIndex(0), |id| id.index);
    let Some(group) = shard.group.as_ref().filter(|_| upto > purged) else { return };
    if let Err(error) = group.purge(upto).await {
        tracing::warn!(shard = shard.id().0, %error, "the journal keeps what is sealed until the next segment");
    }
}

/// The same between two Seals: other shards fill files, too.
pub(super) async fn let_go_if_keeping(shard: &Shard) {
    if shard.keeps_sealed {
        let_go(shard).await;
    }
}

fn is_keeping(shard: &Shard) -> bool {
    shard.keeps_sealed && !shard.journal.zeroes_recycled()
}

fn without_place(shard: &Shard) -> LogIndex {
    shard.journal.without_place(shard.id()).unwrap_or(LogIndex(0))
}
