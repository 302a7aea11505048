//! Merges: what comes out is what went in, less what the rules drop, on every replica the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use logstore::Error;
use logstore::id::{ConversationId, LogIndex, SegmentOrdinal, SeqId, UserId};
use logstore::io::Disk;
use logstore::io::faulty::FaultyDisk;
use logstore::merge::{DropRules, MergePlan, MergePolicy};
use logstore::segment::{BuildOptions, DeltaRow, Item, Level, SealedBody};
use proptest::prelude::*;

use crate::shard::*;
use crate::support::*;

fn policy() -> MergePolicy {
    MergePolicy { seals_min: 4, seals_max: 6, merges_min: 3, ..MergePolicy::default() }
}

/// What segments hold together, computed the plain way.
fn folded(shard: &Shard, seals: std::ops::RangeInclusive<u64>, rules: &DropRules) -> (Vec<Item>, Vec<DeltaRow>) {
    let (mut items, mut state) = (Vec::new(), BTreeMap::new());
    let inside = shard.set.segments().iter().filter(|segment| seals.contains(&segment.span().first.0));
    for segment in inside {
        items.extend(crate::support::items(segment).into_iter().map(|item| rules.apply(item)));
        state.extend(rows(segment).into_iter().map(|row| (row.key, row.value)));
    }
    let mut items = sorted(items);
    items.dedup_by(|next, last| match (last, next) {
        (Item::Trimmed(last), Item::Trimmed(next)) if last.conversation == next.conversation => {
            *last = logstore::segment::TrimmedRange { first: last.first, ordinal_before: last.ordinal_before, ..*next };
            true
        }
        _ => false,
    });
    (items, state.into_iter().map(|(key, value)| DeltaRow { key, value }).collect())
}

#[test]
fn a_merge_holds_what_its_inputs_held_and_is_the_same_however_it_is_made() {
    let mut shard = Shard::new(&FaultyDisk::new().handle(), 1);
    (0..10).for_each(|_| shard.seal(120, 30, 60, 40));
    shard.check();
    let plan = shard.plan(&policy()).unwrap();
    assert_eq!(
        plan.to_string(),
        "shard 5: seals 1-6 (6 segments) -> L1, heads, no tombstones, drops nothing as of entry 18446744073709551615"
    );
    let (items, mut rows) = folded(&shard, 1..=6, &DropRules::default());
    rows.retain(|row| row.value.is_some());
    let small =
        Shard { options: BuildOptions { block_bytes: 700, spool_bytes: 0, ..BuildOptions::default() }, ..copy(&shard) };
    let again = small.merge_file(&plan).unwrap();
    let info = shard.merge(&plan);
    assert_eq!(info.identity, again.identity, "sizes do not matter");
    assert_eq!(info.identity, refold(&shard, &info, &items, &rows).identity, "nor how it came together");
    shard.check();
    assert_eq!(shard.set.segments().len(), 5);
    assert!(shard.plan(&policy()).is_some_and(|plan| plan.inputs.len() == 4));
}

fn copy(shard: &Shard) -> Shard {
    Shard {
        disk: shard.disk.clone(),
        cache: shard.cache.clone(),
        set: shard.set.clone(),
        options: shard.options.clone(),
        log: Log::new(0),
        rules: shard.rules.clone(),
        model: shard.model.clone(),
        sample: 1,
    }
}

#[test]
fn blocks_of_segments_that_were_merged_away_leave_memory_with_their_files() {
    let mut shard = Shard::new(&FaultyDisk::new().handle(), 3);
    (0..4).for_each(|_| shard.seal(1000, 5, 200, 0));
    shard.check();
    let cached = shard.cache.figures().bytes;
    assert!(cached > 4 * 1000 * 100, "a check reads everything: {cached}");
    let plan = shard.plan(&policy()).unwrap();
    shard.merge(&plan);
    let left = shard.cache.figures().bytes;
    assert!(left < cached / 10, "{left} of {cached} bytes are left");
    shard.check();
}

#[test]
fn merges_of_merges_hold_what_all_held_and_heads_are_carried_on() {
    let mut shard = Shard::new(&FaultyDisk::new().handle(), 2);
    for round in 0..30 {
        // Conversations come and go: most rounds see the first few only.
        shard.seal(60, if round % 7 == 0 { 200 } else { 8 }, 50, 20);
        while let Some(plan) = shard.plan(&policy()) {
            shard.merge(&plan);
        }
        if round % 9 == 0 {
            shard.check();
        }
    }
    shard.check();
    let levels: Vec<_> = shard.set.segments().iter().map(|segment| segment.span().level).collect();
    assert!(levels.contains(&Level(2)) && levels.contains(&Level(1)) && levels.contains(&Level(0)), "{levels:?}");
    let with_heads = shard.set.segments().iter().rfind(|segment| segment.has_heads()).unwrap();
    let before = shard.set.segments().iter().take_while(|segment| segment.span().last <= with_heads.span().last);
    let mut named: Vec<_> =
        before.flat_map(|segment| segment.directory().map(|row| row.unwrap().conversation)).collect();
    named.sort_unstable();
    named.dedup();
    let mut heads: Vec<_> = with_heads.heads().map(|row| row.unwrap().conversation).collect();
    heads.sort_unstable();
    assert_eq!(heads, named, "every conversation up to there");
}

