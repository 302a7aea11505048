//! What lines become: steps of an import.

use logstore::id::{ConversationId, Ordinal, SeqId, TimeMs, UserId};
use logstore::segment::SealedBody;
use sequencer::founding::CONTENT_INDEX;
use sequencer::state::MemberRow;
use sequencer::{Import, ImportId, ImportedRecord};

use super::super::fill::{Erased, without_erased};
use super::compare::Plan;
use crate::jsonl::line::{Line, Record};
use crate::jsonl::verify::Verified;

/// Members of one step: half of what a request holds, for what a member takes is reckoned, not counted, and the row of the longest
/// (64 intervals) must fit beside.
const MEMBERS_BYTES: usize = 32 << 10;
/// What a member takes beside its intervals, and an interval.
const MEMBER_BYTES: usize = 96;
const INTERVAL_BYTES: usize = 16;

/// Makes steps of the lines before records.
pub struct Head<'a> {
    import: ImportId,
    verified: &'a Verified,
    plan: &'a Plan,
    /// The one whose members come, if they are needed.
    conversation: Option<ConversationId>,
    members: Vec<(UserId, MemberRow)>,
    members_bytes: usize,
}

impl<'a> Head<'a> {
    /// Nothing yet.
    pub fn new(import: ImportId, verified: &'a Verified, plan: &'a Plan) -> Head<'a> {
        Head { import, verified, plan, conversation: None, members: Vec::new(), members_bytes: 0 }
    }

    /// The steps that a line completes.
    pub fn of(&mut self, line: Line) -> Vec<Import> {
        match line {
            Line::Member(member) => {
                let bytes = MEMBER_BYTES + INTERVAL_BYTES * member.intervals.len();
                let full = self.members_bytes + bytes > MEMBERS_BYTES;
                let before = if full { self.take_members() } else { None };
                if self.conversation.is_some() {
                    self.members.push((UserId(member.user.0), member.row(CONTENT_INDEX)));
                    self.members_bytes += bytes;
                }
                before.into_iter().collect()
            }
            line => {
                let before = self.take_members();
                before.into_iter().chain(self.begun_by(line)).collect()
            }
        }
    }

    /// What is left.
    pub fn finish(mut self) -> Option<Import> {
        self.take_members()
    }

    fn begun_by(&mut self, line: Line) -> Option<Import> {
        match line {
            Line::Account(account) => Some(Import::Account { user: UserId(account.user.0), row: account.row() }),
            Line::Name(name) => Some(Import::Name { row: name.row(), name: name.name }),
            Line::Conversation(line) => {
                let conversation = ConversationId(line.conversation.0);
                self.conversation = self.plan.is_to_do(conversation).then_some(conversation);
                let members = self.verified.members.get(&conversation).copied().unwrap_or(0);
                let row = line.row(CONTENT_INDEX, members);
                self.conversation.map(|conversation| Import::Begin { conversation, import: self.import, row })
            }
            _ => None,
        }
    }

    fn take_members(&mut self) -> Option<Import> {
        let (members, conversation) = (std::mem::take(&mut self.members), self.conversation?);
        self.members_bytes = 0;
        (!members.is_empty()).then_some(Import::Members { conversation, import: self.import, members })
    }
}

/// Makes the last step of each conversation.
pub struct Ends<'a> {
    import: ImportId,
    verified: &'a Verified,
    plan: &'a Plan,
}

impl<'a> Ends<'a> {
    /// Of an import.
    pub fn new(import: ImportId, verified: &'a Verified, plan: &'a Plan) -> Ends<'a> {
        Ends { import, verified, plan }
    }

    /// The step of a conversation's line.
    pub fn of(&self, line: Line) -> Option<Import> {
        let Line::Conversation(line) = line else { return None };
        let conversation = ConversationId(line.conversation.0);
        self.plan.is_to_do(conversation).then(|| Import::End {
            conversation,
            import: self.import,
            last_seq: SeqId(line.last_seq),
            last_ordinal: Ordinal(line.last_ordinal),
            last_time: TimeMs(line.last_time_ms),
            members: self.verified.members.get(&conversation).copied().unwrap_or(0),
        })
    }
}

/// Makes the steps that give conversations up.
pub struct Out<'a> {
    import: ImportId,
    plan: &'a Plan,
    /// The one whose members come, if it is given up.
    conversation: Option<ConversationId>,
    members: Vec<(UserId, MemberRow)>,
}

impl<'a> Out<'a> {
    /// Nothing yet.
    pub fn new(import: ImportId, plan: &'a Plan) -> Out<'a> {
        Out { import, plan, conversation: None, members: Vec::new() }
    }

    /// The steps that a line completes.
    pub fn of(&mut self, line: Line) -> Vec<Import> {
        match line {
            Line::Conversation(line) => {
                let before = self.finish();
                let conversation = ConversationId(line.conversation.0);
                self.conversation = self.plan.is_unfinished(conversation).then_some(conversation);
                before
            }
            Line::Member(member) if self.conversation.is_some() => {
                let full = (self.members.len() + 1) * MEMBER_BYTES > MEMBERS_BYTES;
                let before = if full { self.take_members() } else { None };
                self.members.push((UserId(member.user.0), MemberRow::blank()));
                before.into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// What is left of the last one.
    pub fn finish(&mut self) -> Vec<Import> {
        let members = self.take_members();
        let import = self.import;
        let given_up = self.conversation.take().map(|conversation| Import::GiveUp { conversation, import });
        members.into_iter().chain(given_up).collect()
    }

    fn take_members(&mut self) -> Option<Import> {
        let (members, conversation) = (std::mem::take(&mut self.members), self.conversation?);
        (!members.is_empty()).then_some(Import::Members { conversation, import: self.import, members })
    }
}

/// The step of a line that says who knows whom.
pub fn relation(line: Line) -> Option<Import> {
    let Line::Relation(relation) = line else { return None };
    let (user, peer) = (UserId(relation.user.0), UserId(relation.peer.0));
    Some(Import::Relation { user, peer, row: relation.row() })
}

/// The step of a record, without its body if it was erased.
pub fn record(import: ImportId, record: Record, erased: &Erased) -> Result<Import, &'static str> {
    let sealed = without_erased(record.sealed(CONTENT_INDEX)?, erased);
    Ok(Import::Record(ImportedRecord {
        conversation: sealed.conversation,
        import,
        seq: sealed.seq,
        ordinal: sealed.ordinal,
        kind: sealed.kind,
        sender: sealed.sender,
        server_msg_id: sealed.server_msg_id,
        client_msg_id: sealed.client_msg_id,
        body_hash: sealed.body_hash,
        time: sealed.time,
        body: match sealed.body {
            SealedBody::Kept(body) => Some(body),
            SealedBody::Removed => None,
        },
    }))
}
