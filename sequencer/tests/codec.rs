//! The bytes of entries: what is written is read, and nothing else is accepted or makes a fuss.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use logstore::RecordKind;
use logstore::id::{
    BodyHash, Bucket, ClientMsgId, ConnectionId, ConversationId, HistoryId, LogIndex, Ordinal, SegmentOrdinal, SeqId,
    ServerMsgId, ShardId, TimeMs, UserId,
};
use logstore::segment::Level;
use proptest::collection::vec;
use proptest::prelude::*;
use sequencer::state::{
    ConversationRow, DirectRow, Interval, MemberRow, MembershipBody, NameRow, Peer, RelationRow, Role, ShardState,
    UserRow, send_at,
};
use sequencer::{
    AccountSeed, Batch, BatchBuilder, Command, CursorMove, Effect, GroupChange, Import, ImportId, ImportedRecord,
    Outcome, Recall, Refusal, Retention, Send, encoded_len,
};

fn user() -> impl Strategy<Value = UserId> {
    any::<u64>().prop_map(UserId)
}
fn users() -> impl Strategy<Value = Vec<UserId>> {
    vec(user(), 0..6)
}
fn conversation() -> impl Strategy<Value = ConversationId> {
    any::<u128>().prop_map(ConversationId)
}
fn request() -> impl Strategy<Value = ClientMsgId> {
    any::<u128>().prop_map(ClientMsgId)
}
fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}
fn seed() -> impl Strategy<Value = AccountSeed> {
    text().prop_map(|password_phc| AccountSeed { password_phc })
}

fn send() -> impl Strategy<Value = Command> {
    let ids = (conversation(), user(), any::<u64>(), request());
    (ids, any::<u8>(), any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..300)).prop_map(
        |((conversation, sender, origin, client_msg_id), kind, hash, checked_upto, body)| {
            Command::Send(Send {
                conversation,
                sender,
                origin: ConnectionId(origin),
                client_msg_id,
                kind: RecordKind(kind),
                body_hash: BodyHash(hash),
                checked_upto,
                body: body.into(),
            })
        },
    )
}

fn effect() -> impl Strategy<Value = Effect> {
    prop_oneof![
        (user(), text(), seed()).prop_map(|(user, name, seed)| Effect::CreateAccount { user, name, seed }),
        (user(), text()).prop_map(|(user, name)| Effect::ConfirmName { name, user }),
        (user(), user()).prop_map(|(initiator, peer)| Effect::OpenPeer { initiator, peer }),
        (conversation(), user(), any::<[bool; 3]>()).prop_map(|(conversation, home_of, [low, high, exists])| {
            Effect::GrantDirect { conversation, home_of, low_may_send: low, high_may_send: high, exists }
        }),
        (user(), user(), any::<bool>()).prop_map(|(initiator, peer, exists)| Effect::PeerAnswered {
            initiator,
            peer,
            exists
        }),
    ]
}

fn cursor() -> impl Strategy<Value = CursorMove> {
    (conversation(), user(), any::<[u64; 3]>()).prop_map(|(conversation, user, [delivered, read, ordinal])| {
        CursorMove {
            conversation,
            user,
            delivered: SeqId(delivered),
            read: SeqId(read),
            read_ordinal: Ordinal(ordinal),
        }
    })
}

fn range() -> impl Strategy<Value = (Bucket, Bucket, ShardId)> {
    any::<[u16; 3]>().prop_map(|[from, to, shard]| (Bucket(from), Bucket(to), ShardId(shard)))
}

fn member() -> impl Strategy<Value = MemberRow> {
    (any::<[u64; 8]>(), vec((any::<u64>(), prop::option::of(1..u64::MAX)), 0..3), 0..3usize).prop_map(
        |([visible_from, delivered, read, read_ordinal, join_ordinal, left, at, changed], intervals, role)| MemberRow {
            intervals: intervals
                .iter()
                .map(|(join, end)| Interval { join: SeqId(*join), end: end.map(SeqId) })
                .collect(),
            visible_from: SeqId(visible_from),
            role: [Role::Owner, Role::Admin, Role::Member][role],
            delivered: SeqId(delivered),
            read: SeqId(read),
            read_ordinal: Ordinal(read_ordinal),
            join_ordinal: Ordinal(join_ordinal),
            left_at: (Ordinal(left), TimeMs(at)),
            changed_at: LogIndex(changed),
        },
    )
}

