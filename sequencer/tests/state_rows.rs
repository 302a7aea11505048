//! The bytes of sealed rows: what is written is read, keys sort as they are, and nothing else is accepted or makes a fuss.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use logstore::id::{
    BodyHash, Bucket, ClientMsgId, ConversationId, HistoryId, LogIndex, Ordinal, SegmentOrdinal, SeqId, ShardId,
    TimeMs, UserId,
};
use logstore::segment::Level;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use sequencer::state::{
    ConversationRow, DirectRow, EndedGeneration, ErasedRow, Erasure, Erasures, Figures, Floor, GroupRow, Importing,
    InboxRow, Interval, Key, Layout, MemberRow, MergedSpan, NameRow, OutboxHead, OwnRow, Peer, Recalled, RelationRow,
    Role, SessionRow, ShardRow, Trimmed, Upkeep, UserRow,
};
use sequencer::store::Row;
use sequencer::{AccountSeed, Effect, ImportId, Retention};

/// Few values, so that fields are often equal and the order is decided by a later one.
fn id() -> impl Strategy<Value = u64> {
    prop_oneof![0..3u64, Just(255), Just(256), Just(u64::MAX), any::<u64>()]
}
fn counter() -> impl Strategy<Value = u64> {
    0..u64::MAX
}
fn user() -> impl Strategy<Value = UserId> {
    id().prop_map(UserId)
}
fn shard() -> impl Strategy<Value = ShardId> {
    prop_oneof![0..3u16, Just(256), any::<u16>()].prop_map(ShardId)
}
fn conversation() -> impl Strategy<Value = ConversationId> {
    (id(), id()).prop_map(|(high, low)| ConversationId(u128::from(high) << 64 | u128::from(low)))
}

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![
        conversation().prop_map(Key::Conversation),
        (conversation(), user()).prop_map(|(conversation, user)| Key::Member(conversation, user)),
        user().prop_map(Key::User),
        "[ab\\PC]{0,4}".prop_map(Key::Name),
        (user(), user()).prop_map(|(user, peer)| Key::Relation(user, peer)),
        shard().prop_map(Key::Outbox),
        (shard(), id()).prop_map(|(to, page)| Key::OutboxPage(to, page)),
        shard().prop_map(Key::Inbox),
        Just(Key::Shard),
        conversation().prop_map(Key::trimmed),
        (conversation(), id()).prop_map(|(conversation, seq)| Key::recalled(conversation, SeqId(seq))),
        user().prop_map(Key::Erased),
        (user(), conversation()).prop_map(|(user, conversation)| Key::Place(user, conversation)),
        Just(Key::Figures),
    ]
}

fn group() -> impl Strategy<Value = GroupRow> {
    (any::<[u64; 4]>(), any::<u128>(), any::<u32>(), "\\PC{0,9}").prop_map(
        |([owner, creator, asked, created], request, member_count, name)| GroupRow {
            name,
            owner: UserId(owner),
            creator: UserId(creator),
            request: ClientMsgId(request),
            asked: BodyHash(asked),
            member_count,
            created: TimeMs(created),
        },
    )
}

fn direct() -> impl Strategy<Value = DirectRow> {
    [0..4u8, 0..4u8, 0..4u8, 0..4u8].prop_map(|[heard, exists, low, high]| DirectRow { heard, exists, low, high })
}

fn upkeep() -> impl Strategy<Value = Upkeep> {
    let floor = ([0..50u64, 0..50u64], any::<[u64; 2]>());
    let recalled = vec((1..100u64, 1..3u64, any::<[u64; 2]>()), 0..5);
    let retention = option::of(any::<[u64; 2]>());
    let import = option::of((any::<u128>(), any::<u64>(), any::<bool>(), option::of(direct())));
    (floor, recalled, retention, import).prop_map(
        |(([before, ordinal], [time, trimmed_at]), steps, retention, import)| {
            let (mut seq, mut recalled_ordinal) = (before, ordinal);
            let mut recalled = Vec::new();
            for (step, ordinal_step, [sender, recalled_at]) in steps {
                seq += step;
                recalled_ordinal += ordinal_step;
                recalled.push(Recalled {
                    seq: SeqId(seq),
                    ordinal: Ordinal(recalled_ordinal),
                    sender: UserId(sender),
                    recalled_at: LogIndex(recalled_at),
                });
            }
            Upkeep {
                floor: Floor {
                    before: SeqId(before),
                    ordinal: Ordinal(ordinal),
                    time: TimeMs(time),
                    trimmed_at: LogIndex(trimmed_at),
                },
                recalled,
                retention: retention.map(|[age_ms, records]| Retention { age_ms, records }),
                import: import.map(|(import, at, is_over, before)| Importing {
                    import: ImportId(import),
                    at: LogIndex(at),
                    is_over,
                    before,
                }),
            }
        },
    )
}

