//! Importing: accounts and conversations that come with the ids, places and times that they had elsewhere.
//!
//! What always holds: a step is repeated without harm; records follow each other as they did where they come from, and none has an id
//! that is still to be given out; until its end nobody sees a conversation that is being imported, and nothing else changes it.

use std::sync::Arc;

use logstore::id::{
    ConnectionId, ConversationId, ConversationName, LogIndex, Ordinal, SeqId, ServerMsgId, TimeMs, UserId,
};
use logstore::{BodyPlace, RecordHead, RecordKind};

use super::direct::is_user;
use super::send::RECORD_HEAD_BYTES;
use super::{
    ConversationRow, DirectRow, Floor, Importing, MEMBERS_MAX, MemberRow, MessageKey, NameRow, RelationRow, SKEW_MS,
    ShardState, Upkeep, UserRow, direct_users,
};
use crate::codec::IMPORTED_HEAD_LEN;
use crate::{Applied, CommittedRecord, Import, ImportId, ImportedRecord, Outcome, Refusal, Stored};

/// What is said of the end of an import.
struct End {
    last: (SeqId, Ordinal, TimeMs),
    members: u32,
}

impl ConversationRow {
    /// How far an import of it is; `None`: it is of none.
    pub fn import(&self) -> Option<Importing> {
        self.upkeep.as_ref()?.import
    }

    /// Whether it is being imported.
    pub fn is_importing(&self) -> bool {
        self.import().is_some_and(|import| !import.is_over)
    }

    /// Whether nobody is to see it: it is being imported, or that was given up and nothing else is known of it.
    pub fn is_hidden(&self) -> bool {
        self.is_importing() || (self.direct.is_none() && self.group.is_none())
    }

    /// While a 1:1 is imported: what its homes have said.
    pub(super) fn before_import_mut(&mut self) -> Option<&mut Option<DirectRow>> {
        let is_importing = self.is_importing();
        let upkeep = self.upkeep.as_mut().filter(|_| is_importing)?;
        Arc::make_mut(upkeep).import.as_mut().map(|import| &mut import.before)
    }
}

impl ShardState {
    pub(super) fn import(&mut self, step: Import, offset: u32, out: &mut Applied) -> Result<Outcome, Refusal> {
        if let Some(place) = step.place() {
            self.check_owned(place)?;
        }
        match step {
            Import::Ids { last_record, last_user } => {
                self.check_time(TimeMs(ServerMsgId::EPOCH_MS + (last_record.0 >> 22)))?;
                self.check_time(TimeMs(ServerMsgId::EPOCH_MS + (last_user.0 >> 21)))?;
                self.own.take_ids_upto(last_record, last_user);
            }
            Import::Account { user, row } => self.import_account(user, row)?,
            Import::Name { name, row } => self.import_name(name, row)?,
            Import::Relation { user, peer, row } => self.import_relation(user, peer, row)?,
            Import::Begin { conversation, import, row } => self.begin_import(conversation, import, row, out.index)?,
            Import::Members { conversation, import, members } => {
                self.import_members(conversation, import, members, out.index)?;
            }
            Import::Record(record) => self.import_record(record, offset, out)?,
            Import::End { conversation, import, last_seq, last_ordinal, last_time, members } => {
                let end = End { last: (last_seq, last_ordinal, last_time), members };
                self.end_import(conversation, import, &end, out)?;
            }
            Import::GiveUp { conversation, import } => self.give_up_import(conversation, import, out)?,
        }
        Ok(Outcome::Done)
    }

    /// Beyond what a client's clock may be ahead a retry would not be told from what is new, and later ids would be ahead of time for
    /// as long.
    fn check_time(&self, time: TimeMs) -> Result<(), Refusal> {
        if time.0 <= self.own.time.0.saturating_add(SKEW_MS) { Ok(()) } else { Err(Refusal::ClockSkew) }
    }

    /// Refuses to change a conversation that nobody sees yet.
    pub(super) fn check_shown(&self, conversation: ConversationId) -> Result<(), Refusal> {
        match self.conversations.get(&conversation) {
            Some(row) if row.is_importing() => Err(Refusal::Importing),
            Some(row) if row.is_hidden() => Err(Refusal::NoSuchConversation),
            _ => Ok(()),
        }
    }

