//! Reading an export of a node: a cut of all shards as files.

use std::time::Duration;

use bytes::Bytes;
use logstore::id::{HistoryId, LogId, LogIndex, NodeId, ShardId, Term, TimeMs};
use logstore::{Entry, EntryKind};

use super::{Connection, Error};
use crate::wire::operation::Operation;
use crate::wire::proto;

/// How long to wait before asking again whether segments are made.
const LOOK: Duration = Duration::from_millis(100);

/// A cut of all shards of a node, and the files that hold it. The node keeps them until the export is closed, or idle for
/// 5 minutes.
#[derive(Clone, Debug)]
pub struct Exported {
    /// Its number on the node.
    pub export: u64,
    /// The cluster's history.
    pub history: HistoryId,
    /// Whether `--dev` made the node.
    pub dev: bool,
    /// Up to where each shard is in it.
    pub shards: Vec<ExportShard>,
    /// Of all shards.
    pub files: Vec<ExportFile>,
}

/// Up to where a shard is in an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportShard {
    /// The shard.
    pub shard: ShardId,
    /// Its last entry.
    pub upto: LogIndex,
    /// The log time there.
    pub log_time: TimeMs,
}

/// A file of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportFile {
    /// Where it lies in a data directory.
    pub path: String,
    /// Its length.
    pub bytes: u64,
}

impl Connection {
    /// Cuts all shards at one moment and waits until it is in files, at most `limit`. With `every_shard` also those are sealed in which
    /// nothing has happened since they were sealed last: the last entry of each is of the cut's time then.
    pub async fn open_export(&self, every_shard: bool, limit: Duration) -> Result<Exported, Error> {
        let opened: proto::OpenedExport = self.call(Operation::OpenExport, &proto::OpenExport { every_shard }).await?;
        let listed = tokio::time::timeout(limit, self.list_export(opened.export)).await;
        listed.map_err(|_| Error::Timeout { after: limit })?
    }

    async fn list_export(&self, export: u64) -> Result<Exported, Error> {
        let list = async |skip| -> Result<proto::ExportList, Error> {
            self.call(Operation::ListExport, &proto::ListExport { export, skip }).await
        };
        let mut first = list(0).await?;
        while !first.ready {
            tokio::time::sleep(LOOK).await;
            first = list(0).await?;
        }
        let mut exported = exported(export, &first)?;
        while exported.files.len() < first.files_total as usize {
            let more = list(exported.files.len() as u32).await?.files;
            if more.is_empty() {
                return Err(Error::Protocol("an export lists fewer files than it has".into()));
            }
            exported.files.extend(more.into_iter().map(file));
        }
        Ok(exported)
    }

    /// Bytes of a file of an export from `offset` on; fewer than asked for come at any time, none only at its end.
    pub async fn read_export(&self, export: u64, path: &str, offset: u64, bytes: usize) -> Result<Bytes, Error> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let body = proto::ReadExport { export, path: path.into(), offset, bytes };
        Ok(self.call::<proto::ExportPiece>(Operation::ReadExport, &body).await?.bytes)
    }

    /// Committed entries of a shard's log above `after` up to `upto`, in order, from the first on, about `bytes` of them; none if the node no
    /// longer has the first.
    pub async fn read_entries(
        &self,
        shard: ShardId,
        after: LogIndex,
        upto: LogIndex,
        bytes: usize,
    ) -> Result<Vec<Entry>, Error> {
        let (after_index, upto_index) = (after.0, upto.0);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let body = proto::ReadEntries { shard: shard.0.into(), after_index, upto_index, bytes };
        let read: proto::LogEntries = self.call(Operation::ReadEntries, &body).await?;
        let indexes = (after.0.saturating_add(1)..=upto.0).map(LogIndex);
        if read.entries.len() as u64 > upto.0.saturating_sub(after.0) {
            return Err(Error::Protocol("more entries than were asked for".into()));
        }
        indexes.zip(read.entries).map(|(index, read)| entry(index, read)).collect()
    }

    /// The node need not keep an export any longer.
    pub async fn close_export(&self, export: u64) -> Result<(), Error> {
        self.call::<proto::ClosedExport>(Operation::CloseExport, &proto::CloseExport { export }).await.map(drop)
    }
}

fn entry(index: LogIndex, read: proto::LogEntry) -> Result<Entry, Error> {
    let kind = match read.kind {
        0 => EntryKind::Blank,
        1 => EntryKind::Normal,
        2 => EntryKind::Membership,
        other => return Err(Error::Protocol(format!("an entry of kind {other}"))),
    };
    // A term has one leader at most: the log does not say who it was.
    let id = LogId { term: Term(read.term), leader: NodeId(0), index };
    Ok(Entry { id, kind, payload: read.payload })
}

fn exported(export: u64, list: &proto::ExportList) -> Result<Exported, Error> {
    let history = <[u8; 16]>::try_from(&list.history[..]);
    let history = history.map_err(|_| Error::Protocol("a history is not 16 bytes".into()))?;
    let shard = |of: &proto::ExportShard| {
        let shard = u16::try_from(of.shard).map_err(|_| Error::Protocol(format!("shard {}", of.shard)))?;
        Ok(ExportShard { shard: ShardId(shard), upto: LogIndex(of.upto_index), log_time: TimeMs(of.log_time_ms) })
    };
    Ok(Exported {
        export,
        history: HistoryId(u128::from_be_bytes(history)),
        dev: list.dev,
        shards: list.shards.iter().map(shard).collect::<Result<_, Error>>()?,
        files: list.files.iter().cloned().map(file).collect(),
    })
}

fn file(file: proto::ExportFile) -> ExportFile {
    ExportFile { path: file.path, bytes: file.bytes }
}
