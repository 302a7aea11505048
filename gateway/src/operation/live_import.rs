//! Importing into this cluster, for administrators: steps as the log takes them, and a look at what is there.

use bytes::Bytes;
use fanout::{Code, Fault};
use logstore::id::UserId;
use sequencer::{Batch, Command, Import};

use super::{Answer, encode, parse};
use crate::session::Gateway;
use crate::wire::{convert, proto};

/// Looked at in one request: an answer holds ten times as many.
const LOOK_MAX: usize = 1000;

pub(super) async fn take(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::ImportSteps = parse(body)?;
    let steps = steps(&request.batch)?;
    let answers = gateway.services().imports.take(steps).await;
    let refused = (0..).zip(&answers).filter_map(|(position, answer)| Some((position, answer.as_ref().err()?)));
    let refusals = refused.map(|(position, fault)| convert::refusal(position, fault)).collect();
    Ok(encode(&proto::ImportedSteps { refusals }))
}

/// Steps of an import, and nothing else that the log takes.
fn steps(batch: &Bytes) -> Result<Vec<Import>, Fault> {
    let bad = |what: String| Fault::new(Code::BadField, what);
    let batch = Batch::decode(batch).map_err(|at| bad(format!("batch: byte {}: {}", at.offset, at.what)))?;
    let step = |command| match command {
        Command::Import(step) => Ok(*step),
        _ => Err(bad("batch: a command that is no step of an import".into())),
    };
    batch.commands.into_iter().map(step).collect()
}

pub(super) async fn look(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::LookImport = parse(body)?;
    if request.users.len() + request.names.len() + request.conversations.len() > LOOK_MAX {
        return Err(Fault::new(Code::TooMany, format!("more than {LOOK_MAX} things to look at")));
    }
    let users: Vec<UserId> = request.users.into_iter().map(UserId).collect();
    let conversations = request.conversations.iter().map(convert::conversation_id).collect::<Result<Vec<_>, _>>()?;
    let found = gateway.services().imports.look(&users, &request.names, &conversations).await?;
    Ok(encode(&proto::ImportLook {
        users: found.users.into_iter().map(convert::user_ref).collect(),
        names: found.names.into_iter().map(convert::user_ref).collect(),
        conversations: found.conversations.iter().map(convert::found_conversation).collect(),
    }))
}
