//! Meets the world: sockets, TLS, framing, authentication, sessions, limits, HTTP.
//!
//! It holds no business rule.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod auth;
pub mod client;
pub mod config;
mod connection;
pub mod data_dir;
mod http;
pub mod new_data_dir;
pub mod node;
mod operation;
pub mod session;
mod tls;
mod transport;
pub mod wire;
