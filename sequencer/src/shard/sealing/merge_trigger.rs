//! Proposes `Merge`: when enough segments of one level lie side by side, or something in one waits to be dropped.
//!
//! What always holds: one merge of a shard is under way at a time, from the proposal until this replica has carried it out; seals
//! of the dedup window are left alone, so that a start that reads their ids reads no large segment for them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use logstore::Manifest;
use logstore::id::SegmentOrdinal;
use logstore::merge::MergePolicy;
use logstore::segment::{Level, SegmentInfo};

use super::merge;
use super::rewrites::{self, Rewrites};
use crate::runtime;
use crate::shard::{CompactPlan, Shard};
use crate::state::{Layout, MergedSpan, ShardState};
use crate::{Clock, Command, Outcome, Result};

/// Merges become due when a seal is published; a new leader finds what the one before left after this at the latest.
const LOOK: Duration = Duration::from_secs(10);

/// When a node's segments are merged or written once more.
#[derive(Clone)]
pub(crate) struct MergeWhen {
    policy: MergePolicy,
    /// Bodies that wait to be dropped wait no longer than this for a merge.
    drop_within: Duration,
    clock: Arc<dyn Clock>,
}

impl MergeWhen {
    /// Merges of so many seals.
    pub(crate) fn new(merge_inputs: usize, drop_within: Duration, clock: Arc<dyn Clock>) -> MergeWhen {
        let inputs_max = Layout::INPUTS_MAX as usize;
        let policy = MergePolicy {
            seals_min: merge_inputs.clamp(2, inputs_max),
            seals_max: inputs_max,
            ..MergePolicy::default()
        };
        MergeWhen { policy, drop_within, clock }
    }
}

/// Proposes the merges and rewrites of one shard until it stops.
pub(crate) async fn run(shard: Arc<Shard>, when: MergeWhen) {
    let mut rewrites = Rewrites::new(when.drop_within);
    loop {
        let mut published = pin!(shard.core.sealing().published_signal().notified());
        published.as_mut().enable();
        if shard.core.is_stopped() {
            return;
        }
        if shard.leads() {
            for command in next(&shard, &mut rewrites, &when).await {
                propose(&shard, command).await;
            }
        }
        let _ = runtime::within(LOOK, published).await;
    }
}

/// The merge that is due, else the rewrites.
async fn next(shard: &Shard, rewrites: &mut Rewrites, when: &MergeWhen) -> Vec<Command> {
    let merge = shard.read(|state, records| due(state, records.sealed().manifest(), &when.policy));
    if let Some(merge) = merge {
        // Whoever waits for it does not wait for the next Seal as well.
        let seal = shard.core.sealing().is_compacting().then_some(Command::Seal);
        return [merge].into_iter().chain(seal).collect();
    }
    match rewrites.due(shard, when.clock.now()).await {
        Ok(commands) => commands,
        Err(error) => {
            tracing::warn!(shard = shard.id().0, %error, "what waits to be dropped cannot be looked for");
            Vec::new()
        }
    }
}

/// The plans that are due, for operators: asked for, by policy, and of what waits to be dropped.
pub(crate) async fn compact_plans(shard: &Shard) -> Result<Vec<CompactPlan>> {
    let (waiting, _) = rewrites::waiting(shard).await?;
    Ok(shard.read(|state, records| {
        let (layout, manifest) = (state.layout(), records.sealed().manifest());
        let asked = merge::missing(layout, manifest).map(|span| Span::of(span, true));
        let mut spans: Vec<Span> = asked.collect();
        let by_policy = due(state, manifest, &shard.merge_when.policy).and_then(|command| Span::asked_by(&command));
        let drops = SegmentOrdinal(state.generation() - 1);
        let rewrites = waiting.iter().filter_map(|waiting| {
            let span = manifest.segments()[manifest.position(waiting.segment)?].span;
            Some(Span { first: span.first, last: span.last, level: span.level, drops, asked: false })
        });
        for span in by_policy.into_iter().chain(rewrites) {
            if !spans.iter().any(|other| other.first <= span.first && span.last <= other.last) {
                spans.push(span);
            }
        }
        spans.iter().map(|span| span.plan(manifest)).collect()
    }))
}

/// Seals that are to be one segment.
struct Span {
    first: SegmentOrdinal,
    last: SegmentOrdinal,
    level: Level,
    drops: SegmentOrdinal,
    asked: bool,
}

impl Span {
    fn of(span: &MergedSpan, asked: bool) -> Span {
        Span { first: span.first, last: span.last, level: span.level, drops: span.drops, asked }
    }

    fn asked_by(command: &Command) -> Option<Span> {
        let Command::Merge { first, last, level, drops } = *command else { return None };
        Some(Span { first, last, level, drops, asked: false })
    }

    fn plan(&self, manifest: &Manifest) -> CompactPlan {
        let within = |info: &&SegmentInfo| info.span.first >= self.first && info.span.last <= self.last;
        let inputs: Vec<_> = manifest.segments().iter().filter(within).collect();
        let Span { first, last, level, drops, asked } = *self;
        let bytes = inputs.iter().map(|info| info.file_bytes).sum();
        CompactPlan { shard: manifest.shard(), first, last, inputs: inputs.len(), bytes, level, drops, asked }
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
    Some(Command::Merge { first, last, level, drops: SegmentOrdinal(state.generation() - 1) })
}
