//! `skein log show`: what is in a file, or what is stored of a conversation.

use anyhow::anyhow;
use clap::Args as ClapArgs;
use logstore::id::ConversationId;

use super::offline::{DataArgs, Offline, user_named};
use crate::exit::Failure;
use crate::output::Printer;
use crate::user::parse_id;

mod conversation;
mod journal;
mod manifest;
mod segment;
mod state;

/// Arguments of `show`.
#[derive(ClapArgs)]
pub struct Args {
    /// A file as `skein log ls` lists it, or a conversation's id (32 hexadecimal digits)
    #[arg(value_name = "FILE|CONVERSATION", required_unless_present = "with", conflicts_with = "with")]
    what: Option<String>,
    /// The 1:1 of these two accounts
    #[arg(long, num_args = 2, value_names = ["NAME", "NAME"])]
    with: Vec<String>,
    /// From this seq_id of a conversation, or log index of a file, on
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// Up to and including this one
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    to: u64,
    /// Print the bytes of bodies, keys and values too; those of accounts hold password hashes
    #[arg(long)]
    hex: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Which part, and how.
struct Part {
    from: u64,
    to: u64,
    hex: bool,
}

/// Prints what is there.
pub fn run(args: Args, printer: &mut Printer) -> Result<(), Failure> {
    let offline = Offline::open(&args.data)?;
    let part = Part { from: args.from, to: args.to, hex: args.hex };
    match (&args.what, &args.with[..]) {
        (Some(what), _) => match parse_id(what) {
            Some(id) => conversation::show(&offline, id, &part, printer)?,
            None => file(&offline, what, &part, printer)?,
        },
        (None, [one, other]) => {
            let sealed = offline.all_sealed()?;
            let id = ConversationId::direct(user_named(&sealed, one)?, user_named(&sealed, other)?);
            drop(sealed);
            conversation::show(&offline, id, &part, printer)?;
        }
        (None, _) => {
            return Err(Failure::Usage("name a file, a conversation, or two accounts: --with NAME NAME".into()));
        }
    }
    printer.flush()
}

fn file(offline: &Offline, typed: &str, part: &Part, printer: &mut Printer) -> Result<(), Failure> {
    let nothing =
        || anyhow!("{typed} is neither a file of the data directory nor a conversation; `skein log ls` lists them");
    let path = offline.file(typed).ok_or_else(nothing)?;
    match path.rsplit(['/', '.']).next() {
        Some("MANIFEST") => manifest::show(offline, &path, printer),
        Some("segment") => segment::show(offline, &path, part, printer),
        Some("journal") => journal::show(offline, &path, part, printer),
        _ => Err(anyhow!("{path} is no file of the log; `skein log ls` lists them").into()),
    }
}

impl Part {
    fn holds(&self, number: u64) -> bool {
        (self.from..=self.to).contains(&number)
    }
}
