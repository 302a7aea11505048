//! Recall, trims and erasure as members see them, against a plain list of what was said and taken back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fanout::Code;
use fanout::service::HistoryQuery;
use logstore::id::{ConversationId, SeqId, UserId};
use logstore::{BodyPlace, RecordKind};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sequencer::{Record, Retention};

use crate::world::{World, id_now};

/// What the log should say of a conversation.
#[derive(Default)]
struct Model {
    /// (sender, whether it counts, whether its body is gone), record 1 first.
    records: Vec<(UserId, bool, bool)>,
    /// The first record that is left.
    floor: u64,
    read: BTreeMap<UserId, u64>,
}

impl Model {
    fn unread(&self, user: UserId) -> u64 {
        let above = self.read.get(&user).copied().unwrap_or(0).max(self.floor.saturating_sub(1));
        let above = self.records.iter().skip(above as usize);
        above.filter(|(sender, counts, removed)| *counts && !removed && *sender != user).count() as u64
    }

    /// The records left: place, and whether the body is gone.
    fn seen(&self) -> Vec<(u64, bool)> {
        let records = self.records.iter().zip(1..).map(|((.., removed), seq)| (seq, *removed));
        records.filter(|(seq, _)| *seq >= self.floor).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Say(usize, usize),
    Recall(usize, prop::sample::Index),
    Trim(usize, prop::sample::Index),
    Read(usize, usize, prop::sample::Index),
    Erase(usize),
    Seal,
}

fn step() -> impl Strategy<Value = Step> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        10 => (0..3usize, 0..3usize).prop_map(|(group, user)| Step::Say(group, user)),
        4 => (0..3usize, at()).prop_map(|(group, at)| Step::Recall(group, at)),
        1 => (0..3usize, at()).prop_map(|(group, at)| Step::Trim(group, at)),
        3 => (0..3usize, 0..3usize, at()).prop_map(|(group, user, at)| Step::Read(group, user, at)),
        1 => (0..3usize).prop_map(Step::Erase),
        1 => Just(Step::Seal),
    ]
}

struct Story {
    world: World,
    users: [UserId; 3],
    groups: Vec<ConversationId>,
    models: Vec<Model>,
}

