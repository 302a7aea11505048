//! The client library against a server that does what a test wants: closes at the worst moment, leaves things out,
//! answers late, or says nonsense.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gateway::client::{Backlog, Connection, Error, Event, Options, Outgoing, Progress, Session, SessionOptions, Step};
use gateway::wire::frame::{self, FLAG_ERROR, FLAG_PUSH, FLAG_RESPONSE, Frame};
use gateway::wire::operation::Operation;
use gateway::wire::proto;
use logstore::id::{ConversationId, SeqId, UserId};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// The other side of one connection.
struct Peer {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Peer {
        let (stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        Peer { stream, buffer: BytesMut::new() }
    }

    async fn next(&mut self) -> Frame {
        loop {
            if let Some(frame) = frame::decode(&mut self.buffer, frame::CLIENT_FRAME_BYTES_MAX).unwrap() {
                return frame;
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await.unwrap().unwrap();
            assert_ne!(read, 0, "the client closed");
        }
    }

    /// The next request of this operation; pings are answered on the way.
    async fn expect<T: Message + Default>(&mut self, operation: Operation) -> (u32, T) {
        loop {
            let frame = self.next().await;
            let id = frame.header.request_id;
            if frame.header.operation == operation.number() {
                return (id, T::decode(frame.body).unwrap());
            }
            assert_eq!(frame.header.operation, Operation::Ping.number(), "expected {}", operation.name());
            self.answer(Operation::Ping, id, &proto::Pong::default()).await;
        }
    }

    async fn write(&mut self, flags: u8, operation: u16, id: u32, body: &impl Message) {
        let mut out = BytesMut::new();
        frame::encode(&mut out, flags, operation, id, body);
        self.stream.write_all(&out).await.unwrap();
    }

    async fn answer(&mut self, operation: Operation, id: u32, body: &impl Message) {
        self.write(FLAG_RESPONSE, operation.number(), id, body).await;
    }

    async fn refuse(&mut self, operation: Operation, id: u32, code: u32) {
        let error = proto::Error { code, message: "no".into(), retry_after_ms: 0 };
        self.write(FLAG_RESPONSE | FLAG_ERROR, operation.number(), id, &error).await;
    }

    async fn push(&mut self, operation: Operation, body: &impl Message) {
        self.write(FLAG_PUSH, operation.number(), 0, body).await;
    }

    async fn greet(&mut self, heartbeat_ms: u64) -> proto::Hello {
        let (id, hello) = self.expect::<proto::Hello>(Operation::Hello).await;
        let reply = proto::HelloReply {
            version: 1,
            user: 7,
            name: "alice".into(),
            server_time_ms: 1_800_000_000_000,
            history: Bytes::from_static(b"h"),
            slots: 1,
            heartbeat_ms,
            frame_bytes_max: 65536,
            batch_messages_max: 2,
            ..proto::HelloReply::default()
        };
        self.answer(Operation::Hello, id, &reply).await;
        hello
    }

    async fn caught_up(&mut self, value: u64) {
        let step = Some(proto::CursorStep { slot: 0, value });
        self.push(Operation::CaughtUp, &proto::CaughtUp { step, all: true }).await;
    }

    async fn deliver(&mut self, seqs: &[u64], value: u64) {
        let records = seqs.iter().map(|&seq| record(seq)).collect();
        let step = Some(proto::CursorStep { slot: 0, value });
        self.push(Operation::Deliver, &proto::Deliver { records, step }).await;
    }

    /// The next send: request, epoch, texts.
    async fn send(&mut self) -> (u32, u32, Vec<String>) {
        let (id, send) = self.expect::<proto::Send>(Operation::Send).await;
        let text = |m: &proto::Outgoing| String::from_utf8(m.content.to_vec()).unwrap();
        (id, send.epoch, send.messages.iter().map(text).collect())
    }

    /// Acknowledges a send: a seq_id, or 0 and a code, for each message.
    async fn ack(&mut self, id: u32, outcomes: &[(u64, u32)]) {
        let refusal = |(at, &(_, code)): (usize, &(u64, u32))| {
            let error = Some(proto::Error { code, message: "no".into(), retry_after_ms: 0 });
            (code != 0).then_some(proto::SendRefusal { position: at as u32, error })
        };
        let seq_ids: Vec<u64> = outcomes.iter().map(|&(seq, _)| seq).collect();
        let reply = proto::SendReply {
            server_msg_ids: seq_ids.clone(),
            server_times_ms: seq_ids.clone(),
            seq_ids,
            refusals: outcomes.iter().enumerate().filter_map(refusal).collect(),
            duplicates: Vec::new(),
        };
        self.answer(Operation::Send, id, &reply).await;
    }
}

fn group() -> ConversationId {
    ConversationId::group(1)
}

fn record(seq: u64) -> proto::Record {
    proto::Record {
        conversation: Bytes::copy_from_slice(&group().to_bytes()),
        seq_id: seq,
        ordinal: seq,
        kind: 1,
        sender: 9,
        server_msg_id: seq,
        client_msg_id: Bytes::from(vec![seq as u8; 16]),
        sent_at_ms: 1,
        content: Bytes::from(format!("text {seq}")),
        membership: None,
        removed: false,
        recalled: None,
    }
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    (listener, addr)
}

fn options() -> SessionOptions {
    SessionOptions {
        device: "test".into(),
        backoff_base: Duration::from_millis(5),
        backoff_max: Duration::from_millis(20),
        ..SessionOptions::default()
    }
}

/// A session and the peer that has greeted it.
async fn session(options: SessionOptions, heartbeat_ms: u64) -> (Session, Peer, TcpListener) {
    let (listener, addr) = listener().await;
    let tokens = Arc::new("token".to_owned());
    let starting = tokio::spawn(async move { Session::start(&addr, options, tokens).await.unwrap() });
    let mut peer = Peer::accept(&listener).await;
    peer.greet(heartbeat_ms).await;
    (starting.await.unwrap(), peer, listener)
}

async fn event(session: &mut Session) -> Event {
    timeout(PATIENCE, session.next()).await.unwrap().unwrap()
}

/// Events up to the one that is waited for.
async fn until(session: &mut Session, mut wanted: impl FnMut(&Event) -> bool) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let event = event(session).await;
        let is_last = wanted(&event);
        events.push(event);
        if is_last {
            return events;
        }
    }
}

