//! What a gateway counts.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

/// Handles of the gateway's metrics, so that counting is one addition.
pub(crate) struct Figures {
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) messages_sent: Counter,
    pub(crate) deliveries: Counter,
    pub(crate) frames_rejected: Counter,
    pub(crate) requests_refused: Counter,
}

impl Figures {
    /// The metrics of the recorder installed now.
    pub(crate) fn new() -> Figures {
        describe_gauge!("skein_connections", "Client connections open.");
        describe_counter!(
            "skein_connections_refused_total",
            "Connections closed at once: the node is full or stopping."
        );
        describe_counter!("skein_messages_sent_total", "Messages answered as durable, retries included.");
        describe_counter!("skein_deliveries_total", "Records handed to connections as they were committed.");
        describe_counter!(
            "skein_frames_rejected_total",
            "Frames whose header is not the protocol's; each closed a connection."
        );
        describe_counter!("skein_requests_refused_total", "Requests answered with an error.");
        describe_counter!(
            "skein_attaches_total",
            "Answers to announcements: one a connection and shard, more after a lag or hole."
        );
        Figures {
            connections: gauge!("skein_connections"),
            connections_refused: counter!("skein_connections_refused_total"),
            messages_sent: counter!("skein_messages_sent_total"),
            deliveries: counter!("skein_deliveries_total"),
            frames_rejected: counter!("skein_frames_rejected_total"),
            requests_refused: counter!("skein_requests_refused_total"),
        }
    }
}
