//! The gateway's side of the traces that break looser readings of attach, and the bounds of one connection.

use bytes::Bytes;
use logstore::id::{BodyHash, ClientMsgId, Ordinal, ServerMsgId, TimeMs, UserId};
use logstore::{BodyPlace, RecordHead, RecordKind};

use super::*;

const ME: ConnectionId = ConnectionId(77);
const OTHER: ConnectionId = ConnectionId(78);
const BOUNDS: Bounds = Bounds { outbound_bytes: 10_000, hold_bytes: 4_000 };

/// What a client reads: one word a push.
#[derive(Debug, PartialEq, Eq)]
enum Push {
    /// (group number, seq) of each record, and the step if there is one.
    Deliver(Vec<(u64, u64)>, Option<(u32, u64)>),
    Attached(Vec<(u64, u64)>, u64),
    CaughtUp(u32, u64, bool),
}

struct Client {
    feed: Feed,
    out: BytesMut,
}

impl Client {
    fn new(cursors: &[u64]) -> Client {
        let shards = (0..cursors.len() as u16).map(ShardId).collect();
        let cursors: Vec<_> = cursors.iter().copied().map(LogIndex).collect();
        Client { feed: Feed::new(ME, shards, &cursors, BOUNDS), out: BytesMut::new() }
    }

    /// Attached to one shard, told `told`.
    fn live(told: u64) -> Client {
        let mut client = Client::new(&[told]);
        let wish = client.begin()[0];
        client.answer(wish, told, &[], &[]);
        assert!(client.begin().is_empty());
        client.pushes();
        client
    }

    fn begin(&mut self) -> Vec<Wish> {
        self.feed.begin_round().into_iter().filter_map(|slot| self.feed.announce(slot)).collect()
    }

    fn live_entry(&mut self, slot: usize, index: u64, records: &[(u64, u64)]) -> Then {
        self.entry_from(OTHER, slot, index, records, 10)
    }

    fn entry_from(&mut self, origin: ConnectionId, slot: usize, index: u64, of: &[(u64, u64)], size: usize) -> Then {
        let mut bytes = BytesMut::new();
        let mut spots = Vec::new();
        for &(group, seq) in of {
            let start = bytes.len() as u32;
            record::put_element(&mut bytes, &head(group, seq, index), &vec![b'x'; size]);
            spots.push(Spot {
                conversation: ConversationId::group(group),
                seq: SeqId(seq),
                origin,
                start,
                end: bytes.len() as u32,
            });
        }
        self.feed.entry(slot, LogIndex(index), spots.iter(), &bytes, &mut self.out)
    }

    fn answer(&mut self, wish: Wish, as_of: u64, rows: &[(u64, u64)], records: &[(u64, u64)]) {
        let rows: Vec<_> = rows.iter().map(|&(group, head)| row(group, head, as_of)).collect();
        let body = Bytes::from_static(b"hello");
        let records: Vec<_> =
            records.iter().map(|&(g, seq)| Record { head: head(g, seq, 0), body: body.clone() }).collect();
        if !rows.is_empty() {
            assert!(self.feed.write_rows(wish, &rows, LogIndex(as_of), &mut self.out).is_none_or(|n| n == rows.len()));
        }
        if !records.is_empty() {
            assert!(self.feed.write_backlog(wish, &records, &mut self.out).is_none_or(|n| n == records.len()));
        }
        self.feed.answered(wish, &rows, LogIndex(as_of), &mut self.out);
    }

    fn pushes(&mut self) -> Vec<Push> {
        let mut pushes = Vec::new();
        while let Some(frame) = frame::decode(&mut self.out, frame::SERVER_FRAME_BYTES_MAX).unwrap() {
            assert_eq!((frame.header.flags, frame.header.request_id), (FLAG_PUSH, 0));
            pushes.push(match Operation::from_number(frame.header.operation).unwrap() {
                Operation::Deliver => {
                    let deliver = proto::Deliver::decode(frame.body).unwrap();
                    let records = deliver.records.iter().map(|r| (group_of(&r.conversation), r.seq_id)).collect();
                    Push::Deliver(records, deliver.step.map(|step| (step.slot, step.value)))
                }
                Operation::Attached => {
                    let attached = proto::Attached::decode(frame.body).unwrap();
                    let rows = attached.conversations.iter().map(|c| (group_of(&c.conversation), c.head_seq)).collect();
                    Push::Attached(rows, attached.as_of)
                }
                Operation::CaughtUp => {
                    let caught_up = proto::CaughtUp::decode(frame.body).unwrap();
                    let step = caught_up.step.unwrap();
                    Push::CaughtUp(step.slot, step.value, caught_up.all)
                }
                other => panic!("{other:?}"),
            });
        }
        pushes
    }