fn row() -> impl Strategy<Value = ConversationRow> {
    ([0..u64::MAX, 0..u64::MAX, 0..u64::MAX, 0..u64::MAX], prop::option::of([0..4u8, 0..4u8])).prop_map(
        |([seq, ordinal, index, time], direct)| ConversationRow {
            last_seq: SeqId(seq),
            last_ordinal: Ordinal(ordinal),
            last_index: LogIndex(index),
            last_time: TimeMs(time),
            direct: direct.map(|[low, high]| DirectRow { heard: 3, exists: 3, low, high }),
            group: None,
            upkeep: None,
        },
    )
}

fn imported() -> impl Strategy<Value = ImportedRecord> {
    let ids = (conversation(), any::<u128>(), user(), request());
    (ids, any::<[u64; 5]>(), any::<u8>(), prop::option::of(vec(any::<u8>(), 0..300))).prop_map(
        |((conversation, import, sender, client_msg_id), [seq, ordinal, server, hash, time], kind, body)| {
            ImportedRecord {
                conversation,
                import: ImportId(import),
                seq: SeqId(seq),
                ordinal: Ordinal(ordinal),
                kind: RecordKind(kind),
                sender,
                server_msg_id: ServerMsgId(server),
                client_msg_id,
                body_hash: BodyHash(hash),
                time: TimeMs(time),
                body: body.map(Bytes::from),
            }
        },
    )
}