    fn import_account(&mut self, user: UserId, row: UserRow) -> Result<(), Refusal> {
        if !is_user(user) {
            return Err(Refusal::NoSuchUser);
        }
        match self.user(user) {
            Some(known) if known.name == row.name => {}
            Some(_) => return Err(Refusal::NameTaken),
            None => {
                self.users.insert(user, UserRow { sessions: Vec::new(), ..row });
            }
        }
        Ok(())
    }

    fn import_name(&mut self, name: String, row: NameRow) -> Result<(), Refusal> {
        if !is_user(row.user) {
            return Err(Refusal::NoSuchUser);
        }
        match self.names.get(name.as_str()) {
            Some(known) if known.user != row.user && !known.is_over(self.own.time) => Err(Refusal::NameTaken),
            Some(known) if known.user == row.user && known.confirmed => Ok(()),
            _ => {
                self.names.insert(name, NameRow { confirmed: true, ..row });
                Ok(())
            }
        }
    }

    fn import_relation(&mut self, user: UserId, peer: UserId, row: RelationRow) -> Result<(), Refusal> {
        if !is_user(peer) || self.user(user).is_none() {
            return Err(Refusal::NoSuchUser);
        }
        if self.relation(user, peer).is_none() {
            self.relations.insert((user, peer), row);
        }
        Ok(())
    }

    fn begin_import(
        &mut self,
        conversation: ConversationId,
        import: ImportId,
        row: ConversationRow,
        index: LogIndex,
    ) -> Result<(), Refusal> {
        check_shape(conversation, &row)?;
        let before = match self.conversation(conversation) {
            Some(known) => match known.import() {
                Some(importing) if importing.import == import => return Ok(()),
                _ if known.is_importing() => return Err(Refusal::Importing),
                _ if known.last_seq > SeqId(0) || known.group.is_some() => return Err(Refusal::NotEmpty),
                _ => known.direct,
            },
            None => {
                self.figures.conversations += 1;
                None
            }
        };
        self.conversations.insert(conversation, begun(row, Importing { import, at: index, is_over: false, before }));
        self.unsealed_bytes += RECORD_HEAD_BYTES;
        Ok(())
    }

    /// Whether a step of this import changes the conversation; not if the import is over.
    fn goes_on(&self, conversation: ConversationId, import: ImportId) -> Result<bool, Refusal> {
        let row = self.conversation(conversation).ok_or(Refusal::NoSuchConversation)?;
        let known = row.import().filter(|known| known.import == import).ok_or(Refusal::ImportMisfit)?;
        Ok(!known.is_over)
    }

    fn import_members(
        &mut self,
        conversation: ConversationId,
        import: ImportId,
        members: Vec<(UserId, MemberRow)>,
        index: LogIndex,
    ) -> Result<(), Refusal> {
        if !self.goes_on(conversation, import)? {
            return Ok(());
        }
        check_members(conversation, &members)?;
        let count = self.members_with(conversation, &members)?;
        for (user, row) in members {
            if row.is_blank() && self.member(conversation, user).is_none() {
                continue;
            }
            self.put_member(conversation, user, MemberRow { changed_at: index, ..row });
        }
        let row = self.conversations.get_mut(&conversation).expect("it goes on");
        if let Some(group) = &mut row.group {
            group.member_count = count;
        }
        self.unsealed_bytes += RECORD_HEAD_BYTES;
        Ok(())
    }

    /// How many are members of a group once these rows are there.
    fn members_with(&self, conversation: ConversationId, members: &[(UserId, MemberRow)]) -> Result<u32, Refusal> {
        let group = self.conversation(conversation).and_then(|row| row.group.as_ref());
        let before = group.map_or(0, |group| group.member_count) as usize;
        let now = members.iter().filter(|(_, row)| row.is_active()).count();
        let known = |user: UserId| self.member(conversation, user).is_some_and(MemberRow::is_active);
        let replaced = members.iter().filter(|(user, _)| known(*user)).count();
        let count = (before + now).saturating_sub(replaced);
        u32::try_from(count).ok().filter(|_| count <= MEMBERS_MAX).ok_or(Refusal::LimitReached)
    }

    pub(super) fn put_member(&mut self, conversation: ConversationId, user: UserId, row: MemberRow) {
        let key = (conversation, user);
        if self.members.get(&key).is_none() {
            self.index.enter(conversation, user);
        }
        self.members.insert(key, row);
    }

