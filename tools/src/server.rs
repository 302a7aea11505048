//! `skein server`: run a node.

use clap::Args as ClapArgs;

use crate::exit::Outcome;

/// Arguments.
#[derive(ClapArgs)]
pub struct Args {}

/// Runs it.
pub fn run(args: Args) -> Outcome {
    let _ = args;
    unimplemented!()
}
