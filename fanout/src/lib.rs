//! Brings messages to people: the services that turn requests into commands, and what turns committed
//! entries into deliveries.
//!
//! fanout never assigns a number and never delivers what is not committed.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod fault;
mod limits;
mod pages;
mod row;
pub mod service;
pub mod tail;
mod unread;
mod visible;

pub use fault::{Code, Fault};
pub use limits::{Limit, Limits};
