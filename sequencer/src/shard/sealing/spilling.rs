//! A shard that keeps next to nothing of its sealed state in memory is the same as one that keeps everything.

use bytes::Bytes;
use logstore::RecordKind;
use logstore::id::{Bucket, ClientMsgId, ConnectionId, ConversationId, HistoryId, UserId};
use logstore::io::faulty::{FaultyDisk, Survives};
use proptest::prelude::*;

use super::replica::{Log, Replica, SHARD};
use crate::{Command, CursorMove, GroupChange, Send};

const GROUPS: u64 = 5;
const USERS: u64 = 9;

/// What happens to a log, and to whoever keeps little of it in memory.
#[derive(Clone, Debug)]
enum Step {
    Send(u64, u64),
    Create(u64, Vec<u64>),
    Change(u64, u64, Vec<u64>, Vec<u64>),
    Read(u64, u64, u64),
    Claim(u64),
    Seal,
    /// First seal, how many follow it.
    Merge(u64, u64),
    /// Makes segments of what is frozen.
    Publish,
    /// Carries out the merges that are due, and lets the store follow.
    CarryOut,
    Restart,
    LoseStore,
}

fn step() -> impl Strategy<Value = Step> {
    let (group, user) = (|| 0..GROUPS, || 1..USERS);
    let users = move || prop::collection::vec(1..USERS, 0..4);
    prop_oneof![
        6 => (group(), user()).prop_map(|(group, sender)| Step::Send(group, sender)),
        3 => (group(), users()).prop_map(|(group, users)| Step::Create(group, users)),
        3 => (group(), user(), users(), users()).prop_map(|(g, actor, add, remove)| Step::Change(g, actor, add, remove)),
        2 => (group(), user(), 1..9u64).prop_map(|(group, user, seq)| Step::Read(group, user, seq)),
        1 => (0..6u64).prop_map(Step::Claim),
        4 => Just(Step::Seal),
        2 => (1..8u64, 1..4u64).prop_map(|(first, more)| Step::Merge(first, more)),
        3 => Just(Step::Publish),
        2 => Just(Step::CarryOut),
        1 => Just(Step::Restart),
        1 => Just(Step::LoseStore),
    ]
}

/// The same log, kept in two ways.
struct Both {
    log: Log,
    /// Keeps everything.
    whole: Replica,
    /// Keeps no sealed row that is not pinned.
    spilled: Replica,
}

impl Both {
    fn new() -> Both {
        let mut log = Log::default();
        let table = vec![(Bucket(0), Bucket(u16::MAX), SHARD)];
        log.push(&[Command::Init { history: HistoryId(1), incarnation: 1, table_epoch: 1, table }]);
        let whole = Replica::open(&FaultyDisk::new());
        Both { log, whole, spilled: Replica::open_with(&FaultyDisk::new(), 0) }
    }

    fn take(&mut self, step: &Step) {
        let number = self.log.entries.len() as u64;
        let id = self.log.id(u128::from(number));
        let group = |group: &u64| ConversationId::group(*group);
        let users = |users: &[u64]| users.iter().copied().map(UserId).collect::<Vec<_>>();
        match step {
            Step::Send(to, sender) => self.push(text(group(to), UserId(*sender), id)),
            Step::Create(to, members) => self.push(Command::GroupCreate {
                group: group(to),
                creator: UserId(1),
                request: ClientMsgId(u128::from(*to)),
                name: format!("group {to}"),
                members: users(members),
            }),
            Step::Change(to, actor, add, remove) => {
                let mut change = GroupChange::new(group(to), UserId(*actor), id, users(add), users(remove));
                change.heir = add.first().or(remove.first()).copied().map_or(UserId(0), UserId);
                self.push(Command::GroupChange(change));
            }
            Step::Read(to, user, seq) => self.push(Command::MoveCursors(vec![CursorMove {
                conversation: group(to),
                user: UserId(*user),
                delivered: logstore::id::SeqId(*seq),
                read: logstore::id::SeqId(*seq),
                read_ordinal: logstore::id::Ordinal(*seq),
            }])),
            Step::Claim(name) => self.push(Command::ClaimName {
                name: format!("name {name}"),
                seed: crate::AccountSeed { password_phc: String::new() },
                request: ClientMsgId(u128::from(number)),
            }),
            Step::Seal => self.push(Command::Seal),
            Step::Merge(first, more) => self.log.push_merge(*first, first + more, 1),
            Step::Publish => self.spilled.seal(),
            Step::CarryOut => self.spilled.merge().unwrap(),
            Step::LoseStore => self.spilled.core.rows().lose_store(),
            Step::Restart => self.restart(),
        }
        self.whole.feed_any(&self.log);
        self.spilled.feed_any(&self.log);
    }

    fn push(&mut self, command: Command) {
        self.log.push(&[command]);
    }

    /// The power goes; what is not sealed is fed again.
    fn restart(&mut self) {
        let disk = self.spilled.disk.crash(Survives::Nothing);
        self.spilled.journal.close();
        self.spilled = Replica::open_with(&disk, 0);
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let groups: Vec<_> = (0..GROUPS).map(ConversationId::group).collect();
        let users: Vec<_> = (0..USERS).map(UserId).collect();
        prop_assert_eq!(self.whole.digest(), self.spilled.digest());
        prop_assert_eq!(self.whole.told(&groups, &users), self.spilled.told(&groups, &users));
        Ok(())
    }
}

fn text(conversation: ConversationId, sender: UserId, client_msg_id: ClientMsgId) -> Command {
    let body = Bytes::from_static(b"x");
    Command::Send(Send {
        conversation,
        sender,
        origin: ConnectionId(0),
        client_msg_id,
        kind: RecordKind::TEXT,
        body_hash: Send::hash_of(RecordKind::TEXT, &body),
        checked_upto: 0,
        body,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_state_that_keeps_next_to_nothing_in_memory_is_the_one_that_keeps_everything(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut both = Both::new();
        for step in &steps {
            both.take(step);
            if matches!(step, Step::Publish | Step::CarryOut | Step::Restart | Step::LoseStore) {
                both.check()?;
            }
        }
        both.check()?;
        both.restart();
        both.take(&Step::Seal);
        both.check()?;
        both.whole.journal.close();
        both.spilled.journal.close();
    }
}

#[test]
fn rows_do_leave_memory_and_a_start_brings_none_back() {
    let mut both = Both::new();
    for group in 0..GROUPS {
        both.take(&Step::Create(group, (1..USERS).collect()));
    }
    for _ in 0..3 {
        both.take(&Step::Seal);
        both.spilled.seal();
        // One part of each table is folded with every entry.
        (0..3000).for_each(|_| both.log.push(&[Command::Probe]));
        both.take(&Step::Send(0, 1));
    }
    assert!(!both.spilled.core.read().0.is_whole() && both.whole.core.read().0.is_whole());
    let is_near = |both: &Both, user| {
        both.spilled.core.read().0.is_near(&crate::state::Key::Member(ConversationId::group(3), UserId(user)))
    };
    assert!(!is_near(&both, 2));
    both.restart();
    assert!(!both.spilled.core.read().0.is_whole() && !is_near(&both, 2));
    both.take(&Step::Send(3, 2));
    both.check().unwrap();
}
