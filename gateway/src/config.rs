//! The configuration of a node: every key, its default, and what it means.

use std::net::SocketAddr;
use std::path::PathBuf;

use fanout::Limits;

/// A node's configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Development mode: loopback only, demo accounts.
    pub dev: bool,
    /// Where everything the node keeps lies.
    pub data_dir: PathBuf,
    /// Client protocol.
    pub listen: SocketAddr,
    /// Health and metrics.
    pub http: SocketAddr,
    /// Shards of a new node.
    pub shards: u16,
    /// The table of limits.
    pub limits: Limits,
}
