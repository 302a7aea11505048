//! `skein bench`: measurements with the checker on.

use clap::Args as ClapArgs;

use crate::exit::Outcome;
use crate::output::Globals;

pub mod accounts;
pub mod ids;
pub mod latency;
pub mod poll;
pub mod wire;

/// Arguments.
#[derive(ClapArgs)]
pub struct Args {}

/// Runs it.
pub fn run(args: Args, globals: &Globals) -> Outcome {
    let _ = (args, globals);
    unimplemented!()
}
