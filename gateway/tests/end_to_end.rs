//! The main job over real sockets: register, sign in, attach, send, receive, restart.

#![allow(clippy::unwrap_used)]

mod raw;

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use fanout::Code;
use gateway::node::Node;
use gateway::wire::operation::Operation;
use gateway::wire::proto;
use logstore::id::ConversationId;
use prost::Message;
use raw::{Raw, Told, hello, new_id, open, register, start, start_with, text_message, texts};
use sequencer::Shard;

#[tokio::test(flavor = "multi_thread")]
async fn two_people_talk_and_everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let (ada, ben) = (register(&node, "ada").await, register(&node, "ben").await);
    let login = proto::Login { name: "ada".into(), password: "ada-password".into() };
    let again: proto::Tokens = Raw::connect(&node).await.ask(Operation::Login, &login).await.unwrap();
    assert_eq!(again.user, ada.user);

    let (mut to_ada, _) = Raw::attached(&node, &ada.access_token, None).await;
    let (mut to_ben, told) = Raw::attached(&node, &ben.access_token, None).await;
    let chat = open(&mut to_ada, "ben").await;
    let sent = to_ada.send_texts(&chat, &["hello", "how are you?"]).await;
    assert_eq!((sent.seq_ids.clone(), sent.refusals.len()), (vec![1, 2], 0));

    let mut ben_told = told;
    while ben_told.texts(&chat).len() < 2 {
        ben_told.take(to_ben.push().await);
    }
    assert_eq!(ben_told.texts(&chat), ["hello", "how are you?"]);
    let record = ben_told.records.last().unwrap();
    assert_eq!((record.sender, record.server_msg_id), (ada.user, sent.server_msg_ids[1]));
    assert_eq!(to_ben.send_texts(&chat, &["fine"]).await.seq_ids, [3]);
    let reply = to_ada.deliver().await;
    assert_eq!((texts(&reply.records), reply.records[0].seq_id), (vec!["fine".to_string()], 3));

    node.drain().await;
    let node = start(dir.path()).await;
    let (mut to_ben, told) = Raw::attached(&node, &ben.access_token, ben_told.cursor()).await;
    assert!(!told.reset);
    assert_eq!(told.texts(&chat), ["fine"], "what he wrote himself was told to his other devices only");
    assert_eq!(texts(&to_ben.history(&chat).await), ["hello", "how are you?", "fine"]);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_gets_the_original_seq_id_on_another_connection_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let (ada, _) = (register(&node, "ada").await, register(&node, "ben").await);
    let mut raw = Raw::signed_in(&node, &ada.access_token).await;
    let chat = open(&mut raw, "ben").await;
    let message = text_message(&chat, "once");
    let send = proto::Send { messages: vec![message.clone()], ..Default::default() };
    let first: proto::SendReply = raw.ask(Operation::Send, &send).await.unwrap();
    raw.send_texts(&chat, &["another"]).await;

    let mut other = Raw::signed_in(&node, &ada.access_token).await;
    let second: proto::SendReply = other.ask(Operation::Send, &send).await.unwrap();
    assert_eq!(second.duplicates, [0]);
    node.drain().await;
    let node = start(dir.path()).await;
    let mut raw = Raw::signed_in(&node, &ada.access_token).await;
    let third: proto::SendReply = raw.ask(Operation::Send, &send).await.unwrap();
    for retry in [&second, &third] {
        assert_eq!((&retry.seq_ids, &retry.server_msg_ids), (&first.seq_ids, &first.server_msg_ids));
    }
    let changed = proto::Outgoing { content: Bytes::from_static(b"twice"), ..message };
    let send = proto::Send { messages: vec![changed], ..Default::default() };
    let refused: proto::SendReply = raw.ask(Operation::Send, &send).await.unwrap();
    assert_eq!(code(refused.refusals[0].error.as_ref().unwrap()), Code::IdempotencyConflict);
    assert_eq!(texts(&raw.history(&chat).await), ["once", "another"]);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_batches_keep_their_order_and_a_lasting_refusal_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let (ada, ben) = (register(&node, "ada").await, register(&node, "ben").await);
    let (mut reader, mut told) = Raw::attached(&node, &ben.access_token, None).await;
    let mut raw = Raw::signed_in(&node, &ada.access_token).await;
    let chat = open(&mut raw, "ben").await;
    let mut ids = Vec::new();
    for batch in 0..20 {
        let mut messages: Vec<_> = (0..10).map(|i| text_message(&chat, &format!("{batch}-{i}"))).collect();
        messages[3].content = Bytes::from_static(b"\xff not utf-8");
        ids.push(raw.send(Operation::Send, &proto::Send { messages, ..Default::default() }).await);
    }
    let mut answers = std::collections::HashMap::new();
    while answers.len() < ids.len() {
        let frame = raw.frame().await.unwrap();
        answers.insert(frame.header.request_id, proto::SendReply::decode(frame.body).unwrap());
    }
    let mut seqs = Vec::new();
    for id in ids {
        let reply = &answers[&id];
        assert_eq!(reply.refusals.len(), 1);
        assert_eq!(reply.refusals[0].position, 3);
        assert_eq!(code(reply.refusals[0].error.as_ref().unwrap()), Code::NotUtf8);
        seqs.extend(reply.seq_ids.iter().copied().filter(|seq| *seq != 0));
    }
    assert_eq!(seqs, (1..=180).collect::<Vec<u64>>());
    while told.texts(&chat).len() < 180 {
        told.take(reader.push().await);
    }
    let seen: Vec<_> =
        told.records.iter().filter(|r| r.conversation == chat && r.kind == 1).map(|r| r.seq_id).collect();
    assert_eq!(seen, (1..=180).collect::<Vec<u64>>());
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_device_gets_each_message_once_and_a_cursor_brings_what_was_missed() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let (ada, ben) = (register(&node, "ada").await, register(&node, "ben").await);
    let (mut phone, mut on_phone) = Raw::attached(&node, &ben.access_token, None).await;
    let (mut laptop, mut on_laptop) = Raw::attached(&node, &ben.access_token, None).await;
    let (mut ada_two, mut on_ada_two) = Raw::attached(&node, &ada.access_token, None).await;
    let mut raw = Raw::signed_in(&node, &ada.access_token).await;
    let chat = open(&mut raw, "ben").await;
    let expected: Vec<String> = (0..50).map(|i| i.to_string()).collect();
    for text in &expected[..25] {
        raw.send_texts(&chat, &[text]).await;
    }
    for (device, told) in [(&mut phone, &mut on_phone), (&mut laptop, &mut on_laptop), (&mut ada_two, &mut on_ada_two)]
    {
        while told.texts(&chat).len() < 25 {
            told.take(device.push().await);
        }
        assert_eq!(told.texts(&chat), expected[..25]);
    }
    drop(phone);
    for text in &expected[25..] {
        raw.send_texts(&chat, &[text]).await;
    }
    let (_phone, missed) = Raw::attached(&node, &ben.access_token, on_phone.cursor()).await;
    assert_eq!(missed.texts(&chat), expected[25..]);
    assert_eq!(missed.rows.iter().map(|row| row.head_seq).max(), Some(50));
    let (_new, all) = Raw::attached(&node, &ben.access_token, None).await;
    assert_eq!(all.texts(&chat), expected);
    node.drain().await;
}

