//! Which points in time saves can be brought to, and which saves a point needs. Pure.
//!
//! ```text
//!   save 1 ----entries---- save 2 ----entries---- save 3        save 4 ----entries---- save 5
//!   |=======================================================|   |==========================|
//! ```
//!
//! What always holds: within a range every moment can be restored exactly: each shard's log up to the last entry that is not later. A range
//! begins with the log time of a save, before which some shard may lack what another has, and ends a millisecond before the log time that
//! the slowest shard of its last save has reached: later entries of that very millisecond may not be in it.

use logstore::id::TimeMs;

use super::store::Save;

/// Points without a gap, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first one.
    pub from: TimeMs,
    /// The last one.
    pub to: TimeMs,
}

/// Saves that follow each other: each but the first has the entries since the one before.
fn chains(saves: &[Save]) -> Vec<&[Save]> {
    saves.chunk_by(follows).collect()
}

/// Whether a save has what came between another one and itself.
pub fn follows(before: &Save, save: &Save) -> bool {
    let ids = |save: &Save| save.shards.iter().map(|shard| shard.shard).collect::<Vec<_>>();
    let goes_on = || {
        before.shards.iter().zip(&save.shards).all(|(one, next)| {
            // Either there are entries in between and a file of them, or neither.
            one.upto_index <= next.upto_index && (one.upto_index < next.upto_index) == next.entries.is_some()
        })
    };
    save.since == Some(before.save) && save.history == before.history && ids(before) == ids(save) && goes_on()
}

/// What can be reached because a save has entries, given the saves up to it: where that of the save before ends, or that save itself, to its own end.
pub fn added(saves: &[Save]) -> Option<Range> {
    let chain = chains(saves).pop().filter(|chain| chain.len() > 1)?;
    let (save, before) = (chain.last()?, &chain[..chain.len() - 1]);
    let from = range_of(before).map_or(before[0].log_time_ms(), |range| range.to.0 + 1);
    range(from, end_of(save))
}

/// All ranges of points, by their saves.
pub fn ranges(saves: &[Save]) -> Vec<Range> {
    chains(saves).into_iter().filter_map(range_of).collect()
}

/// The save to begin with and those whose entries lead to a point; `None` if it cannot be reached exactly.
pub fn lead_to(saves: &[Save], at: TimeMs) -> Option<&[Save]> {
    let is_inside = |range: Range| range.from <= at && at <= range.to;
    // Of two that hold a point the later one counts: after a restore of the same directory a clock may have been behind.
    let chain = chains(saves).into_iter().rev().find(|chain| range_of(chain).is_some_and(is_inside))?;
    let base = chain.iter().rposition(|save| save.log_time_ms() <= at.0)?;
    let last = chain[base..].iter().position(|save| save.common_log_time_ms() > at.0)?;
    Some(&chain[base..=base + last])
}

fn range_of(chain: &[Save]) -> Option<Range> {
    let (first, [_, .., last]) = (chain.first()?, chain) else { return None };
    range(first.log_time_ms(), end_of(last))
}

fn end_of(save: &Save) -> u64 {
    save.common_log_time_ms().saturating_sub(1)
}

fn range(from: u64, to: u64) -> Option<Range> {
    (from <= to).then_some(Range { from: TimeMs(from), to: TimeMs(to) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A save whose two shards have come to these log times; its entries follow those of another one.
    fn save(number: u64, times: [u64; 2], since: Option<u64>) -> Save {
        let entries = since.map(|_| json!({"bytes": 1, "blake3": ""}));
        let shard = |shard: u16, time: u64| json!({"shard": shard, "upto_index": number, "log_time_ms": time, "manifest": "", "entries": entries});
        let shards = [shard(0, times[0]), shard(1, times[1])];
        let save = json!({
            "backup": 2, "save": number, "made": "", "history": "7", "dev": true, "since": since, "shards": shards,
        });
        serde_json::from_value(save).unwrap()
    }

    fn ranges_of(saves: &[Save]) -> Vec<(u64, u64)> {
        ranges(saves).into_iter().map(|range| (range.from.0, range.to.0)).collect()
    }

    fn leading(saves: &[Save], at: u64) -> Option<Vec<u64>> {
        Some(lead_to(saves, TimeMs(at))?.iter().map(|save| save.save).collect())
    }

    #[test]
    fn a_range_goes_from_where_all_have_begun_to_where_none_is_behind() {
        let saves = [save(1, [100, 110], None), save(2, [200, 205], Some(1)), save(3, [310, 300], Some(2))];
        assert_eq!(ranges_of(&saves), [(110, 299)]);
        assert_eq!(ranges_of(&saves[..1]), []);
        let pieces: Vec<_> = (1..=3).map(|n| added(&saves[..n]).map(|range| (range.from.0, range.to.0))).collect();
        assert_eq!(pieces, [None, Some((110, 199)), Some((200, 299))], "without a gap");
    }

    #[test]
    fn a_moment_takes_the_last_save_that_is_not_after_it_and_no_entries_that_are() {
        let saves = [save(1, [100, 110], None), save(2, [200, 205], Some(1)), save(3, [310, 300], Some(2))];
        assert_eq!(leading(&saves, 109), None, "one shard may lack what the other has");
        assert_eq!(leading(&saves, 110), Some(vec![1, 2]));
        assert_eq!(leading(&saves, 199), Some(vec![1, 2]));
        assert_eq!(leading(&saves, 202), Some(vec![1, 2, 3]), "one shard's entries of then are in the next save");
        assert_eq!(leading(&saves, 205), Some(vec![2, 3]));
        assert_eq!(leading(&saves, 299), Some(vec![2, 3]));
        assert_eq!(leading(&saves, 300), None);
    }

    #[test]
    fn a_save_that_is_gone_or_of_another_history_or_did_not_get_its_entries_ends_a_range() {
        let saves = [save(1, [100, 100], None), save(3, [300, 300], Some(2)), save(4, [400, 400], Some(3))];
        assert_eq!(ranges_of(&saves), [(300, 399)]);
        let mut saves = [save(1, [100, 100], None), save(2, [200, 200], Some(1)), save(3, [300, 300], Some(2))];
        saves[2].history = "8".into();
        assert_eq!(ranges_of(&saves), [(100, 199)]);
        let mut saves = [save(1, [100, 100], None), save(2, [200, 200], Some(1))];
        saves[1].shards[1].entries = None;
        assert_eq!(ranges_of(&saves), [], "entries that should be there are not listed");
        let saves = [save(1, [100, 190], None), save(2, [180, 200], Some(1))];
        assert_eq!(ranges_of(&saves), [], "there is no moment of both");
    }
}
