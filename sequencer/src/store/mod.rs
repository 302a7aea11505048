//! Where state rows are: overlay generations above what is sealed, and the stage that brings keys to memory before apply.

mod overlay;
mod sharded;

pub use overlay::Table;
pub(crate) use sharded::{Sharded, part_of};
