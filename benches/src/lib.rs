//! What benches share: the shards of a node without sockets, and a load for them.

mod load;
mod shards;

pub use load::{Load, Texts};
pub use shards::{ScaledClock, Shards, ShardsOptions};
