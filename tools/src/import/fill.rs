//! Turns the lines of a verified input into the content of new shards: records as they come, rows table by table, for rows
//! are sealed in the order of keys and the lines that stand for them lie in another.
//!
//! What always holds: what is read again is compared with what was verified: an input that changed meanwhile is refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};

use anyhow::{Context, bail};
use logstore::id::{ConversationId, TimeMs, UserId};
use logstore::segment::{Item, SealedBody, SealedRecord};
use sequencer::founding::{CONTENT_INDEX, Content};
use sequencer::state::{Key, name_home};
use sequencer::store::Row;

use crate::jsonl::line::Line;
use crate::jsonl::read::Lines;
use crate::jsonl::verify::Verified;

/// Of each user until when messages were erased.
pub type Erased = BTreeMap<UserId, TimeMs>;

/// Gives the records, without the bodies of what was erased.
pub fn records(
    input: impl BufRead,
    verified: &Verified,
    erased: &Erased,
    content: &mut Content<'_>,
) -> anyhow::Result<()> {
    let mut lines = Lines::new(input);
    loop {
        match lines.next_line()?.context("the input has become shorter")? {
            Line::Record(record) => {
                let sealed = record.sealed(CONTENT_INDEX).map_err(|what| lines.bad(what.into()))?;
                content.item(Item::Record(without_erased(sealed, erased)))?;
            }
            Line::Trimmed(range) => content.item(Item::Trimmed(range.sealed(CONTENT_INDEX)))?,
            Line::End(_) if lines.hash_before().to_hex().as_str() == verified.end.blake3 => return Ok(()),
            Line::End(_) => bail!("the input has changed since it was verified"),
            _ => {}
        }
    }
}

/// A record without its body, if that was erased.
pub fn without_erased(mut record: SealedRecord, erased: &Erased) -> SealedRecord {
    if erased.get(&record.sender).is_some_and(|asked| record.time <= *asked) && !record.kind.is_made() {
        record.body = SealedBody::Removed;
    }
    record
}

/// Gives the rows, in the order of their keys.
pub fn rows(input: &mut File, verified: &Verified, content: &mut Content<'_>) -> anyhow::Result<()> {
    // In the order of their tables.
    type Pass = fn(&mut Rows<'_, '_>, Line) -> anyhow::Result<()>;
    let passes: [Pass; 5] = [
        |rows, line| rows.conversation(line),
        |rows, line| rows.member(line),
        |rows, line| rows.account(line),
        |rows, line| rows.name(line),
        |rows, line| rows.relation(line),
    ];
    for pass in passes {
        input.rewind()?;
        let mut lines = Lines::new(BufReader::with_capacity(1 << 20, input.by_ref().take(verified.records_at)));
        let mut rows = Rows { verified, content: &mut *content, conversation: ConversationId(0) };
        while let Some(line) = lines.next_line()? {
            pass(&mut rows, line)?;
        }
        // Without records the end is at the end of the head.
        if lines.hash_before() != verified.head_hash {
            bail!("the input has changed since it was verified");
        }
    }
    Ok(())
}

struct Rows<'c, 'a> {
    verified: &'c Verified,
    content: &'c mut Content<'a>,
    /// The one whose members come.
    conversation: ConversationId,
}

impl Rows<'_, '_> {
    fn conversation(&mut self, line: Line) -> anyhow::Result<()> {
        let Line::Conversation(conversation) = line else { return Ok(()) };
        let id = ConversationId(conversation.conversation.0);
        let members = self.verified.members.get(&id).copied().unwrap_or(0);
        let row = Row::Conversation(conversation.row(CONTENT_INDEX, members));
        Ok(self.content.row(id, &Key::Conversation(id), &row)?)
    }

    fn member(&mut self, line: Line) -> anyhow::Result<()> {
        match line {
            Line::Conversation(conversation) => self.conversation = ConversationId(conversation.conversation.0),
            Line::Member(member) => {
                let key = Key::Member(self.conversation, UserId(member.user.0));
                self.content.row(self.conversation, &key, &Row::Member(member.row(CONTENT_INDEX)))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn account(&mut self, line: Line) -> anyhow::Result<()> {
        let Line::Account(account) = line else { return Ok(()) };
        let user = UserId(account.user.0);
        Ok(self.content.row(ConversationId::system(user), &Key::User(user), &Row::User(account.row()))?)
    }

    fn name(&mut self, line: Line) -> anyhow::Result<()> {
        let Line::Name(name) = line else { return Ok(()) };
        let key = Key::Name(name.name.clone());
        Ok(self.content.row(name_home(&name.name), &key, &Row::Name(name.row()))?)
    }

    fn relation(&mut self, line: Line) -> anyhow::Result<()> {
        let Line::Relation(relation) = line else { return Ok(()) };
        let (user, peer) = (UserId(relation.user.0), UserId(relation.peer.0));
        Ok(self.content.row(
            ConversationId::system(user),
            &Key::Relation(user, peer),
            &Row::Relation(relation.row()),
        )?)
    }
}
