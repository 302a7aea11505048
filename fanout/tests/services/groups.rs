use fanout::{Code, Limits};
use logstore::id::{ClientMsgId, ConversationId, SeqId, UserId};
use sequencer::state::Role;

use crate::world::{World, id_now};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_created_once_per_request() {
    let world = World::new().await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let request = id_now();
    let groups = &world.services.groups;
    let (group, seq, mut members) = groups.create(ann, "tea", vec![ben], request).await.unwrap();
    members.sort_unstable();
    let mut expected = vec![ann, ben];
    expected.sort_unstable();
    assert_eq!((seq, members), (SeqId(1), expected));
    let again = groups.create(ann, "tea", vec![ben], request).await.unwrap();
    assert_eq!((again.0, again.1), (group, seq));
    let other = groups.create(ann, "tea", vec![ben], id_now()).await.unwrap();
    assert_ne!(other.0, group);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_and_are_listed_to_members() {
    let world = World::new().await;
    let [ann, ben, cam, dee] = world.users(["ann", "ben", "cam", "dee"]).await;
    let groups = &world.services.groups;
    let group = world.group(ann, &[ben]).await;
    assert_eq!(groups.add(ann, group, vec![ben, cam], id_now()).await.unwrap(), (SeqId(2), vec![cam]));
    let nobody_new = groups.add(ann, group, vec![cam], id_now()).await.unwrap();
    assert_eq!(nobody_new.1, vec![]);
    assert_eq!(groups.remove(ann, group, vec![ben, dee], id_now()).await.unwrap(), (SeqId(3), vec![ben]));

    let page = groups.members(cam, group, None, 0).await.unwrap();
    let mut expected = vec![(ann, Role::Owner, SeqId(1)), (cam, Role::Member, SeqId(2))];
    expected.sort_unstable_by_key(|(user, ..)| *user);
    assert_eq!((page.members, page.next_after, page.member_count), (expected.clone(), None, 2));
    let first = groups.members(ann, group, None, 1).await.unwrap();
    assert_eq!((first.members.as_slice(), first.next_after), (&expected[..1], Some(expected[0].0)));
    let second = groups.members(ann, group, first.next_after, 1).await.unwrap();
    assert_eq!((second.members.as_slice(), second.next_after), (&expected[1..], None));

    assert_eq!(groups.members(ben, group, None, 0).await.unwrap_err().code, Code::NotMember);
    assert_eq!(groups.members(dee, group, None, 0).await.unwrap_err().code, Code::NoSuchConversation);
    assert_eq!(groups.leave(cam, group, id_now()).await.unwrap(), SeqId(4));
    assert_eq!(groups.members(cam, group, None, 0).await.unwrap_err().code, Code::NotMember);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_is_told_so_and_changes_nothing() {
    let world = World::new().await;
    let [ann, ben, cam] = world.users(["ann", "ben", "cam"]).await;
    let groups = &world.services.groups;
    let group = world.group(ann, &[ben]).await;
    let add = groups.add(cam, group, vec![cam], id_now()).await;
    assert_eq!(add.unwrap_err().code, Code::NotMember);
    let remove = groups.remove(ben, group, vec![ann], id_now()).await;
    assert_eq!(remove.unwrap_err().code, Code::NotAllowed);
    let nowhere = groups.leave(ann, ConversationId::group(12345), id_now()).await;
    assert_eq!(nowhere.unwrap_err().code, Code::NoSuchConversation);
    let direct = groups.add(ann, ConversationId::direct(ann, ben), vec![cam], id_now()).await;
    assert_eq!(direct.unwrap_err().code, Code::NoSuchConversation);
    for user in [UserId(0), UserId(99), UserId(u64::MAX)] {
        let unknown = groups.add(ann, group, vec![ben, user], id_now()).await;
        assert_eq!(unknown.unwrap_err().code, Code::NoSuchUser);
    }
    assert_eq!(groups.members(ann, group, None, 0).await.unwrap().member_count, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_keep_to_the_table() {
    let limits = Limits { change_users: 3, group_members: 4, ..Limits::default() };
    let world = World::with_limits(limits).await;
    let [ann, ben, cam, dee, eve] = world.users(["ann", "ben", "cam", "dee", "eve"]).await;
    let groups = &world.services.groups;
    let many = groups.create(ann, "tea", vec![ann, ben, cam, dee], id_now()).await;
    assert_eq!(many.unwrap_err().code, Code::TooMany);
    let (group, ..) = groups.create(ann, "tea", vec![ben, cam, dee], id_now()).await.unwrap();
    assert_eq!(groups.add(ann, group, vec![eve], id_now()).await.unwrap_err().code, Code::LimitReached);
    assert_eq!(groups.create(ann, " ", vec![], id_now()).await.unwrap_err().code, Code::BadName);
    assert_eq!(groups.create(ann, &"x".repeat(129), vec![], id_now()).await.unwrap_err().code, Code::TooLong);
    let no_uuid = groups.create(ann, "tea", vec![], ClientMsgId(4)).await;
    assert_eq!(no_uuid.unwrap_err().code, Code::BadField);
}