/// Keeps a shard from applying anything, until what this gives is dropped.
fn halt(shard: &Arc<Shard>) -> mpsc::Sender<()> {
    let (halted, is_halted) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let shard = Arc::clone(shard);
    std::thread::spawn(move || {
        shard.read(|_, _| {
            halted.send(()).unwrap();
            let _ = released.recv();
        });
    });
    is_halted.recv().unwrap();
    release
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn accepted_comes_before_anything_is_durable_and_only_to_who_asked() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let (ada, _) = (register(&node, "ada").await, register(&node, "ben").await);
    let mut raw = Raw::signed_in(&node, &ada.access_token).await;
    let chat = open(&mut raw, "ben").await;
    let halted = halt(node.sequencer().shard_of(ConversationId::from_bytes(chat[..].try_into().unwrap())));
    let messages =
        vec![text_message(&chat, "one"), text_message(&chat, &"x".repeat(20_000)), text_message(&chat, "two")];
    let id = raw.send(Operation::Send, &proto::Send { messages, want_accepted: true, epoch: 0 }).await;
    let push = raw.push().await;
    assert_eq!(push.header.operation, Operation::Accepted.number());
    assert_eq!(proto::Accepted::decode(push.body).unwrap(), proto::Accepted { request_id: id, messages: 2 });
    drop(halted);
    let reply: proto::SendReply = raw.answer(id).await.unwrap();
    assert_eq!(reply.seq_ids, [1, 0, 2]);
    assert_eq!(raw.send_texts(&chat, &["three"]).await.seq_ids, [3]);
    assert!(raw.pushed().is_empty(), "nobody asked");
    node.drain().await;
}

