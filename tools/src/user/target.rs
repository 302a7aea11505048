//! Which conversation a command is about: the 1:1 with somebody, or a group.

use anyhow::anyhow;
use bytes::Bytes;
use clap::Args;
use gateway::client::{Connection, User};
use logstore::id::{ConversationId, ConversationName, UserId};

use super::identity::Signed;
use crate::exit::Failure;

/// Conversations asked for at a time.
const PAGE: u32 = 200;
/// Pages looked through for a group's name.
const PAGES_MAX: usize = 500;

/// One conversation.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct Target {
    /// The 1:1 with this user
    #[arg(long, value_name = "NAME")]
    pub with: Option<String>,
    /// The group with this id (32 hexadecimal digits), or of this name if you are in only one of that name
    #[arg(long, value_name = "ID")]
    pub group: Option<String>,
}

/// One conversation, or all.
#[derive(Args, Clone, Debug)]
#[group(required = false, multiple = false)]
pub struct OptionalTarget {
    /// Only the 1:1 with this user
    #[arg(long, value_name = "NAME")]
    pub with: Option<String>,
    /// Only the group with this id or name
    #[arg(long, value_name = "ID")]
    pub group: Option<String>,
}

impl Target {
    /// The conversation's id. A 1:1 need not be open for that.
    pub async fn find(&self, signed: &Signed) -> Result<ConversationId, Failure> {
        match (&self.with, &self.group) {
            (Some(name), _) => Ok(direct_with(signed, name).await?),
            (_, Some(group)) => find_group(&signed.connection, group).await,
            _ => Err(Failure::Usage("name a conversation: --with NAME or --group ID".into())),
        }
    }

    /// The conversation's id; a 1:1 is opened if it is new.
    pub async fn open(&self, signed: &Signed) -> Result<ConversationId, Failure> {
        match &self.with {
            Some(name) => Ok(signed.connection.open_direct_named(name).await?.conversation),
            None => self.find(signed).await,
        }
    }
}

impl OptionalTarget {
    /// The one conversation, if one was named.
    pub fn one(&self) -> Option<Target> {
        let named = self.with.is_some() || self.group.is_some();
        named.then(|| Target { with: self.with.clone(), group: self.group.clone() })
    }
}

/// The accounts of these names, in their order.
pub async fn users(connection: &Connection, names: &[String]) -> Result<Vec<User>, Failure> {
    let mut found = Vec::with_capacity(names.len());
    for some in names.chunks(256) {
        found.extend(connection.find_users(some, &[]).await?);
    }
    let mut in_order = Vec::with_capacity(names.len());
    for name in names {
        let user = found.iter().find(|user| user.name == *name);
        in_order.push(user.cloned().ok_or_else(|| no_such_user(name))?);
    }
    Ok(in_order)
}

/// A group by its id, or by its name if only one of the user's conversations has it.
pub async fn find_group(connection: &Connection, group: &str) -> Result<ConversationId, Failure> {
    if let Some(id) = parse_id(group) {
        return Ok(id);
    }
    let mut found = Vec::new();
    let mut after = Bytes::new();
    for _ in 0..PAGES_MAX {
        let (rows, next) = connection.list_conversations(PAGE, after, false).await?;
        found.extend(
            rows.into_iter().filter(|row| row.peer == UserId(0) && row.title == group).map(|row| row.conversation),
        );
        if next.is_empty() {
            break;
        }
        after = next;
    }
    match found[..] {
        [id] => Ok(id),
        [] => Err(Failure::Refused(anyhow!(
            "no_such_conversation: you are in no group named {group:?}; `skein conversations` lists yours"
        ))),
        _ => Err(Failure::Usage(format!("you are in {} groups named {group:?}: give the id", found.len()))),
    }
}

/// 32 hexadecimal digits that name a conversation.
pub fn parse_id(text: &str) -> Option<ConversationId> {
    let is_id = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let id = ConversationId(u128::from_str_radix(text, 16).ok().filter(|_| is_id)?);
    id.name().map(|_| id)
}

/// "direct", "group" or "system".
pub fn kind(conversation: ConversationId) -> &'static str {
    match conversation.name() {
        Some(ConversationName::Direct(..)) => "direct",
        Some(ConversationName::Group(_)) => "group",
        Some(ConversationName::System(_)) => "system",
        None => "unknown",
    }
}

async fn direct_with(signed: &Signed, name: &str) -> Result<ConversationId, Failure> {
    let found = users(&signed.connection, &[name.to_owned()]).await?;
    let peer = found.first().ok_or_else(|| no_such_user(name))?.id;
    if peer.0 >= ConversationId::ID_LIMIT {
        return Err(Failure::Failed(anyhow!("the server named user {peer}, which no user can be")));
    }
    Ok(ConversationId::direct(signed.welcome.user.id, peer))
}

fn no_such_user(name: &str) -> Failure {
    Failure::Refused(anyhow!("no_such_user: there is no account named {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_that_name_something_are_ids() {
        let id = ConversationId::group(7);
        assert_eq!(parse_id(&id.to_string()), Some(id));
        assert_eq!(parse_id("00000000000000000000000000000005"), None);
        assert_eq!(parse_id("welcome"), None);
        assert_eq!(parse_id(&format!("+{}", &id.to_string()[1..])), None);
    }
}
