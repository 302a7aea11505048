//! Creating many accounts at once: every claim is proposed before any is waited for.
//!
//! No password is hashed here. What always holds: an answer `Ok` means that the account exists, and one input has one
//! answer, in order.

use std::sync::Arc;
use std::time::Duration;

use logstore::id::{ClientMsgId, UserId};
use sequencer::state::{Look, name_home};
use sequencer::{AccountSeed, Capacity, Command, Outcome, Proposal, ProposalResult, Shard};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::account::unexpected;
use super::{Core, EFFECTS_WAIT, name, password, timeout};
use crate::{Code, Fault};

/// Claims proposed together: some 40 KiB, below an entry's size.
const CLAIMS_PER_PROPOSAL: usize = 256;

/// How long full queues are asked again.
const QUEUE_WAIT: Duration = Duration::from_secs(10);

/// One name on its way to being an account.
struct Claim {
    position: usize,
    name: String,
    phc: String,
}

/// Creates the accounts (name, PHC string or empty); existing names are answered with their accounts.
pub(super) async fn run(core: &Arc<Core>, accounts: Vec<(String, String)>) -> Vec<Result<UserId, Fault>> {
    let mut answers: Vec<Result<UserId, Fault>> = Vec::with_capacity(accounts.len());
    let mut claims: Vec<Vec<Claim>> = core.sequencer.shards().iter().map(|_| Vec::new()).collect();
    for (position, (name, phc)) in accounts.into_iter().enumerate() {
        match check(core, &name, &phc) {
            Ok(()) => {
                claims[shard_position(core, &name)].push(Claim { position, name, phc });
                answers.push(Err(timeout("creating the account")));
            }
            Err(fault) => answers.push(Err(fault)),
        }
    }
    let shards = core.sequencer.shards().iter().zip(claims).filter(|(_, claims)| !claims.is_empty());
    let tasks: Vec<_> =
        shards.map(|(shard, claims)| tokio::spawn(import_on(Arc::clone(core), Arc::clone(shard), claims))).collect();
    for task in tasks {
        match task.await {
            Ok(done) => done.into_iter().for_each(|(position, answer)| answers[position] = answer),
            Err(error) => tracing::error!(%error, "an import ended badly"),
        }
    }
    answers
}

fn check(core: &Core, name: &str, phc: &str) -> Result<(), Fault> {
    name::check_account(name, &core.limits)?;
    if phc.is_empty() || password::is_phc(phc) {
        return Ok(());
    }
    Err(Fault::new(Code::BadField, "password_phc is not an argon2id PHC string of bearable cost"))
}

fn shard_position(core: &Core, name: &str) -> usize {
    let id = core.shard_of(name_home(name)).id();
    let position = core.sequencer.shards().iter().position(|shard| shard.id() == id);
    position.expect("shard_of gives one of shards()")
}

/// Claims the names of one shard and waits until their accounts exist.
async fn import_on(core: Arc<Core>, shard: Arc<Shard>, claims: Vec<Claim>) -> Vec<(usize, Result<UserId, Fault>)> {
    let (mut users, wanted) = known(&shard, claims).await;
    let deadline = Instant::now() + QUEUE_WAIT;
    let proposals: Vec<_> =
        wanted.chunks(CLAIMS_PER_PROPOSAL).map(|chunk| propose(&shard, chunk.iter().map(command).collect())).collect();
    for (chunk, reply) in wanted.chunks(CLAIMS_PER_PROPOSAL).zip(proposals) {
        let results = reply.await.unwrap_or_default();
        for (at, claim) in chunk.iter().enumerate() {
            let first = results.get(at).cloned().unwrap_or(Err(Capacity::NotLeading));
            let user = settle(&core, &shard, claim, first, deadline).await;
            users.push((claim.position, claim.name.clone(), user));
        }
    }
    wait_until_created(&core, &shard, &users).await;
    let mut answers = Vec::with_capacity(users.len());
    for (position, name, user) in users {
        let answer = match user {
            Ok(user) => created(&shard, &name, user).await,
            Err(fault) => Err(fault),
        };
        answers.push((position, answer));
    }
    answers
}

type Claimed = (usize, String, Result<UserId, Fault>);

