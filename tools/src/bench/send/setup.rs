//! Before the clock starts: accounts, tokens, conversations.

use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use gateway::client::{Connection, Greeting, MessageClock, Options};
use logstore::id::UserId;

use super::plan::{Pair, Party, pairings};
use crate::bench::accounts::{self, Account, AdminArgs};
use crate::bench::wire::Id;
use crate::exit::Failure;
use crate::output::Globals;

/// Conversations being opened at once over one connection.
const OPENING: usize = 16;
/// Opening asks two home shards and waits for both.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Who takes part, and in which conversations.
pub struct Cast {
    /// Where the server is.
    pub server: String,
    /// At sending connections.
    pub senders: Vec<Party>,
    /// At receiving connections.
    pub receivers: Vec<Party>,
    /// By rank: the busiest first.
    pub pairs: Vec<Pair>,
    /// For lone sends.
    pub lone: (Party, Id),
}

/// Makes what is missing of it.
pub async fn prepare(
    admin: &AdminArgs,
    globals: &Globals,
    connections: usize,
    conversations: usize,
) -> Result<Cast, Failure> {
    let (senders, receivers) = (connections.div_ceil(2), connections / 2);
    let names = (1..=senders).map(|n| format!("bench-sender-{n}"));
    let names = names.chain((1..=receivers).map(|n| format!("bench-receiver-{n}")));
    let names: Vec<String> = names.chain(["bench-lone".into(), "bench-lone-peer".into()]).collect();
    let (server, accounts) = accounts::prepare(admin, globals, &names).await?;
    let mut parties: Vec<Party> = accounts.into_iter().map(Party::from).collect();
    let lone_peer = parties.split_off(senders + receivers + 1);
    let lone = parties.split_off(senders + receivers).remove(0);
    let receivers = parties.split_off(senders);
    let senders = parties;

    let pairs = open_pairs(&server, &senders, &receivers, conversations).await?;
    let alone = greet(&server, &lone).await?.open_direct(UserId(lone_peer[0].user)).await?;
    Ok(Cast { server, senders, receivers, pairs, lone: (lone, alone.conversation.to_bytes()) })
}

async fn open_pairs(
    server: &str,
    senders: &[Party],
    receivers: &[Party],
    conversations: usize,
) -> Result<Vec<Pair>, Failure> {
    let mut connections = Vec::with_capacity(senders.len());
    for party in senders {
        connections.push(greet(server, party).await?);
    }
    let plan = pairings(conversations, senders.len(), receivers.len());
    let open = |(sender, receiver, again): (u32, u32, bool)| {
        let (connection, peer) = (connections[sender as usize].clone(), UserId(receivers[receiver as usize].user));
        async move {
            let (id, base_seq) =
                if again { create(&connection, peer).await? } else { direct(&connection, peer).await? };
            Ok::<Pair, Failure>(Pair { id, sender, receiver, base_seq })
        }
    };
    stream::iter(plan).map(open).buffered(OPENING * senders.len()).try_collect().await
}

async fn direct(connection: &Connection, peer: UserId) -> Result<(Id, u64), Failure> {
    let row = connection.open_direct(peer).await?;
    Ok((row.conversation.to_bytes(), row.head.0))
}

async fn create(connection: &Connection, peer: UserId) -> Result<(Id, u64), Failure> {
    let group = connection.create_group("bench", &[peer], MessageClock::default().id()).await?;
    Ok((group.conversation.to_bytes(), group.seq_id.0))
}

async fn greet(server: &str, party: &Party) -> Result<Connection, Failure> {
    let options = Options { request_timeout: OPEN_TIMEOUT, ..Options::default() };
    let (connection, _) = Connection::connect(server, options).await?;
    let greeting = Greeting { token: party.token.clone(), device: "bench".into(), ..Greeting::default() };
    connection.hello(greeting).await?;
    Ok(connection)
}

impl From<Account> for Party {
    fn from(account: Account) -> Party {
        Party { user: account.user, token: account.token }
    }
}
