//! Drives the prefetch stage of a shard: what an entry touches is loaded while the entry is on its way.
//!
//! What always holds: reads happen off the async workers; an entry is applied only when all it touches is in memory; a
//! read that fails is tried again, and its entry waits. While every row is in memory it costs one comparison an entry.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use logstore::id::LogIndex;
use logstore::{Entry, EntryKind};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::runtime;
use crate::shard::core::ShardCore;
use crate::state::ShardState;
use crate::store::{LoadJob, Prefetch, StateSource};

/// Rows pinned for entries that are not applied yet: far more than two entries of sends can name.
const PINNED_BYTES_MAX: usize = 64 << 20;
/// Between two tries of a read that failed.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The stage and what waits for it.
pub(crate) struct Staging {
    source: Arc<dyn StateSource>,
    stage: Mutex<Stage>,
    loaded: Notify,
}

struct Stage {
    prefetch: Prefetch,
}

impl Staging {
    /// A stage above `source`.
    pub(crate) fn new(source: Arc<dyn StateSource>) -> Staging {
        let prefetch = Prefetch::new(source.clone(), PINNED_BYTES_MAX);
        Staging { source, stage: Mutex::new(Stage { prefetch }), loaded: Notify::new() }
    }

    /// Whether the leader may append more.
    pub(crate) fn has_room(&self) -> bool {
        self.source.is_empty() || self.stage.lock().prefetch.has_room()
    }

    /// Lets go of what an applied entry pinned.
    pub(crate) fn applied(&self, index: LogIndex, state: &mut ShardState) {
        if !self.source.is_empty() {
            self.stage.lock().prefetch.applied(index, state);
        }
    }

    /// Lets go of what entries after `last` pinned.
    pub(crate) fn truncated(&self, last: LogIndex, state: &mut ShardState) {
        self.stage.lock().prefetch.truncate(last.next(), state);
    }

    /// What is sealed has changed, and rows may leave memory from now on: reads under way read the old.
    pub(crate) fn sealed_changed(&self) {
        if !self.source.is_empty() {
            self.stage.lock().prefetch.sealed_changed();
        }
    }

    /// What is below memory.
    pub(crate) fn source(&self) -> &Arc<dyn StateSource> {
        &self.source
    }

    fn next_load(&self) -> Option<LoadJob> {
        self.stage.lock().prefetch.next_load()
    }
}

impl ShardCore {
    /// Entries were handed to the log: what they touch is brought to memory meanwhile. If apply is at work just now it is left
    /// to [`ShardCore::ready`]: whoever appends does not wait for it.
    pub(crate) fn appended(self: &Arc<Self>, entries: &[Entry]) {
        if self.staging().source.is_empty() {
            return;
        }
        let Some(looked) = self.try_read() else { return };
        if looked.0.is_whole() {
            return;
        }
        let commands = entries.iter().filter(|entry| entry.kind == EntryKind::Normal);
        let mut stage = self.staging().stage.lock();
        commands.for_each(|entry| stage.prefetch.append(entry.id.index, &entry.payload, &looked.0));
        drop((stage, looked));
        self.load();
    }

    /// Waits until everything an entry touches is in memory.
    pub(crate) async fn ready(self: &Arc<Self>, index: LogIndex, payload: &Bytes) {
        if self.staging().source.is_empty() {
            return;
        }
        loop {
            let mut loaded = std::pin::pin!(self.staging().loaded.notified());
            loaded.as_mut().enable();
            if self.is_ready(index, payload) {
                return;
            }
            self.load();
            loaded.await;
        }
    }

    /// Whether everything an entry touches is in memory; if not, it is asked for.
    pub(crate) fn is_ready(&self, index: LogIndex, payload: &Bytes) -> bool {
        let looked = self.read();
        looked.0.has_near(payload) || self.staging().stage.lock().prefetch.ready(index, payload, &looked.0)
    }

