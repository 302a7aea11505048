//! Exports, for administrators: a cut of all shards, and the files of it piece by piece.

use std::sync::Arc;

use bytes::Bytes;
use fanout::{Code, Fault};
use logstore::id::{LogIndex, ShardId};
use logstore::{Entry, EntryKind};

use super::{ANSWER_BYTES_MAX, Answer, encode, parse};
use crate::session::Gateway;
use crate::session::exports::{Content, log_time};
use crate::wire::{convert, proto};

/// Bytes of a file in one answer.
const PIECE_BYTES_MAX: usize = ANSWER_BYTES_MAX / 2;
/// Files listed in one answer: some 100 bytes each.
const FILES_MAX: usize = 4096;

/// Cuts all shards; the answer comes when every shard has its Seal, before the segments are made.
pub(super) async fn open(gateway: &Arc<Gateway>, body: Bytes) -> Answer {
    let proto::OpenExport { every_shard } = parse(body)?;
    let exports = gateway.exports().clone();
    let export = exports.begin()?;
    match gateway.sequencer().cut(every_shard).await {
        Ok(cut) => {
            tokio::spawn(async move { exports.fill(export, cut).await });
            Ok(encode(&proto::OpenedExport { export }))
        }
        Err(error) => {
            exports.close(export);
            Err(error.into())
        }
    }
}

/// What an export holds, once its segments are made.
pub(super) fn list(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::ListExport = parse(body)?;
    let Some(content) = gateway.exports().content(request.export)? else {
        return Ok(encode(&proto::ExportList::default()));
    };
    let files = content.files().iter().skip(request.skip as usize).take(FILES_MAX);
    let files = files.map(|file| proto::ExportFile { path: file.path.clone(), bytes: file.bytes });
    Ok(encode(&proto::ExportList {
        ready: true,
        history: convert::id_bytes(gateway.history().0),
        dev: gateway.is_dev(),
        shards: shards(&content),
        files_total: content.files().len() as u32,
        files: files.collect(),
    }))
}

fn shards(content: &Content) -> Vec<proto::ExportShard> {
    let of = |set: &Arc<logstore::SegmentSet>| proto::ExportShard {
        shard: convert::slot(set.manifest().shard()),
        upto_index: set.manifest().checkpoint().map_or(0, |checkpoint| checkpoint.seal.index.0),
        log_time_ms: log_time(set).0,
    };
    content.sets.iter().map(of).collect()
}

/// A piece of a file.
pub(super) async fn read(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::ReadExport = parse(body)?;
    let content = gateway.exports().content(request.export)?;
    let content = content.ok_or_else(|| Fault::new(Code::BadState, "the export's segments are still being made"))?;
    let bytes = (request.bytes as usize).min(PIECE_BYTES_MAX);
    let read = tokio::task::spawn_blocking(move || content.read(&request.path, request.offset, bytes)).await;
    let bytes = read.map_err(|_| Fault::new(Code::Internal, "the node is stopping"))??;
    Ok(encode(&proto::ExportPiece { bytes: bytes.into() }))
}

/// Entries of a shard's log, as long as the journal has them.
pub(super) async fn entries(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::ReadEntries = parse(body)?;
    let id = u16::try_from(request.shard).ok().map(ShardId);
    let shard = id.and_then(|id| gateway.sequencer().shard(id));
    let shard = shard.ok_or_else(|| Fault::new(Code::BadField, format!("there is no shard {}", request.shard)))?;
    let (after, upto) = (LogIndex(request.after_index), LogIndex(request.upto_index));
    if after.0 == u64::MAX || upto > shard.applied() {
        return Err(Fault::new(Code::BadField, format!("shard {} has no entry {upto} yet", shard.id())));
    }
    let entries = shard.entries(after, upto, (request.bytes as usize).min(PIECE_BYTES_MAX)).await?;
    Ok(encode(&proto::LogEntries { entries: entries.into_iter().map(entry).collect() }))
}

fn entry(entry: Entry) -> proto::LogEntry {
    let kind = match entry.kind {
        EntryKind::Blank => 0,
        EntryKind::Normal => 1,
        EntryKind::Membership => 2,
    };
    proto::LogEntry { term: entry.id.term.0, kind, payload: entry.payload }
}

/// Lets go of an export.
pub(super) fn close(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::CloseExport = parse(body)?;
    gateway.exports().close(request.export);
    Ok(encode(&proto::ClosedExport {}))
}
