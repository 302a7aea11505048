//! What it costs to find out who gets a record: entries of 256 records over 1,000 conversations of two, both connected.
//!
//! The figure is time a delivery (a record to a connection): 512 of them an entry, sender's connection included.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fanout::tail::{GatewayId, Hub, Listener};
use logstore::id::*;
use logstore::{BodyPlace, RecordHead, RecordKind};
use sequencer::{Applied, CommittedRecord, TailBatch};

const SHARD: ShardId = ShardId(1);
const CONVERSATIONS: u64 = 1000;
const RECORDS_PER_ENTRY: u64 = 256;

fn record(conversation: ConversationId, seq: u64) -> CommittedRecord {
    let head = RecordHead {
        conversation,
        seq: SeqId(seq),
        ordinal: Ordinal(seq),
        kind: RecordKind::TEXT,
        sender: UserId(1),
        server_msg_id: ServerMsgId(seq),
        client_msg_id: ClientMsgId(u128::from(seq)),
        body_hash: BodyHash(seq),
        time: TimeMs(seq),
        index: LogIndex(seq),
        body: BodyPlace::InEntry { offset: 0, len: 0 },
    };
    CommittedRecord { head, origin: ConnectionId(0), command_offset: 0, made_body: None }
}

/// An entry whose records are spread over the conversations `conversation` makes.
fn entry(index: u64, conversation: impl Fn(u64) -> ConversationId) -> Arc<TailBatch> {
    // A step that has no factor in common with 1,000 visits them all, far from each other.
    let pick = |i: u64| conversation((index * RECORDS_PER_ENTRY + i) * 387 % CONVERSATIONS);
    let applied = Applied {
        shard: SHARD,
        index: LogIndex(index),
        time: TimeMs(index),
        outcomes: Vec::new(),
        records: (0..RECORDS_PER_ENTRY).map(|i| record(pick(i), index)).collect(),
        imported: Vec::new(),
        opened: false,
        cursors: Vec::new(),
        outbox_changed: false,
        sealed: None,
    };
    Arc::new(TailBatch { applied, payload: Bytes::new() })
}

fn user(n: u64) -> UserId {
    UserId(n * 4093 + 1)
}

/// A hub with both users of every conversation connected, each in one conversation.
fn hub(groups: bool) -> Hub {
    let mut hub = Hub::new(SHARD);
    for n in 0..2 * CONVERSATIONS {
        let listener = Listener { gateway: GatewayId(1), connection: ConnectionId(n + 1) };
        let group = groups.then_some((ConversationId::group(n / 2), SeqId(1)));
        hub.announce(listener, user(n), group.into_iter());
    }
    hub
}

/// A name, whether the conversations are groups, and which is the nth.
type Case<'a> = (&'a str, bool, &'a dyn Fn(u64) -> ConversationId);

fn dispatch(c: &mut Criterion) {
    let mut group = c.benchmark_group("tail/dispatch of 256 records");
    group.throughput(Throughput::Elements(2 * RECORDS_PER_ENTRY));
    let direct = |n: u64| ConversationId::direct(user(2 * n), user(2 * n + 1));
    let cases: [Case; 2] = [("to directs", false, &direct), ("to groups of two", true, &ConversationId::group)];
    for (name, groups, conversation) in cases {
        let mut hub = hub(groups);
        let entries: Vec<_> = (1..=8).map(|index| entry(index, conversation)).collect();
        let deliveries: usize = hub.dispatch(&entries[0], &[]).iter().map(|(_, d)| d.connections.len()).sum();
        assert_eq!(deliveries as u64, 2 * RECORDS_PER_ENTRY, "everybody is connected");
        let mut next = entries.iter().cycle();
        group.bench_function(name, |b| {
            b.iter(|| next.next().map(|entry| black_box(hub.dispatch(entry, &[]))));
        });
    }
    group.finish();
}

fn one_conversation(c: &mut Criterion) {
    let mut group = c.benchmark_group("tail/dispatch of 256 records");
    group.throughput(Throughput::Elements(2 * RECORDS_PER_ENTRY));
    let entry = entry(1, |_| ConversationId::direct(user(0), user(1)));
    let mut hub = hub(false);
    group.bench_function("to one direct", |b| b.iter(|| black_box(hub.dispatch(&entry, &[]))));
    group.finish();
}

criterion_group!(benches, dispatch, one_conversation);
criterion_main!(benches);
