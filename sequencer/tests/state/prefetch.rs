//! The stage between append and apply, over a source that has rows below memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{collections::BTreeMap, io};

use bytes::Bytes;
use logstore::id::{BodyHash, ConversationId, LogIndex, Ordinal, SeqId, ShardId, TimeMs, UserId};
use sequencer::state::{ConversationRow, GroupRow, Key, MemberRow, Role, ShardState};
use sequencer::store::{NothingSealed, Prefetch, Row, Scanned, StateSource};
use sequencer::{BatchBuilder, Command, Outcome, Refusal};

use crate::log::{BEGIN, id_at, init, refused, send};

/// A group with one member, below memory.
#[derive(Default)]
struct Below {
    rows: BTreeMap<Key, Row>,
    loads: AtomicUsize,
    broken: AtomicBool,
}

impl StateSource for Below {
    fn is_empty(&self) -> bool {
        false
    }
    fn generation(&self) -> u64 {
        1
    }
    fn scan(&self, _prefix: &[u8], _after: Option<&[u8]>, _rows_max: usize) -> io::Result<Scanned> {
        unreachable!("nobody asks who is where")
    }
    fn may_contain(&self, key: &Key) -> bool {
        !matches!(key, Key::Shard | Key::Inbox(_) | Key::Outbox(_))
    }
    fn load(&self, key: &Key) -> io::Result<Option<Row>> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(io::Error::other("planned"));
        }
        self.loads.fetch_add(1, Ordering::Relaxed);
        Ok(self.rows.get(key).cloned())
    }
}

const GROUP: ConversationId = ConversationId(2 << 126 | 1);

fn below() -> Arc<Below> {
    let group = GroupRow {
        name: "sealed".into(),
        owner: UserId(10),
        creator: UserId(10),
        request: id_at(BEGIN, 0),
        asked: BodyHash(0),
        member_count: 1,
        created: TimeMs(BEGIN),
    };
    let conversation = ConversationRow {
        last_seq: SeqId(41),
        last_ordinal: Ordinal(40),
        last_index: LogIndex(1),
        last_time: TimeMs(BEGIN),
        direct: None,
        upkeep: None,
        group: Some(Box::new(group)),
    };
    let member = MemberRow {
        intervals: [sequencer::state::Interval { join: SeqId(1), end: None }].into_iter().collect(),
        visible_from: SeqId(1),
        role: Role::Owner,
        delivered: SeqId(0),
        read: SeqId(0),
        read_ordinal: Ordinal(0),
        join_ordinal: Ordinal(0),
        left_at: (Ordinal(0), TimeMs(0)),
        changed_at: LogIndex(1),
    };
    let rows = [
        (Key::Conversation(GROUP), Row::Conversation(conversation)),
        (Key::Member(GROUP, UserId(10)), Row::Member(member)),
    ];
    Arc::new(Below { rows: rows.into_iter().collect(), ..Below::default() })
}

struct Replica {
    below: Arc<Below>,
    state: ShardState,
    prefetch: Prefetch,
}

impl Replica {
    fn new(pinned_bytes_max: usize) -> Replica {
        let below = below();
        let mut state = ShardState::above(ShardId(1), below.clone());
        state.apply(LogIndex(1), &entry(&[init(&[(0, u16::MAX, 1)])]));
        let prefetch = Prefetch::new(below.clone(), pinned_bytes_max);
        Replica { below, state, prefetch }
    }

    fn append(&mut self, index: u64, commands: &[Command]) -> Bytes {
        let payload = entry(commands);
        self.prefetch.append(LogIndex(index), &payload, &self.state);
        payload
    }

    /// Runs jobs until none is offered; how many there were.
    fn load(&mut self) -> usize {
        let mut jobs = 0;
        while let Some(job) = self.prefetch.next_load() {
            self.prefetch.complete(job.run().unwrap(), &mut self.state);
            jobs += 1;
        }
        jobs
    }

    fn ready(&mut self, index: u64, payload: &Bytes) -> bool {
        self.prefetch.ready(LogIndex(index), payload, &self.state)
    }

    fn apply(&mut self, index: u64, payload: &Bytes) -> Vec<Outcome> {
        assert!(self.ready(index, payload));
        let applied = self.state.apply(LogIndex(index), payload);
        self.prefetch.applied(LogIndex(index), &mut self.state);
        applied.outcomes
    }
}

fn entry(commands: &[Command]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for command in commands {
        builder.add(command);
    }
    builder.finish(TimeMs(BEGIN))
}

fn message(sender: u64, n: u64) -> Command {
    send(GROUP, sender, id_at(BEGIN, n), "x")
}

#[test]
fn rows_below_memory_are_there_when_an_entry_is_applied() {
    let mut replica = Replica::new(1 << 20);
    let payload = replica.append(2, &[message(10, 1), message(11, 2)]);
    assert!(!replica.ready(2, &payload));
    assert_eq!(replica.load(), 1);
    let outcomes = replica.apply(2, &payload);
    assert!(matches!(outcomes[0], Outcome::Sent(stored) if stored.seq == SeqId(42)), "{outcomes:?}");
    assert_eq!(outcomes[1], refused(Refusal::NotMember), "an absent row is known to be absent");
    assert_eq!(replica.prefetch.pinned_bytes(), 0);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "a key was not brought to memory")]
