//! All shards of this node: opened together, stopped together.
//!
//! What always holds: `open` returns when every shard leads here and everything that was ever committed is applied again;
//! which shard owns a bucket comes from the shards' own replicated state, never from configuration.

use std::collections::BTreeSet;
use std::sync::Arc;

use logstore::id::{Bucket, ConversationId, HistoryId, ShardId};
use logstore::segment::BlockCache;
use logstore::{Journal, JournalDamage};
use parking_lot::Mutex;

use crate::raft::group::Group;
use crate::raft::network::Peers;
use crate::raft::ticker::Ticker;
use crate::runtime::{self, Task};
use crate::shard::core::{CoreOptions, ShardCore};
use crate::shard::outbox::{self, LocalCarrier};
use crate::shard::proposer::{Proposer, ProposerLimits, ProposerTask};
use crate::shard::sealing::{self, MergeWhen, Restored, SealWhen, SealingOptions, Turns};
use crate::shard::{SequencerOptions, Shard, around};
use crate::{Clock, Command, Error, Outcome, Result};

/// What redb keeps of a shard's store in memory: this part of what its rows may take. Mostly pages that lead to others.
const STORE_SHARE: usize = 8;
/// Buckets there are, for ever.
const BUCKETS: usize = 1 << 16;
/// The version of a new cluster's bucket table.
const FIRST_TABLE_EPOCH: u64 = 1;
/// The first life of a shard's outbox. Lives are counted, in the shard's own state: whoever begins another one (restore,
/// forced quorum) takes the number after the one found there, for a target tells newer from older by it alone.
const FIRST_INCARNATION: u64 = 1;

/// All shards of this node.
pub struct Sequencer {
    shards: Vec<Arc<Shard>>,
    /// Bucket → place in `shards`.
    table: Box<[u16]>,
    history: HistoryId,
    running: Mutex<Running>,
    /// Read while an acknowledgement of effects is proposed, written while a cut is made.
    pub(super) acks: outbox::Acks,
    /// One cut at a time.
    pub(super) cutting: tokio::sync::Mutex<()>,
    /// What is damaged of the log they share, if the node reads around damage.
    damage: Option<Vec<String>>,
}

/// What stops with the sequencer.
struct Running {
    ticker: Option<Ticker>,
    proposers: Vec<Task<()>>,
    others: Vec<Task<()>>,
}

impl Sequencer {
    /// Opens the shards found in the journal (or creates `options.shards` of them), replays what is not sealed, elects, and
    /// starts proposers, outbox pumps and sealing. Segments lie on the journal's disk.
    pub async fn open(options: SequencerOptions, journal: Journal, clock: Arc<dyn Clock>) -> Result<Arc<Sequencer>> {
        Sequencer::open_restored(options, None, journal, clock).await
    }

