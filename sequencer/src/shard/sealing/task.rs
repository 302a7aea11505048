//! Makes segments of frozen generations, one after the other, and publishes them.
//!
//! What always holds: a generation's segment is durable and in the manifest before anything of it is let go; a build that
//! finds no room is tried again while everything is still in memory and journal; any other failed write is final for the
//! node, as in the journal.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use logstore::Journal;
use logstore::id::{LogId, SegmentOrdinal};
use logstore::segment::{self, BuildOptions, DeltaRow, Level, NewSegment, SegmentInfo, Span};

use super::build::{Entries, items};
use super::pace::Pacer;
use super::turn::Turns;
use super::{Frozen, Sealing};
use crate::raft::runtime;
use crate::raft::types::log_id_of;
use crate::shard::Shard;
use crate::shard::core::ShardCore;
use crate::{Error, Result};

/// Between two tries when there is no room.
const RETRY_AFTER: Duration = Duration::from_secs(5);

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
            Ok(()) => let_go(&shard, sealing, frozen.generation).await,
            Err(error) if is_no_room(&error) => {
                tracing::warn!(shard = shard.id().0, %error, "no room for a segment: tried again in 5 s");
                runtime::sleep(RETRY_AFTER).await;
            }
            Err(Error::Log(error)) => {
                tracing::error!(shard = shard.id().0, %error, "a segment cannot be made");
                return shard.journal.fail(&error);
            }
            Err(error) => {
                tracing::error!(shard = shard.id().0, %error, "sealing has stopped");
                return;
            }
        }
    }
}

async fn seal_off_workers(shard: &Arc<Shard>, frozen: &Frozen, bytes_per_second: u64) -> Result<()> {
    let (core, journal, frozen) = (shard.core.clone(), shard.journal.clone(), frozen.clone());
    let made = runtime::blocking(move || seal_one(&core, &journal, &frozen, bytes_per_second)).await;
    made.map_err(|_| Error::Raft { shard: shard.id(), what: "the node is stopping".to_string() })?
}

/// Makes the segment of a generation and adds it to the manifest; readers look into it from then on.
pub(super) fn seal_one(core: &ShardCore, journal: &Journal, frozen: &Frozen, bytes_per_second: u64) -> Result<()> {
    let info = make(core, journal, frozen, bytes_per_second)?;
    let (seal, state) = (log_id_of(&frozen.checkpoint.sealed), Bytes::from(frozen.checkpoint.encode()));
    let _one_at_a_time = core.sealing().publishing.lock();
    // Not those it was made above: a merge may have taken the place of some.
    let before = core.read().1.sealed().clone();
    let manifest = before.manifest().sealed(info, logstore::Checkpoint { seal, state })?;
    core.published(Arc::new(before.publish(manifest)?), frozen.generation);
    Ok(())
}

fn make(core: &ShardCore, journal: &Journal, frozen: &Frozen, bytes_per_second: u64) -> Result<SegmentInfo> {
    let (slots, rows, sealed) = {
        let (state, records) = &*core.read();
        let slots = records.frozen(frozen.generation).expect("a generation is held until it is published");
        let rows = state.frozen(frozen.generation).expect("and so are its rows");
        (slots, rows, records.sealed().clone())
    };
    let ordinal = SegmentOrdinal(frozen.generation);
    let seal = log_id_of(&frozen.checkpoint.sealed);
    let after = sealed.manifest().checkpoint().map_or(LogId::default().index, |checkpoint| checkpoint.seal.index);
    let entries = Entries::read(journal, core.shard(), after, seal.index)?;
    let mut pacer = Pacer::new(bytes_per_second);
    let new = NewSegment {
        disk: journal.disk(),
        span: Span { shard: core.shard(), first: ordinal, last: ordinal, level: Level(0), after, upto: seal.index },
        log_time: rows.time(),
        options: &BuildOptions::default(),
        previous: &|conversation| sealed.previous(conversation, ordinal),
        heads: None,
        pace: &mut |bytes| pacer.spend(bytes),
    };
    let mut builder = segment::SegmentBuilder::create(new)?;
    for item in items(&slots, &entries) {
        builder.push(item?)?;
    }
    for (key, value) in rows.delta() {
        builder.push_delta(&DeltaRow { key, value })?;
    }
    Ok(builder.finish()?)
}

/// The journal lets go of what was published one seal ago.
async fn let_go(shard: &Shard, sealing: &Sealing, generation: u64) {
    let before = sealing.publish();
    tracing::debug!(shard = shard.id().0, generation, "a segment is published");
    if let Err(error) = shard.group.purge(before).await {
        tracing::warn!(shard = shard.id().0, %error, "the journal keeps what is sealed until the next segment");
    }
}

pub(super) fn is_no_room(error: &Error) -> bool {
    matches!(error, Error::Log(logstore::Error::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull)
}
