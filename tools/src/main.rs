//! `skein`: the server, and everything operators and people do by hand.
//!
//! JSON and tables go to stdout, words to stderr. Exit codes are in [`exit`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

use clap::{Parser, Subcommand};

mod admin;
mod bench;
mod config;
mod demo;
mod exit;
mod output;
mod profile;
mod replay;
mod server;
mod user;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Skein: an instant-messaging server whose database is a replicated log.
#[derive(Parser)]
#[command(name = "skein", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    globals: output::Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node
    Server(server::Args),
    /// Check or print the configuration
    Config(config::Args),
    /// Start a dev node, replay a sample of real chat, verify it, and leave the node running
    Demo(demo::Args),
    /// Replay a chat file as its senders over the client protocol, and verify what is stored
    Replay(replay::Args),
    /// Measure
    Bench(bench::Args),
    /// Accounts, for administrators
    #[command(name = "user")]
    AdminUser(admin::UserArgs),
    /// Access tokens, for administrators
    Token(admin::TokenArgs),
    /// Shards, for administrators
    Shard(admin::ShardArgs),
    #[command(flatten)]
    User(user::Command),
}

fn main() -> std::process::ExitCode {
    // Before anything that could speak TLS: ring is the one provider this program is built with.
    let _ = rustls::crypto::ring::default_provider().install_default();
    raise_file_limit();
    let cli = Cli::parse();
    let globals = cli.globals;
    exit::report(match cli.command {
        Command::Server(args) => server::run(args),
        Command::Config(args) => config::run(args, &globals),
        Command::Demo(args) => demo::run(args, &globals),
        Command::Replay(args) => replay::run(args, &globals),
        Command::Bench(args) => bench::run(args, &globals),
        Command::AdminUser(args) => admin::run_user(args, &globals),
        Command::Token(args) => admin::run_token(args, &globals),
        Command::Shard(args) => admin::run_shard(args, &globals),
        Command::User(command) => user::run(command, &globals),
    })
}

/// As many open files as the system grants: a connection is one, and the usual soft limit is 1,024.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    // Refused: the old limit holds, and connections beyond it are refused one by one.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
}