fn import() -> impl Strategy<Value = Import> {
    let place = || (conversation(), any::<u128>().prop_map(ImportId));
    let account = (user(), text(), text(), any::<u64>());
    let name = (text(), user(), request(), any::<bool>(), any::<u64>());
    let peer = prop_oneof![Just(Peer::Asked), Just(Peer::Known), Just(Peer::Unknown)];
    prop_oneof![
        any::<[u64; 2]>()
            .prop_map(|[record, user]| Import::Ids { last_record: ServerMsgId(record), last_user: UserId(user) }),
        account.prop_map(|(user, name, password_phc, created)| {
            let row = UserRow { name, password_phc, created: TimeMs(created), sessions: Vec::new() };
            Import::Account { user, row }
        }),
        name.prop_map(|(name, user, request, confirmed, claimed)| {
            Import::Name { name, row: NameRow { user, request, confirmed, claimed: TimeMs(claimed) } }
        }),
        (user(), user(), peer)
            .prop_map(|(user, other, peer)| { Import::Relation { user, peer: other, row: RelationRow { peer } } }),
        (place(), row()).prop_map(|((conversation, import), row)| Import::Begin { conversation, import, row }),
        (place(), vec((user(), member()), 0..4)).prop_map(|((conversation, import), members)| Import::Members {
            conversation,
            import,
            members
        }),
        imported().prop_map(Import::Record),
        (place(), any::<[u64; 3]>(), any::<u32>()).prop_map(
            |((conversation, import), [seq, ordinal, time], members)| {
                let (last_seq, last_ordinal, last_time) = (SeqId(seq), Ordinal(ordinal), TimeMs(time));
                Import::End { conversation, import, last_seq, last_ordinal, last_time, members }
            }
        ),
        place().prop_map(|(conversation, import)| Import::GiveUp { conversation, import }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let session = (user(), any::<u64>(), any::<[u8; 32]>(), any::<[u8; 32]>(), any::<u64>());
    prop_oneof![
        4 => send(),
        1 => (any::<u128>(), any::<u64>(), any::<u64>(), vec(range(), 0..5)).prop_map(
            |(history, incarnation, table_epoch, table)| Command::Init {
                history: HistoryId(history), incarnation, table_epoch, table,
            }
        ),
        1 => (text(), seed(), request()).prop_map(|(name, seed, request)| Command::ClaimName { name, seed, request }),
        1 => session.prop_map(|(user, session, presented, next, expires)| Command::RotateSession {
            user, session, presented, next, expires: TimeMs(expires),
        }),
        1 => (user(), any::<u64>(), any::<[u8; 32]>(), any::<u64>()).prop_map(
            |(user, session, refresh_hash, expires)| Command::OpenSession {
                user, session, refresh_hash, expires: TimeMs(expires),
            }
        ),
        1 => (any::<u128>(), any::<u64>()).prop_map(|(history, incarnation)| Command::BeginHistory {
            history: HistoryId(history), incarnation,
        }),
        1 => (user(), user()).prop_map(|(initiator, peer)| Command::OpenDirect { initiator, peer }),
        1 => (conversation(), user(), request(), text(), users()).prop_map(
            |(group, creator, request, name, members)| Command::GroupCreate { group, creator, request, name, members }
        ),
        1 => (conversation(), user(), (request(), any::<u64>(), user()), users(), users()).prop_map(
            |(group, actor, (request, checked_upto, heir), add, remove)| {
                Command::GroupChange(GroupChange { group, actor, request, checked_upto, heir, add, remove })
            }
        ),
        1 => (conversation(), any::<[u64; 3]>()).prop_map(|(conversation, [before, ordinal, time])| Command::Trim {
            conversation, before: SeqId(before), ordinal: Ordinal(ordinal), time: TimeMs(time),
        }),
        1 => (conversation(), user(), request(), any::<[u64; 3]>(), user(), any::<bool>()).prop_map(
            |(conversation, actor, request, [checked_upto, seq, ordinal], sender, by_operator)| {
                let (seq, ordinal) = (SeqId(seq), Ordinal(ordinal));
                Command::Recall(Recall { conversation, actor, request, checked_upto, seq, ordinal, sender, by_operator })
            }
        ),
        1 => user().prop_map(|user| Command::Erase { user }),
        1 => (user(), any::<u64>()).prop_map(|(user, upto)| Command::Erased { user, upto: LogIndex(upto) }),
        1 => (conversation(), prop::option::of(any::<[u64; 2]>())).prop_map(|(conversation, retention)| {
            let retention = retention.map(|[age_ms, records]| Retention { age_ms, records });
            Command::Retain { conversation, retention }
        }),
        3 => import().prop_map(|step| Command::Import(Box::new(step))),
        1 => vec(cursor(), 0..4).prop_map(Command::MoveCursors),
        1 => (any::<u16>(), any::<u64>(), any::<u64>(), vec(effect(), 0..4)).prop_map(
            |(from, incarnation, first, effects)| Command::Effects { from: ShardId(from), incarnation, first, effects }
        ),
        1 => (any::<u16>(), any::<u64>(), any::<u64>()).prop_map(|(to, incarnation, upto)| Command::AckEffects {
            to: ShardId(to), incarnation, upto,
        }),
        1 => Just(Command::Seal),
        1 => Just(Command::Probe),
        1 => (any::<u64>(), any::<u64>(), any::<u8>(), 0..3u64).prop_map(|(first, last, level, drops)| Command::Merge {
            first: SegmentOrdinal(first), last: SegmentOrdinal(last), level: Level(level), drops: SegmentOrdinal(drops),
        }),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    (any::<u64>(), vec(command(), 0..12)).prop_map(|(time, commands)| Batch { time: TimeMs(time), commands })
}

fn initialised() -> ShardState {
    let init = Command::Init {
        history: HistoryId(1),
        incarnation: 1,
        table_epoch: 1,
        table: vec![(Bucket(0), Bucket(u16::MAX), ShardId(1))],
    };
    let mut state = ShardState::new(ShardId(1));
    state.apply(LogIndex(1), &Batch { time: TimeMs(1), commands: vec![init] }.encode());
    state
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(batch in batch()) {
        let payload = batch.encode();
        prop_assert_eq!(payload.len(), 16 + batch.commands.iter().map(encoded_len).sum::<usize>());
        prop_assert_eq!(Batch::decode(&payload).unwrap(), batch);
    }

    #[test]
    fn one_builder_makes_one_entry_after_another(batches in vec(batch(), 1..5)) {
        let mut builder = BatchBuilder::new();
        for batch in batches {
            prop_assert!(builder.is_empty());
            let lens: Vec<_> = batch.commands.iter().map(|command| builder.add(command)).collect();
            prop_assert_eq!(builder.count() as usize, batch.commands.len());
            let payload = builder.finish(batch.time);
            prop_assert_eq!(lens.last().copied().unwrap_or(16), payload.len());
            prop_assert_eq!(payload, batch.encode());
        }
    }

    #[test]
    fn a_send_is_found_again_by_its_offset(batch in batch()) {
        let payload = batch.encode();
        let mut offset = 16;
        for command in &batch.commands {
            match command {
                Command::Send(send) => prop_assert_eq!(&send_at(&payload, offset).unwrap(), send),
                _ => prop_assert!(send_at(&payload, offset).is_err()),
            }
            offset += encoded_len(command) as u32;
        }
        prop_assert!(send_at(&payload, offset).is_err());
    }

    #[test]
    fn every_cut_of_an_entry_is_refused(batch in batch(), cut in any::<prop::sample::Index>()) {
        let payload = batch.encode();
        prop_assert!(Batch::decode(&payload.slice(..cut.index(payload.len()))).is_err());
        let mut longer = payload.to_vec();
        longer.push(0);
        prop_assert!(Batch::decode(&longer.into()).is_err());
    }

    #[test]
    fn a_flipped_bit_is_refused_or_reads_as_what_would_encode_to_it(
        batch in batch(), place in any::<prop::sample::Index>(), bit in 0..8u8,
    ) {
        let mut bytes = batch.encode().to_vec();
        let place = place.index(bytes.len());
        bytes[place] ^= 1u8 << bit;
        let bytes = Bytes::from(bytes);
        if let Ok(decoded) = Batch::decode(&bytes) {
            prop_assert_eq!(decoded.encode(), bytes);
        }
    }

    #[test]
    fn whatever_the_bytes_apply_does_not_panic(
        bytes in vec(any::<u8>(), 0..200), offset in any::<u32>(), count in 0..4u32,
    ) {
        let mut state = initialised();
        let mut framed = vec![1, 0, 0, 0];
        framed.extend(u64::MAX.to_le_bytes());
        framed.extend(count.to_le_bytes());
        framed.extend(&bytes);
        for payload in [Bytes::from(bytes), Bytes::from(framed)] {
            let _ = Batch::decode(&payload);
            let _ = send_at(&payload, offset);
            let _ = MembershipBody::decode(&payload);
            state.apply(state.applied().next(), &payload);
        }
    }

    #[test]
    fn whatever_the_commands_apply_does_not_panic(batches in vec(batch(), 1..6)) {
        let mut state = initialised();
        for batch in batches {
            let applied = state.apply(state.applied().next(), &batch.encode());
            prop_assert_eq!(applied.outcomes.len(), batch.commands.len());
        }
        state.digest();
    }

    #[test]
    fn a_membership_body_is_read_as_written(actor in user(), joined in users(), left in users()) {
        let body = MembershipBody { actor, joined, left };
        let bytes = body.encode();
        prop_assert_eq!(MembershipBody::decode(&bytes), Some(body));
        prop_assert_eq!(MembershipBody::decode(&bytes[..bytes.len() - 1]), None);
    }
}

#[test]
fn a_count_is_checked_before_memory_is_taken_for_it() {
    let mut bytes = Batch { time: TimeMs(0), commands: vec![Command::MoveCursors(vec![])] }.encode().to_vec();
    let count = bytes.len() - 4;
    bytes[count..].copy_from_slice(&u32::MAX.to_le_bytes());
    let refused = Batch::decode(&bytes.clone().into()).unwrap_err();
    assert_eq!((refused.offset, refused.what), (bytes.len(), "a count that the bytes left can hold"));
    let applied = initialised().apply(LogIndex(2), &bytes.into());
    assert_eq!(applied.outcomes, [Outcome::Refused(Refusal::Malformed)]);
}

#[test]
fn the_first_bytes_of_the_format_are_these() {
    let send = Send {
        conversation: ConversationId(0x0102),
        sender: UserId(3),
        origin: ConnectionId(4),
        client_msg_id: ClientMsgId(5),
        kind: RecordKind::TEXT,
        body_hash: BodyHash(6),
        checked_upto: 7,
        body: Bytes::from_static(b"hi"),
    };
    let payload = Batch { time: TimeMs(0x0a0b), commands: vec![Command::Send(send), Command::Seal] }.encode();
    let mut expected = vec![1, 0, 0, 0, 0x0b, 0x0a, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
    expected.extend([1, 1, 0, 0, 66, 0, 0, 0]);
    expected.extend(0x0102u128.to_le_bytes());
    expected.extend([3u64.to_le_bytes(), 4u64.to_le_bytes()].concat());
    expected.extend(5u128.to_le_bytes());
    expected.extend([6u64.to_le_bytes(), 7u64.to_le_bytes()].concat());
    expected.extend(b"hi");
    expected.extend([12, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(payload, expected);
}
