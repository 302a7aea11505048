//! `skein log`: the log on disk, looked at while no node runs in its data directory; but for `compact`, which asks the node that runs.
//!
//! What always holds: but for `rebuild`, which makes a cache anew, nothing in the directory is changed; memory is bounded by
//! blocks and rows of directories, whatever the size of the log (`verify --deep` holds a shard's state, as a node does).

use clap::{Args as ClapArgs, Subcommand};

use crate::exit::Outcome;
use crate::output::{Globals, Printer};
use crate::user::block_on;

mod compact;
mod conversations;
mod fact;
mod find;
mod ls;
mod offline;
mod progress;
mod rebuild;
mod show;
mod stats;
mod unsealed;
mod verify;

pub use progress::Progress;

/// Arguments.
#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  skein log ls --data-dir ./skein-data\n  skein log verify --deep --data-dir ./skein-data\n\n\
        The data directory must not be held by a running node; nothing in it is changed but by rebuild.\n\
        compact asks the running node."
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the files: segments with what they hold, journal files with the entries in them
    #[command(after_help = "Examples:\n  skein log ls --data-dir ./skein-data\n  \
        skein log ls --data-dir ./skein-data -o json | jq 'select(.level == 0)'")]
    Ls(ls::Args),
    /// Show what is in a file, or what is stored of a conversation
    #[command(after_help = "Examples:\n  skein log show journal/0000000001.journal --data-dir ./skein-data\n  \
        skein log show segments/00000/MANIFEST --data-dir ./skein-data\n  \
        skein log show --with alice bob --from 10 --to 20 --data-dir ./skein-data\n  \
        skein log show 80000000000000000000000000000007 --hex --data-dir ./skein-data -o json")]
    Show(show::Args),
    /// Figures of each shard, and the conversations with most records
    #[command(after_help = "Examples:\n  skein log stats --data-dir ./skein-data\n  \
        skein log stats --top 100 --data-dir ./skein-data -o json")]
    Stats(stats::Args),
    /// Find messages by an id or by their sender
    #[command(after_help = "Examples:\n  \
        skein log find --client-msg-id 0192f0c1-2b3c-7d4e-8f90-a1b2c3d4e5f6 --data-dir ./skein-data\n  \
        skein log find --server-msg-id 251003452190720 --data-dir ./skein-data -o json\n  \
        skein log find --sender alice --limit 20 --data-dir ./skein-data")]
    Find(find::Args),
    /// Verify every file: what is torn is fine, what is rot is named with file and offset, and the exit code is 5
    #[command(after_help = "Examples:\n  skein log verify --data-dir ./skein-data\n  \
        skein log verify --deep --data-dir ./skein-data -o json || echo 'restore from a copy'")]
    Verify(verify::Args),
    /// Have the running node drop what was trimmed, recalled or erased, and merge what is due
    #[command(after_help = "Examples:\n  skein log compact --dry-run --data-dir ./skein-data\n  \
        skein log compact --data-dir ./skein-data --timeout 10m -o json\n\n\
        Merges are asked for in the log: this needs the running node, and the admin key.\n\
        Shards are sealed first, but for a dry run: it knows of what was taken back before the last seal.")]
    Compact(compact::Args),
    /// Discard the state stores and make them anew from the segments
    #[command(after_help = "Examples:\n  skein log rebuild --data-dir ./skein-data\n  \
        skein log rebuild --data-dir ./skein-data -o json")]
    Rebuild(rebuild::Args),
}

/// `skein log`.
pub fn run(args: Args, globals: &Globals) -> Outcome {
    let mut printer = Printer::new(globals);
    match args.command {
        Command::Ls(args) => ls::run(args, &mut printer),
        Command::Show(args) => show::run(args, &mut printer),
        Command::Stats(args) => stats::run(args, &mut printer),
        Command::Find(args) => find::run(args, &mut printer),
        Command::Verify(args) => verify::run(args, &mut printer),
        Command::Rebuild(args) => rebuild::run(args, &mut printer),
        Command::Compact(args) => block_on(compact::run(args, globals, &mut printer)),
    }
}
