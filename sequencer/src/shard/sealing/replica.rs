//! One shard of one node without Raft: a log is fed to it, and tests say when it seals and merges.

use std::sync::{Arc, mpsc};

use bytes::Bytes;
use futures::FutureExt;
use logstore::id::{
    Bucket, ClientMsgId, ConnectionId, ConversationId, HistoryId, LogId, LogIndex, NodeId, SegmentOrdinal, ShardId,
    Term, TimeMs, UserId,
};
use logstore::io::faulty::FaultyDisk;
use logstore::segment::{BlockCache, Item, Level, SegmentId};
use logstore::{Entry, EntryKind, Journal, JournalOptions, RecordHead, RecordKind, SegmentSet};

use super::merging::Work;
use super::turn::Turns;
use super::{Restored, merge, restore, task};
use crate::raft::checkpoint::{Checkpoint, Membership};
use crate::raft::types::raft_log_id_of;
use crate::shard::core::{CoreOptions, ShardCore};
use crate::state::{Look, MergedSpan, ShardState};
use crate::{BatchBuilder, Command, GroupChange, Outcome, Send};

pub(super) const SHARD: ShardId = ShardId(3);
const BEGIN: u64 = 1_800_000_000_000;
const UNPACED: u64 = u64::MAX;

/// A log: entries of commands, each with a time.
#[derive(Default)]
pub(super) struct Log {
    pub(super) entries: Vec<Bytes>,
    now: u64,
}

impl Log {
    /// Begins with three groups of ten.
    pub(super) fn new() -> Log {
        let mut log = Log::default();
        let table = vec![(Bucket(0), Bucket(u16::MAX), SHARD)];
        log.push(&[Command::Init { history: HistoryId(1), incarnation: 1, table_epoch: 1, table }]);
        log.push(&[1, 2, 3].map(|number| Command::GroupCreate {
            group: ConversationId::group(number),
            creator: UserId(10),
            request: ClientMsgId(u128::from(number)),
            name: format!("group {number}"),
            members: (10..20).map(UserId).collect(),
        }));
        log
    }

    pub(super) fn push(&mut self, commands: &[Command]) {
        self.now += 1000;
        let mut builder = BatchBuilder::new();
        for command in commands {
            builder.add(command);
        }
        self.entries.push(builder.finish(TimeMs(BEGIN + self.now)));
    }

    /// Some messages, one who leaves or comes back, and a Seal.
    pub(super) fn push_generation(&mut self, number: u64) {
        for n in 0..4 {
            self.push(&[self.text(1 + n % 3, 10, &format!("{number}.{n}")), self.text(1 + number % 3, 10, "again")]);
        }
        let (group, request) = (ConversationId::group(1), self.id(99));
        let user = vec![UserId(11 + number % 5)];
        let (add, remove) = if number.is_multiple_of(2) { (user, vec![]) } else { (vec![], user) };
        self.push(&[Command::GroupChange(GroupChange::new(group, UserId(10), request, add, remove))]);
        self.push(&[Command::Seal]);
    }

    pub(super) fn push_merge(&mut self, first: u64, last: u64, level: u8) {
        let [first, last] = [first, last].map(SegmentOrdinal);
        self.push(&[Command::Merge { first, last, level: Level(level), drops: SegmentOrdinal(0) }]);
    }

    /// A merge or rewrite that drops.
    pub(super) fn push_drop(&mut self, first: u64, last: u64, level: u8, drops: u64) {
        let [first, last, drops] = [first, last, drops].map(SegmentOrdinal);
        self.push(&[Command::Merge { first, last, level: Level(level), drops }]);
    }

    /// Nothing happens for a while.
    pub(super) fn pause(&mut self, ms: u64) {
        self.now += ms;
    }

