//! Proposes `Merge`: when enough segments of one level lie side by side.
//!
//! What always holds: one merge of a shard is under way at a time, from the proposal until this replica has carried it out; seals
//! of the dedup window are left alone, so that a start that reads their ids reads no large segment for them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use logstore::Manifest;
use logstore::id::SegmentOrdinal;
use logstore::merge::MergePolicy;

use super::merge;
use crate::raft::runtime;
use crate::shard::Shard;
use crate::state::{Layout, ShardState};
use crate::{Command, Outcome};

/// Merges become due when a seal is published; a new leader finds what the one before left after this at the latest.
const LOOK: Duration = Duration::from_secs(10);

/// The policy of a node that merges so many seals.
pub(crate) fn policy(merge_inputs: usize) -> MergePolicy {
    let inputs_max = Layout::INPUTS_MAX as usize;
    MergePolicy { seals_min: merge_inputs.clamp(2, inputs_max), seals_max: inputs_max, ..MergePolicy::default() }
}

/// Proposes the merges of one shard until it stops.
pub(crate) async fn run(shard: Arc<Shard>, policy: MergePolicy) {
    loop {
        let mut published = pin!(shard.core.sealing().published_signal().notified());
        published.as_mut().enable();
        if shard.core.is_stopped() {
            return;
        }
        if shard.group.leading_term().is_some()
            && let Some(command) = shard.read(|state, records| due(state, records.sealed().manifest(), &policy))
        {
            propose(&shard, command).await;
        }
        let _ = runtime::within(LOOK, published).await;
    }
}

async fn propose(shard: &Shard, command: Command) {
    let shown = format!("{command:?}");
    match shard.execute(command).await {
        Ok(Outcome::Done) => tracing::debug!(shard = shard.id().0, command = shown, "a merge is asked for"),
        Ok(outcome) => tracing::warn!(shard = shard.id().0, command = shown, ?outcome, "a merge is refused"),
        // Whoever leads sees it with the next seal.
        Err(why) => tracing::debug!(shard = shard.id().0, command = shown, ?why, "a merge is not taken now"),
    }
}

fn due(state: &ShardState, manifest: &Manifest, policy: &MergePolicy) -> Option<Command> {
    if merge::missing(state.layout(), manifest).next().is_some() {
        return None;
    }
    let window = state.window_parts().first().map_or(state.generation(), |part| part.generation);
    let old = manifest.segments().partition_point(|info| info.span.last < SegmentOrdinal(window));
    let (places, level) = policy.choose(&manifest.segments()[..old])?;
    let inputs = &manifest.segments()[places];
    let (first, last) = (inputs.first()?.span.first, inputs.last()?.span.last);
    Some(Command::Merge { first, last, level })
}
