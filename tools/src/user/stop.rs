//! Ctrl-C and SIGTERM as a future, so that what was shown is noted before the end.

use tokio::signal::unix::{SignalKind, signal};

/// Returns once somebody wants the command to end.
pub async fn asked_to_stop() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
