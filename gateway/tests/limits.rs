//! The table of limits is tested row by row: this says where.

#![allow(clippy::unwrap_used)]

mod raw;

use std::path::Path;
use std::sync::mpsc;

use fanout::Limits;
use gateway::wire::operation::Operation;
use gateway::wire::proto;
use logstore::id::ConversationId;
use prost::Message;
use raw::{Raw, open, register, start_with, text_message};

/// Each row, and the test that goes to its limit and beyond.
const TESTED: &[(&str, &str, &str)] = &[
    ("frame_bytes", "gateway/tests/bad_input.rs", "broken_framing_closes_with_a_reason"),
    ("text_bytes", "fanout/tests/services/messages.rs", "what_is_never_right_is_refused_before_it_is_counted"),
    ("batch_messages", "fanout/tests/services/limits.rs", "each_bound_holds_at_its_value_and_refuses_one_more"),
    ("name_bytes", "fanout/tests/services/accounts.rs", "names_and_passwords_outside_the_table_are_refused"),
    ("password_bytes_min", "fanout/tests/services/accounts.rs", "names_and_passwords_outside_the_table_are_refused"),
    ("password_bytes", "fanout/tests/services/accounts.rs", "names_and_passwords_outside_the_table_are_refused"),
    ("title_bytes", "fanout/tests/services/groups.rs", "groups_keep_to_the_table"),
    ("change_users", "fanout/tests/services/groups.rs", "groups_keep_to_the_table"),
    ("group_members", "fanout/tests/services/groups.rs", "groups_keep_to_the_table"),
    (
        "history_records",
        "fanout/tests/services/messages.rs",
        "pages_of_history_follow_each_other_and_end_at_their_bounds",
    ),
    (
        "history_span",
        "fanout/tests/services/messages.rs",
        "a_range_may_be_as_wide_as_the_table_says_and_an_open_end_is_no_range",
    ),
    ("list_conversations", "fanout/tests/services/limits.rs", "each_bound_holds_at_its_value_and_refuses_one_more"),
    ("cursor_moves", "fanout/tests/services/limits.rs", "each_bound_holds_at_its_value_and_refuses_one_more"),
    ("find_users", "fanout/tests/services/accounts.rs", "a_look_up_names_as_many_as_the_table_says"),
    (
        "attach_records",
        "fanout/tests/services/limits.rs",
        "an_answer_to_an_announcement_holds_the_newest_records_up_to_the_bound",
    ),
    ("user_connections", "gateway/tests/bad_input.rs", "connections_beyond_the_limits_are_told_so"),
    ("connections", "gateway/tests/bad_input.rs", "connections_beyond_the_limits_are_told_so"),
    ("outbound_bytes", "gateway/tests/end_to_end.rs", "a_reader_that_lags_catches_up_from_the_log"),
    ("stalled_seconds", "gateway/src/connection/machine.rs", "a_client_that_takes_nothing_for_a_minute_is_cut_off"),
    ("handshake_seconds", "gateway/tests/bad_input.rs", "a_silent_connection_closes_and_one_that_pings_stays"),
    ("idle_seconds", "gateway/tests/bad_input.rs", "a_silent_connection_closes_and_one_that_pings_stays"),
    (
        "requests_in_flight",
        "gateway/tests/limits.rs",
        "a_connection_with_too_much_in_flight_is_not_read_until_something_ends",
    ),
    ("password_queue", "fanout/tests/services/accounts.rs", "more_passwords_than_may_wait_are_told_to_come_back"),
    (
        "attach_hold_bytes",
        "gateway/src/connection/feed_tests.rs",
        "what_all_shards_hold_for_a_connection_is_bounded_together",
    ),
];

#[test]
fn every_row_of_the_table_has_its_test() {
    let rows: Vec<&str> = Limits::TABLE.iter().map(|row| row.name).collect();
    assert_eq!(TESTED.iter().map(|(row, ..)| *row).collect::<Vec<_>>(), rows);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (row, file, test) in TESTED {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        assert!(text.contains(&format!("fn {test}()")), "{row}: {file} has no test {test}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_connection_with_too_much_in_flight_is_not_read_until_something_ends() {
    let dir = tempfile::tempdir().unwrap();
    let node = start_with(dir.path(), |config| config.limits.requests_in_flight = 2).await;
    let (ada, _) = (register(&node, "ada").await, register(&node, "ben").await);
    let mut raw = Raw::signed_in(&node, &ada.access_token).await;
    let chat = open(&mut raw, "ben").await;
    let shard = node.sequencer().shard_of(ConversationId::from_bytes(chat[..].try_into().unwrap())).clone();
    // The shard applies nothing for now: what is sent stays in flight.
    let ((halted, is_halted), (release, released)) = (mpsc::channel(), mpsc::channel::<()>());
    std::thread::spawn(move || {
        shard.read(|_, _| {
            halted.send(()).unwrap();
            let _ = released.recv();
        });
    });
    is_halted.recv().unwrap();
    let mut asked = Vec::new();
    for n in 0..4 {
        let messages = vec![text_message(&chat, &n.to_string())];
        let send = proto::Send { messages, want_accepted: true, epoch: 0 };
        asked.push(raw.send(Operation::Send, &send).await);
        asked.push(raw.send(Operation::Ping, &proto::Ping { echo: n }).await);
    }
    // Two sends are taken, and what came between them; nothing behind the second is looked at.
    let mut seen = Vec::new();
    for _ in 0..3 {
        let frame = raw.frame().await.unwrap();
        let accepted = frame.header.operation == Operation::Accepted.number();
        seen.push(if accepted {
            proto::Accepted::decode(frame.body).unwrap().request_id
        } else {
            frame.header.request_id
        });
    }
    assert_eq!(seen, asked[..3]);
    let more = tokio::time::timeout(std::time::Duration::from_millis(300), raw.frame()).await;
    assert!(more.is_err(), "{more:?}");
    drop(release);
    let mut answers = 0;
    while answers < 7 {
        answers += usize::from(raw.frame().await.unwrap().header.flags & gateway::wire::frame::FLAG_RESPONSE != 0);
    }
    assert_eq!(raw::texts(&raw.history(&chat).await), ["0", "1", "2", "3"]);
    node.drain().await;
}