    /// Does every read that may start, here and now. After one that fails the shard is of no use.
    pub(crate) fn load_here(&self) -> std::io::Result<()> {
        while let Some(job) = self.staging().next_load() {
            let loaded = job.run()?;
            self.with_state(|state| self.staging().stage.lock().prefetch.complete(loaded, state));
        }
        Ok(())
    }

    /// Starts every read that may start.
    fn load(self: &Arc<Self>) {
        while let Some(job) = self.staging().next_load() {
            runtime::spawn(self.clone().run(job));
        }
    }

    async fn run(self: Arc<Self>, job: LoadJob) {
        let read = runtime::blocking(move || (job.run(), job)).await;
        match read {
            Ok((Ok(loaded), _)) => {
                self.with_state(|state| self.staging().stage.lock().prefetch.complete(loaded, state));
            }
            Ok((Err(error), job)) => {
                tracing::error!(shard = self.shard().0, %error, "sealed state cannot be read; it is tried again");
                runtime::sleep(RETRY_AFTER).await;
                self.staging().stage.lock().prefetch.failed(job);
            }
            // The runtime is stopping: nobody waits any more.
            Err(_) => return,
        }
        self.load();
        self.staging().loaded.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicU32, Ordering};

    use logstore::id::{Bucket, HistoryId, LogId, NodeId, ShardId, Term, TimeMs, UserId};

    use super::*;
    use crate::state::{Key, UserRow};
    use crate::store::{Row, Scanned};
    use crate::{Batch, Command, Outcome, Refusal};

    /// One account below memory; every second read of it fails.
    struct Below {
        reads: AtomicU32,
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
            matches!(key, Key::User(_))
        }

        fn load(&self, key: &Key) -> io::Result<Option<Row>> {
            std::thread::sleep(Duration::from_millis(5));
            if self.reads.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                return Err(io::Error::other("a sector that reads at the second try"));
            }
            let row = UserRow {
                name: "below".to_string(),
                password_phc: String::new(),
                created: TimeMs(1),
                sessions: Vec::new(),
            };
            Ok((*key == Key::User(UserId(7))).then_some(Row::User(row)))
        }
    }

    fn payload(command: Command) -> Bytes {
        Batch { time: TimeMs(1_800_000_000_000), commands: vec![command] }.encode()
    }

    fn open_session(user: u64) -> Bytes {
        let expires = TimeMs(1_900_000_000_000);
        payload(Command::OpenSession { user: UserId(user), session: 1, refresh_hash: [0; 32], expires })
    }

    fn entry(index: u64, payload: &Bytes) -> Entry {
        let id = LogId { term: Term(1), leader: NodeId(0), index: LogIndex(index) };
        Entry { id, kind: EntryKind::Normal, payload: payload.clone() }
    }

    #[tokio::test]
    async fn an_entry_waits_for_what_it_touches_also_when_reads_fail() {
        let source = Arc::new(Below { reads: AtomicU32::new(0) });
        let core = Arc::new(ShardCore::new(ShardId(0), source.clone(), 1 << 20, 1 << 20));
        let table = vec![(Bucket(0), Bucket(u16::MAX), ShardId(0))];
        let init = payload(Command::Init { history: HistoryId(1), incarnation: 1, table_epoch: 1, table });
        let (known, unknown) = (open_session(7), open_session(8));
        core.appended(&[entry(1, &init), entry(2, &known)]);
        let mut outcomes = Vec::new();
        // The third is found in the log, as after a restart: it was never seen at append.
        for (index, payload) in [(1, &init), (2, &known), (3, &unknown)] {
            core.ready(LogIndex(index), payload).await;
            outcomes.extend(core.apply(LogIndex(index), payload).applied.outcomes.clone());
        }
        assert_eq!(outcomes, [Outcome::Done, Outcome::Session, Outcome::Refused(Refusal::NoSuchUser)]);
        assert_eq!(source.reads.load(Ordering::Relaxed), 4);
        assert_eq!(core.staging().stage.lock().prefetch.pinned_bytes(), 0);
    }
}
