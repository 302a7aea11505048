//! Shards that begin with content: laid out as segments and journal in a data directory in which no node has run.
//!
//! ```text
//! entry   0 --------------------------- 1 ----------------------------- 2
//!         |  segment of seal 1          |  of seal 2                    |  a node that starts goes on above
//!         |  records up to `window_from`|  later records, all rows      |
//! ```
//!
//! What always holds: a node that starts on it finds what it would find had it sealed that content itself. Ids of older records are
//! looked for in segments, those of the last minutes are in the dedup window, which is as long as apply promises. No id
//! that is given out from then on, to a record or an account, is one that is there already. Nothing is a node's data directory by this alone: it needs an identity, which comes last.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use hashbrown::HashSet;
use logstore::id::{
    Bucket, ConversationId, HistoryId, LogId, LogIndex, NodeId, SegmentOrdinal, ServerMsgId, ShardId, Term, TimeMs,
    UserId,
};
use logstore::io::Disk;
use logstore::segment::{
    BuildOptions, DeltaRow, Item, Level, NewSegment, Pace, Previous, SegmentBuilder, SegmentInfo, Span,
};
use logstore::{Completion, Journal, JournalOptions, Manifest, Vote};
use openraft::BasicNode;

use crate::raft::checkpoint::{Checkpoint, Membership};
use crate::raft::membership::encode_vote;
use crate::raft::types::{RaftMembership, RaftVote, raft_log_id_of};
use crate::shard::even_table;
use crate::state::{EndedGeneration, ErasedRow, Key, OwnRow, ShardRow};
use crate::store::Row;
use crate::{Error, Result};

/// The entry that rows are said to have been changed by.
pub const CONTENT_INDEX: LogIndex = LogIndex(2);
/// The entry that older records are said to come from.
const OLDER_INDEX: LogIndex = LogIndex(1);
/// The last entry there is.
const LAST: LogId = LogId { term: Term(1), leader: NodeId(0), index: CONTENT_INDEX };
/// The seal that holds older records.
const OLDER: SegmentOrdinal = SegmentOrdinal(1);
/// The seal that holds all else.
const LATER: SegmentOrdinal = SegmentOrdinal(2);
/// A shard's sections continue in files after so much of each: all shards are written at once.
const SPOOL_BYTES: usize = 256 << 10;
/// The table and the outboxes of new shards begin with these.
const FIRST: u64 = 1;

/// What new shards begin with, beside their content.
#[derive(Clone, Copy, Debug)]
pub struct NewShards {
    /// The node they are on.
    pub node: NodeId,
    /// Their history.
    pub history: HistoryId,
    /// How many.
    pub shards: u16,
    /// The log time, not below any time in the content.
    pub time: TimeMs,
    /// Ids of later records are in the dedup window: not above `time`, and two minutes back at least when the node starts.
    pub window_from: TimeMs,
    /// The highest id of a record in the content.
    pub last_record: ServerMsgId,
    /// The highest id of an account in the content.
    pub last_user: UserId,
}

/// Where a shard's log goes on: the last entry in its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planted {
    /// The shard.
    pub shard: ShardId,
    /// The entry.
    pub sealed: LogId,
}

/// Takes in the content of new shards: first all records in the order of (bucket, conversation, seq), then all rows in the
/// order of keys.
pub struct Content<'a> {
    shards: Vec<NewShard<'a>>,
    own: Vec<OwnRow>,
    window_from: TimeMs,
    last_older: Option<ConversationId>,
    in_both: &'a InBoth,
    erased: Vec<DeltaRow>,
}

struct NewShard<'a> {
    older: SegmentBuilder<'a>,
    later: SegmentBuilder<'a>,
    stored: u64,
}

/// Conversations with older and later records: those of which something was said in the last minutes.
type InBoth = RefCell<HashSet<ConversationId>>;

