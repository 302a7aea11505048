//! The fields of every command but `Send`, and of the effects between shards. Drawn in `docs/format.md`.

use bytes::Bytes;
use logstore::id::{
    Bucket, ClientMsgId, ConversationId, HistoryId, LogIndex, Ordinal, SegmentOrdinal, SeqId, ShardId, TimeMs, UserId,
};
use logstore::segment::Level;

use super::field::{Fields, Sink};
use super::{COMMAND_HEAD_LEN, CommandHead, Malformed, import};
use crate::state::RecallBody;
use crate::{AccountSeed, Command, CursorMove, Effect, GroupChange, Recall, Retention};

pub(super) const SEND: u8 = 1;
const INIT: u8 = 2;
const CLAIM_NAME: u8 = 3;
const OPEN_SESSION: u8 = 4;
const ROTATE_SESSION: u8 = 5;
const OPEN_DIRECT: u8 = 6;
const GROUP_CREATE: u8 = 7;
const GROUP_CHANGE: u8 = 8;
const MOVE_CURSORS: u8 = 9;
const EFFECTS: u8 = 10;
const ACK_EFFECTS: u8 = 11;
const SEAL: u8 = 12;
const PROBE: u8 = 13;
const MERGE: u8 = 14;
const BEGIN_HISTORY: u8 = 15;
const TRIM: u8 = 20;
const RECALL: u8 = 21;
const ERASE: u8 = 22;
const ERASED: u8 = 23;
const RETAIN: u8 = 24;
/// A `Merge` that drops.
const DROP: u8 = 25;

const CREATE_ACCOUNT: u8 = 1;
const CONFIRM_NAME: u8 = 2;
const OPEN_PEER: u8 = 3;
const GRANT_DIRECT: u8 = 4;
const PEER_ANSWERED: u8 = 5;

/// The byte that says which command it is.
pub(super) fn kind_of(command: &Command) -> u8 {
    match command {
        Command::Send(_) => SEND,
        Command::Init { .. } => INIT,
        Command::BeginHistory { .. } => BEGIN_HISTORY,
        Command::ClaimName { .. } => CLAIM_NAME,
        Command::OpenSession { .. } => OPEN_SESSION,
        Command::RotateSession { .. } => ROTATE_SESSION,
        Command::OpenDirect { .. } => OPEN_DIRECT,
        Command::GroupCreate { .. } => GROUP_CREATE,
        Command::GroupChange(_) => GROUP_CHANGE,
        Command::MoveCursors(_) => MOVE_CURSORS,
        Command::Effects { .. } => EFFECTS,
        Command::AckEffects { .. } => ACK_EFFECTS,
        Command::Seal => SEAL,
        Command::Probe => PROBE,
        Command::Merge { drops: SegmentOrdinal(0), .. } => MERGE,
        Command::Merge { .. } => DROP,
        Command::Trim { .. } => TRIM,
        Command::Recall(_) => RECALL,
        Command::Erase { .. } => ERASE,
        Command::Erased { .. } => ERASED,
        Command::Retain { .. } => RETAIN,
        Command::Import(step) => import::kind_of(step),
    }
}

