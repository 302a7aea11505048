//! Who takes part, and the conversations they have: made before the first fault.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use gateway::client::{Connection, Greeting, MessageClock, Options};
use logstore::id::{ConversationId, SeqId, UserId};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::history::{Change, Op};
use super::recorder::Recorder;
use crate::bench::accounts::{AdminArgs, prepare};
use crate::exit::Failure;
use crate::output::Globals;

/// Members that a group begins with, at least and at most.
const GROUP_MEMBERS: std::ops::RangeInclusive<usize> = 3..=6;

/// Somebody.
#[derive(Clone, Debug)]
pub struct Person {
    /// Their number.
    pub user: UserId,
    /// For `hello`.
    pub token: String,
}

/// A conversation.
#[derive(Clone, Debug)]
pub struct Place {
    /// Which.
    pub conversation: ConversationId,
    /// Who made a group: never leaves it, and sees all of it. `None`: a 1:1.
    pub owner: Option<UserId>,
    /// Who may ever be in it.
    pub people: Vec<UserId>,
}

/// All of them.
pub struct Stage {
    /// Where nodes take clients.
    pub listen: Vec<SocketAddr>,
    /// In order of their names.
    pub people: Vec<Person>,
    /// Groups, then 1:1s.
    pub places: Vec<Place>,
}

impl Stage {
    /// Makes accounts and conversations.
    pub async fn build(
        (listen, data_dir): (Vec<SocketAddr>, PathBuf),
        globals: &Globals,
        (users, groups, seed): (u32, u32, u64),
        recorder: &Arc<Recorder>,
    ) -> Result<Stage, Failure> {
        let admin = AdminArgs { data_dir: Some(data_dir), admin_key: None };
        let names: Vec<String> = (1..=users).map(|number| format!("torture-{number}")).collect();
        let (_, accounts) = prepare(&admin, &globals.with_local(listen[0]), &names).await?;
        let people: Vec<Person> =
            accounts.into_iter().map(|account| Person { user: UserId(account.user), token: account.token }).collect();
        let mut stage = Stage { listen, people, places: Vec::new() };
        let mut chance = SmallRng::seed_from_u64(seed);
        for number in 0..groups as usize {
            let place = stage.make_group(number, &mut chance, recorder).await?;
            stage.places.push(place);
        }
        for number in 0..stage.people.len() {
            let place = stage.open_direct(number).await?;
            stage.places.push(place);
        }
        Ok(stage)
    }

    /// The conversations that somebody may be in.
    pub fn places_of(&self, user: UserId) -> Vec<Place> {
        self.places.iter().filter(|place| place.people.contains(&user)).cloned().collect()
    }

    async fn connect(&self, person: &Person) -> Result<(Connection, MessageClock), Failure> {
        let (connection, _) = Connection::connect(&self.listen[0].to_string(), Options::default()).await?;
        let greeting = Greeting { token: person.token.clone(), device: "stage".into(), ..Greeting::default() };
        let welcome = connection.hello(greeting).await?;
        Ok((connection, welcome.clock))
    }

    async fn make_group(&self, number: usize, chance: &mut SmallRng, recorder: &Recorder) -> Result<Place, Failure> {
        let owner = &self.people[number % self.people.len()];
        let mut others: Vec<UserId> = self.people.iter().map(|p| p.user).filter(|&user| user != owner.user).collect();
        others.shuffle(chance);
        let first = &others[..(chance.random_range(GROUP_MEMBERS) - 1).min(others.len())];
        let (connection, clock) = self.connect(owner).await?;
        let request = clock.id();
        let group = connection.create_group(&format!("group {number}"), first, request).await?;
        let conversation = group.conversation;
        // Only now is its name known; nobody else has heard of it before.
        recorder.note(owner.user, conversation, request, SeqId(0), Op::Invoke { pipeline: 0 });
        recorder.note(owner.user, conversation, request, group.seq_id, Op::Ack);
        let people = self.people.iter().map(|person| person.user).collect();
        Ok(Place { conversation, owner: Some(owner.user), people })
    }

    async fn open_direct(&self, number: usize) -> Result<Place, Failure> {
        let (one, other) = (&self.people[number], &self.people[(number + 1) % self.people.len()]);
        let (connection, _) = self.connect(one).await?;
        let opened = connection.open_direct(other.user).await?;
        Ok(Place { conversation: opened.conversation, owner: None, people: vec![one.user, other.user] })
    }
}

/// What a record says of members, as the history has it.
pub fn change_of(record: &gateway::client::Record) -> Option<Box<Change>> {
    let membership = record.membership.as_ref()?;
    Some(Box::new(Change { joined: membership.joined.clone(), left: membership.left.clone() }))
}
