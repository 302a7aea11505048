//! A journal file: its blocks, their frames, and the commands of the entries in them.

use anyhow::anyhow;
use bytes::Bytes;
use logstore::id::LogIndex;
use logstore::{EntryKind, JournalBlock, JournalFrame};
use sequencer::{Batch, Command};

use super::Part;
use crate::exit::Failure;
use crate::log::fact::{Fact, hex};
use crate::log::offline::Offline;
use crate::log::unsealed::Message;
use crate::output::Printer;
use crate::user::log_time;

/// Prints a file; of its frames those of wanted entries, and the marks.
pub fn show(offline: &Offline, path: &str, part: &Part, printer: &mut Printer) -> Result<(), Failure> {
    let journal = offline.journal()?;
    let file = journal.files().iter().find(|file| file.path == path);
    let file = file.ok_or_else(|| anyhow!("{path} is gone"))?;
    let fact = Fact::new("file", path)
        .with_some("number", file.number)
        .with("bytes", file.bytes)
        .with("role", format!("{:?}", file.role).to_lowercase())
        .with("remains", file.remains);
    printer.row(&fact)?;
    let mut result = Ok(());
    let end = journal.walk(file.number.unwrap_or(0), &mut |block| {
        if result.is_ok() {
            result = show_block(path, &block, part, printer);
        }
    })?;
    result?;
    let Some(end) = end else { return Ok(()) };
    // What that means takes all files.
    printer.row(&Fact::new("end", path).with("offset", end).with("see", "skein log verify"))
}

fn show_block(path: &str, block: &JournalBlock<'_>, part: &Part, printer: &mut Printer) -> Result<(), Failure> {
    let (file, offset) = block.durable_upto();
    let fact = Fact::new("block", path)
        .with("offset", block.offset())
        .with("kind", block.kind())
        .with("bytes", block.bytes())
        .with("frames", block.frame_count())
        .with("durable_upto", format!("{file}:{offset}"));
    printer.row(&fact)?;
    block.frames().filter(|frame| is_wanted(frame, part)).try_for_each(|frame| show_frame(path, &frame, part, printer))
}

fn is_wanted(frame: &JournalFrame<'_>, part: &Part) -> bool {
    frame.entry.is_none() || part.holds(frame.id.map_or(LogIndex(0), |id| id.index).0)
}

fn show_frame(path: &str, frame: &JournalFrame<'_>, part: &Part, printer: &mut Printer) -> Result<(), Failure> {
    let fact = Fact::new("frame", path)
        .with("offset", frame.offset)
        .with("kind", frame.kind)
        .with("shard", frame.shard.0)
        .with_some("index", frame.id.map(|id| id.index.0))
        .with_some("term", frame.id.map(|id| id.term.0))
        .with_some("leader", frame.id.map(|id| id.leader.0))
        .with_some("entry", frame.entry.map(|entry| format!("{entry:?}").to_lowercase()))
        .with("payload_bytes", frame.payload.len())
        .with_some("payload_hex", part.hex.then(|| hex(frame.payload)));
    match frame.entry {
        Some(EntryKind::Normal) => show_batch(path, fact, frame.payload, printer),
        _ => printer.row(&fact),
    }
}

fn show_batch(path: &str, frame: Fact, payload: &[u8], printer: &mut Printer) -> Result<(), Failure> {
    match Batch::decode(&Bytes::copy_from_slice(payload)) {
        Err(bad) => printer.row(&frame.with("malformed", format!("{bad:?}"))),
        Ok(batch) => {
            let fact = frame.with("proposed_at", log_time(batch.time)).with("commands", batch.commands.len());
            printer.row(&fact)?;
            batch.commands.iter().try_for_each(|command| printer.row(&show_command(path, command)))
        }
    }
}

/// A message whole; of other commands, which hold secrets, the name.
fn show_command(path: &str, command: &Command) -> Fact {
    let words = format!("{command:?}");
    let name = words.split([' ', '(', '{']).next().unwrap_or_default();
    let fact = Fact::new("command", path).with("command", name);
    match Message::of(command) {
        Some(message) => message.told(fact, false),
        None => fact,
    }
}
