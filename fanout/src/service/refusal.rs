//! The one place where what the log says becomes what a client is told.

use std::time::Duration;

use sequencer::{Capacity, Refusal};

use crate::{Code, Fault};

/// When a shard whose window moved under a message is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(50);

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        let (code, message) = match refusal {
            Refusal::NoSuchConversation => (Code::NoSuchConversation, "no such conversation"),
            Refusal::NotMember => (Code::NotMember, "not a member of this conversation"),
            Refusal::NotAllowed => (Code::NotAllowed, "not allowed here"),
            Refusal::NoSuchUser => (Code::NoSuchUser, "no such user"),
            Refusal::NameTaken => (Code::NameTaken, "the name is taken"),
            Refusal::IdempotencyConflict => (Code::IdempotencyConflict, "another message was sent under this id"),
            Refusal::ClockSkew => (Code::ClockSkew, "the id's time is ahead of the server's: correct the clock"),
            Refusal::Expired => (Code::Expired, "the id is too old to be told apart from others"),
            Refusal::SessionOver => (Code::SessionOver, "the session is over: sign in again"),
            Refusal::CursorAhead => (Code::CursorAhead, "the cursor is ahead of the newest record"),
            Refusal::NoSuchRecord => (Code::BadRange, "no such record"),
            Refusal::Importing => (Code::Importing, "the conversation is being imported"),
            Refusal::NotEmpty => (Code::NotEmpty, "the conversation has records"),
            Refusal::ImportMisfit => (Code::BadField, "what is imported does not follow what is there"),
            Refusal::LimitReached => (Code::LimitReached, "a limit is reached"),
            Refusal::WrongShard => return Fault::later(Code::Busy, "the conversation is moving", RETRY_AFTER),
            Refusal::Retry => return Fault::later(Code::Busy, "send again under the same id", RETRY_AFTER),
            // Defects of our own, whatever a client did.
            _ => (Code::Internal, "the log refused a command of the server's"),
        };
        Fault::new(code, message)
    }
}

impl From<Capacity> for Fault {
    fn from(capacity: Capacity) -> Fault {
        let (code, message) = match capacity {
            Capacity::QueueFull => (Code::Busy, "too much is waiting"),
            Capacity::NoSpace => (Code::NoSpace, "the disk has no room that is certain"),
            Capacity::PredecessorFailed => (Code::PredecessorFailed, "an earlier message was not taken"),
            Capacity::NotLeading => (Code::Draining, "the node is stopping or leads no more"),
            Capacity::ReadOnly => (Code::ReadOnly, "a part of the log here is damaged: this node only reads"),
            Capacity::Damaged => (Code::Damaged, "a part of the log that this needs is damaged"),
        };
        Fault::later(code, message, capacity.retry_after())
    }
}

impl From<sequencer::Error> for Fault {
    fn from(error: sequencer::Error) -> Fault {
        if let sequencer::Error::Refused { why, .. } = error {
            return why.into();
        }
        tracing::error!(%error, "a request failed");
        match &error {
            sequencer::Error::Timeout { .. } => Fault::later(Code::Timeout, error.to_string(), RETRY_AFTER),
            sequencer::Error::Unreadable { conversation, .. } => {
                Fault::new(Code::Damaged, format!("a part of the log that holds {conversation} is damaged"))
            }
            error if error.is_damage() => Fault::new(Code::Damaged, "a part of the log is damaged"),
            // Paths and offsets are for the operator's log, not for clients.
            _ => Fault::new(Code::Internal, "the server failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_turn_out_otherwise_says_when_to_try_again_or_what_to_correct() {
        for refusal in [Refusal::WrongShard, Refusal::Retry] {
            assert!(refusal.may_turn_out_otherwise());
            assert!(!Fault::from(refusal).retry_after.is_zero());
        }
        assert_eq!(Fault::from(Refusal::ClockSkew).code, Code::ClockSkew);
    }

    #[test]
    fn a_full_queue_is_busy_and_a_stopping_node_drains() {
        let busy = Fault::from(Capacity::QueueFull);
        assert_eq!((busy.code, busy.retry_after), (Code::Busy, Capacity::QueueFull.retry_after()));
        assert_eq!(Fault::from(Capacity::NotLeading).code, Code::Draining);
    }

    #[test]
    fn a_shard_that_takes_nothing_for_now_says_why() {
        let error = sequencer::Error::Refused { shard: logstore::id::ShardId(1), why: Capacity::NoSpace };
        assert_eq!(Fault::from(error), Fault::from(Capacity::NoSpace));
    }

    #[test]
    fn rot_is_told_as_damage_with_the_conversation_and_without_the_file() {
        let (path, what) = ("journal/0000000001.journal".into(), "a frame".into());
        let rot = logstore::Error::Rot { path, offset: 4096, what, affected: String::new(), repair: String::new() };
        let conversation = logstore::id::ConversationId::group(7);
        let error = sequencer::Error::from(rot).of_read(logstore::id::ShardId(1), conversation);
        assert!(error.to_string().contains("journal/0000000001.journal at offset 4096"), "{error}");
        let fault = Fault::from(error);
        assert_eq!(fault.code, Code::Damaged);
        assert!(fault.message.contains(&conversation.to_string()) && !fault.message.contains("journal"), "{fault}");
    }

    #[test]
    fn a_failure_of_ours_does_not_tell_clients_where_files_lie() {
        let error = sequencer::Error::Log(logstore::Error::Stopped("/secret/place".into()));
        assert!(!Fault::from(error).message.contains("secret"));
    }
}
