//! Random logs, applied to the state and to a model made of plain lists, which must agree.

use std::collections::{BTreeMap, BTreeSet};

use logstore::id::{
    BodyHash, ClientMsgId, ConversationId, LogIndex, Ordinal, SeqId, ServerMsgId, ShardId, TimeMs, UserId,
};
use proptest::prelude::*;
use sequencer::state::{MembershipBody, Role, ShardState};
use sequencer::{Applied, BatchBuilder, Command, CursorMove, GroupChange, Outcome, Refusal, Send};

use crate::log::{BEGIN, Log, change, create, id_at, init, send_of, users};

/// One step of a random log.
#[derive(Clone, Debug)]
enum Step {
    /// (group, sender, id number, how far the id's clock is from the log's, text)
    Send(u64, u64, u64, i64, u8),
    /// The same send again, by how many sends ago.
    Again(usize),
    Change {
        group: u64,
        actor: u64,
        add: Vec<u64>,
        remove: Vec<u64>,
        n: u64,
    },
    Read {
        group: u64,
        user: u64,
        seq: u64,
    },
    Seal,
}

fn step() -> impl Strategy<Value = Step> {
    let clock =
        prop_oneof![4 => Just(0i64), 1 => Just(-20_000), 1 => Just(-200_000), 1 => Just(29_000), 1 => Just(31_000)];
    let user = 10..15u64;
    prop_oneof![
        8 => (0..4u64, user.clone(), 0..8u64, clock, 0..2u8).prop_map(|(g, u, n, c, t)| Step::Send(g, u, n, c, t)),
        4 => (0..12usize).prop_map(Step::Again),
        3 => (0..4u64, user.clone(), prop::collection::vec(10..15u64, 0..3), prop::collection::vec(10..15u64, 0..3), 0..9u64)
            .prop_map(|(group, actor, add, remove, n)| Step::Change { group, actor, add, remove, n }),
        2 => (0..4u64, user, 0..20u64).prop_map(|(group, user, seq)| Step::Read { group, user, seq }),
        1 => Just(Step::Seal),
    ]
}

/// Entries: how much later than the one before, and their steps.
fn entries() -> impl Strategy<Value = Vec<(u64, Vec<Step>)>> {
    let pause = prop_oneof![3 => 0..2_000u64, 1 => 50_000..130_000u64];
    prop::collection::vec((pause, prop::collection::vec(step(), 1..6)), 1..40)
}

/// Turns steps into commands, given the time of their entry.
#[derive(Default)]
struct Writer {
    sends: Vec<Send>,
}

impl Writer {
    fn command(&mut self, step: &Step, now: u64) -> Command {
        match step {
            Step::Send(group, sender, n, clock, text) => {
                let id = id_at(now.saturating_add_signed(*clock), *n);
                let send = send_of(ConversationId::group(*group), *sender, id, &text.to_string());
                self.sends.push(send.clone());
                Command::Send(send)
            }
            Step::Again(ago) => match self.sends.iter().rev().nth(*ago) {
                Some(send) => Command::Send(send.clone()),
                None => Command::Probe,
            },
            Step::Change { group, actor, add, remove, n } => {
                change(ConversationId::group(*group), *actor, add, remove, id_at(now, 1000 + n))
            }
            Step::Read { group, user, seq } => Command::MoveCursors(vec![CursorMove {
                conversation: ConversationId::group(*group),
                user: UserId(*user),
                delivered: SeqId(0),
                read: SeqId(*seq),
                read_ordinal: Ordinal(u64::MAX),
            }]),
            Step::Seal => Command::Seal,
        }
    }
}

#[derive(Default)]
struct ModelGroup {
    /// Per record: whether it counts, and who may see it.
    records: Vec<(bool, BTreeSet<UserId>)>,
    members: BTreeMap<UserId, Role>,
    joined: BTreeMap<UserId, u64>,
    read: BTreeMap<UserId, u64>,
}

type Key = (ConversationId, UserId, ClientMsgId);