    fn told(&self, slot: usize) -> u64 {
        self.feed.own.told(slot, self.feed.slots[slot].taken).0
    }
}

fn group_of(bytes: &[u8]) -> u64 {
    u128::from_be_bytes(bytes.try_into().unwrap()) as u64
}

fn head(group: u64, seq: u64, index: u64) -> RecordHead {
    RecordHead {
        conversation: ConversationId::group(group),
        seq: SeqId(seq),
        ordinal: Ordinal(seq),
        kind: RecordKind::TEXT,
        sender: UserId(5),
        server_msg_id: ServerMsgId(seq),
        client_msg_id: ClientMsgId(u128::from(seq)),
        body_hash: BodyHash(0),
        time: TimeMs(1),
        index: LogIndex(index),
        body: BodyPlace::Made,
    }
}

fn row(group: u64, head_seq: u64, as_of: u64) -> ConversationSummary {
    ConversationSummary {
        conversation: ConversationId::group(group),
        head_seq: SeqId(head_seq),
        head_ordinal: Ordinal(head_seq),
        last_time: TimeMs(1),
        read_seq: SeqId(0),
        delivered_seq: SeqId(0),
        unread: 0,
        active: true,
        visible_from: SeqId(1),
        title: String::new(),
        peer: UserId(0),
        member_count: 2,
        as_of: LogIndex(as_of),
        shard: ShardId(0),
        last: None,
    }
}

use Push::{Attached, CaughtUp, Deliver};

#[test]
fn a_delayed_announcement_and_no_following_message_loses_nothing() {
    // The record is delivered while the announcement is under way, and nothing comes after it.
    let mut client = Client::new(&[0]);
    let wish = client.begin()[0];
    assert_eq!(client.live_entry(0, 6, &[(1, 2)]), Then::Nothing);
    assert_eq!(client.pushes(), []);
    client.answer(wish, 5, &[(1, 1)], &[(1, 1)]);
    assert_eq!(
        client.pushes(),
        [
            Attached(vec![(1, 1)], 5),
            Deliver(vec![(1, 1)], None),
            Deliver(vec![(1, 2)], Some((0, 6))),
            CaughtUp(0, 6, true)
        ]
    );
}

#[test]
fn what_was_held_and_is_in_the_answer_is_told_once() {
    let mut client = Client::new(&[0]);
    let wish = client.begin()[0];
    let _ = client.live_entry(0, 5, &[(1, 1)]);
    let _ = client.live_entry(0, 6, &[(1, 2)]);
    client.answer(wish, 5, &[(1, 1)], &[(1, 1)]);
    let told = client.pushes();
    assert_eq!(told[1..3], [Deliver(vec![(1, 1)], None), Deliver(vec![(1, 2)], Some((0, 6)))]);
}

#[test]
fn what_comes_before_the_announcement_is_left_to_its_answer() {
    let mut client = Client::new(&[3]);
    let _ = client.live_entry(0, 4, &[(1, 1)]);
    let wish = client.begin()[0];
    assert_eq!(wish.taken, LogIndex(3));
    client.answer(wish, 4, &[(1, 1)], &[(1, 1)]);
    assert_eq!(client.pushes()[1..], [Deliver(vec![(1, 1)], None), CaughtUp(0, 4, true)]);
}

#[test]
fn live_never_overtakes_a_backlog_that_is_still_being_queued() {
    let mut client = Client::new(&[0]);
    let wish = client.begin()[0];
    let rows = [row(1, 2, 9)];
    let records: Vec<_> =
        (1..=2).map(|seq| Record { head: head(1, seq, 0), body: Bytes::from(vec![b'y'; 100_000]) }).collect();
    client.feed.write_rows(wish, &rows, LogIndex(9), &mut client.out);
    assert_eq!(client.feed.write_backlog(wish, &records, &mut client.out), Some(2));
    let _ = client.live_entry(0, 10, &[(1, 3)]);
    client.feed.answered(wish, &rows, LogIndex(9), &mut client.out);
    let told = client.pushes();
    assert_eq!(told[1], Deliver(vec![(1, 1), (1, 2)], None));
    assert_eq!(told[2..], [Deliver(vec![(1, 3)], Some((0, 10))), CaughtUp(0, 10, true)]);
}

