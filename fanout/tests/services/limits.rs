use fanout::{Code, Limits};

use crate::world::World;

/// Rows of the table that the services enforce; each has its test beside what it limits.
const ENFORCED: &[&str] = &[
    "text_bytes",
    "batch_messages",
    "name_bytes",
    "password_bytes_min",
    "password_bytes",
    "title_bytes",
    "change_users",
    "group_members",
    "history_records",
    "history_span",
    "list_conversations",
    "cursor_moves",
    "find_users",
    "attach_records",
    "requests_in_flight",
    "password_queue",
];

#[test]
fn the_table_has_every_row_that_is_enforced_and_sets_what_it_names() {
    let mut limits = Limits::default();
    for name in ENFORCED {
        let row = Limits::TABLE.iter().find(|row| row.name == *name).unwrap_or_else(|| panic!("no row {name}"));
        assert_eq!(limits.get(name), Some(row.default));
        assert!(limits.set(name, row.default + 1));
        assert_eq!(limits.get(name), Some(row.default + 1));
    }
    assert!(!limits.set("nothing", 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bound_holds_at_its_value_and_refuses_one_more() {
    let limits = Limits { batch_messages: 3, cursor_moves: 2, list_conversations: 2, ..Limits::default() };
    let world = World::with_limits(limits).await;
    let [ann] = world.users(["ann"]).await;

    let count = |n| world.services.messages.check_count(n).map(|fault| fault.code);
    assert_eq!([count(0), count(1), count(3), count(4)], [Some(Code::BadField), None, None, Some(Code::TooMany)]);

    let group = world.group(ann, &[]).await;
    let moves = vec![(group, logstore::id::SeqId(1)); 3];
    let refused = world.services.receipts.read(ann, &moves).await;
    assert_eq!(refused.iter().map(|(at, f)| (*at, f.code)).collect::<Vec<_>>(), [(2, Code::TooMany)]);

    world.group(ann, &[]).await;
    world.group(ann, &[]).await;
    let page = world.services.conversations.list(ann, 100, &[], false).await.unwrap();
    assert_eq!((page.items.len(), page.next_after.is_some()), (2, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_an_announcement_holds_the_newest_records_up_to_the_bound() {
    let world = World::with_limits(Limits { attach_records: 4, ..Limits::default() }).await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let group = world.group(ann, &[ben]).await;
    for n in 2..=9 {
        world.say(ann, group, &n.to_string()).await;
    }
    let attachments = world.attach(ben, world.connection()).await;
    let records: Vec<u64> = attachments.iter().flat_map(|a| &a.records).map(|r| r.head.seq.0).collect();
    assert_eq!(records, [6, 7, 8, 9]);
}
