//! Where the records of one shard are until they are sealed: conversation → (seq_id → slot).
//!
//! What always holds: the slots of a conversation are contiguous in `seq` from the first unsealed
//! one, and rise strictly in log index or (within one entry) in offset.
//!
//! A shard may hold a million conversations with one or two records each, so a conversation costs one row
//! of a hash table and no allocation until its second record. The table is many small ones: doubling
//! one big table would stop apply for as long as it takes to move all rows.

use bytes::Bytes;
use hashbrown::{HashMap, HashTable};
use smallvec::SmallVec;

use crate::id::{ConversationId, LogIndex, Ordinal, SeqId, ServerMsgId, TimeMs};
use crate::record::RecordHead;

/// One unsealed record: what of its head cannot be read again from its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The entry that holds it.
    pub index: LogIndex,
    /// Byte offset of its command in the entry's payload.
    pub command_offset: u32,
    /// The id the server gave it.
    pub server_msg_id: ServerMsgId,
    /// The log time of its entry.
    pub time: TimeMs,
    /// Countable messages up to and including it.
    pub ordinal: Ordinal,
}

const _: () = assert!(size_of::<Slot>() == 40, "a million records cost 40 MB");

/// The unsealed records of one shard.
pub struct Unsealed {
    tables: Box<[HashTable<Row>]>,
    made_bodies: HashMap<(ConversationId, SeqId), Bytes>,
    records: u64,
}

/// One conversation's slots; `slots[i]` is the record `first + i`.
struct Row {
    conversation: ConversationId,
    first: SeqId,
    slots: SmallVec<[Slot; 1]>,
}

/// A million conversations make tables of 4,096 rows: the one that doubles takes some 0.1 ms.
const TABLES: usize = 256;

impl Default for Unsealed {
    fn default() -> Self {
        let tables = (0..TABLES).map(|_| HashTable::new()).collect();
        Unsealed { tables, made_bodies: HashMap::new(), records: 0 }
    }
}

impl Unsealed {
    /// An empty index.
    pub fn new() -> Unsealed {
        Unsealed::default()
    }

    /// Looks at where records of these conversations are before they are pushed, so that what is not in the processor's
    /// cache is waited for together: first at tags, then at rows. What it returns is of no use but to make sure of that.
    pub fn touch(&self, conversations: impl Iterator<Item = ConversationId> + Clone) -> u64 {
        let hashes = conversations.map(hash);
        let mut tags = 0;
        for hash in hashes.clone() {
            self.tables[table(hash)].find(hash, |_| {
                tags += 1;
                false
            });
        }
        let rows = hashes.filter_map(|hash| self.tables[table(hash)].find(hash, |_| true));
        rows.fold(tags, |seen, row| seen ^ row.slots.last().map_or(0, |slot| slot.index.0))
    }

    /// Adds a record; `command_offset` is where its command starts in the payload of entry `head.index`,
    /// `made_body` its body if apply made it. Panics if `head.seq` is not the next of its conversation.
    pub fn push(&mut self, head: &RecordHead, command_offset: u32, made_body: Option<Bytes>) {
        let row = self.row_or_new(head.conversation, head.seq);
        assert_eq!(row.next(), head.seq, "conversation {}: records are pushed in order", head.conversation);
        row.slots.push(Slot {
            index: head.index,
            command_offset,
            server_msg_id: head.server_msg_id,
            time: head.time,
            ordinal: head.ordinal,
        });
        self.records += 1;
        if let Some(body) = made_body {
            self.made_bodies.insert((head.conversation, head.seq), body);
        }
    }

    /// The first and last seq held of a conversation.
    pub fn bounds(&self, conversation: ConversationId) -> Option<(SeqId, SeqId)> {
        self.row(conversation).map(|row| (row.first, SeqId(row.next().0 - 1)))
    }

    /// The slot of a record.
    pub fn get(&self, conversation: ConversationId, seq: SeqId) -> Option<Slot> {
        let row = self.row(conversation)?;
        let place = seq.0.checked_sub(row.first.0)?;
        row.slots.get(usize::try_from(place).ok()?).copied()
    }

    /// Every conversation with its first seq and its slots, in no order.
    pub fn rows(&self) -> impl Iterator<Item = (ConversationId, SeqId, &[Slot])> {
        self.tables.iter().flatten().map(|row| (row.conversation, row.first, row.slots.as_slice()))
    }

    /// The body of a record that apply made.
    pub fn made_body(&self, conversation: ConversationId, seq: SeqId) -> Option<Bytes> {
        self.made_bodies.get(&(conversation, seq)).cloned()
    }

    /// The first record of a conversation whose log index is above `index`.
    pub fn first_above(&self, conversation: ConversationId, index: LogIndex) -> Option<SeqId> {
        let row = self.row(conversation)?;
        let place = row.slots.partition_point(|slot| slot.index <= index);
        (place < row.slots.len()).then(|| SeqId(row.first.0 + place as u64))
    }

