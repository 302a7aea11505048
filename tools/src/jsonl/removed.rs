//! What was trimmed, recalled or erased at the cut is so in the lines, whether or not files have followed.
//!
//! What always holds: no body leaves that a reader would not be shown; neighbouring trimmed ranges of a conversation are one line, so
//! that the lines do not depend on what merges have done. What is being erased is left out here, and so outlives no import.

use std::sync::Arc;

use hashbrown::HashMap;
use logstore::id::ConversationId;
use logstore::segment::{Item, SealedBody, TrimmedRange};
use sequencer::state::{OwnRow, Upkeep};

/// What was removed at the cut.
#[derive(Default)]
pub struct Removed {
    /// Shards in which something is being erased.
    erasing: Vec<OwnRow>,
    upkeep: HashMap<ConversationId, Arc<Upkeep>>,
}

impl Removed {
    /// Notes what a shard says of itself.
    pub fn note_shard(&mut self, own: OwnRow) {
        if !own.erasures.list().is_empty() {
            self.erasing.push(own);
        }
    }

    /// Notes what a conversation's row says.
    pub fn note(&mut self, conversation: ConversationId, upkeep: Option<&Arc<Upkeep>>) {
        if let Some(upkeep) = upkeep {
            self.upkeep.insert(conversation, upkeep.clone());
        }
    }

    /// An item as a reader may see it.
    pub fn hide(&self, item: Item) -> Item {
        let Item::Record(mut record) = item else { return item };
        let upkeep = self.upkeep.get(&record.conversation);
        if upkeep.is_some_and(|upkeep| record.seq < upkeep.floor.before) {
            return Item::Trimmed(record.trimmed());
        }
        let bucket = record.conversation.bucket();
        let erased = || {
            let shard = self.erasing.iter().find(|own| own.owns(bucket));
            shard.is_some_and(|own| own.erasures.has_removed(record.sender, record.index))
        };
        if upkeep.is_some_and(|upkeep| upkeep.has_removed(record.seq)) || (!record.kind.is_made() && erased()) {
            record.body = SealedBody::Removed;
        }
        Item::Record(record)
    }
}

/// Makes one of neighbouring trimmed ranges.
pub struct Joined<I> {
    items: I,
    waiting: Option<TrimmedRange>,
    next: Option<Item>,
}

impl<I> Joined<I> {
    /// Over items in order.
    pub fn new(items: I) -> Joined<I> {
        Joined { items, waiting: None, next: None }
    }
}

impl<I: Iterator<Item = anyhow::Result<Item>>> Iterator for Joined<I> {
    type Item = anyhow::Result<Item>;

    fn next(&mut self) -> Option<anyhow::Result<Item>> {
        if let Some(item) = self.next.take() {
            return Some(Ok(item));
        }
        loop {
            match (self.items.next(), self.waiting.take()) {
                (Some(Err(error)), _) => return Some(Err(error)),
                (Some(Ok(Item::Trimmed(range))), None) => self.waiting = Some(range),
                (Some(Ok(Item::Trimmed(range))), Some(before)) => {
                    if goes_on(&before, &range) {
                        self.waiting =
                            Some(TrimmedRange { first: before.first, ordinal_before: before.ordinal_before, ..range });
                    } else {
                        self.waiting = Some(range);
                        return Some(Ok(Item::Trimmed(before)));
                    }
                }
                (Some(Ok(item)), None) => return Some(Ok(item)),
                (item, Some(before)) => {
                    self.next = item.and_then(Result::ok);
                    return Some(Ok(Item::Trimmed(before)));
                }
                (None, None) => return None,
            }
        }
    }
}

fn goes_on(before: &TrimmedRange, range: &TrimmedRange) -> bool {
    before.conversation == range.conversation && before.last.next() == range.first
}
