//! The shards of a node on a disk of their own, without sockets: what is below them works as in a server.
//!
//! What always holds: a message counts as sent when its entry is durable and applied; one that is refused for room is sent
//! again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use logstore::id::{HistoryId, NodeId, ShardId, TimeMs};
use logstore::io::Written;
use logstore::merge::MergePolicy;
use logstore::{Executor, Journal, JournalOptions};
use sequencer::{Clock, Command, Effect, Outcome, Proposal, ProposalResult, Sequencer, SequencerOptions, Shard};

use crate::Load;

/// Messages proposed together, as a client's frame has them.
const BATCH: u64 = 64;
/// Batches on their way, all shards together.
const BATCHES: usize = 256;
/// Whose effects open the conversations: a shard that is not there.
const ELSEWHERE: ShardId = ShardId(u16::MAX - 1);
/// Conversations opened with one command.
const OPENED: u64 = 250;
/// Longest wait for merges.
const MERGED_WITHIN: Duration = Duration::from_secs(600);
/// How long ids of messages are remembered, by log time.
const WINDOW: Duration = Duration::from_secs(3 * 60);

/// Time that runs faster than the machine's, so that windows pass within a bench.
pub struct ScaledClock {
    began: Instant,
    scale: u32,
    ahead_ms: AtomicU64,
}

impl ScaledClock {
    const BEGIN: u64 = 1_800_000_000_000;

    /// `scale` times as fast.
    pub fn new(scale: u32) -> Arc<ScaledClock> {
        Arc::new(ScaledClock { began: Instant::now(), scale, ahead_ms: AtomicU64::new(0) })
    }

    /// Puts it forward, if need be, to what a log has reached.
    fn reach(&self, time: TimeMs) {
        let behind = time.0.saturating_sub(self.now().0);
        self.ahead_ms.fetch_add(behind, Ordering::Relaxed);
    }