    /// The same of shards that were restored of another history, unless it is `None`: those that are still of that one
    /// begin the history of the options, and the next life of their outboxes, before anything else happens.
    pub async fn open_restored(
        options: SequencerOptions,
        from: Option<HistoryId>,
        journal: Journal,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Sequencer>> {
        let ticker = Ticker::start().map_err(|source| Error::Thread { what: "ticker", source })?;
        let cache = Arc::new(BlockCache::new(options.block_cache_bytes));
        let opening = Opening { options, restored_from: from, journal, cache, clock, ticker };
        opening.open().await.map(Arc::new)
    }

    /// Opens what is sound of the shards, for reading alone: no Raft runs, nothing is written, every proposal is refused.
    pub async fn open_around_damage(
        options: SequencerOptions,
        journal: Journal,
        damage: JournalDamage,
    ) -> Result<Arc<Sequencer>> {
        around::open(options, journal, damage).await.map(Arc::new)
    }

    /// Shards that only read.
    pub(super) fn around(
        shards: Vec<Arc<Shard>>,
        table: Box<[u16]>,
        history: HistoryId,
        damage: Vec<String>,
    ) -> Sequencer {
        let running = Running { ticker: None, proposers: Vec::new(), others: Vec::new() };
        let (running, acks, cutting) = (Mutex::new(running), outbox::Acks::default(), tokio::sync::Mutex::default());
        Sequencer { shards, table, history, running, acks, cutting, damage: Some(damage) }
    }

    /// Whether they are read around damage, and take nothing new.
    pub fn is_read_only(&self) -> bool {
        self.damage.is_some()
    }

    /// What of the log cannot be read, in words, if they are read around damage; what is wrong with each shard it says itself.
    pub fn damage(&self) -> &[String] {
        self.damage.as_deref().unwrap_or_default()
    }

    /// All shards here, by id.
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// The shard that owns a conversation's bucket.
    pub fn shard_of(&self, conversation: ConversationId) -> &Arc<Shard> {
        let place = self.table[usize::from(conversation.bucket().0)];
        &self.shards[usize::from(place)]
    }

    /// A shard by its id.
    pub fn shard(&self, id: ShardId) -> Option<&Arc<Shard>> {
        self.shards.binary_search_by_key(&id, |shard| shard.id()).ok().map(|place| &self.shards[place])
    }

    /// A connection is closed: what proposers know of its pipelines is dropped.
    pub fn forget_connection(&self, connection: logstore::id::ConnectionId) {
        self.shards.iter().for_each(|shard| shard.forget_connection(connection));
    }

    /// The cluster's history.
    pub fn history(&self) -> HistoryId {
        self.history
    }

    /// Stops proposers, lets what is in flight finish, stops Raft. The journal stays the caller's to close.
    pub async fn shutdown(&self) {
        let (proposers, others) = {
            let mut running = self.running.lock();
            (std::mem::take(&mut running.proposers), std::mem::take(&mut running.others))
        };
        self.shards.iter().for_each(|shard| shard.proposer.close());
        for task in proposers {
            task.done().await;
        }
        self.shards.iter().for_each(|shard| shard.core.stop());
        for task in others {
            task.done().await;
        }
        for shard in &self.shards {
            if let Some(group) = &shard.group {
                group.stop().await;
            }
        }
        self.running.lock().ticker = None;
    }
}

/// A shard whose log is replayed, before anything proposes to it.
struct Started {
    core: Arc<ShardCore>,
    group: Group,
}

/// What opening needs.
struct Opening {
    options: SequencerOptions,
    /// The history that shards are restored of.
    restored_from: Option<HistoryId>,
    journal: Journal,
    /// Sealed blocks of all shards.
    cache: Arc<BlockCache>,
    clock: Arc<dyn Clock>,
    ticker: Ticker,
}

impl Opening {
    async fn open(self) -> Result<Sequencer> {
        let found: BTreeSet<ShardId> = self.journal.shards().into_iter().collect();
        let mut started = self.start(found.clone()).await?;
        let plan = self.plan(&started);
        let missing = plan.shards().filter(|id| !found.contains(id)).collect();
        started.extend(self.start(missing).await?);
        started.sort_by_key(|started| started.core.shard());

        let carrier = Arc::new(LocalCarrier::default());
        let mut running = Running { ticker: None, proposers: Vec::new(), others: Vec::new() };
        let shards: Vec<Arc<Shard>> = started.into_iter().map(|s| self.propose(s, &mut running)).collect();
        for shard in &shards {
            plan.initialize(shard).await?;
        }
        let history = self.begin_history(plan.history, &shards).await?;
        carrier.connect(shards.clone());
        let when = SealWhen { bytes: self.options.seal_bytes, age_ms: self.options.seal_age.as_millis() as u64 };
        let sealing = SealingOptions { turns: Turns::new(), bytes_per_second: self.options.seal_bytes_per_second };
        let acks = outbox::Acks::default();
        for shard in &shards {
            running.others.push(runtime::spawn(outbox::pump(shard.clone(), carrier.clone(), acks.clone())));
            running.others.push(runtime::spawn(sealing::propose_seals(shard.clone(), when)));
            running.others.push(runtime::spawn(sealing::run(shard.clone(), sealing.clone())));
            running.others.push(runtime::spawn(sealing::propose_merges(shard.clone(), shard.merge_when.clone())));
            running.others.push(runtime::spawn(sealing::run_merges(shard.clone(), sealing.clone())));
        }
        running.others.push(runtime::spawn(sealing::see_erasures_through(shards.clone(), self.journal.clone())));
        running.ticker = Some(self.ticker);
        let table = bucket_table(&shards)?;
        let (running, cutting) = (Mutex::new(running), tokio::sync::Mutex::default());
        Ok(Sequencer { shards, table, history, running, acks, cutting, damage: None })
    }

