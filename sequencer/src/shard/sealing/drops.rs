//! What of the log's drops waits to be carried out in which segment, and the rules of a plan.
//!
//! Every Seal leaves notes in its segment's state delta of what was trimmed, recalled or erased since the one before: rows of
//! their own, sorted, never in memory. What always holds: a plan names the Seal up to which notes count, and plans are carried out in the
//! order of the log; so every replica finds the same notes, whenever it gets round to it: a segment that would mix notes from
//! before and after that Seal can only come of a later plan.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use logstore::SegmentSet;
use logstore::id::{ConversationId, LogIndex, SegmentOrdinal, SeqId, TimeMs, UserId};
use logstore::merge::DropRules;
use logstore::segment::{PageEnd, PageRequest, SealedRecord, Segment};

use crate::state::{Key, Layout};
use crate::store::Row;
use crate::{Error, Result};

/// Bytes of bodies looked at together.
const LOOK_BYTES: usize = 256 << 10;

/// A segment that holds what is to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Its first seal.
    pub(crate) segment: SegmentOrdinal,
    /// The log time at the Seal of the oldest note that waits.
    pub(crate) since: TimeMs,
    /// Whether an erasure waits: it does not wait for company.
    pub(crate) erasure: bool,
}

/// What one Seal, or several that were merged, say is to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Note {
    Trimmed(ConversationId, SeqId),
    Recalled(ConversationId, SeqId),
    Erased(UserId, LogIndex),
}

/// The rules of a merge or rewrite of the seals `first..=last`, by the notes of seals up to `upto`. Rules that touch none of its
/// conversations are left out. Reads files.
pub(crate) fn rules(
    set: &SegmentSet,
    (first, last): (SegmentOrdinal, SegmentOrdinal),
    upto: SegmentOrdinal,
    heads_above: LogIndex,
) -> Result<DropRules> {
    let mut rules = DropRules { heads_above: Some(heads_above), ..DropRules::default() };
    let within = |segment: &&Arc<Segment>| segment.span().last >= first && segment.span().first <= last;
    let inputs: Vec<_> = set.segments().iter().filter(within).collect();
    for noted in set.segments().iter().filter(|segment| segment.span().last <= upto) {
        for note in notes(noted) {
            add(&mut rules, note?, &inputs)?;
        }
    }
    Ok(rules)
}

fn add(rules: &mut DropRules, note: Note, inputs: &[&Arc<Segment>]) -> Result<()> {
    match note {
        Note::Trimmed(conversation, before) if holds(inputs, conversation, SeqId(0), before)? => {
            let kept = rules.trims.entry(conversation).or_default();
            *kept = before.max(*kept);
        }
        Note::Recalled(conversation, seq) if holds(inputs, conversation, seq, seq.next())? => {
            rules.recalls.insert((conversation, seq));
        }
        Note::Erased(user, upto) => {
            let kept = rules.erasures.entry(user).or_default();
            *kept = upto.max(*kept);
        }
        Note::Trimmed(..) | Note::Recalled(..) => {}
    }
    Ok(())
}

