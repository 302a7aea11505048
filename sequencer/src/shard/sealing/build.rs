//! The content of a segment: the records of one generation, in the order of (bucket, conversation, seq_id).
//!
//! What always holds: it is made from the frozen slots and the entries they point at, both of which never change; the
//! entries of one generation are read once, in order, and kept meanwhile: as much as a generation may grow to before it
//! is sealed.

use bytes::Bytes;
use logstore::id::{LogIndex, SeqId, ShardId};
use logstore::segment::{Item, SealedRecord};
use logstore::{EntryKind, Journal, Unsealed};

use crate::shard::history;
use crate::{Error, Result};

/// Bytes of entries read at once.
const READ_BYTES: usize = 4 << 20;

/// The entries of one generation.
pub(super) struct Entries {
    shard: ShardId,
    after: LogIndex,
    payloads: Vec<Bytes>,
}

impl Entries {
    /// Reads the entries above `after` up to `upto`.
    pub(super) fn read(journal: &Journal, shard: ShardId, after: LogIndex, upto: LogIndex) -> Result<Entries> {
        let mut payloads = Vec::with_capacity((upto.0 - after.0) as usize);
        let mut next = after.next();
        while next <= upto {
            for entry in journal.read(shard, next..upto.next(), READ_BYTES)? {
                payloads.push(if entry.kind == EntryKind::Normal { entry.payload } else { Bytes::new() });
                next = entry.id.index.next();
            }
        }
        Ok(Entries { shard, after, payloads })
    }

    /// None of a generation that is only beginning.
    pub(super) fn begin(shard: ShardId, after: LogIndex) -> Entries {
        Entries { shard, after, payloads: Vec::new() }
    }

    /// Adds the next entry's payload; nothing of an entry without commands.
    pub(super) fn push(&mut self, payload: Bytes) {
        self.payloads.push(payload);
    }

    /// The entry before the first one.
    pub(super) fn after(&self) -> LogIndex {
        self.after
    }

    fn payload(&self, index: LogIndex) -> Result<&Bytes> {
        let place = index.0.checked_sub(self.after.0 + 1);
        let payload = place.and_then(|place| self.payloads.get(usize::try_from(place).ok()?));
        payload.ok_or_else(|| Error::Log(logstore::Error::NoSuchEntry { shard: self.shard, index }))
    }
}

/// All records of a generation as a segment holds them.
pub(super) fn items<'a>(slots: &'a Unsealed, entries: &'a Entries) -> impl Iterator<Item = Result<Item>> + 'a {
    let mut rows: Vec<_> = slots.rows().collect();
    rows.sort_unstable_by_key(|(conversation, ..)| (conversation.bucket(), *conversation));
    rows.into_iter().flat_map(move |(conversation, first, of_it)| {
        of_it.iter().zip(first.0..).map(move |(slot, seq)| {
            let made = slots.made_body(conversation, SeqId(seq));
            let payload = entries.payload(slot.index)?;
            let record = history::record(conversation, SeqId(seq), slot, made, payload);
            let record = record.map_err(|malformed| malformed.at(entries.shard, slot.index))?;
            Ok(Item::Record(SealedRecord::new(&record.head, record.body)))
        })
    })
}