impl Story {
    async fn begin() -> Story {
        let world = World::new().await;
        let users = world.users(["ann", "ben", "cam"]).await;
        let mut groups = Vec::new();
        for _ in 0..3 {
            groups.push(world.group(users[0], &users[1..]).await);
        }
        let model = || Model { records: vec![(users[0], false, false)], ..Model::default() };
        Story { world, users, groups, models: [(); 3].map(|()| model()).into() }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Say(group, user) => self.say(group, self.users[user]).await,
            Step::Recall(group, at) => self.recall(group, at).await,
            Step::Trim(group, at) => {
                let model = &mut self.models[group];
                let before = at.index(model.records.len() + 1) as u64 + 1;
                self.world.services.removals.trim(self.groups[group], SeqId(before)).await.unwrap();
                model.floor = model.floor.max(if before > 1 { before } else { 0 });
            }
            Step::Read(group, user, at) => {
                let (user, model) = (self.users[user], &mut self.models[group]);
                let seq = at.index(model.records.len()) as u64 + 1;
                let receipts = &self.world.services.receipts;
                assert_eq!(receipts.read(user, &[(self.groups[group], SeqId(seq))]).await, []);
                receipts.flush().await;
                let read = model.read.entry(user).or_default();
                *read = seq.max(*read);
            }
            Step::Erase(user) => {
                let user = self.users[user];
                self.world.services.removals.erase(user).await.unwrap();
                let records = self.models.iter_mut().flat_map(|model| &mut model.records);
                records.filter(|(sender, counts, _)| *sender == user && *counts).for_each(|record| record.2 = true);
            }
            Step::Seal => {
                for shard in self.world.sequencer.shards() {
                    shard.seal().await.unwrap();
                    shard.compact();
                }
            }
        }
    }

    async fn say(&mut self, group: usize, user: UserId) {
        let seq = self.world.say(user, self.groups[group], "said").await;
        self.models[group].records.push((user, true, false));
        assert_eq!(seq.0 as usize, self.models[group].records.len());
    }

    async fn recall(&mut self, group: usize, at: prop::sample::Index) {
        let model = &mut self.models[group];
        let place = at.index(model.records.len());
        let (sender, counts, removed) = model.records[place];
        let seq = SeqId(place as u64 + 1);
        let recalled = self.world.services.removals.recall(sender, self.groups[group], seq, id_now()).await;
        match recalled {
            Ok(SeqId(0)) => assert!(seq.0 < model.floor || removed, "{seq}"),
            Ok(by) => {
                assert!(counts && seq.0 >= model.floor);
                model.records[place].2 = true;
                model.records.push((sender, false, false));
                assert_eq!(by.0 as usize, model.records.len());
            }
            // A trimmed record may be out of the files already.
            Err(fault) => assert!(!counts || seq.0 < model.floor, "{fault}"),
        }
    }

    async fn check(&self) {
        for user in self.users {
            let listed = self.world.services.conversations.list(user, 0, &[], false).await.unwrap().items;
            let connection = self.world.connection();
            let attached = self.world.attach(user, connection).await.into_iter().flat_map(|answer| answer.rows);
            self.world.tails.detach(crate::world::GATEWAY, connection, user);
            let rows: Vec<_> = listed.into_iter().chain(attached).collect();
            assert_eq!(rows.len(), 6, "each conversation in the list and in the answer");
            for row in rows {
                let group = self.groups.iter().position(|group| *group == row.conversation).unwrap();
                let model = &self.models[group];
                assert_eq!(row.unread, model.unread(user), "{row:?}");
                assert_eq!(row.head_seq.0 as usize, model.records.len(), "places stay");
                assert_eq!(row.visible_from.0, model.floor.max(1));
            }
        }
        for (group, model) in self.groups.iter().zip(&self.models) {
            let query =
                HistoryQuery { conversation: *group, from: SeqId(1), to: SeqId(0), limit: 1000, newest_first: false };
            let page = self.world.services.messages.history(self.users[0], query).await.unwrap();
            let seen = |record: &Record| (record.head.seq.0, record.head.body == BodyPlace::Removed);
            assert_eq!(page.records.iter().map(seen).collect::<Vec<_>>(), model.seen());
            let bodiless = |record: &&Record| record.head.body == BodyPlace::Removed;
            assert!(page.records.iter().filter(bodiless).all(|record| record.body.is_empty()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_said_recalled_trimmed_and_erased_unread_and_history_are_as_recounted() {
    let mut story = Story::begin().await;
    let steps = prop::collection::vec(step(), 150).new_tree(&mut TestRunner::deterministic()).unwrap().current();
    for step in steps {
        story.step(step).await;
        story.check().await;
    }
    let removed = story.models.iter().flat_map(|model| &model.records).filter(|(.., removed)| *removed).count();
    assert!(removed > 10 && story.models.iter().any(|model| model.floor > 1), "something was taken back: {removed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_sender_recalls_and_a_receiver_online_hears_of_it() {
    let world = World::new().await;
    let [ann, ben, eve] = world.users(["ann", "ben", "eve"]).await;
    let group = world.group(ann, &[ben]).await;
    let connection = world.connection();
    world.attach(ben, connection).await;
    let seq = world.say(ann, group, "oops").await;
    let removals = &world.services.removals;
    let refused = async |user, seq| removals.recall(user, group, seq, id_now()).await.unwrap_err().code;
    assert_eq!(refused(ben, seq).await, Code::NotAllowed);
    assert_eq!(refused(eve, seq).await, Code::NoSuchConversation);
    assert_eq!(refused(ann, SeqId(1)).await, Code::NotAllowed, "a membership record is no message");
    assert_eq!(refused(ann, SeqId(99)).await, Code::BadRange);
    let request = id_now();
    let by = removals.recall(ann, group, seq, request).await.unwrap();
    assert_eq!(removals.recall(ann, group, seq, request).await.unwrap(), by, "a retry is the same recall");
    crate::world::eventually(|| world.sink.of(connection).contains(&(group, by)).then_some(())).await;
    let shard = world.sequencer.shard_of(group);
    let record = shard.history(group, by, by, 1, usize::MAX).await.unwrap().remove(0);
    assert_eq!((record.head.kind, record.head.sender), (RecordKind::RECALL, ann));
    let bens = world.say(ben, group, "mine").await;
    assert!(removals.recall_as_operator(group, bens, id_now()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_that_was_trimmed_whole_keeps_its_head_and_goes_on() {
    let world = World::new().await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let group = world.group(ann, &[ben]).await;
    let last = world.say(ann, group, "the last").await;
    let done = world.services.removals.trim(group, last.next()).await.unwrap();
    assert_eq!((done.before, done.messages), (last.next(), 1));
    let beyond = world.services.removals.trim(group, SeqId(last.0 + 2)).await;
    assert_eq!(beyond.unwrap_err().code, Code::BadRange);
    let row = &world.services.conversations.list(ben, 0, &[], false).await.unwrap().items[0];
    assert_eq!((row.head_seq, row.unread, row.last.as_ref()), (last, 0, None));
    assert_eq!(world.say(ann, group, "anew").await, last.next());
    let row = &world.services.conversations.list(ben, 0, &[], false).await.unwrap().items[0];
    assert_eq!((row.unread, row.last.as_ref().map(|record| &record.body[..])), (1, Some(&b"anew"[..])));
}

/// Seals what there is.
async fn seal(world: &World) {
    for shard in world.sequencer.shards() {
        shard.seal().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_keeps_the_newest_records_and_removes_no_more_than_a_twentieth_of_a_shard_a_day() {
    let world = World::new().await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let group = world.group(ann, &[ben]).await;
    for n in 0..100 {
        world.say(ann, group, &n.to_string()).await;
    }
    let removals = &world.services.removals;
    let keep = Some(Retention { age_ms: 0, records: 20 });
    removals.retain(group, keep).await.unwrap();
    let sweep = async |force| {
        let swept = removals.sweep(force, Instant::now() + Duration::from_secs(60)).await.unwrap();
        let of = world.sequencer.shard_of(group).id();
        let swept = swept.into_iter().find(|swept| swept.shard == of).unwrap();
        (swept.messages, swept.held_back, swept.complete)
    };
    let floor = || world.sequencer.shard_of(group).read(|state, _| state.conversation(group).unwrap().floor().before.0);
    assert_eq!(sweep(false).await, (0, false, true), "what is not sealed is left alone");
    seal(&world).await;
    let stored = world.sequencer.shard_of(group).read(|state, _| state.stored());
    assert_eq!(stored, 100);
    let (messages, held_back, _) = sweep(false).await;
    assert!(held_back && messages > 0 && messages <= 5, "{messages} of {stored}");
    let mut gone = messages;
    for _ in 0..5 {
        gone += sweep(false).await.0;
    }
    assert_eq!(gone, 5, "of {stored}, however often it is tried");
    assert_eq!(floor(), 7, "the membership record and five messages");
    let (messages, held_back, complete) = sweep(true).await;
    assert_eq!((gone + messages, held_back, complete), (80, false, true));
    assert_eq!(floor(), 82, "records 82 to 101 are the newest 20");
    assert_eq!(sweep(true).await, (0, false, true));
    removals.retain(group, Some(Retention::default())).await.unwrap();
    assert_eq!(sweep(true).await, (0, false, true), "everything is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_by_age_removes_what_is_older_than_the_logs_time_says() {
    let world = World::new().await;
    let [ann, ben] = world.users(["ann", "ben"]).await;
    let (group, other) = (world.group(ann, &[ben]).await, world.group(ann, &[ben]).await);
    let mut times = Vec::new();
    for n in 0..40 {
        let seq = world.say(ann, group, &n.to_string()).await;
        world.say(ann, other, "kept").await;
        let shard = world.sequencer.shard_of(group);
        times.push(shard.history(group, seq, seq, 1, usize::MAX).await.unwrap()[0].head.time.0);
        // Log time is in milliseconds.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    seal(&world).await;
    let removals = &world.services.removals;
    let age_ms = times[39] - times[20];
    removals.retain(group, Some(Retention { age_ms, records: 0 })).await.unwrap();
    removals.sweep(true, Instant::now() + Duration::from_secs(60)).await.unwrap();
    let row = |conversation| {
        let shard = world.sequencer.shard_of(conversation);
        shard.read(|state, _| (state.conversation(conversation).unwrap().floor(), state.time().0))
    };
    let (floor, now) = row(group);
    assert!(floor.before.0 > 20, "{floor:?}");
    assert!(floor.time.0 < now - age_ms, "nothing younger went");
    let oldest =
        world.sequencer.shard_of(group).history(group, floor.before, floor.before, 1, usize::MAX).await.unwrap();
    assert!(oldest.first().is_none_or(|record| record.head.time.0 > floor.time.0));
    assert_eq!(row(other).0.before, SeqId(0));
}
