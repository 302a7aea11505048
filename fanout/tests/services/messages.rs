use fanout::service::{HistoryPage, HistoryQuery, Outgoing, SendOutcome};
use fanout::{Code, Limits};
use logstore::RecordKind;
use logstore::id::{ConnectionId, ConversationId, SeqId, UserId};

use crate::world::{SOON, World, id_now, outgoing};

fn codes(outcomes: &[SendOutcome]) -> Vec<Result<u64, Code>> {
    outcomes.iter().map(|o| o.as_ref().map(|stored| stored.seq.0).map_err(|fault| fault.code)).collect()
}

fn query(conversation: ConversationId) -> HistoryQuery {
    HistoryQuery { conversation, from: SeqId(0), to: SeqId(0), limit: 500, newest_first: false }
}

fn texts(page: &HistoryPage) -> Vec<String> {
    let texts = page.records.iter().filter(|r| r.head.kind == RecordKind::TEXT);
    texts.map(|r| String::from_utf8(r.body.to_vec()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_message_opens_a_direct_and_what_follows_keeps_its_order() {
    let world = World::new().await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let direct = ConversationId::direct(ann, ben);
    let connection = world.connection();
    // Many requests are handed over before the first can have opened anything.
    let replies: Vec<_> = (0..30)
        .map(|round| {
            let texts: Vec<String> = (0..3).map(|n| format!("{}", round * 3 + n)).collect();
            let messages = texts.iter().map(|text| (direct, text.as_str())).collect();
            world.start_send(ann, connection, world.counted(connection, messages))
        })
        .collect();
    let mut seqs = Vec::new();
    for reply in replies {
        let outcomes = tokio::time::timeout(SOON, reply).await.unwrap().unwrap();
        seqs.extend(codes(&outcomes).into_iter().map(Result::unwrap));
    }
    assert_eq!(seqs, (1..=90).collect::<Vec<u64>>());
    let page = world.services.messages.history(ben, query(direct)).await.unwrap();
    assert_eq!(texts(&page), (0..90).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_reaches_many_shards_and_its_outcomes_stay_in_place() {
    let world = World::new().await;
    let [ann, ben, cam] = world.users(["ann", "ben", "cam"]).await;
    let mut groups = Vec::new();
    for _ in 0..12 {
        groups.push(world.group(ann, &[ben]).await);
    }
    let foreign = world.group(cam, &[ben]).await;
    let connection = world.connection();
    let mut messages: Vec<(ConversationId, &str)> = groups.iter().map(|g| (*g, "one")).collect();
    messages.insert(5, (foreign, "not mine"));
    messages.extend(groups.iter().map(|g| (*g, "two")));
    let outcomes = codes(&world.send(ann, connection, messages).await);
    let mut expected: Vec<Result<u64, Code>> = vec![Ok(2); 12];
    expected.insert(5, Err(Code::NotMember));
    expected.extend(vec![Ok(3); 12]);
    assert_eq!(outcomes, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_with_nobody_is_refused_and_does_not_stop_what_follows() {
    let world = World::new().await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let nobody = ConversationId::direct(ann, UserId(ben.0 + 1_000_000));
    let direct = ConversationId::direct(ann, ben);
    let connection = world.connection();
    let messages = vec![(nobody, "hello?"), (direct, "hello"), (nobody, "anybody?"), (direct, "again")];
    let outcomes = world.send(ann, connection, messages).await;
    assert_eq!(codes(&outcomes), [Err(Code::NoSuchUser), Ok(1), Err(Code::NoSuchUser), Ok(2)]);
    let more = world.send(ann, connection, vec![(nobody, "still?"), (direct, "third")]).await;
    assert_eq!(codes(&more), [Err(Code::NoSuchUser), Ok(3)], "the refused ones kept their places");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_opens_later_for_a_peer_who_comes_later() {
    let world = World::new().await;
    let [ann] = world.users(["ann"]).await;
    let opened = world.services.conversations.open_direct(ann, UserId(5)).await;
    assert_eq!(opened.unwrap_err().code, Code::NoSuchUser);
    let [ben] = world.users(["ben"]).await;
    assert_eq!(world.say(ann, ConversationId::direct(ann, ben), "hi").await, SeqId(1));
    assert_eq!(world.say(ann, ConversationId::direct(ann, ann), "note to self").await, SeqId(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_over_another_connection_gets_the_original_seq_id() {
    let world = World::new().await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let group = world.group(ann, &[ben]).await;
    let message = Outgoing { n: 1, ..outgoing(group, "once") };
    let first = world.start_send(ann, world.connection(), vec![message.clone()]).await.unwrap().remove(0).unwrap();
    let again = world.start_send(ann, world.connection(), vec![message.clone()]).await.unwrap().remove(0).unwrap();
    assert_eq!((again.seq, again.server_msg_id, again.duplicate), (first.seq, first.server_msg_id, true));
    let other = Outgoing { body: "twice".into(), ..message };
    let conflict = world.start_send(ann, world.connection(), vec![other]).await.unwrap().remove(0);
    assert_eq!(conflict.unwrap_err().code, Code::IdempotencyConflict);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_never_right_is_refused_before_it_is_counted() {
    let world = World::new().await;
    let [ann, ben, cam] = world.users(["ann", "ben", "cam"]).await;
    let direct = ConversationId::direct(ann, ben);
    let good = outgoing(direct, "fine");
    let check = |message: Outgoing| world.services.messages.check(ann, &message).map(|fault| fault.code);
    assert_eq!(check(good.clone()), None);
    assert_eq!(check(Outgoing { body: "".into(), ..good.clone() }), None, "an empty text is a text");
    assert_eq!(check(Outgoing { body: vec![0xff; 9].into(), kind: RecordKind::CUSTOM, ..good.clone() }), None);
    assert_eq!(check(Outgoing { body: vec![0xff; 9].into(), ..good.clone() }), Some(Code::NotUtf8));
    assert_eq!(check(Outgoing { body: vec![b'x'; 16385].into(), ..good.clone() }), Some(Code::TooLong));
    assert_eq!(check(Outgoing { kind: RecordKind::MEMBERSHIP, ..good.clone() }), Some(Code::BadField));
    assert_eq!(check(Outgoing { kind: RecordKind(0), ..good.clone() }), Some(Code::BadField));
    assert_eq!(check(Outgoing { client_msg_id: Default::default(), ..good.clone() }), Some(Code::BadField));
    assert_eq!(check(Outgoing { conversation: ConversationId(3), ..good.clone() }), Some(Code::NoSuchConversation));
    let foreign = ConversationId::direct(ben, cam);
    assert_eq!(check(Outgoing { conversation: foreign, ..good.clone() }), Some(Code::NotMember));
    let system = ConversationId::system(ann);
    assert_eq!(check(Outgoing { conversation: system, ..good }), Some(Code::NotAllowed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_shows_a_member_his_intervals_and_a_stranger_nothing() {
    let world = World::new().await;
    let [ann, ben, cam] = world.users(["ann", "ben", "cam"]).await;
    let group = world.group(ann, &[ben]).await;
    world.say(ann, group, "2").await;
    world.services.groups.remove(ann, group, vec![ben], id_now()).await.unwrap();
    world.say(ann, group, "4").await;
    world.services.groups.add(ann, group, vec![ben], id_now()).await.unwrap();
    world.say(ben, group, "6").await;

    let history = |reader, query| world.services.messages.history(reader, query);
    let seqs = |page: &HistoryPage| page.records.iter().map(|r| r.head.seq.0).collect::<Vec<_>>();
    let all = history(ann, query(group)).await.unwrap();
    assert_eq!((seqs(&all), all.head, all.next_from), (vec![1, 2, 3, 4, 5, 6], SeqId(6), None));
    let his = history(ben, query(group)).await.unwrap();
    assert_eq!((seqs(&his), his.head), (vec![1, 2, 3, 5, 6], SeqId(6)));
    let down = history(ben, HistoryQuery { newest_first: true, limit: 3, ..query(group) }).await.unwrap();
    assert_eq!((seqs(&down), down.next_from), (vec![6, 5, 3], Some(SeqId(2))));
    for conversation in [group, ConversationId::group(5), ConversationId(5), ConversationId::direct(ann, ben)] {
        assert_eq!(history(cam, query(conversation)).await.unwrap_err().code, Code::NoSuchConversation);
    }

    world.services.groups.leave(ben, group, id_now()).await.unwrap();
    world.say(ann, group, "8").await;
    let left = history(ben, query(group)).await.unwrap();
    assert_eq!((seqs(&left), left.head), (vec![1, 2, 3, 5, 6, 7], SeqId(7)));
    let gone = codes(&world.send(ben, world.connection(), vec![(group, "let me in")]).await);
    assert_eq!(gone, [Err(Code::NotMember)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_history_follow_each_other_and_end_at_their_bounds() {
    let world = World::with_limits(Limits { history_records: 7, ..Limits::default() }).await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let group = world.group(ann, &[ben]).await;
    for n in 2..=20 {
        world.say(ann, group, &n.to_string()).await;
    }
    let (mut from, mut seen) = (SeqId(1), Vec::new());
    loop {
        let page = HistoryQuery { from, ..query(group) };
        let page = world.services.messages.history(ben, page).await.unwrap();
        assert!(page.records.len() <= 7);
        seen.extend(page.records.iter().map(|r| r.head.seq.0));
        match page.next_from {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(seen, (1..=20).collect::<Vec<_>>());
    let big = "x".repeat(16384);
    for _ in 0..40 {
        world.say(ann, group, &big).await;
    }
    let world_page = world.services.messages.history(ben, HistoryQuery { from: SeqId(21), ..query(group) });
    let page = world_page.await.unwrap();
    let bytes: usize = page.records.iter().map(|r| r.body.len()).sum();
    assert!(bytes <= (256 << 10) + 16384, "{bytes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_may_be_as_wide_as_the_table_says_and_an_open_end_is_no_range() {
    let world = World::with_limits(Limits { history_span: 5, ..Limits::default() }).await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let group = world.group(ann, &[ben]).await;
    for n in 2..=20 {
        world.say(ann, group, &n.to_string()).await;
    }
    let read = async |from, to, newest_first| {
        let query = HistoryQuery { from: SeqId(from), to: SeqId(to), newest_first, ..query(group) };
        let page = world.services.messages.history(ben, query).await.map_err(|fault| fault.code)?;
        Ok(page.records.iter().map(|record| record.head.seq.0).collect::<Vec<_>>())
    };
    assert_eq!(read(3, 8, false).await, Ok((3..=8).collect()));
    assert_eq!(read(8, 3, true).await, Ok((3..=8).rev().collect()));
    assert_eq!((read(3, 9, false).await, read(9, 3, true).await), (Err(Code::BadRange), Err(Code::BadRange)));
    assert_eq!((read(8, 3, false).await, read(3, 8, true).await), (Err(Code::BadRange), Err(Code::BadRange)));
    for (from, to, newest_first) in [(1, 0, false), (20, 0, true), (0, 0, true), (0, 0, false)] {
        let page = read(from, to, newest_first).await.unwrap();
        assert_eq!(page.len(), 20, "from {from}, newest first: {newest_first}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connections_requests_behind_an_opening_are_bounded() {
    let world = World::with_limits(Limits { requests_in_flight: 2, ..Limits::default() }).await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let direct = ConversationId::direct(ann, ben);
    let connection: ConnectionId = world.connection();
    let replies: Vec<_> =
        (0..50).map(|_| world.start_send(ann, connection, world.counted(connection, vec![(direct, "hi")]))).collect();
    let mut outcomes = Vec::new();
    for reply in replies {
        outcomes.extend(codes(&tokio::time::timeout(SOON, reply).await.unwrap().unwrap()));
    }
    let taken = outcomes.iter().take_while(|o| o.is_ok()).count();
    assert!(taken >= 3 && outcomes[taken..].iter().all(|o| o.is_err()), "{outcomes:?}");
}
