//! Commands that need the admin key.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, Subcommand};
use gateway::auth::AdminKey;
use gateway::client::{Connection, Greeting, Options};
use logstore::id::TimeMs;

use crate::bench::accounts::AdminArgs;
use crate::exit::{Failure, Outcome};
use crate::output::{Globals, Printer};
use crate::user::{block_on, connect_options, server_of};

mod conversation;
mod erase;
mod import;
mod shard;
mod token;

/// Arguments of `skein user`.
#[derive(Args)]
#[command(after_help = "Examples:\n  skein user import users.jsonl --data-dir ./skein-data")]
pub struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Subcommand)]
enum UserCommand {
    /// Create accounts from JSON lines; those that exist stay as they are
    #[command(after_help = "Examples:\n  \
        skein user import users.jsonl --data-dir ./skein-data\n  \
        echo '{\"name\": \"erin\"}' | skein user import - --admin-key admin.pem --server 10.0.0.5:7400 -o json\n\n\
        Each line is {\"name\": \"...\", \"password_phc\": \"$argon2id$...\"}; without a password_phc\n\
        the account has no password and signs in with minted tokens.")]
    Import(import::Args),
    /// Erase all messages of a user: from every reader at once, then from every file
    #[command(after_help = "Examples:\n  \
        skein user erase alice --data-dir ./skein-data\n  \
        skein user erase alice --no-wait --admin-key admin.pem --server 10.0.0.5:7400\n  \
        skein user erase --status --data-dir ./skein-data -o json")]
    Erase(erase::EraseArgs),
}

/// Arguments of `skein conversation`.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  skein conversation trim 80000000000000000000000000000007 --before 100 --data-dir ./skein-data"
)]
pub struct ConversationArgs {
    #[command(subcommand)]
    command: ConversationCommand,
}

#[derive(Subcommand)]
enum ConversationCommand {
    /// Remove the records of a conversation before one, for everybody and for ever
    #[command(after_help = "Examples:\n  \
        skein conversation trim 80000000000000000000000000000007 --before 100 --data-dir ./skein-data -o json")]
    Trim(conversation::TrimArgs),
    /// Say how long a conversation keeps its records
    #[command(after_help = "Examples:\n  \
        skein conversation retain 80000000000000000000000000000007 --days 30 --data-dir ./skein-data\n  \
        skein conversation retain 80000000000000000000000000000007 --count 10000 --admin-key admin.pem\n  \
        skein conversation retain 80000000000000000000000000000007 --off --data-dir ./skein-data")]
    Retain(conversation::RetainArgs),
    /// Trim now what conversations need not keep
    #[command(after_help = "Examples:\n  skein conversation sweep --data-dir ./skein-data\n  \
        skein conversation sweep --force --data-dir ./skein-data -o json")]
    Sweep(conversation::SweepArgs),
}

/// Arguments of `skein token`.
#[derive(Args)]
#[command(after_help = "Examples:\n  skein token mint alice --data-dir ./skein-data")]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Print an access token of a user, and nothing else
    #[command(after_help = "Examples:\n  \
        skein token mint alice --data-dir ./skein-data\n  \
        SKEIN_TOKEN=$(skein token mint alice --data-dir ./skein-data) skein tail --once")]
    Mint(token::Args),
}

/// Arguments of `skein shard`.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  skein shard list --data-dir ./skein-data\n  skein shard seal --all --data-dir ./skein-data"
)]
pub struct ShardArgs {
    #[command(subcommand)]
    command: ShardCommand,
}

#[derive(Subcommand)]
enum ShardCommand {
    /// List the node's shards
    #[command(after_help = "Examples:\n  skein shard list --data-dir ./skein-data\n  \
        skein shard list --admin-key admin.pem --server 10.0.0.5:7400 -o json")]
    List(shard::ListArgs),
    /// Seal shards: returns when all they held is in durable segments
    #[command(after_help = "Examples:\n  skein shard seal --all --data-dir ./skein-data\n  \
        skein shard seal --shard 0 --shard 3 --admin-key admin.pem -o json")]
    Seal(shard::SealArgs),
}

/// `skein user`.
pub fn run_user(args: UserArgs, globals: &Globals) -> Outcome {
    let mut printer = Printer::new(globals);
    match args.command {
        UserCommand::Import(args) => block_on(import::run(args, globals, &mut printer)),
        UserCommand::Erase(args) => block_on(erase::run(args, globals, &mut printer)),
    }
}

/// `skein conversation`.
pub fn run_conversation(args: ConversationArgs, globals: &Globals) -> Outcome {
    let mut printer = Printer::new(globals);
    match args.command {
        ConversationCommand::Trim(args) => block_on(conversation::trim(args, globals, &mut printer)),
        ConversationCommand::Sweep(args) => block_on(conversation::sweep(args, globals, &mut printer)),
        ConversationCommand::Retain(args) => block_on(conversation::retain(args, globals, &mut printer)),
    }
}

/// `skein token`.
pub fn run_token(args: TokenArgs, globals: &Globals) -> Outcome {
    let mut printer = Printer::new(globals);
    match args.command {
        TokenCommand::Mint(args) => block_on(token::run(args, globals, &mut printer)),
    }
}

/// `skein shard`.
pub fn run_shard(args: ShardArgs, globals: &Globals) -> Outcome {
    let mut printer = Printer::new(globals);
    match args.command {
        ShardCommand::List(args) => block_on(shard::list(args, globals, &mut printer)),
        ShardCommand::Seal(args) => block_on(shard::seal(args, globals, &mut printer)),
    }
}

/// Connects as administrator; also says where to.
pub async fn connect(admin: &AdminArgs, globals: &Globals) -> Result<(Connection, String), Failure> {
    connect_with(admin, globals, connect_options(globals, None)?).await
}

/// The same, with more patience.
pub async fn connect_with(
    admin: &AdminArgs,
    globals: &Globals,
    options: Options,
) -> Result<(Connection, String), Failure> {
    let key = AdminKey::load(&admin.key_file()?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let server = match (&globals.server, &admin.data_dir) {
        (None, Some(dir)) => listening(dir).unwrap_or_else(|| server_of(globals, None)),
        _ => server_of(globals, None),
    };
    let (connection, _) = Connection::connect(&server, options).await?;
    let token = key.token(TimeMs(now.as_millis() as u64));
    connection.hello(Greeting { token, device: "admin".into(), ..Greeting::default() }).await?;
    Ok((connection, server))
}

/// Where the node of a data directory listens, as its lock file says.
fn listening(data_dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(data_dir.join("skein.lock")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("listen"))?;
    let addr = line.trim_start_matches([' ', '=']).trim().trim_matches('"');
    let addr: std::net::SocketAddr = addr.parse().ok()?;
    let ip = match addr.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    Some(std::net::SocketAddr::new(ip, addr.port()).to_string())
}

/// A day, unless told otherwise.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_says_where_the_node_listens() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(listening(dir.path()), None);
        let lock =
            |listen: &str| std::fs::write(dir.path().join("skein.lock"), format!("pid = 5\nlisten = \"{listen}\"\n"));
        lock("127.0.0.1:7411").unwrap();
        assert_eq!(listening(dir.path()).as_deref(), Some("127.0.0.1:7411"));
        lock("0.0.0.0:7411").unwrap();
        assert_eq!(listening(dir.path()).as_deref(), Some("127.0.0.1:7411"));
        lock("[::]:7411").unwrap();
        assert_eq!(listening(dir.path()).as_deref(), Some("[::1]:7411"));
    }
}
