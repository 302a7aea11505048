//! Sending: numbers, refusals, retries.

use logstore::id::{ConversationId, LogIndex, Ordinal, SeqId, ServerMsgId, ShardId, TimeMs, UserId};
use logstore::{BodyPlace, RecordKind};
use sequencer::state::{ShardState, send_at};
use sequencer::{BatchBuilder, Command, Outcome, Refusal};

use crate::log::{BEGIN, Log, change, id_at, init, refused, send, send_of};

#[test]
fn records_of_a_conversation_are_numbered_without_gap() {
    let mut log = Log::new();
    let (a, b) = (log.group(1, &[10, 11]), log.group(2, &[10]));
    let sends = [(a, 1), (b, 2), (a, 3), (a, 4), (b, 5)].map(|(to, n)| send(to, 10, id_at(BEGIN, n), "x"));
    let applied = log.apply(&sends);
    let seqs: Vec<_> = applied.records.iter().map(|r| (r.head.conversation, r.head.seq.0, r.head.ordinal.0)).collect();
    assert_eq!(seqs, [(a, 2, 1), (b, 2, 1), (a, 3, 2), (a, 4, 3), (b, 3, 2)]);
    assert_eq!(log.state.conversation(a).unwrap().last_seq, SeqId(4));
    assert_eq!(log.state.conversation(a).unwrap().last_ordinal, Ordinal(3));
}

#[test]
fn a_record_says_where_its_body_is() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    let applied = log.apply(&[Command::Probe, send(group, 10, id_at(BEGIN, 1), "hello")]);
    let record = &applied.records[0];
    let payload = log.entries.last().unwrap();
    let BodyPlace::InEntry { offset, len } = record.head.body else { panic!("a send's body is in its entry") };
    assert_eq!(&payload[offset as usize..(offset + len) as usize], b"hello");
    assert_eq!(&send_at(payload, record.command_offset).unwrap().body[..], b"hello");
    assert_eq!(record.head.index, log.state.applied());
    assert_eq!(record.origin.0, 9);
}

#[test]
fn server_msg_ids_rise_strictly_also_when_a_millisecond_is_full_or_time_falls() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    let sends: Vec<_> = (0..2500).map(|n| send(group, 10, id_at(BEGIN, n), "x")).collect();
    let mut ids: Vec<ServerMsgId> = log.apply(&sends).records.iter().map(|r| r.head.server_msg_id).collect();
    log.now -= 5000;
    let applied = log.apply(&[send(group, 10, id_at(BEGIN, 9999), "x")]);
    assert_eq!(applied.time, TimeMs(BEGIN), "the log's time never falls");
    ids.push(applied.records[0].head.server_msg_id);
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert_eq!(ids[0].time(), TimeMs(BEGIN));
    assert_eq!(ids[2500].time(), TimeMs(BEGIN + 2), "a full counter borrows the next ms");
}

#[test]
fn a_retry_gets_the_original_seq_id() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    let first = log.stored(send(group, 10, id_at(BEGIN, 1), "x"));
    log.now += 1000;
    log.stored(send(group, 10, id_at(BEGIN, 2), "y"));
    let again = log.stored(send(group, 10, id_at(BEGIN, 1), "x"));
    assert!(!first.duplicate && again.duplicate);
    assert_eq!((again.seq, again.server_msg_id, again.time), (first.seq, first.server_msg_id, first.time));
    assert_eq!(log.state.conversation(group).unwrap().last_seq, SeqId(3));
}

#[test]
fn a_retry_within_one_entry_gets_the_original_seq_id() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    let twice = [send(group, 10, id_at(BEGIN, 1), "x"), send(group, 10, id_at(BEGIN, 1), "x")];
    let applied = log.apply(&twice);
    assert_eq!(applied.records.len(), 1);
    assert!(matches!(applied.outcomes[1], Outcome::Sent(stored) if stored.duplicate && stored.seq == SeqId(2)));
}

#[test]
fn the_same_id_names_other_messages_of_other_senders_and_conversations() {
    let mut log = Log::new();
    let (a, b) = (log.group(1, &[10, 11]), log.group(2, &[10]));
    let id = id_at(BEGIN, 1);
    for (to, sender) in [(a, 10), (a, 11), (b, 10)] {
        assert!(!log.stored(send(to, sender, id, "x")).duplicate);
    }
}

#[test]
fn the_same_id_with_another_body_is_a_conflict() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    log.stored(send(group, 10, id_at(BEGIN, 1), "x"));
    assert_eq!(log.one(send(group, 10, id_at(BEGIN, 1), "y")), refused(Refusal::IdempotencyConflict));
}

