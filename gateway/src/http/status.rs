//! What `/status` says about a node.

use std::collections::BTreeMap;

use sequencer::ShardStatus;
use serde::Serialize;

/// A node in figures and plain words.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    /// Of the program.
    pub version: &'static str,
    /// The node.
    pub node: u64,
    /// The cluster's history.
    pub history: String,
    /// Whether this is a node for development.
    pub dev: bool,
    /// What an acknowledgement means.
    pub durability: &'static str,
    /// Where the data lies.
    pub data_dir: String,
    /// The client port.
    pub listen: String,
    /// Whether the client port speaks TLS.
    pub tls: bool,
    /// Client connections.
    pub connections: usize,
    /// Seconds since the node began to serve.
    pub uptime_seconds: u64,
    /// Bytes written to data files since the node started, by what they were for.
    pub written_bytes: BTreeMap<&'static str, u64>,
    /// Its shards.
    pub shards: Vec<ShardLine>,
}

/// One shard.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ShardLine {
    shard: u16,
    leading: bool,
    term: u64,
    last_index: u64,
    applied: u64,
    unsealed_records: u64,
    conversations: u64,
    buckets: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    troubles: Vec<String>,
}

/// What an acknowledgement means, in plain words.
pub(crate) const DURABILITY: &str = "every acknowledged message is fsynced";

impl From<ShardStatus> for ShardLine {
    fn from(status: ShardStatus) -> ShardLine {
        ShardLine {
            shard: status.shard.0,
            leading: status.leading,
            term: status.term,
            last_index: status.last_index.0,
            applied: status.applied.0,
            unsealed_records: status.unsealed_records,
            conversations: status.conversations,
            buckets: status.buckets,
            digest: status.digest.map(|digest| format!("{digest:032x}")),
            troubles: status.troubles,
        }
    }
}
