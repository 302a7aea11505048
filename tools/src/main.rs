//! `skein`: the server, and everything operators and people do by hand.
//!
//! JSON and tables go to stdout, words to stderr. Exit codes are in [`exit`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

mod admin;
mod backup;
mod bench;
mod config;
mod demo;
mod exit;
mod export;
mod import;
mod jsonl;
mod log;
mod output;
mod profile;
mod replay;
mod server;
mod torture;
mod user;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
Examples:
  skein demo                                      the whole job in one command
  skein server --dev                              a node to try things on
  echo alice-demo | skein login alice --password-stdin
  skein send --to bob 'hello'
  skein history --with bob -o json
  skein health --data-dir ./skein-data

JSON and tables go to stdout, words to stderr. Who asks is --profile, else SKEIN_TOKEN (a token), else SKEIN_PROFILE,
else the profile that signed in last.

Exit codes: 0 done, 1 failed (this machine, this configuration, this data), 2 the command line is not understood,
3 refused by the server, 4 the server cannot be reached, 5 a verification found a difference, 70 a node stopped itself
because a write or sync failed, 130 a second signal ended a draining node.";

/// Skein: an instant-messaging server whose database is a replicated log.
#[derive(Parser)]
#[command(name = "skein", version, propagate_version = true, after_help = HELP)]
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
    /// Break nodes of one's own under load, and check everything that clients were told
    Torture(torture::Args),
    /// Accounts, for administrators
    #[command(name = "user")]
    AdminUser(admin::UserArgs),
    /// What conversations keep, for administrators
    Conversation(admin::ConversationArgs),
    /// Access tokens, for administrators
    Token(admin::TokenArgs),
    /// Shards, for administrators
    Shard(admin::ShardArgs),
    /// The log on disk: list, show, count, find, verify, rebuild while no node runs; compact while one does
    Log(log::Args),
    /// Write everything a running node holds at one moment of all its shards
    Export(export::Args),
    /// Save what a running node holds, list saves, restore one
    Backup(backup::Args),
    /// Make a new node's data directory of an export, or take one into a running cluster
    Import(import::Args),
    #[command(flatten)]
    User(user::Command),
}

fn main() -> std::process::ExitCode {
    // Before anything that could speak TLS: ring is the one provider this program is built with.
    let _ = rustls::crypto::ring::default_provider().install_default();
    raise_file_limit();
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let globals = cli.globals;
    if matches!(cli.command, Command::Server(_) | Command::Config(_) | Command::Demo(_)) && types_tls(&matches) {
        return exit::report(Err(exit::Failure::Usage(
            "--tls and --ca are for commands that connect to a node; a node has its certificate from its configuration: \
             --set tls.cert=FILE --set tls.key=FILE"
                .into(),
        )));
    }
    exit::report(match cli.command {
        Command::Server(args) => server::run(args),
        Command::Config(args) => config::run(args, &globals),
        Command::Demo(args) => demo::run(args, &globals),
        Command::Replay(args) => replay::run(args, &globals),
        Command::Bench(args) => bench::run(args, &globals),
        Command::Torture(args) => torture::run(args, &globals),
        Command::AdminUser(args) => admin::run_user(args, &globals),
        Command::Conversation(args) => admin::run_conversation(args, &globals),
        Command::Token(args) => admin::run_token(args, &globals),
        Command::Shard(args) => admin::run_shard(args, &globals),
        Command::Log(args) => log::run(args, &globals),
        Command::Export(args) => export::run(args, &globals),
        Command::Backup(args) => backup::run(args, &globals),
        Command::Import(args) => import::run(args, &globals),
        Command::User(command) => user::run(command, &globals),
    })
}

/// Whether a client's TLS was asked for on the command line. (Variables may be there for other commands.)
fn types_tls(matches: &clap::ArgMatches) -> bool {
    let typed = |matches: &clap::ArgMatches, id| matches.value_source(id) == Some(ValueSource::CommandLine);
    let levels = std::iter::successors(Some(matches), |matches| matches.subcommand().map(|(_, sub)| sub));
    levels.into_iter().any(|matches| typed(matches, "tls") || typed(matches, "ca"))
}

/// As many open files as the system grants: a connection is one, and the usual soft limit is 1,024.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    // Refused: the old limit holds, and connections beyond it are refused one by one.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
}
