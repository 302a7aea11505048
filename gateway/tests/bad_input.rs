//! What comes in wrong is answered with its own error, or closes with a reason; everybody else is served on.

#![allow(clippy::unwrap_used)]

mod raw;

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use fanout::Code;
use gateway::node::Node;
use gateway::wire::operation::Operation;
use gateway::wire::{frame, proto};
use raw::{Raw, hello, new_id, open, register, start, start_with, text_message};
use tokio::io::AsyncWriteExt;

fn code(error: &proto::Error) -> Code {
    Code::from_number(error.code).unwrap()
}

async fn ask(raw: &mut Raw, operation: Operation, body: &impl prost::Message) -> Code {
    code(&raw.ask::<proto::Ping>(operation, body).await.expect_err("a refusal"))
}

async fn refusal_of(raw: &mut Raw, message: proto::Outgoing) -> Code {
    let send = proto::Send { messages: vec![message], ..Default::default() };
    let reply: proto::SendReply = raw.ask(Operation::Send, &send).await.unwrap();
    assert_eq!(reply.seq_ids, [0]);
    code(reply.refusals[0].error.as_ref().unwrap())
}

async fn still_serves(node: &Node) {
    let pong: proto::Pong = Raw::connect(node).await.ask(Operation::Ping, &proto::Ping { echo: 5 }).await.unwrap();
    assert_eq!(pong.echo, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_framing_closes_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let too_long = [0x01, 0x00, 0x01, 0x00, 1, 0, 2, 0, 0, 0, 0, 0];
    let too_short = [3, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 0];
    let other_version = [8, 0, 0, 0, 9, 0, 2, 0, 0, 0, 0, 0];
    let http = *b"GET / HTTP/1.1\r\nHost: skein\r\n\r\n";
    for bytes in [&too_long[..], &too_short[..], &other_version[..], &http[..]] {
        let mut raw = Raw::connect(&node).await;
        raw.write(bytes).await;
        assert_eq!(code(&raw.closing().await.expect("a reason")), Code::BadFrame);
    }
    still_serves(&node).await;
    // Garbage that goes on and on is not waited for, and does not keep the reason from being read.
    let mut raw = Raw::connect(&node).await;
    raw.write(&vec![0xee; 300_000]).await;
    assert_eq!(code(&raw.closing().await.expect("a reason")), Code::BadFrame);
    // A frame that is cut off by a close is nothing.
    let mut raw = Raw::connect(&node).await;
    raw.write(&[200, 0, 0, 0, 1, 0, 20, 0]).await;
    drop(raw);
    still_serves(&node).await;
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_wrongly_gets_its_own_error() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let (ada, _) = (register(&node, "ada").await, register(&node, "ben").await);
    let mut raw = Raw::signed_in(&node, &ada.access_token).await;
    let chat = open(&mut raw, "ben").await;

    let mut out = BytesMut::new();
    frame::encode_with(&mut out, 0, 777, 1000, |_| {});
    raw.write(&out).await;
    let unknown: Result<proto::Ping, _> = raw.answer(1000).await;
    assert_eq!(code(&unknown.unwrap_err()), Code::UnknownOperation);
    for (number, operation) in [(1001, Operation::Send), (1002, Operation::History), (1003, Operation::Read)] {
        let mut out = BytesMut::new();
        frame::encode_with(&mut out, 0, operation.number(), number, |out| out.put_slice(b"\x0a\xff\xff\xff\xff\x0fno"));
        raw.write(&out).await;
        let refused: Result<proto::Ping, _> = raw.answer(number).await;
        assert_eq!(code(&refused.unwrap_err()), Code::BadBody, "{}", operation.name());
    }
    assert_eq!(ask(&mut raw, Operation::Deliver, &proto::Ping::default()).await, Code::UnknownOperation);
    assert_eq!(ask(&mut raw, Operation::ListShards, &proto::ListShards::default()).await, Code::Forbidden);

    let messages = vec![text_message(&chat, "x"); 257];
    assert_eq!(ask(&mut raw, Operation::Send, &proto::Send { messages, ..Default::default() }).await, Code::TooMany);
    let moves = vec![proto::CursorMove { conversation: chat.clone(), seq_id: 0 }; 1001];
    assert_eq!(ask(&mut raw, Operation::Delivered, &proto::Cursors { moves }).await, Code::TooMany);
    let history =
        |from_seq, to_seq| proto::History { conversation: chat.clone(), from_seq, to_seq, ..Default::default() };
    assert_eq!(ask(&mut raw, Operation::History, &history(9, 3)).await, Code::BadRange);
    assert_eq!(ask(&mut raw, Operation::History, &history(1, u64::MAX)).await, Code::BadRange);
    let elsewhere = proto::History { conversation: Bytes::from_static(&[0x80; 16]), ..Default::default() };
    assert_eq!(ask(&mut raw, Operation::History, &elsewhere).await, Code::NoSuchConversation);
    let nobody = proto::OpenDirect { name: "nobody".into(), ..Default::default() };
    assert_eq!(ask(&mut raw, Operation::OpenDirect, &nobody).await, Code::NoSuchUser);

    let long = text_message(&chat, &"x".repeat(16_385));
    assert_eq!(refusal_of(&mut raw, long).await, Code::TooLong);
    let latin = proto::Outgoing { content: Bytes::from_static(b"caf\xe9"), ..text_message(&chat, "") };
    assert_eq!(refusal_of(&mut raw, latin).await, Code::NotUtf8);
    let strange = proto::Outgoing { kind: 128, ..text_message(&chat, "") };
    assert_eq!(refusal_of(&mut raw, strange).await, Code::BadField);
    assert!(raw.history(&chat).await.is_empty(), "no seq_id was taken");
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_send_that_is_refused_takes_a_place() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let (ada, ben) = (register(&node, "ada").await, register(&node, "ben").await);
    let mut raw = Raw::signed_in(&node, &ada.access_token).await;
    let chat = open(&mut raw, "ben").await;
    let mut bens = Raw::signed_in(&node, &ben.access_token).await;
    let create = proto::CreateGroup { name: "not hers".into(), members: vec![], request_id: new_id() };
    let foreign = bens.ask::<proto::GroupReply>(Operation::CreateGroup, &create).await.unwrap().conversation;
    let good = |text: &str| text_message(&chat, text);
    let first = good("first");
    let ahead = uuid::Timestamp::from_unix(uuid::NoContext, u64::from(u32::MAX), 0);
    let id = |id: uuid::Uuid| gateway::wire::convert::id_bytes(id.as_u128());

    // Alone, between good ones, each with its own error; then what surrounds a message is wrong.
    let wrong = [
        (proto::Outgoing { content: vec![b'x'; 16_385].into(), ..good("") }, Code::TooLong),
        (proto::Outgoing { content: Bytes::from_static(b"caf\xe9"), ..good("") }, Code::NotUtf8),
        (proto::Outgoing { kind: 3, ..good("membership is not sent") }, Code::BadField),
        (proto::Outgoing { client_msg_id: id(uuid::Uuid::nil()), ..good("no id") }, Code::BadField),
        (proto::Outgoing { conversation: foreign.clone(), ..good("not a member") }, Code::NotMember),
        (proto::Outgoing { conversation: Bytes::from_static(&[0; 16]), ..good("nowhere") }, Code::NoSuchConversation),
        (proto::Outgoing { content: Bytes::from_static(b"other"), ..first.clone() }, Code::IdempotencyConflict),
    ];
    let mut expected = 1;
    for message in std::iter::once(first).chain(wrong.iter().map(|(message, _)| message.clone())) {
        let send = proto::Send { messages: vec![message, good("good")], ..Default::default() };
        let reply: proto::SendReply = raw.ask(Operation::Send, &send).await.unwrap();
        let code_of = reply.refusals.first().map(|refusal| code(refusal.error.as_ref().unwrap()));
        let wanted = wrong.iter().find(|(message, _)| *message == send.messages[0]).map(|(_, code)| *code);
        assert_eq!((code_of, reply.refusals.len()), (wanted, usize::from(wanted.is_some())));
        let places = if wanted.is_some() { vec![0, expected] } else { vec![expected, expected + 1] };
        assert_eq!(reply.seq_ids, places, "{wanted:?}");
        expected += if wanted.is_some() { 1 } else { 2 };
    }
    let short = proto::Outgoing { conversation: Bytes::from_static(&[1; 15]), ..good("") };
    let many = vec![good("x"); 257];
    for (messages, code) in [(vec![], Code::BadField), (many, Code::TooMany), (vec![good("x"), short], Code::BadField)]
    {
        assert_eq!(ask(&mut raw, Operation::Send, &proto::Send { messages, ..Default::default() }).await, code);
    }

    // An id of the future ends the epoch: what follows it waits for a new one, and an older one is over.
    let future = proto::Outgoing { client_msg_id: id(uuid::Uuid::new_v7(ahead)), ..good("from the future") };
    let send = |epoch, messages| proto::Send { epoch, messages, want_accepted: false };
    let reply: proto::SendReply = raw.ask(Operation::Send, &send(1, vec![future, good("held up")])).await.unwrap();
    let codes: Vec<_> = reply.refusals.iter().map(|refusal| code(refusal.error.as_ref().unwrap())).collect();
    assert_eq!((reply.seq_ids, codes), (vec![0, 0], vec![Code::ClockSkew, Code::PredecessorFailed]));
    let reply: proto::SendReply = raw.ask(Operation::Send, &send(2, vec![good("again")])).await.unwrap();
    assert_eq!(reply.seq_ids, [expected]);
    assert_eq!(ask(&mut raw, Operation::Send, &send(1, vec![good("late")])).await, Code::PredecessorFailed);

    let seqs = |records: &[proto::Record]| records.iter().map(|record| record.seq_id).collect::<Vec<_>>();
    assert_eq!(seqs(&raw.history(&chat).await), (1..=expected).collect::<Vec<_>>());
    assert_eq!(bens.history(&foreign).await.len(), 1, "and none elsewhere");
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_newer_than_this_node_is_skipped_and_spoken_to_in_its_own_version() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let (ada, _) = (register(&node, "ada").await, register(&node, "ben").await);
    let mut raw = Raw::connect(&node).await;
    let later = proto::Hello { version: 7, capabilities: vec!["telepathy".into()], ..hello(&ada.access_token) };
    let reply: proto::HelloReply = raw.ask_with_more(Operation::Hello, &later).await.unwrap();
    assert_eq!((reply.version, reply.capabilities), (1, vec![]));
    let open = proto::OpenDirect { name: "ben".into(), ..Default::default() };
    let chat = raw.ask_with_more::<proto::Conversation>(Operation::OpenDirect, &open).await.unwrap().conversation;
    let send = proto::Send { messages: vec![text_message(&chat, "hello")], ..Default::default() };
    let reply: proto::SendReply = raw.ask_with_more(Operation::Send, &send).await.unwrap();
    assert_eq!((reply.seq_ids, reply.refusals), (vec![1], vec![]));
    let history = proto::History { conversation: chat.clone(), ..Default::default() };
    let page: proto::HistoryReply = raw.ask_with_more(Operation::History, &history).await.unwrap();
    assert_eq!(raw::texts(&page.records), ["hello"]);
    let read = proto::Cursors { moves: vec![proto::CursorMove { conversation: chat, seq_id: 1 }] };
    assert_eq!(raw.ask_with_more::<proto::CursorsReply>(Operation::Read, &read).await.unwrap().refusals, []);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_is_good_once_and_for_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let ada = register(&node, "ada").await;
    let mut raw = Raw::connect(&node).await;
    let refresh = |token: &str| proto::Refresh { refresh_token: token.into() };
    let second: proto::Tokens = raw.ask(Operation::Refresh, &refresh(&ada.refresh_token)).await.unwrap();
    assert_eq!((second.user, second.refresh_token == ada.refresh_token), (ada.user, false));
    assert_eq!(ask(&mut raw, Operation::Refresh, &refresh(&ada.refresh_token)).await, Code::SessionOver);
    assert_eq!(ask(&mut raw, Operation::Refresh, &refresh(&second.refresh_token)).await, Code::SessionOver);
    for token in ["", "x.y.z", &ada.access_token] {
        assert_eq!(ask(&mut raw, Operation::Refresh, &refresh(token)).await, Code::Unauthenticated, "{token}");
    }
    assert_eq!(raw.hello(hello(&second.access_token)).await.user, ada.user, "what was given out lasts until it ends");
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_wrongly_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let ada = register(&node, "ada").await;
    let mut raw = Raw::connect(&node).await;
    let register = |name: &str, password: &str| proto::Register {
        name: name.into(),
        password: password.into(),
        request_id: new_id(),
    };
    assert_eq!(ask(&mut raw, Operation::Register, &register("ada", "another-one")).await, Code::NameTaken);
    assert_eq!(ask(&mut raw, Operation::Register, &register("", "long-enough")).await, Code::BadName);
    assert_eq!(ask(&mut raw, Operation::Register, &register(&"n".repeat(65), "long-enough")).await, Code::BadName);
    assert_eq!(ask(&mut raw, Operation::Register, &register("zoe", "short")).await, Code::BadPassword);
    let login = |name: &str| proto::Login { name: name.into(), password: "wrong-password".into() };
    assert_eq!(ask(&mut raw, Operation::Login, &login("ada")).await, Code::BadCredentials);
    assert_eq!(ask(&mut raw, Operation::Login, &login("nobody")).await, Code::BadCredentials);
    let mut forged = ada.access_token.clone();
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    for token in ["", "x.y.z", &forged, &ada.refresh_token] {
        assert_eq!(ask(&mut raw, Operation::Hello, &hello(token)).await, Code::Unauthenticated, "{token}");
    }
    let old = proto::Hello { version: 0, ..hello(&ada.access_token) };
    assert_eq!(ask(&mut raw, Operation::Hello, &old).await, Code::BadVersion);
    raw.hello(hello(&ada.access_token)).await;
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_closes_and_one_that_pings_stays() {
    let dir = tempfile::tempdir().unwrap();
    let node = start_with(dir.path(), |config| {
        config.limits.handshake_seconds = 1;
        config.limits.idle_seconds = 2;
    })
    .await;
    let mut silent = Raw::connect(&node).await;
    let mut lively = Raw::connect(&node).await;
    let mut dribbling = Raw::connect(&node).await;
    // Bytes that never become a frame are silence.
    let dribble = async {
        while dribbling.stream.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let ping = async {
        for _ in 0..10 {
            let _: proto::Pong = lively.ask(Operation::Ping, &proto::Ping::default()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    };
    let (reason, (), dribbled) =
        tokio::join!(silent.closing(), ping, tokio::time::timeout(Duration::from_secs(10), dribble));
    assert_eq!(code(&reason.unwrap()), Code::Timeout);
    dribbled.expect("cut off in the end");
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limits_are_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let node = start_with(dir.path(), |config| {
        config.limits.connections = 5;
        config.limits.user_connections = 2;
    })
    .await;
    let ada = register(&node, "ada").await;
    let mut first = Raw::signed_in(&node, &ada.access_token).await;
    let _second = Raw::signed_in(&node, &ada.access_token).await;
    let _third = Raw::signed_in(&node, &ada.access_token).await;
    assert_eq!(code(&first.closing().await.unwrap()), Code::LimitReached);
    let mut others = Vec::new();
    let refused = loop {
        let mut raw = Raw::connect(&node).await;
        let told = tokio::time::timeout(Duration::from_millis(300), raw.closing()).await;
        match told {
            Ok(reason) => break reason.unwrap(),
            Err(_) => others.push(raw),
        }
        assert!(others.len() <= 5);
    };
    assert_eq!(code(&refused), Code::Busy);
    assert!(refused.retry_after_ms > 0);
    node.drain().await;
}
