//! The values of a conversation's row: its head, what only a 1:1 or a group has, what was removed, where an import of it is.
//!
//! What always holds: a row that says no more than an older version had a place for is written in that version.

use std::sync::Arc;

use bytes::BytesMut;
use logstore::id::{BodyHash, ClientMsgId, LogIndex, Ordinal, SeqId, TimeMs, UserId};

use super::Malformed;
use super::command::{put_retention, read_retention};
use super::field::{Fields, Sink};
use super::state_row::StateRow;
use crate::ImportId;
use crate::state::{ConversationRow, DirectRow, Floor, GroupRow, Importing, Recalled, Upkeep};

impl StateRow for ConversationRow {
    fn put(&self, out: &mut BytesMut) {
        out.u64(self.last_seq.0);
        out.u64(self.last_ordinal.0);
        out.u64(self.last_index.0);
        out.u64(self.last_time.0);
        out.option(self.direct.as_ref(), put_direct);
        out.option(self.group.as_deref(), |out, group| group.put(out));
    }

    fn read(f: &mut Fields<'_>) -> Result<ConversationRow, Malformed> {
        Ok(ConversationRow {
            last_seq: SeqId(f.counter()?),
            last_ordinal: Ordinal(f.counter()?),
            last_index: LogIndex(f.u64()?),
            last_time: TimeMs(f.u64()?),
            direct: f.option(read_direct)?,
            group: f.option(GroupRow::read)?.map(Box::new),
            upkeep: None,
        })
    }

    fn has_more(&self) -> bool {
        self.upkeep.is_some()
    }

    fn put_more(&self, out: &mut BytesMut) {
        if let Some(upkeep) = &self.upkeep {
            put_upkeep(out, upkeep);
        }
    }

    fn read_more(&mut self, f: &mut Fields<'_>) -> Result<(), Malformed> {
        self.upkeep = Some(Arc::new(read_upkeep(f)?));
        Ok(())
    }

    fn has_import(&self) -> bool {
        self.import().is_some()
    }

    fn put_import(&self, out: &mut BytesMut) {
        if let Some(Importing { import, at, is_over, before }) = self.import() {
            out.u128(import.0);
            out.u64(at.0);
            out.bool(is_over);
            out.option(before.as_ref(), put_direct);
        }
    }

    fn read_import(&mut self, f: &mut Fields<'_>) -> Result<(), Malformed> {
        let (import, at, is_over) = (ImportId(f.u128()?), LogIndex(f.u64()?), f.bool()?);
        let import = Importing { import, at, is_over, before: f.option(read_direct)? };
        Arc::make_mut(self.upkeep.get_or_insert_default()).import = Some(import);
        Ok(())
    }
}

fn put_upkeep(out: &mut BytesMut, upkeep: &Upkeep) {
    let Floor { before, ordinal, time, trimmed_at } = upkeep.floor;
    [before.0, ordinal.0, time.0, trimmed_at.0].into_iter().for_each(|number| out.u64(number));
    out.option(upkeep.retention.as_ref(), put_retention);
    out.list(&upkeep.recalled, |out, each| {
        out.u64(each.seq.0);
        out.u64(each.ordinal.0);
        out.u64(each.sender.0);
        out.u64(each.recalled_at.0);
    });
}

fn read_upkeep(f: &mut Fields<'_>) -> Result<Upkeep, Malformed> {
    let floor = Floor {
        before: SeqId(f.counter()?),
        ordinal: Ordinal(f.counter()?),
        time: TimeMs(f.u64()?),
        trimmed_at: LogIndex(f.u64()?),
    };
    let retention = f.option(read_retention)?;
    let recalled = f.list(32, read_recalled)?;
    let ascends = recalled.windows(2).all(|pair| pair[0].seq < pair[1].seq && pair[0].ordinal < pair[1].ordinal);
    let above = recalled.first().is_none_or(|first| first.seq >= floor.before);
    if !ascends || !above || recalled.len() > Upkeep::RECALLED_MAX {
        return f.fail("recalled messages that ascend from the floor");
    }
    Ok(Upkeep { floor, recalled, retention, import: None })
}

fn read_recalled(f: &mut Fields<'_>) -> Result<Recalled, Malformed> {
    Ok(Recalled {
        seq: SeqId(f.u64()?),
        ordinal: Ordinal(f.u64()?),
        sender: UserId(f.u64()?),
        recalled_at: LogIndex(f.u64()?),
    })
}

fn put_direct(out: &mut impl Sink, direct: &DirectRow) {
    out.put(&[direct.heard, direct.exists, direct.low, direct.high]);
}

fn read_direct(f: &mut Fields<'_>) -> Result<DirectRow, Malformed> {
    let [heard, exists, low, high] = f.array("the bits of a 1:1")?;
    if [heard, exists, low, high].iter().any(|bits| *bits > 3) {
        return f.fail("bits of two homes");
    }
    Ok(DirectRow { heard, exists, low, high })
}

impl StateRow for GroupRow {
    fn put(&self, out: &mut BytesMut) {
        out.u64(self.owner.0);
        out.u64(self.creator.0);
        out.u128(self.request.0);
        out.u64(self.asked.0);
        out.u32(self.member_count);
        out.u64(self.created.0);
        out.text(&self.name);
    }

    fn read(f: &mut Fields<'_>) -> Result<GroupRow, Malformed> {
        Ok(GroupRow {
            owner: UserId(f.u64()?),
            creator: UserId(f.u64()?),
            request: ClientMsgId(f.u128()?),
            asked: BodyHash(f.u64()?),
            member_count: f.u32()?,
            created: TimeMs(f.u64()?),
            name: f.text()?,
        })
    }
}
