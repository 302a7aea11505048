//! Scenes first, each a way in which messages were lost, doubled or hidden in a looser reading; then a server that does
//! everything it may, drawn at random.

use bytes::Bytes;
use logstore::RecordKind;
use logstore::id::{ClientMsgId, ServerMsgId, TimeMs};
use proptest::prelude::*;

use super::super::Membership;
use super::*;

const ME: UserId = UserId(1);
const GRACE: u64 = HOLE_GRACE_MS;

fn conversation(n: u64) -> ConversationId {
    ConversationId::group(n)
}

fn record(n: u64, seq: u64) -> Record {
    Record {
        conversation: conversation(n),
        seq_id: SeqId(seq),
        ordinal: Ordinal(seq),
        kind: RecordKind::TEXT,
        sender: UserId(2),
        server_msg_id: ServerMsgId(seq),
        client_msg_id: ClientMsgId(u128::from(n) << 64 | u128::from(seq)),
        sent_at: TimeMs(1),
        content: Bytes::from(format!("{n}/{seq}")),
        membership: None,
        removed: false,
        recalled: None,
    }
}

fn row(n: u64, head: u64, as_of: u64) -> Conversation {
    Conversation {
        conversation: conversation(n),
        head: SeqId(head),
        head_ordinal: Ordinal(head),
        last_time: TimeMs(1),
        read: SeqId(0),
        delivered: SeqId(0),
        unread: 0,
        active: true,
        visible_from: SeqId(1),
        title: String::new(),
        peer: UserId(0),
        member_count: 2,
        as_of,
        slot: 0,
        last: None,
    }
}

fn step(value: u64) -> Step {
    Step { slot: 0, value }
}

fn page(n: u64, range: std::ops::RangeInclusive<u64>, head: u64) -> HistoryPage {
    HistoryPage { records: range.map(|seq| record(n, seq)).collect(), head: SeqId(head), next_from: None }
}

/// A complete page without a record.
fn nothing(head: u64) -> HistoryPage {
    HistoryPage { records: Vec::new(), head: SeqId(head), next_from: None }
}

fn attached_inbox(backlog: Backlog, progress: &Progress) -> Inbox {
    let mut inbox = Inbox::new(backlog, progress, 100);
    inbox.connected(ME, &Bytes::from_static(b"h"));
    inbox
}

/// An inbox that has been told everything up to index 10, of a conversation 1 up to record 3.
fn settled() -> Inbox {
    let mut inbox = attached_inbox(Backlog::Newest, &Progress::default());
    let mut out = Vec::new();
    inbox.attached(vec![row(1, 3, 10)], 0, &mut out);
    inbox.deliver(vec![record(1, 1), record(1, 2), record(1, 3)], None, 0, &mut out);
    inbox.caught_up(step(10), true, 0, &mut out);
    assert_eq!(seqs(&out), [(1, 1), (1, 2), (1, 3)]);
    assert_eq!(out.last(), Some(&Event::CaughtUp));
    inbox
}

fn seqs(events: &[Event]) -> Vec<(u64, u64)> {
    let place = |event: &Event| match event {
        Event::Record(record) => Some((record.conversation.0 as u64 & 0xffff, record.seq_id.0)),
        _ => None,
    };
    events.iter().filter_map(place).collect()
}

fn told(inbox: &Inbox) -> u64 {
    inbox.cursor().map_or(0, |cursor| cursor.steps.iter().map(|step| step.value).sum())
}

#[test]
fn a_record_after_a_hole_waits_for_it_and_so_does_the_cursor() {
    let mut inbox = settled();
    let mut out = Vec::new();
    inbox.deliver(vec![record(1, 6)], Some(step(13)), 0, &mut out);
    assert_eq!((seqs(&out), told(&inbox)), (vec![], 10));
    assert_eq!(inbox.take_fill(GRACE - 1), None);
    let fill = inbox.take_fill(GRACE).unwrap();
    assert_eq!((fill.from, fill.to), (SeqId(4), SeqId(5)));
    assert_eq!(inbox.take_fill(10_000), None, "a read under way is not begun twice");
    inbox.filled(fill, page(1, 4..=5, 6), GRACE, &mut out).unwrap();
    assert_eq!((seqs(&out), told(&inbox)), (vec![(1, 4), (1, 5), (1, 6)], 13));
    assert_eq!(out.last(), Some(&Event::Told(step(13))));
}

