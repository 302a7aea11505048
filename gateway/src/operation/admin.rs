//! Administration, and the probe that everybody signed in may make.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanout::{Code, Fault};
use futures::future::join_all;
use hashbrown::HashMap;
use sequencer::Shard;

use super::conversation::no_such_user;
use super::{Answer, encode, parse};
use crate::session::Gateway;
use crate::wire::{convert, proto};

/// Tokens minted in one request: 1,000 of them fill an answer.
const MINT_MAX: usize = 1000;
/// How long a minted token lasts when the request does not say.
const MINTED_LIFETIME: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn import_users(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::ImportUsers = parse(body)?;
    let accounts: Vec<_> = request.users.into_iter().map(|user| (user.name, user.password_phc)).collect();
    let names: Vec<String> = accounts.iter().map(|(name, _)| name.clone()).collect();
    let mut imported = proto::ImportedUsers::default();
    let results = gateway.services().accounts.import(accounts).await;
    for ((position, name), result) in (0..).zip(names).zip(results) {
        match result {
            Ok(user) => imported.users.push(convert::user_ref((user, name))),
            Err(fault) => imported.refusals.push(convert::refusal(position, &fault)),
        }
    }
    Ok(encode(&imported))
}

pub(super) async fn mint_tokens(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::MintTokens = parse(body)?;
    if request.names.len() > MINT_MAX {
        return Err(Fault::new(Code::TooMany, format!("more than {MINT_MAX} tokens at a time")));
    }
    let lifetime_ms = match request.lifetime_ms {
        0 => MINTED_LIFETIME.as_millis() as u64,
        asked => asked,
    };
    let mut users = HashMap::with_capacity(request.names.len());
    for names in request.names.chunks(gateway.limits().find_users.max(1) as usize) {
        users.extend(gateway.services().accounts.find_names(names).await?.into_iter().map(|(user, name)| (name, user)));
    }
    let mint = |name: &String| {
        let user = users.get(name).ok_or_else(|| no_such_user(name))?;
        Ok(convert::tokens(gateway.tokens().mint(*user, name, lifetime_ms, gateway.now())))
    };
    let tokens = request.names.iter().map(mint).collect::<Result<_, Fault>>()?;
    Ok(encode(&proto::MintedTokens { tokens }))
}

pub(super) async fn list_shards(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::ListShards = parse(body)?;
    let listed = gateway.sequencer().shards().to_vec();
    let figures = move |shard: &Arc<Shard>| {
        let figures = if request.digest { shard.status_with_digest()? } else { shard.status() };
        Ok(convert::shard_info(&figures))
    };
    // A digest takes seconds on a large node: not on a worker that serves connections.
    let infos = move || listed.iter().map(figures).collect::<Result<_, sequencer::Error>>();
    let shards = tokio::task::spawn_blocking(infos).await;
    let shards = shards.map_err(|_| Fault::new(Code::Internal, "the node is stopping"))??;
    Ok(encode(&proto::ShardList { shards }))
}

pub(super) async fn seal_shards(gateway: &Gateway, body: Bytes) -> Answer {
    let request: proto::SealShards = parse(body)?;
    for &number in &request.shards {
        if gateway.slot(number).is_none() {
            return Err(Fault::new(Code::BadField, format!("no shard {number}")));
        }
    }
    let wanted = |shard: &&Arc<Shard>| request.shards.is_empty() || request.shards.contains(&convert::slot(shard.id()));
    let shards: Vec<_> = gateway.sequencer().shards().iter().filter(wanted).collect();
    let sealed = join_all(shards.into_iter().map(|shard| seal_one(shard))).await;
    Ok(encode(&proto::SealedShards { shards: sealed.into_iter().collect::<Result<_, Fault>>()? }))
}

/// Seals one shard; states what lies in its segments then.
async fn seal_one(shard: &Shard) -> Result<proto::SealedShard, Fault> {
    let began = Instant::now();
    let seals = shard.seal().await.map_err(not_sealed)?;
    let sealed = shard.read(|_, records| records.sealed().clone());
    Ok(convert::sealed_shard(sealed.manifest(), seals, began.elapsed()))
}

/// Administrators are told what file it is, too.
pub(super) fn not_sealed(error: sequencer::Error) -> Fault {
    match error {
        sequencer::Error::CannotSeal { .. } => Fault::new(Code::Internal, error.to_string()),
        error => error.into(),
    }
}

/// All shards commit something at once; then one alone, which is what a lone send waits for.
pub(super) async fn probe(gateway: &Gateway) -> Answer {
    let shards = gateway.sequencer().shards();
    let took = join_all(shards.iter().map(|shard| probe_one(shard))).await;
    let took_us = took.into_iter().collect::<Result<Vec<u64>, Fault>>()?;
    let troubles = shards.iter().filter_map(|shard| convert::shard_troubles(shard.id(), shard.troubles()));
    let troubles = troubles.collect();
    let lone = shards.first().ok_or_else(|| Fault::new(Code::Internal, "this node has no shards"))?;
    Ok(encode(&proto::ProbeReply { took_us, durable_us: probe_one(lone).await?, troubles }))
}

async fn probe_one(shard: &Shard) -> Result<u64, Fault> {
    let took = shard.probe().await?;
    Ok(took.as_micros() as u64)
}
