//! The connections of a node, and what they share.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use fanout::Limits;
use fanout::service::Services;
use fanout::tail::{Delivery, TailSink, Tails};
use logstore::id::{ConnectionId, LogIndex, ShardId};
use sequencer::{Clock, CursorMoved, Sequencer};
use tokio::net::TcpListener;

mod tokens;

pub use tokens::{Claims, Issued, Role, Tokens};

/// The access layer of a node: every client connection, and what serves them.
pub struct Gateway {}

impl Gateway {
    /// A gateway over a node's services, known to its tails from now on. Metrics are taken from the recorder installed
    /// when this is called.
    pub fn new(
        services: Arc<Services>,
        tails: Arc<Tails>,
        sequencer: Arc<Sequencer>,
        tokens: Arc<dyn Tokens>,
        limits: Arc<Limits>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Gateway> {
        let _ = (services, tails, sequencer, tokens, limits, clock);
        unimplemented!()
    }

    /// Accepts connections until [`Gateway::drain`].
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) {
        let _ = (listener, tls);
        unimplemented!()
    }

    /// Stops accepting, tells every connection to go, waits for what is in flight (at most `limit`), closes.
    pub async fn drain(&self, limit: Duration) {
        let _ = limit;
        unimplemented!()
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        unimplemented!()
    }
}

impl TailSink for Gateway {
    fn deliver(&self, delivery: Delivery) {
        let _ = delivery;
        unimplemented!()
    }

    fn reset(&self, shard: ShardId, floor: LogIndex) {
        let _ = (shard, floor);
        unimplemented!()
    }

    fn receipts(&self, shard: ShardId, receipts: Vec<(CursorMoved, Range<u32>)>, connections: Vec<ConnectionId>) {
        let _ = (shard, receipts, connections);
        unimplemented!()
    }
}
