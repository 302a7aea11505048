//! Writing the heads table of a merge: the table before it, overlaid with the conversations of this segment.
//!
//! What always holds: rows are sorted and one a conversation; a row of this segment replaces an older one.

use std::iter::Peekable;

use super::directory::HeadRow;
use super::footer::Placed;
use super::format::key;
use super::output::Output;
use super::table::TableWriter;
use crate::Result;

/// The rows of the newest heads table before a segment, in their order.
pub type CarriedHeads<'a> = Box<dyn Iterator<Item = Result<HeadRow>> + 'a>;

pub(super) struct HeadsSection<'a> {
    carried: Peekable<CarriedHeads<'a>>,
    table: TableWriter,
}

impl<'a> HeadsSection<'a> {
    pub(super) fn new(carried: CarriedHeads<'a>, table: TableWriter) -> HeadsSection<'a> {
        HeadsSection { carried: carried.peekable(), table }
    }

    /// Adds the head of a conversation of this segment, after those carried over that sort before it.
    pub(super) fn push(&mut self, row: &HeadRow) -> Result<()> {
        while let Some(older) = self.next_carried(Some(row))? {
            if older.conversation != row.conversation {
                self.write(&older)?;
            }
        }
        self.write(row)
    }

    /// Adds what is left to carry over, and the table to the file; states how many rows it has.
    pub(super) fn finish(mut self, out: &mut Output<'_>) -> Result<([Placed; 2], u64)> {
        while let Some(older) = self.next_carried(None)? {
            self.write(&older)?;
        }
        let rows = self.table.rows.count;
        Ok(([self.table.rows.finish(out)?, self.table.restarts.finish(out)?], rows))
    }

    /// The next row carried over that is not behind `upto`.
    fn next_carried(&mut self, upto: Option<&HeadRow>) -> Result<Option<HeadRow>> {
        let upto = upto.map(|row| key(row.conversation));
        let is_next = |row: &Result<HeadRow>| match (row, upto) {
            (Ok(row), Some(upto)) => key(row.conversation) <= upto,
            _ => true,
        };
        self.carried.next_if(is_next).transpose()
    }

    fn write(&mut self, row: &HeadRow) -> Result<()> {
        self.table.push(row.conversation, |out| row.encode(out))
    }
}
