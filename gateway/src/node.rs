//! The only place where all parts meet.

use std::net::SocketAddr;

use crate::config::Config;

/// A running node.
pub struct Node {}

impl Node {
    /// Starts everything; returns when the node accepts clients.
    pub async fn start(config: Config) -> Result<Node, StartError> {
        let _ = config;
        unimplemented!()
    }

    /// The address clients connect to.
    pub fn client_addr(&self) -> SocketAddr {
        unimplemented!()
    }

    /// The address of health and metrics.
    pub fn http_addr(&self) -> SocketAddr {
        unimplemented!()
    }

    /// Tells clients to go, finishes what is in flight, stops. Everything acknowledged is synced already.
    pub async fn drain(self) {
        unimplemented!()
    }
}

/// Why a node does not start: one line, with the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct StartError {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}
