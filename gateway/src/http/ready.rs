//! Ready means: every shard can commit. Asked by committing something, at most twice a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use serde::Serialize;
use tokio::sync::Mutex;

/// An answer this old is still good: a crowd of probes costs one commit.
const FRESH: Duration = Duration::from_millis(500);

/// Commits something on every shard: how long each took, or why not. Must end in bounded time.
pub(crate) type Probes = Arc<dyn Fn() -> BoxFuture<'static, Vec<ShardProbe>> + Send + Sync>;

/// What became of one shard's probe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ShardProbe {
    pub shard: u16,
    pub ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is wrong with it though it commits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}

/// The body of `/readyz`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    pub ready: bool,
    pub state: &'static str,
    pub shards: Vec<ShardProbe>,
}

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const DRAINING: u8 = 2;

/// Whether this node should be sent work.
pub(crate) struct Readiness {
    phase: AtomicU8,
    last: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    probes: Option<Probes>,
    answer: Option<(Instant, Arc<Report>)>,
}

impl Readiness {
    /// Not ready until [`Readiness::serve`].
    pub fn starting() -> Readiness {
        Readiness { phase: AtomicU8::new(STARTING), last: Mutex::default() }
    }

    /// From now on the shards decide.
    pub async fn serve(&self, probes: Probes) {
        self.last.lock().await.probes = Some(probes);
        self.phase.store(SERVING, Ordering::Release);
    }

    /// Never ready again.
    pub fn drain(&self) {
        self.phase.store(DRAINING, Ordering::Release);
        metrics::gauge!("skein_ready").set(0.0);
    }

    /// The state now, or half a second ago.
    pub async fn report(&self) -> Arc<Report> {
        self.report_at(Instant::now()).await
    }

    async fn report_at(&self, now: Instant) -> Arc<Report> {
        let down = |state| Arc::new(Report { ready: false, state, shards: Vec::new() });
        match self.phase.load(Ordering::Acquire) {
            SERVING => self.ask(now).await,
            DRAINING => down("draining"),
            _ => down("starting"),
        }
    }

    /// Holding the lock while asking makes all others wait for this one answer.
    async fn ask(&self, now: Instant) -> Arc<Report> {
        let mut last = self.last.lock().await;
        if let Some((asked, answer)) = &last.answer
            && now.saturating_duration_since(*asked) < FRESH
        {
            return answer.clone();
        }
        let shards = match &last.probes {
            Some(probes) => probes().await,
            None => Vec::new(),
        };
        let ready = !shards.is_empty() && shards.iter().all(|shard| shard.ready);
        metrics::gauge!("skein_ready").set(if ready { 1.0 } else { 0.0 });
        let state = if ready { "ready" } else { "shards cannot commit" };
        let answer = Arc::new(Report { ready, state, shards });
        last.answer = Some((now, answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures::FutureExt;

    use super::*;

    fn probe(shard: u16, ready: bool) -> ShardProbe {
        ShardProbe { shard, ready, took_ms: None, reason: None, troubles: Vec::new() }
    }

    fn counted(asked: Arc<AtomicUsize>, shards: Vec<ShardProbe>) -> Probes {
        Arc::new(move || {
            asked.fetch_add(1, Ordering::Relaxed);
            let shards = shards.clone();
            async move { shards }.boxed()
        })
    }

    #[tokio::test]
    async fn a_node_is_ready_only_between_start_and_drain_and_only_with_every_shard() {
        let readiness = Readiness::starting();
        assert_eq!(readiness.report().await.state, "starting");
        readiness.serve(counted(Arc::default(), vec![probe(1, true), probe(2, true)])).await;
        assert!(readiness.report().await.ready);
        readiness.drain();
        assert_eq!(readiness.report().await.state, "draining");
    }

    #[tokio::test]
    async fn one_shard_that_cannot_commit_is_named() {
        let readiness = Readiness::starting();
        readiness.serve(counted(Arc::default(), vec![probe(1, true), probe(2, false)])).await;
        let report = readiness.report().await;
        assert!(!report.ready);
        assert_eq!(report.shards.iter().find(|shard| !shard.ready).unwrap().shard, 2);
    }

    #[tokio::test]
    async fn no_shards_at_all_is_not_ready() {
        let readiness = Readiness::starting();
        readiness.serve(counted(Arc::default(), Vec::new())).await;
        assert!(!readiness.report().await.ready);
    }

    #[tokio::test]
    async fn a_crowd_of_probes_costs_one_commit_each_half_second() {
        let (readiness, asked, start) = (Readiness::starting(), Arc::new(AtomicUsize::new(0)), Instant::now());
        readiness.serve(counted(asked.clone(), vec![probe(1, true)])).await;
        let mut counts = Vec::new();
        for ms in [0, 1, 499, 500, 999, 1000] {
            readiness.report_at(start + Duration::from_millis(ms)).await;
            counts.push(asked.load(Ordering::Relaxed));
        }
        assert_eq!(counts, [1, 1, 1, 2, 2, 3]);
    }
}