#[test]
fn heads_name_conversations_of_seals_that_were_passed_over() {
    let mut shard = Shard::new(&FaultyDisk::new().handle(), 8);
    let merge_passing_two = |shard: &mut Shard| {
        let plan = shard.plan(&policy()).unwrap();
        let inputs = shard.set.segments().iter().rev().take(3).rev().map(|segment| segment.info().id()).collect();
        shard.merge(&MergePlan { inputs, drops_tombstones: false, ..plan });
    };
    (0..5).for_each(|_| shard.seal(40, 60, 20, 5));
    merge_passing_two(&mut shard);
    assert_heads_name_all(&shard, 3);
    (0..5).for_each(|_| shard.seal(40, 90, 20, 5));
    merge_passing_two(&mut shard);
    assert_heads_name_all(&shard, 6);
    shard.check();
}

/// The last of so many segments has a heads table of all conversations up to it.
fn assert_heads_name_all(shard: &Shard, segments: usize) {
    let upto = shard.set.segments();
    assert_eq!(upto.len(), segments);
    let last = &upto[segments - 1];
    let named = upto.iter().flat_map(|segment| segment.directory().map(|row| row.unwrap().conversation));
    let named: std::collections::BTreeSet<_> = named.collect();
    assert_eq!(last.heads().count(), named.len());
    for conversation in named {
        let newest = upto.iter().rev().find_map(|segment| segment.find(conversation).unwrap()).unwrap();
        assert_eq!(last.head(conversation).unwrap().unwrap().seq, newest.last);
    }
}

#[test]
fn tombstones_stay_until_nothing_older_is_left() {
    let disk = FaultyDisk::new().handle();
    let mut shard = Shard::new(&disk, 3);
    (0..8).for_each(|_| shard.seal(10, 3, 20, 60));
    let tombstones = |shard: &Shard, at: usize| shard.set.segments()[at].info().counts.tombstones;
    let first = shard.plan(&MergePolicy { seals_max: 4, ..policy() }).unwrap();
    assert!(first.drops_tombstones);
    shard.merge(&first);
    assert_eq!(tombstones(&shard, 0), 0);
    let second = shard.plan(&policy()).unwrap();
    assert!(!second.drops_tombstones, "{second}");
    shard.merge(&second);
    assert!(tombstones(&shard, 1) > 0, "they hide what the first merge holds");
    shard.check();
}

#[test]
fn rules_take_bodies_and_records_but_never_a_place() {
    let mut shard = Shard::new(&FaultyDisk::new().handle(), 4);
    (0..5).for_each(|_| shard.seal(200, 6, 40, 5));
    let (trimmed, gone) = (ConversationId::group(1), ConversationId::group(2));
    shard.rules.trims = [(trimmed, SeqId(70)), (gone, SeqId(u64::MAX))].into();
    shard.rules.recalls = [(ConversationId::group(3), SeqId(9))].into();
    shard.rules.erasures = [(UserId(2), LogIndex(700))].into();
    let rules = shard.rules.clone();
    let info = shard.merge(&shard.plan(&policy()).unwrap());
    shard.check();
    assert!(info.counts.trimmed > 69 && info.counts.removed > 50, "{:?}", info.counts);
    let page = shard.set.page(&whole(trimmed)).unwrap();
    assert_eq!(page.records[0].seq, SeqId(70));
    assert_eq!(page.complete.unwrap().0, SeqId(1), "that the others are gone is known");
    assert!(shard.set.page(&whole(gone)).unwrap().records.is_empty());
    assert!(shard.set.head(gone).unwrap().unwrap().seq > SeqId(50), "seqs go on where they were");
    let recalled = &shard.set.page(&whole(ConversationId::group(3))).unwrap().records[8];
    assert_eq!((recalled.seq, &recalled.body), (SeqId(9), &SealedBody::Removed));
    for record in shard.model.conversations.values().flatten().filter(|record| record.sender == UserId(2)) {
        let page = shard.set.page(&whole(record.conversation)).unwrap();
        let found = page.records.iter().find(|found| found.seq == record.seq);
        let is_erased = found.is_none_or(|found| found.body == SealedBody::Removed);
        assert_eq!(
            is_erased,
            record.index <= LogIndex(700) || record.conversation == gone || found.is_none(),
            "{record:?}"
        );
    }
    // Once more changes nothing.
    let plan = MergePlan::rewrite(shard.set.manifest(), SegmentOrdinal(1), rules, LogIndex(u64::MAX)).unwrap();
    assert_eq!(shard.merge_file(&plan).unwrap().identity, info.identity);
}

