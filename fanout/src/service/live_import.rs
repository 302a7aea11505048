//! Importing into a running cluster: steps on their way into the log, and what is there before the first one.
//!
//! What always holds: the steps of one shard are proposed in order, and what was not taken is proposed again from there on; a step that
//! was taken twice was taken once.

use std::sync::Arc;
use std::time::Duration;

use logstore::id::{ConversationId, SeqId, UserId};
use sequencer::state::Importing;
use sequencer::{Capacity, Command, Import, Outcome, Proposal, ProposalResult, Shard};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Core;
use crate::Fault;

/// How long full queues are asked again: well below what a request may take.
const QUEUE_WAIT: Duration = Duration::from_secs(10);

/// Imports, for administrators.
pub struct Imports {
    core: Arc<Core>,
}

/// What is there of what is to be imported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Accounts, by id.
    pub users: Vec<(UserId, String)>,
    /// Names, claimed ones included.
    pub names: Vec<(UserId, String)>,
    /// Conversations.
    pub conversations: Vec<FoundConversation>,
}

/// A conversation that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundConversation {
    /// Which.
    pub conversation: ConversationId,
    /// Its newest record; 0: none.
    pub last_seq: SeqId,
    /// Whether nothing was ever in it, and nothing is being imported into it.
    pub is_empty: bool,
    /// The import that it is of.
    pub import: Option<Importing>,
}

impl Imports {
    pub(super) fn new(core: Arc<Core>) -> Imports {
        Imports { core }
    }

    /// Takes steps of an import, those of one shard in order; one answer each.
    pub async fn take(&self, steps: Vec<Import>) -> Vec<Result<(), Fault>> {
        // Whether a step was taken by any shard, or why not by one.
        let mut answers: Vec<Result<bool, Fault>> = vec![Ok(false); steps.len()];
        let shards = self.core.sequencer.shards();
        let mut of_shards: Vec<Vec<(usize, Import)>> = shards.iter().map(|_| Vec::new()).collect();
        for (position, step) in steps.into_iter().enumerate() {
            let owner = step.place().map(|place| self.core.shard_of(place).id());
            for (shard, of_it) in shards.iter().zip(&mut of_shards) {
                if owner.is_none_or(|owner| owner == shard.id()) {
                    of_it.push((position, step.clone()));
                }
            }
        }
        let deadline = Instant::now() + QUEUE_WAIT;
        let runs = shards.iter().zip(of_shards).filter(|(_, steps)| !steps.is_empty());
        let tasks: Vec<_> = runs.map(|(shard, steps)| tokio::spawn(run(Arc::clone(shard), steps, deadline))).collect();
        for task in tasks {
            match task.await {
                Ok(done) => done.into_iter().for_each(|(position, answer)| {
                    if answers[position].as_ref().is_ok_and(|taken| !taken) || answer.is_err() {
                        answers[position] = answer.map(|()| true);
                    }
                }),
                Err(error) => tracing::error!(%error, "an import ended badly"),
            }
        }
        let unknown = || super::timeout("a step of an import");
        answers.into_iter().map(|answer| answer?.then_some(()).ok_or_else(unknown)).collect()
    }

    /// What is there of these accounts, names and conversations.
    pub async fn look(
        &self,
        users: &[UserId],
        names: &[String],
        conversations: &[ConversationId],
    ) -> Result<Found, Fault> {
        let mut found = Found::default();
        for &user in users {
            let name = self.core.home_of(user).look(|state, _| state.user(user).map(|row| row.name.clone())).await?;
            found.users.extend(name.map(|name| (user, name)));
        }
        for name in names {
            let shard = self.core.shard_of(sequencer::state::name_home(name));
            let user = shard.look(|state, _| state.name(name).map(|row| row.user)).await?;
            found.names.extend(user.map(|user| (user, name.clone())));
        }
        for &conversation in conversations {
            let shard = self.core.shard_of(conversation);
            let row = shard.look(|state, _| state.any_conversation(conversation).cloned()).await?;
            found.conversations.extend(row.map(|row| FoundConversation {
                conversation,
                last_seq: row.last_seq,
                is_empty: row.last_seq == SeqId(0) && row.group.is_none() && !row.is_importing(),
                import: row.import(),
            }));
        }
        Ok(found)
    }
}

/// Proposes the steps of one shard until each was taken or refused, or time is over.
async fn run(shard: Arc<Shard>, mut steps: Vec<(usize, Import)>, deadline: Instant) -> Vec<(usize, Result<(), Fault>)> {
    let mut answers = Vec::with_capacity(steps.len());
    loop {
        let commands = steps.iter().map(|(_, step)| Command::Import(Box::new(step.clone()))).collect();
        let results = propose(&shard, commands).await;
        let taken = results.iter().take(steps.len()).take_while(|result| result.is_ok()).count();
        for ((position, _), result) in steps.drain(..taken).zip(&results) {
            answers.push((position, answer(result.clone())));
        }
        if steps.is_empty() {
            return answers;
        }
        let why = results.get(taken).and_then(|result| result.as_ref().err()).copied().unwrap_or(Capacity::NotLeading);
        if why != Capacity::QueueFull || Instant::now() >= deadline {
            answers.extend(steps.into_iter().map(|(position, _)| (position, Err(why.into()))));
            return answers;
        }
        tokio::time::sleep(why.retry_after()).await;
    }
}

fn answer(result: Result<Outcome, Capacity>) -> Result<(), Fault> {
    match result {
        Ok(Outcome::Refused(refusal)) => Err(refusal.into()),
        Ok(_) => Ok(()),
        Err(capacity) => Err(capacity.into()),
    }
}

async fn propose(shard: &Shard, commands: Vec<Command>) -> ProposalResult {
    let (done, reply) = oneshot::channel();
    // Whoever asked may be gone: nobody is left to tell then.
    let reply_to = move |results| drop(done.send(results));
    shard.propose(Proposal { commands, pipeline: Vec::new(), reply: Box::new(reply_to) });
    reply.await.unwrap_or_default()
}
