//! TLS from the command line: whoever names the certificate to trust talks, and everybody else is told what to do.

#![allow(clippy::unwrap_used)]

mod house;

use std::path::{Path, PathBuf};

use house::{Answer, House, ended};

/// A certificate for these names, signed by nobody else, and its key.
fn certificate(dir: &Path, name: &str, names: &[&str]) -> (PathBuf, PathBuf) {
    let made =
        rcgen::generate_simple_self_signed(names.iter().map(|name| name.to_string()).collect::<Vec<_>>()).unwrap();
    let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (cert, key)
}

/// A node with a certificate for localhost, and that certificate.
fn with_tls() -> (House, String) {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path(), "node", &["localhost"]);
    let set = |name: &str, path: &Path| ["--set".to_owned(), format!("{name}={}", path.display())];
    let args = [set("tls.cert", &cert), set("tls.key", &key)].concat();
    let mut house = House::with(dir, args);
    house.listen = house.listen.replace("127.0.0.1", "localhost");
    (house, cert.to_str().unwrap().to_owned())
}

fn sign_in(house: &House, more: &[&str]) -> Answer {
    house.run_with_input(&[&["login", "alice", "--password-stdin"], more].concat(), b"alice-demo\n")
}

/// In one line, what is wrong and what to do, with this exit code.
fn refused(answer: Answer, code: i32, words: &[&str]) {
    let answer = answer.ended_with(code);
    let complaint = answer.complaint();
    assert!(words.iter().all(|words| complaint.contains(words)), "{answer}");
    assert_eq!(complaint.lines().count(), 1, "{answer}");
}

#[test]
fn whoever_trusts_the_certificate_signs_in_sends_and_reads() {
    let (house, cert) = with_tls();
    sign_in(&house, &["--tls", "--ca", &cert]).done();
    // Where and whom to trust is saved with the sign-in.
    house.run(&["send", "--to", "bob", "in private"]).done();
    let lines = (0..3000).map(|n| format!("line {n}\n")).collect::<String>();
    house.run_with_input(&["send", "--to", "bob"], lines.as_bytes()).done();
    let read = house.run(&["history", "--with", "bob", "--limit", "5000", "-o", "json"]).done().texts();
    assert_eq!((read.len(), read[0].as_str(), read[3000].as_str()), (3001, "in private", "line 2999"));
    assert_eq!(house.run(&["tail", "--with", "bob", "--once", "-o", "json"]).done().texts().last(), read.last());
    // With a minted token, and as an administrator, the certificate is named each time.
    let data = house.data();
    let minted = house.run(&["token", "mint", "bob", "--ca", &cert, "--data-dir", data.to_str().unwrap()]).done();
    let mut command = house.skein(&["history", "--with", "alice", "--newest", "--limit", "1", "-o", "json"]);
    command.env("SKEIN_TOKEN", minted.words()).env("SKEIN_CA", &cert);
    assert_eq!(ended(command, b"").done().texts(), ["line 2999"]);
}

#[test]
fn whoever_does_not_is_told_whom_to_trust() {
    let (house, cert) = with_tls();
    // The machine's own list does not have it; some machines have no list.
    let strangers = sign_in(&house, &["--tls"]);
    let complaint = strangers.complaint();
    assert!(matches!(strangers.0.status.code(), Some(1 | 4)) && complaint.contains("--ca FILE"), "{complaint}");
    let (other, _) = certificate(house.dir.path(), "other", &["localhost"]);
    refused(sign_in(&house, &["--ca", other.to_str().unwrap()]), 4, &["not trusted", "--ca FILE"]);
    // The certificate is for another name than the one asked for.
    let by_number = house.listen.replace("localhost", "127.0.0.1");
    refused(sign_in(&house, &["--ca", &cert, "--server", &by_number]), 4, &["not trusted", "127.0.0.1"]);
    refused(sign_in(&house, &["--ca", "nowhere.pem"]), 1, &["nowhere.pem", "--ca FILE"]);
}

#[test]
fn whoever_speaks_plain_tcp_to_a_tls_port_is_told_so() {
    let (house, cert) = with_tls();
    refused(sign_in(&house, &[]), 4, &["the server speaks TLS", "--ca FILE", "--tls"]);
    let data = house.data();
    let health = house.run(&["health", "--data-dir", data.to_str().unwrap()]);
    refused(health, 4, &["the server speaks TLS", "--ca FILE"]);
    // Also with a session, which would otherwise try for long.
    let token = house.run(&["token", "mint", "bob", "--ca", &cert, "--data-dir", data.to_str().unwrap()]).done();
    for args in [&["send", "--to", "alice", "hi"][..], &["tail"], &["chat", "--with", "alice"]] {
        let mut plain = house.skein(args);
        plain.env("SKEIN_TOKEN", token.words());
        refused(ended(plain, b""), 4, &["the server speaks TLS"]);
    }
}

#[test]
fn whoever_speaks_tls_to_a_plain_port_is_told_so() {
    let house = House::new();
    let (cert, _) = certificate(house.dir.path(), "node", &["localhost"]);
    let cert = cert.to_str().unwrap();
    refused(sign_in(&house, &["--ca", cert]), 4, &["does not speak TLS", "leave --tls and --ca away"]);
    sign_in(&house, &[]).done();
}

#[test]
fn what_speaks_plain_tcp_only_says_so_before_it_does_anything() {
    let (house, cert) = with_tls();
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/sample/sample.jsonl");
    let data = house.data();
    let data = data.to_str().unwrap();
    for args in [&["replay", sample, "--data-dir", data][..], &["bench", "send", "--data-dir", data]] {
        refused(house.run(&[args, &["--ca", &cert]].concat()), 2, &["plain TCP only"]);
    }
    refused(house.run(&["replay", sample, "--data-dir", data]), 4, &["the server speaks TLS"]);
    // A node's certificate is no business of these options.
    for args in [&["server", "--dev", "--tls"][..], &["config", "check", "--ca", &cert], &["--tls", "demo"]] {
        refused(house.run(args), 2, &["tls.cert=FILE"]);
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_named_by_the_check_and_by_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path(), "one", &["localhost"]);
    let (_, other) = certificate(dir.path(), "two", &["localhost"]);
    let house = House::closed(dir);
    let data = house.data();
    let with = |command: &[&str], cert: &Path, key: &Path| {
        let (cert, key) = (format!("tls.cert={}", cert.display()), format!("tls.key={}", key.display()));
        house.run(&[command, &["--set", &cert, "--set", &key, "--data-dir", data.to_str().unwrap()]].concat())
    };
    let start = ["server", "--dev", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let check = ["config", "check", "--dev"];
    for command in [&check[..], &start] {
        refused(with(command, &cert, &other), 1, &["one.pem", "two.key", "correct tls.cert and tls.key"]);
        refused(with(command, &dir_of(&cert).join("none.pem"), &key), 1, &["none.pem"]);
    }
    with(&check, &cert, &key).done();
}

fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap()
}