    fn import_record(&mut self, record: ImportedRecord, offset: u32, out: &mut Applied) -> Result<(), Refusal> {
        let goes_on = self.goes_on(record.conversation, record.import)?;
        let row = self.conversation(record.conversation).ok_or(Refusal::NoSuchConversation)?;
        if !goes_on || record.seq <= row.last_seq {
            return Ok(());
        }
        if !follows(row, &record) || self.own.is_to_come(record.server_msg_id) {
            return Err(Refusal::ImportMisfit);
        }
        self.check_time(record.time)?;
        // The request that made a group names it, and is no id of its records.
        if !(record.seq == SeqId(1) && record.kind == RecordKind::MEMBERSHIP) {
            self.check_time(TimeMs((record.client_msg_id.0 >> 80) as u64))?;
        }
        if !record.has_possible_sender() {
            return Err(Refusal::NotMember);
        }
        let key = MessageKey { conversation: record.conversation, sender: record.sender, id: record.client_msg_id };
        if self.dedup.find(self.dedup.hash(&key), &key).is_some() {
            return Err(Refusal::IdempotencyConflict);
        }
        self.put_record(&key, record, offset, out);
        Ok(())
    }

    fn put_record(&mut self, key: &MessageKey, record: ImportedRecord, offset: u32, out: &mut Applied) {
        let ImportedRecord { conversation, seq, ordinal, kind, server_msg_id, body_hash, time, .. } = record;
        let row = self.conversations.get_mut(&conversation).expect("callers have looked at it");
        (row.last_seq, row.last_ordinal, row.last_time, row.last_index) = (seq, ordinal, time, out.index);
        self.own.note_accepted(seq, server_msg_id, body_hash, kind.is_countable());
        let stored = Stored { seq, server_msg_id, time, duplicate: false };
        self.dedup.insert(self.dedup.hash(key), key, &stored, body_hash);
        let len = record.body.as_ref().map_or(0, |body| body.len());
        self.unsealed_bytes += RECORD_HEAD_BYTES + len as u64;
        let in_entry = BodyPlace::InEntry { offset: offset + IMPORTED_HEAD_LEN as u32, len: len as u32 };
        let body = record.body.map_or(BodyPlace::Removed, |_| in_entry);
        let head = RecordHead {
            conversation,
            seq,
            ordinal,
            kind,
            sender: key.sender,
            server_msg_id,
            client_msg_id: key.id,
            body_hash,
            time,
            index: out.index,
            body,
        };
        out.imported.push(CommittedRecord { head, origin: ConnectionId(0), command_offset: offset, made_body: None });
    }

    fn end_import(
        &mut self,
        conversation: ConversationId,
        import: ImportId,
        end: &End,
        out: &mut Applied,
    ) -> Result<(), Refusal> {
        if !self.goes_on(conversation, import)? {
            return Ok(());
        }
        let row = self.conversations.get_mut(&conversation).expect("it goes on");
        let members = row.group.as_ref().map_or(0, |group| group.member_count);
        // An empty one has no record whose time it could have.
        let last_time = if row.last_seq == SeqId(0) { end.last.2 } else { row.last_time };
        if (row.last_seq, row.last_ordinal, last_time) != end.last || members != end.members {
            return Err(Refusal::ImportMisfit);
        }
        (row.last_time, row.last_index) = (last_time, out.index);
        let upkeep = Arc::make_mut(row.upkeep.get_or_insert_default());
        upkeep.import = Some(Importing { import, at: out.index, is_over: true, before: None });
        self.unsealed_bytes += RECORD_HEAD_BYTES;
        out.opened = true;
        Ok(())
    }

