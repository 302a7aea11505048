//! Which segments are to be written once more, less what is to be dropped, when no merge does it anyway.
//!
//! What always holds: while plans are under way nothing new is proposed; a segment is written once more at most once in `drop_within`, however
//! many messages are recalled meanwhile, but at once if somebody is being erased or an operator asks. Looking costs nothing while
//! nothing was sealed.

use std::time::Duration;

use logstore::id::{LogIndex, SegmentOrdinal, TimeMs};

use super::drops::{self, Waiting};
use super::merge;
use crate::runtime;
use crate::shard::Shard;
use crate::shard::core::ShardCore;
use crate::{Command, Error, Result};

/// Rewrites proposed together: they share a Seal.
const AT_ONCE: usize = 64;

/// The rewrites of one shard.
pub(super) struct Rewrites {
    drop_within: Duration,
    seen: Option<Seen>,
    waiting: Vec<Waiting>,
}

/// What was looked at: what waits follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    sealed: SegmentOrdinal,
    carried: LogIndex,
}

impl Rewrites {
    pub(super) fn new(drop_within: Duration) -> Rewrites {
        Rewrites { drop_within, seen: None, waiting: Vec::new() }
    }

    /// What is to be proposed now: the rewrites that are due, and a Seal, for what the log asks for is carried out only once a segment
    /// knows of it.
    pub(super) async fn due(&mut self, shard: &Shard, now: TimeMs) -> Result<Vec<Command>> {
        self.look(shard).await?;
        let sealing = shard.core.sealing();
        let is_forced = sealing.is_compacting();
        let old = TimeMs(now.0.saturating_sub(self.drop_within.as_millis() as u64));
        let is_due = |waiting: &&Waiting| waiting.erasure || is_forced || waiting.since <= old;
        let due: Vec<&Waiting> = self.waiting.iter().filter(is_due).take(AT_ONCE).collect();
        if is_forced && due.is_empty() && !is_under_way(shard) {
            sealing.compacted();
        }
        Ok(commands(shard, &due, is_forced))
    }

    async fn look(&mut self, shard: &Shard) -> Result<()> {
        let seen = shard.read(|_, records| {
            let manifest = records.sealed().manifest();
            Seen { sealed: manifest.last(), carried: manifest.carried() }
        });
        if self.seen == Some(seen) {
            return Ok(());
        }
        let (waiting, upto) = waiting(shard).await?;
        if !waiting.iter().any(|waiting| waiting.erasure) {
            shard.core.sealing().without_erased(upto);
        }
        (self.waiting, self.seen) = (waiting, Some(seen));
        Ok(())
    }
}

/// What waits to be dropped from which segment, and up to which entry segments were looked at. Reads files off the async workers.
pub(super) async fn waiting(shard: &Shard) -> Result<(Vec<Waiting>, LogIndex)> {
    let core = shard.core.clone();
    let looked = runtime::blocking(move || waiting_of(&core));
    looked.await.map_err(|_| Error::Raft { shard: shard.id(), what: "the node is stopping".to_string() })?
}

/// [`waiting`], here and now.
pub(super) fn waiting_of(core: &ShardCore) -> Result<(Vec<Waiting>, LogIndex)> {
    let (set, layout) = {
        let (state, records) = &*core.read();
        (records.sealed().clone(), state.layout().clone())
    };
    let upto = set.manifest().checkpoint().map_or(LogIndex(0), |checkpoint| checkpoint.seal.index);
    let of_user = |user| {
        core.look_here(|state| state.conversations_of(user).into_iter().map(|(conversation, _)| conversation).collect())
    };
    Ok((drops::waiting(&set, &layout, &of_user)?, upto))
}

/// Whether there are plans that are not carried out.
fn is_under_way(shard: &Shard) -> bool {
    shard.read(|state, records| merge::missing(state.layout(), records.sealed().manifest()).next().is_some())
}

/// The same segments once more, less all that was sealed by now; if plans are under way, nothing but what lets them be carried out.
fn commands(shard: &Shard, due: &[&Waiting], is_forced: bool) -> Vec<Command> {
    if due.is_empty() && !is_forced {
        return Vec::new();
    }
    shard.read(|state, records| {
        let manifest = records.sealed().manifest();
        let known = manifest.checkpoint().map_or(LogIndex(0), |checkpoint| checkpoint.seal.index);
        let mut missing = merge::missing(state.layout(), manifest).peekable();
        if missing.peek().is_some() {
            return if missing.all(|span| span.asked_at > known) { vec![Command::Seal] } else { Vec::new() };
        }
        if due.is_empty() {
            return Vec::new();
        }
        let drops = SegmentOrdinal(state.generation() - 1);
        let rewrite = |waiting: &&Waiting| {
            let span = manifest.segments()[manifest.position(waiting.segment)?].span;
            Some(Command::Merge { first: span.first, last: span.last, level: span.level, drops })
        };
        due.iter().filter_map(rewrite).chain([Command::Seal]).collect()
    })
}
