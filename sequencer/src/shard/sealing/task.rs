//! Makes segments of frozen generations, one after the other, and publishes them.
//!
//! What always holds: a generation's segment is durable and in the manifest before anything of it is let go; a build that
//! fails is tried again while everything is still in memory and journal, and says so meanwhile; a failed sync is final for
//! the node, as in the journal.

use std::sync::Arc;

use bytes::Bytes;
use logstore::Journal;
use logstore::id::{LogId, SegmentOrdinal};
use logstore::io::Disk;
use logstore::segment::{self, BuildOptions, DeltaRow, Level, NewSegment, SegmentInfo, Span};

use super::build::{Entries, items};
use super::pace::Pacer;
use super::trouble::{Course, course};
use super::turn::Turns;
use super::{Frozen, Sealing, kept};
use crate::codec::SEND_HEAD_LEN;
use crate::raft::types::log_id_of;
use crate::runtime;
use crate::shard::Shard;
use crate::shard::core::ShardCore;
use crate::{Error, Result};

/// How a node's shards are sealed.
#[derive(Clone)]
pub(crate) struct SealingOptions {
    /// One segment is built at a time, whatever the number of shards.
    pub(crate) turns: Turns,
    /// Most bytes a second that builds write.
    pub(crate) bytes_per_second: u64,
}

/// Seals what one shard freezes until it stops.
pub(crate) async fn run(shard: Arc<Shard>, options: SealingOptions) {
    let sealing = shard.core.sealing();
    while !shard.core.is_stopped() {
        let Some(frozen) = sealing.next() else {
            sealing.frozen.notified().await;
            continue;
        };
        let Some(turn) = options.turns.take().await else { return };
        let made = seal_off_workers(&shard, &frozen, options.bytes_per_second).await;
        drop(turn);
        match made {
            Ok(()) => published(&shard, sealing, frozen.generation).await,
            Err(error) if shard.core.is_stopped() => return tracing::debug!(%error, "stopped while sealing"),
            Err(error) => match (course(&error), error) {
                (Course::Final, Error::Log(error)) => {
                    tracing::error!(shard = shard.id().0, %error, "a segment cannot be made durable");
                    return shard.journal.fail(&error);
                }
                (_, error) => rest(&shard, sealing, &error).await,
            },
        }
    }
}

/// Says what is wrong, and leaves it alone for a while, or until somebody asks for another try.
async fn rest(shard: &Shard, sealing: &Sealing, error: &Error) {
    let id = shard.id().0;
    let (trouble, rest) = sealing.failed(error);
    metrics::counter!("skein_seal_failures_total").increment(1);
    stuck(shard, true);
    if trouble.is_lasting {
        tracing::error!(shard = id, %error, ?rest, "the shard cannot be sealed; it serves until too much is unsealed");
    } else {
        tracing::warn!(shard = id, %error, ?rest, "a segment cannot be made now: tried again");
    }
    let _ = runtime::within(rest, sealing.frozen.notified()).await;
}

fn stuck(shard: &Shard, is_stuck: bool) {
    metrics::gauge!("skein_seal_stuck", "shard" => shard.id().0.to_string()).set(if is_stuck { 1.0 } else { 0.0 });
}

async fn seal_off_workers(shard: &Arc<Shard>, frozen: &Frozen, bytes_per_second: u64) -> Result<()> {
    let (core, journal, frozen) = (shard.core.clone(), shard.journal.clone(), frozen.clone());
    let made = runtime::blocking(move || seal_one(&core, &journal, &frozen, bytes_per_second)).await;
    made.map_err(|_| Error::Raft { shard: shard.id(), what: "the node is stopping".to_string() })?
}

/// Makes the segment of a generation and adds it to the manifest; readers look into it from then on.
pub(super) fn seal_one(core: &ShardCore, journal: &Journal, frozen: &Frozen, bytes_per_second: u64) -> Result<()> {
    let sealed = core.read().1.sealed().clone();
    let after = sealed.manifest().checkpoint().map_or(LogId::default().index, |checkpoint| checkpoint.seal.index);
    let entries = Entries::read(journal, core.shard(), after, frozen.checkpoint.index())?;
    seal_entries(core, journal.disk(), &entries, frozen, bytes_per_second)
}

/// The same of entries that are at hand.
pub(super) fn seal_entries(
    core: &ShardCore,
    disk: &Arc<dyn Disk>,
    entries: &Entries,
    frozen: &Frozen,
    bytes_per_second: u64,
) -> Result<()> {
    let info = make(core, disk, entries, frozen, bytes_per_second)?;
    let raw_bytes = info.counts.records * SEND_HEAD_LEN as u64 + info.counts.body_bytes;
    let (seal, state) = (log_id_of(&frozen.checkpoint.sealed), Bytes::from(frozen.checkpoint.encode()));
    let _one_at_a_time = core.sealing().publishing.lock();
    // Not those it was made above: a merge may have taken the place of some.
    let before = core.read().1.sealed().clone();
    let manifest = before.manifest().sealed(info, logstore::Checkpoint { seal, state })?;
    core.published(Arc::new(before.publish(manifest)?), frozen.generation);
    // What written bytes are compared with: records as clients' sends hold them.
    metrics::counter!("skein_sealed_raw_bytes_total").increment(raw_bytes);
    Ok(())
}

fn make(
    core: &ShardCore,
    disk: &Arc<dyn Disk>,
    entries: &Entries,
    frozen: &Frozen,
    bytes_per_second: u64,
) -> Result<SegmentInfo> {
    let (slots, rows, sealed) = {
        let (state, records) = &*core.read();
        let slots = records.frozen(frozen.generation).expect("a generation is held until it is published");
        let rows = state.frozen(frozen.generation).expect("and so are its rows");
        (slots, rows, records.sealed().clone())
    };
    let ordinal = SegmentOrdinal(frozen.generation);
    let seal = log_id_of(&frozen.checkpoint.sealed);
    let after = entries.after();
    let mut pacer = Pacer::new(bytes_per_second);
    let new = NewSegment {
        disk,
        span: Span { shard: core.shard(), first: ordinal, last: ordinal, level: Level(0), after, upto: seal.index },
        log_time: rows.time(),
        options: &BuildOptions::default(),
        previous: &|conversation| sealed.previous(conversation, ordinal),
        heads: None,
        pace: &mut |bytes| pacer.spend(bytes),
    };
    let mut builder = segment::SegmentBuilder::create(new)?;
    for item in items(&slots, entries) {
        builder.push(item?)?;
    }
    for (key, value) in rows.delta() {
        builder.push_delta(&DeltaRow { key, value })?;
    }
    Ok(builder.finish()?)
}

async fn published(shard: &Shard, sealing: &Sealing, generation: u64) {
    if sealing.is_stuck() {
        stuck(shard, false);
    }
    sealing.publish();
    tracing::debug!(shard = shard.id().0, generation, "a segment is published");
    kept::let_go(shard).await;
}
