//! Conversations and accounts as JSON lines: one form, whatever the cluster they come from.
//!
//! [`line`](mod@line) says what a line is, [`write`](fn@write) makes all of them from sealed shards, [`read`] takes them in one by one, and
//! [`verify`] says whether they make sense together. Drawn in `docs/format.md`.
//!
//! What always holds: the lines are a function of what is in them, not of shards, nodes, log positions or the moment they were made
//! in; what was imported is exported as the same bytes.

pub mod line;
pub mod read;
mod removed;
pub mod verify;
mod write;

pub use write::{Selection, Written, write};
