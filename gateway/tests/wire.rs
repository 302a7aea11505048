//! The public protocol's bytes: what is sent is read back, whatever is sent breaks nothing.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fanout::service::SendOutcome;
use fanout::{Code, Fault};
use gateway::wire::frame::{self, Frame, FrameError, Header};
use gateway::wire::operation::Operation;
use gateway::wire::{convert, proto, record, send};
use logstore::id::{
    BodyHash, ClientMsgId, ConversationId, LogIndex, Ordinal, SeqId, ServerMsgId, ShardId, TimeMs, UserId,
};
use logstore::{BodyPlace, RecordHead, RecordKind};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use sequencer::state::RecallBody;
use sequencer::{Record, Stored};

const LIMIT: usize = frame::CLIENT_FRAME_BYTES_MAX;

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let frame = (any::<u8>(), any::<u16>(), any::<u32>(), vec(any::<u8>(), 0..300)).prop_map(
        |(flags, operation, request_id, body)| Frame {
            header: Header { version: frame::VERSION, flags, operation, request_id },
            body: Bytes::from(body),
        },
    );
    vec(frame, 0..20)
}

fn encode(frames: &[Frame]) -> BytesMut {
    let mut out = BytesMut::new();
    for Frame { header, body } in frames {
        frame::encode_with(&mut out, header.flags, header.operation, header.request_id, |out| {
            out.extend_from_slice(body);
        });
    }
    out
}

