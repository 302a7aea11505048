//! Every file of a data directory that is not what it should be: refused by name, and nothing is overwritten.

#![allow(clippy::unwrap_used)]

mod house;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use house::{Answer, House};

/// What is put in a file's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bad {
    /// Bytes that mean nothing.
    Random,
    /// Nothing.
    Empty,
    /// The file of that name of another node.
    Foreign,
    /// Of a format to come, its checksums right.
    Newer,
}

const ALL: [Bad; 4] = [Bad::Random, Bad::Empty, Bad::Foreign, Bad::Newer];

/// What a start makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// Exit code 1, the file named, and these words besides.
    Refused(&'static str),
    /// It starts: the file says nothing that counts, or is the operator's to change.
    Starts,
}

/// A kind of file, by where it lies.
struct Kind {
    name: &'static str,
    is: fn(&str) -> bool,
    expect: fn(Bad) -> Expect,
    /// Makes a file of a later format of one of this kind.
    newer: Option<fn(&mut Vec<u8>)>,
}

/// All kinds that there are.
const KINDS: [Kind; 7] = [
    Kind { name: "lock", is: |path| path == "skein.lock", expect: |_| Expect::Starts, newer: None },
    Kind {
        name: "identity",
        is: |path| path == "node.toml",
        expect: |bad| match bad {
            Bad::Newer => Expect::Refused("format 2"),
            Bad::Foreign => Expect::Refused("history"),
            Bad::Random | Bad::Empty => Expect::Refused("identity"),
        },
        newer: Some(|bytes| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            *bytes = text.replace("format = 1", "format = 2").into_bytes();
        }),
    },
    Kind {
        name: "key",
        is: |path| path.starts_with("keys/"),
        // A key of another node is a key: whoever rotates keys puts one there.
        expect: |bad| if bad == Bad::Foreign { Expect::Starts } else { Expect::Refused("key") },
        newer: None,
    },
    Kind {
        name: "journal file",
        is: |path| path.starts_with("journal/") && path.ends_with(".journal"),
        expect: |bad| match bad {
            Bad::Newer => Expect::Refused("version 2"),
            Bad::Foreign => Expect::Refused("another journal"),
            Bad::Random | Bad::Empty => Expect::Refused("rot"),
        },
        newer: Some(|bytes| {
            bytes[8] = 2;
            let crc = crc32fast::hash(&bytes[..40]);
            bytes[40..44].copy_from_slice(&crc.to_le_bytes());
        }),
    },
    Kind {
        name: "segment",
        is: |path| path.starts_with("segments/") && path.ends_with(".segment"),
        expect: |bad| match bad {
            Bad::Newer => Expect::Refused("version 200"),
            Bad::Foreign => Expect::Refused("is not the file that belongs there"),
            Bad::Random => Expect::Refused("does not begin as a segment does"),
            Bad::Empty => Expect::Refused("it is empty"),
        },
        newer: Some(|bytes| {
            bytes[8] = 200;
            let crc = crc32fast::hash(&bytes[..60]);
            bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        }),
    },
    Kind {
        name: "manifest",
        is: |path| path.ends_with("/MANIFEST"),
        expect: |bad| match bad {
            Bad::Newer => Expect::Refused("version 200"),
            Bad::Foreign => Expect::Refused("missing"),
            Bad::Random => Expect::Refused("does not begin as a manifest does"),
            Bad::Empty => Expect::Refused("it is empty"),
        },
        newer: Some(|bytes| bytes[8] = 200),
    },
    // A cache: it is said, discarded and made anew.
    Kind { name: "store", is: |path| path.starts_with("store/"), expect: |_| Expect::Starts, newer: None },
];

fn kind_of(path: &str) -> &'static Kind {
    const KINDS_THERE: &[Kind] = &KINDS;
    let kind = KINDS_THERE.iter().find(|kind| (kind.is)(path));
    kind.unwrap_or_else(|| panic!("{path} is of a new kind: say in KINDS what a start makes of a bad one"))
}

/// Every file below a directory, by its path from there.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, dir, &mut found);
    found
}

/// A node that has sealed and unsealed messages in every shard.
fn node() -> House {
    let mut house = House::new();
    let data = house.data();
    house.sign_in("alice");
    house.run_with_input(&["send", "--to", "bob"], b"sealed\n").done();
    house.run(&["shard", "seal", "--all", "--data-dir", data.to_str().unwrap()]).done();
    house.run_with_input(&["send", "--to", "bob"], b"unsealed\n").done();
    house.run(&["health"]).done();
    house.stop();
    house
}