#[test]
fn the_cursor_never_passes_what_is_held() {
    // p = 6 is held: nothing above 5 is told before it is written, whatever arrives.
    let mut client = Client::new(&[4]);
    let wish = client.begin()[0];
    let _ = client.live_entry(0, 6, &[(1, 2)]);
    let _ = client.live_entry(0, 7, &[(2, 9)]);
    assert_eq!(client.told(0), 4);
    client.answer(wish, 5, &[], &[]);
    assert_eq!(
        client.pushes(),
        [Deliver(vec![(1, 2)], Some((0, 6))), Deliver(vec![(2, 9)], Some((0, 7))), CaughtUp(0, 7, true)]
    );
}

#[test]
fn a_backlog_moves_the_cursor_only_when_all_of_it_is_told() {
    let mut client = Client::new(&[0]);
    let wish = client.begin()[0];
    let records: Vec<_> = (1..=3).map(|seq| Record { head: head(1, seq, 0), body: Bytes::new() }).collect();
    client.feed.write_backlog(wish, &records, &mut client.out);
    assert_eq!(client.pushes(), [Deliver(vec![(1, 1), (1, 2), (1, 3)], None)]);
    assert_eq!(client.told(0), 0);
    client.feed.answered(wish, &[], LogIndex(8), &mut client.out);
    assert_eq!(client.pushes(), [CaughtUp(0, 8, true)]);
    assert_eq!(client.told(0), 8);
}

#[test]
fn one_slow_shard_delays_only_its_own() {
    let mut client = Client::new(&[0, 0]);
    let wishes = client.begin();
    client.answer(wishes[1], 4, &[], &[]);
    let _ = client.live_entry(1, 5, &[(2, 1)]);
    assert_eq!(client.pushes(), [CaughtUp(1, 4, false), Deliver(vec![(2, 1)], Some((1, 5)))]);
    client.answer(wishes[0], 9, &[], &[]);
    assert_eq!(client.pushes(), [CaughtUp(0, 9, true)]);
}

#[test]
fn a_smaller_seq_is_dropped_and_the_cursor_still_moves() {
    let mut client = Client::live(5);
    let _ = client.live_entry(0, 6, &[(1, 4)]);
    let _ = client.live_entry(0, 7, &[(1, 4), (1, 3)]);
    assert_eq!(client.pushes(), [Deliver(vec![(1, 4)], Some((0, 6)))]);
    assert_eq!(client.told(0), 7);
}

#[test]
fn a_hole_is_filled_from_the_log_before_delivery_goes_on() {
    let mut client = Client::live(5);
    let _ = client.live_entry(0, 6, &[(1, 1), (2, 1)]);
    // In entry 7, (2, 2) can be told, (1, 2) is missing: the cursor stays at 6.
    assert_eq!(client.live_entry(0, 7, &[(2, 2), (1, 3), (3, 1)]), Then::CatchUp);
    assert_eq!(client.live_entry(0, 8, &[(1, 4)]), Then::Nothing);
    assert_eq!(client.pushes(), [Deliver(vec![(1, 1), (2, 1)], Some((0, 6))), Deliver(vec![(2, 2)], None)]);
    let wish = client.begin()[0];
    assert_eq!(wish.taken, LogIndex(6));
    let _ = client.live_entry(0, 9, &[(1, 5)]);
    client.answer(wish, 8, &[(1, 4), (2, 2), (3, 1)], &[(1, 2), (1, 3), (1, 4), (2, 2), (3, 1)]);
    assert_eq!(
        client.pushes()[1..],
        [
            Deliver(vec![(1, 2), (1, 3), (1, 4), (3, 1)], None),
            Deliver(vec![(1, 5)], Some((0, 9))),
            CaughtUp(0, 9, true)
        ]
    );
}

#[test]
fn who_rejoins_has_a_gap_that_one_reading_of_the_log_settles() {
    let mut client = Client::live(5);
    let _ = client.live_entry(0, 6, &[(1, 4)]);
    assert_eq!(client.live_entry(0, 9, &[(1, 8)]), Then::CatchUp);
    client.pushes();
    let wish = client.begin()[0];
    client.answer(wish, 9, &[(1, 8)], &[(1, 8)]);
    assert_eq!(client.live_entry(0, 10, &[(1, 9)]), Then::Nothing);
    assert_eq!(client.pushes().pop(), Some(Deliver(vec![(1, 9)], Some((0, 10)))));
}