/// Two groups of one shard and one of another, made by somebody with one more member.
async fn three_groups(node: &Node, raw: &mut Raw, member: u64) -> [Bytes; 3] {
    let shard_of = |group: &Bytes| node.sequencer().shard_of(ConversationId::from_bytes(group[..].try_into().unwrap()));
    let mut groups: Vec<Bytes> = Vec::new();
    loop {
        let create = proto::CreateGroup { name: "walks".into(), members: vec![member], request_id: new_id() };
        groups.push(raw.ask::<proto::GroupReply>(Operation::CreateGroup, &create).await.unwrap().conversation);
        let beside = |a: &Bytes| groups.iter().find(|b| a != *b && Arc::ptr_eq(shard_of(a), shard_of(b)));
        let apart = |a: &Bytes| groups.iter().find(|b| !Arc::ptr_eq(shard_of(a), shard_of(b)));
        let found = groups.iter().find_map(|a| Some([a.clone(), beside(a)?.clone(), apart(a)?.clone()]));
        if let Some(found) = found {
            return found;
        }
    }
}

/// A device whose message to `mine` is stored, and to which a later one of `theirs` was told, before it has its ack.
struct Unanswered {
    node: Node,
    token: String,
    device: Raw,
    told: Told,
    mine: Bytes,
    theirs: Bytes,
    send: u32,
    /// Dropped: the ack comes.
    halted: mpsc::Sender<()>,
}

