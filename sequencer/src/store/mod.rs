//! Where state rows are: overlay generations above what is sealed, and the stage that brings keys to memory before apply.

mod brought;
pub mod cache;
mod overlay;
mod prefetch;
mod sealed;
mod sharded;
mod source;
mod weigh;

pub use overlay::Table;
pub use prefetch::{LoadJob, Loaded, Prefetch};
pub use sealed::{RawScanned, SealedRows};
pub(crate) use sharded::{Sharded, part_of};
pub use source::{NothingSealed, Row, Scanned, StateSource};
pub use weigh::Weigh;