fn seqs(events: &[Event]) -> Vec<u64> {
    let seq = |event: &Event| match event {
        Event::Record(record) => Some(record.seq_id.0),
        _ => None,
    };
    events.iter().filter_map(seq).collect()
}

fn told(value: u64) -> impl FnMut(&Event) -> bool {
    move |event| *event == Event::Told(Step { slot: 0, value })
}

async fn give(session: &Session, texts: &[&str]) -> Vec<gateway::client::Ticket> {
    let sender = session.sender();
    let messages = texts.iter().map(|text| Outgoing::text(group(), *text, sender.clock())).collect();
    sender.send_all(messages).await.unwrap()
}

#[tokio::test]
async fn what_was_under_way_goes_again_in_order_under_the_same_ids() {
    let (session, mut peer, listener) = session(SessionOptions { attach: false, ..options() }, 0).await;
    let tickets = give(&session, &["a", "b", "c"]).await;
    let (_, first) = peer.expect::<proto::Send>(Operation::Send).await;
    let (_, second) = peer.expect::<proto::Send>(Operation::Send).await;
    assert_eq!((first.messages.len(), second.messages.len()), (2, 1), "cut as the server wants it");
    drop(peer);

    let mut peer = Peer::accept(&listener).await;
    peer.greet(0).await;
    let (id, again) = peer.expect::<proto::Send>(Operation::Send).await;
    assert_eq!(again.messages, first.messages);
    peer.ack(id, &[(4, 0), (5, 0)]).await;
    let (id, again) = peer.expect::<proto::Send>(Operation::Send).await;
    assert_eq!(again.messages, second.messages);
    peer.ack(id, &[(6, 0)]).await;
    let mut places = Vec::new();
    for ticket in tickets {
        places.push(timeout(PATIENCE, ticket.settled()).await.unwrap().unwrap().unwrap().seq_id.0);
    }
    assert_eq!(places, [4, 5, 6]);
}

