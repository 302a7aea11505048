//! Meets the world: sockets, TLS, framing, authentication, sessions, limits, HTTP.
//!
//! It holds no business rule.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod auth;
pub mod client;
pub mod config;
pub mod node;
pub mod session;
pub mod wire;
