//! A run: nodes, people, load, faults, the end of everything under way, and what was kept.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use hashbrown::HashSet;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Args;
use super::act::MESSAGES_A_CHOICE;
use super::cluster::{Cluster, SHARDS};
use super::device::{Device, Phase};
use super::history::History;
use super::inject::inject;
use super::plan::Injection;
use super::read_back::read_back;
use super::recorder::Recorder;
use super::stage::Stage;
use crate::exit::Failure;
use crate::output::Globals;

/// Longest time after the last fault in which everything under way comes to its end.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// Longest time in which everybody is given what was read back. Who lacks something then is found by the checker.
const FINISH_MAX: Duration = Duration::from_secs(20);

/// Runs all of it; Ctrl-C and SIGTERM end it, and its nodes with it.
pub async fn run(args: &Args, globals: &Globals, seed: u64, plan: Vec<Injection>) -> Result<History, Failure> {
    let (nodes, arguments) = (args.nodes, args.server_arguments());
    let started = tokio::task::spawn_blocking(move || Cluster::start(nodes, &arguments)).await?;
    let cluster = Arc::new(Mutex::new(started?));
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let outcome = tokio::select! {
        outcome = torture(args, globals, seed, plan, cluster.clone()) => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
        _ = terminate.recv() => Err(Failure::Interrupted),
    };
    cluster.lock().end();
    outcome
}

async fn torture(
    args: &Args,
    globals: &Globals,
    seed: u64,
    plan: Vec<Injection>,
    cluster: Arc<Mutex<Cluster>>,
) -> Result<History, Failure> {
    let recorder = Arc::new(Recorder::new(SHARDS));
    let stage = stage(args, globals, seed, &cluster, &recorder).await?;
    let (phase, phases) = watch::channel(Phase::Load);
    let (settled, mut settling) = mpsc::channel(stage.people.len());
    let mut devices = begin(args, seed, &stage, &recorder, &phases, &settled);
    let mut faults = tokio::spawn(inject(plan, cluster.clone(), recorder.clone()));
    load(args.duration, &mut devices, &recorder).await?;
    let made = timeout(SETTLE_MAX, &mut faults).await.context("a fault was not healed")?;
    recorder.end_load();
    made.context("making faults")??;
    cluster.lock().all_run()?;
    phase.send_replace(Phase::Settle);
    settle(&mut settling, &mut devices).await?;
    let heads = read_back(&stage, &recorder).await?;
    phase.send_replace(Phase::Finish(Arc::new(heads)));
    finish(&mut devices).await?;
    cluster.lock().all_run()?;
    let events = recorder.events().context("there is no room for more events: a shorter run, or a lower --rate")?;
    eprintln!("torture: {events} events");
    Ok(recorder.take())
}

async fn stage(
    args: &Args,
    globals: &Globals,
    seed: u64,
    cluster: &Arc<Mutex<Cluster>>,
    recorder: &Arc<Recorder>,
) -> Result<Stage, Failure> {
    let (listen, data_dir) = {
        let cluster = cluster.lock();
        (cluster.listen(), cluster.data_dir())
    };
    Stage::build((listen, data_dir), globals, (args.users, args.groups, seed), recorder).await
}

fn begin(
    args: &Args,
    seed: u64,
    stage: &Stage,
    recorder: &Arc<Recorder>,
    phases: &watch::Receiver<Phase>,
    settled: &mpsc::Sender<logstore::id::UserId>,
) -> JoinSet<anyhow::Result<()>> {
    let mut devices = JoinSet::new();
    for (number, person) in stage.people.iter().enumerate() {
        let device = Device {
            user: person.user,
            token: person.token.clone(),
            listen: stage.listen.clone(),
            places: stage.places_of(person.user),
            pace: Duration::from_secs_f64(f64::from(args.users) * MESSAGES_A_CHOICE / f64::from(args.rate)),
            chance: SmallRng::seed_from_u64(seed.wrapping_add(number as u64 + 1)),
            recorder: recorder.clone(),
            phase: phases.clone(),
            cuts: Arc::default(),
            inside: HashSet::new(),
            settled: settled.clone(),
        };
        devices.spawn(device.run());
    }
    devices
}

/// Lets time pass; a client that ends by itself ends the run.
async fn load(
    duration: Duration,
    devices: &mut JoinSet<anyhow::Result<()>>,
    recorder: &Recorder,
) -> Result<(), Failure> {
    let began = tokio::time::Instant::now();
    while began.elapsed() < duration {
        tokio::select! {
            () = sleep(Duration::from_millis(100)) => {}
            Some(ended) = devices.join_next() => return Err(ended_early(ended)),
        }
        if recorder.events().is_none() {
            return Err(anyhow!("there is no room for more events: a shorter run, or a lower --rate").into());
        }
    }
    Ok(())
}

async fn settle(
    settling: &mut mpsc::Receiver<logstore::id::UserId>,
    devices: &mut JoinSet<anyhow::Result<()>>,
) -> Result<(), Failure> {
    let mut quiet = HashSet::new();
    let wanted = devices.len();
    let all = async {
        while quiet.len() < wanted {
            tokio::select! {
                Some(user) = settling.recv() => drop(quiet.insert(user)),
                Some(ended) = devices.join_next() => return Err(ended_early(ended)),
            }
        }
        Ok(())
    };
    match timeout(SETTLE_MAX, all).await {
        Ok(settled) => settled,
        Err(_) => {
            let seconds = SETTLE_MAX.as_secs();
            Err(Failure::Mismatch(format!(
                "only {} of {wanted} clients had all their answers {seconds} s after the last fault",
                quiet.len()
            )))
        }
    }
}

async fn finish(devices: &mut JoinSet<anyhow::Result<()>>) -> Result<(), Failure> {
    let all = async {
        while let Some(ended) = devices.join_next().await {
            ended.context("a client")??;
        }
        anyhow::Ok(())
    };
    match timeout(FINISH_MAX, all).await {
        Ok(finished) => Ok(finished?),
        Err(_) => {
            eprintln!("torture: {} clients were not given everything within {} s", devices.len(), FINISH_MAX.as_secs());
            devices.shutdown().await;
            Ok(())
        }
    }
}

fn ended_early(ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> Failure {
    match ended {
        Ok(Ok(())) => anyhow!("a client ended early").into(),
        Ok(Err(error)) => Failure::Failed(error.context("a client ended early")),
        Err(error) => anyhow!(error).context("a client").into(),
    }
}
