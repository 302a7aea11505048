//! A manifest: which segments are a shard's.

use anyhow::anyhow;
use logstore::Manifest;
use logstore::id::ShardId;
use logstore::segment::SegmentInfo;

use crate::exit::Failure;
use crate::log::fact::Fact;
use crate::log::offline::Offline;
use crate::output::Printer;
use crate::user::log_time;

/// Prints a manifest.
pub fn show(offline: &Offline, path: &str, printer: &mut Printer) -> Result<(), Failure> {
    let number = path.split('/').nth(1).and_then(|name| name.parse().ok());
    let shard = ShardId(number.ok_or_else(|| anyhow!("{path} lies in no shard's folder"))?);
    let manifest = Manifest::load(&*offline.disk, shard)?.ok_or_else(|| anyhow!("{path} is gone"))?;
    let seal = manifest.checkpoint().map(|checkpoint| checkpoint.seal);
    let fact = Fact::new("manifest", path)
        .with("shard", shard.0)
        .with("segments", manifest.segments().len())
        .with("store_mark", manifest.store_mark().0)
        .with_some("seal_index", seal.map(|seal| seal.index.0))
        .with_some("seal_term", seal.map(|seal| seal.term.0))
        .with_some("state_bytes", manifest.checkpoint().map(|checkpoint| checkpoint.state.len()));
    printer.row(&fact)?;
    manifest.segments().iter().try_for_each(|info| printer.row(&segment(info)))
}

/// What header and footer, or the manifest, say of a segment.
pub fn segment(info: &SegmentInfo) -> Fact {
    Fact::new("segment", info.path())
        .with("shard", info.span.shard.0)
        .with("level", info.span.level.0)
        .with("first_seal", info.span.first.0)
        .with("last_seal", info.span.last.0)
        .with("after_index", info.span.after.0)
        .with("upto_index", info.span.upto.0)
        .with("records", info.counts.records)
        .with("removed", info.counts.removed)
        .with("trimmed", info.counts.trimmed)
        .with("conversations", info.counts.conversations)
        .with("body_bytes", info.counts.body_bytes)
        .with("record_blocks", info.counts.record_blocks)
        .with("record_raw_bytes", info.counts.record_raw_bytes)
        .with("delta_rows", info.counts.delta_rows)
        .with("tombstones", info.counts.tombstones)
        .with("delta_blocks", info.counts.delta_blocks)
        .with("delta_raw_bytes", info.counts.delta_raw_bytes)
        .with_some("heads", info.counts.heads)
        .with("file_bytes", info.file_bytes)
        .with("log_time", log_time(info.log_time))
        .with("first_time", log_time(info.first_time))
        .with("last_time", log_time(info.last_time))
        .with("identity", info.identity.to_string())
}
