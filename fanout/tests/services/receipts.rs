use fanout::Code;
use logstore::id::{ConversationId, SeqId};

use crate::world::{World, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivered_cursor_is_passed_on_at_once_and_replicated_at_flush() {
    let world = World::new().await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let direct = ConversationId::direct(ann, ben);
    world.say(ann, direct, "hi").await;
    let (anns, bens) = (world.connection(), world.connection());
    world.attach(ann, anns).await;
    world.attach(ben, bens).await;
    assert_eq!(world.services.receipts.delivered(ben, &[(direct, SeqId(1))]).await, vec![]);
    let passed_on = world.sink.passed_on.lock().clone();
    let told = passed_on.iter().find(|(to, _)| *to == anns).expect("the sender is told at once").1;
    assert_eq!((told.user, told.delivered), (ben, SeqId(1)));
    assert!(world.services.receipts.delivered(ben, &[(direct, SeqId(1))]).await.is_empty());
    assert_eq!(world.sink.passed_on.lock().len(), passed_on.len(), "said twice, passed on once");

    world.services.receipts.flush().await;
    let shard = world.sequencer.shard_of(direct);
    assert_eq!(shard.read(|state, _| state.member(direct, ben).unwrap().delivered), SeqId(1));
    eventually(|| world.sink.receipts.lock().iter().find(|(to, c)| *to == anns && c.user == ben).copied()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_cursor_is_replicated_within_its_second_and_told_to_all_devices() {
    let world = World::new().await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let group = world.group(ann, &[ben]).await;
    world.say(ann, group, "hi").await;
    let (anns, phone, laptop) = (world.connection(), world.connection(), world.connection());
    world.attach(ann, anns).await;
    world.attach(ben, phone).await;
    world.attach(ben, laptop).await;
    assert_eq!(world.services.receipts.read(ben, &[(group, SeqId(2))]).await, vec![]);
    for connection in [anns, phone, laptop] {
        let told = || world.sink.receipts.lock().iter().find(|(to, _)| *to == connection).map(|(_, c)| *c);
        let cursor = eventually(told).await;
        assert_eq!((cursor.user, cursor.read, cursor.read_ordinal.0), (ben, SeqId(2), 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_that_cannot_be_are_refused_one_by_one() {
    let world = World::new().await;
    let [ann, ben, cam] = world.users(["ann", "ben", "cam"]).await;
    let group = world.group(ann, &[ben]).await;
    world.say(ann, group, "hi").await;
    let foreign = world.group(cam, &[]).await;
    let moves = [
        (group, SeqId(3)),
        (group, SeqId(2)),
        (foreign, SeqId(1)),
        (ConversationId(9), SeqId(1)),
        (group, SeqId(u64::MAX)),
    ];
    let expected =
        vec![(0, Code::CursorAhead), (2, Code::NotMember), (3, Code::NoSuchConversation), (4, Code::CursorAhead)];
    let codes =
        |refused: Vec<(u32, fanout::Fault)>| refused.into_iter().map(|(at, f)| (at, f.code)).collect::<Vec<_>>();
    assert_eq!(codes(world.services.receipts.delivered(ben, &moves).await), expected);
    assert_eq!(codes(world.services.receipts.read(ben, &moves).await), expected);
    world.services.receipts.flush().await;
    let shard = world.sequencer.shard_of(group);
    let row = shard.read(|state, _| state.member(group, ben).unwrap().clone());
    assert_eq!((row.delivered, row.read, row.read_ordinal.0), (SeqId(2), SeqId(2), 1));
}
