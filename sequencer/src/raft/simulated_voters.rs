//! Three voters of a group on simulated machines: messages are late, ways are cut, power goes and comes back; then everything is whole
//! again. What was acknowledged is in every log, at its place, and there is one order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use logstore::id::{LogIndex, NodeId, ShardId, TimeMs};
use logstore::io::faulty::{FaultyDisk, Survives};
use logstore::{Entry, Journal, JournalOptions};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::raft::group::{Group, leader_of};
use crate::raft::network::{Answer, Appended, Appends, Peers, Replica, RpcError, Transport, unreachable};
use crate::raft::simulated::drive;
use crate::raft::ticker::Ticker;
use crate::raft::types::{OnComplete, Payload, TypeConfig, WriteResult, index_of};
use crate::runtime::{self, Machine, Simulation};
use crate::shard::core::ShardCore;
use crate::store::NothingSealed;
use crate::{BatchBuilder, Command};

const SHARD: ShardId = ShardId(0);
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
/// Appends on their way to one replica.
const IN_FLIGHT: usize = 4;
const BEGIN_MS: u64 = 1_800_000_000_000;
/// Faults and load go on for so long.
const SAFETY: Duration = Duration::from_secs(12);
/// Once everything is whole, so long until all is as it should be.
const LIVENESS: Duration = Duration::from_secs(10);

/// What runs on a node whose power is on.
#[derive(Clone)]
struct Running {
    group: Group,
    journal: Journal,
}

/// The machines, and what lies between them.
#[derive(Default)]
struct Net {
    running: Mutex<BTreeMap<NodeId, Running>>,
    /// Ways on which nothing passes.
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
}

impl Net {
    fn group(&self, node: NodeId) -> Option<Group> {
        self.running.lock().get(&node).map(|running| running.group.clone())
    }

    /// A message passes, late, or is lost.
    async fn pass(&self, from: NodeId, to: Replica) -> Result<(), RpcError> {
        let rare = Simulation::draw().is_multiple_of(50);
        let late_us = Simulation::draw() % if rare { 80_000 } else { 2_000 };
        Simulation::sleep(Duration::from_micros(late_us)).await;
        if self.cut.lock().contains(&(from, to.node)) {
            // Nobody tells a sender that a message was lost.
            Simulation::sleep(Duration::from_secs(1)).await;
            return Err(unreachable(to, "the way is cut"));
        }
        Ok(())
    }
}

/// One node's way to the others.
#[derive(Clone)]
struct Wires {
    from: NodeId,
    net: Arc<Net>,
}

impl Wires {
    async fn there(&self, to: Replica) -> Result<Group, RpcError> {
        self.net.pass(self.from, to).await?;
        self.net.group(to.node).ok_or_else(|| unreachable(to, "it has no power"))
    }

    async fn back(&self, to: Replica) -> Result<(), RpcError> {
        self.net.pass(to.node, Replica { node: self.from, ..to }).await
    }

    fn ask<T: Send + 'static, E: std::fmt::Display + 'static, F>(
        &self,
        to: Replica,
        ask: impl FnOnce(Group) -> F + Send + 'static,
    ) -> Answer<T>
    where
        F: Future<Output = Result<T, E>> + Send,
    {
        let wires = self.clone();
        let asked = async move {
            let answer = ask(wires.there(to).await?).await.map_err(|error| unreachable(to, &error.to_string()))?;
            wires.back(to).await.map(|()| answer)
        };
        asked.boxed()
    }
}

impl Transport for Wires {
    fn append(&self, to: Replica, mut requests: Appends) -> Answer<Appended> {
        let wires = self.clone();
        let opened = async move {
            let group = wires.there(to).await?;
            let (sender, received) = mpsc::channel(IN_FLIGHT);
            let sends = wires.clone();
            runtime::spawn(async move {
                while let Some(request) = requests.next().await {
                    if sends.net.pass(sends.from, to).await.is_err() || sender.send(request).await.is_err() {
                        return;
                    }
                }
            });
            let arrives = stream::unfold(received, async |mut received| Some((received.recv().await?, received)));
            let answers = group.receive_appends(arrives.boxed());
            let returns = answers.then(move |answer| {
                let wires = wires.clone();
                async move {
                    wires.back(to).await?;
                    answer.map_err(|error| unreachable(to, &error.to_string()))
                }
            });
            Ok(returns.boxed() as Appended)
        };
        opened.boxed()
    }

    fn vote(&self, to: Replica, request: VoteRequest<TypeConfig>) -> Answer<VoteResponse<TypeConfig>> {
        self.ask(to, async move |group: Group| group.receive_vote(request).await)
    }

    fn pre_vote(&self, to: Replica, request: VoteRequest<TypeConfig>) -> Answer<VoteResponse<TypeConfig>> {
        self.ask(to, async move |group: Group| group.receive_pre_vote(request).await)
    }

