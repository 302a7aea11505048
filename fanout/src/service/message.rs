//! Sending and reading messages.

use std::sync::Arc;

use bytes::Bytes;
use logstore::RecordKind;
use logstore::id::{ClientMsgId, ConnectionId, ConversationId, ConversationName, SeqId, UserId};
use sequencer::{Record, Stored};

use super::open_direct::OpenDirects;
use super::send::{self, Sender};
use super::{Core, is_uuid_v7, named, no_such_conversation, not_member};
use crate::pages::{Budget, newest_first, oldest_first};
use crate::visible::Visible;
use crate::{Code, Fault};

/// A message as a client hands it over, its place in the pipeline counted by the gateway.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where to.
    pub conversation: ConversationId,
    /// Its id.
    pub client_msg_id: ClientMsgId,
    /// What it is.
    pub kind: RecordKind,
    /// Its body.
    pub body: Bytes,
    /// The pipeline's epoch.
    pub epoch: u32,
    /// Place in (connection, epoch, conversation), from 1.
    pub n: u64,
}

/// What became of one message.
pub type SendOutcome = Result<Stored, Fault>;

/// What to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Of which conversation.
    pub conversation: ConversationId,
    /// First wanted (newest first: last wanted, 0: the head).
    pub from: SeqId,
    /// The other end, inclusive; 0: as far as there is.
    pub to: SeqId,
    /// Most records; 0: a screenful.
    pub limit: usize,
    /// Descending.
    pub newest_first: bool,
}

/// A page of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// In the order asked for.
    pub records: Vec<Record>,
    /// The newest record the reader may see.
    pub head: SeqId,
    /// Where the next page begins; `None`: complete.
    pub next_from: Option<SeqId>,
}

/// Records of a page whose reader does not say how many.
const PAGE_RECORDS_DEFAULT: usize = 50;

/// Bytes of a page: a quarter of the largest frame a client accepts, so that the record that spends it still fits.
const PAGE_BYTES: usize = 256 << 10;

/// The rules of messages.
pub struct Messages {
    core: Arc<Core>,
    sender: Arc<Sender>,
}

impl Messages {
    pub(super) fn new(core: Arc<Core>, opens: Arc<OpenDirects>) -> Messages {
        let sender = Arc::new(Sender::new(Arc::clone(&core), opens));
        Messages { core, sender }
    }

    /// What is wrong with a message whatever the log says, or `None`. Asked before its place in the pipeline is
    /// counted: a message refused here takes no `n`, so it stops nothing that follows.
    pub fn check(&self, sender: UserId, message: &Outgoing) -> Option<Fault> {
        let limit = self.core.limits.text_bytes;
        match () {
            () if message.body.len() as u64 > limit => {
                Some(Fault::new(Code::TooLong, format!("a message has at most {limit} bytes")))
            }
            () if !matches!(message.kind, RecordKind::TEXT | RecordKind::CUSTOM) => {
                Some(Fault::new(Code::BadField, "kind: 1 (text) or 2 (custom)"))
            }
            () if !is_uuid_v7(message.client_msg_id) => Some(Fault::new(Code::BadField, "client_msg_id: not a UUIDv7")),
            () if message.kind == RecordKind::TEXT && std::str::from_utf8(&message.body).is_err() => {
                Some(Fault::new(Code::NotUtf8, "a text has to be UTF-8"))
            }
            () => check_addressee(sender, message.conversation),
        }
    }

    /// What is wrong with this many messages in one request, or `None`; asked before any of them is counted.
    pub fn check_count(&self, messages: usize) -> Option<Fault> {
        let most = self.core.limits.batch_messages;
        match messages as u64 {
            0 => Some(Fault::new(Code::BadField, "no messages")),
            n if n > most => Some(Fault::new(Code::TooMany, format!("at most {most} messages a request"))),
            _ => None,
        }
    }

    /// Sends messages of one request, each to its shard; messages of one conversation keep their order, refusals included.
    /// Each has passed [`Messages::check`].
    ///
    /// `done` is called once, when every message is durable or refused, with one outcome each, in order; on a worker
    /// of the sequencer, so it must not block. Nothing is allocated per message beyond what the request brought.
    ///
    /// The first message of a 1:1 opens it. Until that is done, what the same connection sends waits behind it.
    pub fn send(&self, sender: UserId, origin: ConnectionId, messages: Vec<Outgoing>, done: send::Done) {
        debug_assert!(messages.iter().all(|m| self.check(sender, m).is_none()), "send takes checked messages");
        self.sender.send(sender, origin, messages, done);
    }

    /// A page of history, clipped to what the reader may see.
    pub async fn history(&self, reader: UserId, query: HistoryQuery) -> Result<HistoryPage, Fault> {
        named(query.conversation)?;
        let shard = self.core.shard_of(query.conversation);
        let seen = shard.look(|state, _| {
            let row = state.member(query.conversation, reader).ok_or_else(no_such_conversation)?;
            let conversation = state.conversation(query.conversation).ok_or_else(no_such_conversation)?;
            let seen = Visible::of(row, conversation.last_seq);
            Ok::<_, Fault>((seen.head(), seen.from(conversation.floor().before)))
        });
        let (head, visible) = seen.await??;
        #[cfg(feature = "plants")]
        let (head, visible) = super::stale_read::as_of_before(reader, query.conversation, (head, visible));
        let wanted = wanted(&query, &visible, self.core.limits.history_span)?;
        let mut budget = Budget { records: self.page_records(query.limit), bytes: PAGE_BYTES };
        let records = if query.newest_first {
            newest_first(&**shard, query.conversation, &wanted, &mut budget).await?
        } else {
            oldest_first(&**shard, query.conversation, &wanted, &mut budget).await?
        };
        let next_from = next_from(&records, &wanted, query.newest_first);
        Ok(HistoryPage { records, head, next_from })
    }

