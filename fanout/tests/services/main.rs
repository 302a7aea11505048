//! The services and tails over real shards and a real journal, as a gateway uses them.
#![allow(clippy::unwrap_used)]

mod accounts;
mod attach;
mod conversations;
mod groups;
mod limits;
mod messages;
mod receipts;
mod removals;
mod world;
