//! Makes the lines from the sealed shards of a cut.
//!
//! ```text
//! export | accounts by id | names | relations | conversations by id, each with its members by id | records | end
//! ```
//!
//! What always holds: every part is one pass over sorted rows or records of all shards, so that memory is bounded whatever the
//! size; what is under way between shards at the cut is left out, so that it can be asked for anew.

use std::io::{self, Write};
use std::sync::Arc;

use hashbrown::HashSet;
use logstore::id::{ConversationId, SegmentOrdinal, UserId};
use logstore::{SegmentSet, items_of, rows_of};
use sequencer::state::Key;
use sequencer::store::Row;

use super::line::{Account, Conversation, End, FORMAT, Header, Line, Member, Name, Relation};
use super::removed::{Joined, Removed};

/// What is exported.
pub enum Selection {
    /// Everything.
    All,
    /// These conversations, and the accounts of their members.
    Some(HashSet<ConversationId>),
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// As the last line says it.
    pub end: End,
    /// Bytes of all lines.
    pub bytes: u64,
}

/// Writes all lines; `step` is told of each. States what was written, and which of the selected conversations there were none of.
pub fn write(
    sets: &[Arc<SegmentSet>],
    selection: &Selection,
    out: &mut impl Write,
    step: &mut dyn FnMut(),
) -> anyhow::Result<Written> {
    let users = selected_users(sets, selection)?;
    let removed = removed(sets)?;
    let mut writer = Writer { sets, selection, users, removed, hidden: HashSet::new(), lines: Lines::new(out), step };
    writer.put(&Line::Export(Header { format: FORMAT, complete: matches!(selection, Selection::All) }))?;
    writer.accounts()?;
    writer.names()?;
    writer.relations()?;
    writer.conversations()?;
    writer.records()?;
    writer.lines.finish()
}

/// The members of what is selected; `None`: everybody.
fn selected_users(sets: &[Arc<SegmentSet>], selection: &Selection) -> anyhow::Result<Option<HashSet<UserId>>> {
    let Selection::Some(conversations) = selection else { return Ok(None) };
    let mut users = HashSet::new();
    for row in rows(sets, &Key::Member(ConversationId(0), UserId(0)))? {
        if let (Key::Member(conversation, user), _) = row?
            && conversations.contains(&conversation)
        {
            users.insert(user);
        }
    }
    Ok(Some(users))
}

/// What shards say is being erased.
fn removed(sets: &[Arc<SegmentSet>]) -> anyhow::Result<Removed> {
    let mut removed = Removed::default();
    for set in sets {
        for row in rows(std::slice::from_ref(set), &Key::Shard)? {
            if let (_, Row::Shard(row)) = row? {
                removed.note_shard(row.own);
            }
        }
    }
    Ok(removed)
}

struct Writer<'a, W> {
    sets: &'a [Arc<SegmentSet>],
    selection: &'a Selection,
    users: Option<HashSet<UserId>>,
    removed: Removed,
    /// What nobody sees: it is being imported, or that was given up.
    hidden: HashSet<ConversationId>,
    lines: Lines<'a, W>,
    step: &'a mut dyn FnMut(),
}

