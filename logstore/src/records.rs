//! Where the records of one shard are: unsealed ones by generation, the others in segments.
//!
//! ```text
//!   frozen, oldest first                        current
//!   | generation 7 | generation 8 |  generation 9, still growing
//!        each covers the entries up to its Seal; it goes once its segment is published
//! ```
//! Below all of them: the sealed segments.
//!
//! What always holds: the generations of a conversation follow each other without a hole in `seq`; a frozen generation
//! never changes, so that a segment is made of exactly it while newer records come in.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::SegmentSet;
use crate::id::{ConversationId, LogIndex, SeqId};
use crate::record::RecordHead;
use crate::unsealed::{Slot, Unsealed};

/// The records of one shard. What is unsealed is looked up here; segments are read by whoever takes them out.
pub struct Records {
    sealed: Arc<SegmentSet>,
    frozen: VecDeque<(u64, Arc<Unsealed>)>,
    current: Unsealed,
}

impl Records {
    /// Nothing but what is sealed.
    pub fn above(sealed: Arc<SegmentSet>) -> Records {
        Records { sealed, frozen: VecDeque::new(), current: Unsealed::new() }
    }

    /// The segments of everything older than what is held here.
    pub fn sealed(&self) -> &Arc<SegmentSet> {
        &self.sealed
    }

    /// Brings near what pushing records of these conversations needs; see [`Unsealed::touch`].
    pub fn touch(&self, conversations: impl Iterator<Item = ConversationId> + Clone) -> u64 {
        self.current.touch(conversations)
    }

    /// Adds a record to the current generation; see [`Unsealed::push`].
    pub fn push(&mut self, head: &RecordHead, command_offset: u32, made_body: Option<Bytes>) {
        self.current.push(head, command_offset, made_body);
    }

    /// Ends the current generation, which the `Seal` of this number did; the next one begins empty.
    pub fn freeze(&mut self, generation: u64) {
        assert!(self.frozen.back().is_none_or(|(last, _)| *last < generation), "generations are frozen in order");
        self.frozen.push_back((generation, Arc::new(std::mem::take(&mut self.current))));
    }

    /// A frozen generation that is still held.
    pub fn frozen(&self, generation: u64) -> Option<Arc<Unsealed>> {
        self.frozen.iter().find(|(number, _)| *number == generation).map(|(_, records)| records.clone())
    }

    /// Takes over segments that hold everything up to this generation; gives what memory held of it, and the segments
    /// before. To free a generation of a million rows takes tens of milliseconds: for where no lock is held.
    #[must_use = "it is to be dropped where no lock is held"]
    pub fn publish(&mut self, sealed: Arc<SegmentSet>, upto: u64) -> (Arc<SegmentSet>, Vec<Arc<Unsealed>>) {
        let gone = self.frozen.partition_point(|(number, _)| *number <= upto);
        let gone = self.frozen.drain(..gone).map(|(_, records)| records).collect();
        (self.replace(sealed), gone)
    }

    /// Takes over segments that hold what those before held, and nothing else.
    pub fn replace(&mut self, sealed: Arc<SegmentSet>) -> Arc<SegmentSet> {
        std::mem::replace(&mut self.sealed, sealed)
    }

    /// The first and last seq held of a conversation.
    pub fn bounds(&self, conversation: ConversationId) -> Option<(SeqId, SeqId)> {
        let mut bounds = self.generations().filter_map(|records| records.bounds(conversation));
        let (first, last) = bounds.next()?;
        Some((first, bounds.next_back().map_or(last, |(_, last)| last)))
    }

    /// The slot of a record.
    pub fn get(&self, conversation: ConversationId, seq: SeqId) -> Option<Slot> {
        self.generations().rev().find_map(|records| records.get(conversation, seq))
    }

    /// The body of a record that apply made.
    pub fn made_body(&self, conversation: ConversationId, seq: SeqId) -> Option<Bytes> {
        self.generations().rev().find_map(|records| records.made_body(conversation, seq))
    }

    /// The first record held of a conversation whose log index is above `index`.
    pub fn first_above(&self, conversation: ConversationId, index: LogIndex) -> Option<SeqId> {
        self.generations().find_map(|records| records.first_above(conversation, index))
    }

    /// How many records are held.
    pub fn len(&self) -> u64 {
        self.generations().map(Unsealed::len).sum()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Oldest first.
    fn generations(&self) -> impl DoubleEndedIterator<Item = &Unsealed> {
        self.frozen.iter().map(|(_, records)| &**records).chain([&self.current])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BodyHash, ClientMsgId, Ordinal, ServerMsgId, ShardId, TimeMs, UserId};
    use crate::io::faulty::FaultyDisk;
    use crate::record::{BodyPlace, RecordKind};
    use crate::segment::BlockCache;

    const GROUP: ConversationId = ConversationId(2 << 126 | 7);

    fn nothing_sealed() -> SegmentSet {
        let cache = Arc::new(BlockCache::new(4 << 20));
        SegmentSet::open(&FaultyDisk::new().handle(), ShardId(0), &cache).unwrap()
    }

    fn head(seq: u64) -> RecordHead {
        RecordHead {
            conversation: GROUP,
            seq: SeqId(seq),
            ordinal: Ordinal(seq),
            kind: RecordKind::TEXT,
            sender: UserId(1),
            server_msg_id: ServerMsgId(seq),
            client_msg_id: ClientMsgId(u128::from(seq)),
            body_hash: BodyHash(0),
            time: TimeMs(seq),
            index: LogIndex(seq * 10),
            body: BodyPlace::Made,
        }
    }

    fn records() -> Records {
        let mut records = Records::above(Arc::new(nothing_sealed()));
        for seq in 1..=6 {
            records.push(&head(seq), 0, Some(Bytes::from(vec![seq as u8])));
            if seq % 2 == 0 {
                records.freeze(seq / 2);
            }
        }
        records.push(&head(7), 0, None);
        records
    }

    #[test]
    fn a_conversation_is_seen_whole_across_generations() {
        let records = records();
        assert_eq!(records.bounds(GROUP), Some((SeqId(1), SeqId(7))));
        assert!((1..=7).all(|seq| records.get(GROUP, SeqId(seq)).is_some_and(|slot| slot.index.0 == seq * 10)));
        assert_eq!(records.made_body(GROUP, SeqId(3)).unwrap(), [3u8][..]);
        let above = |index| records.first_above(GROUP, LogIndex(index)).map(|seq| seq.0);
        assert_eq!([above(0), above(20), above(65), above(70)], [Some(1), Some(3), Some(7), None]);
        assert_eq!(records.len(), 7);
    }

    #[test]
    fn a_generation_that_is_published_is_gone_and_the_others_stay() {
        let mut records = records();
        let second = records.frozen(2).unwrap();
        let (_, gone) = records.publish(records.sealed().clone(), 2);
        assert!(!gone.is_empty(), "what memory held is the caller's to free");
        assert_eq!(records.bounds(GROUP), Some((SeqId(5), SeqId(7))));
        assert!(records.frozen(2).is_none() && records.frozen(3).is_some());
        assert_eq!(second.bounds(GROUP), Some((SeqId(3), SeqId(4))), "who makes a segment of it keeps it");
    }
}
