//! One conversation of a history, sorted out: who sent what, what was told, who was a member when.
//!
//! What always holds: stories borrow from the history and are made one at a time, so that a check takes 4 bytes an event and what the
//! largest conversation needs (some 100 bytes an event of it) beside the history itself.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use logstore::id::{ClientMsgId, ConversationId, ConversationName, SeqId, UserId};

use super::history::{Change, Event, History, Op, Replica};

/// What is known of a message or change that somebody made.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Its name.
    pub id: ClientMsgId,
    /// By whom.
    pub user: UserId,
    /// Before it left.
    pub invoked_ns: u64,
    /// Of which pipeline; 0: of none.
    pub pipeline: u32,
    /// When the first ack was there, and the place it told.
    pub acked: Option<(u64, SeqId)>,
    /// It was refused for good.
    pub is_refused: bool,
    /// Its client died before it heard of it.
    pub is_gone: bool,
}

/// A record that somebody was told of.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// When.
    pub t_ns: u64,
    /// Its place.
    pub seq: SeqId,
    /// Its name.
    pub id: ClientMsgId,
    /// What it changed.
    pub change: Option<&'a Change>,
}

/// A question how far the conversation goes, and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// By whom.
    pub user: UserId,
    /// Asked then.
    pub since_ns: u64,
    /// Answered then.
    pub t_ns: u64,
    /// So far.
    pub head: SeqId,
}

/// Records [first, end) that a user may see.
pub type Interval = (SeqId, Option<SeqId>);

/// What of the whole history every story has to know.
#[derive(Clone, Debug, Default)]
pub struct Cast {
    /// Who receives at all.
    pub listeners: BTreeSet<UserId>,
    /// Who read everything back, from which replica.
    pub readers: BTreeSet<(UserId, Replica)>,
}

/// One conversation.
pub struct Story<'a> {
    /// Which.
    pub conversation: ConversationId,
    /// Of the whole history.
    pub cast: &'a Cast,
    /// In the order of their invocation.
    pub sent: Vec<Sent>,
    /// Places in `sent`.
    pub by_id: HashMap<ClientMsgId, usize>,
    /// Every ack: a name and a place.
    pub acks: Vec<Seen<'a>>,
    /// What each user's client was given, in that order.
    pub feeds: BTreeMap<UserId, Vec<Seen<'a>>>,
    /// What each reader read back in the end, in that order.
    pub finals: BTreeMap<(UserId, Replica), Vec<Seen<'a>>>,
    /// In the order of their answers.
    pub reads: Vec<Read>,
    /// The record at each place, as it was told first.
    pub log: BTreeMap<SeqId, Seen<'a>>,
    intervals: HashMap<UserId, Vec<Interval>>,
}

/// Who listens and who read back: whoever read from one replica was to read from each.
pub fn cast(history: &History) -> Cast {
    let (mut listeners, mut users, mut replicas) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for event in &history.events {
        match event.op {
            Op::Deliver(_) => drop(listeners.insert(event.user)),
            Op::Final(replica, _) => drop((users.insert(event.user), replicas.insert(replica))),
            _ => {}
        }
    }
    let readers = users.iter().flat_map(|&user| replicas.iter().map(move |&replica| (user, replica))).collect();
    Cast { listeners, readers }
}

