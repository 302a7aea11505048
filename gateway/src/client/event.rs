//! What a session tells its owner, and how far the owner has come.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use logstore::id::{ConversationId, SeqId};
use serde::{Deserialize, Serialize};

use super::{Conversation, Error, Receipt, Record, Refusal, Step, User};
use crate::wire::proto;

/// Something that happened to a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A record: within a conversation in order of seq_id, each once, none left out.
    Record(Record),
    /// A conversation's row changed; never older than one given before.
    Row(Conversation),
    /// How far somebody has received and read.
    Receipt(Receipt),
    /// Everything before this event tells the device up to here.
    Told(Step),
    /// Everything that was stored before this connection stood has been given.
    CaughtUp,
    /// The server's log went back to an earlier state: discard conversations that are not listed, and records above these.
    Reset {
        /// The history that steps belong to from here on.
        history: Bytes,
        /// What may be kept.
        keep: Vec<(ConversationId, SeqId)>,
    },
    /// A connection stands.
    Online {
        /// Who is signed in.
        user: User,
        /// The history that steps belong to.
        history: Bytes,
    },
    /// The connection ended; another is tried by itself.
    Offline {
        /// Why.
        error: Error,
        /// When.
        retry_in: Duration,
    },
    /// For some time the server has taken nothing of what was sent; it goes again by itself.
    Stalled(Refusal),
    /// The server is about to stop.
    Draining {
        /// For people.
        reason: String,
    },
}

/// How far the owner of a session has taken its events: what to keep across a restart of the process.
///
/// [`Progress::note`] every event once it is dealt with; a session started from the result gives each record once more
/// at most if the process died in between, and never skips one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The history that the steps belong to, hexadecimal.
    #[serde(default)]
    pub history: String,
    /// The session cursor.
    #[serde(default)]
    pub steps: BTreeMap<u32, u64>,
    /// The last record taken of each conversation.
    #[serde(default)]
    pub conversations: BTreeMap<String, u64>,
}

impl Progress {
    /// Takes an event into account.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::Record(record) => self.note_record(record.conversation, record.seq_id),
            Event::Told(step) => {
                self.steps.insert(step.slot, step.value);
            }
            Event::Online { history, .. } if self.history.is_empty() => self.history = hex(history),
            Event::Reset { history, keep } => self.reset(history, keep),
            _ => {}
        }
    }

    /// A record was taken.
    pub fn note_record(&mut self, conversation: ConversationId, seq: SeqId) {
        let last = self.conversations.entry(conversation.to_string()).or_default();
        *last = seq.0.max(*last);
    }

    /// The last record taken of a conversation; 0: none.
    pub fn last(&self, conversation: ConversationId) -> SeqId {
        SeqId(self.conversations.get(&conversation.to_string()).copied().unwrap_or(0))
    }

    /// The session cursor as the server gave it; `None`: nothing was ever told.
    pub fn cursor(&self) -> Option<proto::Cursor> {
        let history = unhex(&self.history).filter(|history| !history.is_empty())?;
        let step = |(&slot, &value): (&u32, &u64)| proto::CursorStep { slot, value };
        Some(proto::Cursor { history: history.into(), steps: self.steps.iter().map(step).collect() })
    }

    fn reset(&mut self, history: &[u8], keep: &[(ConversationId, SeqId)]) {
        let mut kept = BTreeMap::new();
        for (conversation, fork) in keep {
            let name = conversation.to_string();
            if let Some(&last) = self.conversations.get(&name) {
                kept.insert(name, last.min(fork.0));
            }
        }
        *self = Progress { history: hex(history), steps: BTreeMap::new(), conversations: kept };
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits.
pub(super) fn unhex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}