fn conversation_row() -> impl Strategy<Value = ConversationRow> {
    ([counter(), counter()], any::<[u64; 2]>(), option::of(direct()), option::of(group()), option::of(upkeep()))
        .prop_map(|([seq, ordinal], [index, time], direct, group, upkeep)| ConversationRow {
            last_seq: SeqId(seq),
            last_ordinal: Ordinal(ordinal),
            last_index: LogIndex(index),
            last_time: TimeMs(time),
            direct,
            group: group.map(Box::new),
            upkeep: upkeep.map(Arc::new),
        })
}

fn interval() -> impl Strategy<Value = Interval> {
    (any::<u64>(), option::of(1..u64::MAX)).prop_map(|(join, end)| Interval { join: SeqId(join), end: end.map(SeqId) })
}

fn member() -> impl Strategy<Value = MemberRow> {
    let role = prop_oneof![Just(Role::Owner), Just(Role::Admin), Just(Role::Member)];
    (vec(interval(), 0..4), role, any::<[u64; 8]>()).prop_map(|(intervals, role, n)| MemberRow {
        intervals: intervals.into(),
        visible_from: SeqId(n[0]),
        role,
        delivered: SeqId(n[1]),
        read: SeqId(n[2]),
        read_ordinal: Ordinal(n[3]),
        join_ordinal: Ordinal(n[4]),
        left_at: (Ordinal(n[5]), TimeMs(n[6])),
        changed_at: LogIndex(n[7]),
    })
}

fn user_row() -> impl Strategy<Value = UserRow> {
    let session = (any::<[u64; 2]>(), any::<[[u8; 32]; 2]>()).prop_map(|([session, expires], [next, previous])| {
        SessionRow { session, refresh_hash: next, previous_hash: previous, expires: TimeMs(expires) }
    });
    ("\\PC{0,9}", "\\PC{0,9}", any::<u64>(), vec(session, 0..4)).prop_map(|(name, password_phc, created, sessions)| {
        UserRow { name, password_phc, created: TimeMs(created), sessions }
    })
}

fn name_row() -> impl Strategy<Value = NameRow> {
    (any::<[u64; 2]>(), any::<u128>(), any::<bool>()).prop_map(|([user, claimed], request, confirmed)| NameRow {
        user: UserId(user),
        request: ClientMsgId(request),
        confirmed,
        claimed: TimeMs(claimed),
    })
}

fn effect() -> impl Strategy<Value = Effect> {
    prop_oneof![
        (user(), "\\PC{0,9}").prop_map(|(user, name)| Effect::ConfirmName { name, user }),
        (user(), "\\PC{0,9}", "\\PC{0,9}").prop_map(|(user, name, password_phc)| Effect::CreateAccount {
            user,
            name,
            seed: AccountSeed { password_phc }
        }),
        (user(), user()).prop_map(|(initiator, peer)| Effect::OpenPeer { initiator, peer }),
    ]
}

fn erasures_of(list: Vec<[u64; 3]>) -> Erasures {
    let erasure =
        |[user, upto, asked]: [u64; 3]| Erasure { user: UserId(user), upto: LogIndex(upto), asked: TimeMs(asked) };
    let mut list: Vec<_> = list.into_iter().map(erasure).collect();
    list.sort_by_key(|erasure| erasure.user);
    list.dedup_by_key(|erasure| erasure.user);
    Erasures::of(list).unwrap()
}

