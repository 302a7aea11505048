//! A state made of sealed rows is the state that saw the whole log.

use std::collections::BTreeMap;

use bytes::Bytes;
use logstore::RecordHead;
use logstore::id::{ConversationId, LogIndex, Ordinal, SegmentOrdinal, SeqId, ShardId, TimeMs, UserId};
use logstore::segment::Level;
use proptest::prelude::*;
use sequencer::state::{FrozenGeneration, Key, OutboxRow, Rebuild, ShardState, WindowPart};
use sequencer::{Applied, Command, CursorMove, Effect, Error};

use crate::log::{BEGIN, Log, change, claim, create, id_at, send};

type Delta = Vec<(Bytes, Option<Bytes>)>;

/// A log whose deltas and records are kept as segments would keep them.
struct Sealed {
    log: Log,
    applied: Vec<Applied>,
    /// Per Seal: its entry, what became of the state, its delta.
    seals: Vec<(LogIndex, u128, Delta)>,
}

impl Sealed {
    fn new() -> Sealed {
        let mut log = Log::new();
        log.state.keep_frozen();
        Sealed { log, applied: Vec::new(), seals: Vec::new() }
    }

    fn apply(&mut self, commands: &[Command]) {
        let applied = self.log.apply(commands);
        if let Some(generation) = applied.sealed {
            let frozen = self.log.state.frozen(generation).unwrap();
            assert_eq!(
                (frozen.generation(), frozen.sealed_at(), frozen.time()),
                (generation, applied.index, applied.time)
            );
            self.seals.push((applied.index, self.log.state.digest(), delta(&frozen)));
        }
        self.applied.push(applied);
    }

    fn seal(&mut self) {
        self.apply(&[Command::Seal]);
    }

    fn heads(&self) -> impl Iterator<Item = &RecordHead> {
        self.applied.iter().flat_map(|applied| &applied.records).map(|record| &record.head)
    }

    /// The state at a Seal, of the deltas up to it.
    fn rebuilt(&self, seal: usize) -> ShardState {
        let mut rebuild = Rebuild::new(ShardId(1));
        for (_, _, delta) in self.seals[..=seal].iter().rev() {
            for (key, value) in delta {
                rebuild.add(key, value.as_deref()).unwrap();
            }
        }
        let mut state = rebuild.finish().unwrap();
        let sealed_at = self.seals[seal].0;
        for WindowPart { after, upto, .. } in state.window_parts() {
            assert!(upto <= sealed_at);
            state.restore_window(self.heads().filter(|head| after < head.index && head.index <= upto)).unwrap();
        }
        state
    }

    /// Whether a state made at a Seal cannot be told from the one that saw everything, then and ever after.
    fn check(&self, seal: usize) {
        let mut state = self.rebuilt(seal);
        let (sealed_at, digest, _) = &self.seals[seal];
        assert_eq!((state.applied(), state.digest()), (*sealed_at, *digest), "at Seal {seal}");
        assert_eq!(folded(&self.seals[..=seal]).digest(), *digest, "rows folded by hand");
        state.keep_frozen();
        for place in sealed_at.0 as usize..self.log.entries.len() {
            let applied = state.apply(LogIndex(place as u64 + 1), &self.log.entries[place]);
            // The first entry of the log is its Init, which a `Log` has applied before anybody looked.
            assert_eq!(applied, self.applied[place - 1], "entry {} after Seal {seal}", place + 1);
            if let Some(generation) = applied.sealed {
                let (_, _, expected) = &self.seals[generation as usize - 1];
                assert_eq!(delta(&state.frozen(generation).unwrap()), *expected);
            }
        }
        assert_eq!(state.digest(), self.log.state.digest());
        for user in 10..15 {
            let conversations = |state: &ShardState| -> Vec<ConversationId> {
                let mut ids: Vec<_> = state.conversations_of(UserId(user)).map(|(id, _)| id).collect();
                ids.sort_unstable();
                ids
            };
            assert_eq!(conversations(&state), conversations(&self.log.state));
        }
    }
}

fn delta(frozen: &FrozenGeneration) -> Delta {
    let rows: Delta = frozen.delta().collect();
    assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0), "keys rise strictly");
    rows
}