#[test]
fn an_ack_that_overtakes_the_push_of_its_predecessor_makes_no_read() {
    let mut inbox = settled();
    let mut out = Vec::new();
    let own = Record { ordinal: Ordinal(0), ..record(1, 5) };
    inbox.sent(own, 0, &mut out);
    assert_eq!(seqs(&out), []);
    inbox.deliver(vec![record(1, 4)], Some(step(11)), GRACE / 2, &mut out);
    assert_eq!((seqs(&out), told(&inbox)), (vec![(1, 4), (1, 5)], 11));
    assert_eq!(inbox.take_fill(10_000), None);
    let Some(Event::Record(own)) = out.iter().rfind(|event| matches!(event, Event::Record(_))) else { panic!() };
    assert_eq!(own.ordinal, Ordinal(5), "an own message is counted by its predecessor's ordinal");
}

#[test]
fn what_a_row_promised_is_read_also_when_nothing_follows() {
    let mut inbox = settled();
    inbox.connected(ME, &Bytes::from_static(b"h"));
    let mut out = Vec::new();
    inbox.attached(vec![row(1, 5, 20)], 0, &mut out);
    inbox.deliver(vec![record(1, 4)], None, 0, &mut out);
    inbox.caught_up(step(20), true, 0, &mut out);
    assert_eq!((seqs(&out), told(&inbox)), (vec![(1, 4)], 10));
    assert!(!out.contains(&Event::CaughtUp));
    let fill = inbox.take_fill(0).unwrap();
    inbox.filled(fill, page(1, 5..=5, 5), 0, &mut out).unwrap();
    assert_eq!((seqs(&out), told(&inbox)), (vec![(1, 4), (1, 5)], 20));
    assert_eq!(out.last(), Some(&Event::CaughtUp));
}

#[test]
fn a_backlog_that_was_cut_short_is_read_before_the_newest_are_handed_on() {
    let mut inbox = settled();
    inbox.connected(ME, &Bytes::from_static(b"h"));
    let mut out = Vec::new();
    inbox.attached(vec![row(1, 9, 20)], 0, &mut out);
    inbox.deliver(vec![record(1, 8), record(1, 9)], None, 0, &mut out);
    inbox.caught_up(step(20), true, 0, &mut out);
    let fill = inbox.take_fill(GRACE).unwrap();
    let mut first = page(1, 4..=5, 9);
    first.next_from = Some(SeqId(6));
    inbox.filled(fill, first, GRACE, &mut out).unwrap();
    let fill = inbox.take_fill(GRACE).unwrap();
    assert_eq!((fill.from, fill.to), (SeqId(6), SeqId(7)));
    inbox.filled(fill, page(1, 6..=7, 9), GRACE, &mut out).unwrap();
    assert_eq!(seqs(&out), (4..=9).map(|seq| (1, seq)).collect::<Vec<_>>());
    assert_eq!(told(&inbox), 20);
}

#[test]
fn a_server_that_is_behind_what_it_told_is_asked_again_and_not_believed() {
    let mut inbox = settled();
    let mut out = Vec::new();
    inbox.deliver(vec![record(1, 5)], Some(step(12)), 0, &mut out);
    let mut now = GRACE;
    for _ in 0..BEHIND_RETRIES_MAX {
        let fill = inbox.take_fill(now).unwrap();
        inbox.filled(fill, nothing(3), now, &mut out).unwrap();
        assert_eq!(inbox.take_fill(now), None);
        now += BEHIND_RETRY_MS;
    }
    assert_eq!((seqs(&out), told(&inbox)), (vec![], 10));
    let fill = inbox.take_fill(now).unwrap();
    assert!(inbox.filled(fill, nothing(3), now, &mut out).is_err(), "for ever is too long");
}

#[test]
fn records_that_a_complete_page_lacks_are_not_visible() {
    let mut inbox = settled();
    let mut out = Vec::new();
    // Away from 4 to 8, back with 9.
    inbox.deliver(vec![record(1, 9)], Some(step(19)), 0, &mut out);
    let fill = inbox.take_fill(GRACE).unwrap();
    inbox.filled(fill, nothing(9), GRACE, &mut out).unwrap();
    assert_eq!((seqs(&out), told(&inbox)), (vec![(1, 9)], 19));
}