fn own() -> impl Strategy<Value = OwnRow> {
    let range = any::<[u16; 3]>().prop_map(|[from, to, shard]| (Bucket(from), Bucket(to), ShardId(shard)));
    let numbers = (any::<[u64; 2]>(), 0..3_000_000_000_000u64, 0..5u8);
    let erasures = option::of(vec(any::<[u64; 3]>(), 0..4));
    (0..4096u16, option::of(any::<u128>()), vec(range, 0..3), numbers, layout(), erasures).prop_map(
        |(shard, history, table, ([incarnation, epoch], time, given), layout, erasures)| {
            let mut own = OwnRow::new(ShardId(shard));
            own.history = history.map(HistoryId);
            own.incarnation = incarnation;
            own.set_table(epoch, table);
            own.advance(TimeMs(time));
            for n in 0..given {
                let id = own.next_server_msg_id();
                own.note_accepted(SeqId(u64::from(n)), id, BodyHash(epoch), n % 2 == 0);
                own.next_user_id();
            }
            own.layout = layout;
            if let Some(erasures) = erasures {
                own.trimmed = Trimmed { day: 1, on_day: epoch / 2, ever: epoch / 2 };
                own.erasures = erasures_of(erasures);
            }
            own
        },
    )
}

fn layout() -> impl Strategy<Value = Layout> {
    vec((1..9u64, 1..64u64, 0..=255u8, any::<u64>(), option::of(0..9u64)), 0..4).prop_map(|steps| {
        let mut next = 0;
        let spans = steps.into_iter().map(|(gap, count, level, asked_at, drops)| {
            let first = next + gap;
            // A lone seal that is written once more drops something.
            next = if level == 0 { first } else { first + count };
            let drops = if level == 0 { drops.or(Some(0)) } else { drops };
            let heads_above = LogIndex(drops.map_or(0, |_| asked_at / 2));
            let drops = SegmentOrdinal(drops.map_or(0, |more| next + more));
            let [first, last] = [first, next].map(SegmentOrdinal);
            MergedSpan { first, last, level: Level(level), asked_at: LogIndex(asked_at), drops, heads_above }
        });
        Layout::of(spans.collect()).unwrap()
    })
}

fn shard_row() -> impl Strategy<Value = ShardRow> {
    let ended = ([counter(), counter()], any::<u64>()).prop_map(|([number, after], ended)| EndedGeneration {
        number,
        after: LogIndex(after),
        ended: TimeMs(ended),
    });
    ([counter(), counter()], own(), option::of(any::<u64>()), vec(ended, 0..3)).prop_map(
        |([applied, generation], own, floor, window)| ShardRow {
            applied: LogIndex(applied),
            generation,
            own,
            floor: floor.map(TimeMs),
            window,
        },
    )
}

fn row() -> impl Strategy<Value = (Key, Row)> {
    let (of, member_of) = (Key::Conversation(ConversationId(1)), Key::Member(ConversationId(1), UserId(1)));
    let peer = prop_oneof![Just(Peer::Asked), Just(Peer::Known), Just(Peer::Unknown)];
    let head = (1..u64::MAX / 2, 0..u64::MAX / 2).prop_map(|(first, count)| OutboxHead { first, count });
    let inbox = (any::<u64>(), counter()).prop_map(|(incarnation, last)| InboxRow { incarnation, last });
    prop_oneof![
        conversation_row().prop_map(move |row| (of.clone(), Row::Conversation(row))),
        member().prop_map(move |row| (member_of.clone(), Row::Member(row))),
        user_row().prop_map(|row| (Key::User(UserId(1)), Row::User(row))),
        name_row().prop_map(|row| (Key::Name("n".into()), Row::Name(row))),
        peer.prop_map(|peer| (Key::Relation(UserId(1), UserId(2)), Row::Relation(RelationRow { peer }))),
        head.prop_map(|head| (Key::Outbox(ShardId(1)), Row::Outbox(head))),
        vec(effect(), 0..4).prop_map(|effects| (Key::OutboxPage(ShardId(1), 0), Row::OutboxPage(effects))),
        inbox.prop_map(|row| (Key::Inbox(ShardId(1)), Row::Inbox(row))),
        shard_row().prop_map(|row| (Key::Shard, Row::Shard(Box::new(row)))),
        id().prop_map(|seq| (Key::trimmed(ConversationId(1)), Row::Trimmed(SeqId(seq)))),
        Just((Key::recalled(ConversationId(1), SeqId(1)), Row::Recalled)),
        any::<[u64; 2]>().prop_map(|[upto, asked]| {
            (Key::Erased(UserId(1)), Row::Erased(ErasedRow { upto: LogIndex(upto), asked: TimeMs(asked) }))
        }),
        Just((Key::Place(UserId(1), ConversationId::group(1)), Row::Place)),
        any::<u64>().prop_map(|conversations| (Key::Figures, Row::Figures(Figures { conversations }))),
    ]
}

