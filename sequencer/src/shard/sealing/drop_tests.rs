//! What is trimmed, recalled and erased leaves segments on every replica alike, whenever it gets round to it.

use logstore::RecordHead;
use logstore::id::{ConversationId, SeqId, UserId};
use logstore::io::faulty::{FaultyDisk, Survives};
use logstore::segment::{Item, SealedBody};

use super::replica::{Log, Replica, content, restored};
use super::rewrites_of;
use crate::{Command, Recall};

/// Who is erased.
const GONE: UserId = UserId(17);
/// Nothing in the segments is younger than the dedup window then.
const LONG_MS: u64 = 200_000;

/// What the log says is to go.
struct Story {
    log: Log,
    recalled: Vec<RecordHead>,
    /// Recalled when the last plan had been asked for: whoever carries that out later knows of it, and must not drop it.
    late: RecordHead,
    trimmed: (ConversationId, SeqId),
    erased_upto: usize,
}

impl Story {
    /// Generations with messages of several users; recalls, a trim and an erasure between them, and plans that drop them: merges, rewrites
    /// of lone seals and of merged ones, one of them out of date when it comes to be carried out.
    fn told() -> Story {
        let mut log = Log::new();
        let (mut recalled, mut late, mut trimmed, mut erased_upto) = (Vec::new(), None, None, 0);
        for number in 1..=15 {
            log.pause(LONG_MS);
            let texts = [1, 2, 3].map(|group| log.text(group, GONE.0, &format!("of one who is erased, {number}")));
            log.push(&texts);
            log.push_generation(number);
            match number {
                3 => recalled.extend([recall(&mut log, 1, 3), recall(&mut log, 2, 4)]),
                4 => log.push_drop(1, 4, 1, 4),
                5 => trimmed = Some(trim(&mut log, 3)),
                6 => {
                    log.push_drop(1, 4, 1, 6);
                    log.push_drop(5, 5, 0, 6);
                    log.push_drop(6, 6, 0, 6);
                }
                7 => recalled.push(recall(&mut log, 2, 9)),
                8 => log.push_drop(5, 8, 1, 8),
                9 => {
                    log.push(&[Command::Erase { user: GONE }]);
                    erased_upto = log.entries.len();
                }
                10 => {
                    log.push_drop(1, 4, 1, 10);
                    log.push_drop(5, 8, 1, 10);
                    log.push_drop(9, 9, 0, 10);
                    log.push_drop(10, 10, 0, 10);
                }
                11 => log.push_drop(1, 8, 2, 11),
                13 => log.push_drop(9, 12, 1, 13),
                14 => late = Some(recall(&mut log, 2, 0)),
                _ => {}
            }
        }
        Story { log, recalled, late: late.unwrap(), trimmed: trimmed.unwrap(), erased_upto }
    }

    /// Everything that was to go is gone, and nothing else is.
    fn check(&self, content: &[Item]) {
        let mut kept = 0;
        for item in content {
            let Item::Record(record) = item else { continue };
            let is_recalled =
                self.recalled.iter().any(|r| (r.conversation, r.seq) == (record.conversation, record.seq));
            let is_erased =
                record.sender == GONE && record.index.0 <= self.erased_upto as u64 && !record.kind.is_made();
            let is_trimmed = record.conversation == self.trimmed.0 && record.seq < self.trimmed.1;
            assert!(!is_trimmed, "{record:?} is trimmed");
            assert_eq!(record.body == SealedBody::Removed, is_recalled || is_erased, "{record:?}");
            kept += u32::from(record.body != SealedBody::Removed);
        }
        assert!(kept > 50, "only {kept} bodies are left");
        let ranges = content.iter().filter(|item| matches!(item, Item::Trimmed(_))).count();
        assert!(ranges > 0, "a trimmed conversation keeps its places");
    }
}

