//! Where state rows are: overlay generations above what is sealed, and the stage that brings keys to memory before apply.

pub mod cache;
mod overlay;
mod prefetch;
mod sharded;
mod source;

pub use overlay::Table;
pub use prefetch::{LoadJob, Loaded, Prefetch};
pub(crate) use sharded::{Sharded, part_of};
pub use source::{NothingSealed, Row, StateSource};
