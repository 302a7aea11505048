//! Brings an attached connection to where its shards are: announces, reads what was missed, hands over to live.
//!
//! One such task runs per connection at a time, while some shard of it is wanted (see [`super::feed`]).

use std::sync::Arc;
use std::time::Duration;

use fanout::tail::{Announcement, Attachment};
use futures::StreamExt;
use metrics::counter;

use super::feed::Wish;
use super::{Connection, SignedIn};
use crate::session::Gateway;

/// Answers read at a time: each is memory until it is queued, and one slow shard must not delay all others.
const ANSWERS_AT_ONCE: usize = 2;
/// Between attempts at a shard that does not answer, or is behind.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// A cursor that is still ahead after this many attempts is not ours: its device is told everything.
const BEHIND_MAX: u32 = 10;

/// Runs rounds until no shard is wanted.
pub async fn run(gateway: Arc<Gateway>, connection: Arc<Connection>) {
    let Some(who) = connection.who() else { return };
    let _one_at_a_time = connection.rounds().await;
    let follower = Follower { connection: &connection, who };
    loop {
        let begun = connection.update(|s| s.feed.as_mut().map(|feed| feed.begin_round()));
        let slots = begun.flatten().unwrap_or_default();
        if slots.is_empty() {
            return;
        }
        futures::stream::iter(slots)
            .for_each_concurrent(ANSWERS_AT_ONCE, |slot| catch_up(&gateway, &follower, slot))
            .await;
    }
}

/// Who is brought up to date.
struct Follower<'a> {
    connection: &'a Connection,
    who: SignedIn,
}

/// One shard, one round. Whatever fails leaves the shard wanted, for the next round.
async fn catch_up(gateway: &Gateway, follower: &Follower<'_>, slot: usize) {
    let announced = follower.connection.update(|s| s.feed.as_mut().and_then(|feed| feed.announce(slot)));
    let Some(wish) = announced.flatten() else { return };
    match announce(gateway, follower, wish).await {
        Some(answer) => {
            if write(follower, wish, &answer).await.is_some() {
                counter!("skein_attaches_total").increment(1);
            }
        }
        None => tokio::time::sleep(RETRY_AFTER).await,
    }
}

async fn announce(gateway: &Gateway, follower: &Follower<'_>, wish: Wish) -> Option<Attachment> {
    let announcement = Announcement {
        gateway: gateway.id(),
        connection: follower.connection.id(),
        user: follower.who.user,
        cursor: wish.taken,
        bodies: follower.who.bodies,
    };
    for _ in 0..BEHIND_MAX {
        match gateway.tails().announce(wish.shard, announcement).await {
            Ok(answer) if answer.as_of >= wish.taken => return Some(answer),
            Err(fault) if !is_ahead(gateway, wish) => {
                tracing::debug!(shard = %wish.shard, %fault, "announcement refused");
                give_up(follower, wish, false);
                return None;
            }
            _ => tokio::time::sleep(RETRY_AFTER).await,
        }
        if !waits_for(follower, wish) {
            return None;
        }
    }
    tracing::warn!(shard = %wish.shard, user = %follower.who.user, cursor = %wish.taken, "a cursor is ahead of its shard");
    give_up(follower, wish, true);
    None
}

/// Whether the replica here has not applied yet what the device has been told.
fn is_ahead(gateway: &Gateway, wish: Wish) -> bool {
    let shard = gateway.sequencer().shards().iter().find(|shard| shard.id() == wish.shard);
    shard.is_some_and(|shard| shard.applied() < wish.taken)
}

fn give_up(follower: &Follower<'_>, wish: Wish, forget_cursor: bool) {
    follower.connection.update(|s| s.feed.as_mut().map(|feed| feed.unanswered(wish, forget_cursor)));
}

fn waits_for(follower: &Follower<'_>, wish: Wish) -> bool {
    follower.connection.update(|s| s.feed.as_ref().is_some_and(|feed| feed.waits_for(wish))).unwrap_or(false)
}

/// Queues an answer in pieces, each when there is room. `None`: it became void, or the connection closed.
async fn write(follower: &Follower<'_>, wish: Wish, answer: &Attachment) -> Option<()> {
    let connection = follower.connection;
    let mut rows = answer.rows.as_slice();
    while !rows.is_empty() {
        rows = &rows[piece(connection, |feed, out| feed.write_rows(wish, rows, answer.as_of, out)).await?..];
    }
    let mut records = answer.records.as_slice();
    while !records.is_empty() {
        records = &records[piece(connection, |feed, out| feed.write_backlog(wish, records, out)).await?..];
    }
    piece(connection, |feed, out| {
        feed.answered(wish, &answer.rows, answer.as_of, out);
        Some(())
    })
    .await
}

async fn piece<T>(
    connection: &Connection,
    write: impl FnOnce(&mut super::feed::Feed, &mut bytes::BytesMut) -> Option<T>,
) -> Option<T> {
    if !connection.room().await {
        return None;
    }
    connection.update(|shared| shared.feed.as_mut().and_then(|feed| write(feed, &mut shared.out))).flatten()
}