    fn transfer_leader(
        &self,
        to: Replica,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> Answer<TransferLeaderResponse<TypeConfig>> {
        self.ask(to, async move |group: Group| group.receive_transfer(request).await)
    }

    /// Proposals are made where the group leads.
    fn propose(&self, to: Replica, _: Bytes) -> Answer<Bytes> {
        std::future::ready(Err(unreachable(to, "nobody takes proposals there"))).boxed()
    }
}

/// A node from power on until power off.
async fn live(node: NodeId, disk: FaultyDisk, net: Arc<Net>) {
    let rung = Arc::new(Notify::new());
    let ring = rung.clone();
    let options = JournalOptions { file_bytes: 256 << 10, reserve_files: 1, ..JournalOptions::default() };
    let on_fatal = Box::new(|error: &logstore::Error| panic!("{error}"));
    let (journal, writer) =
        Journal::open_stepped(disk.handle(), options, on_fatal, Box::new(move || ring.notify_one())).unwrap();
    runtime::spawn(drive(writer, rung));
    let core = Arc::new(ShardCore::new(SHARD, Arc::new(NothingSealed), 1 << 20, 1 << 20));
    let ticker = Ticker::start().unwrap();
    let peers = Peers::through(SHARD, Arc::new(Wires { from: node, net: net.clone() }));
    let group = Group::start(node, journal.clone(), core, None, peers).await.unwrap();
    ticker.watch(node, group.clone());
    net.running.lock().insert(node, Running { group: group.clone(), journal });
    group.initialize(&NODES).await.unwrap();
    std::future::pending::<()>().await;
}

/// Payloads that no two proposals share.
fn payload(number: u64) -> Payload {
    let mut builder = BatchBuilder::new();
    builder.add(&Command::Probe);
    Payload(builder.finish(TimeMs(BEGIN_MS + number)))
}

#[derive(Default)]
struct Told {
    proposed: u64,
    /// What was acknowledged, where.
    acked: Vec<(LogIndex, Payload)>,
    /// Who led which term.
    leaders: BTreeMap<u64, NodeId>,
}

struct Story {
    net: Arc<Net>,
    disks: BTreeMap<NodeId, FaultyDisk>,
    told: Arc<Mutex<Told>>,
}

impl Story {
    fn begin() -> Story {
        let disks = NODES.into_iter().map(|node| (node, FaultyDisk::new())).collect();
        let story = Story { net: Arc::default(), disks, told: Arc::default() };
        NODES.into_iter().for_each(|node| story.power_on(node));
        story
    }

    fn power_on(&self, node: NodeId) {
        Simulation::spawn_on(Machine(node.0), live(node, self.disks[&node].clone(), self.net.clone()));
    }

    /// What was not synced is lost, or not, sector by sector.
    fn power_off(&mut self, node: NodeId) {
        self.net.running.lock().remove(&node);
        Simulation::cut_power(Machine(node.0));
        let disk = self.disks.get_mut(&node).unwrap();
        *disk = disk.crash(Survives::Sectors(Simulation::draw()));
    }

    /// Something breaks for a while.
    async fn fault(&mut self) {
        let node = NODES[(Simulation::draw() % 3) as usize];
        let others = NODES.into_iter().filter(|other| *other != node);
        let lasts = Duration::from_millis(100 + Simulation::draw() % 2_500);
        match Simulation::draw() % 5 {
            0 => self.net.cut.lock().extend(others.flat_map(|other| [(node, other), (other, node)])),
            1 => self.net.cut.lock().extend(others.map(|other| (other, node))),
            2 => {
                self.power_off(node);
                Simulation::sleep(lasts).await;
                self.power_on(node);
                return;
            }
            3 => {
                NODES.into_iter().for_each(|node| self.power_off(node));
                NODES.into_iter().for_each(|node| self.power_on(node));
            }
            _ => self.transfer(node).await,
        }
        Simulation::sleep(lasts).await;
        self.net.cut.lock().clear();
    }

    /// Who leads is asked to have another one lead.
    async fn transfer(&self, to: NodeId) {
        let running = self.net.running.lock().clone();
        for Running { group, .. } in running.into_values().filter(|running| running.group.leading_term().is_some()) {
            let _ = runtime::within(Duration::from_secs(1), group.raft().trigger().transfer_leader(to.0)).await;
        }
    }

    /// Proposes to whoever believes that he leads.
    fn propose(&self) {
        let running = self.net.running.lock().clone();
        for (node, Running { group, .. }) in running {
            let Some(term) = group.leading_term() else { continue };
            let first = *self.told.lock().leaders.entry(term).or_insert(node);
            assert_eq!(first, node, "two lead in term {term}");
            let number = {
                let mut told = self.told.lock();
                told.proposed += 1;
                told.proposed
            };
            runtime::spawn(write(group, term, payload(number), self.told.clone()));
        }
    }