#[test]
fn a_hole_that_the_log_does_not_fill_ends_after_a_few_readings() {
    let mut client = Client::live(0);
    let _ = client.live_entry(0, 1, &[(1, 1)]);
    for round in 0..HOLES_MAX {
        assert_eq!(client.live_entry(0, 3, &[(1, 3)]), Then::CatchUp, "round {round}");
        let wish = client.begin()[0];
        client.answer(wish, 2, &[], &[]);
        assert!(client.begin().is_empty());
    }
    client.pushes();
    assert_eq!(client.live_entry(0, 3, &[(1, 3)]), Then::Nothing);
    assert_eq!(client.pushes(), [Deliver(vec![(1, 3)], Some((0, 3)))]);
}

#[test]
fn a_sender_gets_no_copy_of_its_own_and_no_hole_where_it_was() {
    let mut client = Client::live(0);
    let _ = client.live_entry(0, 1, &[(1, 1)]);
    let _ = client.entry_from(ME, 0, 2, &[(1, 2)], 10);
    assert_eq!(client.told(0), 2);
    assert_eq!(client.live_entry(0, 3, &[(1, 3)]), Then::Nothing);
    assert_eq!(client.pushes(), [Deliver(vec![(1, 1)], Some((0, 1))), Deliver(vec![(1, 3)], Some((0, 3)))]);
}

/// The device sends, its record is taken, and the answer is not written yet.
fn with_an_own_record_at(index: u64) -> (Client, SendNumber) {
    let mut client = Client::live(index - 1);
    let send = client.feed.send_begun();
    let _ = client.entry_from(ME, 0, index, &[(1, 1)], 10);
    (client, send)
}

#[test]
fn the_cursor_does_not_pass_an_own_record_before_its_answer_is_written() {
    let (mut client, send) = with_an_own_record_at(6);
    // Others' messages, in the same entry of another conversation and later: told, but without a step beyond 5.
    let _ = client.live_entry(0, 7, &[(2, 1)]);
    let _ = client.live_entry(0, 8, &[(2, 2), (1, 2)]);
    let told = [Deliver(vec![(2, 1)], Some((0, 5))), Deliver(vec![(2, 2), (1, 2)], Some((0, 5)))];
    assert_eq!((client.pushes(), client.told(0)), (told.into(), 5));
    client.feed.send_answered(send, &mut client.out);
    assert_eq!((client.pushes(), client.told(0)), (vec![Deliver(vec![], Some((0, 8)))], 8));
    let _ = client.live_entry(0, 9, &[(2, 3)]);
    assert_eq!(client.pushes(), [Deliver(vec![(2, 3)], Some((0, 9)))]);
}

#[test]
fn an_answer_that_is_faster_than_its_record_holds_nothing_up() {
    let mut client = Client::live(5);
    let send = client.feed.send_begun();
    client.feed.send_answered(send, &mut client.out);
    let _ = client.entry_from(ME, 0, 6, &[(1, 1)], 10);
    let _ = client.live_entry(0, 7, &[(2, 1)]);
    assert_eq!(client.pushes(), [Deliver(vec![(2, 1)], Some((0, 7)))]);
}

#[test]
fn an_own_record_holds_up_its_own_shard_only() {
    let mut client = Client::new(&[5, 5]);
    for wish in client.begin() {
        client.answer(wish, 5, &[], &[]);
    }
    client.pushes();
    let send = client.feed.send_begun();
    let _ = client.entry_from(ME, 0, 6, &[(1, 1)], 10);
    let _ = client.live_entry(1, 6, &[(2, 1)]);
    assert_eq!(client.pushes(), [Deliver(vec![(2, 1)], Some((1, 6)))]);
    client.feed.send_answered(send, &mut client.out);
    assert_eq!(client.pushes(), [], "of shard 0 nothing was told that a step is owed for");
}

#[test]
fn a_reading_of_the_log_does_not_carry_the_cursor_over_an_own_record() {
    let (mut client, send) = with_an_own_record_at(6);
    assert_eq!(client.feed.reset(0), Then::CatchUp);
    let wish = client.begin()[0];
    assert_eq!(wish.taken, LogIndex(6), "what this connection has, or will be answered, is not asked for again");
    client.answer(wish, 9, &[(1, 2)], &[(1, 2)]);
    assert_eq!(client.pushes().pop(), Some(CaughtUp(0, 5, true)));
    let _ = client.live_entry(0, 9, &[(2, 7)]);
    assert_eq!(client.pushes(), [], "the answer had it");
    client.feed.send_answered(send, &mut client.out);
    assert_eq!(client.pushes(), [Deliver(vec![], Some((0, 9)))]);
}

