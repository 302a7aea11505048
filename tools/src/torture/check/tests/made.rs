//! Histories of a system that keeps every promise, from a seed.

use std::collections::{BTreeMap, VecDeque};

use logstore::id::{ClientMsgId, ConversationId, SeqId, UserId};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::torture::fault::FaultKind;
use crate::torture::history::{Change, Event, Fault, History, Op, Replica};

/// Makes groups and never leaves them.
pub const OWNER: UserId = UserId(1);
const USERS: u64 = 4;
/// Two groups; between the first two users there is a 1:1 too.
pub const GROUPS: [ConversationId; 2] = [ConversationId(2 << 126 | 7), ConversationId(2 << 126 | 8)];
const STEPS: usize = 250;

type Record = (ClientMsgId, Option<Change>);

/// A system and those who use it.
struct World {
    chance: SmallRng,
    history: History,
    now_ns: u64,
    ids: u128,
    logs: BTreeMap<ConversationId, Vec<Record>>,
    /// Under way, by sender.
    pending: BTreeMap<(ConversationId, UserId), VecDeque<ClientMsgId>>,
    /// Stored and not acknowledged.
    unacked: Vec<(ConversationId, UserId, ClientMsgId, SeqId)>,
    /// How many of the records that a user may see were delivered.
    given: BTreeMap<(ConversationId, UserId), usize>,
}

/// A good history.
pub fn make(seed: u64) -> History {
    let mut world = World::new(seed);
    GROUPS.into_iter().for_each(|group| world.found(group));
    world.logs.insert(ConversationId::direct(UserId(1), UserId(2)), Vec::new());
    for step in 0..STEPS {
        if step == STEPS / 2 {
            let [from_ns, healed] = [0, 5].map(|after| world.now_ns + after);
            world.history.faults.push(Fault {
                kind: FaultKind::Pause,
                replica: Replica(1),
                from_ns,
                healed_ns: Some(healed),
                shards: vec![0],
            });
        }
        world.step();
    }
    world.settle();
    world.history
}

impl World {
    fn new(seed: u64) -> World {
        World {
            chance: SmallRng::seed_from_u64(seed),
            history: History { shards: 1, ..History::default() },
            now_ns: 0,
            ids: 1000,
            logs: BTreeMap::new(),
            pending: BTreeMap::new(),
            unacked: Vec::new(),
            given: BTreeMap::new(),
        }
    }

    fn note(&mut self, user: UserId, conversation: ConversationId, id: ClientMsgId, seq: u64, op: Op) {
        self.now_ns += self.chance.random_range(1..5);
        let event = Event { t_ns: self.now_ns, user, conversation, client_msg_id: id, seq_id: SeqId(seq), op };
        self.history.events.push(event);
    }

    fn id(&mut self) -> ClientMsgId {
        self.ids += 1;
        ClientMsgId(self.ids)
    }

    fn found(&mut self, group: ConversationId) {
        self.logs.insert(group, Vec::new());
        let joined = vec![OWNER, UserId(2), UserId(3)];
        self.change(group, Change { joined, left: Vec::new() });
    }

    /// The owner changes who is a member.
    fn change(&mut self, group: ConversationId, change: Change) {
        let id = self.id();
        self.note(OWNER, group, id, 0, Op::Invoke { pipeline: 0 });
        let seq = self.store(group, id, Some(change));
        self.note(OWNER, group, id, seq.0, Op::Ack);
    }

    fn store(&mut self, conversation: ConversationId, id: ClientMsgId, change: Option<Change>) -> SeqId {
        let log = self.logs.entry(conversation).or_default();
        log.push((id, change));
        SeqId(log.len() as u64)
    }

    /// Places that a user may see: said once more, another way than the checker says it.
    fn visible(&self, conversation: ConversationId, user: UserId) -> Vec<u64> {
        let mut is_in = !GROUPS.contains(&conversation) && user.0 <= 2;
        let mut visible = Vec::new();
        for (at, (_, change)) in self.logs[&conversation].iter().enumerate() {
            is_in |= change.as_ref().is_some_and(|change| change.joined.contains(&user));
            visible.extend(is_in.then_some(at as u64 + 1));
            is_in &= !change.as_ref().is_some_and(|change| change.left.contains(&user));
        }
        visible
    }