    async fn pass_time(&self, time: Duration) {
        let until = Simulation::elapsed() + time;
        while Simulation::elapsed() < until {
            self.propose();
            Simulation::sleep(Duration::from_micros(Simulation::draw() % 40_000)).await;
        }
    }

    /// What each node's log has.
    fn logs(&self) -> BTreeMap<NodeId, Vec<Entry>> {
        let running = self.net.running.lock().clone();
        let log = |Running { journal, .. }: Running| {
            let (mut entries, mut next, end) = (Vec::new(), LogIndex(1), journal.last_index(SHARD).next());
            while next < end {
                entries.extend(journal.read(SHARD, next..end, 1 << 20).unwrap());
                next = entries.last().map_or(end, |last: &Entry| last.id.index.next());
            }
            entries
        };
        running.into_iter().map(|(node, running)| (node, log(running))).collect()
    }
}

async fn write(group: Group, term: u64, payload: Payload, told: Arc<Mutex<Told>>) {
    let (done, wait) = oneshot::channel();
    let responder = OnComplete::new(move |result: WriteResult| drop(done.send(result)));
    let write = group.raft().write(payload.clone()).with_leader(leader_of(term)).responder(responder);
    if write.await.is_ok()
        && let Ok(Ok(written)) = wait.await
    {
        told.lock().acked.push((index_of(written.log_id.index), payload));
    }
}

/// What a seed comes to: how many were proposed and acknowledged, terms, the length of the log, and a hash of it.
#[derive(Debug, PartialEq, Eq)]
struct End {
    proposed: u64,
    acked: usize,
    terms: usize,
    log: usize,
    hash: u64,
}

async fn tell(seed: u64) -> End {
    let mut story = Story::begin();
    story.pass_time(Duration::from_secs(2)).await;
    let safety = Simulation::elapsed() + SAFETY;
    while Simulation::elapsed() < safety {
        story.pass_time(Duration::from_millis(Simulation::draw() % 1_500)).await;
        story.fault().await;
    }
    // Everything is whole: it has to go on.
    let before = story.told.lock().acked.len();
    story.pass_time(LIVENESS).await;
    let acked = story.told.lock().acked.clone();
    assert!(acked.len() > before, "seed {seed}: nothing is acknowledged any more");
    Simulation::sleep(Duration::from_secs(1)).await;

    let logs = story.logs();
    assert_eq!(logs.len(), 3, "seed {seed}");
    let log = &logs[&NODES[0]];
    for (node, other) in &logs {
        assert!(other == log, "seed {seed}: node {node} has another log: {} and {}", other.len(), log.len());
    }
    for (index, payload) in &acked {
        let entry = &log[(index.0 - 1) as usize];
        assert!(
            entry.id.index == *index && entry.payload == payload.0,
            "seed {seed}: entry {index} is not what was acknowledged"
        );
    }
    let told = story.told.lock();
    let bytes: Vec<u8> =
        log.iter().flat_map(|entry| entry.payload.iter().copied().chain(entry.id.term.0.to_le_bytes())).collect();
    let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
    End { proposed: told.proposed, acked: acked.len(), terms: told.leaders.len(), log: log.len(), hash }
}

/// Says how to see a failure again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, next) = (self.0, self.0 + 1);
            eprintln!("seed {seed}: SKEIN_SEEDS={seed}..{next} cargo test -p sequencer --lib simulated_voters::three");
        }
    }
}

fn end(seed: u64) -> End {
    let _replay = Replay(seed);
    Simulation::new(seed).run(tell(seed))
}

/// `SKEIN_SEEDS=from..to`, or a few.
fn seeds() -> std::ops::Range<u64> {
    let Ok(given) = std::env::var("SKEIN_SEEDS") else { return 0..10 };
    let (from, to) = given.split_once("..").expect("SKEIN_SEEDS is FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn three_voters_lose_nothing_and_agree_whatever_breaks_and_go_on_when_it_is_whole() {
    let ends: Vec<End> = seeds().map(end).collect();
    let (acked, terms): (usize, usize) =
        (ends.iter().map(|end| end.acked).sum(), ends.iter().map(|end| end.terms).sum());
    println!("{} seeds: {acked} acknowledged in {terms} terms", ends.len());
    assert!(acked > ends.len() * 100 && terms > ends.len() * 2, "faults or load came to nothing: {ends:?}");
}

#[test]
fn the_same_seed_gives_three_voters_the_same_log() {
    for seed in 100..102 {
        assert_eq!(end(seed), end(seed), "seed {seed}");
    }
    assert_ne!(end(1), end(2));
}
