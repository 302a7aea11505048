//! The real process: what it says, how it ends, and that a killed one comes back.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any start or stop takes on a busy machine; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    child: Child,
    said: Vec<String>,
    http: String,
}

fn skein(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skein"));
    command.args(args).stdin(Stdio::null());
    // The tests' own environment must not configure the node.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SKEIN_")) {
        command.env_remove(name);
    }
    command
}

fn dev_args(data: &Path) -> Vec<&str> {
    let data = data.to_str().unwrap();
    let small = "journal.file_bytes=4MiB";
    vec!["server", "--dev", "--data-dir", data, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--set", small]
}

impl Server {
    /// Starts a node and reads its start message to the end.
    fn start(data: &Path) -> Server {
        let mut child = skein(&dev_args(data)).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        while !said.last().is_some_and(|line: &String| line.contains(" send --to ")) {
            said.push(lines.next().expect("the node ended while starting").unwrap());
        }
        // What it says later is read too, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let http = said.iter().find_map(|line| line.trim().strip_prefix("http ")).unwrap().trim();
        let http = http.strip_prefix("http://").unwrap().split(' ').next().unwrap().to_owned();
        Server { child, said, http }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the node has not ended within {PATIENCE:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Exit code and what was said, of a command that ends by itself.
fn run(args: &[&str]) -> (Option<i32>, String) {
    let output = skein(args).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_start_message_says_what_is_relaxed_where_the_data_is_and_what_to_type() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let said = server.said.join("\n");
    for words in
        ["every acknowledged message is fsynced", "relaxed", "alice-demo", "next", dir.path().to_str().unwrap()]
    {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
}

#[test]
fn sigterm_and_sigint_drain_and_exit_0() {
    let dir = tempfile::tempdir().unwrap();
    for signal in ["-TERM", "-INT"] {
        let mut server = Server::start(dir.path());
        assert!(server.get("/readyz").starts_with("HTTP/1.1 200"));
        server.signal(signal);
        assert_eq!(server.exit_code(), Some(0), "{signal}");
    }
}

#[test]
fn a_second_signal_ends_a_drain_that_waits_for_a_client() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let clients = server.said.iter().find_map(|line| line.trim().strip_prefix("clients ")).unwrap();
    let mut client = TcpStream::connect(clients.split_whitespace().next().unwrap()).unwrap();
    client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    // Pings whose answers nobody reads, until the server has no more room for them and takes no more.
    let pings = [10, 0, 0, 0, 1, 0, 2, 0, 1, 0, 0, 0, 8, 7].repeat(1000);
    let began = Instant::now();
    let ended = loop {
        if let Err(error) = client.write_all(&pings) {
            break error.kind();
        }
        assert!(began.elapsed() < PATIENCE, "the server takes pings for ever");
    };
    assert!(matches!(ended, ErrorKind::WouldBlock | ErrorKind::TimedOut), "the client is still there: {ended}");
    server.signal("-TERM");
    while server.get("/readyz").starts_with("HTTP/1.1 200") {
        assert!(began.elapsed() < PATIENCE, "it does not drain");
    }
    assert!(server.child.try_wait().unwrap().is_none(), "it waits for the client");
    server.signal("-TERM");
    assert_eq!(server.exit_code(), Some(130));
}

#[test]
fn a_second_node_on_the_same_directory_is_told_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = Server::start(dir.path());
    let (code, said) = run(&dev_args(dir.path()));
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("is in use by skein pid {}", first.child.id())), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_killed_node_gives_its_directory_free_and_comes_back_as_the_same_node() {
    let dir = tempfile::tempdir().unwrap();
    let history = |server: &Server| {
        let status = server.get("/status");
        status.split("\"history\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let mut first = Server::start(dir.path());
    let before = history(&first);
    first.signal("-KILL");
    first.exit_code();
    let second = Server::start(dir.path());
    assert_eq!(history(&second), before);
    assert!(second.get("/readyz").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_node_in_earnest_asks_for_keys_and_starts_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("skein.toml");
    let text = format!(
        "data_dir = {:?}\nlisten = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\nshards = 2\n[journal]\nfile_bytes = \"4MiB\"\n",
        dir.path().join("data")
    );
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let (code, said) = run(&["server", "--config", file]);
    assert_eq!(code, Some(1));
    assert!(said.contains("skein config init-keys"), "{said}");
    assert_eq!(run(&["config", "init-keys", "--data-dir", dir.path().join("data").to_str().unwrap()]).0, Some(0));
    let mut child = skein(&["server", "--config", file]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said: Vec<String> = lines.by_ref().map(Result::unwrap).take_while(|line| !line.contains("next")).collect();
    let _ = child.kill();
    let _ = child.wait();
    let said = said.join("\n");
    assert!(said.contains("is ready") && !said.contains("relaxed"), "{said}");
}

#[test]
fn a_command_line_without_a_mode_and_a_bad_configuration_have_their_own_codes() {
    assert_eq!(run(&["server"]).0, Some(2));
    assert_eq!(run(&["server", "--nonsense"]).0, Some(2));
    let (code, said) = run(&["server", "--dev", "--set", "journal.file_byte=1"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("journal.file_byte") && said.contains("did you mean \"journal.file_bytes\""), "{said}");
}

#[test]
fn the_printed_configuration_checks() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("skein.toml");
    let printed = skein(&["config", "print"]).output().unwrap();
    std::fs::write(&file, printed.stdout).unwrap();
    assert_eq!(run(&["config", "check", "--config", file.to_str().unwrap()]).0, Some(0));
    let effective = skein(&["config", "print", "--effective", "-o", "json", "--config", file.to_str().unwrap()]);
    let json = { effective }.output().unwrap().stdout;
    let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(value["journal"]["file_bytes"], "256MiB");
}
