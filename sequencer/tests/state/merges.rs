//! Which segments are to become one is said by the log, and sealed with everything else that it says.

use logstore::id::{LogIndex, SegmentOrdinal};
use logstore::segment::Level;
use sequencer::state::MergedSpan;
use sequencer::{Command, Outcome, Refusal};

use crate::log::Log;

fn merge(first: u64, last: u64, level: u8) -> Command {
    Command::Merge {
        first: SegmentOrdinal(first),
        last: SegmentOrdinal(last),
        level: Level(level),
        drops: SegmentOrdinal(0),
    }
}

#[test]
fn a_merge_is_noted_with_the_entry_that_asked_for_it() {
    let mut log = Log::new();
    (0..4).for_each(|_| log.seal_after(1));
    let before = log.state.digest();
    assert_eq!(log.one(merge(1, 4, 1)), Outcome::Done);
    let asked_at = LogIndex(log.entries.len() as u64);
    let span = MergedSpan {
        first: SegmentOrdinal(1),
        last: SegmentOrdinal(4),
        level: Level(1),
        asked_at,
        drops: SegmentOrdinal(0),
        heads_above: LogIndex(0),
    };
    assert_eq!(log.state.layout().spans(), [span]);
    assert_ne!(log.state.digest(), before);
    assert_eq!(log.replayed().digest(), log.state.digest());
}

#[test]
fn seals_that_are_not_behind_the_merge_are_not_merged() {
    let mut log = Log::new();
    log.seal_after(1);
    let misfit = Outcome::Refused(Refusal::MergeMisfit);
    assert_eq!(log.one(merge(1, 2, 1)), misfit, "the second is not sealed");
    let applied = log.apply(&[Command::Seal, merge(1, 2, 1)]);
    assert_eq!(applied.outcomes, [Outcome::Done, misfit], "a Seal takes effect at the end of its entry");
    assert_eq!(log.one(merge(1, 2, 1)), Outcome::Done);
    assert_eq!(log.one(merge(1, 2, 1)), Outcome::Done, "asked for again by a leader that did not hear");
    assert_eq!(log.state.layout().spans().len(), 1);
}
