//! Commands that need the admin key.

use clap::Args;

use crate::exit::Outcome;
use crate::output::Globals;

/// Arguments of `skein user`.
#[derive(Args)]
pub struct UserArgs {}
/// Arguments of `skein token`.
#[derive(Args)]
pub struct TokenArgs {}
/// Arguments of `skein shard`.
#[derive(Args)]
pub struct ShardArgs {}

/// `skein user`.
pub fn run_user(args: UserArgs, globals: &Globals) -> Outcome {
    let _ = (args, globals);
    unimplemented!()
}

/// `skein token`.
pub fn run_token(args: TokenArgs, globals: &Globals) -> Outcome {
    let _ = (args, globals);
    unimplemented!()
}

/// `skein shard`.
pub fn run_shard(args: ShardArgs, globals: &Globals) -> Outcome {
    let _ = (args, globals);
    unimplemented!()
}
