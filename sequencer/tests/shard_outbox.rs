//! Effects from shard to shard: names, accounts and 1:1s, through restarts at awkward moments.
#![allow(clippy::unwrap_used)]

mod world;

use logstore::SegmentSet;
use logstore::id::{ConversationId, HistoryId, SegmentOrdinal, UserId};
use sequencer::state::{Key, name_home};
use sequencer::store::Row;
use sequencer::{AccountSeed, Command, Outcome, SequencerOptions};

use world::{SOON, World, id_now, options, text};

impl World {
    async fn claim(&self, name: &str) -> UserId {
        let command = Command::ClaimName { name: name.to_string(), seed: AccountSeed::default(), request: id_now() };
        match self.shard_of(name_home(name)).execute(command).await {
            Ok(Outcome::Claimed { user, .. }) => user,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Waits until the claim is final and the account is at its home.
    async fn confirmed(&self, name: &str, user: UserId) {
        let shard = self.shard_of(name_home(name));
        let confirmed = shard.wait_for(SOON, |state| state.name(name).filter(|row| row.confirmed).map(|row| row.user));
        assert_eq!(confirmed.await, Some(user), "{name}");
        let home = self.shard_of(ConversationId::system(user));
        assert_eq!(home.read(|state, _| state.user(user).map(|row| row.name.clone())).as_deref(), Some(name));
    }

    async fn register(&self, name: &str) -> UserId {
        let user = self.claim(name).await;
        self.confirmed(name, user).await;
        user
    }

    /// Waits until no shard has anything to carry.
    async fn outboxes_are_empty(&self) {
        for shard in self.sequencer.shards() {
            let empty = shard.wait_for(SOON, |state| state.outbox_targets().is_empty().then_some(()));
            assert!(empty.await.is_some(), "shard {} still has effects waiting", shard.id());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claimed_name_becomes_an_account_at_its_home_and_is_confirmed() {
    let world = World::new(options()).await;
    for n in 0..40 {
        world.register(&format!("user-{n}")).await;
    }
    world.outboxes_are_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_conversation_opens_across_shards_and_carries_messages() {
    let world = World::new(options()).await;
    let mut users = Vec::new();
    for n in 0..8 {
        users.push(world.register(&format!("user-{n}")).await);
    }
    for (initiator, peer) in users.iter().flat_map(|a| users.iter().map(move |b| (*a, *b))) {
        let home = world.shard_of(ConversationId::system(initiator));
        let opened = home.execute(Command::OpenDirect { initiator, peer }).await.unwrap();
        assert!(!matches!(opened, Outcome::Refused(_)), "{opened:?}");
        let conversation = ConversationId::direct(initiator, peer);
        let shard = world.shard_of(conversation);
        let open = shard.wait_for(SOON, |state| state.direct_state(conversation).filter(|row| row.is_open()));
        assert!(open.await.is_some(), "{initiator} and {peer}");
        world.send(text(conversation, initiator.0, "hello")).await;
    }
    world.outboxes_are_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_the_middle_loses_no_effect_and_repeats_none() {
    let mut world = World::new(options()).await;
    let mut claims: Vec<(String, UserId)> = Vec::new();
    for round in 0..4 {
        for n in 0..30 {
            let name = format!("user-{round}-{n}");
            let user = world.claim(&name).await;
            claims.push((name, user));
        }
        world = world.restart().await;
    }
    for (name, user) in &claims {
        world.confirmed(name, *user).await;
    }
    world.outboxes_are_empty().await;
    let mut ids: Vec<UserId> = claims.iter().map(|(_, user)| *user).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), claims.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lives_of_an_outbox_are_counted_whatever_the_history() {
    for history in [HistoryId(0x1234_5678_9abc), HistoryId(u128::MAX)] {
        let world = World::new(SequencerOptions { history, ..options() }).await;
        let lives = |world: &World| -> Vec<u64> {
            world.sequencer.shards().iter().map(|shard| shard.read(|state, _| state.incarnation())).collect()
        };
        assert_eq!(lives(&world), [1; 4]);
        assert_eq!(lives(&world.restart().await), [1; 4], "a restart goes on with the same life");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_that_their_target_does_not_apply_are_tried_again_later_and_not_at_once() {
    let world = World::new(options()).await;
    let name = "ann";
    let sender = world.shard_of(name_home(name)).clone();
    // Every shard knows the sender of a later life already: what the living one sends is dropped.
    for shard in world.sequencer.shards() {
        let later = Command::Effects { from: sender.id(), incarnation: u64::MAX, first: 1, effects: Vec::new() };
        assert_eq!(shard.execute(later).await.unwrap(), Outcome::Effects { last: 0 });
    }
    world.claim(name).await;
    let entries = || -> u64 { world.sequencer.shards().iter().map(|shard| shard.status().last_index.0).sum() };
    let (before, probes) = (entries(), 300);
    for _ in 0..probes {
        sender.probe().await.unwrap();
    }
    let others = entries() - before - probes;
    assert!(others < 40, "{others} entries to carry one effect in vain");
    assert_eq!(sender.read(|state, _| state.outbox_targets().len()), 1, "it still waits");
}

/// What a shard's sealed rows say of a key.
fn sealed_row(set: &SegmentSet, key: &Key) -> Option<Row> {
    let value = set.delta_get(&key.encode(), SegmentOrdinal(0)).unwrap().flatten()?;
    Some(Row::decode(key, &value).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_has_no_effect_that_left_its_outbox_and_did_not_arrive() {
    let world = World::new(options()).await;
    let claims = async {
        let mut users = Vec::new();
        for n in 0..300 {
            users.push(world.claim(&format!("user-{n}")).await);
        }
        users
    };
    let cuts = async {
        let mut cuts = Vec::new();
        for _ in 0..8 {
            cuts.push(world.sequencer.cut(false).await.unwrap().sealed().await.unwrap());
        }
        cuts
    };
    let (_, cuts) = tokio::join!(claims, cuts);
    let mut under_way = 0;
    for sets in &cuts {
        for from in sets {
            for to in sets {
                let [from_id, to_id] = [from, to].map(|set| set.manifest().shard());
                let outbox = match sealed_row(from, &Key::Outbox(to_id)) {
                    Some(Row::Outbox(head)) => head,
                    _ => continue,
                };
                let applied = match sealed_row(to, &Key::Inbox(from_id)) {
                    Some(Row::Inbox(row)) => row.last,
                    _ => 0,
                };
                assert!(outbox.first <= applied + 1, "{from_id} to {to_id}: {outbox:?}, {applied} applied");
                under_way += u64::from(outbox.count > 0);
            }
        }
    }
    assert!(under_way > 0, "some cuts were made while effects were under way");
    world.outboxes_are_empty().await;
    // A cut of shards in which nothing happens is what is there.
    let first = world.sequencer.cut(false).await.unwrap().sealed().await.unwrap();
    let second = world.sequencer.cut(false).await.unwrap().sealed().await.unwrap();
    assert!(first.iter().zip(&second).all(|(one, other)| one.manifest() == other.manifest()));
}
