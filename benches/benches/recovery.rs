//! What a start costs: a journal of 135 MiB that holds a shard's whole life, 500,000 messages of 200 bytes over 100,000
//! 1:1 conversations in entries of 256.
//!
//! `scan` opens it: every block is read and verified, every frame's place noted. `read` also reads all entries back,
//! each verified by itself. `replay` also applies the messages to a state that has their conversations, as a start above segments
//! does: the gate for it is 500 MB/s of journal a core. `apply` applies everything to an empty state, as the very first start does: two
//! fifths of its time go into opening conversations, a twentieth of its bytes. Times are of the thread's CPU, so that a busy machine does not count; the file is in
//! the page cache.

use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use logstore::id::{
    Bucket, ClientMsgId, ConnectionId, ConversationId, HistoryId, LogId, LogIndex, NodeId, ShardId, Term, TimeMs,
    UserId,
};
use logstore::{Entry, EntryKind, Journal, JournalOptions, RecordKind};
use rustix::time::{ClockId, clock_gettime};
use sequencer::state::ShardState;
use sequencer::{BatchBuilder, Command, Effect, Send};

/// The server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONVERSATIONS: u64 = 100_000;
const MESSAGES: u64 = 500_000;
const SENDS: u64 = 256;
const SHARD: ShardId = ShardId(1);
const BEGIN: u64 = 1_800_000_000_000;

fn conversation(n: u64) -> (ConversationId, UserId) {
    let user = UserId(2 * n + 1);
    (ConversationId::direct(user, UserId(2 * n + 2)), user)
}

fn payload(commands: impl IntoIterator<Item = Command>) -> Bytes {
    let mut builder = BatchBuilder::new();
    for command in commands {
        builder.add(&command);
    }
    builder.finish(TimeMs(BEGIN))
}

/// The shard's beginning: its conversations.
fn opening() -> Vec<Bytes> {
    let table = vec![(Bucket(0), Bucket(u16::MAX), SHARD)];
    let init = Command::Init { history: HistoryId(1), incarnation: 1, table_epoch: 1, table };
    let grants = (0..CONVERSATIONS).step_by(500).map(|first| {
        let effects = (first..first + 500).flat_map(|n| {
            let (conversation, low) = conversation(n);
            [low, UserId(low.0 + 1)].map(|home_of| Effect::GrantDirect {
                conversation,
                home_of,
                low_may_send: true,
                high_may_send: true,
                exists: true,
            })
        });
        payload([Command::Effects {
            from: ShardId(9),
            incarnation: 1,
            first: 2 * first + 1,
            effects: effects.collect(),
        }])
    });
    std::iter::once(payload([init])).chain(grants).collect()
}

/// Its messages, each in a conversation that a multiplicative hash chooses.
fn messages() -> impl Iterator<Item = Bytes> {
    let body = Bytes::from(vec![b'x'; 200]);
    let body_hash = Send::hash_of(RecordKind::TEXT, &body);
    (0..MESSAGES).step_by(SENDS as usize).map(move |first| {
        payload((first..first + SENDS).map(|n| {
            let noise = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let (conversation, sender) = conversation((noise >> 32) % CONVERSATIONS);
            Command::Send(Send {
                conversation,
                sender,
                origin: ConnectionId(1),
                client_msg_id: ClientMsgId(u128::from(BEGIN) << 80 | u128::from(noise)),
                kind: RecordKind::TEXT,
                body_hash,
                checked_upto: 0,
                body: body.clone(),
            })
        }))
    })
}

fn open(root: &std::path::Path) -> Journal {
    let options = JournalOptions { file_bytes: 64 << 20, reserve_files: 0, ..JournalOptions::default() };
    let dies = Box::new(|error: &logstore::Error| panic!("{error}"));
    Journal::open(logstore::io::real(root), options, dies).expect("a journal that opens")
}

/// Writes the journal; gives its bytes.
fn write(root: &std::path::Path) -> u64 {
    let (journal, mut bytes) = (open(root), 0);
    for (index, payload) in (1..).zip(opening().into_iter().chain(messages())) {
        bytes += payload.len() as u64 + 40;
        let id = LogId { term: Term(1), leader: NodeId(1), index: LogIndex(index) };
        let (told, durable) = std::sync::mpsc::channel();
        let done = move |result: std::io::Result<()>| drop(told.send(result));
        journal.append(SHARD, vec![Entry { id, kind: EntryKind::Normal, payload }], Box::new(done));
        durable.recv().expect("the journal lives").expect("a durable append");
    }
    bytes
}

/// Every entry of the shard.
fn read(journal: &Journal, mut each: impl FnMut(Entry)) {
    let (mut next, end) = (LogIndex(1), journal.last_index(SHARD).next());
    while next < end {
        for entry in journal.read(SHARD, next..end, 4 << 20).expect("entries that verify") {
            next = entry.id.index.next();
            each(entry);
        }
    }
}

fn apply_all(journal: &Journal, (): ()) -> ShardState {
    let (mut state, mut records) = (ShardState::new(SHARD), 0);
    read(journal, |entry| records += state.apply(entry.id.index, &entry.payload).records.len() as u64);
    assert!(records >= MESSAGES, "{records} records");
    state
}

/// The state as of the last entry of the opening, and that entry.
fn opened() -> (ShardState, LogIndex) {
    let (mut state, mut last) = (ShardState::new(SHARD), LogIndex(0));
    for payload in opening() {
        last = last.next();
        state.apply(last, &payload);
    }
    (state, last)
}

fn replay_all(journal: &Journal, (mut state, last): (ShardState, LogIndex)) -> ShardState {
    let mut records = 0;
    read(journal, |entry| {
        if entry.id.index > last {
            records += state.apply(entry.id.index, &entry.payload).records.len() as u64;
        }
    });
    assert!(records >= MESSAGES, "{records} records");
    state
}

/// CPU time of this thread for so many starts; what they are given is made before, what they make taken apart after.
fn cpu_of<T, R>(
    starts: u64,
    root: &std::path::Path,
    given: impl Fn() -> T,
    then: impl Fn(&Journal, T) -> R,
) -> Duration {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let spent = (0..starts).map(|_| {
        let given = given();
        let begun = now();
        let journal = open(root);
        let made = then(&journal, given);
        let spent = now() - begun;
        drop((journal, made));
        spent
    });
    spent.sum()
}

fn recovery(criterion: &mut Criterion) {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory can be written");
    let bytes = write(root.path());
    let mut group = criterion.benchmark_group("recovery");
    group.throughput(Throughput::Bytes(bytes)).sample_size(10);
    let root = root.path();
    group.bench_function("scan", |bencher| bencher.iter_custom(|starts| cpu_of(starts, root, || {}, |_, ()| {})));
    let read = |journal: &Journal, ()| read(journal, |entry| drop(std::hint::black_box(entry)));
    group.bench_function("read", |bencher| bencher.iter_custom(|starts| cpu_of(starts, root, || {}, read)));
    group.bench_function("replay", |bencher| bencher.iter_custom(|starts| cpu_of(starts, root, opened, replay_all)));
    group.bench_function("apply", |bencher| bencher.iter_custom(|starts| cpu_of(starts, root, || {}, apply_all)));
    group.finish();
}

criterion_group!(benches, recovery);
criterion_main!(benches);
