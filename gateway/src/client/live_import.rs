//! Importing into a running cluster.

use logstore::id::{ConversationId, SeqId, TimeMs, UserId};
use sequencer::{Batch, Command, Import, ImportId};

use super::convert::{all, conversation_bytes, refusals};
use super::{Connection, Error, Refusal, User};
use crate::wire::frame::CLIENT_FRAME_BYTES_MAX;
use crate::wire::operation::Operation;
use crate::wire::proto;

/// What is there of what is to be imported.
#[derive(Clone, Debug, Default)]
pub struct ImportLook {
    /// Accounts that are there, by id.
    pub users: Vec<User>,
    /// Names that are taken, with whose they are.
    pub names: Vec<User>,
    /// Conversations that are there.
    pub conversations: Vec<ImportPlace>,
}

/// A conversation that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportPlace {
    /// Which.
    pub conversation: ConversationId,
    /// Its newest record; 0: none.
    pub last_seq: SeqId,
    /// Whether nothing was ever in it, and nothing is being imported into it.
    pub is_empty: bool,
    /// The import that it is of, and whether that is over.
    pub import: Option<(ImportId, bool)>,
}

/// Bytes of steps in one request: what is around them fits beside.
pub const IMPORT_BYTES_MAX: usize = CLIENT_FRAME_BYTES_MAX - 256;

impl Connection {
    /// Takes steps of an import, at most [`IMPORT_BYTES_MAX`] of them; gives those that were refused, with their places.
    pub async fn import(&self, steps: Vec<Import>) -> Result<Vec<(usize, Refusal)>, Error> {
        let commands = steps.into_iter().map(|step| Command::Import(Box::new(step))).collect();
        let batch = Batch { time: TimeMs(0), commands }.encode();
        let done: proto::ImportedSteps = self.call(Operation::ImportSteps, &proto::ImportSteps { batch }).await?;
        Ok(refusals(done.refusals))
    }

    /// What is there of these accounts, names and conversations: 1,000 at most.
    pub async fn look_import(
        &self,
        users: &[UserId],
        names: &[String],
        conversations: &[ConversationId],
    ) -> Result<ImportLook, Error> {
        let body = proto::LookImport {
            users: users.iter().map(|user| user.0).collect(),
            names: names.to_vec(),
            conversations: conversations.iter().map(|id| conversation_bytes(*id)).collect(),
        };
        let look: proto::ImportLook = self.call(Operation::LookImport, &body).await?;
        Ok(ImportLook {
            users: look.users.into_iter().map(User::from).collect(),
            names: look.names.into_iter().map(User::from).collect(),
            conversations: all(look.conversations)?,
        })
    }
}