/// Tells each conversation's story, one after the other.
pub fn each(history: &History, cast: &Cast, mut tell: impl FnMut(&Story<'_>)) {
    let events = &history.events;
    let mut order: Vec<u32> = (0..events.len() as u32).collect();
    // Stable: within a conversation the history's own order stays.
    order.sort_by_key(|&at| events[at as usize].conversation);
    for of_one in order.chunk_by(|&a, &b| events[a as usize].conversation == events[b as usize].conversation) {
        let told = of_one.iter().map(|&at| &events[at as usize]);
        tell(&Story::of(events[of_one[0] as usize].conversation, cast, told));
    }
}

impl<'a> Story<'a> {
    fn of(conversation: ConversationId, cast: &'a Cast, events: impl Iterator<Item = &'a Event>) -> Story<'a> {
        let mut story = Story {
            conversation,
            cast,
            sent: Vec::new(),
            by_id: HashMap::new(),
            acks: Vec::new(),
            feeds: BTreeMap::new(),
            finals: BTreeMap::new(),
            reads: Vec::new(),
            log: BTreeMap::new(),
            intervals: HashMap::new(),
        };
        events.for_each(|event| story.take(event));
        story.intervals = intervals(story.log.values());
        story
    }

    fn take(&mut self, event: &'a Event) {
        match &event.op {
            Op::Invoke { pipeline } => self.invoke(event, *pipeline),
            Op::Ack => self.ack(event),
            Op::Refuse => self.change_sent(event, |sent| sent.is_refused = true),
            Op::Gone => self.change_sent(event, |sent| sent.is_gone = true),
            Op::Deliver(change) => {
                let seen = self.see(event, change.as_deref());
                self.feeds.entry(event.user).or_default().push(seen);
            }
            Op::Final(replica, change) => {
                let seen = self.see(event, change.as_deref());
                self.finals.entry((event.user, *replica)).or_default().push(seen);
            }
            &Op::Read { since_ns, .. } => {
                self.reads.push(Read { user: event.user, since_ns, t_ns: event.t_ns, head: event.seq_id });
            }
        }
    }

    fn invoke(&mut self, event: &Event, pipeline: u32) {
        let (id, user, invoked_ns) = (event.client_msg_id, event.user, event.t_ns);
        if self.by_id.insert(id, self.sent.len()).is_none() {
            self.sent.push(Sent { id, user, invoked_ns, pipeline, acked: None, is_refused: false, is_gone: false });
        }
    }

    fn change_sent(&mut self, event: &Event, change: impl FnOnce(&mut Sent)) {
        if let Some(&at) = self.by_id.get(&event.client_msg_id) {
            change(&mut self.sent[at]);
        }
    }

    fn ack(&mut self, event: &'a Event) {
        self.acks.push(Seen { t_ns: event.t_ns, seq: event.seq_id, id: event.client_msg_id, change: None });
        self.change_sent(event, |sent| sent.acked = sent.acked.or(Some((event.t_ns, event.seq_id))));
    }

    fn see(&mut self, event: &'a Event, change: Option<&'a Change>) -> Seen<'a> {
        let seen = Seen { t_ns: event.t_ns, seq: event.seq_id, id: event.client_msg_id, change };
        self.log.entry(seen.seq).or_insert(seen);
        seen
    }

    /// Every telling of a record: acks, deliveries, final reads.
    pub fn tellings(&self) -> impl Iterator<Item = &Seen<'a>> {
        self.acks.iter().chain(self.feeds.values().flatten()).chain(self.finals.values().flatten())
    }

    /// Whether a user may see a record.
    pub fn may_see(&self, user: UserId, seq: SeqId) -> bool {
        match self.conversation.name() {
            Some(ConversationName::Direct(low, high)) => user == low || user == high,
            _ => self.intervals_of(user).iter().any(|&(first, end)| first <= seq && end.is_none_or(|end| seq < end)),
        }
    }

    /// Whoever may see anything of it.
    pub fn members(&self) -> BTreeSet<UserId> {
        match self.conversation.name() {
            Some(ConversationName::Direct(low, high)) => [low, high].into(),
            _ => self.intervals.keys().copied().collect(),
        }
    }

    /// The places of the log that a user may see, ascending.
    pub fn visible(&self, user: UserId) -> impl Iterator<Item = SeqId> {
        let head = self.log.last_key_value().map_or(0, |(seq, _)| seq.0);
        (1..=head).map(SeqId).filter(move |&seq| self.may_see(user, seq))
    }

    /// Where a message is, as its ack says, else as anybody was told.
    pub fn places(&self) -> HashMap<ClientMsgId, SeqId> {
        let told = self.log.values().map(|seen| (seen.id, seen.seq));
        told.chain(self.acks.iter().map(|seen| (seen.id, seen.seq))).collect()
    }

    fn intervals_of(&self, user: UserId) -> &[Interval] {
        self.intervals.get(&user).map_or(&[], Vec::as_slice)
    }
}

/// From the log itself: joining holds from its record on, and the leave record is the last one seen.
fn intervals<'a>(log: impl Iterator<Item = &'a Seen<'a>>) -> HashMap<UserId, Vec<Interval>> {
    let mut intervals: HashMap<UserId, Vec<Interval>> = HashMap::new();
    for (seq, change) in log.filter_map(|seen| Some((seen.seq, seen.change?))) {
        for &user in &change.joined {
            let of_user = intervals.entry(user).or_default();
            if of_user.last().is_none_or(|(_, end)| end.is_some()) {
                of_user.push((seq, None));
            }
        }
        for user in &change.left {
            if let Some((_, end)) = intervals.get_mut(user).and_then(|of_user| of_user.last_mut()) {
                end.get_or_insert(seq.next());
            }
        }
    }
    intervals
}