/// Writes segments and manifests of new shards on a disk that has none; `fill` gives their content.
pub fn found<E: From<Error>>(
    disk: &Arc<dyn Disk>,
    new: &NewShards,
    fill: impl FnOnce(&mut Content<'_>) -> std::result::Result<(), E>,
) -> std::result::Result<Vec<Planted>, E> {
    let own = own_rows(new);
    let options = BuildOptions { spool_bytes: SPOOL_BYTES, ..BuildOptions::default() };
    let in_both = InBoth::default();
    let before_later = |conversation| Ok(in_both.borrow().contains(&conversation).then_some(OLDER));
    let mut paces: Vec<[fn(u64); 2]> = vec![[drop; 2]; own.len()];
    let mut shards = Vec::with_capacity(own.len());
    for (own, [older, later]) in own.iter().zip(&mut paces) {
        let of = |seal, log_time, previous, pace| {
            let span = span(own.shard, seal);
            SegmentBuilder::create(NewSegment { disk, span, log_time, options: &options, previous, heads: None, pace })
        };
        let older = of(OLDER, new.window_from, NOTHING_BEFORE, older as &mut Pace<'_>).map_err(Error::from)?;
        let later = of(LATER, new.time, &before_later, later).map_err(Error::from)?;
        shards.push(NewShard { older, later, stored: 0 });
    }
    let mut content =
        Content { shards, own, window_from: new.window_from, last_older: None, in_both: &in_both, erased: Vec::new() };
    fill(&mut content)?;
    Ok(content.finish(disk, new)?)
}

const NOTHING_BEFORE: &Previous<'static> = &no_segment;

fn no_segment(_: ConversationId) -> logstore::Result<Option<SegmentOrdinal>> {
    Ok(None)
}

/// Makes the journal of shards whose logs go on behind their segments.
pub fn plant(disk: &Arc<dyn Disk>, options: JournalOptions, node: NodeId, shards: &[Planted]) -> Result<()> {
    let journal = Journal::open(disk.clone(), options, Box::new(|_| {}))?;
    for Planted { shard, sealed } in shards {
        let vote = Vote(encode_vote(&RaftVote::new(sealed.term.0, node.0)));
        durable(|done| journal.save_vote(*shard, vote, done))?;
        durable(|done| journal.purge(*shard, *sealed, done))?;
    }
    journal.close();
    Ok(())
}

fn durable(start: impl FnOnce(Completion)) -> Result<()> {
    let (done, wait) = mpsc::channel();
    start(Box::new(move |result| drop(done.send(result))));
    let ended = || std::io::Error::other("the journal's writer has ended");
    let result = wait.recv().unwrap_or_else(|_| Err(ended()));
    result.map_err(|source| Error::Thread { what: "journal", source })
}

impl<'a> Content<'a> {
    /// Adds a record, or where some were; what it says of its entry does not count.
    pub fn item(&mut self, mut item: Item) -> Result<()> {
        let (conversation, is_older) = (item.conversation(), item.time() <= self.window_from);
        match (is_older, self.last_older == Some(conversation)) {
            (true, _) => self.last_older = Some(conversation),
            (false, true) => drop(self.in_both.borrow_mut().insert(conversation)),
            (false, false) => {}
        }
        match &mut item {
            Item::Record(record) => record.index = if is_older { OLDER_INDEX } else { CONTENT_INDEX },
            Item::Trimmed(range) => range.index = if is_older { OLDER_INDEX } else { CONTENT_INDEX },
        }
        let shard = self.shard_of(conversation)?;
        shard.stored += item.ordinal().0.saturating_sub(item.ordinal_before().0);
        let builder = if is_older { &mut shard.older } else { &mut shard.later };
        Ok(builder.push(item)?)
    }

    /// Adds a row to the shard that owns the bucket of `place`.
    pub fn row(&mut self, place: ConversationId, key: &Key, row: &Row) -> Result<()> {
        let row = DeltaRow { key: key.encode(), value: Some(row.encode()) };
        Ok(self.shard_of(place)?.later.push_delta(&row)?)
    }

    /// Notes in every shard that a user's messages of a time not after `asked` were erased, and are not in the content; users ascend.
    pub fn note_erased(&mut self, user: UserId, asked: TimeMs) {
        // Of this log nothing: entries here are not those that the messages came with.
        let row = Row::Erased(ErasedRow { upto: LogIndex(0), asked });
        self.erased.push(DeltaRow { key: Key::Erased(user).encode(), value: Some(row.encode()) });
    }

    fn shard_of(&mut self, place: ConversationId) -> Result<&mut NewShard<'a>> {
        let bucket = place.bucket();
        let owner = self.own.iter().position(|own| own.owns(bucket)).ok_or(Error::NoOwner(bucket))?;
        Ok(&mut self.shards[owner])
    }

    fn finish(self, disk: &Arc<dyn Disk>, new: &NewShards) -> Result<Vec<Planted>> {
        let Content { shards, own, erased, .. } = self;
        shards.into_iter().zip(own).map(|(shard, own)| finish_one(shard, own, &erased, disk, new)).collect()
    }
}

fn finish_one(
    shard: NewShard<'_>,
    mut own: OwnRow,
    erased: &[DeltaRow],
    disk: &Arc<dyn Disk>,
    new: &NewShards,
) -> Result<Planted> {
    own.stored = shard.stored;
    let mut before = own.clone();
    before.time = new.window_from;
    let older = complete(shard.older, shard_row(before, OLDER, None), &[])?;
    let later = complete(shard.later, shard_row(own.clone(), LATER, Some(new.window_from)), erased)?;
    let checkpoint = logstore::Checkpoint { seal: LAST, state: Bytes::from(checkpoint(new.node).encode()) };
    let before = logstore::Checkpoint { seal: LogId { index: OLDER_INDEX, ..LAST }, ..checkpoint.clone() };
    let manifest = Manifest::empty(own.shard).sealed(older, before)?.sealed(later, checkpoint)?;
    manifest.store(&**disk)?;
    Ok(Planted { shard: own.shard, sealed: LAST })
}

fn complete(mut builder: SegmentBuilder<'_>, row: ShardRow, notes: &[DeltaRow]) -> Result<SegmentInfo> {
    let value = Some(Row::Shard(Box::new(row)).encode());
    builder.push_delta(&DeltaRow { key: Key::Shard.encode(), value })?;
    for note in notes {
        builder.push_delta(note)?;
    }
    Ok(builder.finish()?)
}

/// Each seal has one entry.
fn span(shard: ShardId, seal: SegmentOrdinal) -> Span {
    Span { shard, first: seal, last: seal, level: Level(0), after: LogIndex(seal.0 - 1), upto: LogIndex(seal.0) }
}

/// As a Seal leaves it: only its own generation is in the dedup window.
fn shard_row(own: OwnRow, seal: SegmentOrdinal, floor: Option<TimeMs>) -> ShardRow {
    let ended = EndedGeneration { number: seal.0, after: LogIndex(seal.0 - 1), ended: own.time };
    ShardRow { applied: LogIndex(seal.0), generation: seal.0, own, floor, window: vec![ended] }
}

/// One a shard: the cluster's numbers are everybody's, so that no shard gives out one that another did.
fn own_rows(new: &NewShards) -> Vec<OwnRow> {
    let table: Vec<(Bucket, Bucket, ShardId)> = even_table(new.shards);
    let of = |shard: ShardId| {
        let mut own = OwnRow::new(shard);
        own.history = Some(new.history);
        own.incarnation = FIRST;
        own.set_table(FIRST, table.clone());
        own.advance(new.time);
        own.take_ids_upto(new.last_record, new.last_user);
        own
    };
    table.iter().map(|(.., shard)| of(*shard)).collect()
}

/// This node alone votes.
fn checkpoint(node: NodeId) -> Checkpoint {
    let members = RaftMembership::new(vec![BTreeSet::from([node.0])], BTreeMap::from([(node.0, BasicNode::default())]));
    let members = members.expect("one voter, and it is a node");
    let at = raft_log_id_of(LogId { index: OLDER_INDEX, ..LAST });
    Checkpoint { sealed: raft_log_id_of(LAST), membership: Membership::new(Some(at), members) }
}