impl Unanswered {
    async fn new(data_dir: &Path) -> Unanswered {
        let node = start(data_dir).await;
        let (ada, ben) = (register(&node, "ada").await, register(&node, "ben").await);
        let mut raw = Raw::signed_in(&node, &ben.access_token).await;
        let [mine, theirs, elsewhere] = three_groups(&node, &mut raw, ada.user).await;
        let (mut device, mut told) = Raw::attached(&node, &ada.access_token, None).await;
        // One send, answered when both of its messages are durable: the one elsewhere is not for now.
        let shard = node.sequencer().shard_of(ConversationId::from_bytes(elsewhere[..].try_into().unwrap()));
        let halted = halt(shard);
        let messages = vec![text_message(&mine, "before I died"), text_message(&elsewhere, "slow")];
        let send = device.send(Operation::Send, &proto::Send { messages, ..Default::default() }).await;
        while texts(&raw.history(&mine).await).is_empty() {}
        raw.send_texts(&theirs, &["later"]).await;
        while told.texts(&theirs).is_empty() {
            told.take(device.push().await);
        }
        assert!(told.texts(&mine).is_empty(), "its own messages are not pushed to it");
        Unanswered { node, token: ada.access_token, device, told, mine, theirs, send, halted }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_client_that_dies_before_its_ack_is_shown_its_own_message_when_it_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let Unanswered { node, token, device, told, mine, halted, .. } = Unanswered::new(dir.path()).await;
    drop((device, halted));
    let (_device, back) = Raw::attached(&node, &token, told.cursor()).await;
    assert_eq!(back.texts(&mine), ["before I died"]);
    let (_device, again) = Raw::attached(&node, &token, back.cursor()).await;
    assert!(again.texts(&mine).is_empty(), "once is enough");
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn an_ack_lets_the_cursor_pass_also_when_nothing_follows() {
    let dir = tempfile::tempdir().unwrap();
    let Unanswered { node, token, mut device, mut told, mine, theirs, send, halted } =
        Unanswered::new(dir.path()).await;
    drop(halted);
    assert_eq!(device.answer::<proto::SendReply>(send).await.unwrap().refusals, []);
    device.ask::<proto::Pong>(Operation::Ping, &proto::Ping::default()).await.unwrap();
    device.pushed().into_iter().for_each(|push| told.take(push));
    drop(device);
    let (_device, back) = Raw::attached(&node, &token, told.cursor()).await;
    assert_eq!((back.texts(&mine), back.texts(&theirs)), (vec![], vec![]));
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attaching_in_the_middle_of_a_stream_loses_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let (ada, ben) = (register(&node, "ada").await, register(&node, "ben").await);
    let mut raw = Raw::signed_in(&node, &ada.access_token).await;
    let chat = open(&mut raw, "ben").await;
    let writer = tokio::spawn({
        let chat = chat.clone();
        async move {
            for batch in 0..60u64 {
                let texts: Vec<String> = (0..5).map(|i| format!("{}", batch * 5 + i)).collect();
                raw.send_texts(&chat, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
            }
        }
    });
    // Devices come and go meanwhile; what each was told continues where it stopped.
    let mut told = Told::default();
    let mut seen: Vec<u64> = Vec::new();
    while seen.len() < 300 {
        let (mut device, now) = Raw::attached(&node, &ben.access_token, told.cursor()).await;
        let mut now = now;
        for _ in 0..3 {
            if seen.len() + now.records.len() < 300 {
                now.take(device.push().await);
            }
        }
        seen.extend(now.records.iter().filter(|r| r.conversation == chat && r.kind == 1).map(|r| r.seq_id));
        now.steps.iter().for_each(|step| {
            told.steps.retain(|s| s.slot != step.slot);
            told.steps.push(*step);
        });
        told.history = now.history;
    }
    writer.await.unwrap();
    assert_eq!(seen, (1..=300).collect::<Vec<u64>>());
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_brings_its_members_records_from_joining_to_leaving() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let (ada, ben, eve) = (register(&node, "ada").await, register(&node, "ben").await, register(&node, "eve").await);
    let (mut to_ben, mut ben_told) = Raw::attached(&node, &ben.access_token, None).await;
    let (mut to_eve, mut eve_told) = Raw::attached(&node, &eve.access_token, None).await;
    let mut raw = Raw::signed_in(&node, &ada.access_token).await;
    let create = proto::CreateGroup { name: "walks".into(), members: vec![ben.user], request_id: new_id() };
    let group: proto::GroupReply = raw.ask(Operation::CreateGroup, &create).await.unwrap();
    let group = group.conversation;
    raw.send_texts(&group, &["before eve"]).await;
    let change = |users: Vec<u64>| proto::ChangeMembers { conversation: group.clone(), users, request_id: new_id() };
    let _: proto::GroupReply = raw.ask(Operation::AddMembers, &change(vec![eve.user])).await.unwrap();
    raw.send_texts(&group, &["with eve"]).await;
    let _: proto::GroupReply = raw.ask(Operation::RemoveMembers, &change(vec![eve.user])).await.unwrap();
    raw.send_texts(&group, &["after eve"]).await;

    while ben_told.texts(&group).len() < 3 {
        ben_told.take(to_ben.push().await);
    }
    let seqs: Vec<_> = ben_told.records.iter().filter(|r| r.conversation == group).map(|r| r.seq_id).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6]);
    // The record of her removal is the last thing she receives.
    while eve_told.records.iter().all(|r| r.membership.as_ref().is_none_or(|m| m.left.is_empty())) {
        eve_told.take(to_eve.push().await);
    }
    let seqs: Vec<_> = eve_told.records.iter().filter(|r| r.conversation == group).map(|r| r.seq_id).collect();
    assert_eq!(seqs, [3, 4, 5]);
    assert_eq!(to_eve.history(&group).await.iter().map(|r| r.seq_id).collect::<Vec<_>>(), [3, 4, 5]);
    let send = proto::Send { messages: vec![text_message(&group, "let me in")], ..Default::default() };
    let refused: proto::SendReply = to_eve.ask(Operation::Send, &send).await.unwrap();
    assert_eq!(code(refused.refusals[0].error.as_ref().unwrap()), Code::NotMember);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_lags_catches_up_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let node = start_with(dir.path(), |config| config.limits.outbound_bytes = 64 << 10).await;
    let (ada, ben) = (register(&node, "ada").await, register(&node, "ben").await);
    let slow = Raw::connect_with_small_buffer(&node).await;
    let (mut slow, mut told) = slow.attach(&ben.access_token, None).await;
    let mut raw = Raw::signed_in(&node, &ada.access_token).await;
    let chat = open(&mut raw, "ben").await;
    let text = "x".repeat(12_000);
    // Far more than the sockets' buffers and the queue hold; nobody reads meanwhile.
    for _ in 0..800 {
        raw.send_texts(&chat, &[&text]).await;
    }
    // The newest records come by themselves; what lies between is the client's to read.
    let mut newest = 0;
    while newest < 800 {
        told.take(slow.push().await);
        newest = told.records.iter().filter(|r| r.conversation == chat).map(|r| r.seq_id).max().unwrap_or(0);
    }
    let seqs: Vec<_> = told.records.iter().filter(|r| r.conversation == chat).map(|r| r.seq_id).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "each once and in order");
    assert!(told.rows.iter().any(|row| row.conversation == chat), "it was told by an attach, so it had lagged");
    raw.send_texts(&chat, &["live again"]).await;
    while told.texts(&chat).last().is_none_or(|text| text != "live again") {
        told.take(slow.push().await);
    }
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_history_is_reset_and_everything_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let (ada, ben) = (register(&node, "ada").await, register(&node, "ben").await);
    let mut raw = Raw::signed_in(&node, &ada.access_token).await;
    let chat = open(&mut raw, "ben").await;
    raw.send_texts(&chat, &["one"]).await;
    let steps = (0..9).map(|slot| proto::CursorStep { slot, value: 1 << 40 }).collect();
    let foreign = proto::Cursor { history: Bytes::from_static(&[7; 16]), steps };
    let (_raw, told) = Raw::attached(&node, &ben.access_token, Some(foreign)).await;
    assert!(told.reset);
    assert_eq!(told.texts(&chat), ["one"]);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_says_so_and_answers_what_is_in_flight() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let ada = register(&node, "ada").await;
    let mut raw = Raw::signed_in(&node, &ada.access_token).await;
    let drained = tokio::spawn(node.drain());
    let push = raw.push().await;
    assert_eq!(push.header.operation, Operation::Drain.number());
    assert!(raw.frame().await.is_none(), "then it closes");
    tokio::time::timeout(Duration::from_secs(20), drained).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_reach_the_other_side() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let (ada, ben) = (register(&node, "ada").await, register(&node, "ben").await);
    let (mut to_ada, _) = Raw::attached(&node, &ada.access_token, None).await;
    let mut raw = Raw::signed_in(&node, &ben.access_token).await;
    let chat = open(&mut to_ada, "ben").await;
    to_ada.send_texts(&chat, &["read me"]).await;
    let ahead = proto::Cursors { moves: vec![proto::CursorMove { conversation: chat.clone(), seq_id: 9 }] };
    let refused: proto::CursorsReply = raw.ask(Operation::Read, &ahead).await.unwrap();
    assert_eq!(code(refused.refusals[0].error.as_ref().unwrap()), Code::CursorAhead);
    let moves = proto::Cursors { moves: vec![proto::CursorMove { conversation: chat.clone(), seq_id: 1 }] };
    let told = |receipt: &proto::Receipt| (receipt.delivered_seq, receipt.read_seq);
    for (operation, expected) in [(Operation::Delivered, (1, 0)), (Operation::Read, (1, 1))] {
        let taken: proto::CursorsReply = raw.ask(operation, &moves).await.unwrap();
        assert!(taken.refusals.is_empty());
        while told(&receipt_of(&mut to_ada, ben.user).await) != expected {}
    }
    node.drain().await;
}

