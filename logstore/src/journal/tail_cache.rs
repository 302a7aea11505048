//! The newest entries of every shard, in memory.
//!
//! What always holds: the entries cached of a shard are the last ones of its log, without a hole; an entry
//! that is not synced yet is always cached. The cache is bounded in bytes, all shards together; it exceeds
//! the bound only by what the writer has not synced, which the queue's bound limits.

use std::collections::VecDeque;
use std::ops::Range;

use hashbrown::HashMap;

use crate::id::{LogIndex, ShardId};

use super::Entry;

/// The cache of all shards.
#[derive(Default)]
pub(crate) struct TailCache {
    shards: HashMap<ShardId, VecDeque<Entry>>,
    /// The appends still cached, oldest first: whose entries go when room is needed.
    order: VecDeque<Append>,
    entries: usize,
    bytes: usize,
}

/// So many appends whose entries are gone are remembered at least, so that forgetting them costs little each.
const GONE_APPENDS_MIN: usize = 64;

struct Append {
    shard: ShardId,
    last: LogIndex,
}

impl TailCache {
    /// Adds the entries of one append; they follow the shard's last one.
    pub fn push(&mut self, shard: ShardId, entries: Vec<Entry>) {
        let Some(last) = entries.last() else { return };
        let tail = self.shards.entry(shard).or_default();
        debug_assert!(tail.back().is_none_or(|back| back.id.index.next() == entries[0].id.index));
        self.bytes += entries.iter().map(weight).sum::<usize>();
        self.entries += entries.len();
        self.order.push_back(Append { shard, last: last.id.index });
        tail.extend(entries);
        if self.order.len() > 2 * self.entries + GONE_APPENDS_MIN {
            self.forget_gone_appends();
        }
    }

    /// Leaves one append at most for each entry: those whose entries were purged or truncated go.
    fn forget_gone_appends(&mut self) {
        let (shards, mut covered) = (&self.shards, HashMap::<ShardId, LogIndex>::new());
        self.order.retain(|append| {
            let Some((front, back)) = shards.get(&append.shard).and_then(|tail| tail.front().zip(tail.back())) else {
                return false;
            };
            let last = append.last.min(back.id.index);
            let holds = last >= front.id.index && covered.get(&append.shard).is_none_or(|covered| *covered < last);
            if holds {
                covered.insert(append.shard, last);
            }
            holds
        });
    }

    /// The entries of `range` from its first on, up to about `bytes_max`, at least one. `None` if the first
    /// is not here.
    pub fn get(&self, shard: ShardId, range: Range<LogIndex>, bytes_max: usize) -> Option<Vec<Entry>> {
        let tail = self.shards.get(&shard)?;
        let skip = range.start.0.checked_sub(tail.front()?.id.index.0)?;
        let skip = usize::try_from(skip).ok().filter(|skip| *skip < tail.len())?;
        let wanted = usize::try_from(range.end.0.saturating_sub(range.start.0)).unwrap_or(usize::MAX);
        let mut entries = Vec::with_capacity(wanted.min(tail.len() - skip).min(64));
        let mut bytes = 0;
        for entry in tail.range(skip..).take(wanted) {
            bytes += entry.payload.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        (!entries.is_empty()).then_some(entries)
    }

    /// The first index cached of a shard.
    pub fn first(&self, shard: ShardId) -> Option<LogIndex> {
        self.shards.get(&shard)?.front().map(|entry| entry.id.index)
    }

    /// Forgets a shard's entries from `index` on.
    pub fn truncate_from(&mut self, shard: ShardId, index: LogIndex) {
        let Some(tail) = self.shards.get_mut(&shard) else { return };
        while tail.back().is_some_and(|entry| entry.id.index >= index) {
            self.bytes -= tail.pop_back().as_ref().map_or(0, weight);
            self.entries -= 1;
        }
    }

    /// Forgets a shard's entries up to and including `index`.
    pub fn purge_upto(&mut self, shard: ShardId, index: LogIndex) {
        let Some(tail) = self.shards.get_mut(&shard) else { return };
        while tail.front().is_some_and(|entry| entry.id.index <= index) {
            self.bytes -= tail.pop_front().as_ref().map_or(0, weight);
            self.entries -= 1;
        }
    }

    /// Takes out the oldest appends until at most `bytes_max` are left, or one comes that is not synced. The
    /// caller drops them where no lock is held.
    pub fn evict(&mut self, bytes_max: usize, synced: impl Fn(ShardId, LogIndex) -> bool, out: &mut Vec<Entry>) {
        while self.bytes > bytes_max {
            let Some(oldest) = self.order.front() else { return };
            let Some(tail) = self.shards.get_mut(&oldest.shard) else { return };
            while let Some(front) = tail.front().filter(|front| front.id.index <= oldest.last) {
                if !synced(oldest.shard, front.id.index) {
                    return;
                }
                self.bytes -= weight(front);
                self.entries -= 1;
                out.extend(tail.pop_front());
            }
            self.order.pop_front();
        }
    }
}

/// What an entry costs in memory.
fn weight(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.payload.len()
}

#[cfg(test)]
mod tests {
    use super::super::EntryKind;
    use super::*;
    use crate::id::LogId;
    use bytes::Bytes;