    fn is_member(&self, conversation: ConversationId, user: UserId) -> bool {
        let head = self.logs[&conversation].len() as u64;
        let leaves_last = |(_, change): &Record| change.as_ref().is_some_and(|change| change.left.contains(&user));
        match self.logs[&conversation].last() {
            None => user.0 <= 2,
            Some(last) => self.visible(conversation, user).last() == Some(&head) && !leaves_last(last),
        }
    }

    fn step(&mut self) {
        let user = UserId(self.chance.random_range(1..=USERS));
        let all: Vec<ConversationId> = self.logs.keys().copied().collect();
        let conversation = all[self.chance.random_range(0..all.len())];
        match self.chance.random_range(0..100) {
            0..30 => self.send(conversation, user),
            30..55 => self.arrive(conversation, user),
            55..70 => self.ack(),
            70..78 if GROUPS.contains(&conversation) && user != OWNER => self.come_or_go(conversation, user),
            70..85 => self.read(conversation, user),
            _ => drop(self.deliver(conversation, user)),
        }
    }

    fn send(&mut self, conversation: ConversationId, user: UserId) {
        if self.is_member(conversation, user) {
            let id = self.id();
            self.note(user, conversation, id, 0, Op::Invoke { pipeline: 1 });
            self.pending.entry((conversation, user)).or_default().push_back(id);
        }
    }

    /// The oldest message of a pipeline is stored, refused, or lost on its way.
    fn arrive(&mut self, conversation: ConversationId, user: UserId) {
        let Some(id) = self.pending.get_mut(&(conversation, user)).and_then(VecDeque::pop_front) else { return };
        match self.chance.random_range(0..20) {
            0 => {}
            _ if !self.is_member(conversation, user) => self.note(user, conversation, id, 0, Op::Refuse),
            _ => {
                let seq = self.store(conversation, id, None);
                self.unacked.push((conversation, user, id, seq));
            }
        }
    }

    /// Some are told, in whatever order; some never are.
    fn ack(&mut self) {
        if !self.unacked.is_empty() {
            let at = self.chance.random_range(0..self.unacked.len());
            let (conversation, user, id, seq) = self.unacked.swap_remove(at);
            self.note(user, conversation, id, seq.0, Op::Ack);
        }
    }

    fn come_or_go(&mut self, group: ConversationId, user: UserId) {
        let change = match self.is_member(group, user) {
            true => Change { joined: Vec::new(), left: vec![user] },
            false => Change { joined: vec![user], left: Vec::new() },
        };
        self.change(group, change);
    }

    fn read(&mut self, conversation: ConversationId, user: UserId) {
        let visible = self.visible(conversation, user);
        if let Some(&head) = visible.last() {
            let since_ns = self.now_ns;
            self.note(user, conversation, ClientMsgId(0), head, Op::Read { since_ns, replica: Replica(1) });
        }
    }

    fn told(&self, conversation: ConversationId, seq: u64) -> (ClientMsgId, Option<Box<Change>>) {
        let (id, change) = &self.logs[&conversation][seq as usize - 1];
        (*id, change.clone().map(Box::new))
    }

    fn deliver(&mut self, conversation: ConversationId, user: UserId) -> bool {
        let visible = self.visible(conversation, user);
        let given = self.given.entry((conversation, user)).or_default();
        let Some(&seq) = visible.get(*given) else { return false };
        *given += 1;
        let (id, told) = self.told(conversation, seq);
        self.note(user, conversation, id, seq, Op::Deliver(told));
        true
    }

    /// Everything is delivered, and read back from two replicas.
    fn settle(&mut self) {
        // So that there was a send after the fault, and it came through.
        let id = self.id();
        self.note(OWNER, GROUPS[0], id, 0, Op::Invoke { pipeline: 2 });
        let seq = self.store(GROUPS[0], id, None);
        self.note(OWNER, GROUPS[0], id, seq.0, Op::Ack);
        self.history.end_ns = self.now_ns;
        for conversation in self.logs.keys().copied().collect::<Vec<_>>() {
            for user in (1..=USERS).map(UserId) {
                while self.deliver(conversation, user) {}
                for replica in [1, 2].map(Replica) {
                    for seq in self.visible(conversation, user) {
                        let (id, told) = self.told(conversation, seq);
                        self.note(user, conversation, id, seq, Op::Final(replica, told));
                    }
                }
            }
        }
    }
}
