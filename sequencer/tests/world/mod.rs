//! A node's shards on a real journal in a directory of its own, and what tests do with them.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use logstore::id::{ClientMsgId, ConnectionId, ConversationId, HistoryId, NodeId, SeqId, TimeMs, UserId};
use logstore::io::Disk;
use logstore::io::faulty::FaultyDisk;
use logstore::{Journal, JournalOptions, RecordKind};
use sequencer::{
    Clock, Command, Outcome, PipelineSlot, Proposal, ProposalResult, Send, Sequencer, SequencerOptions, Shard, Stored,
    SystemClock,
};
use tempfile::TempDir;

/// Long enough for anything that works.
pub const SOON: Duration = Duration::from_secs(10);

/// A running node.
pub struct World {
    disk: Arc<dyn Disk>,
    _dir: Option<TempDir>,
    pub options: SequencerOptions,
    clock: Arc<dyn Clock>,
    journal_options: JournalOptions,
    pub journal: Journal,
    pub sequencer: Arc<Sequencer>,
}

/// Options with small sizes.
pub fn options() -> SequencerOptions {
    SequencerOptions {
        node: NodeId(1),
        shards: 4,
        history: HistoryId(0x1234_5678_9abc),
        entry_bytes_max: 64 << 10,
        entries_in_flight: 2,
        queue_commands_max: 100_000,
        queue_bytes_max: 64 << 20,
        tail_bytes: 16 << 20,
        seal_bytes: 64 << 20,
        seal_age: Duration::from_secs(600),
        unsealed_bytes_max: 256 << 20,
        seal_bytes_per_second: 1 << 30,
        keeps_sealed: false,
        merge_inputs: 16,
        drop_within: Duration::from_secs(24 * 3600),
        row_cache_bytes: 8 << 20,
        block_cache_bytes: 8 << 20,
    }
}

fn journal_options() -> JournalOptions {
    JournalOptions { file_bytes: 4 << 20, ..JournalOptions::default() }
}

fn open_journal(disk: &Arc<dyn Disk>, options: &JournalOptions) -> Journal {
    Journal::open(disk.clone(), options.clone(), Box::new(|_| {})).unwrap()
}

impl World {
    pub async fn new(options: SequencerOptions) -> World {
        World::with_clock(options, Arc::new(SystemClock)).await
    }

    pub async fn with_clock(options: SequencerOptions, clock: Arc<dyn Clock>) -> World {
        let dir = tempfile::tempdir().unwrap();
        let world = World::open(logstore::io::real(dir.path()), options, clock).await;
        World { _dir: Some(dir), ..world }
    }

    /// On a disk that obeys the test.
    pub async fn on(disk: &FaultyDisk, options: SequencerOptions) -> World {
        World::open(disk.handle(), options, Arc::new(SystemClock)).await
    }

    /// On a disk that obeys the test, by a clock that does.
    pub async fn on_by(disk: &FaultyDisk, options: SequencerOptions, clock: Arc<dyn Clock>) -> World {
        World::open(disk.handle(), options, clock).await
    }

    /// In a directory of the caller's.
    pub async fn in_dir(dir: &std::path::Path, options: SequencerOptions) -> World {
        World::open(logstore::io::real(dir), options, Arc::new(SystemClock)).await
    }

    /// In a directory of the caller's, by a clock of the caller's.
    pub async fn in_dir_by(dir: &std::path::Path, options: SequencerOptions, clock: Arc<dyn Clock>) -> World {
        World::open(logstore::io::real(dir), options, clock).await
    }

    /// Stops.
    pub async fn stop(self) {
        self.sequencer.shutdown().await;
        self.journal.close();
    }

    /// The same, with a journal of other sizes.
    pub async fn on_with(disk: &FaultyDisk, options: SequencerOptions, journal: JournalOptions) -> World {
        World::open_with(disk.handle(), options, Arc::new(SystemClock), journal).await
    }

    async fn open(disk: Arc<dyn Disk>, options: SequencerOptions, clock: Arc<dyn Clock>) -> World {
        World::open_with(disk, options, clock, journal_options()).await
    }

