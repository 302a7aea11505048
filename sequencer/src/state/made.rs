//! Records whose bodies apply makes: what of their heads is only in their commands.

use logstore::RecordKind;
use logstore::id::{BodyHash, ClientMsgId, UserId};

use super::group::{first_members, hash_of_change, hash_of_creation};
use super::removal::hash_of_recall;
use crate::Command;

/// What a command says of the record it makes.
pub(crate) struct AskedBy {
    /// What the record is.
    pub kind: RecordKind,
    /// Its sender.
    pub sender: UserId,
    /// Names it once.
    pub request: ClientMsgId,
    /// Tells a repeated request from another.
    pub hash: BodyHash,
}

/// What of a record's head is in the command that made it; `None` if that makes none.
pub(crate) fn asked_by(command: &Command) -> Option<AskedBy> {
    let membership = |sender, request, hash| AskedBy { kind: RecordKind::MEMBERSHIP, sender, request, hash };
    match command {
        Command::GroupCreate { creator, request, name, members, .. } => {
            Some(membership(*creator, *request, hash_of_creation(name, &first_members(*creator, members))))
        }
        Command::GroupChange(change) => {
            Some(membership(change.actor, change.request, hash_of_change(&change.add, &change.remove)))
        }
        Command::Recall(recall) => Some(AskedBy {
            kind: RecordKind::RECALL,
            sender: recall.actor,
            request: recall.request,
            hash: hash_of_recall(recall),
        }),
        _ => None,
    }
}
