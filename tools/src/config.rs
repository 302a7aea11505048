//! `skein config`: check and print the configuration.

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
