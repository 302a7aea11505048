use fanout::Code;
use logstore::id::{ConversationId, SeqId};

use crate::world::{World, id_now};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_is_newest_first_over_all_shards_and_paged() {
    let world = World::new().await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let mut groups = Vec::new();
    for _ in 0..9 {
        groups.push(world.group(ann, &[ben]).await);
    }
    for group in &groups {
        // Times are milliseconds: the order of what is sent within one is by id.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        world.say(ann, *group, "hello").await;
    }
    let (mut listed, mut after) = (Vec::new(), Vec::new());
    loop {
        let page = world.services.conversations.list(ben, 4, &after, false).await.unwrap();
        assert!(page.items.len() <= 4);
        listed.extend(page.items);
        match page.next_after {
            Some(next) => after = next,
            None => break,
        }
    }
    let ids: Vec<ConversationId> = listed.iter().map(|row| row.conversation).collect();
    groups.reverse();
    assert_eq!(ids, groups);
    for row in &listed {
        assert_eq!((row.head_seq, row.unread, row.active, row.member_count), (SeqId(2), 1, true, 2));
        assert_eq!(row.last.as_ref().map(|r| r.body.as_ref()), Some(&b"hello"[..]));
        assert_eq!(row.title, "a group");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_place_in_the_list_is_refused() {
    let world = World::new().await;
    let [ann] = world.users(["ann"]).await;
    let forged = world.services.conversations.list(ann, 10, b"forged", false).await;
    assert_eq!(forged.unwrap_err().code, Code::BadField);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_is_listed_when_asked_for_as_it_was_then() {
    let world = World::new().await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let group = world.group(ann, &[ben]).await;
    world.say(ann, group, "before").await;
    world.services.groups.leave(ben, group, id_now()).await.unwrap();
    world.say(ann, group, "after").await;
    let list = |with_left| world.services.conversations.list(ben, 0, &[], with_left);
    assert_eq!(list(false).await.unwrap().items, vec![]);
    let [row] = &list(true).await.unwrap().items[..] else { panic!("one conversation was left") };
    assert_eq!((row.active, row.head_seq, row.head_ordinal.0), (false, SeqId(3), 1));
    assert_eq!(row.last.as_ref().map(|r| r.head.seq), Some(SeqId(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_left_does_not_learn_how_many_came_or_went_later() {
    let world = World::new().await;
    let [ann, ben, cam, dee] = world.users(["ann", "ben", "cam", "dee"]).await;
    let groups = &world.services.groups;
    let group = world.group(ann, &[ben, cam]).await;
    let (left, removed) = (ben, cam);
    groups.leave(left, group, id_now()).await.unwrap();
    groups.remove(ann, group, vec![removed], id_now()).await.unwrap();
    let shown = async |user| {
        let listed = world.services.conversations.list(user, 0, &[], true).await.unwrap().items;
        let attached = world.attach(user, world.connection()).await.into_iter().flat_map(|answer| answer.rows);
        let rows: Vec<_> = listed.into_iter().chain(attached).map(|row| (row.active, row.member_count)).collect();
        assert_eq!((rows.len(), rows[0]), (2, rows[1]), "a list and an attach answer tell the same");
        rows[0]
    };
    assert_eq!((shown(left).await, shown(removed).await), ((false, 0), (false, 0)));
    groups.add(ann, group, vec![dee], id_now()).await.unwrap();
    assert_eq!((shown(left).await, shown(removed).await), ((false, 0), (false, 0)));
    assert_eq!((shown(ann).await, shown(dee).await), ((true, 2), (true, 2)));
    groups.add(ann, group, vec![left], id_now()).await.unwrap();
    assert_eq!(shown(left).await, (true, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_counts_others_messages_above_the_read_cursor() {
    let world = World::new().await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let direct = world.services.conversations.open_direct(ann, ben).await.unwrap();
    assert_eq!((direct.peer, direct.head_seq, direct.unread), (ben, SeqId(0), 0));
    let id = direct.conversation;
    for (sender, text) in [(ann, "1"), (ben, "2"), (ann, "3"), (ann, "4"), (ben, "5")] {
        world.say(sender, id, text).await;
    }
    let conversations = &world.services.conversations;
    let unread = |user, peer| async move { conversations.open_direct(user, peer).await.unwrap().unread };
    assert_eq!((unread(ann, ben).await, unread(ben, ann).await), (2, 3));
    assert_eq!(world.services.receipts.read(ben, &[(id, SeqId(3))]).await, vec![]);
    world.services.receipts.flush().await;
    assert_eq!((unread(ann, ben).await, unread(ben, ann).await), (2, 1));
}