    /// The heads of all records so far.
    pub(super) fn heads(&self) -> Vec<RecordHead> {
        let mut state = ShardState::new(SHARD);
        let applied =
            self.entries.iter().zip(1..).flat_map(|(entry, index)| state.apply(LogIndex(index), entry).records);
        applied.map(|record| record.head).collect()
    }

    pub(super) fn id(&self, n: u128) -> ClientMsgId {
        ClientMsgId(u128::from(BEGIN + self.now) << 80 | 7 << 76 | u128::from(self.entries.len() as u64) << 8 | n)
    }

    pub(super) fn text(&self, group: u64, sender: u64, body: &str) -> Command {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Command::Send(Send {
            conversation: ConversationId::group(group),
            sender: UserId(sender),
            origin: ConnectionId(0),
            client_msg_id: self.id(u128::from(group) << 4 | body.len() as u128),
            kind: RecordKind::TEXT,
            body_hash: Send::hash_of(RecordKind::TEXT, &body),
            checked_upto: 0,
            body,
        })
    }
}

/// A shard on a disk.
pub(super) struct Replica {
    pub(super) disk: FaultyDisk,
    pub(super) journal: Journal,
    pub(super) core: Arc<ShardCore>,
    turns: Turns,
}

impl Replica {
    /// As its segments say; what the journal holds above them is not replayed.
    pub(super) fn open(disk: &FaultyDisk) -> Replica {
        Replica::open_with(disk, 1 << 20)
    }

    /// The same with so many bytes for sealed rows in memory.
    pub(super) fn open_with(disk: &FaultyDisk, row_cache_bytes: usize) -> Replica {
        let options = JournalOptions { file_bytes: 1 << 20, ..JournalOptions::default() };
        let journal = Journal::open(disk.handle(), options, Box::new(|_| {})).unwrap();
        let Restored { state, sealed, rows, checkpoint } = restored(disk);
        let options = CoreOptions { row_cache_bytes, tail_bytes: 1 << 20, seal_bytes: u64::MAX };
        let core = Arc::new(ShardCore::above(state, sealed, rows, checkpoint, options));
        Replica { disk: disk.clone(), journal, core, turns: Turns::new() }
    }

    /// Appends so many entries at once and applies them; none is refused.
    pub(super) fn feed(&self, log: &Log, entries: usize) {
        for (index, outcomes) in self.feed_some(log, entries) {
            let refused = |outcome: &Outcome| matches!(outcome, Outcome::Refused(_));
            assert!(!outcomes.iter().any(refused), "entry {index}: {outcomes:?}");
        }
    }

    /// Appends and applies what there is, whatever becomes of it.
    pub(super) fn feed_any(&self, log: &Log) {
        self.feed_some(log, usize::MAX);
    }

    fn feed_some(&self, log: &Log, entries: usize) -> Vec<(LogIndex, Vec<Outcome>)> {
        let mut outcomes = Vec::new();
        let from = self.core.applied().0 as usize;
        let upto = log.entries.len().min(from.saturating_add(entries));
        let ids =
            (from + 1..=upto).map(|index| LogId { term: Term(1), leader: NodeId(0), index: LogIndex(index as u64) });
        // After a start the journal has some already.
        let held = self.journal.shard_log(SHARD).last.map_or(LogIndex(0), |last| last.index);
        let made = ids.clone().zip(&log.entries[from..]).filter(|(id, _)| id.index > held).map(|(id, payload)| Entry {
            id,
            kind: EntryKind::Normal,
            payload: payload.clone(),
        });
        let (done, wait) = mpsc::channel();
        self.journal.append(SHARD, made.collect(), Box::new(move |result| done.send(result.map_err(drop)).unwrap()));
        wait.recv().unwrap().unwrap();
        for (id, payload) in ids.zip(&log.entries[from..]) {
            self.bring(id.index, payload);
            let batch = self.core.apply(id.index, payload);
            outcomes.push((id.index, batch.applied.outcomes.clone()));
            if let Some(generation) = batch.applied.sealed {
                let checkpoint = Checkpoint { sealed: raft_log_id_of(id), membership: Membership::default() };
                self.core.froze(generation, checkpoint);
            }
        }
        outcomes
    }

