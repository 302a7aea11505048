//! What a dev node begins with: three accounts everybody knows, and a group they share.
//!
//! What always holds: seeding twice is seeding once.

use fanout::service::Services;
use fanout::{Code, Fault};
use logstore::id::{ClientMsgId, UserId};

/// Names and passwords of the demo accounts, published on purpose.
pub const DEMO_ACCOUNTS: [(&str, &str); 3] = [("alice", "alice-demo"), ("bob", "bob-demo"), ("carol", "carol-demo")];
/// The name of the group they share.
pub const DEMO_GROUP: &str = "welcome";

/// Where the group is looked for; further down the list it is asked for again, which changes nothing.
const LISTED: usize = 100;
/// Requests of the seed are always the same ones, so that repeating them changes nothing.
const REQUEST: u128 = 0x0000_0000_0000_7000_8000_5eed_5eed_0000;

/// Makes what is missing, and proposes nothing when nothing is: a full disk must not keep a node from serving reads.
pub(super) async fn seed(services: &Services) -> Result<(), Fault> {
    let mut users = Vec::new();
    for (n, (name, password)) in (1..).zip(DEMO_ACCOUNTS) {
        users.push(account(services, name, password, ClientMsgId(REQUEST + n)).await?);
    }
    let owner = users[0];
    let page = services.conversations.list(owner, LISTED, &[], true).await?;
    if !page.items.iter().any(|conversation| conversation.title == DEMO_GROUP) {
        services.groups.create(owner, DEMO_GROUP, users, ClientMsgId(REQUEST)).await?;
    }
    Ok(())
}

async fn account(services: &Services, name: &str, password: &str, request: ClientMsgId) -> Result<UserId, Fault> {
    if let Some(user) = find(services, name).await? {
        return Ok(user);
    }
    match services.accounts.register(name, password, request).await {
        Ok(grant) => Ok(grant.user),
        Err(fault) if fault.code == Code::NameTaken => find(services, name).await?.ok_or(fault),
        Err(fault) => Err(fault),
    }
}

async fn find(services: &Services, name: &str) -> Result<Option<UserId>, Fault> {
    let found = services.accounts.find_names(&[name.to_owned()]).await?;
    Ok(found.first().map(|(user, _)| *user))
}
