//! What applying a message costs: entries of 256 sends of 200 bytes over a million 1:1 conversations.
//!
//! `uniform` picks conversations evenly: every message meets cold rows. `zipf` picks them as people do (s = 0.9).
//! The figure is ns a message; gate 500, goal 250. The state goes on growing from one measurement to the next, as a
//! server's does, ids and all; the `seal` case also pays for copying rows up into a new generation and folding old
//! ones down. Times are of the wall: on a busy machine they say nothing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use logstore::RecordKind;
use logstore::id::{Bucket, ClientMsgId, ConnectionId, ConversationId, HistoryId, LogIndex, ShardId, TimeMs, UserId};
use sequencer::state::ShardState;
use sequencer::{BatchBuilder, Command, Effect, Outcome, Send};

/// The server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONVERSATIONS: u64 = 1_000_000;
const SENDS: usize = 256;
const BODY_LEN: usize = 200;
const BEGIN: u64 = 1_800_000_000_000;

/// A shard with a million open 1:1s, and where its log is.
struct Shard {
    state: ShardState,
    index: u64,
    messages: u64,
    random: u64,
}

fn conversation(n: u64) -> (ConversationId, UserId) {
    let user = UserId(2 * n + 1);
    (ConversationId::direct(user, UserId(2 * n + 2)), user)
}

impl Shard {
    fn new() -> Shard {
        let mut shard =
            Shard { state: ShardState::new(ShardId(1)), index: 0, messages: 0, random: 0x2545_f491_4f6c_dd1d };
        shard.apply_all(&[Command::Init {
            history: HistoryId(1),
            incarnation: 1,
            table_epoch: 1,
            table: vec![(Bucket(0), Bucket(u16::MAX), ShardId(1))],
        }]);
        for first in (0..CONVERSATIONS).step_by(1000) {
            let effects = (first..first + 1000).flat_map(|n| {
                let (conversation, low) = conversation(n);
                [low, UserId(low.0 + 1)].map(|home_of| Effect::GrantDirect {
                    conversation,
                    home_of,
                    low_may_send: true,
                    high_may_send: true,
                    exists: true,
                })
            });
            let effects = effects.collect();
            shard.apply_all(&[Command::Effects { from: ShardId(9), incarnation: 1, first: 2 * first + 1, effects }]);
        }
        assert_eq!(shard.state.conversation_count(), CONVERSATIONS);
        shard
    }

    fn apply_all(&mut self, commands: &[Command]) {
        let mut builder = BatchBuilder::new();
        for command in commands {
            builder.add(command);
        }
        self.index += 1;
        let applied = self.state.apply(LogIndex(self.index), &builder.finish(TimeMs(BEGIN)));
        assert!(!applied.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Refused(_))));
    }

    /// Seals and folds until the million rows made at the beginning are where old rows are.
    fn settle(&mut self) {
        self.apply_all(&[Command::Seal]);
        self.apply_all(&[Command::Seal]);
        for _ in 0..1100 {
            self.apply_all(&[Command::Probe]);
        }
    }

    /// Xorshift: the same choices in every run.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Entries of `SENDS` messages, the conversation of each chosen by `pick` from a number in 0..1.
    fn entries(&mut self, count: u64, pick: fn(f64) -> u64) -> Vec<Bytes> {
        let body = Bytes::from(vec![b'x'; BODY_LEN]);
        let body_hash = Send::hash_of(RecordKind::TEXT, &body);
        let mut builder = BatchBuilder::new();
        let mut entries = Vec::with_capacity(count as usize);
        for _ in 0..count {
            for _ in 0..SENDS {
                let chosen = pick((self.random() >> 11) as f64 / (1u64 << 53) as f64);
                let (conversation, sender) = conversation(chosen);
                self.messages += 1;
                let noise = u128::from(self.random()) << 14;
                builder.add(&Command::Send(Send {
                    conversation,
                    sender,
                    origin: ConnectionId(1),
                    client_msg_id: ClientMsgId(u128::from(BEGIN) << 80 | noise ^ u128::from(self.messages)),
                    kind: RecordKind::TEXT,
                    body_hash,
                    checked_upto: 0,
                    body: body.clone(),
                }));
            }
            entries.push(builder.finish(TimeMs(BEGIN)));
        }
        entries
    }

    fn apply_timed(&mut self, entries: &[Bytes]) -> Duration {
        let begin = Instant::now();
        for entry in entries {
            self.index += 1;
            let applied = self.state.apply(LogIndex(self.index), entry);
            assert_eq!(applied.records.len(), SENDS);
        }
        begin.elapsed()
    }
}

fn uniform(x: f64) -> u64 {
    (x * CONVERSATIONS as f64) as u64
}

/// Zipf with s = 0.9 by inverting its integral; spread over the table, so that what is hot is not also adjacent.
fn zipf(x: f64) -> u64 {
    let rank = (x * ((CONVERSATIONS as f64).powf(0.1) - 1.0) + 1.0).powf(10.0) as u64;
    rank.min(CONVERSATIONS - 1).wrapping_mul(7_919_777) % CONVERSATIONS
}

fn apply(c: &mut Criterion) {
    let mut shard = Shard::new();
    let mut group = c.benchmark_group("apply");
    group.throughput(Throughput::Elements(SENDS as u64));
    for (name, pick) in [("uniform", uniform as fn(f64) -> u64), ("zipf", zipf)] {
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for first in (0..iterations).step_by(64) {
                    let entries = shard.entries((iterations - first).min(64), pick);
                    spent += shard.apply_timed(&entries);
                }
                spent
            });
        });
    }
    shard.settle();
    group.bench_function("zipf_with_seals", |b| {
        b.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for first in (0..iterations).step_by(1024) {
                let begin = Instant::now();
                shard.apply_all(&[Command::Seal]);
                spent += begin.elapsed();
                for part in (first..iterations.min(first + 1024)).step_by(64) {
                    let entries = shard.entries((iterations - part).min(64), zipf);
                    spent += shard.apply_timed(&entries);
                }
            }
            spent
        });
    });
    group.finish();
    println!("{} messages in all; digest {:032x}", shard.messages, shard.state.digest());
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    targets = apply
}
criterion_main!(benches);
