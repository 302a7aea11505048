//! Counts a connection's messages, so that a shard can tell whether it has got them all and in order.
//!
//! What always holds: within one epoch the numbers given in a conversation are 1, 2, 3, ... in the order in which the
//! client sent. A message that is refused before it is handed on takes no number.

use fanout::{Code, Fault};
use hashbrown::HashMap;
use logstore::id::ConversationId;

/// Conversations one epoch may write to: more than a busy service account needs, and 2 MiB of memory.
const CONVERSATIONS_MAX: usize = 32_768;

/// The epoch a connection is in, and how many messages each conversation has had in it.
#[derive(Default)]
pub struct Pipeline {
    epoch: u32,
    sent: HashMap<ConversationId, u64>,
}

impl Pipeline {
    /// Begins `epoch` if it is new; refuses one that is over.
    pub fn enter(&mut self, epoch: u32) -> Result<(), Fault> {
        if epoch < self.epoch {
            let what = format!("epoch {epoch} is over, this connection is in {}", self.epoch);
            return Err(Fault::new(Code::PredecessorFailed, what));
        }
        if epoch > self.epoch {
            self.epoch = epoch;
            self.sent = HashMap::new();
        }
        Ok(())
    }

    /// The next place in a conversation.
    pub fn next(&mut self, conversation: ConversationId) -> Result<u64, Fault> {
        if let Some(n) = self.sent.get_mut(&conversation) {
            *n += 1;
            return Ok(*n);
        }
        if self.sent.len() == CONVERSATIONS_MAX {
            // Forgetting a count would look like a lost message; a new epoch forgets all of them at once.
            let what = format!("this epoch has written to {CONVERSATIONS_MAX} conversations: go on in a higher one");
            return Err(Fault::new(Code::PredecessorFailed, what));
        }
        self.sent.insert(conversation, 1);
        Ok(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_conversation_counts_from_one_and_anew_in_a_higher_epoch() {
        let (a, b) = (ConversationId::group(1), ConversationId::group(2));
        let mut pipeline = Pipeline::default();
        pipeline.enter(0).unwrap();
        assert_eq!([a, a, b, a].map(|c| pipeline.next(c).unwrap()), [1, 2, 1, 3]);
        pipeline.enter(0).unwrap();
        assert_eq!(pipeline.next(b).unwrap(), 2);
        pipeline.enter(7).unwrap();
        assert_eq!(pipeline.next(a).unwrap(), 1);
        assert_eq!(pipeline.enter(6).unwrap_err().code, Code::PredecessorFailed);
        assert_eq!(pipeline.next(a).unwrap(), 2);
    }

    #[test]
    fn a_full_table_asks_for_a_new_epoch_and_forgets_nothing() {
        let mut pipeline = Pipeline::default();
        for i in 0..CONVERSATIONS_MAX as u64 {
            pipeline.next(ConversationId::group(i)).unwrap();
        }
        assert!(pipeline.next(ConversationId::group(u64::from(u32::MAX))).is_err());
        assert_eq!(pipeline.next(ConversationId::group(5)).unwrap(), 2);
        pipeline.enter(1).unwrap();
        assert_eq!(pipeline.next(ConversationId::group(u64::from(u32::MAX))).unwrap(), 1);
    }
}