/// The next receipt of somebody.
async fn receipt_of(raw: &mut Raw, user: u64) -> proto::Receipt {
    loop {
        let push = raw.push().await;
        if push.header.operation == Operation::Receipts.number() {
            let receipts = proto::Receipts::decode(push.body).unwrap().receipts;
            if let Some(receipt) = receipts.into_iter().find(|receipt| receipt.user == user) {
                return receipt;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_the_same_frames_travel_in_tls_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let node = start_with(&dir.path().join("data"), |config| {
        (config.tls.cert, config.tls.key) = (cert, key);
        config.limits.handshake_seconds = 2;
    })
    .await;
    let mut raw = Raw::connect_tls(&node, made.cert.der().clone()).await;
    let login = proto::Login { name: "alice".into(), password: "alice-demo".into() };
    let tokens: proto::Tokens = raw.ask(Operation::Login, &login).await.unwrap();
    let (mut raw, _) = raw.attach(&tokens.access_token, None).await;
    let chat = open(&mut raw, "bob").await;
    // Larger than one TLS record, both ways.
    let text = "y".repeat(16_000);
    assert_eq!(raw.send_texts(&chat, &[&text, &text, &text]).await.seq_ids, [1, 2, 3]);
    assert_eq!(texts(&raw.history(&chat).await), [text.clone(), text.clone(), text]);
    let mut plain = Raw::connect(&node).await;
    plain.send(Operation::Ping, &proto::Ping::default()).await;
    while let Some(frame) = plain.raw_bytes().await {
        assert!(frame.len() < 20, "at most an alert");
    }
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_comes_once_and_first() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let ada = register(&node, "ada").await;
    let mut raw = Raw::connect(&node).await;
    let list = proto::ListConversations::default();
    let early = raw.ask::<proto::ConversationList>(Operation::ListConversations, &list).await.unwrap_err();
    assert_eq!(code(&early), Code::Unauthenticated);
    let reply = raw.hello(proto::Hello { capabilities: vec!["telepathy".into()], ..hello(&ada.access_token) }).await;
    assert_eq!((reply.version, reply.user, reply.name.as_str(), reply.slots), (1, ada.user, "ada", 4));
    assert!(reply.capabilities.is_empty());
    let second = raw.ask::<proto::HelloReply>(Operation::Hello, &hello(&ada.access_token)).await.unwrap_err();
    assert_eq!(code(&second), Code::BadState);
    node.drain().await;
}

fn code(error: &proto::Error) -> Code {
    Code::from_number(error.code).unwrap()
}