#[test]
fn a_conversation_never_heard_of_appears_with_all_that_may_be_seen() {
    let mut inbox = settled();
    let mut out = Vec::new();
    inbox.deliver(vec![record(2, 1)], Some(step(11)), 0, &mut out);
    let joins = Membership { actor: UserId(2), joined: vec![ME], left: Vec::new() };
    inbox.deliver(vec![Record { membership: Some(joins), ..record(3, 40) }], Some(step(12)), 0, &mut out);
    assert_eq!(seqs(&out), [(2, 1), (3, 40)]);
    // A new one whose first record is not the first there is: what was before is looked for.
    inbox.deliver(vec![record(4, 2)], Some(step(13)), 0, &mut out);
    let fill = inbox.take_fill(GRACE).unwrap();
    assert_eq!((fill.from, fill.to), (SeqId(1), SeqId(1)));
}

#[test]
fn an_own_message_to_a_conversation_not_told_of_yet_waits_for_its_row() {
    let mut inbox = attached_inbox(Backlog::Newest, &Progress::default());
    let mut out = Vec::new();
    inbox.sent(record(1, 4), 0, &mut out);
    inbox.attached(vec![row(1, 3, 10)], 0, &mut out);
    inbox.deliver(vec![record(1, 2), record(1, 3)], None, 0, &mut out);
    assert_eq!(seqs(&out), [(1, 2), (1, 3)]);
    inbox.caught_up(step(10), true, 0, &mut out);
    assert_eq!(seqs(&out), [(1, 2), (1, 3), (1, 4)]);
}

#[test]
fn a_row_older_than_the_one_held_is_ignored_on_any_connection() {
    let mut inbox = settled();
    let mut out = Vec::new();
    inbox.attached(vec![Conversation { active: false, ..row(1, 3, 15) }], 0, &mut out);
    assert_eq!(out.len(), 1);
    inbox.connected(ME, &Bytes::from_static(b"h"));
    inbox.attached(vec![row(1, 3, 14)], 0, &mut out);
    assert_eq!(out.len(), 1);
}

#[test]
fn after_a_reset_what_was_undone_comes_anew_and_what_is_not_listed_is_gone() {
    let mut inbox = settled();
    let mut out = Vec::new();
    inbox.deliver(vec![record(2, 1)], Some(step(11)), 0, &mut out);
    out.clear();
    inbox.connected(ME, &Bytes::from_static(b"i"));
    let forks = vec![(conversation(1), SeqId(1))];
    inbox.reset(Bytes::from_static(b"i"), forks.clone(), &mut out);
    assert_eq!(out, [Event::Reset { history: Bytes::from_static(b"i"), keep: forks }]);
    // Rows of the new history are as of lower indexes, and are taken all the same.
    inbox.attached(vec![row(1, 2, 3), row(2, 1, 3)], 0, &mut out);
    inbox.deliver(vec![record(1, 2), record(2, 1)], None, 0, &mut out);
    inbox.caught_up(step(3), true, 0, &mut out);
    assert_eq!(seqs(&out), [(1, 2), (2, 1)]);
    assert_eq!((told(&inbox), inbox.cursor().unwrap().history), (3, Bytes::from_static(b"i")));
}

#[test]
fn skipping_the_backlog_completes_what_is_known_and_only_that() {
    let mut progress = Progress::default();
    progress.note_record(conversation(1), SeqId(1));
    let mut inbox = attached_inbox(Backlog::Skip, &progress);
    let mut out = Vec::new();
    inbox.attached(vec![row(1, 3, 10), row(2, 50, 10)], 0, &mut out);
    inbox.caught_up(step(10), true, 0, &mut out);
    let fill = inbox.take_fill(0).unwrap();
    assert_eq!((fill.conversation, fill.from, fill.to), (conversation(1), SeqId(2), SeqId(3)));
    inbox.filled(fill, page(1, 2..=3, 3), 0, &mut out).unwrap();
    inbox.deliver(vec![record(2, 51)], Some(step(11)), 0, &mut out);
    assert_eq!(seqs(&out), [(1, 2), (1, 3), (2, 51)]);
}

/// An inbox that skipped conversation 1 up to record 3 and was told everything up to index 10; then its connection ended,
/// and another stands.
fn skipped_and_back() -> Inbox {
    let mut inbox = attached_inbox(Backlog::Skip, &Progress::default());
    let mut out = Vec::new();
    inbox.attached(vec![row(1, 3, 10)], 0, &mut out);
    inbox.caught_up(step(10), true, 0, &mut out);
    assert_eq!((seqs(&out), out.last()), (vec![], Some(&Event::CaughtUp)));
    inbox.connected(ME, &Bytes::from_static(b"h"));
    inbox
}

