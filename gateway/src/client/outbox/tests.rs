use bytes::Bytes;
use logstore::RecordKind;
use logstore::id::{ClientMsgId, ConversationId, SeqId, ServerMsgId, TimeMs};
use proptest::prelude::*;

use super::super::{Refusal, Stored};
use super::*;

const LIMITS: BatchLimits = BatchLimits { messages_max: 3, frame_bytes_max: 1000, in_flight_max: 2 };

fn message(n: u64, bytes: usize) -> Outgoing {
    Outgoing {
        conversation: ConversationId::group(n % 2),
        client_msg_id: ClientMsgId(u128::from(n)),
        kind: RecordKind::TEXT,
        content: Bytes::from(vec![b'x'; bytes]),
    }
}

fn outbox(messages: u64) -> Outbox<u64> {
    let mut outbox = Outbox::default();
    for n in 0..messages {
        outbox.push(message(n, 1), n);
    }
    outbox
}

fn stored(seq: u64) -> SendOutcome {
    Ok(Stored { seq_id: SeqId(seq), server_msg_id: ServerMsgId(seq), time: TimeMs(1), duplicate: false })
}

fn refused(number: u32, retry_after_ms: u64) -> SendOutcome {
    let retry_after = Duration::from_millis(retry_after_ms);
    Err(Refusal { number, message: String::new(), retry_after })
}

fn ids(batch: &Batch) -> Vec<u128> {
    batch.messages.iter().map(|message| message.client_msg_id.0).collect()
}

fn owners(settled: &[Settled<u64>]) -> Vec<u64> {
    settled.iter().map(|settled| settled.owner).collect()
}

#[test]
fn batches_are_cut_by_count_and_by_bytes_and_bounded_in_flight() {
    let mut outbox = outbox(7);
    let first = outbox.take_batch(LIMITS, 0).unwrap();
    let second = outbox.take_batch(LIMITS, 0).unwrap();
    assert_eq!((ids(&first), ids(&second)), (vec![0, 1, 2], vec![3, 4, 5]));
    assert!(outbox.take_batch(LIMITS, 0).is_none());
    assert_eq!(owners(&outbox.answered(first.id, vec![stored(1), stored(2), stored(3)], 0)), [0, 1, 2]);
    assert_eq!(ids(&outbox.take_batch(LIMITS, 0).unwrap()), [6]);

    let mut wide = Outbox::default();
    for n in 0..3 {
        wide.push(message(n, 500), n);
    }
    wide.push(message(3, 5000), 3);
    assert_eq!(ids(&wide.take_batch(LIMITS, 0).unwrap()), [0]);
}

#[test]
fn a_refusal_of_the_moment_sends_all_that_followed_again_in_order_in_a_new_epoch() {
    let mut outbox = outbox(6);
    let first = outbox.take_batch(LIMITS, 0).unwrap();
    let second = outbox.take_batch(LIMITS, 0).unwrap();
    let settled = outbox.answered(first.id, vec![stored(1), refused(400, 50), refused(401, 0)], 0);
    assert_eq!(owners(&settled), [0]);
    assert!(outbox.take_batch(LIMITS, 0).is_none(), "not before the rest is answered");
    assert_eq!(owners(&outbox.answered(second.id, vec![refused(401, 0), stored(2), refused(307, 0)], 0)), [4, 5]);
    assert!(outbox.take_batch(LIMITS, 49).is_none(), "not before the server wants it");
    assert_eq!(outbox.next_due_ms(), Some(50));
    let again = outbox.take_batch(LIMITS, 50).unwrap();
    assert_eq!((ids(&again), again.epoch), (vec![1, 2, 3], first.epoch + 1));
}

#[test]
fn what_was_under_way_when_the_connection_ended_goes_first_on_the_next() {
    let mut outbox = outbox(5);
    let lost = outbox.take_batch(LIMITS, 0).unwrap();
    outbox.disconnected();
    assert!(outbox.answered(lost.id, vec![stored(1); 3], 0).is_empty(), "the old connection's answers are void");
    let again = outbox.take_batch(LIMITS, 0).unwrap();
    assert_eq!(ids(&again), [0, 1, 2]);
    assert_eq!(outbox.len(), 5);
    assert_eq!(outbox.abandon(), [0, 1, 2, 3, 4]);
    assert!(outbox.is_empty());
}

proptest! {
    /// A server that takes messages of a conversation in order only, refuses at whim, and loses connections.
    #[test]
    fn every_message_is_settled_once_and_conversations_keep_their_order(whims in proptest::collection::vec(0..8u8, 1..200)) {
        let mut outbox = outbox(20);
        let mut settled = Vec::new();
        let mut whims = whims.into_iter();
        let mut now_ms = 0;
        while !outbox.is_empty() {
            now_ms += 100;
            let mut under_way = Vec::new();
            while let Some(batch) = outbox.take_batch(LIMITS, now_ms) {
                under_way.push(batch);
            }
            let mut broken = [false; 2];
            for batch in under_way {
                let mut outcomes = Vec::new();
                for message in &batch.messages {
                    let line = (message.client_msg_id.0 % 2) as usize;
                    outcomes.push(match whims.next().unwrap_or(7) {
                        _ if broken[line] => refused(401, 0),
                        0 => { broken[line] = true; refused(400, 10) }
                        1 => { broken[line] = true; refused(405, 0) }
                        2 => refused(307, 0),
                        _ => stored(1),
                    });
                }
                if whims.next() == Some(3) {
                    outbox.disconnected();
                } else {
                    settled.extend(outbox.answered(batch.id, outcomes, now_ms));
                }
            }
        }
        for line in 0..2 {
            let order: Vec<_> = settled.iter().map(|s| s.owner).filter(|n| n % 2 == line).collect();
            let sorted: Vec<_> = (0..20).filter(|n| n % 2 == line).collect();
            prop_assert_eq!(order, sorted);
        }
    }
}