    /// Begins the new history in the shards that are still of the one they were restored of. A crash leaves some in each: the
    /// others follow with the same life, for it is counted from those that are left.
    async fn begin_history(&self, found: HistoryId, shards: &[Arc<Shard>]) -> Result<HistoryId> {
        let Some(from) = self.restored_from else { return Ok(found) };
        let history = self.options.history;
        let is_left = |shard: &&Arc<Shard>| shard.read(|state, _| state.history()) == Some(from);
        let left: Vec<_> = shards.iter().filter(is_left).collect();
        if left.is_empty() {
            return Ok(found);
        }
        let last = left.iter().map(|shard| shard.read(|state, _| state.incarnation())).max().unwrap_or(0);
        for shard in left {
            match shard.execute(Command::BeginHistory { history, incarnation: last + 1 }).await {
                Ok(Outcome::Done) => {}
                other => {
                    let what = format!("its new history ended in {other:?}");
                    return Err(Error::Raft { shard: shard.id(), what });
                }
            }
        }
        Ok(history)
    }

    /// Replays and elects, all shards at once.
    async fn start(&self, ids: BTreeSet<ShardId>) -> Result<Vec<Started>> {
        let tasks: Vec<_> = ids.into_iter().map(|id| runtime::spawn(self.start_one(id))).collect();
        let mut started = Vec::with_capacity(tasks.len());
        for task in tasks {
            let one = task.done().await.ok_or_else(|| Error::Thread {
                what: "opening",
                source: std::io::Error::other("a shard's replay panicked"),
            })??;
            self.ticker.watch(self.options.node, one.group.clone());
            started.push(one);
        }
        for one in &started {
            one.group.initialize(&[self.options.node]).await?;
            one.group.recovered().await?;
        }
        Ok(started)
    }

    fn start_one(&self, id: ShardId) -> impl Future<Output = Result<Started>> + Send + use<> {
        let options = CoreOptions {
            row_cache_bytes: (self.options.row_cache_bytes / self.shards()) as usize,
            tail_bytes: self.options.tail_bytes,
            seal_bytes: self.options.seal_bytes,
        };
        let store_bytes = options.row_cache_bytes / STORE_SHARE;
        let (node, journal, cache) = (self.options.node, self.journal.clone(), self.cache.clone());
        async move {
            let opened = journal.clone();
            let restored = runtime::blocking(move || sealing::restore(&opened, id, &cache, store_bytes)).await;
            let restored = restored.map_err(|_| Error::Raft { shard: id, what: "the node is stopping".to_string() });
            let Restored { state, sealed, rows, checkpoint } = restored??;
            let core = Arc::new(ShardCore::above(state, sealed, rows, checkpoint.clone(), options));
            let group = Group::start(node, journal, core.clone(), checkpoint, Peers::none(id)).await?;
            Ok(Started { core, group })
        }
    }

    /// Shards that share what is configured for all: those found, or those of a new cluster.
    fn shards(&self) -> u64 {
        (self.journal.shards().len() as u64).max(u64::from(self.options.shards)).max(1)
    }

    /// Starts a shard's proposer.
    fn propose(&self, started: Started, running: &mut Running) -> Arc<Shard> {
        let Started { core, group } = started;
        let proposer = Proposer::new(ProposerLimits {
            entry_bytes_max: self.options.entry_bytes_max,
            entries_in_flight: self.options.entries_in_flight.max(1),
            queue_commands_max: self.options.queue_commands_max,
            queue_bytes_max: self.options.queue_bytes_max,
            unsealed_bytes_max: self.options.unsealed_bytes_max,
        });
        let task =
            ProposerTask::new(proposer.clone(), core.clone(), group.clone(), self.journal.clone(), self.clock.clone());
        running.proposers.push(runtime::spawn(task.run()));
        let SequencerOptions { merge_inputs, drop_within, keeps_sealed, .. } = self.options;
        let merge_when = MergeWhen::new(merge_inputs, drop_within, self.clock.clone());
        let (group, journal) = (Some(group), self.journal.clone());
        Arc::new(Shard { core, proposer, group, journal, merge_when, keeps_sealed, damage: Vec::new() })
    }

