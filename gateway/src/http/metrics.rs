//! The one recorder of a process, and what is in it from the start.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Bounds of everything measured in seconds: 50 µs to 10 s, where durable acks and syncs lie.
const SECONDS_BUCKETS: [f64; 16] =
    [0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 10.0];
/// How often samples are folded into their histograms.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Installs the recorder at the first call of a process; every node of it shares the recorder.
pub(crate) fn install() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(build).clone()
}

fn build() -> PrometheusHandle {
    let seconds = Matcher::Suffix("_seconds".into());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(seconds, &SECONDS_BUCKETS);
    let recorder = builder.expect("the buckets are not empty").build_recorder();
    let handle = recorder.handle();
    // Another recorder in this process keeps its place; this one then renders what nobody wrote into.
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("another metrics recorder is installed: /metrics stays empty");
    }
    describe();
    handle
}

/// A series that exists from the start can be alerted on before its first event.
fn describe() {
    metrics::describe_counter!(
        "skein_messages_stored_total",
        "Messages in this node's log; those found at its start are counted too"
    );
    metrics::counter!("skein_messages_stored_total").increment(0);
    metrics::describe_counter!(
        "skein_written_bytes_total",
        metrics::Unit::Bytes,
        "Bytes written to data files, by part: the journal's blocks, copies, proofs, checkpoints and zeros, seals, merges, store, manifests"
    );
    metrics::describe_counter!(
        "skein_sealed_raw_bytes_total",
        metrics::Unit::Bytes,
        "Records sealed, as sends hold them: 72 bytes and the body each"
    );
    metrics::counter!("skein_sealed_raw_bytes_total").increment(0);
    metrics::describe_gauge!("skein_build_info", "1, with the version as a label");
    metrics::gauge!("skein_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    metrics::describe_gauge!("skein_ready", "Whether every shard could commit when last asked");
    metrics::gauge!("skein_ready").set(0.0);
}

/// Folds samples until dropped; without it histograms grow.
pub(crate) async fn upkeep(handle: PrometheusHandle) {
    let mut turns = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        turns.tick().await;
        handle.run_upkeep();
    }
}