/// What the rules say, in lists and maps.
#[derive(Default)]
struct Model {
    time: u64,
    groups: BTreeMap<ConversationId, ModelGroup>,
    /// (generation, key, hash or request, seq)
    accepted: Vec<(u64, Key, (BodyHash, String), SeqId)>,
    /// Log times at which generations 1, 2, ... ended.
    ended: Vec<u64>,
    window_first: u64,
}

/// What both must agree on about an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Sent(SeqId, bool),
    Changed(SeqId),
    Done,
    Refused(Refusal),
}

fn said(outcome: &Outcome) -> Said {
    match outcome {
        Outcome::Sent(stored) => Said::Sent(stored.seq, stored.duplicate),
        Outcome::Group { seq, .. } => Said::Changed(*seq),
        Outcome::Refused(refusal) => Said::Refused(*refusal),
        _ => Said::Done,
    }
}

impl Model {
    fn new() -> Model {
        Model { window_first: 1, ..Model::default() }
    }

    fn entry(&mut self, time: u64, commands: &[Command]) -> Vec<Said> {
        self.time = self.time.max(time);
        let said = commands.iter().map(|command| self.command(command).unwrap_or_else(Said::Refused)).collect();
        // However many of its commands ask for it, an entry ends one generation, and belongs to it as a whole.
        if commands.contains(&Command::Seal) {
            self.ended.push(self.time);
        }
        while let Some(ended) = self.ended.get(self.window_first as usize - 1) {
            if self.time <= ended + 120_000 {
                break;
            }
            self.window_first += 1;
        }
        said
    }

    fn command(&mut self, command: &Command) -> Result<Said, Refusal> {
        match command {
            Command::Send(send) => {
                let key = (send.conversation, send.sender, send.client_msg_id);
                let content = (send.body_hash, String::new());
                if let Some(seq) = self.dedup(&key, &content)? {
                    return Ok(Said::Sent(seq, true));
                }
                let group = self.groups.get(&send.conversation).ok_or(Refusal::NoSuchConversation)?;
                if !group.members.contains_key(&send.sender) {
                    return Err(Refusal::NotMember);
                }
                Ok(Said::Sent(self.append(key, content, true, BTreeSet::new()), false))
            }
            Command::GroupCreate { group, creator, request, members, .. } => {
                let all: BTreeSet<UserId> = members.iter().copied().chain([*creator]).collect();
                self.groups.insert(*group, ModelGroup::default());
                self.change(*group, &all, &BTreeSet::new(), UserId(0));
                self.groups.get_mut(group).unwrap().members.insert(*creator, Role::Owner);
                let seq =
                    self.append((*group, *creator, *request), (BodyHash(0), "create".into()), false, BTreeSet::new());
                Ok(Said::Changed(seq))
            }
            Command::GroupChange(change) => self.group_change(change),
            Command::MoveCursors(moves) => {
                let step = &moves[0];
                if let Some(group) = self.groups.get_mut(&step.conversation) {
                    let seen = group.records.iter().rposition(|(_, audience)| audience.contains(&step.user));
                    let read = group.read.entry(step.user).or_default();
                    if seen.is_some_and(|last| step.read.0 <= last as u64 + 1) {
                        *read = step.read.0.max(*read);
                    }
                }
                Ok(Said::Done)
            }
            _ => Ok(Said::Done),
        }
    }