#[test]
fn a_conversation_that_began_while_the_device_was_away_is_not_the_past_that_was_skipped() {
    let mut inbox = skipped_and_back();
    let mut out = Vec::new();
    inbox.attached(vec![row(1, 4, 20), row(2, 3, 20)], 0, &mut out);
    inbox.caught_up(step(20), true, 0, &mut out);
    let mut fills: Vec<_> = std::iter::from_fn(|| inbox.take_fill(0)).collect();
    fills.sort_by_key(|fill| fill.conversation);
    let ranges: Vec<_> = fills.iter().map(|fill| (fill.conversation, fill.from.0, fill.to.0)).collect();
    assert_eq!(ranges, [(conversation(1), 4, 4), (conversation(2), 1, 3)]);
    inbox.filled(fills[0], page(1, 4..=4, 4), 0, &mut out).unwrap();
    inbox.filled(fills[1], page(2, 1..=3, 3), 0, &mut out).unwrap();
    assert_eq!(seqs(&out), [(1, 4), (2, 1), (2, 2), (2, 3)]);
    assert_eq!((out.last(), told(&inbox)), (Some(&Event::CaughtUp), 20));
}

#[test]
fn a_conversation_that_began_while_the_device_was_away_is_whole_also_when_a_record_tells_of_it_first() {
    let mut inbox = skipped_and_back();
    let mut out = Vec::new();
    inbox.deliver(vec![record(2, 2)], Some(step(21)), 0, &mut out);
    inbox.caught_up(step(21), true, 0, &mut out);
    assert_eq!((seqs(&out), told(&inbox)), (vec![], 10));
    let fill = inbox.take_fill(GRACE).unwrap();
    assert_eq!((fill.conversation, fill.from, fill.to), (conversation(2), SeqId(1), SeqId(1)));
    inbox.filled(fill, page(2, 1..=1, 2), GRACE, &mut out).unwrap();
    assert_eq!((seqs(&out), told(&inbox)), (vec![(2, 1), (2, 2)], 21));
}

#[test]
fn a_wide_hole_is_read_in_steps_that_no_server_finds_absurd() {
    let mut inbox = settled();
    let mut out = Vec::new();
    inbox.attached(vec![row(1, 25_000, 20)], 0, &mut out);
    inbox.caught_up(step(20), true, 0, &mut out);
    let mut asked = Vec::new();
    while let Some(fill) = inbox.take_fill(0) {
        asked.push((fill.from.0, fill.to.0));
        inbox.filled(fill, page(1, fill.from.0..=fill.to.0, 25_000), 0, &mut out).unwrap();
    }
    assert_eq!(asked, [(4, 10_003), (10_004, 20_003), (20_004, 25_000)]);
    assert_eq!(seqs(&out), (4..=25_000).map(|seq| (1, seq)).collect::<Vec<_>>());
    assert_eq!(told(&inbox), 20);
}

#[test]
fn what_is_held_is_bounded_and_read_again() {
    let mut inbox = settled();
    let mut out = Vec::new();
    // 4 is missing; far more follows than may be held.
    for seq in 5..=500 {
        inbox.deliver(vec![record(1, seq)], Some(step(seq + 10)), 0, &mut out);
        assert!(inbox.held <= 100);
    }
    let mut now = GRACE;
    while let Some(fill) = inbox.take_fill(now) {
        let to = fill.to.0.min(fill.from.0 + 49);
        let mut part = page(1, fill.from.0..=to, 500);
        part.next_from = (to < fill.to.0).then_some(SeqId(to + 1));
        inbox.filled(fill, part, now, &mut out).unwrap();
        now += GRACE;
    }
    assert_eq!(seqs(&out), (4..=500).map(|seq| (1, seq)).collect::<Vec<_>>());
    assert_eq!((told(&inbox), inbox.held, inbox.holes), (510, 0, 0));
}

// ---- a server that does everything it may ---------------------------------------------------------------

const CONVERSATIONS: u64 = 3;
const SLOTS: u32 = 2;
/// Records of a conversation that the server sends at attach.
const ATTACH_RECORDS: usize = 2;

