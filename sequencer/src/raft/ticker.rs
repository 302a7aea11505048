//! One ticker a node, on a thread of its own or, in a simulation, a task of the simulated machine: it beats for the groups this
//! node leads and elects for those that nobody does.
//!
//! What always holds: it never waits for a group (a full channel costs that group one beat, not the others);
//! it only ever calls `elect(true)`, which asks before it unseats; its lag is a metric, because a ticker that stalls
//! longer than the lease stops every idle group of the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::FutureExt;
use logstore::id::{NodeId, ShardId};
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::raft::group::{Group, LEASE_MS};
use crate::runtime::{self, Instant};

/// How often leaders beat.
const BEAT: Duration = Duration::from_millis(100);
/// How often a group that could lead at once is asked to, while there is one.
const START_STEP: Duration = Duration::from_millis(5);
/// From one try to the next: two rounds of messages and two synced votes fit in.
const ELECTION_RETRY: Duration = Duration::from_millis(250);
/// Ahead of the lease, so that the first try is not wasted on it.
const LEASE_MARGIN_MS: u64 = 20;
/// Between two candidates of one group.
const RANK_STEP_MS: u64 = 200;
/// Spread among equal candidates.
const JITTER_MS: u64 = 150;

/// Beats and elects for all groups given to it, until dropped.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    /// None in a simulation.
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    groups: Mutex<Vec<Watched>>,
    /// Wakes the thread.
    changed: Condvar,
    /// Wakes the simulated task.
    changed_simulated: Notify,
    stop: AtomicBool,
}

struct Watched {
    group: Group,
    /// When this node last led, or heard from who does.
    heard: Instant,
    /// No election before this: the last one may still be counting.
    retry_at: Instant,
    patience: Duration,
}

/// What a group needs at this beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    Beat,
    Election,
}

impl Ticker {
    /// Starts the thread, or the task.
    pub(crate) fn start() -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared::default());
        let ticking = shared.clone();
        if runtime::is_simulated() {
            runtime::spawn(async move { ticking.run_simulated().await });
            return Ok(Ticker { shared, thread: None });
        }
        let thread = std::thread::Builder::new().name("skein-ticker".to_string());
        let thread = thread.spawn(move || ticking.run())?;
        Ok(Ticker { shared, thread: Some(thread) })
    }

    /// Beats and elects for a group from now on.
    pub(crate) fn watch(&self, node: NodeId, group: Group) {
        let patience = patience(node, group.shard());
        let now = Instant::now_here();
        self.shared.groups.lock().push(Watched { group, heard: now, retry_at: now, patience });
        self.shared.wake();
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn wake(&self) {
        self.changed.notify_all();
        self.changed_simulated.notify_one();
    }

    fn run(&self) {
        let lag = metrics::histogram!("skein_ticker_lag_seconds");
        let mut due = Instant::now_here();
        while !self.stop.load(Ordering::Acquire) {
            let mut groups = self.groups.lock();
            let now = Instant::now_here();
            lag.record((now - due).as_secs_f64());
            let pause = beat(&mut groups, now);
            due = now + pause;
            self.changed.wait_for(&mut groups, due - Instant::now_here());
            // A new group is looked at once: then the beat is early, not late.
            due = due.min(Instant::now_here());
        }
    }

    async fn run_simulated(&self) {
        while !self.stop.load(Ordering::Acquire) {
            let pause = beat(&mut self.groups.lock(), Instant::now_here());
            let _ = runtime::within(pause, self.changed_simulated.notified()).await;
        }
    }
}

/// Gives every group what it needs; how long until the next time, which is soon while one of them waits to lead at once.
fn beat(groups: &mut [Watched], now: Instant) -> Duration {
    let mut starting = false;
    for watched in groups {
        let need = watched.need(now);
        starting |= watched.is_starting();
        watched.give(need, now);
    }
    if starting { START_STEP } else { BEAT }
}

impl Watched {
    fn need(&mut self, now: Instant) -> Need {
        if self.group.leading_term().is_some() {
            self.heard = now;
            return if self.group.has_followers() { Need::Beat } else { Need::Nothing };
        }
        if now < self.retry_at || !self.group.is_voter() {
            return Need::Nothing;
        }
        self.heard = self.heard.max(self.group.heard());
        election_need(self.group.is_only_voter(), now - self.heard, self.patience)
    }

    /// Whether the group could lead at once and does not yet.
    fn is_starting(&self) -> bool {
        self.group.leading_term().is_none() && (self.group.is_only_voter() || !self.group.is_voter())
    }

    /// Polls once: a full channel or a stopped group costs this beat and nothing else.
    fn give(&mut self, need: Need, now: Instant) {
        let trigger = self.group.raft().trigger();
        let given = match need {
            Need::Nothing => return,
            Need::Beat => trigger.heartbeat().now_or_never(),
            Need::Election => {
                self.retry_at = now + ELECTION_RETRY;
                trigger.elect(true).now_or_never()
            }
        };
        if !matches!(given, Some(Ok(()))) {
            metrics::counter!("skein_ticker_missed_total").increment(1);
        }
    }
}

/// A group without followers to ask is led at once, any other when its leader has been silent for long enough.
fn election_need(only_voter: bool, silent: Duration, patience: Duration) -> Need {
    if only_voter || silent >= patience { Need::Election } else { Need::Nothing }
}

/// How long a node waits for a silent leader of a shard: nodes are ranked, so that one of them is first.
fn patience(node: NodeId, shard: ShardId) -> Duration {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&node.0.to_le_bytes());
    key[8..].copy_from_slice(&shard.0.to_le_bytes());
    let hash = xxhash_rust::xxh3::xxh3_64(&key);
    let rank = hash % 3;
    let jitter = (hash >> 8) % JITTER_MS;
    Duration::from_millis(LEASE_MS + LEASE_MARGIN_MS + RANK_STEP_MS * rank + jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_voter_leads_at_once_and_others_wait_for_silence() {
        let patience = Duration::from_millis(700);
        assert_eq!(election_need(true, Duration::ZERO, patience), Need::Election);
        assert_eq!(election_need(false, Duration::from_millis(699), patience), Need::Nothing);
        assert_eq!(election_need(false, patience, patience), Need::Election);
    }

    #[test]
    fn nobody_is_patient_for_less_than_the_lease() {
        for (node, shard) in (1..50).flat_map(|n| (0..20).map(move |s| (NodeId(n), ShardId(s)))) {
            let patience = patience(node, shard).as_millis() as u64;
            assert!((LEASE_MS + LEASE_MARGIN_MS..1_200).contains(&patience), "{patience}");
        }
    }
}
