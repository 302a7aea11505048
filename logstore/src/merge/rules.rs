//! What a merge drops: the replicated commands of retention, recall and erasure, as of one entry of the log.
//!
//! What always holds: a rule takes bodies or whole records, never a place: of a trimmed record its range stays, of a recalled or
//! erased one its head, so that a retry still finds its seq_id. Applying rules twice is applying them once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::id::{ConversationId, LogIndex, SeqId, UserId};
use crate::segment::{Item, SealedBody};

/// What is to be dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropRules {
    /// Of each conversation the records before this one, heads and all.
    pub trims: BTreeMap<ConversationId, SeqId>,
    /// Bodies of single records.
    pub recalls: BTreeSet<(ConversationId, SeqId)>,
    /// Of each sender the bodies of all messages up to this entry.
    pub erasures: BTreeMap<UserId, LogIndex>,
    /// Trimmed records of later entries keep their heads for now; `None`: of no entry. Those of the dedup window do: a restart reads
    /// their ids.
    pub heads_above: Option<LogIndex>,
}

impl DropRules {
    /// Whether nothing is dropped.
    pub fn is_empty(&self) -> bool {
        self.trims.is_empty() && self.recalls.is_empty() && self.erasures.is_empty()
    }

    /// What is left of an item.
    pub fn apply(&self, item: Item) -> Item {
        let Item::Record(mut record) = item else { return item };
        if self.trims.get(&record.conversation).is_some_and(|before| record.seq < *before) {
            if self.heads_above.is_none_or(|above| record.index <= above) {
                return Item::Trimmed(record.trimmed());
            }
            record.body = SealedBody::Removed;
        }
        let erased = self.erasures.get(&record.sender).is_some_and(|upto| record.index <= *upto);
        if (erased && !record.kind.is_made()) || self.is_recalled(&record.conversation, record.seq) {
            record.body = SealedBody::Removed;
        }
        Item::Record(record)
    }

    fn is_recalled(&self, conversation: &ConversationId, seq: SeqId) -> bool {
        !self.recalls.is_empty() && self.recalls.contains(&(*conversation, seq))
    }
}

impl fmt::Display for DropRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing");
        }
        let lists = [(self.trims.len(), "trims"), (self.recalls.len(), "recalls"), (self.erasures.len(), "erasures")];
        let named: Vec<_> =
            lists.iter().filter(|(count, _)| *count > 0).map(|(n, what)| format!("{n} {what}")).collect();
        f.write_str(&named.join(", "))
    }
}