proptest! {
    #[test]
    fn keys_are_read_as_written_and_sort_as_they_are(one in key(), other in key()) {
        prop_assert_eq!(Key::decode(&one.encode()), Ok(one.clone()));
        prop_assert_eq!(one.encode().cmp(&other.encode()), one.cmp(&other));
    }

    #[test]
    fn a_damaged_key_is_refused_or_another_key(key in key(), place in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut bytes = key.encode().to_vec();
        bytes.push(0);
        prop_assert!(Key::decode(&bytes).is_err() || matches!(key, Key::Name(_)));
        bytes.pop();
        let place = place.index(bytes.len());
        if !matches!(key, Key::Name(_)) || place == 0 {
            prop_assert!(Key::decode(&bytes[..place]).is_err());
        }
        bytes[place] ^= 1u8 << bit;
        if let Ok(damaged) = Key::decode(&bytes) {
            prop_assert_eq!(&damaged.encode()[..], &bytes[..]);
            prop_assert_ne!(damaged, key);
        }
    }

    #[test]
    fn rows_are_read_as_written((key, row) in row()) {
        let bytes = row.encode();
        prop_assert_eq!(Row::decode(&key, &bytes), Ok(row));
    }

    #[test]
    fn a_cut_row_is_refused_and_so_is_a_longer_one((key, row) in row()) {
        let mut bytes = row.encode().to_vec();
        for len in 0..bytes.len() {
            prop_assert!(Row::decode(&key, &bytes[..len]).is_err());
        }
        bytes.push(0);
        prop_assert!(Row::decode(&key, &bytes).is_err());
    }

    #[test]
    fn a_flipped_bit_is_refused_or_reads_as_what_would_encode_to_it(
        (key, row) in row(), place in any::<prop::sample::Index>(), bit in 0..8u8,
    ) {
        let mut bytes = row.encode().to_vec();
        let place = place.index(bytes.len());
        bytes[place] ^= 1u8 << bit;
        if let Ok(decoded) = Row::decode(&key, &bytes) {
            prop_assert_eq!(&decoded.encode()[..], &bytes[..]);
        }
    }

    #[test]
    fn whatever_the_bytes_decoding_does_not_panic(key in key(), mut bytes in vec(any::<u8>(), 0..120)) {
        let _ = Key::decode(&bytes);
        let _ = Row::decode(&key, &bytes);
        bytes.insert(0, 1);
        let _ = Row::decode(&key, &bytes);
    }
}

#[test]
fn a_count_is_checked_before_memory_is_taken_for_it() {
    let mut page = vec![1];
    page.extend(u32::MAX.to_le_bytes());
    let refused = Row::decode(&Key::OutboxPage(ShardId(1), 0), &page).unwrap_err();
    assert_eq!((refused.offset, refused.what), (5, "a count that the bytes left can hold"));
}

#[test]
fn the_first_bytes_of_the_format_are_these() {
    let member = Key::Member(ConversationId(0x0102), UserId(3));
    let mut expected = vec![2];
    expected.extend(0x0102u128.to_be_bytes());
    expected.extend(3u64.to_be_bytes());
    assert_eq!(&member.encode()[..], expected);
    let row = ConversationRow {
        last_seq: SeqId(5),
        last_ordinal: Ordinal(4),
        last_index: LogIndex(3),
        last_time: TimeMs(2),
        direct: Some(DirectRow { heard: 3, exists: 3, low: 1, high: 2 }),
        group: None,
        upkeep: None,
    };
    let mut expected = vec![1];
    expected.extend([5u64, 4, 3, 2].map(u64::to_le_bytes).concat());
    expected.extend([1, 3, 3, 1, 2, 0]);
    assert_eq!(&Row::Conversation(row).encode()[..], expected);
}
