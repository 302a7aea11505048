//! A node's shards with services and tails, and a gateway that only writes down what it gets.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanout::Limits;
use fanout::service::{Outgoing, SendOutcome, Services};
use fanout::tail::{Announcement, Attachment, Delivery, GatewayId, TailSink, Tails};
use logstore::id::*;
use logstore::{Journal, JournalOptions, RecordKind};
use parking_lot::Mutex;
use sequencer::{Clock, CursorMoved, Sequencer, SequencerOptions, SystemClock};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Long enough for anything that works.
pub const SOON: Duration = Duration::from_secs(10);
pub const GATEWAY: GatewayId = GatewayId(1);

pub struct World {
    dir: TempDir,
    pub sequencer: Arc<Sequencer>,
    pub services: Services,
    pub tails: Arc<Tails>,
    pub sink: Arc<Sink>,
    connections: AtomicU64,
    places: Mutex<HashMap<(ConnectionId, ConversationId), u64>>,
}

impl World {
    pub async fn new() -> World {
        World::with_limits(Limits::default()).await
    }

    pub async fn with_limits(limits: Limits) -> World {
        let dir = tempfile::tempdir().unwrap();
        let journal_options = JournalOptions { file_bytes: 8 << 20, ..JournalOptions::default() };
        let disk = logstore::io::real(dir.path());
        let journal = Journal::open(disk, journal_options, Box::new(|error| panic!("{error}"))).unwrap();
        let options = SequencerOptions {
            node: NodeId(1),
            shards: 4,
            history: HistoryId(7),
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
        };
        let sequencer = Sequencer::open(options, journal, Arc::new(SystemClock)).await.unwrap();
        let limits = Arc::new(limits);
        let services = Services::new(Arc::clone(&sequencer), Arc::clone(&limits));
        let tails = Tails::start(Arc::clone(&sequencer), limits);
        let sink = Arc::new(Sink::default());
        tails.register(GATEWAY, Arc::clone(&sink) as Arc<dyn TailSink>);
        services.pass_receipts_to(Arc::clone(&tails));
        World { dir, sequencer, services, tails, sink, connections: AtomicU64::new(1), places: Mutex::default() }
    }

    /// The data directory.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Accounts of these names.
    pub async fn users<const N: usize>(&self, names: [&str; N]) -> [UserId; N] {
        let accounts = names.iter().map(|name| (name.to_string(), String::new())).collect();
        let users: Vec<UserId> =
            self.services.accounts.import(accounts).await.into_iter().map(Result::unwrap).collect();
        users.try_into().unwrap()
    }

    pub async fn group(&self, creator: UserId, members: &[UserId]) -> ConversationId {
        self.services.groups.create(creator, "a group", members.to_vec(), id_now()).await.unwrap().0
    }

    pub fn connection(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed))
    }

    /// Messages with their places in their pipelines counted, as a gateway does it.
    pub fn counted(&self, connection: ConnectionId, messages: Vec<(ConversationId, &str)>) -> Vec<Outgoing> {
        let mut places = self.places.lock();
        let count = |(conversation, text): (ConversationId, &str)| {
            let n = places.entry((connection, conversation)).or_default();
            *n += 1;
            Outgoing { n: *n, ..outgoing(conversation, text) }
        };
        messages.into_iter().map(count).collect()
    }

    /// Hands messages over; the outcomes come through the channel.
    pub fn start_send(
        &self,
        sender: UserId,
        connection: ConnectionId,
        messages: Vec<Outgoing>,
    ) -> oneshot::Receiver<Vec<SendOutcome>> {
        let (tx, rx) = oneshot::channel();
        self.services.messages.send(sender, connection, messages, Box::new(|outcomes| drop(tx.send(outcomes))));
        rx
    }

    /// Sends and waits.
    pub async fn send(
        &self,
        sender: UserId,
        connection: ConnectionId,
        messages: Vec<(ConversationId, &str)>,
    ) -> Vec<SendOutcome> {
        let messages = self.counted(connection, messages);
        tokio::time::timeout(SOON, self.start_send(sender, connection, messages)).await.unwrap().unwrap()
    }

    /// Sends one message that is taken.
    pub async fn say(&self, sender: UserId, conversation: ConversationId, text: &str) -> SeqId {
        let connection = self.connection();
        self.send(sender, connection, vec![(conversation, text)]).await.remove(0).unwrap().seq
    }

    /// Announces a connection on every shard.
    pub async fn attach(&self, user: UserId, connection: ConnectionId) -> Vec<Attachment> {
        let mut attachments = Vec::new();
        for shard in self.sequencer.shards() {
            let announcement = Announcement { gateway: GATEWAY, connection, user, cursor: LogIndex(0), bodies: true };
            let attachment = self.tails.announce(shard.id(), announcement).await.unwrap();
            self.sink.fences.lock().insert((connection, shard.id()), attachment.as_of);
            attachments.push(attachment);
        }
        attachments
    }
}

