//! Meets the world: sockets, TLS, framing, authentication, sessions, limits, HTTP.
//!
//! It holds no business rule.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod auth;
pub mod client;
pub mod config;
mod data_dir;
mod http;
pub mod node;
pub mod session;
mod tls;
pub mod wire;