#[derive(Clone, Debug)]
enum Act {
    /// Somebody writes.
    Append(u64),
    /// This device writes; the ack comes later.
    AppendOwn(u64),
    /// An own message's ack arrives.
    Ack(usize),
    /// A live record arrives, in whatever order.
    Deliver(usize),
    /// One arrives again.
    Repeat(usize),
    /// Time passes, and due holes are read in pages of this size, from a server that may be behind by this much.
    Read { page: u64, behind: u64 },
    /// The connection ends and another is made.
    Reconnect,
    /// The process ends and another begins where this one's owner had come to.
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let n = 1..=CONVERSATIONS;
    prop_oneof![
        6 => n.clone().prop_map(Act::Append),
        2 => n.prop_map(Act::AppendOwn),
        2 => (0..8usize).prop_map(Act::Ack),
        6 => (0..8usize).prop_map(Act::Deliver),
        1 => (0..64usize).prop_map(Act::Repeat),
        3 => (1..4u64, 0..2u64).prop_map(|(page, behind)| Act::Read { page, behind }),
        1 => Just(Act::Reconnect),
        1 => Just(Act::Restart),
    ]
}

struct Scene {
    inbox: Inbox,
    progress: Progress,
    backlog: Backlog,
    now_ms: u64,
    /// Of each slot: the log, entry i at index i + 1.
    logs: Vec<Vec<Record>>,
    heads: HashMap<ConversationId, u64>,
    /// Own messages whose ack has not come.
    unacked: Vec<Record>,
    /// Indexes of live records that this connection has not brought.
    pending: Vec<(u32, u64)>,
    own: Vec<(u32, u64)>,
    /// What the owner has, across restarts.
    received: HashMap<ConversationId, Vec<u64>>,
    out: Vec<Event>,
}

impl Scene {
    fn new(backlog: Backlog) -> Scene {
        let mut scene = Scene {
            inbox: Inbox::new(backlog, &Progress::default(), 6),
            progress: Progress::default(),
            backlog,
            now_ms: 0,
            logs: vec![Vec::new(); SLOTS as usize],
            heads: HashMap::new(),
            unacked: Vec::new(),
            pending: Vec::new(),
            own: Vec::new(),
            received: HashMap::new(),
            out: Vec::new(),
        };
        scene.connect();
        scene
    }

    fn play(&mut self, act: Act) {
        self.now_ms += 60;
        match act {
            Act::Append(n) => {
                let at = self.append(n);
                self.pending.push(at);
            }
            Act::AppendOwn(n) => {
                let (slot, index) = self.append(n);
                self.own.push((slot, index));
                self.unacked.push(self.logs[slot as usize][index as usize - 1].clone());
            }
            Act::Ack(at) if !self.unacked.is_empty() => {
                let own = self.unacked.remove(at % self.unacked.len());
                self.inbox.sent(own, self.now_ms, &mut self.out);
            }
            Act::Deliver(at) if !self.pending.is_empty() => {
                let (slot, index) = self.pending.remove(at % self.pending.len());
                self.deliver(slot, index);
            }
            Act::Repeat(at) => self.repeat(at),
            Act::Read { page, behind } => self.read(page, behind),
            Act::Reconnect => self.connect(),
            Act::Restart => {
                self.inbox = Inbox::new(self.backlog, &self.progress, 6);
                // A process that ends forgets what it has not heard of; its messages come as records.
                self.unacked.clear();
                self.connect();
            }
            Act::Ack(_) | Act::Deliver(_) => {}
        }
        self.take_events();
    }

    fn append(&mut self, n: u64) -> (u32, u64) {
        let slot = (n % u64::from(SLOTS)) as u32;
        let head = self.heads.entry(conversation(n)).or_default();
        *head += 1;
        let log = &mut self.logs[slot as usize];
        log.push(record(n, *head));
        (slot, log.len() as u64)
    }

    fn deliver(&mut self, slot: u32, index: u64) {
        let record = self.logs[slot as usize][index as usize - 1].clone();
        // An honest server: the cursor stays below everything not yet brought, own messages not yet acknowledged included.
        let log = &self.logs[slot as usize];
        let unacked = |&&(s, i): &&(u32, u64)| s == slot && self.unacked.contains(&log[i as usize - 1]);
        let own = self.own.iter().filter(unacked).map(|&(_, i)| i);
        let pending = self.pending.iter().filter(|&&(s, _)| s == slot).map(|&(_, i)| i);
        let value = own.chain(pending).min().map_or(log.len() as u64, |lowest| lowest - 1);
        self.inbox.deliver(vec![record], Some(Step { slot, value }), self.now_ms, &mut self.out);
    }