    const SHARD: ShardId = ShardId(1);

    fn entries(range: Range<u64>) -> Vec<Entry> {
        let entry = |index| Entry {
            id: LogId { index: LogIndex(index), ..LogId::default() },
            kind: EntryKind::Normal,
            payload: Bytes::from(vec![0; 100]),
        };
        range.map(entry).collect()
    }

    fn indexes(found: Option<Vec<Entry>>) -> Vec<u64> {
        found.into_iter().flatten().map(|entry| entry.id.index.0).collect()
    }

    #[test]
    fn reads_are_bounded_in_bytes_but_give_at_least_one() {
        let mut cache = TailCache::default();
        cache.push(SHARD, entries(5..15));
        assert_eq!(indexes(cache.get(SHARD, LogIndex(6)..LogIndex(9), 10_000)), [6, 7, 8]);
        assert_eq!(indexes(cache.get(SHARD, LogIndex(6)..LogIndex(99), 250)), [6, 7]);
        assert_eq!(indexes(cache.get(SHARD, LogIndex(6)..LogIndex(99), 0)), [6]);
        assert_eq!(cache.get(SHARD, LogIndex(4)..LogIndex(9), 0), None);
        assert_eq!(cache.get(SHARD, LogIndex(15)..LogIndex(19), 0), None);
    }

    #[test]
    fn what_is_not_synced_is_never_evicted() {
        let (mut cache, mut out) = (TailCache::default(), Vec::new());
        cache.push(SHARD, entries(1..5));
        cache.push(SHARD, entries(5..9));
        cache.evict(0, |_, index| index.0 < 7, &mut out);
        assert_eq!(cache.first(SHARD), Some(LogIndex(7)));
        assert_eq!(out.len(), 6);
        cache.evict(0, |_, _| true, &mut out);
        assert_eq!((cache.first(SHARD), cache.bytes), (None, 0));
    }

    #[test]
    fn what_is_purged_or_truncated_leaves_nothing_behind() {
        let (mut cache, mut out) = (TailCache::default(), Vec::new());
        cache.push(ShardId(2), entries(1..2));
        for index in 1..10_000 {
            cache.push(SHARD, entries(index..index + 1));
            cache.purge_upto(SHARD, LogIndex(index.saturating_sub(3)));
            cache.push(ShardId(2), entries(2..3));
            cache.truncate_from(ShardId(2), LogIndex(2));
        }
        assert!(cache.order.len() < 100, "{} appends remembered for 4 entries", cache.order.len());
        cache.evict(0, |_, _| true, &mut out);
        assert_eq!((cache.bytes, cache.entries), (0, 0));
    }

    #[test]
    fn what_took_the_place_of_truncated_entries_is_evicted_in_its_turn() {
        let (mut cache, mut out) = (TailCache::default(), Vec::new());
        cache.push(SHARD, entries(1..9));
        cache.truncate_from(SHARD, LogIndex(3));
        cache.push(SHARD, entries(3..5));
        cache.push(ShardId(2), entries(1..9));
        cache.purge_upto(ShardId(2), LogIndex(4));
        cache.evict(4 * (100 + size_of::<Entry>()), |_, _| true, &mut out);
        assert_eq!((cache.first(SHARD), cache.first(ShardId(2))), (None, Some(LogIndex(5))));
        cache.evict(0, |_, _| true, &mut out);
        assert_eq!((cache.bytes, out.len()), (0, 8));
    }
}
