//! What is written to files for a record, by part: `cargo bench --bench written`.
//!
//! Messages of real texts, evenly spread over conversations, go through the log of a node's shards on a real disk; then all is
//! sealed and merged. The file layer counts every byte. Raw bytes are 72 of a send's head and the body, as everywhere.
//! Gate: at most 2.4 times raw with level 1, 2.9 with level 2.
//!
//! Sizes keep the proportions of a server's (as many shards as a journal file holds generations, 16 seals a merge) at a
//! sixteenth of its size. Counts depend neither on the machine nor on what else runs there. Zeros of new journal files are a
//! cost of beginning: files are recycled afterwards, so the table says which share they have.
//!
//! `SKEIN_RAW_MB` (default 1,024), `SKEIN_CONVERSATIONS` (default 20,000), `SKEIN_CHAT` (a chat file), `SKEIN_MERGE_INPUTS` (default 16).

use std::path::Path;

use benches::{Load, ScaledClock, Shards, ShardsOptions, Texts};
use logstore::io::Part;

const MB: u64 = 1_000_000;
const GATE: f64 = 2.4;
const GATE_WITH_L2: f64 = 2.9;

fn main() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory can be written");
    let raw_bytes = number("SKEIN_RAW_MB", 1024) * MB;
    let load = Load::new(number("SKEIN_CONVERSATIONS", 20_000), Texts::of_chat());
    let merge_inputs = number("SKEIN_MERGE_INPUTS", 16) as usize;
    let options = ShardsOptions { shards: 4, file_bytes: 4 << 20, seal_bytes: 4 << 20, merge_inputs };
    measure(root.path(), &options, &load, raw_bytes);
}

fn measure(root: &Path, options: &ShardsOptions, load: &Load, raw_bytes: u64) {
    let clock = ScaledClock::new(100);
    let shards = Shards::open(root, options, &clock);
    shards.open_conversations(load);
    shards.seal();
    let before = Part::ALL.map(|part| shards.written.bytes(part));
    let (mut sent, mut raw) = (0, 0);
    while raw < raw_bytes {
        raw += shards.send(load, sent, sent + 100_000);
        sent += 100_000;
        // At full speed merges would wait for the end of the load, and be fewer and larger than a server's.
        shards.rest();
    }
    shards.seal();
    shards.pass_window();
    shards.settle();
    let after = Part::ALL.map(|part| shards.written.bytes(part));
    tell(load, sent, raw, &before, &after);
    let seals: u64 =
        shards.sequencer().shards().iter().map(|shard| shard.read(|state, _| state.generation() - 1)).sum();
    println!("{seals} seals in {} shards", options.shards);
    shards.close();
}

type Counts = [u64; Part::ALL.len()];

fn tell(load: &Load, sent: u64, raw: u64, before: &Counts, after: &Counts) {
    println!(
        "{sent} messages of {:.0} B raw in {} conversations: {:.0} MB raw",
        raw as f64 / sent as f64,
        load.conversations(),
        raw as f64 / MB as f64
    );
    let ratio = |bytes: u64| bytes as f64 / raw as f64;
    let mut total = 0;
    for (place, part) in Part::ALL.into_iter().enumerate() {
        let bytes = after[place] - before[place];
        total += bytes;
        println!("{:<20} {:>10.1} MB {:>7.3} x raw", part.name(), bytes as f64 / MB as f64, ratio(bytes));
    }
    let of = |part: Part| after[part as usize] - before[part as usize];
    let gate = if of(Part::MergesL2) > 0 { GATE_WITH_L2 } else { GATE };
    let verdict = if ratio(total) <= gate { "met" } else { "MISSED" };
    println!(
        "{:<20} {:>10.1} MB {:>7.3} x raw (gate {gate}: {verdict})",
        "all",
        total as f64 / MB as f64,
        ratio(total)
    );
    println!("{:<20} {:>10} {:>10.3} x raw", "all but zeros", "", ratio(total - of(Part::JournalZeros)));
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |value| value.parse().unwrap_or_else(|_| panic!("{name}: {value}")))
}