/// Splits off the names that exist already.
async fn known(shard: &Shard, claims: Vec<Claim>) -> (Vec<Claimed>, Vec<Claim>) {
    let mut users = Vec::with_capacity(claims.len());
    let mut wanted = Vec::with_capacity(claims.len());
    let mut claims = claims.into_iter().peekable();
    while claims.peek().is_some() {
        let some: Vec<Claim> = claims.by_ref().take(CLAIMS_PER_PROPOSAL).collect();
        let owners = shard.look(|state, _| -> Vec<Option<UserId>> {
            some.iter().map(|claim| state.name(&claim.name).map(|row| row.user)).collect()
        });
        match owners.await {
            Ok(owners) => {
                for (claim, owner) in some.into_iter().zip(owners) {
                    match owner {
                        Some(user) => users.push((claim.position, claim.name, Ok(user))),
                        None => wanted.push(claim),
                    }
                }
            }
            Err(error) => {
                let fault = Fault::from(error);
                users.extend(some.into_iter().map(|claim| (claim.position, claim.name, Err(fault.clone()))));
            }
        }
    }
    (users, wanted)
}

fn propose(shard: &Shard, commands: Vec<Command>) -> oneshot::Receiver<ProposalResult> {
    let (done, reply) = oneshot::channel();
    // Whoever asked may be gone: nobody is left to tell then.
    let reply_to = move |results| drop(done.send(results));
    shard.propose(Proposal { commands, pipeline: Vec::new(), reply: Box::new(reply_to) });
    reply
}

/// What became of a claim, asked again while the shard's queue is full.
async fn settle(
    core: &Core,
    shard: &Shard,
    claim: &Claim,
    first: Result<Outcome, Capacity>,
    deadline: Instant,
) -> Result<UserId, Fault> {
    let mut result = first;
    while is_full(&result) && Instant::now() < deadline {
        tokio::time::sleep(Capacity::QueueFull.retry_after()).await;
        result = shard.execute(command(claim)).await;
    }
    match result {
        Ok(Outcome::Claimed { user, .. }) => Ok(user),
        // Somebody registered it meanwhile: then it is an existing name.
        Ok(Outcome::Refused(sequencer::Refusal::NameTaken)) => {
            let shard = core.shard_of(name_home(&claim.name));
            let row = shard.look(|state, _| state.name(&claim.name).map(|row| row.user)).await?;
            row.ok_or_else(|| sequencer::Refusal::NameTaken.into())
        }
        Ok(Outcome::Refused(refusal)) => Err(refusal.into()),
        Ok(other) => Err(unexpected(&other)),
        Err(capacity) => Err(capacity.into()),
    }
}

/// Whether there is only no room at the moment: in the queue, or among the names that wait for their accounts.
fn is_full(result: &Result<Outcome, Capacity>) -> bool {
    matches!(result, Err(Capacity::QueueFull) | Ok(Outcome::Refused(sequencer::Refusal::LimitReached)))
}

/// Waits until every claim is confirmed and every account is at its home; gives up quietly, [`created`] tells which are.
async fn wait_until_created(core: &Core, shard: &Shard, users: &[Claimed]) {
    let mut confirmed = 0;
    let look = |state: &Look<'_>| {
        // Confirmations come about in order: looking on from the first missing one makes each wake-up cheap.
        let is_there = |(_, name, user): &Claimed| user.is_err() || state.name(name).is_some_and(|row| row.confirmed);
        while users.get(confirmed).is_some_and(is_there) {
            confirmed += 1;
        }
        (confirmed == users.len() && state.is_complete()).then_some(())
    };
    if shard.wait_for(EFFECTS_WAIT, look).await.is_none() {
        return;
    }
    for user in users.iter().filter_map(|(_, _, user)| user.as_ref().ok()) {
        let there = |state: &Look<'_>| state.user(*user).map(|_| ());
        if core.home_of(*user).wait_for(EFFECTS_WAIT, there).await.is_none() {
            return;
        }
    }
}

async fn created(shard: &Shard, name: &str, user: UserId) -> Result<UserId, Fault> {
    let confirmed = shard.look(|state, _| state.name(name).is_some_and(|row| row.confirmed)).await?;
    confirmed.then_some(user).ok_or_else(|| timeout("creating the account"))
}

fn command(claim: &Claim) -> Command {
    Command::ClaimName {
        name: claim.name.clone(),
        seed: AccountSeed { password_phc: claim.phc.clone() },
        request: request_of(&claim.name),
    }
}

/// An import of a name is the same request whenever it is repeated.
fn request_of(name: &str) -> ClientMsgId {
    let mut hasher = blake3::Hasher::new_derive_key("skein import 1");
    hasher.update(name.as_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    ClientMsgId(u128::from_be_bytes(id))
}