/// A message without a place.
pub fn outgoing(conversation: ConversationId, text: &str) -> Outgoing {
    Outgoing {
        conversation,
        client_msg_id: id_now(),
        kind: RecordKind::TEXT,
        body: Bytes::copy_from_slice(text.as_bytes()),
        epoch: 1,
        n: 0,
    }
}

/// A fresh UUIDv7 of now.
pub fn id_now() -> ClientMsgId {
    static COUNTER: AtomicU64 = AtomicU64::new(1);
    let counter = u128::from(COUNTER.fetch_add(1, Ordering::Relaxed));
    ClientMsgId(u128::from(SystemClock.now().0) << 80 | 7 << 76 | 2 << 62 | counter)
}

/// Waits until `look` gives something.
pub async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let started = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < SOON, "it does not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

struct Got {
    connection: ConnectionId,
    shard: ShardId,
    index: LogIndex,
    conversation: ConversationId,
    seq: SeqId,
}

/// Writes down what a gateway gets.
#[derive(Default)]
pub struct Sink {
    records: Mutex<Vec<Got>>,
    fences: Mutex<HashMap<(ConnectionId, ShardId), LogIndex>>,
    pub receipts: Mutex<Vec<(ConnectionId, CursorMoved)>>,
    pub passed_on: Mutex<Vec<(ConnectionId, CursorMoved)>>,
}

impl Sink {
    /// What a connection got above its fences, in order.
    pub fn of(&self, connection: ConnectionId) -> Vec<(ConversationId, SeqId)> {
        let fences = self.fences.lock();
        let above = |got: &&Got| fences.get(&(got.connection, got.shard)).is_some_and(|as_of| got.index > *as_of);
        let records = self.records.lock();
        let of = records.iter().filter(|got| got.connection == connection).filter(above);
        of.map(|got| (got.conversation, got.seq)).collect()
    }
}

fn each<T: Copy>(items: &[(T, Range<u32>)], connections: &[ConnectionId], into: &Mutex<Vec<(ConnectionId, T)>>) {
    for (item, to) in items {
        into.lock().extend(connections[to.start as usize..to.end as usize].iter().map(|c| (*c, *item)));
    }
}

impl TailSink for Sink {
    fn deliver(&self, delivery: Delivery) {
        let (shard, index) = (delivery.shard, delivery.batch.applied.index);
        for target in &delivery.targets {
            let head = &delivery.batch.applied.records[target.record as usize].head;
            let (conversation, seq) = (head.conversation, head.seq);
            let to = &delivery.connections[target.to.start as usize..target.to.end as usize];
            let got = to.iter().map(|&connection| Got { connection, shard, index, conversation, seq });
            self.records.lock().extend(got);
        }
        each(&delivery.receipts, &delivery.connections, &self.receipts);
    }

    fn reset(&self, shard: ShardId, floor: LogIndex) {
        panic!("no tail of a test is that long: shard {shard}, {floor}");
    }

    fn receipts(&self, _: ShardId, receipts: Vec<(CursorMoved, Range<u32>)>, connections: Vec<ConnectionId>) {
        each(&receipts, &connections, &self.passed_on);
    }
}
