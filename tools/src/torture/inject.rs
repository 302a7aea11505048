//! Carries out a plan of faults.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::cluster::Cluster;
use super::fault::FaultKind;
use super::history::{Fault, Replica};
use super::plan::Injection;
use super::recorder::Recorder;

/// Makes every fault at its time, or as soon as the one before it is healed; returns when all are.
pub async fn inject(plan: Vec<Injection>, cluster: Arc<Mutex<Cluster>>, recorder: Arc<Recorder>) -> anyhow::Result<()> {
    let began = Instant::now();
    for Injection { at, replica, kind, lasts } in plan {
        sleep_until(began + at).await;
        let (from_ns, shards) = (recorder.now_ns(), cluster.lock().led_by(replica));
        recorder.disturb();
        on(&cluster, move |cluster| cluster.hit(replica, kind)).await?;
        sleep(lasts).await;
        on(&cluster, move |cluster| cluster.heal(replica, kind)).await?;
        recorder.disturb();
        let healed_ns = Some(recorder.now_ns());
        recorder.note_fault(Fault { kind, replica, from_ns, healed_ns, shards });
        say(kind, replica, Duration::from_nanos(from_ns), lasts);
    }
    Ok(())
}

/// Processes are started and waited for off the async workers.
async fn on(
    cluster: &Arc<Mutex<Cluster>>,
    act: impl FnOnce(&mut Cluster) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    let cluster = cluster.clone();
    tokio::task::spawn_blocking(move || act(&mut cluster.lock())).await.context("making a fault")?
}

fn say(kind: FaultKind, replica: Replica, from: Duration, lasts: Duration) {
    let (from, lasts) = (from.as_secs_f64(), lasts.as_secs_f64());
    eprintln!("torture: {from:.1} s: {} of node {}, {lasts:.1} s", kind.name(), replica.0);
}
