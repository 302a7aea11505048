//! A segment: header and footer, sections, records, state rows.

use std::sync::Arc;

use logstore::segment::{Item, Segment, TrimmedRange};

use super::{Part, manifest, state};
use crate::exit::Failure;
use crate::log::fact::Fact;
use crate::log::offline::Offline;
use crate::output::Printer;
use crate::user::log_time;

/// Prints a segment; of its records those whose entries are wanted.
pub fn show(offline: &Offline, path: &str, part: &Part, printer: &mut Printer) -> Result<(), Failure> {
    let segment = Arc::new(Segment::open(&offline.disk, path, &offline.cache)?);
    printer.row(&manifest::segment(segment.info()))?;
    for (section, offset, bytes) in segment.sections() {
        let fact = Fact::new("section", path).with("section", section.to_string());
        printer.row(&fact.with("offset", offset).with("bytes", bytes))?;
    }
    for item in segment.items() {
        let item = item?;
        if part.holds(item.index().0) {
            printer.row(&fact(path, &item, part.hex))?;
        }
    }
    for row in segment.delta_rows() {
        let row = row?;
        printer.row(&state::row(path, &row.key, row.value.as_deref(), part.hex))?;
    }
    Ok(())
}

/// A record or a trimmed range.
fn fact(path: &str, item: &Item, hex: bool) -> Fact {
    match item {
        Item::Record(record) => Fact::record(path, record, hex),
        Item::Trimmed(range) => trimmed(path, range),
    }
}

fn trimmed(path: &str, range: &TrimmedRange) -> Fact {
    Fact::new("trimmed", path)
        .with("conversation", range.conversation.to_string())
        .with("first_seq", range.first.0)
        .with("last_seq", range.last.0)
        .with("countable", range.ordinal.0 - range.ordinal_before.0)
        .with("sent_at", log_time(range.time))
        .with("index", range.index.0)
}
