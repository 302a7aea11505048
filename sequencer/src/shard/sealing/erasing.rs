//! Sees erasures through: until nothing in any file decodes to a message that was erased.
//!
//! ```text
//!   Erase applied --> sealed --> no segment holds one --> no journal file holds a trace --> no memory --> Erased
//!     readers        Seal, Seal  rewrites, cached blocks    purged, recycled, zeroed       tail       listed no more
//! ```
//!
//! What always holds: what is listed in a shard's state is begun again after a restart; every step can be done twice; an erasure is
//! reported done only when each step was seen to be over for all it removed. State stores hold rows, never bodies.

use std::sync::Arc;
use std::time::Duration;

use logstore::Journal;
use logstore::id::LogIndex;
use logstore::segment::shard_dir;

use crate::runtime;
use crate::shard::Shard;
use crate::state::Erasure;
use crate::{Command, Error, Result};

/// How often a step is looked at again.
const LOOK: Duration = Duration::from_millis(200);
/// After this many looks at a journal that has not let go, shards are sealed again: what they wrote meanwhile may lie in old files.
const LOOKS_A_SEAL: u32 = 15;

/// What a segment's file name ends in.
const SEGMENT: &str = ".segment";

/// An erasure of one shard.
type Pending = (Arc<Shard>, Erasure);

/// Sees the erasures of a node's shards through until it stops.
pub(crate) async fn run(shards: Vec<Arc<Shard>>, journal: Journal) {
    while !shards.iter().any(|shard| shard.core.is_stopped()) {
        // Off the workers: a look waits for whoever has the state, and one worker that waits may hold up tasks of others.
        let looked_at = shards.clone();
        let Ok(pending) = runtime::blocking(move || pending(&looked_at)).await else { return };
        if pending.is_empty() {
            runtime::sleep(LOOK).await;
        } else if let Err(error) = see_through(&shards, &journal, &pending).await {
            tracing::warn!(%error, "an erasure goes on later");
            runtime::sleep(LOOK).await;
        }
    }
}

fn pending(shards: &[Arc<Shard>]) -> Vec<Pending> {
    let of = |shard: &Arc<Shard>| {
        let list = shard.read(|state, _| state.erasures().list().to_vec());
        list.into_iter().map(|erasure| (shard.clone(), erasure)).collect::<Vec<_>>()
    };
    shards.iter().filter(|shard| shard.leads()).flat_map(of).collect()
}

async fn see_through(shards: &[Arc<Shard>], journal: &Journal, pending: &[Pending]) -> Result<()> {
    tell(pending, "seal");
    for (shard, erasure) in pending {
        if sealed_upto(shard) < erasure.upto {
            seal(shard).await?;
        }
    }
    tell(pending, "segments");
    for (shard, erasure) in pending {
        out_of_segments(shard, erasure.upto).await?;
    }
    tell(pending, "journal");
    let cleared = out_of_journal(shards, journal).await;
    journal.zero_recycled(false);
    cleared?;
    for (shard, Erasure { user, upto, .. }) in pending {
        let (user, upto) = (*user, *upto);
        shard.core.tail().forget_upto(upto);
        execute(shard, Command::Erased { user, upto }).await?;
        tracing::info!(shard = shard.id().0, user = user.0, "nothing decodes to what was erased");
    }
    Ok(())
}

fn tell(pending: &[Pending], stage: &'static str) {
    pending.iter().for_each(|(shard, _)| shard.core.sealing().tell_erasing(stage));
}

fn sealed_upto(shard: &Shard) -> LogIndex {
    shard.core.sealing().checkpoint().map_or(LogIndex(0), |checkpoint| checkpoint.index())
}

async fn seal(shard: &Shard) -> Result<()> {
    shard.seal().await.map(drop)
}

async fn execute(shard: &Shard, command: Command) -> Result<()> {
    let done = shard.execute(command).await;
    done.map(drop).map_err(|why| Error::Refused { shard: shard.id(), why })
}

/// Waits until segments were looked at that hold everything up to `upto`, none of them with an erased body, and no other file is there:
/// one that was rewritten goes when its last reader does.
async fn out_of_segments(shard: &Shard, upto: LogIndex) -> Result<()> {
    while shard.core.sealing().is_without_erased() < upto || !only_listed(shard).await? {
        if shard.core.is_stopped() {
            return Err(stopping(shard));
        }
        runtime::sleep(LOOK).await;
    }
    Ok(())
}

/// Whether no segment file is there but those that the manifest lists.
async fn only_listed(shard: &Shard) -> Result<bool> {
    let (set, disk) = (shard.read(|_, records| records.sealed().clone()), shard.journal.disk().clone());
    let dir = shard_dir(shard.id());
    let listed = runtime::blocking(move || {
        let names = disk.list(&dir)?;
        let is_listed =
            |name: &str| set.manifest().segments().iter().any(|info| info.path() == format!("{dir}/{name}"));
        Ok::<_, std::io::Error>(names.iter().filter(|name| name.ends_with(SEGMENT)).all(|name| is_listed(name)))
    });
    let listed = listed.await.map_err(|_| stopping(shard))?;
    listed.map_err(|source| Error::Log(logstore::Error::Io { operation: "list", path: shard_dir(shard.id()), source }))
}

/// Waits until no byte is left of any file that the journal had when all that was erased had been sealed. The journal lets go of what
/// was sealed one Seal later, and a file only when every shard has.
async fn out_of_journal(shards: &[Arc<Shard>], journal: &Journal) -> Result<()> {
    journal.zero_recycled(true);
    seal_twice(shards).await?;
    let newest = journal.newest_file();
    journal.begin_next_file();
    seal_twice(shards).await?;
    let mut looks = 0;
    while journal.oldest_trace() <= newest {
        if let Some(shard) = shards.iter().find(|shard| shard.core.is_stopped()) {
            return Err(stopping(shard));
        }
        runtime::sleep(LOOK).await;
        looks += 1;
        if looks % LOOKS_A_SEAL == 0 {
            seal_twice(shards).await?;
        }
    }
    Ok(())
}

async fn seal_twice(shards: &[Arc<Shard>]) -> Result<()> {
    for _ in 0..2 {
        for shard in shards {
            seal(shard).await?;
        }
    }
    Ok(())
}

fn stopping(shard: &Shard) -> Error {
    Error::Raft { shard: shard.id(), what: "the node is stopping".to_string() }
}
