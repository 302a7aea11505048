//! `skein replay`: a chat file as its senders over the client protocol, verified.

use clap::Args as ClapArgs;

use crate::exit::Outcome;
use crate::output::Globals;

/// Arguments.
#[derive(ClapArgs)]
pub struct Args {}

/// Runs it.
pub fn run(args: Args, globals: &Globals) -> Outcome {
    let _ = (args, globals);
    unimplemented!()
}
