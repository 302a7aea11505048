//! `skein group`: groups and who is in them.

use clap::{Args, Subcommand};
use gateway::client::{Connection, Group, Member, MessageClock};
use logstore::id::{ConversationId, UserId};
use serde::Serialize;

use super::identity::Identity;
use super::record::Names;
use super::target::{find_group, users};
use crate::exit::Failure;
use crate::output::{Globals, Printer, Row};

/// Members asked for at a time.
const PAGE: u32 = 500;
/// Users named in one change; more are several changes.
const USERS_A_CHANGE: usize = 500;

/// What to do with a group. ID is the group's id, or its name if you are in only one of that name.
#[derive(Subcommand, Debug)]
#[command(after_help = "Examples:\n  \
    skein group create friends bob carol\n  \
    skein group add friends dave\n  \
    skein group members friends -o json")]
pub enum Command {
    /// Create a group; its id is printed
    #[command(after_help = "Examples:\n  skein group create friends bob carol\n  skein group create notes -o plain")]
    Create {
        /// The group's name
        name: String,
        /// Its first members besides you
        #[arg(value_name = "MEMBER")]
        members: Vec<String>,
    },
    /// Add members
    #[command(after_help = "Examples:\n  skein group add friends dave erin")]
    Add(Change),
    /// Remove members
    #[command(after_help = "Examples:\n  skein group remove friends dave")]
    Remove(Change),
    /// Leave a group
    #[command(after_help = "Examples:\n  skein group leave friends")]
    Leave {
        /// Which
        #[arg(value_name = "ID")]
        group: String,
    },
    /// List a group's members
    #[command(after_help = "Examples:\n  skein group members friends -o plain")]
    Members {
        /// Of which
        #[arg(value_name = "ID")]
        group: String,
    },
}

/// Which group, and whom.
#[derive(Args, Debug)]
pub struct Change {
    /// The group
    #[arg(value_name = "ID")]
    group: String,
    /// Whom
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

#[derive(Serialize)]
struct GroupRow {
    conversation: String,
    /// The record of the change; 0: nothing changed.
    seq_id: u64,
    changed: Vec<String>,
}

impl Row for GroupRow {
    const COLUMNS: &'static [&'static str] = &["conversation", "seq", "changed"];

    fn cells(&self) -> Vec<String> {
        vec![self.conversation.clone(), self.seq_id.to_string(), self.changed.join(", ")]
    }
}

#[derive(Serialize)]
struct MemberRow {
    name: String,
    user: String,
    role: &'static str,
    join_seq: u64,
}

impl Row for MemberRow {
    const COLUMNS: &'static [&'static str] = &["name", "user", "role", "joined at seq"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.user.clone(), self.role.into(), self.join_seq.to_string()]
    }
}

/// Runs it.
pub async fn run(command: Command, globals: &Globals, printer: &mut Printer) -> Result<(), Failure> {
    let identity = Identity::of(globals)?;
    let signed = identity.connect().await?;
    let (connection, clock) = (&signed.connection, signed.welcome.clock);
    let answer = match command {
        Command::Create { name, members } => create(connection, clock, &name, &members).await?,
        Command::Add(change) => change.make(connection, clock, true).await?,
        Command::Remove(change) => change.make(connection, clock, false).await?,
        Command::Leave { group } => {
            let group = find_group(connection, &group).await?;
            connection.leave_group(group, clock.id()).await?
        }
        Command::Members { group } => {
            let group = find_group(connection, &group).await?;
            return members(connection, group, printer).await;
        }
    };
    let mut names = Names::default();
    names.learn_ids(connection, answer.changed.clone()).await?;
    printer.one(&GroupRow {
        conversation: answer.conversation.to_string(),
        seq_id: answer.seq_id.0,
        changed: names.of_all(&answer.changed),
    })
}

async fn create(
    connection: &Connection,
    clock: MessageClock,
    name: &str,
    members: &[String],
) -> Result<Group, Failure> {
    let members = ids_of(connection, members).await?;
    let (first, more) = members.split_at(members.len().min(USERS_A_CHANGE));
    let mut group = connection.create_group(name, first, clock.id()).await?;
    for some in more.chunks(USERS_A_CHANGE) {
        let added = connection.add_members(group.conversation, some, clock.id()).await?;
        group.changed.extend(added.changed);
    }
    Ok(group)
}

impl Change {
    async fn make(&self, connection: &Connection, clock: MessageClock, add: bool) -> Result<Group, Failure> {
        let group = find_group(connection, &self.group).await?;
        let whom = ids_of(connection, &self.names).await?;
        let mut answer = Group { conversation: group, seq_id: Default::default(), changed: Vec::new() };
        for some in whom.chunks(USERS_A_CHANGE) {
            let changed = match add {
                true => connection.add_members(group, some, clock.id()).await?,
                false => connection.remove_members(group, some, clock.id()).await?,
            };
            answer.seq_id = changed.seq_id.max(answer.seq_id);
            answer.changed.extend(changed.changed);
        }
        Ok(answer)
    }
}

async fn members(connection: &Connection, group: ConversationId, printer: &mut Printer) -> Result<(), Failure> {
    let mut found: Vec<Member> = Vec::new();
    let mut after = None;
    loop {
        let page = connection.list_members(group, after, PAGE).await?;
        found.extend(&page.members);
        match page.next_after {
            Some(next) if Some(next) != after => after = Some(next),
            _ => break,
        }
    }
    let mut names = Names::default();
    names.learn_ids(connection, found.iter().map(|member| member.user).collect()).await?;
    let row = |member: &Member| MemberRow {
        name: names.of(member.user),
        user: member.user.to_string(),
        role: role_name(member.role),
        join_seq: member.join.0,
    };
    printer.list(&found.iter().map(row).collect::<Vec<_>>())
}

async fn ids_of(connection: &Connection, names: &[String]) -> Result<Vec<UserId>, Failure> {
    Ok(users(connection, names).await?.into_iter().map(|user| user.id).collect())
}

fn role_name(role: u32) -> &'static str {
    match role {
        1 => "owner",
        2 => "admin",
        3 => "member",
        _ => "unknown",
    }
}
