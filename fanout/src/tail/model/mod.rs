//! Attaching, modelled: a real shard state and a real hub, with every delay in the test's hands.
//!
//! The world applies entries at once and dispatches them when told to. A device connects (its announcement takes
//! effect), is answered later, breaks off, comes again with the cursor it was told; the gateway of the model holds and
//! drops as the fence says. In the end every device must have got exactly what its user may see, once and in order, with
//! no following message to help.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use logstore::id::*;
use logstore::io::faulty::FaultyDisk;
use logstore::segment::BlockCache;
use logstore::{RecordKind, Records, SegmentSet};
use parking_lot::Mutex;
use sequencer::state::{Brought, Look, ShardState};
use sequencer::{AccountSeed, Applied, Batch, Command, GroupChange, Outcome, Record, TailBatch};

mod random;
mod traces;

use super::attach::Fence;
use super::{Announcement, Attachment, GatewayId, Hub};
use crate::pages::tests::{Listed, block_on};

const SHARD: ShardId = ShardId(1);
const GATEWAY: GatewayId = GatewayId(9);

/// One device of a user: what it has, and its connection if there is one.
struct Device {
    user: UserId,
    told: LogIndex,
    got: BTreeMap<ConversationId, Vec<SeqId>>,
    connection: Option<Connection>,
}

struct Connection {
    id: ConnectionId,
    stage: Stage,
}

enum Stage {
    /// Announced; what arrives is held until the answer is there.
    Pending { fence: Option<Fence>, held: Vec<(LogIndex, ConversationId, SeqId)> },
    /// Answered as of an entry: what is at or below it was in the answer.
    Live { as_of: LogIndex },
    /// Told to announce itself anew.
    Reset,
}

struct World {
    state: ShardState,
    unsealed: Records,
    records: Vec<Record>,
    log: Vec<Arc<TailBatch>>,
    dispatched: usize,
    hub: Mutex<Hub>,
    devices: Vec<Device>,
    users: Vec<UserId>,
    group: ConversationId,
    ids: u128,
    connections: u64,
}

impl World {
    /// Four users, a group of the first two, one device each.
    fn new() -> World {
        let mut world = World {
            state: ShardState::new(SHARD),
            unsealed: Records::above(nothing_sealed()),
            records: Vec::new(),
            log: Vec::new(),
            dispatched: 0,
            hub: Mutex::new(Hub::new(SHARD)),
            devices: Vec::new(),
            users: Vec::new(),
            group: ConversationId::group(77),
            ids: 0,
            connections: 0,
        };
        let table = vec![(Bucket(0), Bucket(u16::MAX), SHARD)];
        world.apply(Command::Init { history: HistoryId(1), incarnation: 1, table_epoch: 1, table });
        for name in ["ann", "ben", "cam", "dee"] {
            let request = world.id();
            let claim = Command::ClaimName { name: name.into(), seed: AccountSeed::default(), request };
            let Outcome::Claimed { user, .. } = world.apply(claim) else { panic!("a free name is claimed") };
            world.users.push(user);
        }
        world.pump();
        let (request, members) = (world.id(), vec![world.users[1]]);
        let (group, creator) = (world.group, world.users[0]);
        world.apply(Command::GroupCreate { group, creator, request, name: "all".into(), members });
        for user in world.users.clone() {
            world.device(user);
        }
        world.dispatch_all();
        world
    }

    fn device(&mut self, user: UserId) -> usize {
        self.devices.push(Device { user, told: LogIndex(0), got: BTreeMap::new(), connection: None });
        self.devices.len() - 1
    }

    fn id(&mut self) -> ClientMsgId {
        self.ids += 1;
        ClientMsgId(u128::from(self.now().0) << 80 | 7 << 76 | 2 << 62 | self.ids)
    }

    fn now(&self) -> TimeMs {
        TimeMs(ServerMsgId::EPOCH_MS + 1_000_000 + self.log.len() as u64)
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.apply_all(vec![command]).remove(0)
    }

