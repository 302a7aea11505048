//! A whole node in this process: start, sign in, send, stop, start again, and everything that keeps it from starting.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use fanout::Code;
use gateway::auth::AdminKey;
use gateway::client::{Connection, Error, Greeting, HistoryQuery, Options, Outgoing, Record, Tls, Welcome};
use gateway::config::{Config, Registration, Size, admin_key_path};
use gateway::node::{DEMO_ACCOUNTS, DEMO_GROUP, Node, StartError, create_keys};
use logstore::id::{ClientMsgId, ConversationId, SeqId};
use sequencer::{Clock, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A node's configuration for tests: any free port, small files.
fn config(dir: &Path, dev: bool) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let base = if dev { Config::dev() } else { Config::default() };
    let mut config = Config { data_dir: dir.join("data"), listen: any, http: any, shards: 2, ..base };
    config.journal.file_bytes = Size(4 << 20);
    config
}

async fn sign_in(node: &Node, name: &str, password: &str) -> (Connection, Welcome) {
    let (connection, _pushes) = Connection::connect(&node.client_addr().to_string(), Options::default()).await.unwrap();
    let tokens = connection.login(name, password).await.unwrap();
    let greeting = Greeting { token: tokens.access_token, device: "test".into(), ..Greeting::default() };
    let welcome = connection.hello(greeting).await.unwrap();
    (connection, welcome)
}

async fn admin(node: &Node) -> Connection {
    let (connection, _pushes) = Connection::connect(&node.client_addr().to_string(), Options::default()).await.unwrap();
    let token = AdminKey::load(&node.admin_key_file()).unwrap().token(SystemClock.now());
    connection.hello(Greeting { token, device: "test".into(), ..Greeting::default() }).await.unwrap();
    connection
}

async fn demo_group(connection: &Connection) -> ConversationId {
    let (page, _) = connection.list_conversations(50, Bytes::new(), true).await.unwrap();
    page.iter().find(|conversation| conversation.title == DEMO_GROUP).unwrap().conversation
}

async fn history(connection: &Connection, conversation: ConversationId) -> Vec<Record> {
    let query = HistoryQuery { conversation, from: SeqId(1), to: SeqId(0), limit: 100, newest_first: false };
    connection.history(query).await.unwrap().records
}

async fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn refusal(started: Result<Node, StartError>) -> String {
    let words = started.err().expect("the node must not start").to_string();
    assert!(!words.contains('\n'), "more than one line: {words}");
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dev_node_serves_stops_and_has_everything_when_it_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(config(dir.path(), true)).await.unwrap();
    assert!(get(node.http_addr(), "/readyz").await.starts_with("HTTP/1.1 200"));
    let history_id = node.history();
    let (alice, welcome) = sign_in(&node, "alice", "alice-demo").await;
    let group = demo_group(&alice).await;
    let texts: Vec<_> = (0..20).map(|n| Outgoing::text(group, format!("text {n}"), welcome.clock)).collect();
    let stored = alice.send(1, &texts).await.unwrap();
    let before = history(&alice, group).await;
    assert_eq!(before.len(), 21);
    node.drain().await;

    let node = Node::start(config(dir.path(), true)).await.unwrap();
    assert_eq!(node.history(), history_id);
    let (bob, _) = sign_in(&node, "bob", "bob-demo").await;
    assert_eq!(demo_group(&bob).await, group, "seeding twice is seeding once");
    assert_eq!(history(&bob, group).await, before);
    let (alice, _) = sign_in(&node, "alice", "alice-demo").await;
    let again = alice.send(1, &texts).await.unwrap();
    for (first, retry) in stored.iter().zip(&again) {
        let (first, retry) = (first.as_ref().unwrap(), retry.as_ref().unwrap());
        assert_eq!((first.seq_id, first.server_msg_id), (retry.seq_id, retry.server_msg_id));
        assert!(retry.duplicate && !first.duplicate);
    }
    assert_eq!(history(&bob, group).await, before);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_demo_account_is_there_and_shares_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(config(dir.path(), true)).await.unwrap();
    for (name, password) in DEMO_ACCOUNTS {
        let (connection, welcome) = sign_in(&node, name, password).await;
        assert_eq!(welcome.user.name, name);
        demo_group(&connection).await;
    }
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_key_of_the_directory_imports_and_mints() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(config(dir.path(), true)).await.unwrap();
    let admin = admin(&node).await;
    let (users, refused) = admin.import_users(&[("dora".into(), String::new())]).await.unwrap();
    assert!(refused.is_empty() && users[0].name == "dora");
    let tokens = admin.mint_tokens(&["dora".into()], Duration::from_secs(60)).await.unwrap();
    let (dora, _pushes) = Connection::connect(&node.client_addr().to_string(), Options::default()).await.unwrap();
    let greeting = Greeting { token: tokens[0].access_token.clone(), device: "test".into(), ..Greeting::default() };
    assert_eq!(dora.hello(greeting).await.unwrap().user.id, users[0].id);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_on_the_directory_is_refused_until_the_first_has_drained() {
    let dir = tempfile::tempdir().unwrap();
    let first = Node::start(config(dir.path(), true)).await.unwrap();
    let words = refusal(Node::start(config(dir.path(), true)).await);
    let owner = format!("pid {} (listening on {}", std::process::id(), first.client_addr());
    assert!(words.contains("is in use by") && words.contains(&owner), "{words}");
    first.drain().await;
    Node::start(config(dir.path(), true)).await.unwrap().drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_dev_keys_are_asked_for_and_demo_accounts_are_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), false);
    let words = refusal(Node::start(config.clone()).await);
    assert!(words.contains("init-keys"), "{words}");
    assert!(!config.data_dir.join("node.toml").exists(), "nothing is made for a node that does not start");
    assert_eq!(create_keys(&config.data_dir).unwrap().len(), 2);
    assert!(create_keys(&config.data_dir).unwrap().is_empty());
    let node = Node::start(config).await.unwrap();
    let (connection, _pushes) = Connection::connect(&node.client_addr().to_string(), Options::default()).await.unwrap();
    let refused = connection.login("alice", "alice-demo").await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::BadCredentials));
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dev_made_never_serves_in_earnest_nor_the_other_way_round() {
    let dir = tempfile::tempdir().unwrap();
    Node::start(config(dir.path(), true)).await.unwrap().drain().await;
    let words = refusal(Node::start(config(dir.path(), false)).await);
    assert!(words.contains("was made by --dev"), "{words}");

    let earnest = tempfile::tempdir().unwrap();
    create_keys(&earnest.path().join("data")).unwrap();
    let mut borrowed = config(earnest.path(), false);
    borrowed.auth.admin_key_file = admin_key_path(&dir.path().join("data"));
    let words = refusal(Node::start(borrowed).await);
    assert!(words.contains("key file") && words.contains("was made by --dev"), "{words}");
    Node::start(config(earnest.path(), false)).await.unwrap().drain().await;
    let words = refusal(Node::start(config(earnest.path(), true)).await);
    assert!(words.contains("was not made by --dev"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_a_newer_format_and_a_bad_directory_are_told_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for key in ["listen", "http"] {
        let mut config = config(dir.path(), true);
        let addr = if key == "listen" { &mut config.listen } else { &mut config.http };
        *addr = taken.local_addr().unwrap();
        let words = refusal(Node::start(config).await);
        assert!(words.contains("in use by another process") && words.contains(&format!("--{key}")), "{words}");
    }
    std::fs::write(dir.path().join("data/node.toml"), "format = 9\n").unwrap();
    assert!(refusal(Node::start(config(dir.path(), true)).await).contains("format 9"));
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(refusal(Node::start(config(&file, true)).await).contains("cannot create"));
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_registration_refuses_strangers_and_open_takes_them() {
    for (registration, expected) in [(Registration::Closed, Some(Code::Forbidden)), (Registration::Open, None)] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path(), true);
        config.auth.registration = registration;
        let node = Node::start(config).await.unwrap();
        let (connection, _pushes) =
            Connection::connect(&node.client_addr().to_string(), Options::default()).await.unwrap();
        let answer =
            connection.register("stranger", "a long password", ClientMsgId(uuid::Uuid::now_v7().as_u128())).await;
        assert_eq!(answer.as_ref().err().and_then(Error::code), expected, "{answer:?}");
        node.drain().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_the_client_port_speaks_tls_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut config = config(dir.path(), true);
    (config.tls.cert, config.tls.key) = (cert.clone(), key);
    let node = Node::start(config).await.unwrap();
    let addr = node.client_addr().to_string();

    let tls = Options { tls: Some(Tls::with_roots_in(&cert).unwrap()), ..Options::default() };
    let (connection, _pushes) = Connection::connect(&addr, tls).await.unwrap();
    assert_eq!(connection.login("alice", "alice-demo").await.unwrap().user.name, "alice");

    let (plain, _pushes) = Connection::connect(&addr, Options::default()).await.unwrap();
    assert_eq!(plain.login("alice", "alice-demo").await.unwrap_err(), Error::SpeaksTls);
    node.drain().await;
}