/// Writes a command's fields; a `Send` has its own way.
pub(super) fn put_fields(out: &mut impl Sink, command: &Command) {
    match command {
        Command::Send(_) => unreachable!("sends are written in one piece"),
        Command::Init { history, incarnation, table_epoch, table } => {
            out.u128(history.0);
            out.u64(*incarnation);
            out.u64(*table_epoch);
            out.list(table, |out, (from, to, shard)| {
                out.u16(from.0);
                out.u16(to.0);
                out.u16(shard.0);
            });
        }
        Command::BeginHistory { history, incarnation } => {
            out.u128(history.0);
            out.u64(*incarnation);
        }
        Command::ClaimName { name, seed, request } => {
            out.u128(request.0);
            out.text(name);
            out.text(&seed.password_phc);
        }
        Command::OpenSession { user, session, refresh_hash, expires } => {
            out.u64(user.0);
            out.u64(*session);
            out.put(refresh_hash);
            out.u64(expires.0);
        }
        Command::RotateSession { user, session, presented, next, expires } => {
            out.u64(user.0);
            out.u64(*session);
            out.put(presented);
            out.put(next);
            out.u64(expires.0);
        }
        Command::OpenDirect { initiator, peer } => {
            out.u64(initiator.0);
            out.u64(peer.0);
        }
        Command::GroupCreate { group, creator, request, name, members } => {
            out.u128(group.0);
            out.u64(creator.0);
            out.u128(request.0);
            out.text(name);
            put_users(out, members);
        }
        Command::GroupChange(change) => {
            out.u128(change.group.0);
            out.u64(change.actor.0);
            out.u128(change.request.0);
            out.u64(change.checked_upto);
            out.u64(change.heir.0);
            put_users(out, &change.add);
            put_users(out, &change.remove);
        }
        Command::MoveCursors(moves) => out.list(moves, |out, step| {
            out.u128(step.conversation.0);
            out.u64(step.user.0);
            out.u64(step.delivered.0);
            out.u64(step.read.0);
            out.u64(step.read_ordinal.0);
        }),
        Command::Effects { from, incarnation, first, effects } => {
            out.u16(from.0);
            out.u64(*incarnation);
            out.u64(*first);
            out.list(effects, put_effect);
        }
        Command::AckEffects { to, incarnation, upto } => {
            out.u16(to.0);
            out.u64(*incarnation);
            out.u64(*upto);
        }
        Command::Merge { first, last, level, drops } => {
            out.u64(first.0);
            out.u64(last.0);
            out.u8(level.0);
            if drops.0 > 0 {
                out.u64(drops.0);
            }
        }
        Command::Trim { conversation, before, ordinal, time } => {
            out.u128(conversation.0);
            out.u64(before.0);
            out.u64(ordinal.0);
            out.u64(time.0);
        }
        Command::Recall(recall) => put_recall(out, recall),
        Command::Erase { user } => out.u64(user.0),
        Command::Erased { user, upto } => {
            out.u64(user.0);
            out.u64(upto.0);
        }
        Command::Retain { conversation, retention } => {
            out.u128(conversation.0);
            out.option(retention.as_ref(), put_retention);
        }
        Command::Import(step) => import::put(out, step),
        Command::Seal | Command::Probe => {}
    }
}

/// Reads the fields of the command whose head is given; `payload` ends where the command does.
pub(super) fn read_fields(payload: &[u8], head: &CommandHead) -> Result<Command, Malformed> {
    let mut fields = Fields::new(payload, head.offset + COMMAND_HEAD_LEN);
    let command = read_kind(head, &mut fields)?;
    fields.finish()?;
    Ok(command)
}

fn read_kind(head: &CommandHead, f: &mut Fields<'_>) -> Result<Command, Malformed> {
    Ok(match head.kind {
        INIT => Command::Init {
            history: HistoryId(f.u128()?),
            incarnation: f.u64()?,
            table_epoch: f.u64()?,
            table: f.list(6, |f| Ok((Bucket(f.u16()?), Bucket(f.u16()?), ShardId(f.u16()?))))?,
        },
        BEGIN_HISTORY => Command::BeginHistory { history: HistoryId(f.u128()?), incarnation: f.u64()? },
        CLAIM_NAME => {
            let request = ClientMsgId(f.u128()?);
            Command::ClaimName { name: f.text()?, seed: AccountSeed { password_phc: f.text()? }, request }
        }
        OPEN_SESSION => Command::OpenSession {
            user: UserId(f.u64()?),
            session: f.u64()?,
            refresh_hash: f.array("a hash")?,
            expires: TimeMs(f.u64()?),
        },
        ROTATE_SESSION => Command::RotateSession {
            user: UserId(f.u64()?),
            session: f.u64()?,
            presented: f.array("a hash")?,
            next: f.array("a hash")?,
            expires: TimeMs(f.u64()?),
        },
        OPEN_DIRECT => Command::OpenDirect { initiator: UserId(f.u64()?), peer: UserId(f.u64()?) },
        GROUP_CREATE => Command::GroupCreate {
            group: ConversationId(f.u128()?),
            creator: UserId(f.u64()?),
            request: ClientMsgId(f.u128()?),
            name: f.text()?,
            members: read_users(f)?,
        },
        GROUP_CHANGE => Command::GroupChange(GroupChange {
            group: ConversationId(f.u128()?),
            actor: UserId(f.u64()?),
            request: ClientMsgId(f.u128()?),
            checked_upto: f.u64()?,
            heir: UserId(f.u64()?),
            add: read_users(f)?,
            remove: read_users(f)?,
        }),
        MOVE_CURSORS => Command::MoveCursors(f.list(48, read_move)?),
        EFFECTS => Command::Effects {
            from: ShardId(f.u16()?),
            incarnation: f.u64()?,
            first: f.u64()?,
            effects: f.list(13, read_effect)?,
        },
        ACK_EFFECTS => Command::AckEffects { to: ShardId(f.u16()?), incarnation: f.u64()?, upto: f.u64()? },
        SEAL => Command::Seal,
        PROBE => Command::Probe,
        MERGE | DROP => read_merge(head.kind, f)?,
        TRIM => Command::Trim {
            conversation: ConversationId(f.u128()?),
            before: SeqId(f.u64()?),
            ordinal: Ordinal(f.u64()?),
            time: TimeMs(f.u64()?),
        },
        RECALL => Command::Recall(read_recall(f)?),
        ERASE => Command::Erase { user: UserId(f.u64()?) },
        ERASED => Command::Erased { user: UserId(f.u64()?), upto: LogIndex(f.u64()?) },
        RETAIN => Command::Retain { conversation: ConversationId(f.u128()?), retention: f.option(read_retention)? },
        import::IDS..=import::GIVE_UP => Command::Import(Box::new(import::read(head.kind, f)?)),
        _ => return Err(Malformed { offset: head.offset, what: "a command this version knows" }),
    })
}

