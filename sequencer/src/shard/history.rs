//! Reads records back: sealed ones from segments; of the others what is in memory from the index, the rest from entries.
//!
//! What always holds: where things are comes from one look at the shard, so that a record is found on one side of the
//! seam and never on both; each entry is read once, whatever it holds of the conversation; memory is bounded by the
//! records and bytes asked for, plus one round of entries; nothing blocks an async worker.

use std::sync::Arc;

use bytes::Bytes;
use logstore::id::{BodyHash, ClientMsgId, ConversationId, LogIndex, SeqId, ShardId, UserId};
use logstore::segment::{PageEnd, PageRequest, SealedBody, SealedRecord};
use logstore::{BodyPlace, Journal, RecordHead, RecordKind, Records, SegmentSet, Slot};

use crate::codec::{self, Malformed, View};
use crate::runtime;
use crate::shard::Record;
use crate::shard::core::ShardCore;
use crate::shard::removed::Removed;
use crate::state::{self, AskedBy};
use crate::{Error, ImportedRecord, Result};

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

/// What one look at a shard says of where the wanted records are.
struct Look {
    /// Those in memory and journal, ascending.
    places: Vec<Place>,
    /// Everything older than the first of those held unsealed.
    sealed: Arc<SegmentSet>,
    sealed_upto: SeqId,
    removed: Removed,
}

/// How often a read begins anew because what it was about to read from the journal was sealed meanwhile. The journal
/// keeps a generation for as long as the next one takes, so that once is rare.
const TRIES: usize = 3;

/// The records wanted that exist, ascending.
pub(crate) async fn read(core: &Arc<ShardCore>, journal: &Journal, wanted: Wanted) -> Result<Vec<Record>> {
    for _ in 1..TRIES {
        match read_once(core, journal, &wanted).await {
            Err(Error::Log(logstore::Error::NoSuchEntry { .. })) => {}
            done => return done,
        }
    }
    read_once(core, journal, &wanted).await
}