#[test]
fn a_message_whose_answer_left_open_what_became_of_it_is_told_as_everybodys() {
    let (mut client, send) = with_an_own_record_at(6);
    let _ = client.live_entry(0, 7, &[(2, 1)]);
    client.pushes();
    client.feed.send_left_open(send);
    assert_eq!(client.feed.drained(client.out.len()), Then::CatchUp);
    let wish = client.begin()[0];
    assert_eq!(wish.taken, LogIndex(5));
    client.answer(wish, 7, &[(1, 1), (2, 1)], &[(1, 1), (2, 1)]);
    assert_eq!(client.pushes()[1..], [Deliver(vec![(1, 1), (2, 1)], None), CaughtUp(0, 7, true)]);
    // And one that reaches the log only now.
    let _ = client.entry_from(ME, 0, 8, &[(1, 2)], 10);
    assert_eq!(client.pushes(), [Deliver(vec![(1, 2)], Some((0, 8)))]);
}

#[test]
fn an_entry_that_comes_after_the_answer_that_holds_it_is_dropped() {
    // The dispatcher was behind: the answer as of 8 covers what it delivers only now, also what the device may not see.
    let mut client = Client::new(&[0]);
    let wish = client.begin()[0];
    client.answer(wish, 8, &[(1, 2)], &[(1, 1), (1, 2)]);
    client.pushes();
    for (index, record) in [(6, (2, 5)), (7, (1, 2)), (8, (3, 1))] {
        assert_eq!(client.live_entry(0, index, &[record]), Then::Nothing);
    }
    assert_eq!((client.pushes(), client.told(0)), (vec![], 8));
    let _ = client.live_entry(0, 9, &[(1, 3)]);
    assert_eq!(client.pushes(), [Deliver(vec![(1, 3)], Some((0, 9)))]);
}

#[test]
fn a_cut_tail_makes_the_shard_pending_again_from_what_this_connection_was_told() {
    let mut client = Client::live(5);
    let _ = client.live_entry(0, 6, &[(1, 1)]);
    assert_eq!(client.feed.reset(0), Then::CatchUp);
    let _ = client.live_entry(0, 12, &[(1, 3)]);
    client.pushes();
    let wish = client.begin()[0];
    assert_eq!(wish.taken, LogIndex(6));
    client.answer(wish, 12, &[(1, 3)], &[(1, 2), (1, 3)]);
    assert_eq!(client.pushes()[1..], [Deliver(vec![(1, 2), (1, 3)], None), CaughtUp(0, 12, true)]);
}

#[test]
fn an_answer_to_an_earlier_round_is_void() {
    let mut client = Client::new(&[0]);
    let old = client.begin()[0];
    assert_eq!(client.feed.reset(0), Then::Nothing);
    let new = client.begin()[0];
    client.answer(old, 3, &[(1, 1)], &[(1, 1)]);
    assert_eq!(client.pushes(), []);
    client.answer(new, 4, &[(1, 1)], &[(1, 1)]);
    assert_eq!(client.pushes().pop(), Some(CaughtUp(0, 4, true)));
    assert!(client.begin().is_empty());
}

#[test]
fn too_much_held_is_announced_again_from_the_answer() {
    let mut client = Client::new(&[0]);
    let wish = client.begin()[0];
    for index in 6..40 {
        let _ = client.entry_from(OTHER, 0, index, &[(1, index)], 200);
    }
    client.answer(wish, 5, &[(1, 5)], &[(1, 5)]);
    assert_eq!(client.pushes(), [Attached(vec![(1, 5)], 5), Deliver(vec![(1, 5)], None)]);
    let again = client.begin()[0];
    assert_eq!(again.taken, LogIndex(5));
    let all: Vec<_> = (6..40).map(|index| (1, index)).collect();
    client.answer(again, 39, &[(1, 39)], &all);
    assert_eq!(client.pushes()[1..], [Deliver(all, None), CaughtUp(0, 39, true)]);
}

