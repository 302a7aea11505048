//! A shard whose log is sealed and merged as a replica would, beside a model of what it holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use logstore::id::{ConversationId, LogId, LogIndex, NodeId, SegmentOrdinal, SeqId, Term, TimeMs};
use logstore::io::Disk;
use logstore::merge::{self, DropRules, MergePlan, MergePolicy, MergeRun};
use logstore::segment::{
    BlockCache, BuildOptions, DeltaRow, Item, NewSegment, PageEnd, PageRequest, SealedBody, SealedRecord, SegmentInfo,
    Span,
};
use logstore::{Checkpoint, Result, SegmentSet};

use crate::support::*;

pub struct Shard {
    pub disk: Arc<dyn Disk>,
    pub cache: Arc<BlockCache>,
    pub set: Arc<SegmentSet>,
    pub options: BuildOptions,
    pub log: Log,
    pub rules: DropRules,
    pub model: Model,
    /// One in so many conversations is modelled.
    pub sample: u64,
}

/// What a shard holds, without files.
#[derive(Clone, Default)]
pub struct Model {
    pub conversations: BTreeMap<ConversationId, Vec<SealedRecord>>,
    pub state: BTreeMap<Bytes, Option<Bytes>>,
}

pub fn checkpoint(span: &Span) -> Checkpoint {
    let seal = LogId { term: Term(3), leader: NodeId(0), index: span.upto };
    Checkpoint { seal, state: Bytes::from_static(b"membership") }
}

impl Shard {
    pub fn new(disk: &Arc<dyn Disk>, seed: u64) -> Shard {
        let cache = Arc::new(BlockCache::new(8 << 20));
        let set = Arc::new(SegmentSet::open(disk, SHARD, &cache).unwrap());
        let options = BuildOptions::default();
        let (log, rules, model) = (Log::new(seed), DropRules::default(), Model::default());
        Shard { disk: disk.clone(), cache, set, options, log, rules, model, sample: 1 }
    }

    /// Seals so many more records and rows.
    pub fn seal(&mut self, records: u64, conversations: u64, body_bytes: u64, rows: u64) {
        let ordinal = self.set.manifest().last().next();
        let (span, items) = self.log.seal(ordinal.0, records, conversations, body_bytes);
        let rows = delta(&mut self.log.chance, rows, 500);
        let info = self.build(span, &items, &rows).unwrap();
        let next = self.set.manifest().sealed(info, checkpoint(&span)).unwrap();
        self.set = Arc::new(self.set.publish(next).unwrap());
        let sample = self.sample;
        let is_modelled = |item: &Item| (item.conversation().0 as u64).is_multiple_of(sample);
        self.model.add(items.iter().filter(|item| is_modelled(item)), &rows);
    }

    pub fn build(&self, span: Span, items: &[Item], rows: &[DeltaRow]) -> Result<SegmentInfo> {
        let set = self.set.clone();
        let previous = move |conversation| set.previous(conversation, span.first);
        let making = Making { options: self.options.clone(), previous: &previous, heads: None };
        try_build(&self.disk, span, items, rows, making)
    }

    pub fn plan(&self, policy: &MergePolicy) -> Option<MergePlan> {
        policy.plan(self.set.manifest(), self.rules.clone(), LogIndex(u64::MAX))
    }

    pub fn merge(&mut self, plan: &MergePlan) -> SegmentInfo {
        let info = self.merge_file(plan).unwrap();
        let next = self.set.manifest().merged(info.clone()).unwrap();
        self.set = Arc::new(self.set.publish(next).unwrap());
        info
    }

    pub fn merge_file(&self, plan: &MergePlan) -> Result<SegmentInfo> {
        let with = MergeRun { disk: &self.disk, set: &self.set, options: &self.options, pace: &mut |_| {} };
        merge::run(plan, with)
    }

    /// Everything that the shard answers is what the model says.
    pub fn check(&self) {
        check(&self.set, &self.model, &self.rules);
    }
}

impl Model {
    pub fn add<'a>(&mut self, items: impl IntoIterator<Item = &'a Item>, rows: &[DeltaRow]) {
        for item in items {
            let Item::Record(record) = item else { panic!("a log has no trimmed ranges") };
            self.conversations.entry(record.conversation).or_default().push(record.clone());
        }
        self.state.extend(rows.iter().map(|row| (row.key.clone(), row.value.clone())));
    }
}

/// What is left of a record where the rules are applied. Files that were not merged since may still have all of it.
fn allowed(record: &SealedRecord, rules: &DropRules) -> Vec<Option<SealedRecord>> {
    let removed = SealedRecord { body: SealedBody::Removed, ..record.clone() };
    let mut allowed = vec![Some(record.clone())];
    if rules.trims.get(&record.conversation).is_some_and(|before| record.seq < *before) {
        allowed.push(None);
    }
    let recalled = rules.recalls.contains(&(record.conversation, record.seq));
    if recalled || rules.erasures.get(&record.sender).is_some_and(|upto| record.index <= *upto) {
        allowed.push(Some(removed));
    }
    allowed
}

pub fn whole(conversation: ConversationId) -> PageRequest {
    let (first, last, from) = (SeqId(1), SeqId(u64::MAX), PageEnd::Oldest);
    PageRequest { conversation, first, last, from, records_max: u64::MAX, bytes_max: usize::MAX }
}

pub fn check(set: &SegmentSet, model: &Model, rules: &DropRules) {
    for (conversation, records) in &model.conversations {
        let head = set.head(*conversation).unwrap().unwrap();
        let last = records.last().unwrap();
        assert_eq!((head.seq, head.ordinal, head.index, head.time), (last.seq, last.ordinal, last.index, last.time));
        let page = set.page(&whole(*conversation)).unwrap();
        assert_eq!(page.complete, Some((SeqId(1), last.seq)));
        let mut found = page.records.iter().peekable();
        for record in records {
            let at = found.next_if(|found| found.seq == record.seq).cloned();
            assert!(allowed(record, rules).contains(&at), "{record:?}: {at:?}");
            let (sender, id) = (record.sender, record.client_msg_id);
            let by_id = set.find_id(*conversation, sender, id, TimeMs(0)).unwrap();
            assert_eq!(by_id, at, "what is there is found by its id");
        }
        assert_eq!(found.next(), None);
    }
    for (key, value) in &model.state {
        let found = set.delta_get(key, SegmentOrdinal(0)).unwrap();
        assert_eq!(found.flatten(), *value, "{key:?}");
    }
    assert!(set.head(ConversationId::group(u64::MAX >> 3)).unwrap().is_none());
    set.verify().unwrap();
}

/// The content of one segment, given another way: as the fold of what was sealed.
pub fn refold(shard: &Shard, info: &SegmentInfo, items: &[Item], rows: &[DeltaRow]) -> SegmentInfo {
    let new = NewSegment {
        disk: &shard.disk,
        span: info.span,
        log_time: info.log_time,
        options: &BuildOptions { block_bytes: 3000, zstd_level: 3, ..BuildOptions::default() },
        previous: &|_| Ok(None),
        heads: None,
        pace: &mut |_| {},
    };
    logstore::segment::build(new, items.iter().cloned().map(Ok), rows.iter().cloned().map(Ok)).unwrap()
}
