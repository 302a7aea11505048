//! A home directory with a node beside it, and what is typed there.

#![allow(dead_code, clippy::unwrap_used)] // Each test file uses a part of it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

/// Longer than anything here takes on a busy machine; reached only when something is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A home directory with a node beside it.
pub struct House {
    pub dir: tempfile::TempDir,
    node: Option<Child>,
    pub listen: String,
    data: PathBuf,
    server_args: Vec<String>,
    /// Of a node in earnest; others are for development.
    config: Option<PathBuf>,
}

impl House {
    pub fn new() -> House {
        House::with(tempfile::tempdir().unwrap(), Vec::new())
    }

    /// No node.
    pub fn closed(dir: tempfile::TempDir) -> House {
        let data = dir.path().join("data");
        House { dir, node: None, listen: "127.0.0.1:0".into(), data, server_args: Vec::new(), config: None }
    }

    /// No node, in a copy of the directory that is kept of the first format. Its log is older than the dedup window, so that merges may begin.
    pub fn of_the_first_format() -> House {
        let house = House::closed(tempfile::tempdir().unwrap());
        copied(&fixture("data"), &house.data());
        house
    }

    /// What its node is given when it starts.
    pub fn serving_with(mut self, server_args: &[&str]) -> House {
        self.server_args = server_args.iter().map(|arg| arg.to_string()).collect();
        self
    }

    /// The node's data lies elsewhere.
    pub fn data_at(&mut self, data: &Path) {
        self.data = data.to_owned();
    }

    /// A node that is given more arguments, in a directory that has something in it already.
    pub fn with(dir: tempfile::TempDir, server_args: Vec<String>) -> House {
        let mut house = House::closed(dir);
        house.server_args = server_args;
        house.start();
        house
    }

    /// A node that has nobody's account.
    pub fn in_earnest(shards: u16) -> House {
        let mut house = House::closed(tempfile::tempdir().unwrap());
        let file = house.dir.path().join("skein.toml");
        std::fs::write(&file, format!("shards = {shards}\n")).unwrap();
        house.config = Some(file);
        house.run(&["config", "init-keys", "--data-dir", house.data.to_str().unwrap()]).done();
        house.start();
        house
    }

    /// Starts the node; after the first time where it was.
    pub fn start(&mut self) {
        let data = self.data();
        let mode = self.config.as_ref().map_or(vec!["--dev"], |file| vec!["--config", file.to_str().unwrap()]);
        let args = [&["server", "--http", "127.0.0.1:0", "--set", "journal.file_bytes=4MiB"], &mode[..]].concat();
        let mut command = self.skein(&args);
        command.arg("--data-dir").arg(&data).args(["--listen", &self.listen]).args(&self.server_args);
        command.env_remove("SKEIN_SERVER");
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        loop {
            let line = lines.next().expect("the node ended while starting").unwrap();
            if let Some(clients) = line.trim().strip_prefix("clients ") {
                self.listen = clients.split_whitespace().next().unwrap().to_owned();
            }
            if line.contains(" send --to ") || line.contains(" next        skein health ") {
                break;
            }
        }
        std::thread::spawn(move || lines.for_each(|line| eprintln!("node: {}", line.unwrap_or_default())));
        self.node = Some(child);
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut node) = self.node.take() {
            node.kill().unwrap();
            node.wait().unwrap();
        }
    }

    /// SIGTERM, and its end.
    pub fn stop(&mut self) {
        if let Some(mut node) = self.node.take() {
            let pid = node.id().to_string();
            assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
            assert!(node.wait().unwrap().success());
        }
    }

    /// The node's process id.
    pub fn pid(&self) -> Option<u32> {
        self.node.as_ref().map(Child::id)
    }

    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    pub fn skein(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skein"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SKEIN_")) {
            command.env_remove(name);
        }
        command.args(args).stdin(Stdio::null());
        command.env("XDG_CONFIG_HOME", self.dir.path().join("config")).env("SKEIN_SERVER", &self.listen);
        command
    }

    pub fn run(&self, args: &[&str]) -> Answer {
        self.run_with_input(args, b"")
    }

    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Answer {
        ended(self.skein(args), input)
    }

    pub fn sign_in(&self, name: &str) {
        let password = format!("{name}-demo\n");
        self.run_with_input(&["login", name, "--password-stdin"], password.as_bytes()).done();
    }

    pub fn mint(&self, name: &str) -> String {
        let data = self.data();
        self.run(&["token", "mint", name, "--data-dir", data.to_str().unwrap()]).done().words()
    }
}

/// What is kept of the first format, by its name.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1").join(name)
}

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copied(&path, &to);
        } else {
            std::fs::copy(path, to).unwrap();
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a command says that ends by itself. One that does not is killed, which is no exit code.
pub fn ended(mut command: Command, input: &[u8]) -> Answer {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let pid = child.id().to_string();
    let (done, is_done) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        // A command that ends early takes no more: what it says and its code tell why.
        scope.spawn(move || drop(stdin.write_all(input)));
        scope.spawn(move || {
            if is_done.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-9", &pid]).status();
            }
        });
        let output = child.wait_with_output().unwrap();
        drop(done);
        Answer(output)
    })
}

pub struct Answer(pub Output);

impl Answer {
    pub fn done(self) -> Answer {
        self.ended_with(0)
    }

    pub fn ended_with(self, code: i32) -> Answer {
        assert_eq!(self.0.status.code(), Some(code), "{self}");
        self
    }

    pub fn words(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap().trim_end().to_owned()
    }

    pub fn complaint(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    /// Every line of stdout as JSON.
    pub fn json(&self) -> Vec<Value> {
        self.words().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn texts(&self) -> Vec<String> {
        let text = |value: &Value| value["text"].as_str().map(str::to_owned);
        self.json().iter().filter_map(text).collect()
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}\n{}", self.0.status, self.words(), self.complaint())
    }
}