    /// Brings what an entry touches to memory.
    fn bring(&self, index: LogIndex, payload: &Bytes) {
        while !self.core.is_ready(index, payload) {
            self.core.load_here().unwrap();
        }
    }

    /// Makes segments of everything frozen.
    pub(super) fn seal(&self) {
        while let Some(frozen) = self.core.sealing().next() {
            task::seal_one(&self.core, &self.journal, &frozen, UNPACED).unwrap();
            self.core.sealing().publish();
        }
    }

    /// Carries out all merges that are due, and lets the store follow each.
    pub(super) fn merge(&self) -> crate::Result<()> {
        let mut work = self.work();
        while let Some(span) = self.due() {
            let before = work.merge(&span)?;
            work.store_follows(&before);
        }
        Ok(())
    }

    pub(super) fn due(&self) -> Option<MergedSpan> {
        let (state, records) = &*self.core.read();
        merge::due(state.layout(), records.sealed().manifest())
    }

    pub(super) fn work(&self) -> Work {
        let turn = self.turns.take_patiently().now_or_never().flatten().expect("nobody else has it");
        Work::new(self.core.clone(), self.journal.clone(), turn, UNPACED)
    }

    pub(super) fn digest(&self) -> u128 {
        self.core.read().0.digest_over_sealed().unwrap()
    }

    pub(super) fn segments(&self) -> Vec<SegmentId> {
        self.core.read().1.sealed().manifest().segments().iter().map(|info| info.id()).collect()
    }

    pub(super) fn content(&self) -> Vec<Item> {
        content(self.core.read().1.sealed())
    }
}

/// A shard as its segments and its store say.
pub(super) fn restored(disk: &FaultyDisk) -> Restored {
    let disk = disk.handle();
    let sealed = SegmentSet::open(&disk, SHARD, &Arc::new(BlockCache::new(4 << 20))).unwrap();
    restore::read(&disk, SHARD, sealed, 1 << 20).unwrap()
}

/// All records, by conversation and place.
pub(super) fn content(set: &SegmentSet) -> Vec<Item> {
    let mut items: Vec<Item> = set.segments().iter().flat_map(|segment| segment.items()).map(Result::unwrap).collect();
    items.sort_by_key(|item| match item {
        Item::Record(record) => (record.conversation, record.seq),
        Item::Trimmed(range) => (range.conversation, range.first),
    });
    items
}

impl Replica {
    /// What a look at applied state makes, rows read from files here.
    pub(super) fn look<T>(&self, look: impl Fn(&Look<'_>) -> T) -> T {
        self.core.look_here(look).unwrap()
    }

    /// Everything anybody can ask of these groups and users.
    pub(super) fn told(&self, groups: &[ConversationId], users: &[UserId]) -> String {
        let mut told = String::new();
        for &group in groups {
            told += &self.look(|state| format!("{group}: {:?}\n", state.conversation(group)));
            let mut after = Some(UserId(0));
            while let Some(from) = after {
                let (run, rows) = self.look(|state| {
                    let run = state.members_after(group, from, 3);
                    let rows =
                        format!("{:?}", run.users.iter().map(|user| state.member(group, *user)).collect::<Vec<_>>());
                    (run, rows)
                });
                run.users.iter().for_each(|user| told += &format!("{user} "));
                told += &rows.replace("[", "").replace("]", "");
                after = run.next_after;
            }
        }
        for &user in users {
            told += &self.look(|state| {
                let mut places = state.conversations_of(user);
                places.sort_by_key(|(conversation, _)| *conversation);
                format!("{user}: {places:?} {:?}\n", state.user(user))
            });
        }
        told += &format!("{:?}", self.core.read().0.conversation_count());
        told
    }
}
