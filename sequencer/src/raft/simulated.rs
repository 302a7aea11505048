//! A group of one on a simulated machine that loses power again and again: Raft, its ticker and the journal's writer in one history
//! that is a function of a seed.

use std::sync::Arc;
use std::time::Duration;

use logstore::id::{NodeId, ShardId};
use logstore::io::faulty::{FaultyDisk, Survives};
use logstore::{Journal, JournalOptions, SteppedWriter, WriterNext};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::raft::group::Group;
use crate::raft::network::Peers;
use crate::raft::ticker::Ticker;
use crate::runtime::{self, Machine, Simulation};
use crate::shard::core::ShardCore;
use crate::store::NothingSealed;

const LIVES: usize = 6;
const SYNC_MAX_US: u64 = 20_000;

/// When a life was ready, its term and its last index.
type Lives = Arc<Mutex<Vec<(Duration, u64, u64)>>>;

/// Steps the writer; a sync takes what the seed says.
pub(super) async fn drive(mut writer: SteppedWriter, rung: Arc<Notify>) {
    let mut is_idle = false;
    loop {
        let next = writer.step(is_idle);
        is_idle = false;
        match next {
            WriterNext::Step => {}
            WriterNext::Sync => Simulation::sleep(Duration::from_micros(Simulation::draw() % SYNC_MAX_US)).await,
            WriterNext::Wait(None) => rung.notified().await,
            WriterNext::Wait(Some(limit)) => is_idle = runtime::within(limit, rung.notified()).await.is_none(),
            WriterNext::Ended => return,
        }
    }
}

/// Opens the journal, starts the group and leads it, until the power goes.
async fn live(disk: FaultyDisk, lives: Lives) {
    let rung = Arc::new(Notify::new());
    let ring = rung.clone();
    let options = JournalOptions { file_bytes: 64 << 10, reserve_files: 1, ..JournalOptions::default() };
    let on_fatal = Box::new(|error: &logstore::Error| panic!("{error}"));
    let (journal, writer) =
        Journal::open_stepped(disk.handle(), options, on_fatal, Box::new(move || ring.notify_one())).unwrap();
    runtime::spawn(drive(writer, rung));
    let core = Arc::new(ShardCore::new(ShardId(0), Arc::new(NothingSealed), 1 << 20, 1 << 20));
    let ticker = Ticker::start().unwrap();
    let group = Group::start(NodeId(1), journal, core, None, Peers::none(ShardId(0))).await.unwrap();
    ticker.watch(NodeId(1), group.clone());
    group.initialize(&[NodeId(1)]).await.unwrap();
    group.recovered().await.unwrap();
    let status = group.status();
    lives.lock().push((Simulation::elapsed(), status.term, status.last_index.0));
    std::future::pending::<()>().await;
}

fn history(seed: u64) -> Vec<(Duration, u64, u64)> {
    let lives = Lives::default();
    Simulation::new(seed).run({
        let lives = lives.clone();
        async move {
            let mut disk = FaultyDisk::new();
            while lives.lock().len() < LIVES {
                assert!(Simulation::elapsed() < Duration::from_secs(120), "no life is ready any more");
                Simulation::spawn_on(Machine(1), live(disk.clone(), lives.clone()));
                Simulation::sleep(Duration::from_micros(Simulation::draw() % 400_000)).await;
                Simulation::cut_power(Machine(1));
                disk = disk.crash(Survives::Sectors(Simulation::draw()));
            }
        }
    });
    std::mem::take(&mut lives.lock())
}

#[test]
fn a_group_whose_power_goes_again_and_again_leads_again_and_never_goes_back() {
    for seed in 0..20 {
        let lives = history(seed);
        assert_eq!(lives.len(), LIVES);
        for (before, after) in lives.iter().zip(&lives[1..]) {
            assert!(before.1 < after.1 && before.2 < after.2, "seed {seed}: {lives:?}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_group_the_same_lives() {
    for seed in 0..5 {
        assert_eq!(history(seed), history(seed), "seed {seed}");
    }
    assert_ne!(history(1), history(2));
}
