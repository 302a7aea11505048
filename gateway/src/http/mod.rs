//! Health, metrics and status over HTTP, for probes, scrapers and people; loopback unless configured otherwise.
//!
//! What always holds: nothing here changes anything, and no answer holds a secret; connections are bounded in number and
//! in time.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

mod listener;
pub(crate) mod metrics;
mod ready;
mod status;

pub(crate) use ready::{Probes, Readiness, ShardProbe};
pub(crate) use status::{DURABILITY, Status};

use listener::BoundedListener;

/// What the pages are made from.
#[derive(Clone)]
pub(crate) struct Pages {
    pub readiness: Arc<Readiness>,
    pub metrics: PrometheusHandle,
    /// Fresh figures for `/status`.
    pub status: Arc<dyn Fn(StatusQuery) -> Status + Send + Sync>,
}

/// What is asked of `/status`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatusQuery {
    /// Whether to compute a digest of every shard's state, which walks all of it.
    #[serde(default)]
    pub digest: bool,
}

/// Answers until `stop` is cancelled.
pub(crate) async fn serve(listener: TcpListener, pages: Pages, stop: CancellationToken) {
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .route("/status", get(status_page))
        .with_state(pages);
    let served = axum::serve(BoundedListener::new(listener), app).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP port has stopped");
    }
}

async fn readyz(State(pages): State<Pages>) -> Response {
    let report = pages.readiness.report().await;
    let code = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(&*report)).into_response()
}

async fn metrics_page(State(pages): State<Pages>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], pages.metrics.render()).into_response()
}

async fn status_page(State(pages): State<Pages>, Query(query): Query<StatusQuery>) -> Response {
    // A digest takes seconds on a large node: not on a worker that serves connections.
    match tokio::task::spawn_blocking(move || (pages.status)(query)).await {
        Ok(status) => Json(status).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests;
