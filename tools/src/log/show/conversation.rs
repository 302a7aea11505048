//! A conversation: its state rows as sealed, its records in segments, and what the journal has for it.
//!
//! What always holds: records come in the order of seq, a page at a time.

use logstore::SegmentSet;
use logstore::id::{ConversationId, ConversationName, SegmentOrdinal, SeqId};
use logstore::segment::{PageEnd, PageRequest, shard_dir};
use sequencer::state::Key;

use super::{Part, state};
use crate::exit::Failure;
use crate::log::fact::Fact;
use crate::log::offline::Offline;
use crate::log::unsealed;
use crate::output::Printer;

/// Read at once.
const PAGE_RECORDS: u64 = 1000;
const PAGE_BYTES: usize = 4 << 20;

/// Prints a conversation.
pub fn show(offline: &Offline, id: ConversationId, part: &Part, printer: &mut Printer) -> Result<(), Failure> {
    let sealed = offline.all_sealed()?;
    let mut found = false;
    for set in &sealed {
        found |= show_rows(set, id, part, printer)?;
        found |= show_records(set, id, part, printer)?;
    }
    unsealed::visit(offline, &sealed, |message| {
        if message.message.conversation() != id {
            return Ok(());
        }
        found = true;
        printer.row(&message.fact(part.hex))
    })?;
    if found { Ok(()) } else { Err(anyhow::anyhow!("there is nothing of conversation {id}").into()) }
}

/// Its own row, and those of its members if it is a 1:1.
fn show_rows(set: &SegmentSet, id: ConversationId, part: &Part, printer: &mut Printer) -> Result<bool, Failure> {
    let mut keys = vec![Key::Conversation(id)];
    if let Some(ConversationName::Direct(low, high)) = id.name() {
        keys.extend([Key::Member(id, low), Key::Member(id, high)]);
    }
    let mut found = false;
    for key in keys {
        let key = key.encode();
        if let Some(value) = set.delta_get(&key, SegmentOrdinal(0))? {
            found = true;
            printer.row(&state::row("segments", &key, value.as_deref(), part.hex))?;
        }
    }
    Ok(found)
}

/// Seqs that are missing have been trimmed.
fn show_records(set: &SegmentSet, id: ConversationId, part: &Part, printer: &mut Printer) -> Result<bool, Failure> {
    let (dir, mut first, mut found) = (shard_dir(set.manifest().shard()), SeqId(part.from.max(1)), false);
    loop {
        let request = PageRequest {
            conversation: id,
            first,
            last: SeqId(part.to),
            from: PageEnd::Oldest,
            records_max: PAGE_RECORDS,
            bytes_max: PAGE_BYTES,
        };
        let page = set.page(&request)?;
        let Some((_, last)) = page.complete else { return Ok(found) };
        found = true;
        page.records.iter().try_for_each(|record| printer.row(&Fact::record(&dir, record, part.hex)))?;
        if last.0 >= part.to {
            return Ok(found);
        }
        first = last.next();
    }
}