    fn page_records(&self, asked: usize) -> usize {
        let most = self.core.limits.history_records as usize;
        if asked == 0 { PAGE_RECORDS_DEFAULT.min(most) } else { asked.min(most) }
    }
}

/// Who may never be written to, whatever the log says.
fn check_addressee(sender: UserId, conversation: ConversationId) -> Option<Fault> {
    match conversation.name() {
        None => Some(no_such_conversation()),
        Some(ConversationName::Direct(low, high)) if sender != low && sender != high => Some(not_member()),
        Some(ConversationName::System(_)) => Some(Fault::new(Code::NotAllowed, "system logs are not written to")),
        Some(_) => None,
    }
}

/// The visible part of what a query asks for.
fn wanted(query: &HistoryQuery, visible: &Visible, span_max: u64) -> Result<Visible, Fault> {
    let (low, high) = if query.newest_first { (query.to, query.from) } else { (query.from, query.to) };
    let high_or_head = if high == SeqId(0) { visible.head().max(low) } else { high };
    let bad = |what: &str| Err(Fault::new(Code::BadRange, what));
    match () {
        () if low > high_or_head => bad("the range is reversed"),
        // An end that is left open costs no more than a page.
        () if query.to != SeqId(0) && high != SeqId(0) && high.0 - low.0 > span_max => bad("the range is too wide"),
        () => Ok(visible.within(low, high_or_head)),
    }
}

fn next_from(page: &[Record], wanted: &Visible, newest_first: bool) -> Option<SeqId> {
    let last = page.last()?.head.seq;
    if newest_first { wanted.before(last) } else { wanted.after(last) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visible::tests::member;

    fn query(from: u64, to: u64, newest_first: bool) -> HistoryQuery {
        HistoryQuery {
            conversation: ConversationId::group(1),
            from: SeqId(from),
            to: SeqId(to),
            limit: 0,
            newest_first,
        }
    }

    fn ends(query: &HistoryQuery) -> Result<(u64, u64), Code> {
        let visible = Visible::of(&member(&[(1, None)], 0), SeqId(10));
        let wanted = wanted(query, &visible, 1000).map_err(|fault| fault.code)?;
        Ok(wanted.spans().first().map_or((0, 0), |s| (s.first.0, s.last.0)))
    }

    #[test]
    fn an_open_end_reaches_as_far_as_there_is() {
        assert_eq!(ends(&query(0, 0, false)), Ok((1, 10)));
        assert_eq!(ends(&query(4, 0, false)), Ok((4, 10)));
        assert_eq!(ends(&query(0, 0, true)), Ok((1, 10)));
        assert_eq!(ends(&query(7, 0, true)), Ok((1, 7)));
        assert_eq!(ends(&query(0, 5, true)), Ok((5, 10)));
    }

    #[test]
    fn beyond_the_head_there_is_nothing_yet_and_that_is_no_error() {
        assert_eq!(ends(&query(11, 0, false)), Ok((0, 0)));
        assert_eq!(ends(&query(11, 20, false)), Ok((0, 0)));
        assert_eq!(ends(&query(0, 12, true)), Ok((0, 0)));
    }

    #[test]
    fn reversed_and_absurd_ranges_are_refused() {
        assert_eq!(ends(&query(5, 4, false)), Err(Code::BadRange));
        assert_eq!(ends(&query(4, 5, true)), Err(Code::BadRange));
        assert_eq!(ends(&query(1, u64::MAX, false)), Err(Code::BadRange));
        assert_eq!(ends(&query(u64::MAX, 1, true)), Err(Code::BadRange));
        assert_eq!(ends(&query(1, 1002, false)), Err(Code::BadRange));
        assert_eq!(ends(&query(1, 1001, false)), Ok((1, 10)));
    }

    #[test]
    fn only_a_uuid_of_version_7_names_a_message() {
        assert!(is_uuid_v7(ClientMsgId(0x018f3a5e_8c1d_7e52_a6c3_0d2b4f6a8c9e)));
        assert!(!is_uuid_v7(ClientMsgId(0x018f3a5e_8c1d_4e52_a6c3_0d2b4f6a8c9e)));
        assert!(!is_uuid_v7(ClientMsgId(0x018f3a5e_8c1d_7e52_e6c3_0d2b4f6a8c9e)));
        assert!(!is_uuid_v7(ClientMsgId(0)));
    }

    #[test]
    fn a_direct_is_written_to_by_its_two_users_only() {
        let (ann, ben, eve) = (UserId(1), UserId(2), UserId(3));
        let direct = ConversationId::direct(ann, ben);
        assert_eq!(check_addressee(ann, direct), None);
        assert_eq!(check_addressee(eve, direct).map(|f| f.code), Some(Code::NotMember));
        assert_eq!(check_addressee(ann, ConversationId::system(ann)).map(|f| f.code), Some(Code::NotAllowed));
        assert_eq!(check_addressee(ann, ConversationId(7)).map(|f| f.code), Some(Code::NoSuchConversation));
    }
}
