//! How many blocks a page costs, counted, over conversations that are interleaved as evenly as chance does it.

use std::sync::Arc;

use logstore::SegmentSet;
use logstore::id::{ConversationId, SeqId};
use logstore::merge::MergePolicy;
use logstore::segment::{BlockCache, PageEnd, PageRequest};

use crate::shard::*;
use crate::support::*;

const PAGE: u64 = 50;

/// A shard of so many conversations, sealed so many times.
fn interleaved(disk: &Arc<dyn logstore::io::Disk>, conversations: u64, records: u64, seals: u64) -> Shard {
    let mut shard = Shard::new(disk, 11);
    // A page of 50 is shorter than half a block, and not by much.
    shard.options.block_bytes = 8 << 10;
    shard.sample = (conversations / 2000).max(1);
    (0..seals).for_each(|_| shard.seal(records / seals, conversations, 60, 10));
    shard
}

fn newest(conversation: ConversationId, before: SeqId) -> PageRequest {
    let (first, last) = (SeqId(1), before);
    PageRequest { conversation, first, last, from: PageEnd::Newest, records_max: PAGE, bytes_max: 1 << 20 }
}

/// Reads a conversation page by page from its end, with nothing cached: each page may read one block of each segment that
/// holds part of it, and two more.
fn scroll(
    shard: &Shard,
    uncached: &(Arc<BlockCache>, SegmentSet),
    conversation: ConversationId,
    allowed: impl Fn(u64) -> u64,
) {
    let (cache, set) = uncached;
    let (mut before, mut found) = (SeqId(u64::MAX), Vec::new());
    while before.0 > 0 {
        let reads = cache.figures().reads;
        let page = set.page(&newest(conversation, before)).unwrap();
        let Some((first, last)) = page.complete else { break };
        let holders = set.holders(conversation, first).unwrap();
        let holding = holders.iter().filter(|(_, row)| row.first <= last && row.last >= first).count() as u64;
        let reads = cache.figures().reads - reads;
        assert!(reads <= allowed(holding), "{conversation}: {reads} reads for a page that {holding} segments hold");
        before = SeqId(first.0 - 1);
        found.splice(0..0, page.records);
    }
    assert_eq!(Some(&found), shard.model.conversations.get(&conversation), "and it is all of it");
}

/// The shard's segments, opened so that every block is read from its file.
fn uncached(shard: &Shard) -> (Arc<BlockCache>, SegmentSet) {
    let cache = Arc::new(BlockCache::new(0));
    let set = SegmentSet::open(&shard.disk, SHARD, &cache).unwrap();
    (cache, set)
}

fn count_reads(shard: &mut Shard) {
    let seals = uncached(shard);
    for conversation in shard.model.conversations.keys() {
        scroll(shard, &seals, *conversation, |segments| segments + 2);
    }
    let all = MergePolicy { seals_min: 2, ..MergePolicy::default() };
    shard.merge(&shard.plan(&all).unwrap());
    assert_eq!(shard.set.segments().len(), 1);
    let merged = uncached(shard);
    for conversation in shard.model.conversations.keys() {
        scroll(shard, &merged, *conversation, |_| 3);
    }
}

#[test]
fn a_page_reads_a_block_a_segment_and_two_more_and_three_at_most_after_a_merge() {
    let mut shard = interleaved(&logstore::io::faulty::FaultyDisk::new().handle(), 1500, 45_000, 15);
    count_reads(&mut shard);
}

#[test]
fn a_page_of_a_conversation_of_many_blocks_reads_few_of_them() {
    let mut shard = interleaved(&logstore::io::faulty::FaultyDisk::new().handle(), 3, 12_000, 4);
    count_reads(&mut shard);
}

/// The same over a million conversations and 20 million messages. Some minutes and gigabytes: with `--release` and `--ignored`.
#[test]
#[ignore = "long: belongs to the nightly run"]
fn a_page_of_one_in_a_million_conversations_reads_few_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let mut shard = interleaved(&logstore::io::real(dir.path()), 1_000_000, 20_000_000, 16);
    count_reads(&mut shard);
}