    fn group_change(&mut self, change: &GroupChange) -> Result<Said, Refusal> {
        let key = (change.group, change.actor, change.request);
        let content = (BodyHash(0), format!("{:?} {:?}", change.add, change.remove));
        if let Some(seq) = self.dedup(&key, &content)? {
            return Ok(Said::Changed(seq));
        }
        let group = self.groups.get(&change.group).ok_or(Refusal::NoSuchConversation)?;
        let role = *group.members.get(&change.actor).ok_or(Refusal::NotMember)?;
        let leaves = change.add.is_empty() && change.remove == [change.actor];
        let removes_owner =
            change.remove.iter().any(|u| *u != change.actor && group.members.get(u) == Some(&Role::Owner));
        let both = change.add.iter().any(|user| change.remove.contains(user));
        if !leaves && (role == Role::Member || removes_owner || both) {
            return Err(Refusal::NotAllowed);
        }
        let add = change.add.iter().copied().filter(|u| !group.members.contains_key(u)).collect::<BTreeSet<_>>();
        let remove = change.remove.iter().copied().filter(|u| group.members.contains_key(u)).collect::<BTreeSet<_>>();
        if add.is_empty() && remove.is_empty() {
            return Ok(Said::Changed(SeqId(0)));
        }
        let owner_leaves = remove.iter().any(|user| group.members.get(user) == Some(&Role::Owner));
        let mut stay = group.members.keys().filter(|user| !remove.contains(*user)).chain(&add).copied();
        if owner_leaves && stay.clone().next().is_some() && !stay.any(|user| user == change.heir) {
            return Err(Refusal::Retry);
        }
        self.change(change.group, &add, &remove, change.heir);
        Ok(Said::Changed(self.append(key, content, false, remove)))
    }

    fn change(&mut self, group: ConversationId, add: &BTreeSet<UserId>, remove: &BTreeSet<UserId>, heir: UserId) {
        let group = self.groups.get_mut(&group).unwrap();
        let seq = group.records.len() as u64 + 1;
        for user in add {
            group.members.insert(*user, Role::Member);
            group.joined.insert(*user, seq);
        }
        let removed: Vec<_> = remove.iter().map(|user| group.members.remove(user)).collect();
        if removed.contains(&Some(Role::Owner)) && !group.members.is_empty() {
            group.members.insert(heir, Role::Owner);
        }
    }

    fn dedup(&self, key: &Key, content: &(BodyHash, String)) -> Result<Option<SeqId>, Refusal> {
        let in_window = self.accepted.iter().find(|(generation, k, ..)| *generation >= self.window_first && k == key);
        if let Some((_, _, stored, seq)) = in_window {
            return if stored == content { Ok(Some(*seq)) } else { Err(Refusal::IdempotencyConflict) };
        }
        let clock = (key.2.0 >> 80) as u64;
        if clock > self.time + 30_000 {
            return Err(Refusal::ClockSkew);
        }
        let floor = self.window_first.checked_sub(2).map(|before| self.ended[before as usize]);
        if floor.is_some_and(|floor| clock - 30_000 <= floor) { Err(Refusal::Retry) } else { Ok(None) }
    }

    fn append(&mut self, key: Key, content: (BodyHash, String), counts: bool, leavers: BTreeSet<UserId>) -> SeqId {
        let group = self.groups.get_mut(&key.0).unwrap();
        let audience = group.members.keys().copied().chain(leavers).collect();
        group.records.push((counts, audience));
        let seq = SeqId(group.records.len() as u64);
        self.accepted.push((self.ended.len() as u64 + 1, key, content, seq));
        seq
    }

    /// An heir was sought at this moment for a change whose owner leaves.
    fn compare_heir(&self, command: &Command) {
        let Command::GroupChange(change) = command else { return };
        let Some(group) = self.groups.get(&change.group) else { return };
        if group.members.get(&change.actor) != Some(&Role::Owner) || !change.remove.contains(&change.actor) {
            return;
        }
        let stay = group.members.keys().filter(|user| !change.remove.contains(user));
        let heir = stay.min_by_key(|user| (group.joined[user], **user)).or(change.add.iter().min());
        assert_eq!(change.heir, heir.copied().unwrap_or_default());
    }

    /// Everything the state must say of groups when both have applied the same.
    fn compare(&self, state: &ShardState) {
        for (id, group) in &self.groups {
            let row = state.conversation(*id).unwrap();
            assert_eq!(row.last_seq.0, group.records.len() as u64);
            assert_eq!(row.last_ordinal.0, group.records.iter().filter(|(counts, _)| *counts).count() as u64);
            assert_eq!(row.group.as_ref().unwrap().member_count as usize, group.members.len());
            for user in users(&[10, 11, 12, 13, 14]) {
                let row = state.member(*id, user);
                let role = row.filter(|row| row.is_active()).map(|row| row.role);
                assert_eq!(role, group.members.get(&user).copied());
                for (place, (_, audience)) in group.records.iter().enumerate() {
                    let sees = row.is_some_and(|row| row.sees(SeqId(place as u64 + 1)));
                    assert_eq!(sees, audience.contains(&user), "{user} and record {} of {id}", place + 1);
                }
                assert_eq!(row.map_or(0, |row| row.read.0), group.read.get(&user).copied().unwrap_or(0));
                let listed = state.conversations_of(user).filter(|(listed, _)| listed == id).count();
                assert_eq!(listed, usize::from(row.is_some()));
            }
        }
    }
}