    fn apply_all(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let payload = Batch { time: self.now(), commands }.encode();
        let index = LogIndex(self.log.len() as u64 + 1);
        let applied: Applied = self.state.apply(index, &payload);
        let outcomes = applied.outcomes.clone();
        for record in &applied.records {
            self.unsealed.push(&record.head, record.command_offset, record.made_body.clone());
            self.records.push(Record { head: record.head, body: Bytes::new() });
        }
        self.log.push(Arc::new(TailBatch { applied, payload }));
        outcomes
    }

    /// Carries effects from the shard to itself until none is left.
    fn pump(&mut self) {
        while let Some((incarnation, first, effects)) = self.state.outbox(SHARD, 100) {
            let Outcome::Effects { last } = self.apply(Command::Effects { from: SHARD, incarnation, first, effects })
            else {
                panic!("effects are total")
            };
            self.apply(Command::AckEffects { to: SHARD, incarnation, upto: last });
        }
    }

    fn message(&mut self, conversation: ConversationId, sender: usize) -> Command {
        Command::Send(sequencer::Send {
            conversation,
            sender: self.users[sender],
            origin: ConnectionId(0),
            client_msg_id: self.id(),
            kind: RecordKind::TEXT,
            body_hash: BodyHash(0),
            checked_upto: 0,
            body: Bytes::from_static(b"hi"),
        })
    }

    fn send(&mut self, conversation: ConversationId, sender: usize) {
        let message = self.message(conversation, sender);
        self.apply(message);
    }

    fn add(&mut self, user: usize) {
        let request = self.id();
        let change = GroupChange::new(self.group, self.users[0], request, vec![self.users[user]], vec![]);
        self.apply(Command::GroupChange(change));
    }

    fn remove(&mut self, user: usize) {
        let request = self.id();
        let change = GroupChange::new(self.group, self.users[0], request, vec![], vec![self.users[user]]);
        self.apply(Command::GroupChange(change));
    }

    fn open_direct(&mut self, a: usize, b: usize) -> ConversationId {
        let (initiator, peer) = (self.users[a], self.users[b]);
        self.apply(Command::OpenDirect { initiator, peer });
        self.pump();
        ConversationId::direct(initiator, peer)
    }

    /// A device announces itself; the old connection, if any, stays until it is detached.
    fn announce(&mut self, device: usize) -> ConnectionId {
        self.connections += 1;
        let id = ConnectionId(self.connections);
        self.announce_as(device, id);
        id
    }

    fn announce_as(&mut self, device: usize, connection: ConnectionId) {
        let announcement = Announcement {
            gateway: GATEWAY,
            connection,
            user: self.devices[device].user,
            cursor: self.devices[device].told,
            bodies: true,
        };
        let mut brought = Brought::default();
        let look = Look::new(&self.state, &mut brought);
        let fence = Fence::set(SHARD, &look, &self.unsealed, &self.hub, announcement, u64::MAX);
        let fence = fence.expect("all of it is in memory");
        let stage = Stage::Pending { fence: Some(fence), held: Vec::new() };
        self.devices[device].connection = Some(Connection { id: connection, stage });
    }

    /// The answer of a device's announcement comes in.
    fn answer(&mut self, device: usize) {
        let source = Source { world: &self.records };
        let device = &mut self.devices[device];
        let Some(Connection { stage: stage @ Stage::Pending { .. }, .. }) = &mut device.connection else { return };
        let Stage::Pending { fence, held } = std::mem::replace(stage, Stage::Reset) else { unreachable!() };
        let fence = fence.expect("answered once");
        assert!(self.hub.lock().is_current(fence.generation), "a reset makes every announcement void");
        let Attachment { as_of, records, .. } = block_on(fence.read(&source)).unwrap();
        *stage = Stage::Live { as_of };
        for record in records {
            device.keep(record.head.conversation, record.head.seq);
        }
        device.told = as_of;
        for (index, conversation, seq) in held.into_iter().filter(|(index, ..)| *index > as_of) {
            device.keep(conversation, seq);
            device.told = index;
        }
    }

    fn detach(&mut self, device: usize) {
        if let Some(connection) = self.devices[device].connection.take() {
            self.hub.lock().detach(connection.id, self.devices[device].user);
        }
    }

