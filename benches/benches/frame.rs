//! Frames of the hot path: a send of 64 messages read, its reply written, a batch of deliveries written.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fanout::service::SendOutcome;
use gateway::wire::frame::{self, CLIENT_FRAME_BYTES_MAX, FLAG_PUSH, FLAG_RESPONSE};
use gateway::wire::operation::Operation;
use gateway::wire::{convert, proto, record, send};
use logstore::id::{BodyHash, ClientMsgId, ConversationId, LogIndex, Ordinal, SeqId, ServerMsgId, TimeMs, UserId};
use logstore::{BodyPlace, RecordHead, RecordKind};
use prost::Message;
use sequencer::Stored;

const BATCH: u64 = 64;
const TEXT_BYTES: usize = 200;

fn conversation(i: u64) -> ConversationId {
    ConversationId::direct(UserId(i), UserId(1 << 40 | i))
}

fn send_body() -> proto::Send {
    let message = |i: u64| proto::Outgoing {
        conversation: convert::id_bytes(conversation(i).0),
        client_msg_id: convert::id_bytes(0x0190_0000_0000_7000 << 64 | u128::from(i)),
        kind: 1,
        content: vec![b'a'; TEXT_BYTES].into(),
    };
    proto::Send { epoch: 1, messages: (0..BATCH).map(message).collect(), want_accepted: false }
}

fn send_frame() -> Bytes {
    let mut out = BytesMut::new();
    frame::encode(&mut out, 0, Operation::Send.number(), 7, &send_body());
    out.freeze()
}

fn head(i: u64) -> RecordHead {
    RecordHead {
        conversation: conversation(i),
        seq: SeqId(1_000 + i),
        ordinal: Ordinal(1_000 + i),
        kind: RecordKind::TEXT,
        sender: UserId(i),
        server_msg_id: ServerMsgId::pack(TimeMs(ServerMsgId::EPOCH_MS + 60_000), logstore::id::ShardId(3), i as u16),
        client_msg_id: ClientMsgId(u128::from(i) << 64),
        body_hash: BodyHash(i),
        time: TimeMs(1_800_000_000_000),
        index: LogIndex(99),
        body: BodyPlace::InEntry { offset: 0, len: TEXT_BYTES as u32 },
    }
}

fn decode_a_send(c: &mut Criterion) {
    let stream = send_frame();
    let mut group = c.benchmark_group("decode a send of 64");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("by hand", |b| {
        b.iter(|| {
            let mut buffer = BytesMut::from(&stream[..]);
            let frame = frame::decode(&mut buffer, CLIENT_FRAME_BYTES_MAX).expect("a frame").expect("whole");
            black_box(send::decode(&frame.body, 256).expect("a send"))
        });
    });
    group.bench_function("by prost", |b| {
        b.iter(|| {
            let mut buffer = BytesMut::from(&stream[..]);
            let frame = frame::decode(&mut buffer, CLIENT_FRAME_BYTES_MAX).expect("a frame").expect("whole");
            black_box(proto::Send::decode(frame.body).expect("a send"))
        });
    });
    group.finish();
}

fn encode_a_send(c: &mut Criterion) {
    let send = send_body();
    let mut out = BytesMut::new();
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("a send of 64", |b| {
        b.iter(|| {
            out.clear();
            frame::encode(&mut out, 0, Operation::Send.number(), 7, &send);
            black_box(out.len())
        });
    });
    group.finish();
}

fn encode_a_reply(c: &mut Criterion) {
    let stored = |i: u64| Stored {
        seq: SeqId(1_000 + i),
        server_msg_id: ServerMsgId(i << 40),
        time: TimeMs(1_800_000_000_000),
        duplicate: false,
    };
    let outcomes: Vec<SendOutcome> = (0..BATCH).map(|i| Ok(stored(i))).collect();
    let mut out = BytesMut::new();
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("a reply to 64", |b| {
        b.iter(|| {
            out.clear();
            frame::encode_with(&mut out, FLAG_RESPONSE, Operation::Send.number(), 7, |out| {
                send::encode_reply(out, &outcomes);
            });
            black_box(out.len())
        });
    });
    group.finish();
}

fn encode_deliveries(c: &mut Criterion) {
    let heads: Vec<_> = (0..BATCH).map(head).collect();
    let body = vec![b'a'; TEXT_BYTES];
    let mut out = BytesMut::new();
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("a deliver of 64", |b| {
        b.iter(|| {
            out.clear();
            frame::encode_with(&mut out, FLAG_PUSH, Operation::Deliver.number(), 0, |out| {
                heads.iter().for_each(|head| record::put_element(out, head, &body));
            });
            black_box(out.len())
        });
    });
    group.finish();
}

criterion_group!(frames, decode_a_send, encode_a_send, encode_a_reply, encode_deliveries);
criterion_main!(frames);
