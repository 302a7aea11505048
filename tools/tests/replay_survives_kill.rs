//! The main promise under the worst treatment: the real server is killed with -9 three times while a replay is
//! between 20 and 80 % done, and what is stored in the end is the file, byte for byte.
//!
//! `TEST_SEED` repeats a run; `TEST_CHAT` names another file (then at full speed).

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Kills, each at another point.
const KILLS: usize = 3;
/// Copies of the sample, as different conversations of the same people.
const COPIES: usize = 10;
/// Messages a second: slow enough that three kills find the replay at work.
const RATE: &str = "1500";
const READY_TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn a_replay_verifies_though_the_server_is_killed_three_times() {
    let seed = std::env::var("TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_123);
    let mut chance = SmallRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let (listen, http) = (free_port(), free_port());
    let mut server = Server::start(&data_dir, listen, http);
    let mut replay = start_replay(dir.path(), listen);

    let mut points: Vec<u32> = (0..KILLS as u32).map(|kill| 20 + kill * 20 + chance.random_range(0..19)).collect();
    points.reverse();
    eprintln!("seed {seed}: killing at {points:?} % (from the last)");
    for line in BufReader::new(replay.0.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(percent) = percent(&line) else {
            eprintln!("{line}");
            continue;
        };
        if points.last().is_some_and(|&point| percent >= point) && percent <= 80 {
            points.pop();
            // Not at the line that tells of progress, but at some moment after it.
            std::thread::sleep(Duration::from_millis(chance.random_range(0..60)));
            server.kill();
            std::thread::sleep(Duration::from_millis(chance.random_range(0..300)));
            server = Server::start(&data_dir, listen, http);
        }
    }
    let status = replay.0.wait().unwrap();
    let mut figures = String::new();
    replay.0.stdout.take().unwrap().read_to_string(&mut figures).unwrap();
    eprintln!("{figures}");
    assert!(points.is_empty(), "the replay was over before the last kill");
    assert!(status.success(), "{status}");
    let figures: serde_json::Value = serde_json::from_str(&figures).unwrap();
    assert_eq!((&figures["mismatches"], &figures["verified"]), (&0.into(), &figures["messages"]));
    assert!(figures["connections_lost"].as_u64().unwrap() > 0, "nobody noticed the kills");
}

fn start_replay(dir: &Path, server: SocketAddr) -> Killed {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skein"));
    match std::env::var_os("TEST_CHAT") {
        Some(file) => command.arg("replay").arg(file),
        None => command.arg("replay").arg(copies(dir)).args(["--rate", RATE]),
    };
    command.args(["-o", "json", "--server", &server.to_string(), "--data-dir"]).arg(dir.join("data"));
    Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// The sample several times over, interleaved, each copy with conversations of its own.
fn copies(dir: &Path) -> PathBuf {
    let sample = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/sample/sample.jsonl")).unwrap();
    let path = dir.join("chat.jsonl");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    for line in sample.lines() {
        for copy in 0..COPIES {
            let copied = line.replacen("\"conversation\": \"", &format!("\"conversation\": \"{copy}-"), 1);
            writeln!(file, "{copied}").unwrap();
        }
    }
    file.flush().unwrap();
    path
}

fn percent(line: &str) -> Option<u32> {
    line.strip_prefix("replay: ")?.strip_suffix(" %")?.parse().ok()
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Server(Killed);

impl Server {
    fn start(data_dir: &Path, listen: SocketAddr, http: SocketAddr) -> Server {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(data_dir.with_extension("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_skein"));
        command.args(["server", "--dev", "--data-dir"]).arg(data_dir);
        // Sealed every second: starts begin from segments, and kills fall into their making.
        command.args(["--set", "sequencer.seal_age=1s"]);
        command.args(["--listen", &listen.to_string(), "--http", &http.to_string()]);
        let mut server = Killed(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let deadline = Instant::now() + READY_TIMEOUT;
        while !is_ready(http) {
            let ended = server.0.try_wait().unwrap();
            let words = || std::fs::read_to_string(data_dir.with_extension("log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "the server is not ready ({ended:?}):\n{}", words());
            std::thread::sleep(Duration::from_millis(10));
        }
        Server(server)
    }

    /// With -9.
    fn kill(&mut self) {
        self.0.0.kill().unwrap();
        self.0.0.wait().unwrap();
    }
}

fn is_ready(http: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(http) else { return false };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}
