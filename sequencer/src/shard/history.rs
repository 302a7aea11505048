//! Reads records back: what of them is in memory from the index, the rest from their entries.
//!
//! What always holds: each entry is read once, whatever it holds of the conversation; memory is bounded by the records
//! and bytes asked for, plus one round of entries; nothing blocks an async worker.

use std::sync::Arc;

use bytes::Bytes;
use logstore::id::{BodyHash, ClientMsgId, ConversationId, LogIndex, SeqId, ShardId, UserId};
use logstore::{BodyPlace, Journal, RecordHead, RecordKind, Slot};

use crate::codec::{self, Malformed, View};
use crate::raft::runtime;
use crate::shard::Record;
use crate::shard::core::ShardCore;
use crate::state;
use crate::{Error, Result};

/// Entries read in one round: at most 1 MiB of them at the default entry size.
const ENTRIES_PER_ROUND: usize = 16;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) conversation: ConversationId,
    pub(crate) from: SeqId,
    pub(crate) to: SeqId,
    pub(crate) records_max: usize,
    pub(crate) bytes_max: usize,
}

/// Where a record is.
struct Place {
    seq: SeqId,
    slot: Slot,
    made_body: Option<Bytes>,
}

/// The records wanted that exist, ascending.
pub(crate) async fn read(core: &Arc<ShardCore>, journal: &Journal, wanted: Wanted) -> Result<Vec<Record>> {
    let places = places(core, &wanted);
    let mut records = Vec::with_capacity(places.len());
    let (mut bytes, mut rest) = (0, places.as_slice());
    while !rest.is_empty() {
        let (round, later) = rest.split_at(round_len(rest));
        let entries = entries(core.shard(), journal, round).await?;
        for place in round {
            let record = record(core.shard(), &wanted, place, &entries)?;
            bytes += record.body.len();
            if bytes > wanted.bytes_max && !records.is_empty() {
                return Ok(records);
            }
            records.push(record);
        }
        rest = later;
    }
    Ok(records)
}

fn places(core: &ShardCore, wanted: &Wanted) -> Vec<Place> {
    let (_, unsealed) = &*core.read();
    let Some((first, last)) = unsealed.bounds(wanted.conversation) else { return Vec::new() };
    let (from, to) = (wanted.from.max(first), wanted.to.min(last));
    let seqs = (from.0..=to.0).take(wanted.records_max).map(SeqId);
    let place = |seq| {
        let slot = unsealed.get(wanted.conversation, seq)?;
        Some(Place { seq, slot, made_body: unsealed.made_body(wanted.conversation, seq) })
    };
    seqs.map_while(place).collect()
}

/// How many places lie in the first entries. Records of one conversation rise in index, so that those of one entry are neighbours.
fn round_len(places: &[Place]) -> usize {
    let mut entries = 0;
    let mut last = None;
    for (at, place) in places.iter().enumerate() {
        if last != Some(place.slot.index) {
            if entries == ENTRIES_PER_ROUND {
                return at;
            }
            entries += 1;
            last = Some(place.slot.index);
        }
    }
    places.len()
}

/// The entries of some places, ascending by index: from memory, else read off the async workers.
async fn entries(shard: ShardId, journal: &Journal, places: &[Place]) -> Result<Vec<(LogIndex, Bytes)>> {
    let mut indexes: Vec<LogIndex> = places.iter().map(|place| place.slot.index).collect();
    indexes.dedup();
    let mut read = Vec::with_capacity(indexes.len());
    for (at, index) in indexes.iter().enumerate() {
        match journal.read_cached(shard, *index..index.next(), usize::MAX) {
            Some(entry) => read.extend(entry.into_iter().map(|entry| (entry.id.index, entry.payload))),
            None => {
                read.extend(from_disk(shard, journal.clone(), indexes[at..].to_vec()).await?);
                break;
            }
        }
    }
    Ok(read)
}

async fn from_disk(shard: ShardId, journal: Journal, indexes: Vec<LogIndex>) -> Result<Vec<(LogIndex, Bytes)>> {
    let read = runtime::blocking(move || {
        let one = |index: LogIndex| {
            let entries = journal.read(shard, index..index.next(), usize::MAX)?;
            Ok(entries.into_iter().map(|entry| (entry.id.index, entry.payload)))
        };
        let entries = indexes.into_iter().map(one).collect::<Result<Vec<_>>>()?;
        Ok(entries.into_iter().flatten().collect())
    });
    read.await.map_err(|_| Error::Raft { shard, what: "the node is stopping".to_string() })?
}

fn record(shard: ShardId, wanted: &Wanted, place: &Place, entries: &[(LogIndex, Bytes)]) -> Result<Record> {
    let index = place.slot.index;
    let found = entries.binary_search_by_key(&index, |(index, _)| *index);
    let payload = &entries[found.map_err(|_| logstore::Error::NoSuchEntry { shard, index })?].1;
    let source = match &place.made_body {
        Some(body) => made(payload, place.slot.command_offset, body.clone()),
        None => sent(payload, place.slot.command_offset),
    };
    let source = source.map_err(|malformed| malformed.at(shard, index))?;
    Ok(Record { head: head(wanted.conversation, place, &source), body: source.bytes })
}

/// What of a record is read from its command.
struct Source {
    kind: RecordKind,
    sender: UserId,
    client_msg_id: ClientMsgId,
    body_hash: BodyHash,
    body: BodyPlace,
    bytes: Bytes,
}

fn sent(payload: &Bytes, command_offset: u32) -> std::result::Result<Source, Malformed> {
    let send = codec::send_at(payload, command_offset)?;
    let offset = command_offset + codec::SEND_HEAD_LEN as u32;
    Ok(Source {
        kind: send.kind,
        sender: send.sender,
        client_msg_id: send.client_msg_id,
        body_hash: send.body_hash,
        body: BodyPlace::InEntry { offset, len: send.body.len() as u32 },
        bytes: send.body,
    })
}

fn made(payload: &Bytes, command_offset: u32, bytes: Bytes) -> std::result::Result<Source, Malformed> {
    let not_one = Malformed { offset: command_offset as usize, what: "a command that makes a membership record" };
    let command = codec::check(payload)?.find_map(|(offset, view)| match view {
        View::Other(command) if offset == command_offset => Some(command),
        _ => None,
    });
    let (sender, client_msg_id, body_hash) = command.as_ref().and_then(state::asked_by).ok_or(not_one)?;
    let kind = RecordKind::MEMBERSHIP;
    Ok(Source { kind, sender, client_msg_id, body_hash, body: BodyPlace::Made, bytes })
}

fn head(conversation: ConversationId, place: &Place, source: &Source) -> RecordHead {
    RecordHead {
        conversation,
        seq: place.seq,
        ordinal: place.slot.ordinal,
        kind: source.kind,
        sender: source.sender,
        server_msg_id: place.slot.server_msg_id,
        client_msg_id: source.client_msg_id,
        body_hash: source.body_hash,
        time: place.slot.time,
        index: place.slot.index,
        body: source.body,
    }
}
