//! Sends steps, as many at once as a request holds, in order.
//!
//! What always holds: a request is sent when the one before it is answered; the first step that is refused ends the import.

use gateway::client::{Connection, IMPORT_BYTES_MAX};
use sequencer::{Command, Import, encoded_len};

use crate::exit::Failure;

/// Steps on their way.
pub struct Sender<'a> {
    connection: &'a Connection,
    steps: Vec<Import>,
    bytes: usize,
}

/// What a step takes of a request.
pub fn bytes_of(step: &Import) -> usize {
    encoded_len(&Command::Import(Box::new(step.clone())))
}

impl<'a> Sender<'a> {
    /// Nothing yet.
    pub fn new(connection: &'a Connection) -> Sender<'a> {
        Sender { connection, steps: Vec::new(), bytes: 0 }
    }

    /// Adds a step; sends those before it if there is no room for it beside them.
    pub async fn add(&mut self, step: Import) -> Result<(), Failure> {
        let bytes = bytes_of(&step);
        if self.bytes + bytes > IMPORT_BYTES_MAX {
            self.flush().await?;
        }
        self.steps.push(step);
        self.bytes += bytes;
        Ok(())
    }

    /// Sends what there is and waits until it is in the log.
    pub async fn flush(&mut self) -> Result<(), Failure> {
        let steps = std::mem::take(&mut self.steps);
        self.bytes = 0;
        if steps.is_empty() {
            return Ok(());
        }
        let named: Vec<String> = steps.iter().map(name_of).collect();
        let refused = self.connection.import(steps).await?;
        match refused.into_iter().next() {
            None => Ok(()),
            Some((position, refusal)) => {
                let step = named.get(position).map_or("a step", String::as_str);
                Err(Failure::Refused(anyhow::anyhow!(
                    "{step}: {refusal}; what was imported so far is hidden: the same command goes on with it, --abort gives it up"
                )))
            }
        }
    }
}

fn name_of(step: &Import) -> String {
    match step {
        Import::Ids { .. } => "the highest ids".to_owned(),
        Import::Account { user, row } => format!("account {user} ({})", row.name),
        Import::Name { name, row } => format!("name {name} of account {}", row.user),
        Import::Relation { user, peer, .. } => format!("relation of {user} to {peer}"),
        Import::Begin { conversation, .. } => format!("conversation {conversation}"),
        Import::Members { conversation, .. } => format!("members of conversation {conversation}"),
        Import::Record(record) => format!("record {} of conversation {}", record.seq, record.conversation),
        Import::End { conversation, .. } => format!("the end of conversation {conversation}"),
        Import::GiveUp { conversation, .. } => format!("giving up conversation {conversation}"),
    }
}