/// Whether any of these segments holds a record of `[from, before)`.
fn holds(inputs: &[&Arc<Segment>], conversation: ConversationId, from: SeqId, before: SeqId) -> Result<bool> {
    for input in inputs {
        if input.find(conversation)?.is_some_and(|row| row.first < before && row.last >= from) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The segments that hold what notes say is to be dropped and no plan has dropped yet, oldest first. `of_user` gives the conversations
/// that a user may have written to. Reads files.
pub(crate) fn waiting(
    set: &SegmentSet,
    layout: &Layout,
    of_user: &dyn Fn(UserId) -> Result<Vec<ConversationId>>,
) -> Result<Vec<Waiting>> {
    let mut found = BTreeMap::<SegmentOrdinal, Waiting>::new();
    let mut users = BTreeMap::new();
    for noted in set.segments() {
        // What a note speaks of was there before it; plans as of the Seal that left it have dropped it.
        let behind = |segment: &&Arc<Segment>| {
            segment.span().first <= noted.span().last && layout.drops_of(segment.span().first) < noted.span().last
        };
        let behind: Vec<_> = set.segments().iter().filter(behind).collect();
        if behind.is_empty() {
            continue;
        }
        for note in notes(noted) {
            let note = note?;
            if let Note::Erased(user, _) = note
                && let Entry::Vacant(unknown) = users.entry(user)
            {
                unknown.insert(of_user(user)?);
            }
            for segment in &behind {
                let first = segment.span().first;
                let erasure = matches!(note, Note::Erased(..));
                let is_known = found.get(&first).is_some_and(|known| known.erasure || !erasure);
                if !is_known && is_held(segment, note, &users)? {
                    let since = noted.info().log_time;
                    let one = found.entry(first).or_insert(Waiting { segment: first, since, erasure });
                    (one.since, one.erasure) = (one.since.min(since), one.erasure || erasure);
                }
            }
        }
    }
    Ok(found.into_values().collect())
}

/// Whether a segment holds a body that a note says is to go.
fn is_held(segment: &Segment, note: Note, users: &BTreeMap<UserId, Vec<ConversationId>>) -> Result<bool> {
    match note {
        Note::Trimmed(conversation, before) => {
            any_kept(segment, conversation, (SeqId(1), SeqId(before.0.saturating_sub(1))), &|_| true)
        }
        Note::Recalled(conversation, seq) => any_kept(segment, conversation, (seq, seq), &|_| true),
        Note::Erased(user, upto) => {
            let is_theirs =
                |record: &SealedRecord| record.sender == user && record.index <= upto && !record.kind.is_made();
            let conversations = users.get(&user).map(Vec::as_slice).unwrap_or_default();
            for conversation in conversations {
                if any_kept(segment, *conversation, (SeqId(1), SeqId(u64::MAX)), &is_theirs)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

/// Whether any record of a conversation in a range has its body, among those asked about.
fn any_kept(
    segment: &Segment,
    conversation: ConversationId,
    (first, last): (SeqId, SeqId),
    of: &dyn Fn(&SealedRecord) -> bool,
) -> Result<bool> {
    let mut next = first;
    while next <= last {
        let request = PageRequest {
            conversation,
            first: next,
            last,
            from: PageEnd::Oldest,
            records_max: u64::MAX,
            bytes_max: LOOK_BYTES,
        };
        let page = segment.page(&request)?;
        if page.records.iter().any(|record| record.body.kept().is_some() && of(record)) {
            return Ok(true);
        }
        match page.complete {
            Some((_, upto)) if upto < last => next = upto.next(),
            _ => return Ok(false),
        }
    }
    Ok(false)
}

/// What a segment's delta says is to be dropped.
fn notes(segment: &Arc<Segment>) -> impl Iterator<Item = Result<Note>> {
    let (shard, first, end) = (segment.span().shard, Key::first_note(), Key::after_notes());
    let rows = segment.delta_rows_from(&first);
    let rows = rows.take_while(move |row| row.as_ref().map_or(true, |row| row.key < end));
    rows.filter(move |row| row.as_ref().map_or(true, |row| row.key >= first)).map(move |row| {
        let row = row?;
        let bad = |bad: crate::Malformed| Error::Row {
            shard,
            key: format!("{:02x?}", row.key),
            offset: bad.offset,
            what: bad.what,
        };
        let key = Key::decode(&row.key).map_err(bad)?;
        let value = row.value.as_deref().unwrap_or_default();
        match (Row::decode(&key, value).map_err(bad)?, key) {
            (Row::Trimmed(before), Key::Trimmed(_, conversation)) => Ok(Note::Trimmed(conversation, before)),
            (Row::Recalled, Key::Recalled(_, conversation, seq)) => Ok(Note::Recalled(conversation, seq)),
            (Row::Erased(erased), Key::Erased(user)) => Ok(Note::Erased(user, erased.upto)),
            (row, key) => unreachable!("a row is decoded by its key: {key:?}, {row:?}"),
        }
    })
}
