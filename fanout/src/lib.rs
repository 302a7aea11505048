//! Brings messages to people: the services that turn requests into commands, and what turns committed
//! entries into deliveries.
//!
//! fanout never assigns a number and never delivers what is not committed.

mod fault;
mod limits;
pub mod service;
pub mod tail;

pub use fault::{Code, Fault};
pub use limits::{Limit, Limits};
