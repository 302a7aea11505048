//! What a node that reads around damage answers: what is sound, and never that something is not there which may be lost.

use fanout::{Code, Fault};

use super::Answer;
use crate::session::Gateway;
use crate::wire::operation::Operation;

/// Refuses what would write, before anything is noted of it.
pub(super) fn check(gateway: &Gateway, operation: Operation) -> Result<(), Fault> {
    if gateway.sequencer().is_read_only() && !reads(operation) {
        let what =
            format!("{} is refused: a part of the log here is damaged, and this node only reads", operation.name());
        return Err(Fault::new(Code::ReadOnly, what));
    }
    Ok(())
}

/// What is not found in a damaged log may have been there.
pub(super) fn answered(gateway: &Gateway, answer: Answer) -> Answer {
    let is_not_there = |code| matches!(code, Code::NoSuchUser | Code::NoSuchConversation | Code::NotMember);
    match answer {
        Err(fault) if is_not_there(fault.code) && is_damaged(gateway) => {
            let what = format!("{}; it may be in the part of the log that is damaged", fault.message);
            Err(Fault::new(Code::Damaged, what))
        }
        answer => answer,
    }
}

fn is_damaged(gateway: &Gateway) -> bool {
    gateway.sequencer().is_read_only() && gateway.sequencer().shards().iter().any(|shard| shard.is_damaged())
}

fn reads(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Ping
            | Operation::FindUsers
            | Operation::History
            | Operation::ListConversations
            | Operation::ListMembers
            | Operation::MintTokens
            | Operation::ListShards
            | Operation::ListErasures
    )
}