fn decode_all(buffer: &mut BytesMut, into: &mut Vec<Frame>) -> Result<(), FrameError> {
    while let Some(frame) = frame::decode(buffer, LIMIT)? {
        into.push(frame);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_split_of_the_stream_decodes_the_same_frames(frames in frames(), sizes in vec(1usize..200, 1..200)) {
        let stream = encode(&frames);
        let (mut buffer, mut decoded, mut at) = (BytesMut::new(), Vec::new(), 0);
        for size in sizes.iter().cycle() {
            if at == stream.len() {
                break;
            }
            let end = (at + size).min(stream.len());
            buffer.extend_from_slice(&stream[at..end]);
            at = end;
            decode_all(&mut buffer, &mut decoded).unwrap();
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(decoded, frames);
    }

    #[test]
    fn random_bytes_never_panic_and_take_no_memory_for_absurd_lengths(bytes in vec(any::<u8>(), 0..2000)) {
        let mut buffer = BytesMut::from(&bytes[..]);
        let mut decoded = Vec::new();
        let _ = decode_all(&mut buffer, &mut decoded);
        prop_assert!(buffer.capacity() <= 2 * LIMIT + bytes.len());
        for frame in decoded {
            let _ = send::decode(&frame.body, 256);
        }
    }

    #[test]
    fn a_flipped_bit_in_a_send_never_panics(send in sends(), at in any::<usize>(), bit in 0u8..8) {
        let mut bytes = send.encode_to_vec();
        if !bytes.is_empty() {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        let _ = send::decode(&Bytes::from(bytes), 256);
    }

    #[test]
    fn a_send_is_read_as_prost_reads_it(send in sends()) {
        let body = Bytes::from(send.encode_to_vec());
        let decoded = send::decode(&body, 256).unwrap();
        prop_assert_eq!(decoded.epoch, send.epoch);
        prop_assert_eq!(decoded.want_accepted, send.want_accepted);
        prop_assert_eq!(decoded.messages.len(), send.messages.len());
        for (message, expected) in decoded.messages.iter().zip(&send.messages) {
            prop_assert_eq!(&message.conversation.to_bytes()[..], &expected.conversation[..]);
            prop_assert_eq!(&message.client_msg_id.0.to_be_bytes()[..], &expected.client_msg_id[..]);
            prop_assert_eq!(u32::from(message.kind.0), expected.kind);
            prop_assert_eq!(&message.body, &expected.content);
            prop_assert_eq!((message.epoch, message.n), (send.epoch, 0));
        }
    }

    #[test]
    fn fields_nobody_knows_yet_are_skipped(send in sends(), number in 5u32..1000, value in vec(any::<u8>(), 0..50)) {
        let mut body = BytesMut::new();
        prost::encoding::bytes::encode(number, &value, &mut body);
        prost::encoding::fixed64::encode(number + 1, &7, &mut body);
        send.encode(&mut body).unwrap();
        prost::encoding::fixed32::encode(number + 2, &7, &mut body);
        prost::encoding::uint64::encode(number + 3, &u64::MAX, &mut body);
        prop_assert_eq!(send::decode(&body.freeze(), 256).unwrap().messages.len(), send.messages.len());
    }

    #[test]
    fn a_cut_send_is_no_send(send in sends(), cut in 1usize..30) {
        let bytes = send.encode_to_vec();
        let cut = cut.min(bytes.len());
        let whole = proto::Send::decode(&bytes[..bytes.len() - cut]);
        let ours = send::decode(&Bytes::copy_from_slice(&bytes[..bytes.len() - cut]), 256);
        if whole.is_err() {
            prop_assert_eq!(ours.unwrap_err().code, Code::BadBody);
        }
    }

    #[test]
    fn a_reply_is_written_as_prost_writes_it(outcomes in vec(outcome(), 0..100)) {
        let mut ours = BytesMut::new();
        send::encode_reply(&mut ours, &outcomes);
        let field = |f: fn(&Stored) -> u64| outcomes.iter().map(|o| o.as_ref().map_or(0, f)).collect::<Vec<_>>();
        let positions = || outcomes.iter().zip(0u32..);
        let expected = proto::SendReply {
            seq_ids: field(|s| s.seq.0),
            server_msg_ids: field(|s| s.server_msg_id.0),
            server_times_ms: field(|s| s.time.0),
            refusals: positions().filter_map(|(o, i)| Some(convert::refusal(i, o.as_ref().err()?))).collect(),
            duplicates: positions().filter(|(o, _)| o.as_ref().is_ok_and(|s| s.duplicate)).map(|(_, i)| i).collect(),
        };
        prop_assert_eq!(&ours[..], &expected.encode_to_vec()[..]);
    }

    #[test]
    fn a_record_is_written_as_prost_writes_it(records in vec((head(), vec(any::<u8>(), 0..300)), 0..5)) {
        let mut ours = BytesMut::new();
        let mut expected = proto::Deliver::default();
        for (head, body) in records {
            record::put_element(&mut ours, &head, &body);
            expected.records.push(convert::record(&Record { head, body: body.into() }));
        }
        prop_assert_eq!(&ours[..], &expected.encode_to_vec()[..]);
    }

    #[test]
    fn what_is_removed_and_what_recalls_is_written_as_prost_writes_it(
        head in head(), seq in any::<u64>(), ordinal in any::<u64>(), sender in any::<u64>(), by_operator in any::<bool>(),
    ) {
        let (seq, ordinal, sender) = (SeqId(seq), Ordinal(ordinal), UserId(sender));
        let body = RecallBody { seq, ordinal, sender, by_operator }.encode();
        let recall = (RecordHead { kind: RecordKind::RECALL, body: BodyPlace::Made, ..head }, body);
        let removed = (RecordHead { kind: RecordKind::TEXT, body: BodyPlace::Removed, ..head }, Bytes::new());
        let mut ours = BytesMut::new();
        let mut expected = proto::Deliver::default();
        for (head, body) in [recall, removed] {
            record::put_element(&mut ours, &head, &body);
            expected.records.push(convert::record(&Record { head, body }));
        }
        prop_assert_eq!(&ours[..], &expected.encode_to_vec()[..]);
        let told = expected.records[0].recalled.unwrap();
        prop_assert_eq!((told.seq_id, told.ordinal, told.sender, told.by_operator), (seq.0, ordinal.0, sender.0, by_operator));
        prop_assert!(!expected.records[0].removed && expected.records[1].removed);
    }

    #[test]
    fn ids_survive_the_wire(id in any::<u128>()) {
        prop_assert_eq!(convert::id16(&convert::id_bytes(id), "id").unwrap(), id);
        let conversation = ConversationId(id);
        prop_assert_eq!(convert::conversation_id(&convert::id_bytes(id)).unwrap(), conversation);
        prop_assert_eq!(&convert::id_bytes(id)[..], &conversation.to_bytes()[..]);
    }
}

fn sends() -> impl Strategy<Value = proto::Send> {
    let message = (any::<u128>(), any::<u128>(), 0u32..=255, vec(any::<u8>(), 0..200)).prop_map(
        |(conversation, id, kind, content)| proto::Outgoing {
            conversation: convert::id_bytes(conversation),
            client_msg_id: convert::id_bytes(id),
            kind,
            content: content.into(),
        },
    );
    (any::<u32>(), vec(message, 0..70), any::<bool>()).prop_map(|(epoch, messages, want_accepted)| proto::Send {
        epoch,
        messages,
        want_accepted,
    })
}

fn outcome() -> impl Strategy<Value = SendOutcome> {
    let stored = (any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(seq, id, time, duplicate)| {
        Ok(Stored { seq: SeqId(seq), server_msg_id: ServerMsgId(id), time: TimeMs(time), duplicate })
    });
    let code = proptest::sample::select(Code::ALL);
    let refused = (code, ".{0,20}", 0u64..100_000)
        .prop_map(|(code, what, retry_ms)| Err(Fault::later(code, what, Duration::from_millis(retry_ms))));
    prop_oneof![4 => stored, 1 => refused]
}

fn head() -> impl Strategy<Value = RecordHead> {
    let small_or_any = || prop_oneof![0u64..3, any::<u64>()];
    (any::<u128>(), small_or_any(), small_or_any(), 0u8..128, small_or_any(), small_or_any(), any::<u128>()).prop_map(
        |(conversation, seq, ordinal, kind, sender, server_msg_id, client_msg_id)| RecordHead {
            conversation: ConversationId(conversation),
            seq: SeqId(seq),
            ordinal: Ordinal(ordinal),
            kind: RecordKind(kind),
            sender: UserId(sender),
            server_msg_id: ServerMsgId(server_msg_id),
            client_msg_id: ClientMsgId(client_msg_id),
            body_hash: BodyHash(0),
            time: TimeMs(seq ^ ordinal),
            index: LogIndex(1),
            body: BodyPlace::Made,
        },
    )
}

#[test]
fn an_absurd_length_is_refused_before_the_body_comes() {
    let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 0x7f, frame::VERSION][..]);
    assert!(matches!(frame::decode(&mut buffer, LIMIT), Err(FrameError::TooLong { length: 0x7fff_ffff, .. })));
    let mut buffer = BytesMut::from(&[7, 0, 0, 0, frame::VERSION][..]);
    assert!(matches!(frame::decode(&mut buffer, LIMIT), Err(FrameError::TooShort { length: 7 })));
    let mut buffer = BytesMut::from(&[8, 0, 0, 0, 9][..]);
    assert!(matches!(frame::decode(&mut buffer, LIMIT), Err(FrameError::Version { found: 9, known: 1 })));
}

#[test]
fn the_largest_frame_passes_and_one_byte_more_does_not() {
    let mut out = BytesMut::new();
    frame::encode_with(&mut out, 0, 20, 1, |out| out.resize(LIMIT, 0));
    assert_eq!(frame::decode(&mut out.clone(), LIMIT).unwrap().unwrap().body.len(), LIMIT - frame::HEADER_BYTES);
    let mut out = BytesMut::new();
    frame::encode_with(&mut out, 0, 20, 1, |out| out.resize(LIMIT + 1, 0));
    assert!(matches!(frame::decode(&mut out, LIMIT), Err(FrameError::TooLong { .. })));
}

#[test]
fn ids_that_are_not_16_bytes_and_kinds_that_are_not_bytes_are_bad_fields() {
    let good = proto::Outgoing {
        conversation: convert::id_bytes(1),
        client_msg_id: convert::id_bytes(2),
        kind: 1,
        content: Bytes::new(),
    };
    let decode = |message: proto::Outgoing| {
        let send = proto::Send { messages: vec![message], ..Default::default() };
        send::decode(&Bytes::from(send.encode_to_vec()), 256)
    };
    assert!(decode(good.clone()).is_ok());
    let bad = [
        proto::Outgoing { conversation: Bytes::new(), ..good.clone() },
        proto::Outgoing { client_msg_id: Bytes::from_static(b"short"), ..good.clone() },
        proto::Outgoing { kind: 256, ..good },
    ];
    for message in bad {
        assert_eq!(decode(message).unwrap_err().code, Code::BadField);
    }
}

#[test]
fn a_message_more_than_the_limit_refuses_the_batch() {
    let message = proto::Outgoing {
        conversation: convert::id_bytes(1),
        client_msg_id: convert::id_bytes(2),
        kind: 1,
        content: Bytes::new(),
    };
    let send = proto::Send { messages: vec![message; 5], ..Default::default() };
    let body = Bytes::from(send.encode_to_vec());
    assert_eq!(send::decode(&body, 5).unwrap().messages.len(), 5);
    assert_eq!(send::decode(&body, 4).unwrap_err().code, Code::TooMany);
}

#[test]
fn numbers_of_operations_are_their_names_for_ever() {
    let table: Vec<_> = Operation::ALL.iter().map(|o| (o.number(), o.name())).collect();
    for (number, name) in
        [(1, "hello"), (2, "ping"), (20, "message.send"), (200, "push.deliver"), (904, "health.probe")]
    {
        assert!(table.contains(&(number, name)));
    }
    for (number, _) in table {
        assert_eq!(Operation::from_number(number).unwrap().number(), number);
    }
}

#[test]
fn a_step_names_a_shard_and_how_far_it_is_told() {
    let step = convert::step(ShardId(3), LogIndex(9));
    assert_eq!((step.slot, step.value), (3, 9));
}