fn read_merge(kind: u8, f: &mut Fields<'_>) -> Result<Command, Malformed> {
    let (first, last) = (SegmentOrdinal(f.u64()?), SegmentOrdinal(f.u64()?));
    let level = Level(f.u8()?);
    let drops = SegmentOrdinal(if kind == DROP { f.u64()? } else { 0 });
    if kind == DROP && drops.0 == 0 {
        return f.fail("a Seal up to which things are dropped");
    }
    Ok(Command::Merge { first, last, level, drops })
}

fn put_recall(out: &mut impl Sink, recall: &Recall) {
    out.u128(recall.conversation.0);
    out.u64(recall.actor.0);
    out.u128(recall.request.0);
    out.u64(recall.checked_upto);
    out.u64(recall.seq.0);
    out.u64(recall.ordinal.0);
    out.u64(recall.sender.0);
    out.bool(recall.by_operator);
}

fn read_recall(f: &mut Fields<'_>) -> Result<Recall, Malformed> {
    Ok(Recall {
        conversation: ConversationId(f.u128()?),
        actor: UserId(f.u64()?),
        request: ClientMsgId(f.u128()?),
        checked_upto: f.u64()?,
        seq: SeqId(f.u64()?),
        ordinal: Ordinal(f.u64()?),
        sender: UserId(f.u64()?),
        by_operator: f.bool()?,
    })
}

pub(super) fn put_retention<S: Sink>(out: &mut S, retention: &Retention) {
    out.u64(retention.age_ms);
    out.u64(retention.records);
}

pub(super) fn read_retention(f: &mut Fields<'_>) -> Result<Retention, Malformed> {
    Ok(Retention { age_ms: f.u64()?, records: f.u64()? })
}

fn put_users<S: Sink>(out: &mut S, users: &[UserId]) {
    out.list(users, |out, user| out.u64(user.0));
}

fn read_users(f: &mut Fields<'_>) -> Result<Vec<UserId>, Malformed> {
    f.list(8, |f| f.u64().map(UserId))
}

fn read_move(f: &mut Fields<'_>) -> Result<CursorMove, Malformed> {
    Ok(CursorMove {
        conversation: ConversationId(f.u128()?),
        user: UserId(f.u64()?),
        delivered: SeqId(f.u64()?),
        read: SeqId(f.u64()?),
        read_ordinal: Ordinal(f.u64()?),
    })
}

pub(super) fn put_effect<S: Sink>(out: &mut S, effect: &Effect) {
    match effect {
        Effect::CreateAccount { user, name, seed } => {
            out.u8(CREATE_ACCOUNT);
            out.u64(user.0);
            out.text(name);
            out.text(&seed.password_phc);
        }
        Effect::ConfirmName { name, user } => {
            out.u8(CONFIRM_NAME);
            out.u64(user.0);
            out.text(name);
        }
        Effect::OpenPeer { initiator, peer } => {
            out.u8(OPEN_PEER);
            out.u64(initiator.0);
            out.u64(peer.0);
        }
        Effect::GrantDirect { conversation, home_of, low_may_send, high_may_send, exists } => {
            out.u8(GRANT_DIRECT);
            out.u128(conversation.0);
            out.u64(home_of.0);
            out.bool(*low_may_send);
            out.bool(*high_may_send);
            out.bool(*exists);
        }
        Effect::PeerAnswered { initiator, peer, exists } => {
            out.u8(PEER_ANSWERED);
            out.u64(initiator.0);
            out.u64(peer.0);
            out.bool(*exists);
        }
    }
}

