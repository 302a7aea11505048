//! What has been removed of a conversation, and how long it keeps its records.
//!
//! What always holds: seq_ids and ordinals never change; recalled messages ascend and lie above the floor; a reader who looks here sees a
//! removal at once, whenever files follow.

use logstore::id::{LogIndex, Ordinal, SeqId, TimeMs, UserId};

use super::DirectRow;
use crate::{ImportId, Retention};

/// Of a conversation of which something was removed, or that has a retention of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Upkeep {
    /// Where it begins.
    pub floor: Floor,
    /// Messages above the floor whose bodies are gone, ascending.
    pub recalled: Vec<Recalled>,
    /// How long it keeps its records; `None`: as the configuration says.
    pub retention: Option<Retention>,
    /// The import that it is of, under way or over.
    pub import: Option<Importing>,
}

/// How far the import of a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Importing {
    /// Which import.
    pub import: ImportId,
    /// The entry that began or ended it.
    pub at: LogIndex,
    /// Whether all of it is there; until then nobody sees it.
    pub is_over: bool,
    /// Of a 1:1 that is being imported: what its homes have said, which is what is left if the import is given up.
    pub before: Option<DirectRow>,
}

/// What is below it has been trimmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Floor {
    /// The first record that is left; 0 if none was trimmed.
    pub before: SeqId,
    /// The ordinal of the last record trimmed.
    pub ordinal: Ordinal,
    /// The log time of the last record trimmed.
    pub time: TimeMs,
    /// The entry that trimmed last.
    pub trimmed_at: LogIndex,
}

/// A message whose body is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Recalled {
    /// Its place.
    pub seq: SeqId,
    /// Its ordinal.
    pub ordinal: Ordinal,
    /// Who sent it.
    pub sender: UserId,
    /// The entry that recalled it.
    pub recalled_at: LogIndex,
}

impl Upkeep {
    /// Most messages of one conversation recalled above its floor: 128 KiB of a row. Beyond it recalls are refused until it is trimmed.
    pub const RECALLED_MAX: usize = 4096;

    /// Whether a record's body is gone, be it recalled or trimmed.
    pub fn has_removed(&self, seq: SeqId) -> bool {
        seq < self.floor.before || self.is_recalled(seq)
    }

    /// How many of the messages with an ordinal in `(above, upto]` were recalled that others than `user` had sent.
    pub fn recalled_of_others(&self, user: UserId, above: Ordinal, upto: Ordinal) -> u64 {
        let from = self.recalled.partition_point(|each| each.ordinal <= above);
        let within = self.recalled[from..].iter().take_while(|each| each.ordinal <= upto);
        within.filter(|each| each.sender != user).count() as u64
    }

    /// Whether nothing is said here.
    pub fn is_empty(&self) -> bool {
        *self == Upkeep::default()
    }

    pub(super) fn is_recalled(&self, seq: SeqId) -> bool {
        self.recalled.binary_search_by_key(&seq, |each| each.seq).is_ok()
    }

    /// Adds one that is not there yet.
    pub(super) fn recall(&mut self, recalled: Recalled) {
        let place = self.recalled.partition_point(|each| each.seq < recalled.seq);
        self.recalled.insert(place, recalled);
    }

    /// Raises the floor.
    pub(super) fn trim(&mut self, floor: Floor) {
        let Floor { ordinal, time, .. } = self.floor;
        self.floor = Floor { ordinal: floor.ordinal.max(ordinal), time: floor.time.max(time), ..floor };
        self.recalled.retain(|each| each.seq >= floor.before);
    }
}
