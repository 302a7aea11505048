//! A node whose disk has changed bytes: it stops and says so, and with --read-around-damage serves the rest, changing nothing.

#![allow(clippy::unwrap_used)]

mod house;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use house::{House, ended};

/// Every file of a directory with its bytes and when it was written.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        if meta.is_dir() {
            files.extend(snapshot(&path));
        } else {
            files.insert(path.clone(), (std::fs::read(&path).unwrap(), meta.modified().unwrap()));
        }
    }
    files
}

/// Changes a byte of what is written there; states in which file of the journal.
fn rots(data: &Path, needle: &[u8]) -> String {
    for entry in std::fs::read_dir(data.join("journal")).unwrap().map(Result::unwrap) {
        let mut bytes = std::fs::read(entry.path()).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[at] ^= 1;
            std::fs::write(entry.path(), bytes).unwrap();
            return format!("journal/{}", entry.file_name().to_str().unwrap());
        }
    }
    panic!("what was acknowledged is not in the journal");
}

fn server(house: &House, more: &[&str]) -> Command {
    let data = house.data();
    let mut command = house.skein(&["server", "--dev", "--set", "journal.file_bytes=4MiB", "--listen", "127.0.0.1:0"]);
    command.args(["--http", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]).args(more);
    command
}

/// A node that reads around damage, until it is told to stop.
struct Around {
    child: Child,
    said: Vec<String>,
}

impl Around {
    fn start(house: &mut House) -> Around {
        let mut child = server(house, &["--read-around-damage"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said: Vec<String> = Vec::new();
        while !said.last().is_some_and(|line| line.contains("next        skein log verify")) {
            said.push(lines.next().expect("it ended while starting").unwrap());
        }
        std::thread::spawn(move || lines.for_each(|line| eprintln!("node: {}", line.unwrap_or_default())));
        let around = Around { child, said };
        house.listen = around.after("  clients ");
        around
    }

    fn after(&self, label: &str) -> String {
        let line = self.said.iter().find_map(|line| line.strip_prefix(label)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    }

    fn get(&self, path: &str) -> String {
        let http = self.after("  http ");
        let mut stream = TcpStream::connect(http.strip_prefix("http://").unwrap()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn stop(mut self) {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Around {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_damaged_node_stops_and_says_what_to_do_and_serves_the_rest_when_it_is_told_to() {
    let mut house = House::new();
    let data = house.data();
    let dir = data.to_str().unwrap();
    house.sign_in("alice");
    house.run_with_input(&["send", "--to", "bob"], b"sealed\n").done();
    house.run(&["shard", "seal", "--all", "--data-dir", dir]).done();
    house.run_with_input(&["send", "--to", "bob"], b"below the damage\n").done();
    house.run_with_input(&["send", "--to", "bob"], b"will be damaged\n").done();
    house.run_with_input(&["send", "--to", "bob"], b"above it\n").done();
    // Every shard has something above the damage: it tells that nothing of it is lost.
    house.run(&["health"]).done();
    house.stop();
    let path = rots(&data, b"will be damaged");
    let before = snapshot(&data);

    let refused = ended(server(&house, &[]), b"").ended_with(1);
    let said = refused.complaint();
    for words in [&format!("rot in {path} at offset "), "shard ", "skein log verify", "--read-around-damage"] {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }

    let around = Around::start(&mut house);
    assert!(around.said.join("\n").contains("NOTHING IS WRITTEN"));
    let read = house.run(&["history", "--with", "bob", "-o", "json"]).done();
    assert_eq!(read.texts(), ["sealed", "below the damage"]);
    assert!(house.run(&["conversations"]).done().words().contains("bob"));
    for refused in [&["send", "--to", "bob", "no"][..], &["group", "create", "none"], &["health"]] {
        let refused = house.run(refused).ended_with(3);
        assert!(refused.complaint().contains("damaged"), "{refused}");
    }
    let ready = around.get("/readyz");
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains("ReadOnly") && ready.contains("may be lost"),
        "{ready}"
    );
    let shards = house.run(&["shard", "list", "--data-dir", dir, "-o", "json"]).done().json();
    let damaged = shards.iter().filter(|row| row["troubles"].is_array()).count();
    assert_eq!((shards.len(), damaged), (4, 1), "{shards:?}");
    around.stop();
    let mut after = snapshot(&data);
    // The refused start said in the lock file who it was.
    let lock = data.join("skein.lock");
    after.insert(lock.clone(), before[&lock].clone());
    assert!(after == before, "something was changed");
}
