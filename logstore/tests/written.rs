//! What the journal writes, counted by the file layer.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use logstore::io::faulty::FaultyDisk;
use logstore::io::{Part, Written};
use logstore::{Journal, JournalOptions};
use support::{append, entries, entry, id, open, purge, small};

fn counted() -> (Arc<Written>, Journal) {
    let written = Arc::new(Written::default());
    let disk = logstore::io::counted(FaultyDisk::new().handle(), written.clone());
    // Copying is another test's.
    (written, open(&disk, JournalOptions { held_files_max: 1000, ..small() }).unwrap())
}

#[test]
fn each_part_of_what_a_journal_writes_is_counted_as_such() {
    let (written, journal) = counted();
    let [zeros, begun, again] =
        [Part::JournalZeros, Part::JournalCheckpoints, Part::JournalBlocks].map(|part| written.bytes(part));
    assert_eq!(zeros, 3 * ((64 << 10) - 4096), "one file and two in reserve, each zeroed behind its header");
    append(&journal, 1, entries(1, 1..11, 1, 1000)).unwrap();
    assert_eq!(again, 4096, "what was found last is written again at a start");
    let blocks = written.bytes(Part::JournalBlocks);
    assert_eq!(blocks - again, 12 << 10, "ten frames of 1,040 bytes and a header, in whole pages");
    journal.close();
    assert!(written.bytes(Part::JournalProofs) >= 4096, "the end is proven");
    assert_eq!(written.bytes(Part::JournalCheckpoints), begun);
    let all = blocks + zeros + begun + written.bytes(Part::JournalProofs);
    assert_eq!(written.total(), all, "and nothing else was written");
}

#[test]
fn files_that_shards_give_back_together_are_used_again_instead_of_made_anew() {
    let (written, journal) = counted();
    let mut zeros = Vec::new();
    for round in 0..8 {
        for index in 1 + round * 100..1 + (round + 1) * 100 {
            for shard in 1..4 {
                append(&journal, shard, vec![entry(shard, index, 1, 2000)]).unwrap();
            }
        }
        for shard in 1..4 {
            purge(&journal, shard, id((round + 1) * 100, 1)).unwrap();
        }
        zeros.push(written.bytes(Part::JournalZeros));
    }
    assert!(zeros[0] > 8 * (64 << 10), "{zeros:?}: a round takes more files than are in reserve");
    assert_eq!(zeros.last(), zeros.get(1), "{zeros:?}: no further file after the second round");
    journal.close();
}
