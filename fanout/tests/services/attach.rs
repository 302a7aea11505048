use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use fanout::Code;
use fanout::service::HistoryQuery;
use fanout::tail::Announcement;
use logstore::id::{ConversationId, LogIndex, SeqId, ShardId};

use crate::world::{GATEWAY, World, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_device_of_every_member_is_sent_each_message_once_and_in_order() {
    let world = World::new().await;
    let [ann, ben, cam] = world.users(["ann", "ben", "cam"]).await;
    let group = world.group(ann, &[ben, cam]).await;
    let devices = [(ann, world.connection()), (ben, world.connection()), (ben, world.connection())];
    for (user, connection) in devices {
        world.attach(user, connection).await;
    }
    let last = {
        let mut last = SeqId(0);
        for n in 0..100 {
            last = world.say(if n % 2 == 0 { ann } else { cam }, group, &n.to_string()).await;
        }
        last
    };
    for (_, connection) in devices {
        let got = eventually(|| Some(world.sink.of(connection)).filter(|got| got.last() == Some(&(group, last)))).await;
        assert_eq!(got, (2..=last.0).map(|seq| (group, SeqId(seq))).collect::<Vec<_>>());
    }
    world.tails.detach(GATEWAY, devices[1].1, ben);
    let next = world.say(ann, group, "one more").await;
    eventually(|| world.sink.of(devices[2].1).contains(&(group, next)).then_some(())).await;
    assert!(!world.sink.of(devices[1].1).contains(&(group, next)));
    world.tails.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_holds_what_was_missed_and_its_rows() {
    let world = World::new().await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let direct = ConversationId::direct(ann, ben);
    for n in 1..=5 {
        world.say(ann, direct, &n.to_string()).await;
    }
    let attachments = world.attach(ben, world.connection()).await;
    let of_shard = world.sequencer.shard_of(direct).id();
    let attachment = attachments.iter().find(|a| a.shard == of_shard).unwrap();
    let texts: Vec<&[u8]> = attachment.records.iter().map(|r| r.body.as_ref()).collect();
    assert_eq!(texts, [b"1", b"2", b"3", b"4", b"5"]);
    let [row] = &attachment.rows[..] else { panic!("one conversation") };
    assert_eq!((row.unread, row.head_seq, row.peer, row.as_of), (5, SeqId(5), ann, attachment.as_of));
    assert!(attachments.iter().filter(|a| a.shard != of_shard).all(|a| a.rows.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_ahead_of_the_log_waits_a_moment_and_is_then_told() {
    let world = World::new().await;
    let [ann] = world.users(["ann"]).await;
    let shard = world.sequencer.shards()[0].id();
    let connection = world.connection();
    let ahead = Announcement { gateway: GATEWAY, connection, user: ann, cursor: LogIndex(1 << 40), bodies: true };
    let started = Instant::now();
    assert_eq!(world.tails.announce(shard, ahead).await.unwrap_err().code, Code::Timeout);
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert!(world.tails.announce(ShardId(999), ahead).await.is_err());
}

/// Changes a byte of the first block of the only segment of a conversation's shard.
fn rots(world: &World, conversation: ConversationId) {
    let dir = world.dir().join(format!("segments/{:05}", world.sequencer.shard_of(conversation).id().0));
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let path = names.into_iter().find(|path| path.extension().is_some_and(|end| end == "segment")).unwrap();
    // In place, as rot does it: parts of the file are mapped, and one that is cut under a map ends the process.
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 64 + 30).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 64 + 30).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_that_rot_has_reached_takes_no_other_with_it() {
    let world = World::new().await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let rotten = world.group(ann, &[ben]).await;
    world.say(ann, rotten, "lost").await;
    world.sequencer.shard_of(rotten).seal().await.unwrap();
    rots(&world, rotten);
    let sound = loop {
        let group = world.group(ann, &[ben]).await;
        if world.sequencer.shard_of(group).id() == world.sequencer.shard_of(rotten).id() {
            break group;
        }
    };
    world.say(ann, sound, "kept").await;

    let attachments = world.attach(ben, world.connection()).await;
    let of_shard = world.sequencer.shard_of(rotten).id();
    let attachment = attachments.iter().find(|attachment| attachment.shard == of_shard).unwrap();
    let rows: Vec<_> = attachment.rows.iter().map(|row| row.conversation).collect();
    assert!(rows.contains(&rotten) && rows.contains(&sound), "both are listed");
    assert!(attachment.records.iter().all(|record| record.head.conversation == sound));
    assert_eq!(attachment.records.len(), 2);

    let listed = world.services.conversations.list(ben, 0, &[], false).await.unwrap();
    let last = |id| listed.items.iter().find(|row| row.conversation == id).unwrap().last.clone();
    assert!(last(rotten).is_none() && last(sound).is_some());

    let query =
        |conversation| HistoryQuery { conversation, from: SeqId(1), to: SeqId(9), limit: 9, newest_first: false };
    assert_eq!(world.services.messages.history(ben, query(rotten)).await.unwrap_err().code, Code::Damaged);
    assert_eq!(world.services.messages.history(ben, query(sound)).await.unwrap().records.len(), 2);
    world.say(ann, rotten, "sends go on").await;
    world.tails.shutdown().await;
}