/// Recalls the message of user 10 that comes as the `n`th or next after it in a group.
fn recall(log: &mut Log, group: u64, n: usize) -> RecordHead {
    let heads = log.heads();
    let of_group = heads.into_iter().filter(|head| head.conversation == ConversationId::group(group));
    let mut messages = of_group.filter(|head| head.kind.is_countable()).skip(n);
    let head = messages.find(|head| head.sender == UserId(10)).unwrap();
    let recall = Command::Recall(Recall {
        conversation: head.conversation,
        actor: head.sender,
        request: log.id(77 + u128::from(group) * 8),
        checked_upto: 0,
        seq: head.seq,
        ordinal: head.ordinal,
        sender: head.sender,
        by_operator: false,
    });
    log.push(&[recall]);
    head
}

/// Trims the first half of a group.
fn trim(log: &mut Log, group: u64) -> (ConversationId, SeqId) {
    let conversation = ConversationId::group(group);
    let heads: Vec<_> = log.heads().into_iter().filter(|head| head.conversation == conversation).collect();
    let last = heads[heads.len() / 2];
    let before = last.seq.next();
    log.push(&[Command::Trim { conversation, before, ordinal: last.ordinal, time: last.time }]);
    (conversation, before)
}

#[test]
fn replicas_that_drop_when_they_like_end_with_the_same_segments() {
    let story = Story::told();
    let (eager, lazy) = (Replica::open(&FaultyDisk::new()), Replica::open(&FaultyDisk::new()));
    while (eager.core.applied().0 as usize) < story.log.entries.len() {
        eager.feed(&story.log, 1);
        eager.seal();
        eager.merge().unwrap();
    }
    lazy.feed(&story.log, usize::MAX);
    lazy.seal();
    let (digest, unmerged) = (lazy.digest(), lazy.segments());
    let restarted = {
        lazy.journal.close();
        Replica::open(&lazy.disk.crash(Survives::Everything))
    };
    assert_eq!(restarted.digest(), digest, "what waits to be dropped is known after a restart");
    restarted.merge().unwrap();
    assert_eq!(unmerged.len(), 15, "the other did it all at once");
    assert_eq!(eager.segments(), restarted.segments());
    assert_eq!((eager.digest(), eager.content()), (restarted.digest(), restarted.content()));
    story.check(&eager.content());
    let waiting = rewrites_of(&eager.core).unwrap();
    let place = |replica: &Replica| replica.core.read().1.sealed().manifest().position(waiting[0].segment);
    assert_eq!(
        (waiting.len(), place(&eager)),
        (1, Some(0)),
        "only what no plan was asked for still waits: {waiting:?}"
    );
    let is_late = |item: &&Item| (item.conversation(), item.first()) == (story.late.conversation, story.late.seq);
    let content = restarted.content();
    let late = content.iter().find(is_late).unwrap();
    assert!(matches!(late, Item::Record(record) if record.body != SealedBody::Removed), "{late:?}");
    assert!(eager.core.read().1.sealed().verify().is_ok());
}

#[test]
fn what_waits_to_be_dropped_is_found_in_the_segments_that_hold_it_and_in_no_other() {
    let mut log = Log::new();
    (1..=3).for_each(|number| log.push_generation(number));
    let first_seals = log.entries.len() as u64;
    let head = recall(&mut log, 1, 0);
    log.push_generation(4);
    let replica = Replica::open(&FaultyDisk::new());
    replica.feed(&log, usize::MAX);
    replica.seal();
    assert!(head.index.0 < first_seals);
    let waiting = rewrites_of(&replica.core).unwrap();
    let holds = |first: u64| {
        let sealed = replica.core.read().1.sealed().clone();
        let row = sealed.segments()[first as usize - 1].find(head.conversation).unwrap();
        row.is_some_and(|row| row.first <= head.seq && head.seq <= row.last)
    };
    let holding: Vec<u64> = (1..=4).filter(|first| holds(*first)).collect();
    assert_eq!(waiting.iter().map(|waiting| waiting.segment.0).collect::<Vec<_>>(), holding);
    assert_eq!(holding.len(), 1);
    let seal = holding[0];
    log.push_drop(seal, seal, 0, 4);
    log.push_generation(5);
    replica.feed(&log, usize::MAX);
    replica.seal();
    replica.merge().unwrap();
    assert_eq!(rewrites_of(&replica.core).unwrap(), []);
}