    fn repeat(&mut self, at: usize) {
        let sent: Vec<Record> = self.logs.iter().flatten().cloned().collect();
        if let Some(record) = sent.get(at) {
            let slot = (record.conversation.0 as u64 % u64::from(SLOTS)) as u32;
            let is_pending = self.pending.iter().any(|&(s, i)| self.logs[s as usize][i as usize - 1] == *record);
            if !is_pending && !self.unacked.contains(record) {
                let step = Step { slot, value: 0 };
                self.inbox.deliver(vec![record.clone()], Some(step), self.now_ms, &mut self.out);
            }
        }
    }

    fn read(&mut self, page_records: u64, behind: u64) {
        self.now_ms += GRACE;
        while let Some(fill) = self.inbox.take_fill(self.now_ms) {
            let head = self.heads[&fill.conversation].saturating_sub(behind);
            let n = fill.conversation.0 as u64 & 0xffff;
            let end = fill.to.0.min(head);
            let last = end.min(fill.from.0 + page_records - 1);
            let mut page = page(n, fill.from.0..=last, head);
            page.next_from = (last < end).then_some(SeqId(last + 1));
            // Behind for too long is an error that a reconnect heals; scenes are shorter than that.
            self.inbox.filled(fill, page, self.now_ms, &mut self.out).unwrap();
        }
    }

    fn connect(&mut self) {
        let cursor = self.inbox.cursor();
        self.inbox.connected(ME, &Bytes::from_static(b"h"));
        self.pending.clear();
        for slot in 0..SLOTS {
            let told = cursor.iter().flat_map(|c| &c.steps).find(|s| s.slot == slot).map_or(0, |s| s.value);
            self.attach(slot, told, slot + 1 == SLOTS);
        }
    }

    fn attach(&mut self, slot: u32, told: u64, is_last: bool) {
        let log = &self.logs[slot as usize];
        let as_of = log.len() as u64;
        let mut rows = Vec::new();
        let mut records = Vec::new();
        for n in (1..=CONVERSATIONS).filter(|n| (n % u64::from(SLOTS)) as u32 == slot) {
            let missed: Vec<_> = log[told as usize..].iter().filter(|r| r.conversation == conversation(n)).collect();
            if let Some(last) = missed.last() {
                rows.push(Conversation { slot, ..row(n, last.seq_id.0, as_of) });
                records.extend(missed[missed.len().saturating_sub(ATTACH_RECORDS)..].iter().copied().cloned());
            }
        }
        self.inbox.attached(rows, slot, &mut self.out);
        self.inbox.deliver(records, None, self.now_ms, &mut self.out);
        self.inbox.caught_up(Step { slot, value: as_of }, is_last, self.now_ms, &mut self.out);
    }

    /// The owner takes events: that is the moment that counts.
    fn take_events(&mut self) {
        for event in std::mem::take(&mut self.out) {
            self.progress.note(&event);
            if let Event::Online { .. } | Event::Row(_) = event {
                continue;
            }
            if let Event::Record(record) = event {
                self.received.entry(record.conversation).or_default().push(record.seq_id.0);
            }
        }
        self.progress.history = "68".into();
    }

    fn finish(&mut self) {
        while !self.unacked.is_empty() {
            self.play(Act::Ack(0));
        }
        self.play(Act::Reconnect);
        for _ in 0..1000 {
            self.play(Act::Read { page: 3, behind: 0 });
        }
    }

    fn check(&self) {
        for (conversation, &head) in &self.heads {
            let received = self.received.get(conversation).cloned().unwrap_or_default();
            let first = received.first().copied().unwrap_or(head + 1);
            assert_eq!(received, (first..=head).collect::<Vec<_>>(), "{conversation} up to {head}");
            assert!(first == 1 || self.backlog == Backlog::Newest);
        }
        assert_eq!((self.inbox.holes, self.inbox.held, self.inbox.due.len()), (0, 0, 0));
        let whole: u64 = self.logs.iter().map(|log| log.len() as u64).sum();
        assert_eq!(told(&self.inbox), whole);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_connection_does_each_record_is_handed_on_once_and_in_order(
        all in any::<bool>(),
        acts in proptest::collection::vec(act(), 0..60),
    ) {
        let mut scene = Scene::new(if all { Backlog::All } else { Backlog::Newest });
        for act in acts {
            scene.play(act);
        }
        scene.finish();
        scene.check();
    }
}