    /// Which shards there are: what the replayed ones say, or a new cluster's. A crash while a cluster is created
    /// leaves some of its shards without their first command: they get the same one as the others.
    fn plan(&self, started: &[Started]) -> Plan {
        started
            .iter()
            .find_map(|s| Plan::of(&s.core))
            .unwrap_or_else(|| Plan { history: self.options.history, table: even_table(self.options.shards) })
    }
}

/// A cluster's history and who owns which buckets.
pub(super) struct Plan {
    history: HistoryId,
    table: Vec<(Bucket, Bucket, ShardId)>,
}

impl Plan {
    /// What an initialized shard knows.
    pub(super) fn of(core: &ShardCore) -> Option<Plan> {
        let state = &core.read().0;
        Some(Plan { history: state.history()?, table: state.table().1.to_vec() })
    }

    /// The cluster's history.
    pub(super) fn history(&self) -> HistoryId {
        self.history
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.table.iter().map(|(.., shard)| *shard)
    }

    /// Gives a shard its first command, unless it has had it.
    async fn initialize(&self, shard: &Shard) -> Result<()> {
        if shard.read(|state, _| state.history().is_some()) {
            return Ok(());
        }
        let init = Command::Init {
            history: self.history,
            incarnation: FIRST_INCARNATION,
            table_epoch: FIRST_TABLE_EPOCH,
            table: self.table.clone(),
        };
        match shard.execute(init).await {
            Ok(Outcome::Done) => Ok(()),
            other => Err(Error::Raft { shard: shard.id(), what: format!("its first command ended in {other:?}") }),
        }
    }
}

/// All buckets cut evenly over the shards of a new cluster, which are numbered from 0.
pub(crate) fn even_table(shards: u16) -> Vec<(Bucket, Bucket, ShardId)> {
    let shards = usize::from(shards.max(1));
    let bound = |shard: usize| shard * BUCKETS / shards;
    (0..shards)
        .map(|shard| (Bucket(bound(shard) as u16), Bucket((bound(shard + 1) - 1) as u16), ShardId(shard as u16)))
        .collect()
}

/// Bucket → place in `shards`, as one of them says of all: the states of others may not be there.
pub(super) fn table_of(plan: &Plan, shards: &[Arc<Shard>]) -> Result<Box<[u16]>> {
    let mut table = vec![u16::MAX; BUCKETS].into_boxed_slice();
    for (first, last, owner) in &plan.table {
        let place = shards.binary_search_by_key(owner, |shard| shard.id());
        let place = place.map_err(|_| Error::NoSuchShard(*owner))?;
        table[usize::from(first.0)..=usize::from(last.0)].fill(place as u16);
    }
    owned(table)
}

/// Bucket → place in `shards`, as the shards' states say.
fn bucket_table(shards: &[Arc<Shard>]) -> Result<Box<[u16]>> {
    let mut table = vec![u16::MAX; BUCKETS].into_boxed_slice();
    for (place, shard) in shards.iter().enumerate() {
        let ranges = shard.read(|state, _| state.table().1.to_vec());
        for (first, last, _) in ranges.into_iter().filter(|(.., owner)| *owner == shard.id()) {
            table[usize::from(first.0)..=usize::from(last.0)].fill(place as u16);
        }
    }
    owned(table)
}

fn owned(table: Box<[u16]>) -> Result<Box<[u16]>> {
    match table.iter().position(|place| *place == u16::MAX) {
        Some(bucket) => Err(Error::NoOwner(Bucket(bucket as u16))),
        None => Ok(table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_table_gives_every_bucket_one_owner() {
        for shards in [1, 3, 4, 64, 1000] {
            let table = even_table(shards);
            assert_eq!(table.len(), usize::from(shards));
            assert_eq!((table[0].0, table[table.len() - 1].1), (Bucket(0), Bucket(u16::MAX)));
            assert!(table.windows(2).all(|pair| pair[0].1.0 + 1 == pair[1].0.0));
        }
    }
}