/// Noise that is the same every time.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// What is put in a file's place; `None` if there is no such thing for it.
fn bad_bytes(bad: Bad, path: &str, bytes: &[u8], other: &BTreeMap<String, Vec<u8>>) -> Option<Vec<u8>> {
    match bad {
        Bad::Random => Some(noise(bytes.len().clamp(100, 1 << 20))),
        Bad::Empty => Some(Vec::new()),
        Bad::Foreign => foreign(path, other),
        Bad::Newer => {
            let mut changed = bytes.to_vec();
            (kind_of(path).newer?)(&mut changed);
            Some(changed)
        }
    }
}

/// The file of that name of another node; a segment is named for what it holds: the one of the same seal then.
fn foreign(path: &str, other: &BTreeMap<String, Vec<u8>>) -> Option<Vec<u8>> {
    let stem = path.find(".L0.").map_or(path, |end| &path[..end]);
    other
        .iter()
        .find(|(name, _)| *name == path || (path.ends_with(".segment") && name.starts_with(stem)))
        .map(|(_, bytes)| bytes.clone())
}

/// A start that is refused ends; one that is not is stopped when it says that it is ready.
fn start(house: &House) -> Result<(), Answer> {
    let data = house.data();
    let args = ["--set", "journal.file_bytes=4MiB", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"];
    let mut command = house.skein(&["server", "--dev"]);
    command.args(args).arg(&data);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap) {
        said.push_str(&line);
        said.push('\n');
        if line.contains(" send --to ") {
            child.kill().unwrap();
            child.wait().unwrap();
            return Ok(());
        }
    }
    let mut output = child.wait_with_output().unwrap();
    output.stderr = said.into_bytes();
    Err(Answer(output))
}

/// One of each kind in each role: journal files differ by theirs.
fn chosen(all: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let role = |path: &String| {
        (
            kind_of(path).name,
            path.starts_with("journal/").then(|| path.clone()),
            path.starts_with("keys/").then(|| path.clone()),
        )
    };
    all.keys().filter(|path| seen.insert(role(path))).cloned().collect()
}

fn write_all(dir: &Path, files: &BTreeMap<String, Vec<u8>>) {
    let _ = std::fs::remove_dir_all(dir);
    for (path, bytes) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let is_key = path.extension().is_some_and(|end| end == "pem");
        std::fs::write(&path, bytes).unwrap();
        if is_key {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

#[test]
fn every_file_that_is_not_what_it_should_be_is_refused_by_name_and_nothing_is_overwritten() {
    let (house, other) = (node(), node());
    let (mut good, other) = (files(&house.data()), files(&other.data()));
    // Merges make stores, after minutes; whatever lies in the place of one is never believed.
    good.insert("store/00000.redb".into(), noise(9000));
    let kinds: BTreeSet<_> = good.keys().map(|path| kind_of(path).name).collect();
    assert_eq!(kinds.len(), KINDS.len(), "of each kind there is one: {kinds:?}");
    for path in chosen(&good) {
        for bad in ALL {
            let Some(bytes) = bad_bytes(bad, &path, &good[&path], &other) else { continue };
            let mut bad_files = good.clone();
            bad_files.insert(path.clone(), bytes);
            write_all(&house.data(), &bad_files);
            let what = format!("{path}, {bad:?}");
            match ((kind_of(&path).expect)(bad), start(&house)) {
                (Expect::Starts, Ok(())) => {}
                (Expect::Starts, Err(answer)) => panic!("{what}: {answer}"),
                (Expect::Refused(_), Ok(())) => panic!("{what}: it starts"),
                (Expect::Refused(words), Err(answer)) => {
                    let said = answer.ended_with(1).complaint();
                    let (name, words) = (path.rsplit('/').next().unwrap(), words);
                    let is_named = said.contains(&path) || (kind_of(&path).name != "segment" && said.contains(name));
                    assert!(is_named && said.contains(words), "{what}: not named, or not {words:?}:\n{said}");
                    assert!(!said.contains("panicked"), "{what}: {said}");
                    let mut after = files(&house.data());
                    after.insert("skein.lock".into(), bad_files["skein.lock"].clone());
                    let changed: Vec<_> =
                        bad_files.keys().filter(|path| after.get(*path) != bad_files.get(*path)).collect();
                    assert!(changed.is_empty() && after.len() == bad_files.len(), "{what}: overwritten: {changed:?}");
                }
            }
        }
    }
    write_all(&house.data(), &good);
    assert!(start(&house).is_ok(), "and the good one starts");
}
