//! Carries out the merges that the log has asked for, one after the other, and lets the state store follow.
//!
//! What always holds: publishing is serial per shard, so that neither a seal nor a merge is lost; whatever a merge could not finish is
//! found again by comparing layout and manifest. A merge that fails leaves everything as it was, and the shard says so; a
//! sync that failed is final for the node, as in the journal.

use std::sync::Arc;
use std::time::Duration;

use logstore::{Journal, Manifest, SegmentSet};

use super::pace::Pacer;
use super::trouble::{Course, course, is_no_room};
use super::turn::PatientTurn;
use super::{SealingOptions, absorb, merge};
use crate::runtime;
use crate::shard::Shard;
use crate::shard::core::ShardCore;
use crate::state::MergedSpan;
use crate::{Error, Result};

/// Merges become due when a seal is published; one that failed for now is tried again after this at the latest.
const LOOK: Duration = Duration::from_secs(30);

/// What a round has come to.
enum Round {
    /// One merge is done; there may be more.
    Merged,
    /// There was nothing to do, or it cannot be done now.
    Rest,
    /// Nothing more can be done before the next start.
    Over,
}

/// Merges what one shard's log asks for until it stops.
pub(crate) async fn run(shard: Arc<Shard>, options: SealingOptions) {
    // A store that was lost or fell behind in an earlier life is not left so until the next merge.
    store_catches_up(&shard, &options).await;
    loop {
        let mut published = std::pin::pin!(shard.core.sealing().published_signal().notified());
        published.as_mut().enable();
        if shard.core.is_stopped() {
            return;
        }
        let round = match next(&shard) {
            Some(span) => merge_one(&shard, &options, span).await,
            None if shard.core.rows().has_lost_store() => {
                store_catches_up(&shard, &options).await;
                Round::Rest
            }
            None => Round::Rest,
        };
        match round {
            Round::Merged => {}
            Round::Rest => drop(runtime::within(LOOK, published).await),
            Round::Over => return,
        }
    }
}

/// The next merge that is due.
fn next(shard: &Shard) -> Option<MergedSpan> {
    shard.read(|state, records| merge::due(state.layout(), records.sealed().manifest()))
}

async fn merge_one(shard: &Arc<Shard>, options: &SealingOptions, span: MergedSpan) -> Round {
    let Some(turn) = options.turns.take_patiently().await else { return Round::Over };
    let mut work = Work::new(shard.core.clone(), shard.journal.clone(), turn, options.bytes_per_second);
    let shown = format!("{span:?}");
    let done = runtime::blocking(move || {
        let before = work.merge(&span)?;
        work.store_follows(&before);
        Ok(())
    });
    match done.await {
        Ok(Ok(())) => {
            tracing::debug!(plan = shown, "merged");
            metrics::counter!("skein_merges_total").increment(1);
            says(shard, None);
            Round::Merged
        }
        Ok(Err(error)) => judged(shard, &shown, &error),
        Err(_) => Round::Over,
    }
}

async fn store_catches_up(shard: &Arc<Shard>, options: &SealingOptions) {
    let sealed = shard.read(|_, records| records.sealed().clone());
    let Some(turn) = options.turns.take_patiently().await else { return };
    let mut work = Work::new(shard.core.clone(), shard.journal.clone(), turn, options.bytes_per_second);
    // An error is that of a runtime that stops.
    let _ = runtime::blocking(move || work.store_follows(sealed.manifest())).await;
}

fn judged(shard: &Shard, plan: &str, error: &Error) -> Round {
    if shard.core.is_stopped() {
        return Round::Over;
    }
    says(shard, Some(error));
    match (course(error), error) {
        (Course::Final, Error::Log(error)) => {
            tracing::error!(plan, %error, "a merge cannot be made durable");
            shard.journal.fail(error);
            Round::Over
        }
        (Course::Passing, error) => {
            let what = if is_no_room(error) { "no room for a merge" } else { "a merge has failed" };
            tracing::warn!(plan, %error, "{what}: tried again later");
            Round::Rest
        }
        (_, error) => {
            tracing::error!(plan, %error, "the segments of this shard are merged no further until the next start");
            Round::Over
        }
    }
}

fn says(shard: &Shard, trouble: Option<&Error>) {
    let stuck = if trouble.is_some() { 1.0 } else { 0.0 };
    metrics::gauge!("skein_merge_stuck", "shard" => shard.id().0.to_string()).set(stuck);
    shard.core.sealing().merges(trouble.map(Error::to_string));
}

/// What merging needs off the async workers.
pub(super) struct Work {
    core: Arc<ShardCore>,
    journal: Journal,
    turn: PatientTurn,
    pacer: Pacer,
}

impl Work {
    pub(super) fn new(core: Arc<ShardCore>, journal: Journal, turn: PatientTurn, bytes_per_second: u64) -> Work {
        Work { core, journal, turn, pacer: Pacer::new(bytes_per_second) }
    }

    /// Makes the merged segment and publishes it; gives the manifest before it.
    pub(super) fn merge(&mut self, span: &MergedSpan) -> Result<Manifest> {
        let Work { core, journal, turn, pacer } = self;
        let set = core.read().1.sealed().clone();
        let mut pace = |bytes| spend(turn, pacer, bytes);
        let plan = merge::plan(&set, span)?;
        tracing::debug!(%plan, "begun");
        let info = merge::make(journal.disk(), &set, &plan, &mut pace, &|| !core.is_stopped())?;
        metrics::counter!("skein_merged_bytes_total").increment(info.file_bytes);
        publish(core, journal, |set| set.manifest().merged_by(info, span.asked_at))
    }

    /// What becomes of the store changes nothing but how long the next start takes.
    pub(super) fn store_follows(&mut self, before: &Manifest) {
        if let Err(error) = self.try_store_follows(before)
            && !self.core.is_stopped()
        {
            let shard = self.core.shard().0;
            tracing::warn!(shard, %error, "the state store does not follow; it is a cache: nothing is lost, starts take longer");
        }
    }

    fn try_store_follows(&mut self, before: &Manifest) -> Result<()> {
        let Work { core, journal, turn, pacer } = self;
        let set = core.read().1.sealed().clone();
        let mut pace = |bytes| spend(turn, pacer, bytes);
        let mark = absorb::follow(journal.disk(), core.rows(), before, &set, &mut pace, &|| !core.is_stopped())?;
        if mark != set.manifest().store_mark() {
            publish(core, journal, |set| set.manifest().absorbed(mark))?;
        }
        Ok(())
    }
}

fn spend(turn: &mut PatientTurn, pacer: &mut Pacer, bytes: u64) {
    turn.give_way();
    pacer.spend(bytes);
}

/// Makes another manifest the shard's, one that holds the same; gives the one before.
fn publish(
    core: &ShardCore,
    journal: &Journal,
    change: impl FnOnce(&SegmentSet) -> logstore::Result<Manifest>,
) -> Result<Manifest> {
    let _one_at_a_time = core.sealing().publishing.lock();
    let before = core.read().1.sealed().clone();
    let after = before.publish(change(&before)?).inspect_err(|error| {
        if let logstore::Error::Io { operation: "sync", .. } = error {
            // Which manifest a crash would leave is not known.
            journal.fail(error);
        }
    })?;
    core.replaced(Arc::new(after));
    core.sealing().published_signal().notify_waiters();
    Ok(before.manifest().clone())
}
