//! What a start costs on much data, what a conversation takes of memory, and what the first message of a cold one waits for:
//! `cargo bench --bench restart`.
//!
//! Small messages, evenly spread over 1:1s, go through the log of a node's shards, are sealed and merged; then each of these is a
//! process of its own, so that nothing is left from the one before:
//!
//! - `start`: opens the shards, everything sealed (gate for 50 million messages: 3 s); what memory grew by;
//! - `sends`: one message each in conversations chosen by chance, nothing of segments and store in the page cache, beside a second
//!   one right after and beside a random read of 64 KiB (gate: cold p99 <= hot p99 + one such read);
//! - `replay`: opens them with so many MB of journal above the segments: the CPU time beyond that of `start` (gate 500 MB/s a core);
//! - `idle`: as `start`, but the dedup window has passed: what memory grew by is conversations alone (gate 96 B each).
//!
//! `SKEIN_MESSAGES` (default 1,000,000), `SKEIN_CONVERSATIONS` (default 100,000), `SKEIN_BODY` (bytes, default 8), `SKEIN_UNSEALED_MB`
//! (default 64), `SKEIN_SENDS` (default 500), `SKEIN_SEAL_MB` (default 64), `SKEIN_DIR` (where, default under cargo's target directory).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::{Load, ScaledClock, Shards, ShardsOptions, Texts};
use sequencer::{Clock, Command, Outcome};

/// The server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MB: f64 = 1e6;
/// A body of the messages that are left unsealed: journal figures are for messages of 200 bytes.
const UNSEALED_BODY: usize = 200;
const READ_BYTES: usize = 64 << 10;

fn main() {
    match std::env::var("SKEIN_RESTART_PART").as_deref() {
        Ok("fill") => fill(&dir_given()),
        Ok("start") => drop(start(&dir_given(), "start")),
        Ok("sends") => sends(&dir_given()),
        Ok("append") => append(&dir_given()),
        Ok("replay") => replay(&dir_given()),
        Ok("pass") => pass(&dir_given()),
        Ok("idle") => drop(start(&dir_given(), "idle")),
        _ => all(),
    }
}

fn all() {
    let root = match std::env::var_os("SKEIN_DIR") {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")),
    };
    let root = root.expect("the directory can be written");
    for part in ["fill", "start", "start", "sends", "append", "replay", "replay", "pass", "idle", "idle"] {
        let program = std::env::current_exe().expect("a program");
        let ended =
            Process::new(program).env("SKEIN_RESTART_PART", part).env("SKEIN_RESTART_DIR", root.path()).status();
        assert!(ended.expect("a child process").success(), "{part} failed");
    }
}

fn dir_given() -> PathBuf {
    std::env::var_os("SKEIN_RESTART_DIR").expect("the parent says where").into()
}

fn load(body: usize) -> Load {
    Load::new(number("SKEIN_CONVERSATIONS", 100_000), Texts::of_bytes(body))
}

fn messages() -> u64 {
    number("SKEIN_MESSAGES", 1_000_000)
}

fn options() -> ShardsOptions {
    ShardsOptions { shards: 4, file_bytes: 64 << 20, seal_bytes: number("SKEIN_SEAL_MB", 64) << 20, merge_inputs: 16 }
}

fn clock() -> Arc<ScaledClock> {
    ScaledClock::new(10)
}

fn fill(dir: &Path) {
    let (began, load) = (Instant::now(), load(number("SKEIN_BODY", 8) as usize));
    let shards = Shards::open(dir, &options(), &clock());
    shards.open_conversations(&load);
    let opened = began.elapsed();
    shards.send(&load, 0, messages());
    shards.seal();
    let sent = began.elapsed() - opened;
    shards.settle();
    println!(
        "filled: {} conversations opened in {:.1} s, {} messages sent and sealed in {:.1} s, merged {:.1} s later; {:.0} MB written",
        load.conversations(),
        opened.as_secs_f64(),
        messages(),
        sent.as_secs_f64(),
        (began.elapsed() - opened - sent).as_secs_f64(),
        shards.written.total() as f64 / MB,
    );
    shards.close();
}

/// Opens the shards and says what that took: wall clock, CPU, memory.
fn start(dir: &Path, name: &str) -> Shards {
    let memory = memory_bytes();
    let (began, cpu) = (Instant::now(), cpu_time());
    let shards = Shards::open(dir, &options(), &clock());
    let (wall, cpu) = (began.elapsed(), cpu_time() - cpu);
    let now = memory_bytes();
    let grew = now.saturating_sub(memory);
    println!(
        "{name}: ready in {:.0} ms, {:.0} ms of CPU; memory grew by {:.1} MB, {:.0} B for each of {} conversations",
        wall.as_secs_f64() * 1e3,
        cpu.as_secs_f64() * 1e3,
        grew as f64 / MB,
        grew as f64 / load(0).conversations() as f64,
        load(0).conversations(),
    );
    shards
}

