//! The power goes off at every single step of a journal's life, and of what was not synced something else
//! survives each time: whatever was acknowledged is there, and never is a crash taken for rot.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use logstore::id::{LogId, ShardId};
use logstore::io::Disk;
use logstore::io::faulty::{FaultyDisk, Survives};
use logstore::{Entry, Journal, JournalOptions, Vote};
use support::{append, entries, id, open, purge, read_all, small, truncate_after, vote};

/// What one shard should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    vote: Option<Vec<u8>>,
    purged: Option<LogId>,
    last: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

type Models = BTreeMap<u16, Model>;

#[derive(Clone, Debug)]
enum Act {
    Append { shard: u16, count: u64, term: u64, payload_bytes: usize },
    Vote { shard: u16, vote: u8 },
    Truncate { shard: u16, back: u64 },
    Purge { shard: u16, keep: u64 },
}

impl Act {
    fn shard(&self) -> u16 {
        match self {
            Act::Append { shard, .. } | Act::Vote { shard, .. } => *shard,
            Act::Truncate { shard, .. } | Act::Purge { shard, .. } => *shard,
        }
    }

    /// Does it to the journal and, whatever comes of it, to the model.
    fn run(&self, journal: &Journal, models: &mut Models) -> std::io::Result<()> {
        let shard = self.shard();
        let model = models.entry(shard).or_default();
        let next = model.last.map_or(1, |last| last.index.0 + 1);
        match self {
            Act::Append { count, term, payload_bytes, .. } => {
                let list = entries(shard, next..next + count, *term, *payload_bytes);
                model.last = list.last().map(|entry| entry.id);
                model.entries.extend(list.iter().map(|entry| (entry.id.index.0, entry.clone())));
                append(journal, shard, list)
            }
            Act::Vote { vote: value, .. } => {
                model.vote = Some(vec![*value; 20]);
                vote(journal, shard, &[*value; 20])
            }
            Act::Truncate { back, .. } => {
                let at = (next - 1).saturating_sub(*back);
                let last = model.entries.get(&at).map(|entry| entry.id).or(model.purged);
                model.entries.retain(|index, _| *index <= last.map_or(0, |last| last.index.0));
                model.last = last;
                truncate_after(journal, shard, last)
            }
            Act::Purge { keep, .. } => {
                let Some(upto) = model.entries.get(&(next - 1).saturating_sub(*keep)).map(|entry| entry.id) else {
                    return Ok(());
                };
                model.purged = Some(upto);
                model.entries.retain(|index, _| *index > upto.index.0);
                purge(journal, shard, upto)
            }
        }
    }
}

/// What the journal holds, in the model's terms.
fn state(journal: &Journal) -> Models {
    let model = |shard: ShardId| {
        let log = journal.shard_log(shard);
        let first = log.purged.map_or(1, |purged| purged.index.0 + 1);
        let held = read_all(journal, shard.0, first..log.last.map_or(0, |last| last.index.0) + 1).unwrap();
        let entries = held.into_iter().map(|entry| (entry.id.index.0, entry)).collect();
        let vote = log.vote.map(|Vote(bytes)| bytes.to_vec());
        (shard.0, Model { vote, purged: log.purged, last: log.last, entries })
    };
    known(&journal.shards().into_iter().map(model).collect())
}

fn acts() -> Vec<Act> {
    let mut acts = vec![Act::Vote { shard: 4, vote: 77 }];
    for round in 0..6_u64 {
        acts.push(Act::Vote { shard: 1, vote: round as u8 });
        acts.push(Act::Append { shard: 1, count: 5, term: round + 1, payload_bytes: 2500 });
        acts.push(Act::Append { shard: 2, count: 3, term: round + 1, payload_bytes: 1800 });
        acts.push(Act::Truncate { shard: 1, back: 2 });
        acts.push(Act::Append { shard: 1, count: 4, term: round + 2, payload_bytes: 2400 });
        acts.push(Act::Vote { shard: 3, vote: round as u8 });
        acts.push(Act::Purge { shard: 1, keep: 6 });
        acts.push(Act::Purge { shard: 2, keep: 1 });
    }
    acts
}

/// Runs the acts until one fails; gives the states before and after the one that failed.
fn live(disk: &Arc<dyn Disk>, options: JournalOptions, acts: &[Act], mut models: Models) -> (Models, Models) {
    let Ok(journal) = open(disk, options) else { return (models.clone(), models) };
    for act in acts {
        let before = models.clone();
        if act.run(&journal, &mut models).is_err() {
            return (before, models);
        }
    }
    (models.clone(), models)
}

/// Shards that something is known of.
fn known(models: &Models) -> Models {
    let known = models.iter().filter(|(_, model)| **model != Model::default());
    known.map(|(shard, model)| (*shard, model.clone())).collect()
}

fn survivors() -> Vec<Survives> {
    let torn = [1, 63, 64, 500, 4096, 4097, 9000].map(Survives::Prefix);
    let sectors = (0..6).map(Survives::Sectors);
    [Survives::Nothing, Survives::Everything].into_iter().chain(torn).chain(sectors).collect()
}