fn apply_asserts_that_keys_are_in_memory() {
    let mut replica = Replica::new(1 << 20);
    replica.state.apply(LogIndex(2), &entry(&[message(10, 1)]));
}

#[test]
fn a_key_stays_pinned_until_the_last_entry_that_names_it() {
    let mut replica = Replica::new(1 << 20);
    let first = replica.append(2, &[message(11, 1)]);
    let second = replica.append(3, &[message(11, 2)]);
    replica.load();
    assert_eq!(replica.below.loads.load(Ordering::Relaxed), 2, "a pinned key is loaded once");
    replica.apply(2, &first);
    assert!(replica.state.is_near(&Key::Member(GROUP, UserId(11))));
    replica.apply(3, &second);
    assert!(!replica.state.is_near(&Key::Member(GROUP, UserId(11))), "an absence is forgotten");
}

#[test]
fn what_apply_wrote_stays_and_hides_what_is_below() {
    let mut replica = Replica::new(1 << 20);
    for n in 2..5 {
        let payload = replica.append(n, &[message(10, n)]);
        replica.load();
        let outcomes = replica.apply(n, &payload);
        assert!(matches!(outcomes[0], Outcome::Sent(stored) if stored.seq == SeqId(40 + n)), "{outcomes:?}");
    }
    assert!(replica.state.is_near(&Key::Conversation(GROUP)));
    assert!(replica.state.is_near(&Key::Member(GROUP, UserId(10))), "never written, but there is room");
    assert_eq!(replica.below.loads.load(Ordering::Relaxed), 2);
}

#[test]
fn what_has_left_memory_since_an_entry_was_appended_is_loaded_again() {
    let mut replica = Replica::new(1 << 20);
    replica.state.keep_at_most(0);
    let first = replica.append(2, &[message(10, 1)]);
    replica.load();
    // Both rows are in memory when this one is appended: pinned by the first, and let go of with it.
    let second = replica.append(4, &[message(10, 2), Command::Seal]);
    replica.apply(2, &first);
    let other = replica.append(3, &[message(12, 3)]);
    replica.load();
    replica.apply(3, &other);
    while !replica.ready(4, &second) {
        assert!(replica.load() > 0);
    }
    let outcomes = replica.apply(4, &second);
    assert!(matches!(outcomes[0], Outcome::Sent(stored) if stored.seq == SeqId(43)), "{outcomes:?}");
}

#[test]
fn truncated_entries_let_go_of_their_keys() {
    let mut replica = Replica::new(1 << 20);
    let first = replica.append(2, &[message(10, 1)]);
    replica.append(3, &[message(11, 2)]);
    let job = replica.prefetch.next_load().unwrap();
    replica.load();
    replica.prefetch.truncate(LogIndex(3), &mut replica.state);
    assert!(!replica.state.is_near(&Key::Member(GROUP, UserId(11))));
    let third = replica.append(3, &[message(12, 3)]);
    replica.prefetch.complete(job.run().unwrap(), &mut replica.state);
    assert!(replica.ready(2, &first) && !replica.ready(3, &third));
    replica.apply(2, &first);
    replica.prefetch.truncate(LogIndex(3), &mut replica.state);
    assert_eq!(replica.prefetch.pinned_bytes(), 0);
}

#[test]
fn beyond_the_bound_only_the_first_entry_loads() {
    let mut replica = Replica::new(1);
    let first = replica.append(2, &[message(10, 1)]);
    let second = replica.append(3, &[message(11, 2)]);
    assert!(!replica.prefetch.has_room());
    assert_eq!(replica.load(), 1);
    assert!(replica.ready(2, &first) && !replica.ready(3, &second));
    replica.apply(2, &first);
    assert_eq!(replica.load(), 1);
    replica.apply(3, &second);
}

#[test]
fn a_job_that_failed_or_read_too_early_is_run_again() {
    let mut replica = Replica::new(1 << 20);
    let payload = replica.append(2, &[message(10, 1)]);
    replica.below.broken.store(true, Ordering::Relaxed);
    let job = replica.prefetch.next_load().unwrap();
    assert!(job.run().is_err());
    replica.prefetch.failed(job);
    replica.below.broken.store(false, Ordering::Relaxed);
    let stale = replica.prefetch.next_load().unwrap().run().unwrap();
    replica.prefetch.sealed_changed();
    replica.prefetch.complete(stale, &mut replica.state);
    assert!(!replica.ready(2, &payload));
    assert_eq!(replica.load(), 1);
    replica.apply(2, &payload);
}

#[test]
fn with_nothing_below_every_entry_is_ready() {
    let mut prefetch = Prefetch::new(Arc::new(NothingSealed), 1);
    let (state, payload) = (ShardState::new(ShardId(1)), entry(&[message(10, 1)]));
    prefetch.append(LogIndex(1), &payload, &state);
    assert!(prefetch.ready(LogIndex(1), &payload, &state) && prefetch.next_load().is_none() && prefetch.has_room());
}