async fn read_once(core: &Arc<ShardCore>, journal: &Journal, wanted: &Wanted) -> Result<Vec<Record>> {
    let look = core.look(|state, held| look(state, held, wanted)).await?;
    let (mut records, complete_upto) = sealed(core.shard(), &look, wanted).await?;
    let mut bytes: usize = records.iter().map(|record| record.body.len()).sum();
    let is_cut = complete_upto < look.sealed_upto.min(wanted.to);
    let room = if is_cut { 0 } else { wanted.records_max.saturating_sub(records.len()) };
    let mut rest = &look.places[..look.places.len().min(room)];
    while !rest.is_empty() {
        let (round, later) = rest.split_at(round_len(rest));
        let entries = entries(core.shard(), journal, round).await?;
        for place in round {
            let record = look.removed.hide(record_at(core.shard(), wanted, place, &entries)?);
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

fn look(state: &state::Look<'_>, held: &Records, wanted: &Wanted) -> Look {
    let (sealed, removed) = (held.sealed().clone(), Removed::of(state, wanted.conversation));
    let Some((first, last)) = held.bounds(wanted.conversation) else {
        return Look { places: Vec::new(), sealed, sealed_upto: SeqId(u64::MAX), removed };
    };
    let (from, to) = (wanted.from.max(first), wanted.to.min(last));
    let place = |seq| {
        let slot = held.get(wanted.conversation, seq)?;
        Some(Place { seq, slot, made_body: held.made_body(wanted.conversation, seq) })
    };
    let places = (from.0..=to.0).take(wanted.records_max).map(SeqId).map_while(place).collect();
    Look { places, sealed, sealed_upto: SeqId(first.0 - 1), removed }
}

/// The part of what is wanted that is sealed, and up to where it is all there is; read off the async workers.
async fn sealed(shard: ShardId, look: &Look, wanted: &Wanted) -> Result<(Vec<Record>, SeqId)> {
    const ALL: SeqId = SeqId(u64::MAX);
    let last = wanted.to.min(look.sealed_upto);
    if wanted.from > last || look.sealed.segments().is_empty() {
        return Ok((Vec::new(), ALL));
    }
    let request = PageRequest {
        conversation: wanted.conversation,
        first: wanted.from,
        last,
        from: PageEnd::Oldest,
        records_max: wanted.records_max as u64,
        bytes_max: wanted.bytes_max,
    };
    let segments = look.sealed.clone();
    let page = runtime::blocking(move || segments.page(&request)).await;
    let page = page.map_err(|_| Error::Raft { shard, what: "the node is stopping".to_string() })??;
    Ok((
        page.records.into_iter().map(|record| look.removed.hide(of_sealed(record))).collect(),
        page.complete.map_or(ALL, |(_, last)| last),
    ))
}

/// A record as its segment holds it; of a removed one the body is empty.
fn of_sealed(record: SealedRecord) -> Record {
    let head = head_of(&record);
    match record.body {
        SealedBody::Kept(body) => Record { head, body },
        SealedBody::Removed => Record { head: RecordHead { body: BodyPlace::Removed, ..head }, body: Bytes::new() },
    }
}

/// A sealed record's head.
pub(super) fn head_of(record: &SealedRecord) -> RecordHead {
    RecordHead {
        conversation: record.conversation,
        seq: record.seq,
        ordinal: record.ordinal,
        kind: record.kind,
        sender: record.sender,
        server_msg_id: record.server_msg_id,
        client_msg_id: record.client_msg_id,
        body_hash: record.body_hash,
        time: record.time,
        index: record.index,
        body: BodyPlace::Sealed,
    }
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

fn record_at(shard: ShardId, wanted: &Wanted, place: &Place, entries: &[(LogIndex, Bytes)]) -> Result<Record> {
    let index = place.slot.index;
    let found = entries.binary_search_by_key(&index, |(index, _)| *index);
    let payload = &entries[found.map_err(|_| logstore::Error::NoSuchEntry { shard, index })?].1;
    let record = record(wanted.conversation, place.seq, &place.slot, place.made_body.clone(), payload);
    record.map_err(|malformed| malformed.at(shard, index))
}

/// An unsealed record: what of it is in its slot, and what in the payload of its entry.
pub(super) fn record(
    conversation: ConversationId,
    seq: SeqId,
    slot: &Slot,
    made_body: Option<Bytes>,
    payload: &Bytes,
) -> std::result::Result<Record, Malformed> {
    let source = match made_body {
        Some(body) => made(payload, slot.command_offset, body),
        None => sent(payload, slot.command_offset),
    }?;
    let head = RecordHead {
        conversation,
        seq,
        ordinal: slot.ordinal,
        kind: source.kind,
        sender: source.sender,
        server_msg_id: slot.server_msg_id,
        client_msg_id: source.client_msg_id,
        body_hash: source.body_hash,
        time: slot.time,
        index: slot.index,
        body: source.body,
    };
    Ok(Record { head, body: source.bytes })
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
    if let Some(record) = codec::imported_at(payload, command_offset)? {
        return Ok(imported(record, command_offset));
    }
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

fn imported(record: ImportedRecord, command_offset: u32) -> Source {
    let ImportedRecord { kind, sender, client_msg_id, body_hash, .. } = record;
    let offset = command_offset + codec::IMPORTED_HEAD_LEN as u32;
    let place = |body: &Bytes| BodyPlace::InEntry { offset, len: body.len() as u32 };
    let body = record.body.as_ref().map_or(BodyPlace::Removed, place);
    Source { kind, sender, client_msg_id, body_hash, body, bytes: record.body.unwrap_or_default() }
}

fn made(payload: &Bytes, command_offset: u32, bytes: Bytes) -> std::result::Result<Source, Malformed> {
    let not_one = Malformed { offset: command_offset as usize, what: "a command that makes a record" };
    let command = codec::check(payload)?.find_map(|(offset, view)| match view {
        View::Other(command) if offset == command_offset => Some(command),
        _ => None,
    });
    let AskedBy { kind, sender, request, hash } = command.as_ref().and_then(state::asked_by).ok_or(not_one)?;
    Ok(Source { kind, sender, client_msg_id: request, body_hash: hash, body: BodyPlace::Made, bytes })
}
