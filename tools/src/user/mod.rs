//! What a user does by hand: one command a file.

use std::future::Future;
use std::time::{Duration, UNIX_EPOCH};

use clap::Subcommand;
use logstore::id::TimeMs;

use crate::exit::{Failure, Outcome};
use crate::output::{Globals, Printer};

mod account;
mod chat;
mod conversations;
mod group;
mod health;
mod history;
mod identity;
mod recall;
mod record;
mod send;
mod stop;
mod tail;
mod target;

pub use identity::{connect_options, server_of};
pub use record::{kind_name, uuid};
pub use target::parse_id;

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Create an account and sign in
    #[command(after_help = "Examples:\n  \
        skein register alice\n  \
        SKEIN_PASSWORD=correct-horse skein register alice\n  \
        echo correct-horse | skein register bob --password-stdin --profile bob --server 127.0.0.1:7400")]
    Register(account::SignIn),
    /// Sign in with a password; the sign-in is saved as a profile
    #[command(after_help = "Examples:\n  \
        skein login alice\n  \
        echo alice-demo | skein login alice --password-stdin --profile work")]
    Login(account::SignIn),
    /// Forget a saved sign-in
    #[command(after_help = "Examples:\n  skein logout\n  skein logout --profile work")]
    Logout,
    /// Say who is signed in
    #[command(after_help = "Examples:\n  skein whoami\n  skein whoami --profile bob -o json")]
    Whoami,
    /// List saved sign-ins, or make one the default
    #[command(after_help = "Examples:\n  skein profiles\n  skein profiles --default bob")]
    Profiles {
        /// Make this one the default
        #[arg(long, value_name = "NAME")]
        default: Option<String>,
    },
    /// Send messages: the words given, or each line of standard input
    Send(send::Args),
    /// Show messages as they come, first those missed since the last time
    Tail(tail::Args),
    /// Show a conversation's records
    History(history::Args),
    /// List conversations, newest first
    Conversations(conversations::Args),
    /// Create groups and change who is in them
    Group {
        #[command(subcommand)]
        command: group::Command,
    },
    /// Take messages back
    Message {
        #[command(subcommand)]
        command: recall::Command,
    },
    /// Talk: lines typed are sent, messages are shown as they come
    Chat(chat::Args),
    /// Commit something durably on every shard and say how long it took
    Health(health::Args),
}

/// Runs one.
pub fn run(command: Command, globals: &Globals) -> Outcome {
    let mut printer = Printer::new(globals);
    block_on(async {
        match command {
            Command::Register(args) => account::register(args, globals, &mut printer).await,
            Command::Login(args) => account::login(args, globals, &mut printer).await,
            Command::Logout => account::logout(globals),
            Command::Whoami => account::whoami(globals, &mut printer).await,
            Command::Profiles { default } => account::profiles(default, &mut printer),
            Command::Send(args) => send::run(args, globals, &mut printer).await,
            Command::Tail(args) => tail::run(args, globals, &mut printer).await,
            Command::History(args) => history::run(args, globals, &mut printer).await,
            Command::Conversations(args) => conversations::run(args, globals, &mut printer).await,
            Command::Group { command } => group::run(command, globals, &mut printer).await,
            Command::Message { command } => recall::run(command, globals, &mut printer).await,
            Command::Chat(args) => chat::run(args, globals, &mut printer).await,
            Command::Health(args) => health::run(args, globals, &mut printer).await,
        }
    })
}

/// Runs a command's work to its end.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    // A thread that waits for a line on standard input cannot be woken, and must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Unix milliseconds as RFC 3339.
fn time(ms: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_millis(ms)) {
        // The formatter knows years up to 9999.
        Some(time) if ms < 253_402_300_800_000 => humantime::format_rfc3339_millis(time).to_string(),
        _ => String::new(),
    }
}

/// The log's time as RFC 3339; empty: none.
pub fn log_time(time: TimeMs) -> String {
    if time.0 == 0 { String::new() } else { self::time(time.0) }
}