/// Checks what holds for every entry, whatever was asked.
#[derive(Default)]
struct Numbers {
    heads: BTreeMap<ConversationId, (u64, u64)>,
    last_id: ServerMsgId,
}

impl Numbers {
    fn check(&mut self, applied: &Applied) {
        for record in &applied.records {
            let head = &record.head;
            let (seq, ordinal) = self.heads.entry(head.conversation).or_default();
            *seq += 1;
            *ordinal += u64::from(head.kind.is_countable());
            assert_eq!((head.seq.0, head.ordinal.0), (*seq, *ordinal), "contiguous, counted");
            assert!(head.server_msg_id > self.last_id);
            self.last_id = head.server_msg_id;
            assert_eq!((head.index, head.time), (applied.index, applied.time));
            if let Some(body) = &record.made_body {
                assert!(MembershipBody::decode(body).is_some());
            }
        }
    }
}

fn payload(time: u64, commands: &[Command]) -> bytes::Bytes {
    let mut builder = BatchBuilder::new();
    for command in commands {
        builder.add(command);
    }
    builder.finish(TimeMs(time))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_state_agrees_with_the_model(entries in entries()) {
        let (mut log, mut model, mut writer, mut numbers) =
            (Log::new(), Model::new(), Writer::default(), Numbers::default());
        let begin = [create(0, 10, &[11, 12], 1), create(1, 11, &[], 2), create(2, 12, &[10, 11, 13, 14], 3)];
        model.entry(log.now, &begin);
        numbers.check(&log.apply(&begin));
        for (pause, steps) in entries {
            log.now += pause;
            let commands = steps.iter().map(|step| log.with_heir(writer.command(step, log.now)));
            let commands: Vec<_> = commands.inspect(|command| model.compare_heir(command)).collect();
            let applied = log.apply(&commands);
            numbers.check(&applied);
            let state_said: Vec<_> = applied.outcomes.iter().map(said).collect();
            prop_assert_eq!(state_said, model.entry(log.now, &commands), "{:?}", commands);
        }
        model.compare(&log.state);
        prop_assert_eq!(log.replayed().digest(), log.state.digest());
    }

    #[test]
    fn how_commands_are_cut_into_entries_does_not_matter(entries in entries(), cut in 1..7usize) {
        // Where the window ends is decided after an entry, so here it never does: only pauses within two minutes.
        let mut writer = Writer::default();
        let mut commands = vec![init(&[(0, u16::MAX, 1)]), create(0, 10, &[11, 12], 1), create(1, 11, &[10], 2)];
        let steps = entries.iter().flat_map(|(_, steps)| steps);
        commands.extend(steps.map(|step| writer.command(step, BEGIN)));
        let run = |len: usize| {
            let mut state = ShardState::new(ShardId(1));
            let entry = |(place, chunk): (usize, &[Command])| {
                state.apply(LogIndex(place as u64 + 1), &payload(BEGIN, chunk))
            };
            let applied: Vec<Applied> = commands.chunks(len).enumerate().map(entry).collect();
            let outcomes: Vec<_> = applied.iter().flat_map(|a| a.outcomes.clone()).collect();
            let records: Vec<_> = applied
                .iter()
                .flat_map(|a| &a.records)
                .map(|r| (r.head.conversation, r.head.seq, r.head.ordinal, r.head.server_msg_id))
                .collect();
            (outcomes, records)
        };
        prop_assert_eq!(run(1), run(cut));
    }
}
