//! What a user does by hand.

use clap::Subcommand;

use crate::exit::Outcome;
use crate::output::Globals;

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Commit something on every shard and say how long it took
    Health,
}

/// Runs one.
pub fn run(command: Command, globals: &Globals) -> Outcome {
    let _ = (command, globals);
    unimplemented!()
}
