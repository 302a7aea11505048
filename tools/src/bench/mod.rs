//! `skein bench`: measurements with the checker on.
//!
//! The generator shares its machine with the server it measures, so what it costs counts: one thread a process,
//! frames read where they lie ([`link`], [`wire`]), one wake-up for whatever is there ([`poll`]).

use clap::{Args as ClapArgs, Subcommand};

use crate::exit::Outcome;
use crate::output::Globals;

pub mod accounts;
mod background;
pub mod child;
mod cpu;
mod floors;
pub mod ids;
pub mod latency;
mod link;
pub mod local;
mod page;
pub mod poll;
mod send;
pub mod wire;
mod zipf;

/// Arguments.
#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  skein bench send --connections 16 --batch 64 --rate max --seconds 5\n  skein bench background --rate 20000 --rounds 5"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Send and receive messages, every one checked for order, loss and duplicates
    Send(send::Args),
    /// What sealing, merging and checkpointing do to the latency of sends
    Background(background::Args),
    /// The receiving half of `bench send`, which starts it
    #[command(hide = true)]
    Receive,
}

/// Runs it.
pub fn run(args: Args, globals: &Globals) -> Outcome {
    match args.what {
        What::Send(args) => send::run(&args, globals),
        What::Background(args) => background::run(&args, globals),
        What::Receive => Ok(send::run_receiver()?),
    }
}