#[test]
fn records_of_the_dedup_window_keep_their_heads_when_they_are_trimmed() {
    let mut log = Log::new();
    (1..=2).for_each(|number| log.push_generation(number));
    let (conversation, before) = trim(&mut log, 1);
    log.push_generation(3);
    log.push_drop(1, 3, 1, 3);
    log.push_generation(4);
    let replica = Replica::open(&FaultyDisk::new());
    replica.feed(&log, usize::MAX);
    replica.seal();
    replica.merge().unwrap();
    let left = replica.content();
    let trimmed = left.iter().filter(|item| item.conversation() == conversation && item.last() < before);
    let bodies: Vec<_> =
        trimmed.map(|item| if let Item::Record(record) = item { Some(record.body.len()) } else { None }).collect();
    assert!(!bodies.is_empty() && bodies.iter().all(|body| *body == Some(0)), "{bodies:?}");
    let restarted = restored(&replica.disk.crash(Survives::Everything)).state;
    assert_eq!(restarted.digest_over_sealed().unwrap(), replica.digest(), "and a restart knows the same ids");
    let (one, head) = (log.heads().remove(1), |state: &crate::state::ShardState, head: &RecordHead| {
        state.look_up_old(head.conversation, head.sender, head.client_msg_id).map(|(stored, _)| stored.seq)
    });
    assert_eq!(head(&restarted, &one), Some(one.seq));
}

#[test]
fn a_rewrite_interrupted_at_any_step_leaves_the_old_or_the_new_segment_and_goes_on() {
    let mut log = Log::new();
    (1..=3).for_each(|number| log.push_generation(number));
    recall(&mut log, 1, 1);
    log.push(&[Command::Erase { user: UserId(10) }]);
    log.push_generation(4);
    (1..=3).for_each(|seal| log.push_drop(seal, seal, 0, 4));
    log.push_generation(5);
    let base = {
        let replica = Replica::open(&FaultyDisk::new());
        replica.feed(&log, usize::MAX);
        replica.seal();
        replica.journal.close();
        replica.disk
    };
    let digest = restored(&base).state.digest_over_sealed().unwrap();
    let whole = |disk: &FaultyDisk| {
        let replica = Replica::open(disk);
        replica.merge().unwrap();
        replica.journal.close();
        (replica.segments(), replica.content())
    };
    let (before, end) =
        (restored(&base).sealed.manifest().segments().to_vec(), whole(&base.crash(Survives::Everything)));
    for step in 0.. {
        let replica = Replica::open(&base.crash(Survives::Everything));
        replica.disk.power_off_after(step);
        let merged = replica.merge();
        for survives in [Survives::Nothing, Survives::Everything, Survives::Sectors(step)] {
            let disk = replica.disk.crash(survives);
            let restored = restored(&disk);
            let at = format!("step {step}, {survives:?}");
            assert_eq!(restored.state.digest_over_sealed().unwrap(), digest, "{at}");
            for (place, info) in restored.sealed.manifest().segments().iter().enumerate() {
                let is_old = info.identity == before[place].identity;
                assert!(is_old || info.id() == end.0[place], "{at}: neither old nor new");
            }
            assert_eq!(content(&restored.sealed).len(), end.1.len(), "{at}");
            assert_eq!(whole(&disk), end, "{at}");
        }
        replica.journal.close();
        if merged.is_ok() {
            assert!(step > 10, "there were steps to be interrupted at");
            return;
        }
    }
}