    /// What was brought is below the floor, so that merges take it out of files; places and ids of what was once accepted stay used.
    fn give_up_import(
        &mut self,
        conversation: ConversationId,
        import: ImportId,
        out: &mut Applied,
    ) -> Result<(), Refusal> {
        let Some(row) = self.conversation(conversation) else { return Ok(()) };
        let importing = match row.import() {
            Some(importing) if importing.import != import && !importing.is_over => return Err(Refusal::Importing),
            Some(importing) if importing.import == import && importing.is_over => return Err(Refusal::NotEmpty),
            Some(importing) if importing.import == import => importing,
            _ => return Ok(()),
        };
        if row.group.as_ref().is_some_and(|group| group.member_count > 0) {
            return Err(Refusal::ImportMisfit);
        }
        let ordinal = row.last_ordinal;
        let row = given_up(row, &importing, self.own.time, out.index);
        let is_open = row.direct.is_some_and(|direct| direct.is_open());
        self.conversations.insert(conversation, row);
        for user in direct_users(conversation).into_iter().flatten() {
            if self.member(conversation, user).is_some() {
                self.put_member(conversation, user, MemberRow { changed_at: out.index, ..MemberRow::blank() });
            }
        }
        if is_open {
            self.seat_both(conversation, out.index);
            out.opened = true;
        }
        self.own.trimmed.note(self.own.time, ordinal.0);
        self.unsealed_bytes += RECORD_HEAD_BYTES;
        Ok(())
    }
}

/// The row that is left of one whose import is given up: all that came is trimmed, and of a 1:1 what its homes have said.
fn given_up(row: &ConversationRow, importing: &Importing, now: TimeMs, index: LogIndex) -> ConversationRow {
    let ConversationRow { last_seq, last_ordinal, last_time, .. } = *row;
    let is_direct = row.direct.is_some();
    let floor = Floor { before: last_seq.next(), ordinal: last_ordinal, time: last_time.min(now), trimmed_at: index };
    let upkeep = (last_seq > SeqId(0)).then(|| Arc::new(Upkeep { floor, ..Upkeep::default() }));
    let direct = is_direct.then(|| importing.before.unwrap_or_default());
    let last_time = if last_seq > SeqId(0) { last_time } else { now };
    ConversationRow { last_seq, last_ordinal, last_index: index, last_time, direct, group: None, upkeep }
}

/// A 1:1 that is open, or a group. Of one that was trimmed the places that are gone would be nowhere.
fn check_shape(conversation: ConversationId, row: &ConversationRow) -> Result<(), Refusal> {
    let fits = match conversation.name() {
        Some(ConversationName::Direct(..)) => row.group.is_none() && row.direct.is_some_and(|direct| direct.is_open()),
        Some(ConversationName::Group(_)) => row.direct.is_none() && row.group.is_some(),
        _ => return Err(Refusal::NoSuchConversation),
    };
    if fits && row.floor().before <= SeqId(1) { Ok(()) } else { Err(Refusal::ImportMisfit) }
}

/// Ascending, so that nobody is there twice.
fn check_members(conversation: ConversationId, members: &[(UserId, MemberRow)]) -> Result<(), Refusal> {
    let ascends = members.windows(2).all(|pair| pair[0].0 < pair[1].0);
    members.iter().try_for_each(|(user, row)| check_member(conversation, *user, row))?;
    if ascends { Ok(()) } else { Err(Refusal::ImportMisfit) }
}

fn check_member(conversation: ConversationId, user: UserId, row: &MemberRow) -> Result<(), Refusal> {
    let belongs = match conversation.name() {
        Some(ConversationName::Direct(low, high)) => user == low || user == high,
        _ => is_user(user),
    };
    match () {
        () if !belongs => Err(Refusal::NotMember),
        () if row.intervals.len() > MemberRow::INTERVALS_MAX => Err(Refusal::ImportMisfit),
        () => Ok(()),
    }
}

/// The row of one that has no members and no records yet.
fn begun(mut row: ConversationRow, importing: Importing) -> ConversationRow {
    (row.last_seq, row.last_ordinal, row.last_time) = (SeqId(0), Ordinal(0), TimeMs(0));
    row.last_index = importing.at;
    if let Some(group) = &mut row.group {
        group.member_count = 0;
    }
    let upkeep = Arc::make_mut(row.upkeep.get_or_insert_default());
    upkeep.import = Some(importing);
    upkeep.floor.trimmed_at = LogIndex(0);
    upkeep.recalled.iter_mut().for_each(|recalled| recalled.recalled_at = importing.at);
    row
}

fn follows(row: &ConversationRow, record: &ImportedRecord) -> bool {
    let ordinal = row.last_ordinal.0 + u64::from(record.kind.is_countable());
    record.seq == row.last_seq.next() && record.ordinal.0 == ordinal && record.time >= row.last_time
}