fn options() -> JournalOptions {
    // The proof is synced only by an orderly end: its steps would come when the clock likes.
    JournalOptions { reserve_files: 1, proof_after: support::PATIENCE, ..small() }
}

/// Shard 9 is written and never purged as a whole; the others make file after file, so that it is copied forward, while
/// some of it is truncated and replaced.
fn acts_beside_a_stuck_shard() -> Vec<Act> {
    let mut acts = vec![Act::Vote { shard: 9, vote: 77 }];
    acts.push(Act::Append { shard: 9, count: 7, term: 1, payload_bytes: 1500 });
    for round in 0..10_u64 {
        // Less than a block each: larger appends are durable in parts.
        acts.push(Act::Append { shard: 1, count: 8, term: round + 1, payload_bytes: 1800 });
        acts.push(Act::Append { shard: 2, count: 4, term: round + 1, payload_bytes: 1800 });
        if round % 3 == 1 {
            acts.push(Act::Truncate { shard: 9, back: 2 });
            acts.push(Act::Append { shard: 9, count: 2, term: round + 1, payload_bytes: 1400 });
        }
        if round == 7 {
            acts.push(Act::Purge { shard: 9, keep: 4 });
        }
        acts.push(Act::Purge { shard: 1, keep: 1 });
        acts.push(Act::Purge { shard: 2, keep: 1 });
    }
    acts
}

#[test]
fn the_power_may_go_off_at_every_step() {
    fails_at_every_step(&acts(), options);
}

#[test]
fn the_power_may_go_off_at_every_step_while_entries_are_copied_forward() {
    let options = || JournalOptions { held_files_max: 2, ..options() };
    let (disk, acts) = (FaultyDisk::new(), acts_beside_a_stuck_shard());
    let (journal, mut models) = (open(&disk.handle(), options()).unwrap(), Models::new());
    acts.iter().for_each(|act| act.run(&journal, &mut models).unwrap());
    let usage = journal.usage();
    assert!(usage.copied_bytes > 2 * 7 * 1500 && usage.files <= 4, "{usage:?}");
    fails_at_every_step(&acts, options);
}

fn fails_at_every_step(acts: &[Act], options: impl Fn() -> JournalOptions) {
    let whole = FaultyDisk::new();
    live(&whole.handle(), options(), acts, Models::new());
    let steps = whole.steps();
    assert!(steps > 100, "files begin, end and are recycled: {steps} steps");
    for step in 0..=steps {
        let disk = FaultyDisk::new();
        disk.power_off_after(step);
        let (before, after) = live(&disk.handle(), options(), acts, Models::new());
        for survives in survivors() {
            let crashed = disk.crash(survives);
            let journal = open(&crashed.handle(), options())
                .unwrap_or_else(|error| panic!("step {step}, {survives:?}: a crash taken for damage: {error}"));
            let found = state(&journal);
            assert!(
                found == known(&before) || found == known(&after),
                "step {step}, {survives:?}: neither the acknowledged state nor the one asked for"
            );
        }
    }
}

#[test]
fn a_journal_that_crashes_again_and_again_goes_on_each_time() {
    crashes_again_and_again(&acts(), options);
}

#[test]
fn a_journal_that_copies_forward_goes_on_after_each_of_many_crashes() {
    crashes_again_and_again(&acts_beside_a_stuck_shard()[2..], || JournalOptions { held_files_max: 2, ..options() });
}

fn crashes_again_and_again(acts: &[Act], options: impl Fn() -> JournalOptions) {
    let (mut disk, mut found) = (FaultyDisk::new(), Models::new());
    for round in 0..80_u64 {
        disk.power_off_after(2 + round * 7 % 31);
        let (before, after) = live(&disk.handle(), options(), acts, found);
        disk = disk.crash(Survives::Sectors(round));
        let journal = open(&disk.handle(), options()).unwrap_or_else(|error| panic!("round {round}: {error}"));
        found = state(&journal);
        assert!(found == known(&before) || found == known(&after), "round {round}: {found:?}");
    }
}

#[test]
fn what_a_dead_process_left_in_the_page_cache_is_made_durable_before_it_counts() {
    let disk = FaultyDisk::new();
    let journal = open(&disk.handle(), options()).unwrap();
    append(&journal, 1, entries(1, 1..3, 1, 100)).unwrap();
    disk.hold_syncs();
    journal.append(ShardId(1), entries(1, 3..5, 1, 100), Box::new(|_| {}));
    assert!(disk.wait_for_held_sync(support::PATIENCE));
    // The process dies, the machine does not: the next process reads what was never synced.
    let machine = disk.clone_unsynced();
    disk.release_syncs();
    let next = open(&machine.handle(), options()).unwrap();
    assert_eq!(next.shard_log(ShardId(1)).last, Some(id(4, 1)));
    let after = machine.crash(Survives::Nothing);
    let last = open(&after.handle(), options()).unwrap();
    assert_eq!(read_all(&last, 1, 1..5).unwrap(), entries(1, 1..5, 1, 100));
}