fn sends(dir: &Path) {
    let (clock, load) = (clock(), load(8));
    let shards = Shards::open(dir, &options(), &clock);
    let files = files_of(dir);
    let largest = files.iter().max_by_key(|file| file.metadata().map_or(0, |data| data.len())).expect("segments");
    let largest_bytes = largest.metadata().expect("a length").len();
    let [mut cold, mut hot, mut reads] = [Vec::new(), Vec::new(), Vec::new()];
    for n in 0..number("SKEIN_SENDS", 500) {
        let send = |which: u64| {
            // Numbers beyond all that were filled; both go to the same conversation.
            let mut send = load.message((1 << 40) + n, clock.now());
            send.client_msg_id.0 ^= u128::from(which) << 60;
            timed(|| execute(&shards, Command::Send(send)))
        };
        drop_cached(&files);
        cold.push(send(0));
        hot.push(send(1));
        drop_cached(&files);
        let at = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % largest_bytes.saturating_sub(READ_BYTES as u64).max(1);
        let mut bytes = vec![0; READ_BYTES];
        reads.push(timed(|| largest.read_exact_at(&mut bytes, at).expect("a read")));
    }
    let [cold, hot, read] = [cold, hot, reads].map(percentiles);
    println!(
        "sends: cold p50 {:.2} p99 {:.2} ms, hot p50 {:.2} p99 {:.2} ms, a read of 64 KiB p50 {:.2} p99 {:.2} ms: cold p99 is {:.2} of hot \
         p99 + read p99 (gate 1)",
        cold[0],
        cold[1],
        hot[0],
        hot[1],
        read[0],
        read[1],
        cold[1] / (hot[1] + read[1]),
    );
    shards.seal();
    shards.close();
}

/// Messages that are left above the segments.
fn append(dir: &Path) {
    let (shards, load) = (Shards::open(dir, &options(), &clock()), load(UNSEALED_BODY));
    let count = number("SKEIN_UNSEALED_MB", 64) * 1_000_000 / (UNSEALED_BODY as u64 + 72);
    shards.send(&load, 1 << 41, (1 << 41) + count);
    // As after a crash: nothing is sealed, whatever the time.
    shards.close();
}

fn replay(dir: &Path) {
    let shards = start(dir, "replay");
    let records: u64 = shards.sequencer().shards().iter().map(|shard| shard.status().unsealed_records).sum();
    let bytes = records * (UNSEALED_BODY as u64 + 72);
    println!(
        "replay: {records} messages, {:.1} MB of journal above the segments: compare CPU with start's",
        bytes as f64 / MB
    );
    // Left as it is for the next.
    shards.close();
}

/// Lets the dedup window pass and seals what is left, so that what is in memory afterwards is conversations alone.
fn pass(dir: &Path) {
    let (clock, load) = (clock(), load(8));
    let shards = Shards::open(dir, &options(), &clock);
    for round in 0..2 {
        clock.skip(Duration::from_secs(600));
        for n in 0..1_000 {
            execute(&shards, Command::Send(load.message((1 << 42) + round * 1_000 + n, clock.now())));
        }
        shards.seal();
    }
    shards.settle();
    shards.close();
}

fn execute(shards: &Shards, command: Command) {
    let Command::Send(send) = &command else { unreachable!("sends only") };
    let shard = shards.sequencer().shard_of(send.conversation).clone();
    match shards.runtime().block_on(shard.execute(command)) {
        Ok(Outcome::Sent(_)) => {}
        other => panic!("{other:?}"),
    }
}

/// What reads of cold rows and records go to.
fn files_of(dir: &Path) -> Vec<File> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.join("segments"), dir.join("store")];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                _ => files.extend(File::open(entry.path())),
            }
        }
    }
    files
}

fn drop_cached(files: &[File]) {
    for file in files {
        rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).expect("advice is taken");
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// p50 and p99 in ms.
fn percentiles(mut times: Vec<Duration>) -> [f64; 2] {
    times.sort();
    [50, 99].map(|percent| times[times.len() * percent / 100].as_secs_f64() * 1e3)
}

/// Of all threads of this process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What this process has of its own: files it runs from aside.
fn memory_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = pages.split(' ').skip(1).map(|pages| pages.parse::<u64>().unwrap_or(0) * 4096);
    let [resident, shared] = [(); 2].map(|()| pages.next().unwrap_or(0));
    resident.saturating_sub(shared)
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |value| value.parse().unwrap_or_else(|_| panic!("{name}: {value}")))
}