fn folded(seals: &[(LogIndex, u128, Delta)]) -> ShardState {
    let mut rows = BTreeMap::new();
    for (key, value) in seals.iter().flat_map(|(_, _, delta)| delta) {
        match value {
            Some(value) => drop(rows.insert(key.clone(), value.clone())),
            None => assert!(rows.remove(key).is_some(), "only what is there is removed"),
        }
    }
    ShardState::from_rows(ShardId(1), rows).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Send(u64, u64, u64),
    Change(u64, u64, Vec<u64>, Vec<u64>),
    Create(u64, u64),
    Read(u64, u64, u64),
    Claim(u64),
    Session(u64, u64),
    OpenDirect(u64, u64),
    /// Applies so many of the effects that wait.
    Pump(usize),
    /// Acknowledges up to so many after the first that waits.
    Acknowledge(u64),
    Pause(u64),
    Seal,
    /// First seal, how many follow it, level.
    Merge(u64, u64, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let users = || prop::collection::vec(10..15u64, 0..3);
    prop_oneof![
        6 => (0..3u64, 10..13u64, 0..3u64).prop_map(|(group, sender, n)| Step::Send(group, sender, n)),
        2 => (0..3u64, 10..15u64, users(), users()).prop_map(|(g, actor, add, remove)| Step::Change(g, actor, add, remove)),
        1 => (0..6u64, 10..15u64).prop_map(|(group, creator)| Step::Create(group, creator)),
        2 => (0..3u64, 10..15u64, 0..9u64).prop_map(|(group, user, seq)| Step::Read(group, user, seq)),
        2 => (0..40u64).prop_map(Step::Claim),
        1 => (0..40u64, 0..4u64).prop_map(|(user, session)| Step::Session(user, session)),
        1 => (0..40u64, 0..40u64).prop_map(|(user, peer)| Step::OpenDirect(user, peer)),
        3 => (1..5usize).prop_map(Step::Pump),
        2 => (0..5u64).prop_map(Step::Acknowledge),
        1 => (0..150_000u64).prop_map(Step::Pause),
        2 => Just(Step::Seal),
        1 => (1..6u64, 0..3u64, 0..3u8).prop_map(|(first, more, level)| Step::Merge(first, more, level)),
    ]
}

/// The user of a name, if it was claimed.
fn claimed(state: &ShardState, n: u64) -> UserId {
    state.name(&format!("name {n}")).map_or(UserId(n), |row| row.user)
}

fn command(log: &Log, step: &Step) -> Command {
    let (state, now) = (&log.state, log.now);
    let group = |number: u64| ConversationId::group(number);
    let own = ShardId(1);
    match step {
        // A few ids at a few times: some are sent again, within the window and beyond it.
        Step::Send(number, sender, n) => send(group(*number), *sender, id_at(now / 100_000 * 100_000, *n), "x"),
        Step::Change(number, actor, add, remove) => {
            log.with_heir(change(group(*number), *actor, add, remove, id_at(now, log.entries.len() as u64)))
        }
        Step::Create(number, creator) => create(*number, *creator, &[11, 12], *number),
        Step::Read(number, user, seq) => Command::MoveCursors(vec![CursorMove {
            conversation: group(*number),
            user: UserId(*user),
            delivered: SeqId(*seq),
            read: SeqId(*seq),
            read_ordinal: Ordinal(*seq),
        }]),
        Step::Claim(n) => claim(&format!("name {n}"), *n),
        Step::Session(n, session) => Command::OpenSession {
            user: claimed(state, *n),
            session: *session,
            refresh_hash: [*session as u8; 32],
            expires: TimeMs(now + 100_000),
        },
        Step::OpenDirect(n, peer) => Command::OpenDirect { initiator: claimed(state, *n), peer: claimed(state, *peer) },
        Step::Pump(count) => {
            let next = state.inbox(own).map_or(1, |row| row.last + 1);
            match state.outbox(own, usize::MAX) {
                Some((incarnation, first, effects)) => {
                    let waiting = effects.into_iter().skip((next - first) as usize).take(*count);
                    Command::Effects { from: own, incarnation, first: next, effects: waiting.collect() }
                }
                None => Command::Probe,
            }
        }
        Step::Acknowledge(count) => {
            let applied = state.inbox(own).map_or(0, |row| row.last);
            let first = state.outbox(own, 1).map_or(0, |(_, first, _)| first);
            Command::AckEffects { to: own, incarnation: 1, upto: applied.min(first + count) }
        }
        Step::Pause(_) => Command::Probe,
        Step::Seal => Command::Seal,
        Step::Merge(first, more, level) => Command::Merge {
            first: SegmentOrdinal(*first),
            last: SegmentOrdinal(first + more),
            level: Level(*level),
            drops: SegmentOrdinal(0),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_rebuilt_state_goes_on_as_the_one_that_saw_everything(
        steps in prop::collection::vec(prop::collection::vec(step(), 1..4), 1..60), at in any::<prop::sample::Index>(),
    ) {
        let mut sealed = Sealed::new();
        sealed.apply(&[0, 1, 2].map(|group| create(group, 10, &[11, 12], group)));
        for entry in &steps {
            sealed.log.now += entry.iter().map(|step| if let Step::Pause(ms) = step { *ms } else { 0 }).sum::<u64>();
            let commands: Vec<_> = entry.iter().map(|step| command(&sealed.log, step)).collect();
            sealed.apply(&commands);
        }
        if sealed.seals.is_empty() {
            sealed.seal();
        }
        for (generation, (_, _, expected)) in (1..).zip(&sealed.seals) {
            prop_assert_eq!(&delta(&sealed.log.state.frozen(generation).unwrap()), expected, "what came later changes nothing");
        }
        sealed.check(at.index(sealed.seals.len()));
        sealed.check(sealed.seals.len() - 1);
    }

    #[test]
    fn whatever_the_rows_they_give_a_state_or_an_error(
        key in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(), bit in 0..8u8,
        cut in any::<bool>(), in_key in any::<bool>(),
    ) {
        let sealed = busy();
        let mut rows: Vec<(Vec<u8>, Vec<u8>)> =
            sealed.seals[0].2.iter().map(|(key, value)| (key.to_vec(), value.as_ref().unwrap().to_vec())).collect();
        let row = key.index(rows.len());
        let bytes = if in_key { &mut rows[row].0 } else { &mut rows[row].1 };
        let place = place.index(bytes.len());
        if cut {
            bytes.truncate(place);
        } else {
            bytes[place] ^= 1u8 << bit;
        }
        if let Ok(mut state) = ShardState::from_rows(ShardId(1), rows) {
            let mut later = Vec::new();
            for n in 0..3 {
                later.push(send(ConversationId::group(1), 10, id_at(sealed.log.now, 100 + n), "x"));
                later.push(claim(&format!("later {n}"), n));
            }
            state.apply(state.applied().next(), &sequencer::Batch { time: TimeMs(sealed.log.now), commands: later }.encode());
            state.digest();
        }
    }
}

/// Something of everything, sealed once.
fn busy() -> Sealed {
    let mut sealed = Sealed::new();
    let group = ConversationId::group(1);
    sealed.apply(&[create(1, 10, &[11, 12], 1), send(group, 10, id_at(BEGIN, 1), "x")]);
    for n in 0..3 {
        sealed.apply(&[claim(&format!("name {n}"), n)]);
    }
    let steps = [
        Step::Pump(2),
        Step::Acknowledge(0),
        Step::Pump(9),
        Step::Session(0, 1),
        Step::OpenDirect(0, 1),
        Step::Pump(9),
        Step::Change(1, 10, vec![13], vec![12]),
    ];
    for step in steps {
        let next = command(&sealed.log, &step);
        sealed.apply(&[next]);
    }
    sealed.seal();
    sealed
}

#[test]
fn a_delta_holds_every_table_and_a_later_one_only_what_changed() {
    let mut sealed = busy();
    let keys = |delta: &Delta| -> Vec<Key> { delta.iter().map(|(key, _)| Key::decode(key).unwrap()).collect() };
    let tables: std::collections::BTreeSet<u8> = sealed.seals[0].2.iter().map(|(key, _)| key[0]).collect();
    assert_eq!(tables.into_iter().collect::<Vec<_>>(), (1..=9).chain(13..=14).collect::<Vec<u8>>());
    let group = ConversationId::group(1);
    sealed.apply(&[send(group, 10, id_at(BEGIN, 2), "y")]);
    sealed.seal();
    sealed.seal();
    assert_eq!(keys(&sealed.seals[1].2), [Key::Conversation(group), Key::Shard, Key::Figures]);
    assert_eq!(keys(&sealed.seals[2].2), [Key::Shard, Key::Figures]);
    (0..3).for_each(|seal| sealed.check(seal));
}

#[test]
fn an_outbox_is_sealed_in_pages_and_those_that_are_empty_go() {
    let mut sealed = Sealed::new();
    for n in 0..3 * OutboxRow::PAGE_LEN {
        sealed.apply(&[claim(&format!("name {n}"), n)]);
    }
    sealed.seal();
    let own = ShardId(1);
    let pages = |delta: &Delta| -> Vec<(u64, bool)> {
        let page = |(key, value): &(Bytes, Option<Bytes>)| match Key::decode(key).unwrap() {
            Key::OutboxPage(to, page) if to == own => Some((page, value.is_some())),
            _ => None,
        };
        delta.iter().filter_map(page).collect()
    };
    assert_eq!(pages(&sealed.seals[0].2), [(0, true), (1, true), (2, true), (3, true)], "numbers begin at 1");
    sealed.apply(&[Command::AckEffects { to: own, incarnation: 1, upto: 2 * OutboxRow::PAGE_LEN }]);
    sealed.seal();
    assert_eq!(pages(&sealed.seals[1].2), [(0, false), (1, false), (2, true), (3, true)]);
    sealed.apply(&[Command::AckEffects { to: own, incarnation: 1, upto: u64::MAX }]);
    sealed.seal();
    assert_eq!(pages(&sealed.seals[2].2), [(2, false), (3, false)]);
    sealed.apply(&[claim("later", 1)]);
    sealed.seal();
    assert_eq!(pages(&sealed.seals[3].2), [(3, true)]);
    (0..4).for_each(|seal| sealed.check(seal));
}

#[test]
fn frozen_generations_stay_whole_until_they_are_released() {
    let mut log = Log::new();
    let group = log.group(1, &[10]);
    let fill = |log: &mut Log, generations: u64| {
        for n in 0..generations {
            log.stored(send(group, 10, id_at(BEGIN, log.entries.len() as u64), &n.to_string()));
            log.seal_after(0);
        }
        (0..3000).for_each(|_| drop(log.one(Command::Probe)));
    };
    fill(&mut log, 3);
    assert!(log.state.frozen(2).is_none() && log.state.frozen(3).is_some(), "nobody asked for more");
    assert!(log.state.frozen(0).is_none() && log.state.frozen(4).is_none() && log.state.frozen(u64::MAX).is_none());
    log.state.keep_frozen();
    fill(&mut log, 4);
    let kept: Vec<u64> = (1..9).filter(|g| log.state.frozen(*g).is_some()).collect();
    assert_eq!(kept, [4, 5, 6, 7]);
    let before: Delta = log.state.frozen(5).unwrap().delta().collect();
    log.state.release_published(4);
    fill(&mut log, 1);
    let kept: Vec<u64> = (1..9).filter(|g| log.state.frozen(*g).is_some()).collect();
    assert_eq!(kept, [5, 6, 7, 8]);
    assert_eq!(delta(&log.state.frozen(5).unwrap()), before);
    assert_eq!(log.replayed().digest(), log.state.digest());
}

#[test]
fn rows_that_do_not_make_a_state_are_refused() {
    let sealed = busy();
    let rows = &sealed.seals[0].2;
    let without = |gone: &dyn Fn(&Key) -> bool| {
        let left = rows.iter().filter(|(key, _)| !gone(&Key::decode(key).unwrap()));
        ShardState::from_rows(ShardId(1), left.map(|(key, value)| (key, value.as_ref().unwrap())))
    };
    assert!(without(&|_| false).is_ok());
    for gone in [
        without(&|key| *key == Key::Shard),
        without(&|key| matches!(key, Key::Outbox(_))),
        without(&|key| matches!(key, Key::OutboxPage(..))),
    ] {
        assert!(matches!(gone, Err(Error::Rows { shard: ShardId(1), .. })), "{:?}", gone.err());
    }
    let of_another = ShardState::from_rows(ShardId(2), rows.iter().map(|(key, value)| (key, value.as_ref().unwrap())));
    assert!(matches!(of_another, Err(Error::Rows { shard: ShardId(2), .. })));
    let newer = ShardState::from_rows(ShardId(1), [(&[9u8][..], &[3u8][..])]);
    assert_eq!(newer.err().unwrap().to_string(), "shard 1, sealed row Shard: byte 0: a row of a version that is known");
    let table = ShardState::from_rows(ShardId(1), [(&[99u8, 1][..], &[1u8][..])]);
    assert_eq!(table.err().unwrap().to_string(), "shard 1, sealed row 6301: byte 0: a table this version knows");
}

#[test]
fn the_window_is_filled_in_order_and_with_nothing_that_cannot_be_in_it() {
    let mut sealed = Sealed::new();
    let group = ConversationId::group(1);
    sealed.apply(&[create(1, 10, &[11], 1)]);
    for n in 1..=3 {
        sealed.apply(&[send(group, 10, id_at(BEGIN, n), "x")]);
        sealed.seal();
    }
    let heads: Vec<RecordHead> = sealed.heads().copied().collect();
    let refused = |heads: &[RecordHead]| {
        let mut state = folded(&sealed.seals);
        match state.restore_window(heads) {
            Err(Error::Window { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(&[heads[2], heads[1]]), "ids of a later generation were restored before it");
    assert_eq!(refused(&[RecordHead { index: LogIndex(99), ..heads[3] }]), "it was accepted after the last Seal");
    assert_eq!(refused(&[RecordHead { conversation: ConversationId(5), ..heads[3] }]), "nobody can have sent it");
    assert_eq!(refused(&[RecordHead { sender: UserId(0), ..heads[3] }]), "nobody can have sent it");
    let mut state = folded(&sealed.seals);
    state.restore_window([&heads[1], &heads[0]]).unwrap();
    state.restore_window(&heads[2..]).unwrap();
    for head in &heads {
        let (stored, hash) = state.look_up_old(group, head.sender, head.client_msg_id).unwrap();
        assert_eq!((stored.seq, stored.time, hash), (head.seq, head.time, head.body_hash));
    }
}

#[test]
fn a_window_that_has_moved_on_takes_no_ids_from_before_it() {
    let mut sealed = Sealed::new();
    let group = ConversationId::group(1);
    sealed.apply(&[create(1, 10, &[11], 1), send(group, 10, id_at(BEGIN, 1), "x")]);
    sealed.seal();
    sealed.log.now += 120_001;
    sealed.apply(&[send(group, 10, id_at(sealed.log.now, 2), "y")]);
    sealed.seal();
    let mut state = folded(&sealed.seals);
    let part = WindowPart { generation: 2, after: sealed.seals[0].0, upto: sealed.seals[1].0 };
    assert_eq!(state.window_parts(), [part]);
    state.restore_window(sealed.heads()).unwrap();
    let found = |id| state.look_up_old(group, UserId(10), id).is_some();
    assert_eq!([found(id_at(BEGIN, 1)), found(id_at(sealed.log.now, 2))], [false, true]);
}

/// Effects are compared as rows are: by their bytes.
#[test]
fn waiting_effects_keep_their_order() {
    let mut sealed = Sealed::new();
    for n in 0..100 {
        sealed.apply(&[claim(&format!("name {n}"), n)]);
    }
    sealed.seal();
    let (_, first, effects) = sealed.rebuilt(0).outbox(ShardId(1), usize::MAX).unwrap();
    let names: Vec<String> = effects
        .into_iter()
        .map(|effect| match effect {
            Effect::CreateAccount { name, .. } => name,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((first, names), (1, (0..100).map(|n| format!("name {n}")).collect()));
}
