//! The fields of the steps of an import. Drawn in `docs/format.md`.

use bytes::Bytes;
use logstore::RecordKind;
use logstore::id::{BodyHash, ClientMsgId, ConversationId, Ordinal, SeqId, ServerMsgId, TimeMs, UserId};

use super::field::{Fields, Sink};
use super::state_row::StateRow;
use super::{COMMAND_HEAD_LEN, CommandHead, Malformed};
use crate::{Import, ImportId, ImportedRecord};

pub(super) const IDS: u8 = 30;
const ACCOUNT: u8 = 31;
const NAME: u8 = 32;
const RELATION: u8 = 33;
const BEGIN: u8 = 34;
const MEMBERS: u8 = 35;
const RECORD: u8 = 36;
const END: u8 = 37;
pub(super) const GIVE_UP: u8 = 38;

/// Bytes of an imported record before its body, its command head included.
pub(crate) const IMPORTED_HEAD_LEN: usize = COMMAND_HEAD_LEN + 98;
/// A member takes at least an id and the length of a row.
const MEMBER_LEN_MIN: usize = 12;

/// The byte that says which step it is.
pub(super) fn kind_of(step: &Import) -> u8 {
    match step {
        Import::Ids { .. } => IDS,
        Import::Account { .. } => ACCOUNT,
        Import::Name { .. } => NAME,
        Import::Relation { .. } => RELATION,
        Import::Begin { .. } => BEGIN,
        Import::Members { .. } => MEMBERS,
        Import::Record(_) => RECORD,
        Import::End { .. } => END,
        Import::GiveUp { .. } => GIVE_UP,
    }
}

/// Writes a step's fields.
pub(super) fn put<S: Sink>(out: &mut S, step: &Import) {
    match step {
        Import::Ids { last_record, last_user } => {
            out.u64(last_record.0);
            out.u64(last_user.0);
        }
        Import::Account { user, row } => {
            out.u64(user.0);
            put_row(out, row);
        }
        Import::Name { name, row } => {
            out.text(name);
            put_row(out, row);
        }
        Import::Relation { user, peer, row } => {
            out.u64(user.0);
            out.u64(peer.0);
            put_row(out, row);
        }
        Import::Begin { conversation, import, row } => {
            put_place(out, *conversation, *import);
            put_row(out, row);
        }
        Import::Members { conversation, import, members } => {
            put_place(out, *conversation, *import);
            out.list(members, |out, (user, row)| {
                out.u64(user.0);
                put_row(out, row);
            });
        }
        Import::Record(record) => put_record(out, record),
        Import::End { conversation, import, last_seq, last_ordinal, last_time, members } => {
            put_place(out, *conversation, *import);
            out.u64(last_seq.0);
            out.u64(last_ordinal.0);
            out.u64(last_time.0);
            out.u32(*members);
        }
        Import::GiveUp { conversation, import } => put_place(out, *conversation, *import),
    }
}

/// Reads the fields of a step of this kind.
pub(super) fn read(kind: u8, f: &mut Fields<'_>) -> Result<Import, Malformed> {
    Ok(match kind {
        IDS => Import::Ids { last_record: ServerMsgId(f.u64()?), last_user: UserId(f.u64()?) },
        ACCOUNT => Import::Account { user: UserId(f.u64()?), row: read_row(f)? },
        NAME => Import::Name { name: f.text()?, row: read_row(f)? },
        RELATION => Import::Relation { user: UserId(f.u64()?), peer: UserId(f.u64()?), row: read_row(f)? },
        BEGIN => {
            let (conversation, import) = read_place(f)?;
            Import::Begin { conversation, import, row: read_row(f)? }
        }
        MEMBERS => {
            let (conversation, import) = read_place(f)?;
            let members = f.list(MEMBER_LEN_MIN, |f| Ok((UserId(f.u64()?), read_row(f)?)))?;
            Import::Members { conversation, import, members }
        }
        RECORD => Import::Record(read_record(f)?),
        END => {
            let (conversation, import) = read_place(f)?;
            Import::End {
                conversation,
                import,
                last_seq: SeqId(f.u64()?),
                last_ordinal: Ordinal(f.u64()?),
                last_time: TimeMs(f.u64()?),
                members: f.u32()?,
            }
        }
        GIVE_UP => {
            let (conversation, import) = read_place(f)?;
            Import::GiveUp { conversation, import }
        }
        _ => return f.fail("a step of an import that this version knows"),
    })
}

