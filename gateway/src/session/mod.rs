//! The connections of a node, and what they share.

mod deliver;
pub(crate) mod exports;
mod figures;
mod gateway;
mod registry;
mod tokens;

pub(crate) use gateway::Entered;
pub use gateway::Gateway;
pub use tokens::{Claims, Issued, Role, Tokens};