#[test]
fn a_kicked_senders_retry_still_gets_its_seq_id() {
    let mut log = Log::new();
    let group = log.group(1, &[10, 11]);
    let first = log.stored(send(group, 11, id_at(BEGIN, 1), "x"));
    log.one(change(group, 10, &[], &[11], id_at(BEGIN, 50)));
    assert_eq!(log.stored(send(group, 11, id_at(BEGIN, 1), "x")).seq, first.seq);
    assert_eq!(log.one(send(group, 11, id_at(BEGIN, 2), "x")), refused(Refusal::NotMember));
}

#[test]
fn a_refused_send_takes_no_seq_id_and_changes_nothing() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    let mut uncounted = send_of(group, 10, id_at(BEGIN, 4), "x");
    uncounted.kind = RecordKind::MEMBERSHIP;
    let before = log.state.conversation(group).cloned();
    let cases = [
        (send(group, 12, id_at(BEGIN, 1), "x"), Refusal::NotMember),
        (send(ConversationId::group(77), 10, id_at(BEGIN, 2), "x"), Refusal::NoSuchConversation),
        (send(ConversationId::direct(UserId(1), UserId(2)), 1, id_at(BEGIN, 3), "x"), Refusal::NoSuchConversation),
        (Command::Send(uncounted), Refusal::Malformed),
        (send(group, 10, id_at(BEGIN + 30_001, 5), "x"), Refusal::ClockSkew),
        (send(ConversationId(5), 10, id_at(BEGIN, 6), "x"), Refusal::NoSuchConversation),
        (send(ConversationId::system(UserId(10)), 10, id_at(BEGIN, 7), "x"), Refusal::NoSuchConversation),
    ];
    for (command, refusal) in cases {
        let applied = log.apply(std::slice::from_ref(&command));
        assert_eq!(applied.outcomes, [refused(refusal)], "{command:?}");
        assert!(applied.records.is_empty());
    }
    assert_eq!(log.state.conversation(group).cloned(), before);
    assert_eq!(log.stored(send(group, 10, id_at(BEGIN + 30_000, 5), "x")).seq, SeqId(2));
}

#[test]
fn a_shard_refuses_what_is_not_in_its_buckets_and_everything_before_init() {
    let group = ConversationId::group(1);
    let mut log = Log { state: ShardState::new(ShardId(1)), now: BEGIN, entries: Vec::new() };
    for command in [send(group, 10, id_at(BEGIN, 1), "x"), Command::Seal, Command::Probe] {
        assert_eq!(log.one(command), refused(Refusal::WrongShard));
    }
    let bucket = group.bucket().0;
    log.one(init(&[(bucket, bucket, 2), (0, u16::MAX, 1)]));
    assert_eq!(log.state.buckets_owned(), 65535);
    assert_eq!(log.one(send(group, 10, id_at(BEGIN, 1), "x")), refused(Refusal::WrongShard));
    assert_eq!(log.one(init(&[(0, u16::MAX, 1)])), Outcome::Done);
    assert_eq!(log.state.buckets_owned(), 65535, "a second init is ignored");
}

#[test]
fn an_entry_that_does_not_decode_changes_nothing() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    let mut builder = BatchBuilder::new();
    builder.add(&send(group, 10, id_at(BEGIN, 1), "x"));
    builder.add(&Command::Probe);
    let mut bytes = builder.finish(TimeMs(BEGIN + 5)).to_vec();
    let kind_of_probe = bytes.len() - 8;
    bytes[kind_of_probe] = 200;
    let index = log.state.applied().next();
    let applied = log.state.apply(index, &bytes.into());
    assert_eq!(applied.outcomes, [refused(Refusal::Malformed)]);
    assert!(applied.records.is_empty());
    assert_eq!(log.state.applied(), index);
    assert_eq!(log.state.time(), TimeMs(BEGIN));
    assert_eq!(log.state.conversation(group).unwrap().last_seq, SeqId(1));
}

#[test]
#[should_panic(expected = "applied once, in order")]
fn an_entry_is_not_applied_twice() {
    let mut state = ShardState::new(ShardId(1));
    state.skip(LogIndex(3));
    state.skip(LogIndex(3));
}

#[test]
fn unsealed_bytes_begin_anew_at_a_seal() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    let before = log.state.unsealed_bytes();
    log.stored(send(group, 10, id_at(BEGIN, 1), "12345"));
    assert_eq!(log.state.unsealed_bytes(), before + 77);
    log.seal_after(0);
    assert_eq!((log.state.unsealed_bytes(), log.state.generation(), log.state.checked_upto()), (0, 2, 1));
}