pub(super) fn read_effect(f: &mut Fields<'_>) -> Result<Effect, Malformed> {
    Ok(match f.u8()? {
        CREATE_ACCOUNT => Effect::CreateAccount {
            user: UserId(f.u64()?),
            name: f.text()?,
            seed: AccountSeed { password_phc: f.text()? },
        },
        CONFIRM_NAME => {
            let user = UserId(f.u64()?);
            Effect::ConfirmName { name: f.text()?, user }
        }
        OPEN_PEER => Effect::OpenPeer { initiator: UserId(f.u64()?), peer: UserId(f.u64()?) },
        GRANT_DIRECT => Effect::GrantDirect {
            conversation: ConversationId(f.u128()?),
            home_of: UserId(f.u64()?),
            low_may_send: f.bool()?,
            high_may_send: f.bool()?,
            exists: f.bool()?,
        },
        PEER_ANSWERED => {
            Effect::PeerAnswered { initiator: UserId(f.u64()?), peer: UserId(f.u64()?), exists: f.bool()? }
        }
        _ => return f.fail("an effect this version knows"),
    })
}

/// The body of a membership record.
///
/// ```text
/// 0        1        2              4                8                12               20
/// +--------+--------+--------------+----------------+----------------+----------------+------------------------
/// | version| flags 0| reserved 0   | joined count   | left count     | actor          | joined, then left: u64 each
/// +--------+--------+--------------+----------------+----------------+----------------+------------------------
/// ```
pub(crate) fn put_membership(actor: UserId, joined: &[UserId], left: &[UserId]) -> Bytes {
    let mut out = bytes::BytesMut::with_capacity(20 + 8 * (joined.len() + left.len()));
    out.put(&[1, 0, 0, 0]);
    out.count(joined.len());
    out.count(left.len());
    out.u64(actor.0);
    for user in joined.iter().chain(left) {
        out.u64(user.0);
    }
    out.freeze()
}

/// The body of a recall record.
///
/// ```text
/// 0        1        2              4                12               20               28
/// +--------+--------+--------------+----------------+----------------+----------------+
/// | version| flags  | reserved 0   | seq            | ordinal        | sender         |      flags: 1 by an operator
/// +--------+--------+--------------+----------------+----------------+----------------+
/// ```
pub(crate) fn put_recall_body(body: &RecallBody) -> Bytes {
    let mut out = bytes::BytesMut::with_capacity(28);
    out.put(&[1, u8::from(body.by_operator), 0, 0]);
    out.u64(body.seq.0);
    out.u64(body.ordinal.0);
    out.u64(body.sender.0);
    out.freeze()
}

/// The inverse of [`put_recall_body`].
pub(crate) fn read_recall_body(bytes: &[u8]) -> Result<RecallBody, Malformed> {
    let mut f = Fields::new(bytes, 0);
    let [version, flags, r0, r1] = f.array("the body of a recall")?;
    if version != 1 || flags > 1 || (r0, r1) != (0, 0) {
        return Err(Malformed { offset: 0, what: "version 1, known flags" });
    }
    let (seq, ordinal, sender) = (SeqId(f.u64()?), Ordinal(f.u64()?), UserId(f.u64()?));
    f.finish()?;
    Ok(RecallBody { seq, ordinal, sender, by_operator: flags == 1 })
}

/// The inverse of [`put_membership`]: (actor, joined, left).
pub(crate) fn read_membership(bytes: &[u8]) -> Result<(UserId, Vec<UserId>, Vec<UserId>), Malformed> {
    let mut f = Fields::new(bytes, 0);
    if f.array("a membership body")? != [1, 0, 0, 0] {
        return Err(Malformed { offset: 0, what: "version 1, no flags" });
    }
    let (joined_len, left_len) = (f.u32()? as usize, f.u32()? as usize);
    let actor = UserId(f.u64()?);
    let mut users = bytes[f.at()..].chunks_exact(8);
    if joined_len + left_len != users.len() || !users.remainder().is_empty() {
        return f.fail("as many users as the counts say");
    }
    let mut next = |count| -> Vec<UserId> {
        let users = users.by_ref().take(count);
        users.map(|u| UserId(u64::from_le_bytes(u.try_into().expect("chunks of 8")))).collect()
    };
    Ok((actor, next(joined_len), next(left_len)))
}