fn put_place<S: Sink>(out: &mut S, conversation: ConversationId, import: ImportId) {
    out.u128(conversation.0);
    out.u128(import.0);
}

fn read_place(f: &mut Fields<'_>) -> Result<(ConversationId, ImportId), Malformed> {
    Ok((ConversationId(f.u128()?), ImportId(f.u128()?)))
}

/// A row as it is sealed, with its length.
fn put_row<S: Sink>(out: &mut S, row: &impl StateRow) {
    let bytes = row.encode();
    out.count(bytes.len());
    out.put(&bytes);
}

fn read_row<R: StateRow>(f: &mut Fields<'_>) -> Result<R, Malformed> {
    let len = f.u32()? as usize;
    let begin = f.at();
    let bytes = f.take(len, "as many bytes as the row's length says")?;
    R::read_value(bytes).map_err(|bad| Malformed { offset: begin + bad.offset, what: bad.what })
}

/// ```text
/// 0              16          32    40        48       56              64              80          88     96     97     98
/// +--------------+-----------+-----+---------+--------+---------------+---------------+-----------+------+------+------+-----
/// | conversation | import    | seq | ordinal | sender | server_msg_id | client_msg_id | body hash | time | kind | kept | body
/// | u128         | u128      | u64 | u64     | u64    | u64           | u128          | u64       | u64  | u8   | u8   |
/// +--------------+-----------+-----+---------+--------+---------------+---------------+-----------+------+------+------+-----
/// ```
fn put_record<S: Sink>(out: &mut S, record: &ImportedRecord) {
    put_place(out, record.conversation, record.import);
    out.u64(record.seq.0);
    out.u64(record.ordinal.0);
    out.u64(record.sender.0);
    out.u64(record.server_msg_id.0);
    out.u128(record.client_msg_id.0);
    out.u64(record.body_hash.0);
    out.u64(record.time.0);
    out.u8(record.kind.0);
    out.bool(record.body.is_some());
    out.put(record.body.as_deref().unwrap_or_default());
}

fn read_record(f: &mut Fields<'_>) -> Result<ImportedRecord, Malformed> {
    let (conversation, import) = read_place(f)?;
    let record = ImportedRecord {
        conversation,
        import,
        seq: SeqId(f.u64()?),
        ordinal: Ordinal(f.u64()?),
        sender: UserId(f.u64()?),
        server_msg_id: ServerMsgId(f.u64()?),
        client_msg_id: ClientMsgId(f.u128()?),
        body_hash: BodyHash(f.u64()?),
        time: TimeMs(f.u64()?),
        kind: RecordKind(f.u8()?),
        body: None,
    };
    let body = f.bool()?.then(|| Bytes::copy_from_slice(f.rest()));
    Ok(ImportedRecord { body, ..record })
}

/// The imported record whose command is at `offset` of an entry's payload; `None` if another command is.
pub(crate) fn imported_at(payload: &Bytes, offset: u32) -> Result<Option<ImportedRecord>, Malformed> {
    let (head, end) = CommandHead::read(payload, offset as usize)?;
    if head.kind != RECORD {
        return Ok(None);
    }
    let mut fields = Fields::new(&payload[..end], head.offset + COMMAND_HEAD_LEN);
    let record = read_record(&mut fields)?;
    fields.finish()?;
    let begin = head.offset + IMPORTED_HEAD_LEN;
    let body = record.body.is_some().then(|| payload.slice(begin..end));
    Ok(Some(ImportedRecord { body, ..record }))
}
