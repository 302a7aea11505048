//! Sealed files: immutable, sorted, self-contained.
//!
//! A segment holds one range of one shard's log: its records sorted by (bucket, conversation, seq), and the rows of state that
//! changed in it, with their values as of its end. It is written once, from front to back ([`SegmentBuilder`]), and read
//! by conversation or from end to end ([`Segment`]). Its identity is that of its content: replicas may hold other
//! bytes, never other content.
//!
//! What always holds: nothing of a file is believed before it was verified; what does not verify is named as rot and nothing
//! else is affected; nothing is mapped.

mod block;
mod builder;
mod cache;
mod delta;
mod delta_section;
mod directory;
mod filter;
mod footer;
pub(crate) mod format;
mod heads_section;
mod identity;
mod index;
mod info;
mod input;
mod items;
mod output;
mod page;
mod paged;
mod reader;
mod record;
mod record_section;
mod records;
mod table;
mod varint;
mod verify;

pub use builder::{NewSegment, Previous, SegmentBuilder, build};
pub use cache::{BlockCache, CacheFigures};
pub use delta::{DeltaRow, KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use directory::{DirectoryRow, HeadRow};
pub use footer::Counts;
pub use format::{Identity, Level, Section, SegmentId, Span, file_name, shard_dir};
pub use heads_section::CarriedHeads;
pub use info::{BuildOptions, SegmentInfo};
pub use input::InputError;
pub use items::{DeltaRows, Items};
pub use output::Pace;
pub(crate) use page::PageFill;
pub use page::{Page, PageEnd, PageRequest};
pub use reader::Segment;
pub use record::{BODY_BYTES_MAX, Item, SealedBody, SealedRecord, TrimmedRange};
