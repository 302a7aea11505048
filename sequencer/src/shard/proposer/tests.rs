//! What the door does while its task sleeps.

use super::*;

fn idle_proposer() -> Arc<Proposer> {
    let limits = ProposerLimits {
        entry_bytes_max: 1 << 10,
        entries_in_flight: 2,
        queue_commands_max: 10,
        queue_bytes_max: 1 << 10,
        unsealed_bytes_max: u64::MAX,
    };
    let proposer = Proposer::new(limits);
    proposer.idle.store(true, Ordering::SeqCst);
    proposer
}

#[test]
fn closed_connections_do_not_pile_up_at_an_idle_shard() {
    let proposer = idle_proposer();
    let is_woken = || !proposer.idle.load(Ordering::SeqCst);
    for connection in 1..NEWS_MAX as u64 {
        proposer.forget(ConnectionId(connection));
    }
    assert!(!is_woken(), "one by one they are not worth it");
    proposer.forget(ConnectionId(NEWS_MAX as u64));
    assert!(is_woken(), "its task takes them all");
}