impl<W: Write> Writer<'_, W> {
    fn put(&mut self, line: &Line) -> anyhow::Result<()> {
        (self.step)();
        Ok(self.lines.put(line)?)
    }

    fn accounts(&mut self) -> anyhow::Result<()> {
        for row in rows(self.sets, &Key::User(UserId(0)))? {
            if let (Key::User(user), Row::User(row)) = row?
                && self.is_user_in(user)
            {
                self.put(&Line::Account(Account::of(user, &row)))?;
            }
        }
        Ok(())
    }

    fn names(&mut self) -> anyhow::Result<()> {
        for row in rows(self.sets, &Key::Name(String::new()))? {
            if let (Key::Name(name), Row::Name(row)) = row?
                && self.is_user_in(row.user)
                && (row.confirmed || self.exists(row.user)?)
            {
                self.put(&Line::Name(Name::of(name, &row)))?;
            }
        }
        Ok(())
    }

    /// Of a claim that is not confirmed at the cut the account may exist nevertheless.
    fn exists(&self, user: UserId) -> anyhow::Result<bool> {
        let key = Key::User(user).encode();
        for set in self.sets {
            if set.delta_get(&key, SegmentOrdinal(0))?.flatten().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn relations(&mut self) -> anyhow::Result<()> {
        for row in rows(self.sets, &Key::Relation(UserId(0), UserId(0)))? {
            if let (Key::Relation(user, peer), Row::Relation(row)) = row?
                && self.is_in(ConversationId::direct(user, peer))
                && let Some(relation) = Relation::of(user, peer, &row)
            {
                self.put(&Line::Relation(relation))?;
            }
        }
        Ok(())
    }

    fn conversations(&mut self) -> anyhow::Result<()> {
        let mut members = rows(self.sets, &Key::Member(ConversationId(0), UserId(0)))?.peekable();
        for row in rows(self.sets, &Key::Conversation(ConversationId(0)))? {
            let (Key::Conversation(id), Row::Conversation(row)) = row? else { break };
            let conversation = Conversation::of(id, &row);
            if conversation.is_none() {
                self.hidden.insert(id);
            }
            let Some(conversation) = conversation.filter(|_| self.is_in(id)) else { continue };
            self.removed.note(id, row.upkeep.as_ref());
            self.put(&Line::Conversation(conversation))?;
            let upto = |row: &anyhow::Result<(Key, Row)>, last| match row {
                Ok((Key::Member(of, _), _)) => *of < id || (last && *of == id),
                Ok(_) => false,
                Err(_) => true,
            };
            while let Some(row) = members.next_if(|row| upto(row, true)) {
                if let (Key::Member(of, user), Row::Member(row)) = row?
                    && of == id
                {
                    self.put(&Line::Member(Member::of(user, &row)))?;
                }
            }
        }
        Ok(())
    }

    fn records(&mut self) -> anyhow::Result<()> {
        let removed = std::mem::take(&mut self.removed);
        let seen = items_of(self.sets)?.map(|item| Ok(removed.hide(item?)));
        for item in Joined::new(seen) {
            let item = item?;
            if self.is_in(item.conversation()) && !self.hidden.contains(&item.conversation()) {
                self.put(&Line::of_item(&item))?;
            }
        }
        Ok(())
    }

    fn is_in(&self, conversation: ConversationId) -> bool {
        match self.selection {
            Selection::All => true,
            Selection::Some(some) => some.contains(&conversation),
        }
    }

    fn is_user_in(&self, user: UserId) -> bool {
        self.users.as_ref().is_none_or(|users| users.contains(&user))
    }
}

/// The rows of one table.
fn rows(
    sets: &[Arc<SegmentSet>],
    first: &Key,
) -> anyhow::Result<impl Iterator<Item = anyhow::Result<(Key, Row)>> + use<>> {
    let from = first.encode();
    let table = from[0];
    let rows = rows_of(sets, &from[..1])?;
    let of_table = rows.take_while(move |row| row.as_ref().map_or(true, |row| row.key[0] == table));
    Ok(of_table.map(|row| {
        let row = row?;
        let malformed = |bad: sequencer::Malformed| {
            anyhow::anyhow!("a sealed row of state cannot be read: byte {}: {}", bad.offset, bad.what)
        };
        let key = Key::decode(&row.key).map_err(malformed)?;
        let value = row.value.unwrap_or_default();
        let row = Row::decode(&key, &value).map_err(malformed)?;
        Ok((key, row))
    }))
}

/// Counts and hashes what goes out.
struct Lines<'a, W> {
    out: &'a mut W,
    hasher: blake3::Hasher,
    written: Written,
}

impl<'a, W: Write> Lines<'a, W> {
    fn new(out: &'a mut W) -> Lines<'a, W> {
        Lines { out, hasher: blake3::Hasher::new(), written: Written::default() }
    }

    fn put(&mut self, line: &Line) -> io::Result<()> {
        let bytes = line.to_bytes();
        self.hasher.update(&bytes);
        self.written.end.count(line);
        self.written.bytes += bytes.len() as u64;
        self.out.write_all(&bytes)
    }

    fn finish(mut self) -> anyhow::Result<Written> {
        self.written.end.blake3 = self.hasher.finalize().to_hex().to_string();
        let bytes = Line::End(self.written.end.clone()).to_bytes();
        self.out.write_all(&bytes)?;
        self.out.flush()?;
        self.written.bytes += bytes.len() as u64;
        Ok(self.written)
    }
}

impl End {
    /// One more line.
    pub fn count(&mut self, line: &Line) {
        self.lines += 1;
        match line {
            Line::Account(_) => self.accounts += 1,
            Line::Conversation(_) => self.conversations += 1,
            Line::Member(_) => self.members += 1,
            Line::Record(_) => self.records += 1,
            Line::Export(_) | Line::Name(_) | Line::Relation(_) | Line::Trimmed(_) | Line::End(_) => {}
        }
    }
}