    /// How many records are held.
    pub fn len(&self) -> u64 {
        self.records
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn row(&self, conversation: ConversationId) -> Option<&Row> {
        let hash = hash(conversation);
        self.tables[table(hash)].find(hash, |row| row.conversation == conversation)
    }

    fn row_or_new(&mut self, conversation: ConversationId, first: SeqId) -> &mut Row {
        let hash_of = hash(conversation);
        self.tables[table(hash_of)]
            .entry(hash_of, |row| row.conversation == conversation, |row| hash(row.conversation))
            .or_insert_with(|| Row { conversation, first, slots: SmallVec::new() })
            .into_mut()
    }
}

impl Row {
    fn next(&self) -> SeqId {
        SeqId(self.first.0 + self.slots.len() as u64)
    }
}

/// Ids are given by the server, often in sequence: a multiplication spreads them, no keyed hash is needed.
fn hash(conversation: ConversationId) -> u64 {
    const ODD: u128 = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;
    let product = conversation.0.wrapping_mul(ODD) ^ (conversation.0 >> 64);
    let folded = (product >> 64) as u64 ^ product as u64;
    folded.wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ (folded >> 32)
}

/// Bits 24 to 31: the table's own probing uses the lowest and the highest ones.
fn table(hash: u64) -> usize {
    (hash >> 24) as usize % TABLES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BodyHash, ClientMsgId, UserId};
    use crate::record::{BodyPlace, RecordKind};

    fn head(conversation: ConversationId, seq: u64, index: u64) -> RecordHead {
        RecordHead {
            conversation,
            seq: SeqId(seq),
            ordinal: Ordinal(seq),
            kind: RecordKind::TEXT,
            sender: UserId(1),
            server_msg_id: ServerMsgId(seq * 10),
            client_msg_id: ClientMsgId(u128::from(seq)),
            body_hash: BodyHash(0),
            time: TimeMs(index),
            index: LogIndex(index),
            body: BodyPlace::InEntry { offset: 0, len: 0 },
        }
    }

    #[test]
    fn a_record_is_found_by_its_seq() {
        let (mut unsealed, group) = (Unsealed::new(), ConversationId::group(7));
        for seq in 5..=8 {
            unsealed.push(&head(group, seq, 100 + seq / 2), seq as u32 * 3, None);
        }
        assert_eq!(unsealed.bounds(group), Some((SeqId(5), SeqId(8))));
        assert_eq!(unsealed.get(group, SeqId(6)).unwrap().command_offset, 18);
        assert_eq!(unsealed.get(group, SeqId(4)), None);
        assert_eq!(unsealed.get(group, SeqId(9)), None);
        assert_eq!(unsealed.get(ConversationId::group(8), SeqId(5)), None);
        assert_eq!(unsealed.len(), 4);
    }

    #[test]
    fn the_first_record_above_an_index_is_found_among_records_of_one_entry() {
        let (mut unsealed, group) = (Unsealed::new(), ConversationId::group(7));
        for (seq, index) in [(1, 10), (2, 10), (3, 10), (4, 12), (5, 15)] {
            unsealed.push(&head(group, seq, index), 0, None);
        }
        let above = |index| unsealed.first_above(group, LogIndex(index)).map(|seq| seq.0);
        assert_eq!([above(9), above(10), above(11), above(12), above(15)], [Some(1), Some(4), Some(4), Some(5), None]);
    }

    #[test]
    fn bodies_that_apply_made_are_kept() {
        let (mut unsealed, group) = (Unsealed::new(), ConversationId::group(7));
        unsealed.push(&head(group, 1, 1), 0, Some(Bytes::from_static(b"joined")));
        unsealed.push(&head(group, 2, 1), 8, None);
        assert_eq!(unsealed.made_body(group, SeqId(1)).unwrap(), "joined");
        assert_eq!(unsealed.made_body(group, SeqId(2)), None);
    }

    #[test]
    #[should_panic(expected = "records are pushed in order")]
    fn a_hole_is_never_indexed() {
        let (mut unsealed, group) = (Unsealed::new(), ConversationId::group(7));
        unsealed.push(&head(group, 1, 1), 0, None);
        unsealed.push(&head(group, 3, 1), 0, None);
    }

    #[test]
    fn conversations_spread_evenly_over_tables() {
        let mut unsealed = Unsealed::new();
        for user in 0..25_600 {
            unsealed.push(&head(ConversationId::direct(UserId(user), UserId(user + 1)), 1, 1), 0, None);
            unsealed.push(&head(ConversationId::group(user), 1, 1), 0, None);
        }
        let largest = unsealed.tables.iter().map(HashTable::len).max().unwrap();
        assert!(largest < 300, "200 rows a table on average, {largest} in the fullest");
        assert!(size_of::<Row>() <= 80, "a conversation of one record costs {} B", size_of::<Row>());
    }
}