#[test]
fn what_all_shards_hold_for_a_connection_is_bounded_together() {
    let mut client = Client::new(&[0; 4]);
    let wishes = client.begin();
    for index in 1..=8 {
        for slot in 0..4 {
            let _ = client.entry_from(OTHER, slot, index, &[(slot as u64, index)], 200);
            assert!(client.feed.held_bytes() <= BOUNDS.hold_bytes);
        }
    }
    // The one that no room was left for was told what it missed by the next round; nobody lost or repeated anything.
    for wish in wishes {
        client.answer(wish, 0, &[], &[]);
    }
    let mut told = client.pushes();
    let again = client.begin();
    assert!(!again.is_empty() && again.len() < 4);
    for wish in again {
        let missed: Vec<_> = (1..=8).map(|index| (wish.slot as u64, index)).collect();
        client.answer(wish, 8, &[(wish.slot as u64, 8)], &missed);
        told.extend(client.pushes());
    }
    assert!(client.begin().is_empty());
    for group in 0..4 {
        let of_group = |push: &Push| match push {
            Deliver(records, _) => records.iter().copied().filter(|(g, _)| *g == group).collect(),
            _ => vec![],
        };
        let seqs: Vec<_> = told.iter().flat_map(of_group).collect();
        assert_eq!(seqs, (1..=8).map(|seq| (group, seq)).collect::<Vec<_>>());
    }
    assert_eq!(told.iter().filter(|push| matches!(push, CaughtUp(..))).count(), 4);
}

#[test]
fn a_shard_holds_nothing_before_it_is_announced() {
    let mut client = Client::new(&[0, 0]);
    assert_eq!(client.feed.begin_round(), [0, 1]);
    let first = client.feed.announce(0).unwrap();
    for slot in 0..2 {
        let _ = client.live_entry(slot, 3, &[(slot as u64, 1)]);
    }
    client.answer(first, 2, &[], &[]);
    assert_eq!(client.pushes(), [Deliver(vec![(0, 1)], Some((0, 3))), CaughtUp(0, 3, false)]);
    let second = client.feed.announce(1).unwrap();
    assert_eq!(client.feed.held_bytes(), 0, "what came before the announcement is in its answer");
    client.answer(second, 3, &[(1, 1)], &[(1, 1)]);
    assert_eq!(client.pushes()[1..], [Deliver(vec![(1, 1)], None), CaughtUp(1, 3, true)]);
}

#[test]
fn a_lagging_reader_becomes_a_puller_and_misses_nothing() {
    let mut client = Client::live(0);
    let mut index = 0;
    while client.out.len() < BOUNDS.outbound_bytes {
        index += 1;
        assert_eq!(client.entry_from(OTHER, 0, index, &[(1, index)], 1000), Then::Nothing);
    }
    let told = index;
    assert_eq!(client.entry_from(OTHER, 0, index + 1, &[(1, index + 1)], 1000), Then::Nothing);
    let queued = client.out.len();
    assert_eq!(client.entry_from(OTHER, 0, index + 2, &[(1, index + 2)], 1000), Then::Nothing);
    assert_eq!(client.out.len(), queued);
    assert!(!client.feed.takes_hints(&client.out) && client.begin().is_empty());
    assert_eq!(client.feed.drained(BOUNDS.outbound_bytes), Then::Nothing);
    client.pushes();
    assert_eq!(client.feed.drained(client.out.len()), Then::CatchUp);
    assert_eq!(client.feed.drained(client.out.len()), Then::Nothing);
    let wish = client.begin()[0];
    assert_eq!(wish.taken, LogIndex(told));
    client.answer(wish, told + 2, &[(1, told + 2)], &[(1, told + 1), (1, told + 2)]);
    assert_eq!(client.pushes()[1..], [Deliver(vec![(1, told + 1), (1, told + 2)], None), CaughtUp(0, told + 2, true)]);
}

#[test]
fn a_cursor_nobody_can_answer_is_forgotten_and_everything_is_told() {
    let mut client = Client::new(&[1_000_000]);
    let wish = client.begin()[0];
    client.feed.unanswered(wish, true);
    let wish = client.begin()[0];
    assert_eq!(wish.taken, LogIndex(0));
    client.answer(wish, 3, &[(1, 1)], &[(1, 1)]);
    assert_eq!(client.pushes().pop(), Some(CaughtUp(0, 3, true)));
}

#[test]
fn what_is_remembered_of_conversations_is_bounded() {
    let mut client = Client::live(0);
    for group in 0..2 * GIVEN_MAX as u64 {
        let _ = client.live_entry(0, group + 1, &[(group, 1)]);
        assert!(client.feed.given.len() <= GIVEN_MAX);
        client.out.clear();
    }
}
