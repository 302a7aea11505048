//! `skein log find`: messages by an id or by their sender, wherever they are: in segments or in the journal.
//!
//! What always holds: everything is read once, from end to end; what is found is printed as it is found.

use clap::Args as ClapArgs;
use logstore::SegmentSet;
use logstore::id::{ClientMsgId, ServerMsgId, UserId};
use logstore::segment::{Item, SealedRecord};
use uuid::Uuid;

use super::fact::Fact;
use super::offline::{DataArgs, Offline, user_named};
use super::progress::Progress;
use super::unsealed::{self, Message};
use crate::exit::Failure;
use crate::output::Printer;

/// Arguments of `find`.
#[derive(ClapArgs)]
pub struct Args {
    #[command(flatten)]
    wanted: WantedArgs,
    /// Print no more than this
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: u64,
    /// Print the bytes of bodies too
    #[arg(long)]
    hex: bool,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(ClapArgs)]
#[group(required = true, multiple = false)]
struct WantedArgs {
    /// The id its sender gave it, a UUID
    #[arg(long, value_name = "UUID")]
    client_msg_id: Option<Uuid>,
    /// The id the server gave it; it has one once it is applied, and only segments and imports tell
    #[arg(long, value_name = "NUMBER")]
    server_msg_id: Option<u64>,
    /// Who sent it: a name, or a number
    #[arg(long, value_name = "USER")]
    sender: Option<String>,
}

enum Wanted {
    Client(ClientMsgId),
    Server(ServerMsgId),
    Sender(UserId),
}

/// Prints what is found; failure if nothing is.
pub fn run(args: Args, printer: &mut Printer) -> Result<(), Failure> {
    let offline = Offline::open(&args.data)?;
    let sealed = offline.all_sealed()?;
    let wanted = Wanted::of(args.wanted, &sealed)?;
    let mut found = Found { printer, left: args.limit, more: false };
    in_segments(&sealed, &wanted, args.hex, &mut found)?;
    unsealed::visit(&offline, &sealed, |unsealed| {
        if wanted.is_message(unsealed.message) { found.show(|| unsealed.fact(args.hex)) } else { Ok(()) }
    })?;
    found.printer.flush()?;
    if found.more {
        eprintln!("skein: there is more than {}; see --limit", args.limit);
    }
    if found.left == args.limit && !found.more {
        return Err(Failure::Failed(anyhow::anyhow!("nothing is found, neither in segments nor in the journal")));
    }
    Ok(())
}

fn in_segments(sealed: &[SegmentSet], wanted: &Wanted, hex: bool, found: &mut Found<'_>) -> Result<(), Failure> {
    let segments = || sealed.iter().flat_map(SegmentSet::segments);
    let progress = Progress::begin("records", segments().map(|segment| segment.info().counts.records).sum());
    for segment in segments() {
        for item in segment.items() {
            progress.add(1);
            if let Item::Record(record) = item?
                && wanted.is_record(&record)
            {
                found.show(|| Fact::record(segment.path(), &record, hex))?;
            }
        }
    }
    Ok(())
}

struct Found<'a> {
    printer: &'a mut Printer,
    left: u64,
    more: bool,
}

impl Found<'_> {
    fn show(&mut self, fact: impl FnOnce() -> Fact) -> Result<(), Failure> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.printer.row(&fact())
            }
            None => {
                self.more = true;
                Ok(())
            }
        }
    }
}

impl Wanted {
    fn of(args: WantedArgs, sealed: &[SegmentSet]) -> Result<Wanted, Failure> {
        match (args.client_msg_id, args.server_msg_id, args.sender) {
            (Some(id), ..) => Ok(Wanted::Client(ClientMsgId(id.as_u128()))),
            (_, Some(id), _) => Ok(Wanted::Server(ServerMsgId(id))),
            (.., Some(sender)) => match sender.parse() {
                Ok(number) => Ok(Wanted::Sender(UserId(number))),
                Err(_) => user_named(sealed, &sender).map(Wanted::Sender),
            },
            _ => Err(Failure::Usage("say what to find: --client-msg-id, --server-msg-id or --sender".into())),
        }
    }

    fn is_record(&self, record: &SealedRecord) -> bool {
        match self {
            Wanted::Client(id) => record.client_msg_id == *id,
            Wanted::Server(id) => record.server_msg_id == *id,
            Wanted::Sender(user) => record.sender == *user,
        }
    }

    fn is_message(&self, message: Message<'_>) -> bool {
        match self {
            Wanted::Client(id) => message.client_msg_id() == *id,
            Wanted::Server(id) => message.server_msg_id() == Some(*id),
            Wanted::Sender(user) => message.sender() == *user,
        }
    }
}