    /// Puts it forward.
    pub fn skip(&self, time: Duration) {
        self.ahead_ms.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Clock for ScaledClock {
    fn now(&self) -> TimeMs {
        let passed = (self.began.elapsed() * self.scale).as_millis() as u64;
        TimeMs(ScaledClock::BEGIN + self.ahead_ms.load(Ordering::Relaxed) + passed)
    }
}

/// Sizes; what is not here is as in a server.
#[derive(Clone, Debug)]
pub struct ShardsOptions {
    /// How many shards.
    pub shards: u16,
    /// Of a journal file.
    pub file_bytes: u64,
    /// Bytes of entries after which a generation is sealed.
    pub seal_bytes: u64,
    /// So many seals make one merge.
    pub merge_inputs: usize,
}

/// Open shards.
pub struct Shards {
    runtime: tokio::runtime::Runtime,
    journal: Journal,
    sequencer: Arc<Sequencer>,
    options: ShardsOptions,
    /// What has been written since they were opened.
    pub written: Arc<Written>,
    clock: Arc<ScaledClock>,
}

impl Shards {
    /// Opens (or creates) them.
    pub fn open(dir: &Path, options: &ShardsOptions, clock: &Arc<ScaledClock>) -> Shards {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
        let written = Arc::new(Written::default());
        let disk = logstore::io::counted(logstore::io::real(dir), written.clone());
        let handle = runtime.handle().clone();
        let journal_options = JournalOptions {
            file_bytes: options.file_bytes,
            tail_cache_bytes: 128 << 20,
            executor: Executor::new(move |job| drop(handle.spawn_blocking(job))),
            ..JournalOptions::default()
        };
        let dies = Box::new(|error: &logstore::Error| panic!("{error}"));
        let journal = Journal::open(disk, journal_options, dies).expect("a journal that opens");
        let opened = Sequencer::open(sequencer_options(options), journal.clone(), clock.clone());
        let sequencer = runtime.block_on(opened).expect("shards that open");
        // An earlier life may have put its clock forward.
        sequencer.shards().iter().for_each(|shard| clock.reach(shard.read(|state, _| state.time())));
        Shards { runtime, journal, sequencer, options: options.clone(), written, clock: clock.clone() }
    }

    /// The shards.
    pub fn sequencer(&self) -> &Arc<Sequencer> {
        &self.sequencer
    }

    /// The runtime they run on.
    pub fn runtime(&self) -> &tokio::runtime::Runtime {
        &self.runtime
    }

    /// Opens the 1:1s of a load.
    pub fn open_conversations(&self, load: &Load) {
        for shard in self.sequencer.shards() {
            let mine = |n: &u64| self.sequencer.shard_of(Load::conversation(*n).0).id() == shard.id();
            let mut numbers = (0..load.conversations()).filter(mine).peekable();
            let mut first = 1;
            while numbers.peek().is_some() {
                let effects: Vec<_> = numbers.by_ref().take(OPENED as usize).flat_map(grants).collect();
                let count = effects.len() as u64;
                let command = Command::Effects { from: ELSEWHERE, incarnation: 1, first, effects };
                self.execute(shard, &command);
                first += count;
            }
        }
    }

    fn execute(&self, shard: &Shard, command: &Command) -> Outcome {
        loop {
            match self.runtime.block_on(shard.execute(command.clone())) {
                Ok(outcome) => return outcome,
                Err(why) => std::thread::sleep(why.retry_after()),
            }
        }
    }

    /// Sends messages `from..to` of a load; gives their bytes as sends hold them.
    pub fn send(&self, load: &Load, from: u64, to: u64) -> u64 {
        let (told, answers) = channel();
        let mut sending = Sending { shards: self, load, told, answers, batches: 0, raw_bytes: 0, refused: Vec::new() };
        let mut by_shard: Vec<Vec<u64>> = vec![Vec::new(); self.sequencer.shards().len()];
        for n in from..to {
            let shard = self.sequencer.shard_of(load.target(n)).id();
            let place = self.sequencer.shards().iter().position(|each| each.id() == shard).expect("it is one of them");
            by_shard[place].push(n);
            if by_shard[place].len() as u64 == BATCH {
                sending.propose(std::mem::take(&mut by_shard[place]));
            }
        }
        by_shard.into_iter().filter(|left| !left.is_empty()).for_each(|left| sending.propose(left));
        sending.finish()
    }

    /// Seals everything.
    pub fn seal(&self) {
        for shard in self.sequencer.shards() {
            loop {
                match self.runtime.block_on(shard.seal()) {
                    Ok(_) => break,
                    Err(sequencer::Error::Refused { why, .. }) => std::thread::sleep(why.retry_after()),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// Lets the dedup window pass: what was in it can be merged. It ends at a Seal.
    pub fn pass_window(&self) {
        for _ in 0..2 {
            self.clock.skip(WINDOW);
            for shard in self.sequencer.shards() {
                self.execute(shard, &Command::Probe);
            }
            self.seal();
        }
    }

    /// Time passes, and what is to be sealed and merged by then is.
    pub fn rest(&self) {
        self.clock.skip(WINDOW);
        self.stores_follow();
    }

    /// Waits until everything is merged that may be; the last seals stay as they are, for they are in the dedup window. A merge that
    /// is asked for is carried out once a later Seal is published.
    pub fn settle(&self) {
        let began = Instant::now();
        let policy = MergePolicy { seals_min: self.options.merge_inputs, ..MergePolicy::default() };
        while self.sequencer.shards().iter().any(|shard| is_due(shard, &policy)) {
            assert!(began.elapsed() < MERGED_WITHIN, "merges end");
            self.clock.skip(WINDOW);
            for shard in self.sequencer.shards() {
                self.execute(shard, &Command::Probe);
            }
            self.seal();
            self.stores_follow();
        }
        // What is published last has its store to absorb it.
        self.stores_follow();
    }

    fn stores_follow(&self) {
        let stores = || -> Vec<_> {
            self.sequencer
                .shards()
                .iter()
                .map(|shard| shard.read(|_, records| records.sealed().manifest().store_mark()))
                .collect()
        };
        let mut before = stores();
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let now = stores();
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// Stops everything.
    pub fn close(self) {
        self.runtime.block_on(self.sequencer.shutdown());
        self.journal.close();
    }
}

fn is_due(shard: &Shard, policy: &MergePolicy) -> bool {
    shard.read(|_, records| {
        let segments = records.sealed().manifest().segments();
        policy.choose(&segments[..segments.len().saturating_sub(2)]).is_some()
    })
}

fn grants(n: u64) -> [Effect; 2] {
    let (conversation, users) = Load::conversation(n);
    users.map(|home_of| Effect::GrantDirect {
        conversation,
        home_of,
        low_may_send: true,
        high_may_send: true,
        exists: true,
    })
}

fn sequencer_options(options: &ShardsOptions) -> SequencerOptions {
    SequencerOptions {
        node: NodeId(1),
        shards: options.shards,
        history: HistoryId(1),
        entry_bytes_max: 64 << 10,
        entries_in_flight: 2,
        queue_commands_max: 16_384,
        queue_bytes_max: 16 << 20,
        tail_bytes: 16 << 20,
        seal_bytes: options.seal_bytes,
        seal_age: Duration::from_secs(1 << 30),
        unsealed_bytes_max: 4 * options.seal_bytes,
        seal_bytes_per_second: 1 << 40,
        keeps_sealed: false,
        merge_inputs: options.merge_inputs,
        drop_within: Duration::from_secs(24 * 3600),
        row_cache_bytes: 256 << 20,
        block_cache_bytes: 64 << 20,
    }
}

/// Messages on their way.
struct Sending<'a> {
    shards: &'a Shards,
    load: &'a Load,
    told: Sender<(Vec<u64>, ProposalResult)>,
    answers: Receiver<(Vec<u64>, ProposalResult)>,
    batches: usize,
    raw_bytes: u64,
    refused: Vec<u64>,
}

impl Sending<'_> {
    /// Sends messages of one shard; waits if too many are on their way.
    fn propose(&mut self, numbers: Vec<u64>) {
        while self.batches >= BATCHES {
            self.hear();
        }
        self.send(numbers);
    }

    fn send(&mut self, numbers: Vec<u64>) {
        const HEAD_BYTES: u64 = 72;
        let now = self.shards.clock.now();
        let sends: Vec<_> = numbers.iter().map(|n| self.load.message(*n, now)).collect();
        self.raw_bytes += sends.iter().map(|send| HEAD_BYTES + send.body.len() as u64).sum::<u64>();
        let shard = self.shards.sequencer.shard_of(sends[0].conversation).clone();
        let told = self.told.clone();
        let reply = Box::new(move |results| drop(told.send((numbers, results))));
        let commands = sends.into_iter().map(Command::Send).collect();
        shard.propose(Proposal { commands, pipeline: Vec::new(), reply });
        self.batches += 1;
    }

    fn hear(&mut self) {
        let (numbers, results) = self.answers.recv().expect("shards answer");
        self.batches -= 1;
        for (n, result) in numbers.iter().zip(results) {
            match result {
                Ok(Outcome::Sent(_)) => {}
                Ok(outcome) => panic!("message {n}: {outcome:?}"),
                Err(_) => self.refused.push(*n),
            }
        }
        if !self.refused.is_empty() {
            // Sealing has to catch up.
            std::thread::sleep(Duration::from_millis(20));
            self.send_refused();
        }
    }

    fn send_refused(&mut self) {
        let mut refused = std::mem::take(&mut self.refused);
        let shard = |n: &u64| self.shards.sequencer.shard_of(self.load.target(*n)).id();
        refused.sort_by_key(shard);
        let runs: Vec<Vec<u64>> = refused.chunk_by(|a, b| shard(a) == shard(b)).map(<[u64]>::to_vec).collect();
        for run in runs {
            let bytes: u64 = run.iter().map(|n| 72 + self.load.message(*n, TimeMs(0)).body.len() as u64).sum();
            self.raw_bytes -= bytes;
            self.send(run);
        }
    }

    fn finish(mut self) -> u64 {
        while self.batches > 0 {
            self.hear();
        }
        self.raw_bytes
    }
}