#[test]
fn erased_bytes_are_in_no_file_afterwards() {
    let disk = FaultyDisk::new();
    let mut shard = Shard::new(&disk.handle(), 5);
    let secret = Chance(99).bytes(64);
    let (span, mut items) = shard.log.seal(1, 50, 4, 30);
    let Some(Item::Record(record)) = items.get_mut(20) else { panic!() };
    (record.sender, record.body) = (UserId(77), SealedBody::Kept(Bytes::from(secret.clone())));
    record.body_hash = logstore::id::BodyHash(xxh(record.kind, &secret));
    let info = shard.build(span, &items, &[]).unwrap();
    let sealed = shard.set.manifest().sealed(info, checkpoint(&span)).unwrap();
    shard.set = shard.set.publish(sealed).unwrap().into();
    let holds = |shard: &Shard| {
        let decoded = shard.set.segments().iter().flat_map(items_of);
        let raw = disk.list("segments/00005").unwrap();
        let raw = raw.iter().any(|name| contains(&disk.bytes(&format!("segments/00005/{name}")), &secret));
        raw || decoded.into_iter().any(|body| body == secret)
    };
    assert!(holds(&shard), "the test can tell");
    shard.rules.erasures = [(UserId(77), LogIndex(u64::MAX))].into();
    let rules = shard.rules.clone();
    let plan = MergePlan::rewrite(shard.set.manifest(), SegmentOrdinal(1), rules, LogIndex(u64::MAX)).unwrap();
    shard.merge(&plan);
    assert!(!holds(&shard));
    assert_eq!(disk.list("segments/00005").unwrap().len(), 2, "the old file is gone");
}

fn items_of(segment: &std::sync::Arc<logstore::segment::Segment>) -> Vec<Vec<u8>> {
    let body =
        |item: Item| if let Item::Record(record) = item { record.body.kept().map(|body| body.to_vec()) } else { None };
    items(segment).into_iter().filter_map(body).collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn a_plan_that_is_not_of_the_segments_there_is_refused() {
    let mut shard = Shard::new(&FaultyDisk::new().handle(), 6);
    (0..6).for_each(|_| shard.seal(20, 3, 20, 5));
    let plan = shard.plan(&policy()).unwrap();
    let mut skipping = plan.clone();
    skipping.inputs.remove(2);
    let empty = MergePlan { inputs: Vec::new(), ..plan.clone() };
    let mut other = plan.clone();
    other.inputs[0].identity.0[0] ^= 1;
    for bad in [skipping, empty, other] {
        let error = shard.merge_file(&bad).unwrap_err();
        assert!(matches!(error, Error::BadPlan { .. }), "{error}");
    }
    shard.merge(&plan);
    assert!(matches!(shard.merge_file(&plan).unwrap_err(), Error::BadPlan { .. }), "its inputs are gone");
    shard.check();
}

#[test]
fn small_segments_are_merged_beyond_the_last_level_and_large_ones_are_not() {
    let mut shard = Shard::new(&FaultyDisk::new().handle(), 7);
    let policy =
        MergePolicy { seals_min: 2, seals_max: 2, merges_min: 2, level_max: Level(1), ..MergePolicy::default() };
    for _ in 0..16 {
        shard.seal(5, 3, 20, 2);
        while let Some(plan) = shard.plan(&policy) {
            shard.merge(&plan);
        }
    }
    assert_eq!(shard.set.segments().len(), 1);
    shard.check();
    let mut shard = Shard::new(&FaultyDisk::new().handle(), 7);
    let policy = MergePolicy { small_bytes: 2000, ..policy };
    for _ in 0..16 {
        shard.seal(5, 3, 20, 2);
        while let Some(plan) = shard.plan(&policy) {
            shard.merge(&plan);
        }
    }
    assert_eq!(shard.set.segments().len(), 8, "two of them are more than 2,000 bytes");
    shard.check();
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn whatever_is_sealed_and_merged_the_shard_answers_as_the_model(
        seed: u64,
        seals in proptest::collection::vec((0..80_u64, 1..20_u64, 0..80_u64, 0..30_u64), 1..14),
        trims in proptest::collection::btree_map(1..20_u64, 1..30_u64, 0..4),
        recalls in proptest::collection::btree_set((1..20_u64, 1..20_u64), 0..6),
        erasures in proptest::collection::btree_map(1..4_u64, 0..400_u64, 0..2),
        block_bytes in 300..4000_usize,
    ) {
        let mut shard = Shard::new(&FaultyDisk::new().handle(), seed);
        shard.options.block_bytes = block_bytes;
        for (place, (records, conversations, body_bytes, rows)) in seals.into_iter().enumerate() {
            shard.seal(records, conversations, body_bytes, rows);
            if place == 6 {
                shard.rules.trims = trims.iter().map(|(group, seq)| (ConversationId::group(*group), SeqId(*seq))).collect();
                shard.rules.recalls = recalls.iter().map(|(group, seq)| (ConversationId::group(*group), SeqId(*seq))).collect();
                shard.rules.erasures = erasures.iter().map(|(user, upto)| (UserId(*user), LogIndex(*upto))).collect();
            }
            if let Some(plan) = shard.plan(&policy()) {
                shard.merge(&plan);
            }
        }
        shard.check();
    }
}