    /// The next applied entry is handed out.
    fn dispatch(&mut self) -> bool {
        let Some(batch) = self.log.get(self.dispatched).cloned() else { return false };
        self.dispatched += 1;
        let told_to_all = vec![true; batch.applied.cursors.len()];
        let deliveries = self.hub.lock().dispatch(&batch, &told_to_all);
        for (gateway, delivery) in deliveries {
            assert_eq!(gateway, GATEWAY);
            for target in &delivery.targets {
                let head = &batch.applied.records[target.record as usize].head;
                for connection in &delivery.connections[target.to.start as usize..target.to.end as usize] {
                    self.deliver(*connection, batch.applied.index, head.conversation, head.seq);
                }
            }
        }
        true
    }

    fn deliver(&mut self, to: ConnectionId, index: LogIndex, conversation: ConversationId, seq: SeqId) {
        let device = self.devices.iter_mut().find(|d| d.connection.as_ref().is_some_and(|c| c.id == to));
        let Some(device) = device else { return };
        match device.connection.as_mut().map(|c| &mut c.stage) {
            Some(Stage::Pending { held, .. }) => held.push((index, conversation, seq)),
            Some(Stage::Live { as_of }) if index > *as_of => {
                device.keep(conversation, seq);
                device.told = index;
            }
            _ => {}
        }
    }

    fn dispatch_all(&mut self) {
        while self.dispatch() {}
    }

    /// The dispatcher loses the tail: everything applied so far is gone for it.
    fn reset(&mut self) {
        self.dispatched = self.log.len();
        self.hub.lock().reset();
        for connection in self.devices.iter_mut().filter_map(|d| d.connection.as_mut()) {
            connection.stage = Stage::Reset;
        }
    }

    /// Lets everything internal happen, and checks what every connected device then has.
    fn settle(&mut self) {
        for device in 0..self.devices.len() {
            let reset = self.devices[device].connection.as_ref().filter(|c| matches!(c.stage, Stage::Reset));
            if let Some(id) = reset.map(|c| c.id) {
                self.announce_as(device, id);
            }
        }
        self.dispatch_all();
        for device in 0..self.devices.len() {
            self.answer(device);
        }
        for device in self.devices.iter().filter(|d| d.connection.is_some()) {
            assert_eq!(device.got, self.visible_to(device.user), "user {}", device.user);
        }
    }

    fn visible_to(&self, user: UserId) -> BTreeMap<ConversationId, Vec<SeqId>> {
        let mut visible: BTreeMap<ConversationId, Vec<SeqId>> = BTreeMap::new();
        for head in self.records.iter().map(|r| r.head) {
            if self.state.member(head.conversation, user).is_some_and(|row| row.sees(head.seq)) {
                visible.entry(head.conversation).or_default().push(head.seq);
            }
        }
        visible
    }
}

impl Device {
    /// Takes a record, which must be the next that it has not got.
    fn keep(&mut self, conversation: ConversationId, seq: SeqId) {
        let got = self.got.entry(conversation).or_default();
        assert!(got.last().is_none_or(|last| *last < seq), "{conversation} {seq} again or late: {got:?}");
        got.push(seq);
    }
}

/// The log as history reads it.
struct Source<'a> {
    world: &'a [Record],
}

impl crate::pages::RecordSource for Source<'_> {
    async fn records(
        &self,
        conversation: ConversationId,
        from: SeqId,
        to: SeqId,
        records_max: usize,
        bytes_max: usize,
    ) -> sequencer::Result<Vec<Record>> {
        let records = self.world.iter().filter(|r| r.head.conversation == conversation).cloned().collect();
        Listed { records, read_max: 3 }.records(conversation, from, to, records_max, bytes_max).await
    }
}

/// Segments of a shard of which nothing is sealed.
fn nothing_sealed() -> Arc<SegmentSet> {
    let cache = Arc::new(BlockCache::new(4 << 20));
    Arc::new(SegmentSet::open(&FaultyDisk::new().handle(), SHARD, &cache).unwrap())
}