    async fn open_with(
        disk: Arc<dyn Disk>,
        options: SequencerOptions,
        clock: Arc<dyn Clock>,
        journal_options: JournalOptions,
    ) -> World {
        let journal = open_journal(&disk, &journal_options);
        let sequencer = Sequencer::open(options.clone(), journal.clone(), clock.clone()).await.unwrap();
        World { disk, _dir: None, options, clock, journal_options, journal, sequencer }
    }

    /// Stops and starts again on the same files.
    pub async fn restart(self) -> World {
        let World { disk, _dir, options, clock, journal_options, journal, sequencer } = self;
        sequencer.shutdown().await;
        journal.close();
        drop((sequencer, journal));
        World { _dir, ..World::open_with(disk, options, clock, journal_options).await }
    }

    pub fn shard_of(&self, conversation: ConversationId) -> &Arc<Shard> {
        self.sequencer.shard_of(conversation)
    }

    /// A group of some users, the first of them its owner.
    pub async fn group(&self, number: u64, members: &[u64]) -> ConversationId {
        let group = ConversationId::group(number);
        let command = Command::GroupCreate {
            group,
            creator: UserId(members[0]),
            request: id_now(),
            name: format!("group {number}"),
            members: members.iter().copied().map(UserId).collect(),
        };
        let outcome = self.shard_of(group).execute(command).await.unwrap();
        assert!(matches!(outcome, Outcome::Group { seq: SeqId(1), .. }), "{outcome:?}");
        group
    }

    /// Sends one message and gives where it is.
    pub async fn send(&self, send: Send) -> Stored {
        let outcome = self.shard_of(send.conversation).execute(Command::Send(send)).await.unwrap();
        stored(&outcome)
    }
}

/// Why a node does not open on what is in a directory.
pub async fn open_error(dir: &std::path::Path, options: SequencerOptions) -> sequencer::Error {
    let journal = open_journal(&logstore::io::real(dir), &journal_options());
    let opened = Sequencer::open(options, journal.clone(), Arc::new(SystemClock)).await;
    journal.close();
    opened.err().expect("it does not open")
}

/// The place of a message that must have been stored.
pub fn stored(outcome: &Outcome) -> Stored {
    let Outcome::Sent(stored) = outcome else { panic!("not stored: {outcome:?}") };
    *stored
}

/// A message with a fresh id.
pub fn text(conversation: ConversationId, sender: u64, body: impl Into<Bytes>) -> Send {
    text_with_id(conversation, sender, body, id_now())
}

pub fn text_with_id(conversation: ConversationId, sender: u64, body: impl Into<Bytes>, id: ClientMsgId) -> Send {
    let body = body.into();
    Send {
        conversation,
        sender: UserId(sender),
        origin: ConnectionId(0),
        client_msg_id: id,
        kind: RecordKind::TEXT,
        body_hash: Send::hash_of(RecordKind::TEXT, &body),
        checked_upto: 0,
        body,
    }
}

static COUNTER: AtomicU64 = AtomicU64::new(1);

/// A fresh id of now.
pub fn id_now() -> ClientMsgId {
    id_at(SystemClock.now())
}

/// A fresh id of some time, in the shape of a UUIDv7.
pub fn id_at(time: TimeMs) -> ClientMsgId {
    let counter = u128::from(COUNTER.fetch_add(1, Ordering::Relaxed));
    ClientMsgId(u128::from(time.0) << 80 | 0x7 << 76 | 0b10 << 62 | counter)
}

/// A place in a pipeline.
pub fn slot(connection: u64, epoch: u32, n: u64) -> PipelineSlot {
    PipelineSlot { connection: ConnectionId(connection), epoch, n }
}

/// Proposes sends with their slots; the results come through the channel.
pub fn propose(shard: &Shard, sends: Vec<Send>, pipeline: Vec<PipelineSlot>) -> mpsc::Receiver<ProposalResult> {
    let (tx, rx) = mpsc::channel();
    let commands = sends.into_iter().map(Command::Send).collect();
    let reply = Box::new(move |results| drop(tx.send(results)));
    shard.propose(Proposal { commands, pipeline, reply });
    rx
}

/// Proposes and waits.
pub fn proposed(shard: &Shard, sends: Vec<Send>, pipeline: Vec<PipelineSlot>) -> ProposalResult {
    tokio::task::block_in_place(|| propose(shard, sends, pipeline).recv_timeout(SOON).unwrap())
}