#[tokio::test]
async fn a_refusal_of_the_moment_begins_a_new_epoch_and_a_lasting_one_is_the_senders_to_know() {
    let (session, mut peer, _listener) = session(SessionOptions { attach: false, ..options() }, 0).await;
    let tickets = give(&session, &["a", "b", "c", "d"]).await;
    let (first, epoch, _) = peer.send().await;
    let (second, _, _) = peer.send().await;
    peer.ack(first, &[(1, 0), (0, 400)]).await;
    peer.ack(second, &[(0, 401), (0, 307)]).await;
    let (again, next_epoch, texts) = peer.send().await;
    assert_eq!((next_epoch, texts), (epoch + 1, vec!["b".to_owned(), "c".into()]));
    peer.ack(again, &[(2, 0), (3, 0)]).await;
    let mut outcomes = Vec::new();
    for ticket in tickets {
        let outcome = timeout(PATIENCE, ticket.settled()).await.unwrap().unwrap();
        outcomes.push(outcome.map(|stored| stored.seq_id.0).map_err(|refusal| refusal.number));
    }
    assert_eq!(outcomes, [Ok(1), Ok(2), Ok(3), Err(307)]);
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_told_of_and_given_up_by_the_name_of_its_reason() {
    let give_up_after = Some(Duration::from_millis(1500));
    let (mut session, mut peer, _listener) =
        session(SessionOptions { attach: false, give_up_after, ..options() }, 0).await;
    let tickets = give(&session, &["a", "b"]).await;
    let server = tokio::spawn(async move {
        loop {
            let (id, _, texts) = peer.send().await;
            assert_eq!(texts, ["a", "b"], "it goes again, whole and in order");
            tokio::time::sleep(Duration::from_millis(50)).await;
            peer.ack(id, &[(0, 403), (0, 401)]).await;
        }
    });
    let mut told = Vec::new();
    let end = loop {
        match timeout(PATIENCE, session.next()).await.unwrap() {
            Ok(Event::Stalled(refusal)) => told.push(refusal.code()),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!((told, end.code()), (vec![Some(fanout::Code::NoSpace)], Some(fanout::Code::NoSpace)));
    for ticket in tickets {
        assert!(timeout(PATIENCE, ticket.settled()).await.unwrap().is_err());
    }
    server.abort();
}

#[tokio::test]
async fn a_hole_is_read_before_what_follows_and_the_next_hello_says_how_far_it_was_told() {
    let (mut session, mut peer, listener) = session(options(), 0).await;
    peer.deliver(&[1], 1).await;
    peer.caught_up(1).await;
    until(&mut session, |event| *event == Event::CaughtUp).await;
    peer.deliver(&[4, 1], 9).await;
    let (id, query) = peer.expect::<proto::History>(Operation::History).await;
    assert_eq!((query.from_seq, query.to_seq, query.newest_first), (2, 3, false));
    let page = proto::HistoryReply { records: vec![record(2), record(3)], head_seq: 4, next_from_seq: 0 };
    peer.answer(Operation::History, id, &page).await;
    assert_eq!(seqs(&until(&mut session, told(9)).await), [2, 3, 4]);

    // A hole that is not filled when the connection ends: the cursor has not passed it.
    peer.deliver(&[6], 12).await;
    peer.expect::<proto::History>(Operation::History).await;
    drop(peer);
    let mut peer = Peer::accept(&listener).await;
    let hello = peer.greet(0).await;
    let cursor = hello.cursor.unwrap();
    assert_eq!((cursor.history.as_ref(), cursor.steps[0].value), (&b"h"[..], 9));
    assert!(hello.attach && hello.bodies);
    peer.deliver(&[5, 6], 12).await;
    peer.caught_up(12).await;
    assert_eq!(seqs(&until(&mut session, |event| *event == Event::CaughtUp).await), [5, 6]);
}

/// A session that was told record 1 and then record 3 up to step 9, and the read of what is between.
async fn reading_a_hole() -> (Session, Peer, TcpListener, u32) {
    let (mut session, mut peer, listener) = session(options(), 0).await;
    peer.deliver(&[1], 1).await;
    peer.caught_up(1).await;
    until(&mut session, |event| *event == Event::CaughtUp).await;
    peer.deliver(&[3], 9).await;
    let (id, query) = peer.expect::<proto::History>(Operation::History).await;
    assert_eq!((query.from_seq, query.to_seq), (2, 2));
    (session, peer, listener, id)
}

#[tokio::test]
async fn a_read_that_the_server_fails_at_is_asked_again_and_nothing_is_taken_for_hidden() {
    for code in [500, 400] {
        let (mut session, mut peer, _listener, id) = reading_a_hole().await;
        peer.refuse(Operation::History, id, code).await;
        let (id, query) = peer.expect::<proto::History>(Operation::History).await;
        assert_eq!((query.from_seq, query.to_seq), (2, 2));
        let page = proto::HistoryReply { records: vec![record(2)], head_seq: 3, next_from_seq: 0 };
        peer.answer(Operation::History, id, &page).await;
        assert_eq!(seqs(&until(&mut session, told(9)).await), [2, 3], "after code {code}");
    }
}

#[tokio::test]
async fn a_read_that_is_refused_as_wrong_ends_the_connection_and_nothing_is_taken_for_hidden() {
    let (mut session, mut peer, listener, id) = reading_a_hole().await;
    peer.refuse(Operation::History, id, 310).await;
    let mut peer = Peer::accept(&listener).await;
    let hello = peer.greet(0).await;
    assert_eq!(hello.cursor.unwrap().steps, [proto::CursorStep { slot: 0, value: 1 }]);
    peer.deliver(&[2, 3], 9).await;
    peer.caught_up(9).await;
    let events = until(&mut session, |event| *event == Event::CaughtUp).await;
    assert_eq!(seqs(&events), [2, 3]);
    assert!(events.iter().any(|event| matches!(event, Event::Offline { error: Error::Refused(_), .. })));
}

#[tokio::test]
async fn what_the_server_will_not_show_is_passed_over() {
    let (mut session, mut peer, _listener, id) = reading_a_hole().await;
    peer.refuse(Operation::History, id, 302).await;
    assert_eq!(seqs(&until(&mut session, told(9)).await), [3]);
}

#[tokio::test]
async fn own_messages_take_their_place_among_those_of_others() {
    let (mut session, mut peer, _listener) = session(options(), 0).await;
    peer.deliver(&[1], 1).await;
    peer.caught_up(1).await;
    until(&mut session, |event| *event == Event::CaughtUp).await;
    let tickets = give(&session, &["mine"]).await;
    let (id, _, _) = peer.send().await;
    peer.ack(id, &[(3, 0)]).await;
    for ticket in tickets {
        timeout(PATIENCE, ticket.settled()).await.unwrap().unwrap().unwrap();
    }
    peer.deliver(&[2], 2).await;
    let events = until(&mut session, |event| matches!(event, Event::Record(r) if r.seq_id == SeqId(3))).await;
    assert_eq!(seqs(&events), [2, 3]);
    let Some(Event::Record(own)) = events.last() else { panic!() };
    assert_eq!((own.text(), own.sender, own.ordinal.0), (Some("mine"), UserId(7), 3));
}

#[tokio::test]
async fn a_process_that_begins_where_another_ended_misses_nothing_and_repeats_nothing() {
    let (mut first, mut peer, _listener) = session(options(), 0).await;
    peer.deliver(&[1, 2], 5).await;
    peer.caught_up(5).await;
    let mut progress = Progress::default();
    for event in until(&mut first, |event| *event == Event::CaughtUp).await {
        progress.note(&event);
    }
    let saved = serde_json::to_string(&progress).unwrap();
    drop(first);

    let progress: Progress = serde_json::from_str(&saved).unwrap();
    let (listener, addr) = listener().await;
    let tokens = Arc::new("token".to_owned());
    let options = SessionOptions { progress, ..options() };
    let starting = tokio::spawn(async move { Session::start(&addr, options, tokens).await.unwrap() });
    let mut peer = Peer::accept(&listener).await;
    let hello = peer.greet(0).await;
    assert_eq!(hello.cursor.unwrap().steps, [proto::CursorStep { slot: 0, value: 5 }]);
    let mut session = starting.await.unwrap();
    peer.deliver(&[2, 3], 6).await;
    peer.caught_up(6).await;
    assert_eq!(seqs(&until(&mut session, |event| *event == Event::CaughtUp).await), [3]);
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left_for_another_connection() {
    let mut options = options();
    options.connection.request_timeout = Duration::from_millis(100);
    let (mut session, mut peer, listener) = session(options, 30).await;
    // It was alive as long as it answered.
    for _ in 0..3 {
        let ping = peer.next().await;
        assert_eq!(ping.header.operation, Operation::Ping.number());
        peer.answer(Operation::Ping, ping.header.request_id, &proto::Pong::default()).await;
    }
    let events = until(&mut session, |event| matches!(event, Event::Offline { .. })).await;
    let Some(Event::Offline { error, .. }) = events.last() else { panic!() };
    assert!(error.to_string().contains("silent"), "{error}");
    Peer::accept(&listener).await.greet(0).await;
}

#[tokio::test]
async fn a_draining_server_says_when_to_come_back() {
    let (mut session, mut peer, listener) = session(options(), 0).await;
    let drain = proto::Drain { reconnect_after_ms: 80, alternatives: Vec::new(), reason: "upgrade".into() };
    peer.push(Operation::Drain, &drain).await;
    drop(peer);
    let events = until(&mut session, |event| matches!(event, Event::Offline { .. })).await;
    assert!(events.contains(&Event::Draining { reason: "upgrade".into() }));
    let Some(Event::Offline { retry_in, .. }) = events.last() else { panic!() };
    assert!(*retry_in >= Duration::from_millis(80));
    Peer::accept(&listener).await.greet(0).await;
}

#[tokio::test]
async fn a_session_ends_when_its_token_is_not_taken_any_more() {
    let (mut session, peer, listener) = session(options(), 0).await;
    drop(peer);
    for _ in 0..2 {
        let mut peer = Peer::accept(&listener).await;
        let (id, _) = peer.expect::<proto::Hello>(Operation::Hello).await;
        peer.refuse(Operation::Hello, id, 200).await;
    }
    let error = loop {
        if let Err(error) = timeout(PATIENCE, session.next()).await.unwrap() {
            break error;
        }
    };
    assert_eq!(error.code(), Some(fanout::Code::Unauthenticated));
}

#[tokio::test]
async fn a_session_without_a_server_gives_up_when_it_was_told_to() {
    let give_up_after = Some(Duration::from_millis(100));
    let (session, peer, listener) = session(SessionOptions { give_up_after, attach: false, ..options() }, 0).await;
    let tickets = give(&session, &["a"]).await;
    drop((peer, listener));
    for ticket in tickets {
        assert!(timeout(PATIENCE, ticket.settled()).await.unwrap().is_err());
    }
}

#[tokio::test]
async fn skipping_the_backlog_asks_for_rows_only() {
    let (listener, addr) = listener().await;
    let options = SessionOptions { backlog: Backlog::Skip, ..options() };
    tokio::spawn(async move { Session::start(&addr, options, Arc::new("token".to_owned())).await });
    let hello = Peer::accept(&listener).await.greet(0).await;
    assert!(hello.attach && !hello.bodies);
}

// ---- one connection --------------------------------------------------------------------------------------

async fn connected(options: Options) -> (Connection, gateway::client::Pushes, Peer) {
    let (listener, addr) = listener().await;
    let (connection, pushes) = Connection::connect(&addr, options).await.unwrap();
    (connection, pushes, Peer::accept(&listener).await)
}

#[tokio::test]
async fn answers_find_their_requests_in_whatever_order_they_come() {
    let (connection, _pushes, mut peer) = connected(Options::default()).await;
    let ask = |name: &str| {
        let (connection, names) = (connection.clone(), vec![name.to_owned()]);
        tokio::spawn(async move { connection.find_users(&names, &[]).await })
    };
    let asked = [ask("a"), ask("b"), ask("c")];
    let mut requests = Vec::new();
    for _ in 0..3 {
        requests.push(peer.expect::<proto::FindUsers>(Operation::FindUsers).await);
    }
    for (id, request) in requests.into_iter().rev() {
        match request.names[0].as_str() {
            "b" => peer.refuse(Operation::FindUsers, id, 402).await,
            name => {
                let users = vec![proto::UserRef { user: 1, name: name.into() }];
                peer.answer(Operation::FindUsers, id, &proto::FoundUsers { users }).await;
            }
        }
    }
    let mut answers = Vec::new();
    for asked in asked {
        answers.push(timeout(PATIENCE, asked).await.unwrap().unwrap());
    }
    assert_eq!(answers[0].as_ref().unwrap()[0].name, "a");
    assert_eq!(answers[1].as_ref().unwrap_err().code(), Some(fanout::Code::RateLimited));
    assert_eq!(answers[2].as_ref().unwrap()[0].name, "c");
}

#[tokio::test]
async fn whoever_waits_is_told_why_the_server_closed() {
    let (connection, _pushes, mut peer) = connected(Options::default()).await;
    let waiting = tokio::spawn({
        let connection = connection.clone();
        async move { connection.ping().await }
    });
    peer.next().await;
    let closing = proto::Error { code: 104, message: "too much".into(), retry_after_ms: 0 };
    peer.push(Operation::Closing, &closing).await;
    drop(peer);
    let error = timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error, Error::Closed { reason: "the server closed it: bad_frame: too much".into() });
    assert_eq!(connection.ping().await.unwrap_err(), error);
}

#[tokio::test]
async fn nonsense_ends_the_connection_and_nothing_is_allocated_for_it() {
    for nonsense in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0xff, 0xff, 0xff, 0x7f, 1], &[1, 0, 0, 0, 1]] {
        let (connection, _pushes, mut peer) = connected(Options::default()).await;
        peer.stream.write_all(nonsense).await.unwrap();
        let error = timeout(PATIENCE, connection.closed()).await.unwrap();
        assert!(matches!(&error, Error::Closed { reason } if reason.contains("frame")), "{error}");
    }
}

#[tokio::test]
async fn what_is_newer_than_this_side_is_skipped() {
    let (_connection, mut pushes, mut peer) = connected(Options::default()).await;
    peer.write(FLAG_PUSH, 299, 0, &proto::Ping { echo: 5 }).await;
    peer.caught_up(3).await;
    let push = timeout(PATIENCE, pushes.next()).await.unwrap().unwrap();
    assert_eq!(push, gateway::client::Push::CaughtUp { step: Step { slot: 0, value: 3 }, all: true });
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_timeout_and_comes_too_late_unharmed() {
    let options = Options { request_timeout: Duration::from_millis(50), ..Options::default() };
    let (connection, _pushes, mut peer) = connected(options).await;
    assert!(matches!(connection.ping().await, Err(Error::Timeout { .. })));
    let late = peer.next().await;
    peer.answer(Operation::Ping, late.header.request_id, &proto::Pong::default()).await;
    let again = tokio::spawn(async move { connection.ping().await });
    let (id, _) = {
        let frame = peer.next().await;
        (frame.header.request_id, frame)
    };
    peer.answer(Operation::Ping, id, &proto::Pong { echo: 1, server_time_ms: 5 }).await;
    assert_eq!(again.await.unwrap().unwrap().0, 5);
}

#[tokio::test]
async fn a_request_that_fits_no_frame_is_refused_here() {
    let (connection, _pushes, mut peer) = connected(Options::default()).await;
    let huge = vec!["x".repeat(70_000)];
    assert!(matches!(connection.find_users(&huge, &[]).await, Err(Error::TooLarge { limit: 65536, .. })));
    let fine = tokio::spawn(async move { connection.ping().await });
    let ping = peer.next().await;
    peer.answer(Operation::Ping, ping.header.request_id, &proto::Pong::default()).await;
    fine.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_ack_that_forgets_a_message_is_not_believed() {
    let (connection, _pushes, mut peer) = connected(Options::default()).await;
    let message = Outgoing::text(group(), "a", gateway::client::MessageClock::default());
    let sending = tokio::spawn(async move { connection.send(1, &[message.clone(), message]).await });
    let (id, _) = peer.expect::<proto::Send>(Operation::Send).await;
    peer.ack(id, &[(1, 0)]).await;
    assert!(matches!(sending.await.unwrap(), Err(Error::Protocol(_))));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let (listener, addr) = listener().await;
    drop(listener);
    let error = Connection::connect(&addr, Options::default()).await.err().unwrap();
    assert!(error.to_string().contains(&addr), "{error}");
}
